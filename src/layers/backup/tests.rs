//! The layer and its worker, with time moved by hand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::worker::{SETTLE, wait};
use super::*;
use crate::backends::Memory;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::error::ErrorKind;
use crate::ext::StoreExt;

const HOUR: Duration = Duration::from_secs(3600);

fn setup(clock: &ManualClock, to: &std::path::Path) -> (BackupConfig, Context) {
    let config =
        BackupConfig { to: to.display().to_string(), base: Some("0 */6 * * *".parse().unwrap()) };
    let context =
        Context { clock: Arc::new(clock.clone()), background: true, ..Context::default() };
    (config, context)
}

#[test]
fn what_is_lacking_below_is_named_and_nothing_else() {
    let config = BackupConfig { to: "x".into(), base: None };
    let refused = |snapshots, ordered_scans| {
        let below = Memory::new().profile().changed(|guarantees| {
            (guarantees.snapshots, guarantees.ordered_scans) = (snapshots, ordered_scans);
        });
        config.profile(below).unwrap_err().to_string()
    };
    let text = refused(false, true);
    assert!(text.contains("needs snapshots below it") && text.contains("'memory'"), "{text}");
    assert!(refused(true, false).contains("needs ordered scans below it"));
    assert!(refused(false, false).contains("needs snapshots and ordered scans below it"));
}

#[tokio::test]
async fn the_schedule_is_kept_and_what_was_missed_is_made_up_for_once() {
    let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
    let (config, context) = setup(&clock, folder.path());
    let layer = BackupLayer::new(&config, &context).unwrap();
    let (store, worker) = layer.pair(Memory::new());
    let mut worker = worker.unwrap();
    let _ = store.put("a", "1").await.unwrap();

    clock.advance(HOUR);
    assert_eq!(worker.step().await, HOUR, "the first at once, then looking every hour");
    let repository = config.repository(&context).await.unwrap();
    let count = async || repository.bases().await.unwrap().len();
    assert_eq!(count().await, 1);
    clock.advance(4 * HOUR);
    assert_eq!(worker.step().await, HOUR);
    assert_eq!(count().await, 1, "not due before 06:00");
    clock.advance(HOUR);
    worker.step().await;
    assert_eq!(count().await, 2);

    clock.advance(30 * HOUR);
    let (_, later) = layer.pair(Memory::new());
    let mut later = later.unwrap();
    later.step().await;
    later.step().await;
    assert_eq!(count().await, 3, "one for all that were missed");
}

#[test]
fn a_moment_that_passes_while_a_base_is_taken_is_not_waited_out() {
    let hourly: Schedule = "hourly".parse().unwrap();
    let at = |text: &str| text.parse().unwrap();
    let last = at("2026-01-31T12:00:01Z");
    assert_eq!(wait(&hourly, Some(last), at("2026-01-31T12:59:00Z")), HOUR / 60);
    assert_eq!(wait(&hourly, Some(last), at("2026-01-31T13:00:00Z")), Duration::ZERO);
    assert_eq!(wait(&hourly, Some(last), at("2026-01-31T15:10:00Z")), Duration::ZERO);
    assert_eq!(wait(&hourly, None, at("2026-01-31T15:10:00Z")), HOUR / 60 * 50);
    let daily: Schedule = "daily".parse().unwrap();
    assert_eq!(wait(&daily, Some(last), at("2026-01-31T13:00:00Z")), HOUR, "clocks get set");
}

