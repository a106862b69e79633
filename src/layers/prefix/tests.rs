use super::*;
use crate::backends::Memory;
use crate::clock::ManualClock;
use crate::error::{ErrorKind, Operation};
use crate::ext::{ReadExt, StoreExt};
use crate::layers::metrics::MetricsLayer;
use crate::telemetry::Labels;
use crate::testing::conformance::{Fixture, assert_conforms};
use crate::testing::{FaultStore, Faults};

async fn filled(prefix: &'static [u8]) -> (Arc<Memory>, Prefix<Arc<Memory>>) {
    let below = Arc::new(Memory::new());
    let store = PrefixLayer::new(prefix).unwrap().layer(Arc::clone(&below));
    for outside in [&b"\x00"[..], b"o", b"p0", b"q", b"\xff", b"\xff\xff", prefix] {
        let _ = below.put(outside, "foreign").await.unwrap();
    }
    for key in ["a", "b", "b1", "c"] {
        let _ = store.put(key, key).await.unwrap();
    }
    let _ = store.put(&b"\xff\xff"[..], "last").await.unwrap();
    (below, store)
}

async fn keys(store: &impl Read, scan: Scan) -> Vec<Bytes> {
    store.collect(scan).await.unwrap().into_iter().map(|entry| entry.key).collect()
}

/// Prefixes with a successor, and without one.
const PREFIXES: [&[u8]; 3] = [b"p/", b"p\xff", b"\xff\xff\xff"];

#[tokio::test]
async fn a_stack_sees_its_own_entries_only() {
    for prefix in PREFIXES {
        let (below, store) = filled(prefix).await;
        let own = [&b"a"[..], b"b", b"b1", b"c", b"\xff\xff"];
        assert_eq!(keys(&store, Scan::all()).await, own);
        let mut backwards = own;
        backwards.reverse();
        assert_eq!(keys(&store, Scan::all().reverse()).await, backwards);
        assert_eq!(store.get(b"o").await.unwrap(), None);
        let _ = store.delete("o").await.unwrap();
        assert!(below.contains(b"o").await.unwrap());
        assert!(below.contains(&[prefix, b"a"].concat()).await.unwrap());
    }
}

#[tokio::test]
async fn ranges_and_limits_are_of_the_keys_above() {
    for prefix in PREFIXES {
        let (_, store) = filled(prefix).await;
        assert_eq!(keys(&store, Scan::range("b".."c")).await, ["b", "b1"]);
        assert_eq!(keys(&store, Scan::range("b"..="c").limit(2)).await, ["b", "b1"]);
        assert_eq!(
            keys(&store, Scan::range("b"..).reverse().limit(2)).await,
            [&b"\xff\xff"[..], b"c"]
        );
        assert_eq!(keys(&store, Scan::range(.."b")).await, ["a"]);
        assert_eq!(keys(&store, Scan::range(""..="a")).await, ["a"]);
        assert_eq!(keys(&store, Scan::range(..="")).await, [""; 0]);
        let behind = (Bound::Excluded("b"), Bound::Excluded("c"));
        assert_eq!(keys(&store, Scan::range::<&str>(behind)).await, ["b1"]);
        assert_eq!(keys(&store, Scan::prefix(b"\xff")).await, [&b"\xff\xff"[..]]);
    }
}

#[tokio::test]
async fn a_snapshot_has_the_same_keys() {
    let (_, store) = filled(b"p/").await;
    let snapshot = store.snapshot().await.unwrap();
    let _ = store.delete("a").await.unwrap();
    assert_eq!(snapshot.get(b"a").await.unwrap(), Some("a".into()));
    assert_eq!(keys(&snapshot, Scan::all().limit(2)).await, ["a", "b"]);
}

#[tokio::test]
async fn an_empty_key_is_refused_and_not_taken_for_the_prefix() {
    let (_, store) = filled(b"p/").await;
    assert_eq!(store.get(b"").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(store.get_many(&[Bytes::new()]).await.is_err());
    assert!(store.delete("").await.is_err());
}

#[tokio::test]
async fn the_prefix_counts_towards_the_longest_key() {
    let store = PrefixLayer::new("p/").unwrap().layer(Memory::new());
    let longest = store.profile().guarantees.limits.key_bytes;
    assert_eq!(longest, Limits::MAX_KEY_BYTES - 2);
    let _ = store.put(vec![0; longest], "v").await.unwrap();
    assert!(store.contains(&vec![0; longest]).await.unwrap());
    let error = store.put(vec![0; longest + 1], "v").await.unwrap_err();
    assert!(error.to_string().contains("65534"), "{error}");
    assert!(store.get(&vec![0; longest + 1]).await.is_err());
}

#[tokio::test]
async fn what_is_in_memory_is_answered_at_once() {
    let (_, store) = filled(b"p/").await;
    assert!(matches!(store.get(b"a"), Reply::Now(Ok(Some(_)))));
    assert!(matches!(store.get_many(&["a".into()]), Reply::Now(Ok(_))));
    let long = [b'k'; 2 * ON_STACK];
    let _ = store.put(long.to_vec(), "v").await.unwrap();
    assert_eq!(store.get(&long).await.unwrap(), Some("v".into()));
}

#[test]
fn a_prefix_that_leaves_no_room_is_refused() {
    let check = |prefix: String| PrefixConfig { prefix }.profile(Memory::new().profile());
    // What a key behind it could make a key of tierstack's own.
    for prefix in ["\0", "\0tier", "\0tierstack/", "\0tierstack/restore"] {
        let error = check(prefix.to_owned()).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains("\\0tierstack/"));
    }
    for prefix in ["\0tierstuck", "\0\0", "tierstack/", "\u{1}"] {
        check(prefix.to_owned()).unwrap();
    }
    assert!(check(String::new()).unwrap_err().to_string().contains("at least 1 byte"));
    assert!(check("p".repeat(Limits::MAX_KEY_BYTES)).is_err());
    let mut below = Memory::new().profile();
    below.guarantees.limits.key_bytes = 10;
    let error = PrefixConfig { prefix: "p".repeat(10) }.profile(below).unwrap_err();
    assert!(error.to_string().contains("10"), "{error}");
}

