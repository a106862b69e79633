//! Tests of the fault store and its plan.

use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use super::*;
use crate::backends::Memory;
use crate::clock::{ManualClock, SystemClock};
use crate::error::ErrorKind;
use crate::ext::{ReadExt, StoreExt};

fn faulty() -> (FaultStore<Memory>, Faults, ManualClock) {
    let clock = ManualClock::new();
    let faults = Faults::seeded(1, Arc::new(clock.clone()));
    (FaultStore::new(Memory::new(), &faults), faults, clock)
}

#[tokio::test]
async fn a_failure_before_the_effect_leaves_nothing_and_one_after_it_leaves_all() {
    let (store, faults, _) = faulty();
    faults.on(Operation::Write).skip(1).times(1).fail(ErrorKind::Unavailable);
    faults.on(Operation::Write).skip(1).times(1).after_effect().fail(ErrorKind::Timeout);
    let _ = store.put("a", "1").await.unwrap();
    assert_eq!(store.put("b", "2").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.put("c", "3").await.unwrap_err().kind(), ErrorKind::Timeout);
    let _ = store.put("d", "4").await.unwrap();
    let keys: Vec<Bytes> =
        store.collect(Scan::all()).await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["a", "c", "d"]);
    assert_eq!(faults.calls(Operation::Write), 4);
}

#[tokio::test]
async fn without_a_strike_a_reply_stays_at_once() {
    let (store, faults, _) = faulty();
    faults.on(Operation::Get).skip(1).fail(ErrorKind::Unavailable);
    assert!(matches!(store.get(b"k"), Reply::Now(Ok(None))));
    assert!(store.get(b"k").await.is_err());
}

#[tokio::test]
async fn a_scan_fails_at_its_page_and_ends() {
    let (store, faults, _) = faulty();
    store
        .write((0..6u8).map(|n| crate::Op::Put(vec![n].into(), "v".into())).collect())
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    faults.on(Operation::Scan).times(1).at_page(2).fail(ErrorKind::Unavailable);
    let mut pages = store.scan(Scan::all().page_entries(2));
    assert_eq!(pages.next().await.unwrap().unwrap().len(), 2);
    assert_eq!(pages.next().await.unwrap().unwrap().len(), 2);
    assert!(pages.next().await.unwrap().is_err());
    assert!(pages.next().await.is_none());
    let pages: Vec<Page> = store.scan(Scan::all()).try_collect().await.unwrap();
    assert_eq!(pages[0].len(), 6);
}

#[tokio::test]
async fn a_delay_is_on_the_clock_of_the_plan() {
    let (store, faults, clock) = faulty();
    faults.on_all().delay(Duration::from_secs(5));
    let mut write = spawn(store.put("k", "1"));
    assert_pending!(write.poll());
    assert!(store.inner().get(b"k").await.unwrap().is_none(), "delayed before the effect");
    clock.advance(Duration::from_secs(5));
    let _ = assert_ready!(write.poll()).unwrap();
}

#[tokio::test]
async fn a_held_call_waits_for_its_gate() {
    let (store, faults, _) = faulty();
    let gate = faults.on(Operation::Write).after_effect().hold();
    let mut write = spawn(store.put("k", "1"));
    assert_pending!(write.poll());
    assert_ready!(spawn(gate.reached(1)).poll());
    assert!(store.inner().get(b"k").await.unwrap().is_some(), "held after the effect");
    assert_pending!(spawn(store.put("k", "2")).poll(), "dropped while it waits");
    assert_pending!(spawn(gate.reached(2)).poll(), "a dropped call no longer waits");
    gate.open();
    let _ = assert_ready!(write.poll()).unwrap();
    let _ = store.put("k", "3").await.unwrap();
}

#[tokio::test]
async fn chances_follow_from_the_seed() {
    let run = |seed| async move {
        let faults = Faults::seeded(seed, SystemClock::shared());
        let store = FaultStore::new(Memory::new(), &faults);
        faults.on(Operation::Get).chance(0.5).fail(ErrorKind::Unavailable);
        let mut failed = Vec::new();
        for _ in 0..64 {
            failed.push(store.get(b"k").await.is_err());
        }
        failed
    };
    let (once, again, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(once, again);
    assert_ne!(once, other);
    assert!(once.contains(&true) && once.contains(&false));
}

#[tokio::test]
async fn calls_are_recorded_also_those_of_snapshots() {
    let (store, faults, _) = faulty();
    let _ = store.put("before", "1").await.unwrap();
    assert!(faults.record().is_empty());
    let batch = Batch::new().put("k", "1");
    let _ = store.write(batch.clone()).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    snapshot.get(b"k").await.unwrap();
    let get = Call::Get(Bytes::from("k"));
    assert_eq!(faults.record(), [Call::Write(batch), Call::Other(Operation::Snapshot), get]);
}

#[tokio::test]
#[should_panic(expected = "injected")]
async fn a_panic_can_be_asked_for() {
    let (store, faults, _) = faulty();
    faults.on(Operation::Flush).panic();
    let _ = store.flush().await;
}

#[tokio::test]
async fn a_plan_can_be_forgotten() {
    let (store, faults, _) = faulty();
    faults.on_all().fail(ErrorKind::Unavailable);
    assert!(store.usage().await.is_err());
    faults.clear();
    assert!(store.usage().await.is_ok());
}

#[tokio::test]
async fn each_batch_of_a_group_is_a_call() {
    for after in [false, true] {
        let faults = Faults::new();
        let store = FaultStore::new(Memory::new(), &faults);
        let rule = faults.on(Operation::Write).skip(2).times(1);
        let rule = if after { rule.after_effect() } else { rule };
        rule.fail(ErrorKind::Unavailable);
        let keys = ["a", "b", "c", "d"];
        let answers = store.write_group(keys.map(|key| Batch::new().put(key, "v")).to_vec()).await;
        let kinds: Vec<_> =
            answers.iter().map(|a| a.as_ref().err().map(crate::Error::kind)).collect();
        let (failed, aborted) = (Some(ErrorKind::Unavailable), Some(ErrorKind::Aborted));
        assert_eq!(kinds, [None, None, failed, aborted]);
        assert_eq!(faults.calls(Operation::Write), 3);
        let keys = keys.map(Bytes::from);
        let there = store.inner().get_many(&keys).await.unwrap();
        let there: Vec<bool> = there.iter().map(Option::is_some).collect();
        assert_eq!(there, [true, true, after, false]);
    }
}
