mod sweeping;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use self::sweeping::OneByOne;
use super::*;
use crate::backends::Memory;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::error::{ErrorKind, Operation};
use crate::ext::{ReadExt, StoreExt};
use crate::forward;
use crate::reply::Reply;
use crate::testing::conformance::{Fixture, assert_conforms};
use crate::testing::{FaultStore, Faults};
use crate::types::Page;

const SECOND: Duration = Duration::from_secs(1);

type Below = Arc<FaultStore<Memory>>;

fn context(clock: &ManualClock) -> Context {
    Context { clock: Arc::new(clock.clone()), ..Context::default() }
}

/// Nothing is swept in the background.
fn over_memory(config: &ExpireConfig) -> (Expire<Below>, Below, Faults, ManualClock) {
    let clock = ManualClock::new();
    let faults = Faults::seeded(0, Arc::new(clock.clone()));
    let below = Arc::new(FaultStore::new(Memory::new(), &faults));
    let layer = ExpireLayer::new(config, &context(&clock)).unwrap();
    (layer.layer(Arc::clone(&below)), below, faults, clock)
}

fn value(bytes: &'static str, expires_at: Timestamp) -> Value {
    Value::new(bytes).expiring_at(expires_at)
}

async fn keys(store: &impl Read, scan: Scan) -> Vec<Bytes> {
    store.collect(scan).await.unwrap().into_iter().map(|entry| entry.key).collect()
}

/// Entries 0 to 99, of which those not divisible by ten expire in a second.
async fn mostly_expiring(store: &impl Store, clock: &ManualClock) {
    let at = clock.now() + SECOND;
    for key in 0..100u8 {
        let value = if key % 10 == 0 { Value::from("stays") } else { value("goes", at) };
        let _ = store.put(vec![key], value).await.unwrap();
    }
}

#[tokio::test]
async fn an_entry_is_gone_from_its_deadline_on_for_every_read() {
    let (store, _, _, clock) = over_memory(&ExpireConfig::default());
    let at = clock.now() + SECOND;
    let batch = Batch::new().put("a", "stays").put("b", value("goes", at)).put("c", "stays");
    let _ = store.write(batch).await.unwrap();
    clock.advance(SECOND - Duration::from_millis(1));
    assert_eq!(store.get(b"b").await.unwrap(), Some(value("goes", at)), "with its deadline");
    assert_eq!(keys(&store, Scan::all()).await, ["a", "b", "c"]);

    clock.advance(Duration::from_millis(1));
    assert_eq!(store.get(b"b").await.unwrap(), None);
    let many = store.get_many(&["b".into(), "a".into(), "x".into()]).await.unwrap();
    assert_eq!(many, [None, Some("stays".into()), None]);
    assert_eq!(keys(&store, Scan::all()).await, ["a", "c"]);
    assert_eq!(keys(&store, Scan::all().reverse()).await, ["c", "a"]);
    assert!(store.snapshot().await.unwrap().get(b"b").await.unwrap().is_none());
}

#[tokio::test]
async fn limits_count_what_is_there_and_no_page_is_empty() {
    let (store, _, _, clock) = over_memory(&ExpireConfig::default());
    mostly_expiring(&store, &clock).await;
    clock.advance(SECOND);
    for limit in 0..12 {
        for page_entries in [1, 3, 1000] {
            let scan = Scan::all().limit(limit).page_entries(page_entries);
            let expected: Vec<u8> = (0..10).map(|ten| ten * 10).take(limit as usize).collect();
            let pages: Vec<Page> = store.scan(scan.clone()).try_collect().await.unwrap();
            assert!(pages.iter().all(|page| !page.is_empty() && page.len() <= page_entries));
            let found: Vec<u8> = pages.iter().flat_map(|p| &p.entries).map(|e| e.key[0]).collect();
            assert_eq!(found, expected);
            let reverse: Vec<u8> = (0..10).rev().map(|n| n * 10).take(limit as usize).collect();
            assert_eq!(keys(&store, scan.reverse()).await.concat(), reverse);
        }
    }
}

#[tokio::test]
async fn in_a_snapshot_time_stands_still() {
    let (store, _, _, clock) = over_memory(&ExpireConfig::default());
    let _ = store.put("k", value("v", clock.now() + SECOND)).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    clock.advance(SECOND);
    assert_eq!(store.sweep().await.unwrap(), 1);
    assert!(snapshot.contains(b"k").await.unwrap());
    assert_eq!(keys(&snapshot, Scan::all().limit(1)).await, ["k"]);
    assert!(!store.contains(b"k").await.unwrap());
}

#[tokio::test]
async fn the_moment_of_a_snapshot_is_that_of_the_call() {
    let (store, _, faults, clock) = over_memory(&ExpireConfig::default());
    let _ = store.put("k", value("v", clock.now() + SECOND)).await.unwrap();
    let gate = faults.on(Operation::Snapshot).hold();
    let mut snapshot = spawn(store.snapshot());
    assert!(snapshot.poll().is_pending());
    clock.advance(SECOND);
    gate.open();
    let snapshot = assert_ready!(snapshot.poll()).unwrap();
    assert!(snapshot.contains(b"k").await.unwrap());
}