#[test]
fn the_prefix_is_not_printed() {
    let store = PrefixLayer::new("hidden").unwrap().layer(Memory::new());
    assert!(!format!("{:?}", store.keys).contains("hidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    assert_conforms(|| async {
        let clock = ManualClock::new();
        let memory = Memory::with_clock(Arc::new(clock.clone()));
        Ok(Fixture::new(PrefixLayer::new("p\u{ff}")?.layer(memory)).with_clock(&clock))
    })
    .await;
}

#[test]
fn what_others_change_beside_the_prefix_is_not_reported() {
    let keys = |keys: &[&'static str]| Change::Keys(keys.iter().map(|key| (*key).into()).collect());
    let below = [
        keys(&["p/a", "q/a", "p/b", "p/", "p"]),
        keys(&["q/a"]),
        Change::Lost,
        Change::All,
        keys(&["p/c"]),
    ];
    let above: Vec<_> =
        below.into_iter().filter_map(|change| change_above(b"p/", change)).collect();
    assert_eq!(above, [keys(&["a", "b"]), Change::Lost, Change::All, keys(&["c"])]);
}

#[tokio::test]
async fn a_run_goes_under_the_prefix_and_its_keys_are_checked() {
    for prefix in PREFIXES {
        let (below, store) = filled(prefix).await;
        let from = Memory::new();
        let _ = from.write(Batch::new().put("b", "new").put("d", "new")).await.unwrap();
        assert_eq!(store.ingest(from.scan(Scan::all())).await.unwrap(), 2);
        assert_eq!(below.get(&[prefix, b"d"].concat()).await.unwrap(), Some("new".into()));
        assert_eq!(below.get(b"o").await.unwrap(), Some("foreign".into()));

        let too_long = vec![b'k'; Limits::MAX_KEY_BYTES - prefix.len() + 1];
        let _ = from.put(too_long, "v").await.unwrap();
        let refused = store.ingest(from.scan(Scan::all())).await.unwrap_err();
        assert_eq!((refused.kind(), refused.layer()), (ErrorKind::InvalidInput, Some("prefix")));
    }
}

#[tokio::test]
async fn a_batch_that_depends_on_absent_keys_means_those_under_the_prefix() {
    let (_, store) = filled(b"p/").await;
    let _ = store.write(Batch::new().put("o", "v").if_absent()).await.unwrap();
    let refused = store.write(Batch::new().put("a", "v").if_absent()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn the_entries_of_others_are_not_counted() {
    let (_, store) = filled(b"p/").await;
    assert_eq!(store.usage().await.unwrap().entries, None);
    assert_eq!(store.profile().guarantees.counts, Counting::No);
}

#[tokio::test]
async fn the_keys_of_an_invalidation_and_an_inspection_get_the_prefix() {
    let keys = Keys { prefix: "p/".into(), longest: 100 };
    for (above, below) in [
        (Scope::Keys(vec!["a".into()]), Scope::Keys(vec!["p/a".into()])),
        (Scope::Prefix("a".into()), Scope::Prefix("p/a".into())),
        (Scope::All, Scope::Prefix("p/".into())),
    ] {
        assert_eq!(keys.scope_below(above), below);
    }
    let (_, store) = filled(b"p/").await;
    let [seen] = &store.inspect(b"a").await.unwrap()[..] else { panic!("one place") };
    assert_eq!(seen.presence, crate::types::Presence::Entry);
    let [foreign] = &store.inspect(b"o").await.unwrap()[..] else { panic!("one place") };
    assert_eq!(foreign.presence, crate::types::Presence::None);
}

#[test]
fn a_prefix_that_is_reported_below_is_one_above() {
    for (below, above) in [
        ("p/a", Some("a")),
        ("p/", Some("")),
        ("p", Some("")),
        ("", Some("")),
        ("q", None),
        ("p0", None),
    ] {
        let change = change_above(b"p/", Change::Prefix(below.into()));
        assert_eq!(change, above.map(|above| Change::Prefix(above.into())), "{below}");
    }
}

#[tokio::test]
async fn an_error_names_the_key_as_it_is_above() {
    let faults = Faults::new();
    let below = MetricsLayer::new(Labels::new("main", "memory"))
        .layer(FaultStore::new(Memory::new(), &faults));
    let store = PrefixLayer::new("p/").unwrap().layer(below);
    faults.on(Operation::Get).fail(ErrorKind::Corruption);
    let error = store.get(b"a").await.unwrap_err();
    assert_eq!(error.key(), Some(&b"a"[..]));
    let foreign = store.keys.error_above(Error::closed().with_key(b"q"));
    assert_eq!(foreign.key(), Some(&b"q"[..]));
}
