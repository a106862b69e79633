use super::*;
#[test]
fn what_began_before_a_mark_is_old_where_its_key_matches() {
    let epochs = Epochs::new(Mode::Keeping);
    let looked = |began, key: &str| epochs.serve(epochs.now(), began, key.as_bytes());
    let began = epochs.now();
    for (prefix, keys) in [("user:", ["user:", "user:1"]), ("b", ["b", "bcd"])] {
        assert!(matches!(epochs.invalidate_prefix(prefix.as_bytes()), Invalidated::Done));
        for key in keys {
            assert!(!looked(began, key) && !epochs.accept(began, key.as_bytes()), "{key}");
            assert!(looked(epochs.now(), key) && epochs.accept(epochs.now(), key.as_bytes()));
        }
    }
    for key in ["user", "use", "a", "a user:", "\0"] {
        assert!(looked(began, key) && epochs.accept(began, key.as_bytes()), "{key}");
    }
    // Between the two.
    let epochs = Epochs::new(Mode::Keeping);
    epochs.invalidate_prefix(b"a");
    let between = epochs.now();
    epochs.invalidate_prefix(b"b");
    assert!(epochs.accept(between, b"a1") && !epochs.accept(between, b"b1"));
    epochs.invalidate_prefix(b"a");
    assert!(!epochs.accept(between, b"a1"), "the newest of a prefix counts");
    assert!(matches!(epochs.invalidate_prefix(b""), Invalidated::Everything));
    assert!(!epochs.accept(between, b"c"));
}

#[test]
fn the_table_is_bounded_in_prefixes_lengths_and_bytes() {
    let numbered = |n: usize| n.to_be_bytes().to_vec();
    let long = |n: usize| [vec![b'l'; 32 << 10], numbered(n)].concat();
    let longer = |n: usize| vec![b'l'; n + 1];
    type Prefix<'a> = &'a dyn Fn(usize) -> Vec<u8>;
    let cases: [(Prefix<'_>, usize); 3] = [(&numbered, 4096), (&longer, 64), (&long, 32)];
    for (prefix, most) in cases {
        let epochs = Epochs::new(Mode::Keeping);
        let began = epochs.now();
        let again = (0..most - 1).chain(0..most - 1);
        assert!(
            again
                .clone()
                .all(|n| matches!(epochs.invalidate_prefix(&prefix(n)), Invalidated::Done))
        );
        assert!(epochs.accept(began, b"other"));
        let looked = epochs.now();
        let Invalidated::Full(full) = epochs.invalidate_prefix(&prefix(most)) else {
            panic!("{most}")
        };
        // Until the sweep has ended they count.
        assert!(!epochs.serve(epochs.now(), began, &prefix(3)) && full.covers(began, &prefix(3)));
        assert!(epochs.serve(epochs.now(), began, b"other"), "an entry");
        assert!(!epochs.accept(began, b"other"), "a load");
        epochs.swept(&full);
        assert!(epochs.serve(epochs.now(), began, &prefix(3)), "it is known to be gone");
        assert!(!epochs.serve(looked, began, &prefix(3)), "he may have seen it before");
        assert!(!epochs.accept(began, b"other"), "a load");
        assert!(epochs.accept(epochs.now(), &prefix(3)));
    }
}

#[test]
fn as_many_prefixes_during_a_sweep_forget_everything() {
    let epochs = Epochs::new(Mode::Keeping);
    let invalidate = |n: usize| epochs.invalidate_prefix(&n.to_be_bytes());
    let full = (0..4096).map(invalidate).last();
    let Some(Invalidated::Full(full)) = full else { panic!("{full:?}") };
    let began = epochs.now();
    assert!(matches!((0..4096).map(invalidate).last(), Some(Invalidated::Everything)));
    epochs.swept(&full);
    assert!(!epochs.serve(epochs.now(), began, b"other") && !epochs.accept(began, b"other"));
}