#[tokio::test]
async fn an_entry_written_without_a_deadline_gets_the_default() {
    let config = ExpireConfig { default_ttl: Some(Span(SECOND)), ..ExpireConfig::default() };
    let (store, _, _, clock) = over_memory(&config);
    let _ = store.put("default", "v").await.unwrap();
    let _ = store.put("own", value("v", clock.now() + 2 * SECOND)).await.unwrap();
    clock.advance(SECOND);
    assert_eq!(keys(&store, Scan::all()).await, ["own"]);
}

#[tokio::test]
async fn entries_from_before_the_layer_are_read_where_that_is_accepted() {
    let accepting = ExpireConfig { accept_plain: true, ..ExpireConfig::default() };
    let (store, below, _, clock) = over_memory(&accepting);
    let at = clock.now() + SECOND;
    let _ = below.put("plain", "v").await.unwrap();
    assert_eq!(store.get(b"plain").await.unwrap(), Some("v".into()));
    let _ = store.put("plain", value("new", at)).await.unwrap();
    clock.advance(SECOND);
    assert_eq!(store.get(b"plain").await.unwrap(), None);

    let (store, below, _, _) = over_memory(&ExpireConfig::default());
    let _ = below.put("plain", "v").await.unwrap();
    for error in [
        store.get(b"plain").await.unwrap_err(),
        store.get_many(&["plain".into()]).await.unwrap_err(),
        store.collect(Scan::all()).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.layer()), (ErrorKind::Corruption, Some("expire")));
        assert!(error.key_fingerprint().is_some());
        assert!(error.to_string().contains("accept_plain"), "{error}");
    }
}

#[tokio::test]
async fn a_deadline_that_the_store_below_keeps_is_told() {
    let accepting = ExpireConfig { accept_plain: true, ..ExpireConfig::default() };
    let (store, below, _, clock) = over_memory(&accepting);
    // The store below runs on the system's clock: far enough away for both.
    let at = clock.now() + 365 * 100 * 24 * 3600 * SECOND;
    let _ = below.put("k", value("v", at)).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some(value("v", at)));
}

#[tokio::test]
async fn what_is_in_memory_is_answered_at_once() {
    let (store, _, _, clock) = over_memory(&ExpireConfig::default());
    let _ = store.put("k", value("v", clock.now() + SECOND)).await.unwrap();
    assert!(matches!(store.get(b"k"), Reply::Now(Ok(Some(_)))));
    assert!(matches!(store.get_many(&["k".into()]), Reply::Now(Ok(_))));
}

#[test]
fn a_store_that_cannot_be_swept_is_refused_with_the_setting() {
    let config = ExpireConfig::default();
    let unordered = Memory::new().profile().changed(|g| g.ordered_scans = false);
    let read_only = Memory::new().profile().changed(|g| g.writable = false);
    let without = |conditions| Memory::new().profile().changed(|g| g.conditions = conditions);
    let (none, absence) = (without(Conditions::None), without(Conditions::Absence));
    for below in [unordered, read_only, none, absence] {
        let error = config.profile(below.clone()).unwrap_err();
        assert!(error.to_string().contains("sweep_every: 0s"), "{error}");
        let config = ExpireConfig { sweep_every: Span::default(), ..config.clone() };
        assert!(config.profile(below).unwrap().notes.iter().any(|note| note.contains("compact")));
    }
    let config = ExpireConfig { default_ttl: Some(Span::default()), ..config };
    assert!(config.profile(Memory::new().profile()).is_err());
}

