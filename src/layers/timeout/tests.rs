use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use super::*;
use crate::backends::Memory;
use crate::clock::ManualClock;
use crate::error::Retry;
use crate::ext::{ReadExt, StoreExt};
use crate::testing::conformance::{Fixture, assert_conforms};
use crate::testing::{FaultStore, Faults};

const SECOND: Duration = Duration::from_secs(1);

fn context(clock: &ManualClock) -> Context {
    Context { clock: Arc::new(clock.clone()), ..Context::default() }
}

/// Entries `a` to `d`, and a deadline of 10 seconds.
async fn filled() -> (Timeout<FaultStore<Memory>>, Faults, ManualClock) {
    let clock = ManualClock::new();
    let faults = Faults::seeded(0, Arc::new(clock.clone()));
    let memory = Memory::new();
    for key in ["a", "b", "c", "d"] {
        let _ = memory.put(key, key).await.unwrap();
    }
    let layer = TimeoutLayer::new(&TimeoutConfig::default(), &context(&clock)).unwrap();
    (layer.layer(FaultStore::new(memory, &faults)), faults, clock)
}

/// Runs into the deadline.
fn late<T: std::fmt::Debug>(clock: &ManualClock, answer: impl Future<Output = Result<T>>) -> Error {
    let mut answer = spawn(answer);
    assert_pending!(answer.poll());
    clock.advance(10 * SECOND - Duration::from_millis(1));
    assert_pending!(answer.poll());
    clock.advance(Duration::from_millis(1));
    let error = assert_ready!(answer.poll()).unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Timeout, Retry::Later));
    error
}

#[tokio::test]
async fn what_hangs_ends_at_its_deadline() {
    let (store, faults, clock) = filled().await;
    let snapshot = store.snapshot().await.unwrap();
    let _gate = faults.on_all().hold();
    let keys = ["a".into()];
    late(&clock, store.get(b"a"));
    late(&clock, store.get_many(&keys));
    late(&clock, store.collect(Scan::all()));
    late(&clock, store.usage());
    late(&clock, async { store.snapshot().await.map(|_| ()) });
    late(&clock, snapshot.get(b"a"));
    late(&clock, snapshot.get_many(&keys));
    late(&clock, snapshot.collect(Scan::all()));
    let error = late(&clock, store.put("a", "new"));
    assert!(error.to_string().contains("may or may not have taken effect"), "{error}");
    assert_eq!(error.operation(), Some(Operation::Write));
}

#[tokio::test]
async fn a_group_has_one_deadline_and_each_of_its_batches_an_unknown_outcome() {
    let (store, faults, clock) = filled().await;
    faults.on(Operation::Write).delay(6 * SECOND);
    let group = ["a", "b", "c"].map(|key| Batch::new().put(key, "new")).to_vec();
    let mut writing = spawn(store.write_group(group));
    for _ in 0..2 {
        assert_pending!(writing.poll());
        clock.advance(5 * SECOND);
    }
    let answers = assert_ready!(writing.poll());
    assert_eq!(answers.len(), 3);
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.outcome(), crate::Outcome::Unknown);
        assert!(error.to_string().contains("any number of them"), "{error}");
    }
}

#[tokio::test]
async fn how_long_upkeep_takes_is_not_bounded() {
    let (store, faults, clock) = filled().await;
    let gate = faults.on_all().hold();
    let mut upkeep = [spawn(store.flush()), spawn(store.compact()), spawn(store.close())];
    for operation in &mut upkeep {
        assert_pending!(operation.poll());
    }
    clock.advance(3600 * SECOND);
    for operation in &mut upkeep {
        assert_pending!(operation.poll());
    }
    gate.open();
    for operation in &mut upkeep {
        assert_ready!(operation.poll()).unwrap();
    }
}

#[tokio::test]
async fn each_page_has_a_deadline_of_its_own_and_the_time_between_does_not_count() {
    let (store, faults, clock) = filled().await;
    faults.on(Operation::Scan).at_page(0).delay(6 * SECOND);
    faults.on(Operation::Scan).at_page(1).delay(6 * SECOND);
    let mut pages = store.scan(Scan::all().page_entries(2));
    for _ in 0..2 {
        let mut page = spawn(pages.next());
        assert_pending!(page.poll());
        clock.advance(6 * SECOND);
        assert_eq!(assert_ready!(page.poll()).unwrap().unwrap().len(), 2);
        drop(page);
        clock.advance(3600 * SECOND);
    }
    assert!(assert_ready!(spawn(pages.next()).poll()).is_none());
}

#[tokio::test]
async fn a_scan_ends_with_its_error() {
    let (store, faults, clock) = filled().await;
    let _gate = faults.on(Operation::Scan).at_page(1).hold();
    let mut pages = store.scan(Scan::all().page_entries(2));
    pages.next().await.unwrap().unwrap();
    late(&clock, async { pages.next().await.transpose() });
    assert!(pages.next().await.is_none());
}

#[tokio::test]
async fn what_is_in_memory_is_answered_at_once() {
    let (store, _, clock) = filled().await;
    assert!(matches!(store.get(b"a"), Reply::Now(Ok(Some(_)))));
    assert!(matches!(store.get_many(&["a".into()]), Reply::Now(Ok(_))));
    assert_eq!(clock.sleepers(), 0);
}

#[tokio::test]
async fn an_answer_that_is_there_at_the_deadline_counts() {
    let (store, faults, clock) = filled().await;
    let gate = faults.on(Operation::Get).hold();
    let mut get = spawn(store.get(b"a"));
    assert_pending!(get.poll());
    clock.advance(10 * SECOND);
    gate.open();
    assert_eq!(assert_ready!(get.poll()).unwrap(), Some("a".into()));
}

#[test]
fn a_deadline_of_nothing_is_refused() {
    let config = TimeoutConfig { after: Span::default() };
    assert_eq!(config.profile(Memory::new().profile()).unwrap_err().kind(), ErrorKind::Config);
    assert!(TimeoutLayer::new(&config, &Context::default()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    assert_conforms(|| async {
        let clock = ManualClock::new();
        let memory = Memory::with_clock(Arc::new(clock.clone()));
        let layer = TimeoutLayer::new(&TimeoutConfig::default(), &context(&clock))?;
        Ok(Fixture::new(layer.layer(memory)).with_clock(&clock))
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_may_meet_its_own_entries_is_not_said_to_be_safe_to_repeat() {
    let (store, faults, clock) = filled().await;
    let _gate = faults.on(Operation::Write).hold();
    let error = late(&clock, store.write(Batch::new().put("new", "v").if_absent()));
    assert!(error.to_string().contains("read before you write it again"), "{error}");
    assert!(!error.to_string().contains("safe"), "{error}");
}

#[tokio::test]
async fn a_run_takes_as_long_as_it_takes() {
    let (store, faults, clock) = filled().await;
    let gate = faults.on(Operation::Ingest).hold();
    let from = Memory::new();
    let mut ingest = spawn(store.ingest(from.scan(Scan::all())));
    assert_pending!(ingest.poll());
    clock.advance(3600 * SECOND);
    assert_pending!(ingest.poll());
    gate.open();
    assert_eq!(assert_ready!(ingest.poll()).unwrap(), 0);
}
