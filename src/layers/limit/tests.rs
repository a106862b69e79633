use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use super::*;
use crate::backends::Memory;
use crate::clock::ManualClock;
use crate::ext::{ReadExt, StoreExt};
use crate::testing::conformance::{Fixture, assert_conforms};
use crate::testing::{FaultStore, Faults};

const SECOND: Duration = Duration::from_secs(1);

fn context(clock: &ManualClock) -> Context {
    Context { clock: Arc::new(clock.clone()), ..Context::default() }
}

fn operations(operations: usize) -> LimitConfig {
    LimitConfig { operations, ..LimitConfig::default() }
}

/// Entries `a` to `f`.
async fn filled(config: &LimitConfig) -> (Limit<FaultStore<Memory>>, Faults, ManualClock) {
    let clock = ManualClock::new();
    let faults = Faults::seeded(0, Arc::new(clock.clone()));
    let memory = Memory::new();
    for key in ["a", "b", "c", "d", "e", "f"] {
        let _ = memory.put(key, key).await.unwrap();
    }
    let layer = LimitLayer::new(config, &context(&clock)).unwrap();
    (layer.layer(FaultStore::new(memory, &faults)), faults, clock)
}

#[tokio::test]
async fn no_more_than_the_limit_wait_for_the_store_below() {
    let (store, faults, _) = filled(&operations(2)).await;
    let gate = faults.on_all().hold();
    let keys = ["a".into()];
    let mut read = spawn(store.get(b"a"));
    let mut reads = spawn(store.get_many(&keys));
    let mut write = spawn(store.put("k", "v"));
    let mut scan = spawn(store.collect(Scan::all()));
    let mut usage = spawn(store.usage());
    let mut snapshot = spawn(store.snapshot());
    assert_pending!(read.poll());
    assert_pending!(reads.poll());
    assert_pending!(write.poll());
    assert_pending!(scan.poll());
    assert_pending!(usage.poll());
    assert!(snapshot.poll().is_pending());
    assert_ready!(spawn(gate.reached(2)).poll());
    assert_pending!(spawn(gate.reached(3)).poll());
    gate.open();
    assert_ready!(read.poll()).unwrap();
    assert_ready!(reads.poll()).unwrap();
    let _ = assert_ready!(write.poll()).unwrap();
    assert_pending!(scan.poll(), "has a page, and queues for the next");
    assert_ready!(usage.poll()).unwrap();
    assert!(assert_ready!(snapshot.poll()).is_ok());
    assert_ready!(scan.poll()).unwrap();
}

/// The deadlock that permits held by streams cause.
#[tokio::test]
async fn a_scan_whose_loop_reads_the_same_store_works_with_one_operation() {
    let (store, faults, _) = filled(&operations(1)).await;
    faults.on_all().delay(Duration::ZERO);
    let mut copy = spawn(async {
        let mut pages = store.scan(Scan::all().page_entries(2));
        let mut seen = 0;
        while let Some(page) = pages.try_next().await? {
            for entry in page.entries {
                let _ = store.put(entry.key.clone(), "new").await?;
                assert_eq!(store.get(&entry.key).await?, Some("new".into()));
                seen += 1;
            }
        }
        Ok::<_, Error>(seen)
    });
    assert_eq!(assert_ready!(copy.poll()).unwrap(), 6);
}

#[tokio::test]
async fn a_stream_that_nobody_polls_holds_nothing() {
    let (store, faults, _) = filled(&operations(1)).await;
    faults.on_all().delay(Duration::ZERO);
    let _unpolled = store.scan(Scan::all());
    let mut begun = store.scan(Scan::all().page_entries(1));
    begun.next().await.unwrap().unwrap();
    let _unpolled_get = store.get(b"a");
    assert_eq!(store.turns.permits.available_permits(), 1);
    assert!(assert_ready!(spawn(store.get(b"a")).poll()).is_ok());
}

#[tokio::test]
async fn what_is_in_memory_needs_no_permit() {
    let (store, faults, _) = filled(&operations(1)).await;
    let _gate = faults.on(Operation::Write).hold();
    let mut write = spawn(store.put("k", "v"));
    assert_pending!(write.poll());
    assert_eq!(store.turns.permits.available_permits(), 0, "or this tests nothing");
    assert!(matches!(store.get(b"a"), Reply::Now(Ok(Some(_)))));
    assert!(matches!(store.get_many(&["a".into()]), Reply::Now(Ok(_))));
}

#[tokio::test]
async fn who_waits_longest_is_next() {
    let (store, faults, _) = filled(&operations(1)).await;
    let gate = faults.on(Operation::Get).times(1).hold();
    faults.on(Operation::Get).delay(Duration::ZERO);
    let mut first = spawn(store.get(b"a"));
    let (mut second, mut third) = (spawn(store.get(b"b")), spawn(store.get(b"c")));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    gate.open();
    assert_ready!(first.poll()).unwrap();
    assert_pending!(third.poll(), "not before the second");
    assert_pending!(spawn(store.get(b"d")).poll(), "nor a reader that comes now");
    assert_ready!(second.poll()).unwrap();
    assert_ready!(third.poll()).unwrap();
}