/// A machine that starts with a wrong clock takes a base in the far future, and then has its clock set.
#[tokio::test]
async fn a_base_from_the_future_does_not_end_the_schedule() {
    let (clock, wrong, folder) =
        (ManualClock::new(), ManualClock::new(), tempfile::tempdir().unwrap());
    wrong.jump(24 * 365 * 10 * HOUR);
    let (config, context) = setup(&wrong, folder.path());
    let (_, worker) = BackupLayer::new(&config, &context).unwrap().pair(Memory::new());
    worker.unwrap().step().await;

    let (config, context) = setup(&clock, folder.path());
    let (_, worker) = BackupLayer::new(&config, &context).unwrap().pair(Memory::new());
    let mut worker = worker.unwrap();
    let repository = config.repository(&context).await.unwrap();
    let mut counts = Vec::new();
    for _ in 0..8 {
        worker.step().await;
        counts.push(repository.bases().await.unwrap().len());
        clock.advance(HOUR);
    }
    assert_eq!(
        counts,
        [2, 2, 2, 2, 2, 2, 3, 3],
        "one at once, as this clock knows of none, then in turn"
    );
}

/// Ten years ahead, until it is set.
#[derive(Debug)]
struct Settable {
    right: ManualClock,
    ahead: AtomicBool,
}

#[async_trait]
impl Clock for Settable {
    fn now(&self) -> Timestamp {
        let ahead = if self.ahead.load(Ordering::Relaxed) { 24 * 365 * 10 } else { 0 };
        self.right.now() + ahead * HOUR
    }

    fn monotonic(&self) -> Duration {
        self.right.monotonic()
    }

    fn coarse(&self) -> Duration {
        self.right.coarse()
    }

    async fn sleep(&self, span: Duration) {
        self.right.sleep(span).await;
    }
}

/// The same, where the clock of the running process is set.
#[tokio::test]
async fn a_clock_that_is_set_back_does_not_end_the_schedule() {
    let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
    let (config, context) = setup(&clock, folder.path());
    let settable = Arc::new(Settable { right: clock.clone(), ahead: true.into() });
    let context = Context { clock: Arc::clone(&settable) as _, ..context };
    let (_, worker) = BackupLayer::new(&config, &context).unwrap().pair(Memory::new());
    let mut worker = worker.unwrap();
    worker.step().await;
    settable.ahead.store(false, Ordering::Relaxed);
    let repository = config.repository(&context).await.unwrap();
    let mut counts = Vec::new();
    for _ in 0..8 {
        worker.step().await;
        counts.push(repository.bases().await.unwrap().len());
        clock.advance(HOUR);
    }
    assert_eq!(counts, [2, 2, 2, 2, 2, 2, 3, 3]);
}

