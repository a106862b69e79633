use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use super::*;
use crate::backends::Memory;
use crate::clock::ManualClock;
use crate::error::ErrorKind;
use crate::ext::{ReadExt, StoreExt};
use crate::testing::conformance::{Fixture, assert_conforms};
use crate::testing::{FaultStore, Faults};

const SECOND: Duration = Duration::from_secs(1);

fn context(clock: &ManualClock) -> Context {
    Context { clock: Arc::new(clock.clone()), ..Context::default() }
}

fn layer(config: &RetryConfig, clock: &ManualClock) -> RetryLayer {
    RetryLayer::new(config, &context(clock)).unwrap()
}

fn unknown_writes() -> RetryConfig {
    RetryConfig { unknown_writes: true, ..RetryConfig::default() }
}

/// Nothing happened: the connection could not be made.
fn no_connection() -> Error {
    Error::new(ErrorKind::Unavailable, "no connection").with_outcome(Outcome::Nothing)
}

/// Entries 0 to 9.
async fn filled(config: &RetryConfig) -> (Retry<FaultStore<Memory>>, Faults, ManualClock) {
    let clock = ManualClock::new();
    let faults = Faults::seeded(0, Arc::new(clock.clone()));
    let memory = Memory::new();
    for key in 0..10u8 {
        let _ = memory.put(vec![key], "v").await.unwrap();
    }
    (layer(config, &clock).layer(FaultStore::new(memory, &faults)), faults, clock)
}

/// Lets time pass until the operation ends; says how much that was.
fn patiently<T>(clock: &ManualClock, operation: impl Future<Output = T>) -> (T, Duration) {
    let step = Duration::from_millis(10);
    let mut operation = spawn(operation);
    for steps in 0..1_000_000 {
        if let std::task::Poll::Ready(done) = operation.poll() {
            return (done, step * steps);
        }
        assert_eq!(clock.sleepers(), 1, "it waits for the clock and nothing else");
        clock.advance(step);
    }
    panic!("no end");
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again() {
    let (store, faults, clock) = filled(&RetryConfig::default()).await;
    faults.on(Operation::Write).times(3).fail_with(no_connection);
    let snapshot = store.snapshot().await.unwrap();
    for operation in [
        Operation::Get,
        Operation::GetMany,
        Operation::Scan,
        Operation::Snapshot,
        Operation::Flush,
        Operation::Compact,
        Operation::Usage,
    ] {
        faults.on(operation).times(3).fail(ErrorKind::Unavailable);
    }
    assert!(patiently(&clock, store.get(&[1])).0.unwrap().is_some());
    assert!(patiently(&clock, store.get_many(&[vec![1].into()])).0.is_ok());
    assert_eq!(patiently(&clock, store.collect(Scan::all())).0.unwrap().len(), 10);
    assert!(patiently(&clock, store.put("k", "v")).0.is_ok());
    assert!(patiently(&clock, store.snapshot()).0.is_ok());
    assert!(patiently(&clock, store.flush()).0.is_ok());
    assert!(patiently(&clock, store.compact()).0.is_ok());
    assert!(patiently(&clock, store.usage()).0.is_ok());
    assert_eq!(faults.calls(Operation::Write), 4);

    faults.on(Operation::Get).times(3).fail(ErrorKind::Unavailable);
    faults.on(Operation::Scan).times(3).fail(ErrorKind::Unavailable);
    assert!(patiently(&clock, snapshot.get(&[1])).0.unwrap().is_some());
    assert_eq!(patiently(&clock, snapshot.collect(Scan::all())).0.unwrap().len(), 10);
}

fn group(batches: u8) -> Vec<Batch> {
    (0..batches).map(|n| Batch::new().put(vec![b'g', n], "v")).collect()
}

/// The last byte of the key of each batch that the store below was asked to write.
fn asked(faults: &Faults) -> Vec<u8> {
    let last = |call| match call {
        crate::testing::Call::Write(batch) => batch.ops()[0].key().last().copied(),
        _ => None,
    };
    faults.record().into_iter().filter_map(last).collect()
}

#[tokio::test]
async fn a_group_is_taken_up_at_the_batch_that_failed() {
    let (store, faults, clock) = filled(&RetryConfig::default()).await;
    faults.record();
    faults.on(Operation::Write).skip(2).times(2).fail_with(no_connection);
    let (answers, _) = patiently(&clock, store.write_group(group(5)));
    assert!(answers.len() == 5 && answers.iter().all(Result::is_ok));
    assert_eq!(asked(&faults), [0, 1, 2, 2, 2, 3, 4], "what is written is not written again");

    // Each batch has its attempts.
    faults.on(Operation::Write).skip(1).fail_with(no_connection);
    let (answers, _) = patiently(&clock, store.write_group(group(3)));
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Unavailable), Some(ErrorKind::Aborted)]);
    assert_eq!(answers[1].as_ref().unwrap_err().retry(), Again::GaveUp);
    assert_eq!(asked(&faults), [0, 1, 1, 1, 1]);
}

