//! The worker that keeps a backup schedule.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::config::BackupConfig;
use crate::backup::{self, Progress, Repository, Schedule};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::layer::Context;
use crate::store::Store;
use crate::telemetry::{Counter, Gauge, Labels, names};

/// A stack that is open for less than this takes no base: a single `get` should not back up the store.
pub(super) const SETTLE: Duration = Duration::from_secs(60);
/// The first wait after a failure; it doubles with each further one.
const BACKOFF: Duration = Duration::from_secs(60);
/// The longest wait. The schedule is also looked at this often, as clocks get set.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A base that is newer than this machine's clock by more than this was taken by a clock that was wrong:
/// the schedule cannot wait until time has caught up, and goes on with a base at once.
const AHEAD: Duration = Duration::from_secs(3600);

/// Keeps the schedule.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use tierstack::backends::Memory;
/// use tierstack::layers::backup::{BackupConfig, BackupLayer};
/// use tierstack::{Context, ManualClock};
///
/// # let to = folder.path().display().to_string();
/// let clock = ManualClock::new();
/// let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
/// let config = BackupConfig { to, base: Some("daily".parse().unwrap()) };
/// let (_store, worker) = BackupLayer::new(&config, &context)?.pair(Memory::new());
/// let mut worker = worker.unwrap();
///
/// worker.step().await; // There is no base yet.
/// worker.step().await; // Nothing is due.
/// clock.advance(Duration::from_secs(86_400));
/// worker.step().await;
/// assert_eq!(config.repository(&context).await?.bases().await?.len(), 2);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub struct Worker {
    store: Arc<dyn Store>,
    repository: Option<Repository>,
    config: BackupConfig,
    schedule: Schedule,
    failures: u32,
    counters: Counters,
    context: Context,
}

/// How long to wait after a failure, of so many in a row.
fn backoff(failures: u32) -> Duration {
    BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_WAIT)
}

/// How long to wait before the schedule is looked at again. Not at all, where a moment of it has passed while
/// the last base was being taken.
pub(super) fn wait(schedule: &Schedule, last: Option<Timestamp>, now: Timestamp) -> Duration {
    let next = schedule.next(last.unwrap_or(now));
    next.map_or(LONGEST_WAIT, |next| next.since(now)).min(LONGEST_WAIT)
}

impl Worker {
    pub(super) fn new(
        store: Arc<dyn Store>,
        config: &BackupConfig,
        schedule: Schedule,
        context: &Context,
    ) -> Self {
        Self {
            store,
            repository: None,
            config: config.clone(),
            counters: Counters::new(&context.labels, &schedule),
            schedule,
            failures: 0,
            context: context.clone(),
        }
    }

    /// Keeps the schedule until it is dropped.
    pub(super) async fn run(mut self) {
        let clock = Arc::clone(&self.context.clock);
        clock.sleep(SETTLE).await;
        loop {
            let pause = self.step().await;
            clock.sleep(pause).await;
        }
    }

    /// Takes a base if one is due, and says when to look again.
    pub async fn step(&mut self) -> Duration {
        match self.take_if_due().await {
            Ok(last) => {
                self.failures = 0;
                wait(&self.schedule, last, self.context.clock.now())
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                // What was known of the place may be what is wrong: it was repaired by hand, or replaced.
                self.repository = None;
                self.counters.failures.increment(1);
                let (stack, failures) = (self.context.labels.stack(), self.failures);
                tracing::error!(%stack, failures, ?error, "a scheduled base was not taken");
                backoff(failures)
            }
        }
    }

    /// Takes a base if one is due, and says of when the last one is.
    async fn take_if_due(&mut self) -> Result<Option<Timestamp>> {
        let repository = match &self.repository {
            Some(repository) => repository.clone(),
            None => {
                let opened = self.config.create_repository(&self.context).await?;
                self.repository.insert(opened).clone()
            }
        };
        // The last base counts, also if another process took it.
        let last = self.last(&repository).await?;
        if let Some(last) = last {
            self.counters.succeeded(last);
        }
        if !self.schedule.is_due(last, self.context.clock.now()) {
            return Ok(last);
        }
        let counters = Mutex::new((&self.counters, Progress::default()));
        let taken = backup::run(&self.store, &repository, &|progress| {
            let (counters, before) = &mut *counters.lock();
            counters.advanced(before, progress);
            *before = progress;
        })
        .await;
        match taken {
            Ok(taken) => {
                self.counters.succeeded(taken.base.time.min(self.context.clock.now()));
                let (id, entries) = (&taken.base.id, taken.base.entries);
                tracing::info!(stack = %self.context.labels.stack(), base = %id, entries, "a base was taken");
                Ok(Some(taken.base.time))
            }
            // Another process was faster. If its base is the one that was due, all is well.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let last = self.last(&repository).await?;
                match self.schedule.is_due(last, self.context.clock.now()) {
                    true => Err(error),
                    false => Ok(last),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// When the last base was taken. `None` also where its time cannot be.
    async fn last(&self, repository: &Repository) -> Result<Option<Timestamp>> {
        let last = repository.bases().await?.last().map(|base| base.time);
        let now = self.context.clock.now();
        Ok(last.filter(|last| *last <= now + AHEAD))
    }
}

pub(super) struct Counters {
    last: Gauge,
    /// Where the schedule has more than one moment.
    _expected: Option<Gauge>,
    read: Counter,
    reused: Counter,
    uploaded: Counter,
    failures: Counter,
}

impl Counters {
    /// Of a store that was never backed up, the last success is at 0: long ago, so that an alert on its age fires.
    pub(super) fn new(labels: &Labels, schedule: &Schedule) -> Self {
        let bytes = |stage| labels.counter(names::BACKUP_BYTES, &[("stage", stage)]);
        let expected = schedule.interval().map(|interval| {
            let expected = labels.gauge(names::BACKUP_EXPECTED_INTERVAL, &[("kind", "base")]);
            expected.set(interval.as_secs() as i64);
            expected
        });
        Self {
            _expected: expected,
            last: labels.gauge(names::BACKUP_LAST_SUCCESS, &[("kind", "base")]),
            read: bytes("read"),
            reused: bytes("reused"),
            uploaded: bytes("uploaded"),
            failures: labels.counter(names::BACKUP_FAILURES, &[]),
        }
    }

    fn succeeded(&self, at: Timestamp) {
        self.last.set((at.as_millis() / 1000) as i64);
    }

    fn advanced(&self, before: &Progress, now: Progress) {
        self.read.increment(now.bytes - before.bytes);
        self.reused.increment(now.reused_bytes - before.reused_bytes);
        self.uploaded.increment(now.uploaded_bytes - before.uploaded_bytes);
    }
}
