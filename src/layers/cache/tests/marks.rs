use super::super::era::{Eras, Mode};
use super::super::marks::Marked;

#[test]
fn what_began_before_a_mark_is_old_where_its_key_matches() {
    let eras = Eras::new(Mode::Keeping);
    let looked = |began, key: &str| eras.serve(eras.now(), began, key.as_bytes());
    let began = eras.now();
    for (prefix, keys) in [("user:", ["user:", "user:1"]), ("b", ["b", "bcd"])] {
        assert!(matches!(eras.mark(prefix.as_bytes()), Marked::Done));
        for key in keys {
            assert!(!looked(began, key) && !eras.accept(began, key.as_bytes()), "{key}");
            assert!(looked(eras.now(), key) && eras.accept(eras.now(), key.as_bytes()));
        }
    }
    for key in ["user", "use", "a", "a user:", "\0"] {
        assert!(looked(began, key) && eras.accept(began, key.as_bytes()), "{key}");
    }
    // Between the two.
    let eras = Eras::new(Mode::Keeping);
    eras.mark(b"a");
    let between = eras.now();
    eras.mark(b"b");
    assert!(eras.accept(between, b"a1") && !eras.accept(between, b"b1"));
    eras.mark(b"a");
    assert!(!eras.accept(between, b"a1"), "the newest of a prefix counts");
    assert!(matches!(eras.mark(b""), Marked::Everything));
    assert!(!eras.accept(between, b"c"));
}

#[test]
fn the_table_is_bounded_in_prefixes_lengths_and_bytes() {
    let numbered = |n: usize| n.to_be_bytes().to_vec();
    let long = |n: usize| [vec![b'l'; 32 << 10], numbered(n)].concat();
    let longer = |n: usize| vec![b'l'; n + 1];
    type Prefix<'a> = &'a dyn Fn(usize) -> Vec<u8>;
    let cases: [(Prefix<'_>, usize); 3] = [(&numbered, 4096), (&longer, 64), (&long, 32)];
    for (prefix, most) in cases {
        let eras = Eras::new(Mode::Keeping);
        let began = eras.now();
        let again = (0..most - 1).chain(0..most - 1);
        assert!(again.clone().all(|n| matches!(eras.mark(&prefix(n)), Marked::Done)));
        assert!(eras.accept(began, b"other"));
        let looked = eras.now();
        let Marked::Full(full) = eras.mark(&prefix(most)) else { panic!("{most}") };
        // Until the sweep has ended they count.
        assert!(!eras.serve(eras.now(), began, &prefix(3)) && full.covers(began, &prefix(3)));
        assert!(eras.serve(eras.now(), began, b"other"), "an entry");
        assert!(!eras.accept(began, b"other"), "a load");
        eras.swept(&full);
        assert!(eras.serve(eras.now(), began, &prefix(3)), "it is known to be gone");
        assert!(!eras.serve(looked, began, &prefix(3)), "he may have seen it before");
        assert!(!eras.accept(began, b"other"), "a load");
        assert!(eras.accept(eras.now(), &prefix(3)));
    }
}

#[test]
fn as_many_marks_during_a_sweep_forget_everything() {
    let eras = Eras::new(Mode::Keeping);
    let mark = |n: usize| eras.mark(&n.to_be_bytes());
    let full = (0..4096).map(mark).last();
    let Some(Marked::Full(full)) = full else { panic!("{full:?}") };
    let began = eras.now();
    assert!(matches!((0..4096).map(mark).last(), Some(Marked::Everything)));
    eras.swept(&full);
    assert!(!eras.serve(eras.now(), began, b"other") && !eras.accept(began, b"other"));
}