#[tokio::test]
async fn of_a_group_a_batch_with_an_unknown_outcome_is_repeated_where_others_are() {
    for (config, repeated) in [(RetryConfig::default(), false), (unknown_writes(), true)] {
        let (store, faults, clock) = filled(&config).await;
        faults.record();
        faults.on(Operation::Write).skip(1).times(1).after_effect().fail(ErrorKind::Unavailable);
        let (answers, _) = patiently(&clock, store.write_group(group(3)));
        assert_eq!(answers.iter().all(Result::is_ok), repeated);
        assert_eq!(asked(&faults), if repeated { vec![0, 1, 1, 2] } else { vec![0, 1] });

        let conditional = group(1).pop().unwrap().require(crate::Condition::absent("no"));
        faults.on(Operation::Write).times(1).after_effect().fail(ErrorKind::Unavailable);
        let answers = patiently(&clock, store.write_group(vec![conditional])).0;
        assert_eq!(answers[0].as_ref().unwrap_err().outcome(), Outcome::Unknown);
    }
}

/// A reader would see the later ones, then the earlier ones again.
#[tokio::test]
async fn of_a_group_several_batches_with_unknown_outcomes_are_not_repeated() {
    let clock = ManualClock::new();
    let faults = Faults::seeded(0, Arc::new(clock.clone()));
    let timeout = crate::layers::timeout::TimeoutConfig::default();
    let timeout = crate::layers::timeout::TimeoutLayer::new(&timeout, &context(&clock)).unwrap();
    let below = timeout.layer(FaultStore::new(Memory::new(), &faults));
    let store = layer(&unknown_writes(), &clock).layer(below);
    faults.record();
    let _gate = faults.on(Operation::Write).skip(1).hold();
    let (answers, _) = patiently(&clock, store.write_group(group(3)));
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
    }
    assert_eq!(asked(&faults), [0, 1]);
}

#[tokio::test]
async fn it_gives_up_and_says_so() {
    let (store, faults, clock) = filled(&unknown_writes()).await;
    faults.on_all().fail(ErrorKind::Unavailable);
    let check = |error: Error| {
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Again::GaveUp));
        assert!(error.to_string().contains("after 4 attempts"), "{error}");
    };
    check(patiently(&clock, store.get(&[1])).0.unwrap_err());
    check(patiently(&clock, store.put("k", "v")).0.unwrap_err());
    check(patiently(&clock, store.collect(Scan::all())).0.unwrap_err());
    for operation in [Operation::Get, Operation::Write, Operation::Scan] {
        assert_eq!(faults.calls(operation), 4);
    }
}

#[tokio::test]
async fn two_retries_do_not_multiply() {
    let (store, faults, clock) = filled(&unknown_writes()).await;
    let store = layer(&unknown_writes(), &clock).layer(store);
    faults.on_all().fail(ErrorKind::Unavailable);
    assert!(patiently(&clock, store.get(&[1])).0.is_err());
    assert!(patiently(&clock, store.put("k", "v")).0.is_err());
    assert!(patiently(&clock, store.collect(Scan::all())).0.is_err());
    for operation in [Operation::Get, Operation::Write, Operation::Scan] {
        assert_eq!(faults.calls(operation), 4);
    }
}