#[tokio::test]
async fn a_dropped_operation_gives_its_permit_back() {
    let (store, faults, _) = filled(&operations(1)).await;
    let _gate = faults.on(Operation::Get).times(2).hold();
    faults.on(Operation::Get).delay(Duration::ZERO);
    let mut hangs = spawn(store.get(b"a"));
    assert_pending!(hangs.poll());
    let mut waits = spawn(store.get(b"b"));
    assert_pending!(waits.poll());
    drop(waits);
    drop(hangs);
    assert!(assert_ready!(spawn(store.get(b"c")).poll()).is_ok());
    assert_eq!(store.turns.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_turn_that_does_not_come_in_time_is_an_error_and_nothing_was_done() {
    let config = LimitConfig { wait: Some(Span(SECOND)), ..operations(1) };
    let (store, faults, clock) = filled(&config).await;
    let gate = faults.on(Operation::Write).hold();
    let mut first = spawn(store.put("k", "1"));
    assert_pending!(first.poll());
    let mut second = spawn(store.put("k", "2"));
    assert_pending!(second.poll());
    clock.advance(SECOND);
    let error = assert_ready!(second.poll()).unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Capacity, Retry::Later));
    assert_eq!(error.operation(), Some(Operation::Write));
    assert_eq!(faults.calls(Operation::Write), 1);
    gate.open();
    let _ = assert_ready!(first.poll()).unwrap();
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let config = LimitConfig { queue: Some(1), ..operations(1) };
    let (store, faults, _) = filled(&config).await;
    let gate = faults.on(Operation::Write).hold();
    let (mut first, mut second) = (spawn(store.put("k", "1")), spawn(store.put("k", "2")));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    for _ in 0..2 {
        let error = assert_ready!(spawn(store.put("k", "3")).poll()).unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Capacity, Retry::Later));
    }
    gate.open();
    let _ = assert_ready!(first.poll()).unwrap();
    let _ = assert_ready!(second.poll()).unwrap();
}

#[tokio::test]
async fn a_store_that_is_overrun_can_be_shut_down() {
    let (store, faults, _) = filled(&operations(1)).await;
    let _gate = faults.on(Operation::Write).hold();
    let mut hangs = spawn(store.put("k", "v"));
    assert_pending!(hangs.poll());
    assert_ready!(spawn(store.flush()).poll()).unwrap();
    assert_ready!(spawn(store.compact()).poll()).unwrap();
    assert_ready!(spawn(store.close()).poll()).unwrap();
}

#[tokio::test]
async fn snapshots_share_the_permits() {
    let (store, faults, _) = filled(&operations(1)).await;
    let snapshot = store.snapshot().await.unwrap();
    let _gate = faults.on_all().hold();
    let mut hangs = spawn(snapshot.get(b"a"));
    assert_pending!(hangs.poll());
    assert_eq!(store.turns.permits.available_permits(), 0);
}

#[tokio::test]
async fn the_wait_is_measured() {
    let clock = ManualClock::new();
    let layer = LimitLayer::new(&operations(1), &context(&clock)).unwrap();
    let faults = Faults::new();
    let store = layer.layer(FaultStore::new(Memory::new(), &faults));
    let gate = faults.on(Operation::Write).hold();
    let (mut first, mut second) = (spawn(store.put("k", "1")), spawn(store.put("k", "2")));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    clock.advance(3 * SECOND);
    gate.open();
    let _ = assert_ready!(first.poll()).unwrap();
    let _ = assert_ready!(second.poll()).unwrap();
    let measured = store.turns.waited.value();
    let found = (measured.count(), measured.sum());
    assert_eq!(found, (1, 3 * SECOND), "what need not wait is not in it");
}

#[test]
fn settings_out_of_range_are_refused() {
    for (config, word) in [
        (operations(0), "operations"),
        (operations(usize::MAX), "operations"),
        (LimitConfig { wait: Some(Span::default()), ..operations(1) }, "queue: 0"),
    ] {
        let error = config.profile(Memory::new().profile()).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(word), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    for operations in [1, 64] {
        assert_conforms(|| async move {
            let clock = ManualClock::new();
            let memory = Memory::with_clock(Arc::new(clock.clone()));
            let config = LimitConfig { operations, ..LimitConfig::default() };
            let layer = LimitLayer::new(&config, &context(&clock))?;
            Ok(Fixture::new(layer.layer(memory)).with_clock(&clock))
        })
        .await;
    }
}

/// A run that is read with the permit of the store that it goes into.
#[tokio::test]
async fn a_run_needs_no_permit() {
    let (store, _, _) = filled(&operations(1)).await;
    let run = store.scan(Scan::all().page_entries(2));
    let run = run.and_then(|page| async {
        store.usage().await?;
        Ok(page)
    });
    assert_eq!(store.ingest(run.boxed()).await.unwrap(), 6);
}