#[tokio::test]
async fn a_failure_is_tried_again_and_never_fails_the_store() {
    let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
    let place = folder.path().join("place");
    std::fs::write(&place, "a file where a folder must be").unwrap();
    let (config, context) = setup(&clock, &place);
    let (store, worker) = BackupLayer::new(&config, &context).unwrap().pair(Memory::new());
    let mut worker = worker.unwrap();
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(worker.step().await, Duration::from_secs(minutes * 60));
        let _ = store.put("a", "1").await.unwrap();
    }
    std::fs::remove_file(&place).unwrap();
    worker.step().await;
    assert_eq!(config.repository(&context).await.unwrap().bases().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_place_that_is_repaired_by_hand_is_used_again() {
    let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
    let (config, context) = setup(&clock, folder.path());
    let (_, worker) = BackupLayer::new(&config, &context).unwrap().pair(Memory::new());
    let mut worker = worker.unwrap();
    for _ in 0..2 {
        worker.step().await;
        clock.advance(6 * HOUR);
    }
    let head = folder.path().join("head/00000000000000000002.json");
    std::fs::write(&head, "damaged").unwrap();
    assert_eq!(worker.step().await, HOUR / 60);
    // As the error says.
    std::fs::remove_file(&head).unwrap();
    assert_eq!(worker.step().await, HOUR, "what was known of the place was forgotten");
    assert_eq!(config.repository(&context).await.unwrap().bases().await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_running_stack_takes_a_base_after_a_minute_and_close_ends_it() {
    let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
    let (config, context) = setup(&clock, folder.path());
    let store = config.open(&context).await.unwrap().wrap(Arc::new(Memory::new())).await.unwrap();
    let _ = store.put("a", "1").await.unwrap();
    let sleeping = async || {
        while clock.sleepers() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    sleeping().await;
    assert!(config.repository(&context).await.is_err(), "nothing was asked of the place yet");
    clock.advance(SETTLE);
    sleeping().await;
    assert_eq!(config.repository(&context).await.unwrap().bases().await.unwrap().len(), 1);
    store.close().await.unwrap();
    clock.advance(24 * HOUR);
    tokio::task::yield_now().await;
    assert_eq!(clock.sleepers(), 0, "the worker is gone");
}

/// `import` from a slow pipe took a base of 0 entries, which counted as that of the day.
#[tokio::test]
async fn without_background_work_no_base_is_taken_by_the_way() {
    let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
    let (config, context) = setup(&clock, folder.path());
    let context = Context { background: false, ..context };
    let store = config.open(&context).await.unwrap().wrap(Arc::new(Memory::new())).await.unwrap();
    for _ in 0..3 {
        clock.advance(24 * HOUR);
        tokio::task::yield_now().await;
    }
    assert_eq!(clock.sleepers(), 0, "nothing waits for its time");
    assert!(config.repository(&context).await.is_err());
    store.close().await.unwrap();
}

#[test]
fn a_schedule_needs_a_runtime_only_where_it_is_kept() {
    let (config, context) = setup(&ManualClock::new(), "x".as_ref());
    assert!(BackupLayer::new(&config, &context).is_err());
    let context = Context { background: false, ..context };
    assert!(BackupLayer::new(&config, &context).is_ok());
}

#[tokio::test]
async fn a_reserved_key_is_refused_and_its_neighbours_are_not() {
    let config = BackupConfig { to: "x".into(), base: None };
    let layer = BackupLayer::new(&config, &Context::default()).unwrap();
    let store = layer.layer(Memory::new());
    let error = store.put("\0tierstack/x", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let _ = store.put("\0tierstack", "1").await.unwrap();
    let _ = store.put("\0tierstack0", "1").await.unwrap();
}

#[test]
fn the_profile_states_place_and_recovery() {
    let below = Memory::new().profile();
    let config = BackupConfig { to: "x".into(), base: Some("weekly".parse().unwrap()) };
    let guarantees = config.profile(below.clone()).unwrap().guarantees;
    let week = Duration::from_secs(7 * 24 * 3600);
    assert_eq!(guarantees.recovery, Some(Recovery { interval: Some(week), window: None }));
    assert!(guarantees.places.iter().any(|place| place.what == "folder" && !place.sealed));
    let error = config.profile(below.changed(|g| g.snapshots = false)).unwrap_err();
    assert!(error.to_string().contains("snapshots"), "{error}");
}

#[test]
fn wrong_settings_are_config_errors() {
    for to in ["", "ftp://x/y", "s3://"] {
        let config = BackupConfig { to: to.into(), base: None };
        let error = config.profile(Memory::new().profile()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{to}");
    }
    let json = r#"{ "to": "x", "base": "sometimes" }"#;
    let error = serde_json::from_str::<BackupConfig>(json).unwrap_err();
    assert!(error.to_string().contains("hourly, daily, weekly"), "{error}");
    assert!(serde_json::from_str::<BackupConfig>(r#"{ "to": "x", "bass": "daily" }"#).is_err());
}

#[tokio::test]
async fn a_run_with_a_reserved_key_is_refused() {
    let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
    let (config, context) = setup(&clock, folder.path());
    let (store, _) = BackupLayer::new(&config, &context).unwrap().pair(Memory::new());
    let from = Memory::new();
    let _ = from.put([RESERVED_PREFIX, b"restoring"].concat(), "v").await.unwrap();
    let refused = store.ingest(from.scan(Scan::all())).await.unwrap_err();
    assert_eq!((refused.kind(), refused.layer()), (ErrorKind::InvalidInput, Some("backup")));
    let batch = Batch::new().put([RESERVED_PREFIX, b"x"].concat(), "v").if_absent();
    assert_eq!(store.write(batch).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(store.usage().await.unwrap().entries, Some(0));
}