#[tokio::test]
async fn what_trying_again_cannot_help_passes_at_once() {
    let (store, faults, clock) = filled(&RetryConfig::default()).await;
    faults.on_all().fail(ErrorKind::Corruption);
    for error in [
        assert_ready!(spawn(store.get(&[1])).poll()).unwrap_err(),
        assert_ready!(spawn(store.put("k", "v")).poll()).unwrap_err(),
        assert_ready!(spawn(store.collect(Scan::all())).poll()).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Corruption, Again::Never));
    }
    assert_eq!(clock.sleepers(), 0);
    faults.clear();
    assert!(matches!(store.get(&[1]), Reply::Now(Ok(Some(_)))));
    assert!(matches!(store.get(b""), Reply::Now(Err(_))));
}

/// Otherwise a layer further out would believe that nothing of the write is on its way.
#[tokio::test]
async fn a_refusal_after_an_attempt_with_an_unknown_outcome_says_that_there_was_one() {
    let (store, faults, clock) = filled(&unknown_writes()).await;
    faults.on(Operation::Write).times(1).fail(ErrorKind::Timeout);
    faults.on(Operation::Write).times(1).fail(ErrorKind::Access);
    let error = patiently(&clock, store.put("k", "v")).0.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Access, Again::GaveUp));
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(faults.calls(Operation::Write), 2);
}

#[tokio::test]
async fn no_attempt_begins_after_max_elapsed() {
    let config = RetryConfig {
        attempts: usize::MAX,
        max_delay: Span(SECOND),
        max_elapsed: Span(20 * SECOND),
        ..RetryConfig::default()
    };
    let (store, faults, clock) = filled(&config).await;
    faults.on_all().fail(ErrorKind::Unavailable);
    let (result, elapsed) = patiently(&clock, store.get(&[1]));
    assert_eq!(result.unwrap_err().retry(), Again::GaveUp);
    assert!(elapsed <= 20 * SECOND, "{elapsed:?}");
    assert!(faults.calls(Operation::Get) > 10, "pauses stay at max_delay and its jitter");
}

/// At every page, in both directions, with and without a limit, once and often.
#[tokio::test]
async fn a_scan_goes_on_behind_the_last_entry_it_gave() {
    let all = Scan::all().page_entries(2);
    for scan in [
        all.clone(),
        all.clone().reverse(),
        all.clone().limit(5),
        all.clone().reverse().limit(6),
        Scan { limit: Some(4), ..Scan::range([3u8]..[9u8]).page_entries(2) },
        all.clone().keys_only(),
        all.reverse().limit(6).keys_only(),
    ] {
        for page in 0..6 {
            // Or the waits of all of them would use up what a task may do at a time.
            tokio::task::yield_now().await;
            for times in [1, 2, 100] {
                let (store, faults, clock) = filled(&RetryConfig::default()).await;
                let expected = store.collect(scan.clone()).await.unwrap();
                faults.on(Operation::Scan).at_page(page).times(times).fail(ErrorKind::Unavailable);
                let result = patiently(&clock, store.collect(scan.clone())).0;
                if page == 0 && times == 100 {
                    assert!(result.is_err(), "no page ever comes");
                } else {
                    assert!(result.unwrap() == expected, "{scan:?} at page {page}, {times} times");
                }
            }
        }
    }
}

/// A reader would see the value of the first attempt, that of the other writer, and the first one again.
#[tokio::test]
async fn a_write_that_took_effect_unseen_overwrites_nothing_that_came_after() {
    let (store, faults, _) = filled(&RetryConfig::default()).await;
    for (times, calls) in [(1, 1), (3, 2)] {
        faults.on(Operation::Write).times(times).after_effect().fail(ErrorKind::Timeout);
        let error = assert_ready!(spawn(store.put("k", "A")).poll()).unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Timeout, Again::Later));
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!(faults.calls(Operation::Write), calls);
        faults.clear();
    }
    assert_eq!(store.get(b"k").await.unwrap(), Some("A".into()));
}

#[tokio::test]
async fn a_write_of_which_nothing_happened_is_repeated_whatever_its_conditions() {
    let (store, faults, clock) = filled(&RetryConfig::default()).await;
    for batch in [Batch::new().put("k", "1").if_absent(), Batch::new().put("k", "2")] {
        faults.on(Operation::Write).times(3).fail_with(no_connection);
        let _ = patiently(&clock, store.write(batch)).0.unwrap();
    }
    assert_eq!(faults.calls(Operation::Write), 8);
    faults.on(Operation::Write).fail_with(no_connection);
    let error = patiently(&clock, store.put("k", "v")).0.unwrap_err();
    assert_eq!((error.retry(), error.outcome()), (Again::GaveUp, Outcome::Nothing));
}