#[test]
fn the_profile_offers_expiry_and_counts_the_header() {
    let below = Memory::new().profile().changed(|guarantees| {
        guarantees.expiry = false;
        guarantees.limits.value_bytes = Some(1000);
    });
    let profile = ExpireConfig::default().profile(below).unwrap();
    assert!(profile.guarantees.expiry && profile.notes.is_empty());
    assert_eq!(profile.guarantees.limits.value_bytes, Some(1000 - header::LENGTH as u64));
    let over_native = ExpireConfig::default().profile(Memory::new().profile()).unwrap();
    assert!(over_native.notes[0].contains("itself"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    for accept_plain in [false, true] {
        assert_conforms(|| async move {
            let clock = ManualClock::new();
            let config = ExpireConfig { accept_plain, ..ExpireConfig::default() };
            let layer = ExpireLayer::new(&config, &context(&clock))?;
            let memory = Memory::with_clock(Arc::new(clock.clone()));
            Ok(Fixture::new(layer.layer(memory)).with_clock(&clock))
        })
        .await;
    }
}

/// With the sweeper at work all the time.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_while_sweeping() {
    assert_conforms(|| async {
        let clock = ManualClock::new();
        let layer = ExpireLayer::new(&ExpireConfig::default(), &context(&clock))?;
        let memory = Memory::with_clock(Arc::new(clock.clone()));
        let store = Arc::new(layer.layer(memory));
        let swept = Arc::downgrade(&store);
        tokio::spawn(async move {
            while let Some(store) = swept.upgrade()
                && store.sweep().await.is_ok()
            {
                drop(store);
                tokio::task::yield_now().await;
            }
        });
        Ok(Fixture::new(store).with_clock(&clock))
    })
    .await;
}

/// `compress` is outside; its rewrite writes through this layer.
#[cfg(feature = "compress")]
#[tokio::test]
async fn a_rewrite_of_a_layer_outside_gives_no_entry_a_deadline() {
    use crate::layer::Rewrite;
    use crate::layers::compress::{Codec, CompressConfig, CompressLayer};
    let compress = |codec| {
        let config = CompressConfig { codec, ..CompressConfig::default() };
        CompressLayer::new(&config, &crate::telemetry::Labels::default()).unwrap()
    };
    let (_, below, _, clock) = over_memory(&ExpireConfig::default());
    let text = "the same again, ".repeat(100);
    let expire = |default_ttl| {
        let config = ExpireConfig { default_ttl, ..ExpireConfig::default() };
        Arc::new(ExpireLayer::new(&config, &context(&clock)).unwrap().layer(Arc::clone(&below)))
    };
    let before = compress(Codec::Zstd).layer(expire(None));
    let _ = before.put("k", text.clone()).await.unwrap();

    let (lz4, expire) = (compress(Codec::Lz4), expire(Some(Span(SECOND))));
    let rewriter = lz4.rewriter(Arc::clone(&expire) as _);
    assert_eq!(rewriter.rewrite(Scan::all(), &mut |_| ()).await.unwrap().rewritten, 1);
    clock.advance(SECOND);
    assert_eq!(lz4.layer(expire).get(b"k").await.unwrap(), Some(text.into()));
}

/// Pages of one entry, each a second after the one before.
fn slow_run<'a>(keys: &'a [&'static str], clock: &'a ManualClock) -> Pages<'a> {
    let page = |key: &&'static str| {
        clock.advance(SECOND);
        let entries = vec![Entry { key: (*key).into(), value: "v".into() }];
        Ok(Page { entries })
    };
    futures_util::stream::iter(keys.iter().map(page)).boxed()
}

#[tokio::test]
async fn the_default_of_an_entry_in_a_run_begins_when_it_is_written() {
    let config = ExpireConfig { default_ttl: Some(Span(SECOND)), ..ExpireConfig::default() };
    let (store, _, _, clock) = over_memory(&config);
    store.ingest(slow_run(&["a", "b", "c"], &clock)).await.unwrap();
    assert_eq!(keys(&store, Scan::all()).await, ["c"]);
}

#[tokio::test]
async fn conditions_need_a_store_below_that_compares_values() {
    let clock = ManualClock::new();
    let layer = ExpireLayer::new(&ExpireConfig::default(), &context(&clock)).unwrap();
    let store = layer.layer(OneByOne { compares: false, ..OneByOne::default() });
    let refused = store.write(Batch::new().put("k", "v").if_absent()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.layer()), (ErrorKind::Unsupported, Some("expire")));
    assert_eq!(store.profile().guarantees.conditions, Conditions::None);
    assert_eq!(store.sweep().await.unwrap(), 0, "there is nothing");
    store.compact().await.unwrap();
    assert_eq!(store.usage().await.unwrap().entries, Some(0));
}

#[tokio::test]
async fn an_inspection_tells_the_deadline_of_the_header() {
    let (store, _, _, clock) = over_memory(&ExpireConfig::default());
    let at = clock.now() + SECOND;
    let _ = store.put("k", Value::from("v").expiring_at(at)).await.unwrap();
    let _ = store.put("for ever", "v").await.unwrap();
    let deadline = async |key: &[u8]| store.inspect(key).await.unwrap()[0].expires_at;
    assert_eq!((deadline(b"k").await, deadline(b"for ever").await), (Some(at), None));
    // Not swept yet.
    clock.advance(SECOND);
    assert_eq!(store.get(b"k").await.unwrap(), None);
    assert_eq!(deadline(b"k").await, Some(at));
    assert_eq!(deadline(b"missing").await, None);
}

/// The header of a value says when its entry expires, so it is looked at, and not shown.
#[tokio::test]
async fn a_scan_of_keys_only_gives_the_keys_of_what_is_live() {
    let (store, below, _, clock) = over_memory(&ExpireConfig::default());
    mostly_expiring(&store, &clock).await;
    clock.advance(SECOND);
    let snapshot = store.snapshot().await.unwrap();
    for scan in [Scan::all(), Scan::all().limit(3).page_entries(2), Scan::all().reverse()] {
        let want = keys(&store, scan.clone()).await;
        for found in [
            store.collect(scan.clone().keys_only()).await.unwrap(),
            snapshot.collect(scan.clone().keys_only()).await.unwrap(),
        ] {
            assert!(found.iter().all(|entry| entry.value == Value::default()));
            assert_eq!(found.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), want);
        }
    }
    let _ = below.put(vec![5], "no header").await.unwrap();
    let error = store.collect(Scan::all().keys_only()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}