#[tokio::test]
async fn a_write_that_took_effect_unseen_is_repeated_where_that_is_wanted() {
    let (store, faults, clock) = filled(&unknown_writes()).await;
    faults.on(Operation::Write).times(2).after_effect().fail(ErrorKind::Timeout);
    let batch = Batch::new().put("a", "1").delete([1u8].to_vec()).put("a", "2");
    let _ = patiently(&clock, store.write(batch)).0.unwrap();
    assert_eq!(faults.calls(Operation::Write), 3);
    assert_eq!(store.get(b"a").await.unwrap(), Some("2".into()));
    assert_eq!(store.get(&[1]).await.unwrap(), None);
}

#[tokio::test]
async fn a_close_is_not_repeated_as_that_would_hide_its_error() {
    let (store, faults, _) = filled(&RetryConfig::default()).await;
    faults.on(Operation::Close).times(1).fail(ErrorKind::Unavailable);
    let error = assert_ready!(spawn(store.close()).poll()).unwrap_err();
    assert_eq!(error.retry(), Again::Later);
    assert_eq!(faults.calls(Operation::Close), 1);
}

#[tokio::test]
async fn a_dropped_operation_stops_trying() {
    let (store, faults, clock) = filled(&RetryConfig::default()).await;
    faults.on_all().fail(ErrorKind::Unavailable);
    assert_pending!(spawn(store.get(&[1])).poll());
    clock.advance(3600 * SECOND);
    assert_eq!(faults.calls(Operation::Get), 1);
}

#[test]
fn jitter_follows_from_the_seed_and_differs_between_operations() {
    let delays = |seed| {
        let context = Context { seed, ..Context::default() };
        let layer = RetryLayer::new(&RetryConfig::default(), &context).unwrap();
        let of = || layer.shared.attempts(Operation::Get).delays.collect::<Vec<_>>();
        [of(), of()]
    };
    assert_eq!(delays(7), delays(7));
    assert_ne!(delays(7), delays(1 << 40));
    let [first, second] = delays(7);
    assert_ne!(first, second);
    assert_eq!(first.len(), 3, "and the first attempt");
}

#[tokio::test]
async fn attempts_beyond_the_first_are_counted() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (store, faults, clock) = filled(&RetryConfig::default()).await;
    faults.on(Operation::Get).times(2).fail(ErrorKind::Unavailable);
    patiently(&clock, store.get(&[1])).0.unwrap();
    patiently(&clock, store.get(&[1])).0.unwrap();
    let counted = recorder.snapshotter().snapshot().into_vec();
    assert_eq!(counted.len(), REPEATED.len(), "each is there before its first failure");
    for (key, .., value) in counted {
        assert_eq!(key.key().name(), names::RETRIES);
        let is_get = key.key().labels().any(|label| label.value() == "get");
        assert_eq!(value, DebugValue::Counter(if is_get { 2 } else { 0 }));
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let good = RetryConfig::default();
    for (config, word) in [
        (RetryConfig { attempts: 0, ..good.clone() }, "attempts"),
        (RetryConfig { min_delay: Span::default(), ..good.clone() }, "min_delay"),
        (RetryConfig { max_delay: Span(Duration::from_millis(1)), ..good }, "max_delay"),
    ] {
        let error = config.profile(Memory::new().profile()).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(word), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    assert_conforms(|| async {
        let clock = ManualClock::new();
        let memory = Memory::with_clock(Arc::new(clock.clone()));
        Ok(Fixture::new(layer(&RetryConfig::default(), &clock).layer(memory)).with_clock(&clock))
    })
    .await;
}

#[tokio::test]
async fn what_could_meet_its_own_entries_is_tried_once() {
    let (store, faults, _) = filled(&unknown_writes()).await;
    faults.on_all().after_effect().fail(ErrorKind::Unavailable);
    let error = store.write(Batch::new().put("new", "v").if_absent()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Again::Later));
    assert_eq!(faults.calls(Operation::Write), 1);
    let error = store.ingest(Memory::new().scan(Scan::all())).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Again::Later));
    assert_eq!(faults.calls(Operation::Ingest), 1);
}
