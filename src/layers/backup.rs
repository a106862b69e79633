//! `backup`: takes bases of what the backend holds, on a schedule, into a folder or a bucket.
//!
//! # Guarantees
//! Reads and writes pass unchanged. While the stack is open, a base is taken at each moment of the
//! schedule, and one that was missed while it was closed is made up for. A base is of one moment, and
//! restores without any layer: see [`backup`](crate::backup).
//!
//! # Gives up
//! Between bases nothing is recorded yet: what is written after the last base is lost with the store.
//! Keys that begin with [`RESERVED_PREFIX`](crate::backup::RESERVED_PREFIX) cannot be written.
//!
//! # Position
//! Next to the backend: what it records is what the backend holds, so `encrypt` and `compress` above it
//! seal and shrink the backups too, and `expire` and `write_back` above it are restored as they were.
//!
//! # Cancellation
//! As the store below. A base that is under way when the stack closes is given up: the next one takes its
//! place.
//!
//! # Errors
//! `InvalidInput` for a write to a reserved key; otherwise as the store below. A base that fails is
//! logged, counted, and tried again after 1 minute, then 2, up to an hour; reads and writes never fail
//! because of it. A backup place that is down does not keep the stack from opening.
//!
//! # Metrics
//! `tierstack_backup_last_success_timestamp_seconds{kind="base"}`,
//! `tierstack_backup_expected_interval_seconds{kind="base"}`,
//! `tierstack_backup_bytes_total{stage="read|reused|uploaded"}`, `tierstack_backup_failures_total`.
//!
//! # Configuration
//! `backup: { to: "s3://acme-backups/orders", base: daily }`
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use std::sync::Arc;
//! use tierstack::backends::Memory;
//! use tierstack::backup::{self, Target};
//! use tierstack::layers::backup::BackupConfig;
//! use tierstack::{Context, LayerConfig, Store, StoreExt};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let to = folder.path().display().to_string();
//! let config = BackupConfig { to, base: Some("daily".parse().unwrap()) };
//! let context = Context::default();
//! let store = config.open(&context).await?.wrap(Arc::new(Memory::new()));
//! store.put("user:1", "Ada").await?;
//!
//! // By hand, beside the schedule:
//! let repository = config.create_repository(&context).await?;
//! backup::run(&store, &repository, &|_| ()).await?;
//! assert_eq!(repository.plan(Target::Latest).await?.base.entries, 1);
//! store.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::backup::{self, Location, Progress, RESERVED_PREFIX, Repository, Schedule};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::{Context, Layer, LayerConfig, StackLayer, Zone};
use crate::reply::Reply;
use crate::store::{Pages, Read, Store};
use crate::telemetry::{Labels, names};
use crate::types::{Batch, Commit, Place, Profile, Recovery, Scan, Usage, Value};

/// Settings of the `backup` layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BackupConfig {
    /// Where backups are kept: a folder, or `s3://bucket/path`, `gs://bucket/path`,
    /// `az://container/path` (with the feature `cloud`). A relative folder is taken from that of the
    /// config file. Credentials come from the environment. Required.
    pub to: String,
    /// When a base is taken while the stack is open, in UTC: `hourly`, `daily`, `weekly`, or a cron
    /// expression such as `30 2 * * *`. More often loses less with the store, and reads all of it more
    /// often. Default: none; `tierstack backup run` takes one.
    #[serde(default)]
    pub base: Option<Schedule>,
}

impl BackupConfig {
    /// The repository that these settings name, which must exist: to list, verify and restore.
    ///
    /// # Errors
    /// As [`Repository::open_at`].
    pub async fn repository(&self, context: &Context) -> Result<Repository> {
        Repository::open_at(&self.location(context)?, Arc::clone(&context.clock)).await
    }

    /// The repository that these settings name, created unless it exists: to take a base.
    ///
    /// # Errors
    /// As [`Repository::create_or_open_at`].
    pub async fn create_repository(&self, context: &Context) -> Result<Repository> {
        Repository::create_or_open_at(&self.location(context)?, Arc::clone(&context.clock)).await
    }

    fn location(&self, context: &Context) -> Result<Location> {
        Ok(self.parse()?.within(&context.folder))
    }

    fn parse(&self) -> Result<Location> {
        let location: Location =
            self.to.parse().map_err(|error| Error::config(format!("to: {error}")))?;
        location.check()?;
        Ok(location)
    }
}

#[async_trait]
impl LayerConfig for BackupConfig {
    const NAME: &'static str = "backup";
    const ZONE: Zone = Zone::Backup;

    fn profile(&self, below: Profile) -> Result<Profile> {
        let place = match self.parse()? {
            Location::Folder(_) => "folder",
            Location::Bucket { .. } => "bucket",
        };
        if !below.guarantees.snapshots || !below.guarantees.ordered_scans {
            return Err(Error::config(format!(
                "'backup' needs snapshots and ordered scans below it, which '{}' does not have",
                below.name
            )));
        }
        let lag = self.base.as_ref().and_then(Schedule::interval);
        let note = match &self.base {
            Some(schedule) => format!(
                "A base is taken {schedule} (UTC) while the stack is open; what is written after it is \
                 lost with the store, until the next one has been uploaded."
            ),
            None => "Bases are taken by hand, with 'tierstack backup run'.".to_owned(),
        };
        let place = Place { name: Self::NAME.into(), what: place.into(), sealed: false };
        Ok(Profile::layer(Self::NAME, below)
            .changed(|guarantees| {
                guarantees.places.push(place);
                guarantees.recovery = Some(Recovery { lag, window: None });
            })
            .note(note))
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(BackupLayer::new(self, context)?))
    }
}

/// Wraps a store in [`Backup`].
#[derive(Clone, Debug)]
pub struct BackupLayer {
    config: BackupConfig,
    context: Context,
    runtime: Option<Handle>,
}

impl BackupLayer {
    /// Checks the settings. Sends no request: the place is first asked when a base is due.
    ///
    /// # Errors
    /// `Config` if the settings are wrong, or there is a schedule and no tokio runtime to keep it.
    pub fn new(config: &BackupConfig, context: &Context) -> Result<Self> {
        config.parse()?;
        let runtime = Handle::try_current().ok();
        if config.base.is_some() && runtime.is_none() {
            return Err(Error::config(
                "a backup schedule needs a tokio runtime; open the layer in one",
            ));
        }
        Ok(Self { config: config.clone(), context: context.clone(), runtime })
    }

    /// The store, and the worker that keeps the schedule, where there is one: not started, so that a
    /// test can take its steps.
    pub fn pair<S: Store>(&self, inner: S) -> (Backup<S>, Option<Worker>) {
        let inner = Arc::new(inner);
        let below: Arc<dyn Store> = Arc::clone(&inner) as _;
        let worker = self.config.base.clone().map(|schedule| Worker {
            store: below,
            repository: None,
            config: self.config.clone(),
            schedule,
            failures: 0,
            meters: Meters::new(&self.context.labels),
            context: self.context.clone(),
        });
        (Backup { inner, config: self.config.clone(), worker: Mutex::default() }, worker)
    }
}

impl<S: Store> Layer<S> for BackupLayer {
    type Service = Backup<S>;

    fn layer(&self, inner: S) -> Backup<S> {
        let (store, worker) = self.pair(inner);
        if let (Some(worker), Some(runtime)) = (worker, &self.runtime) {
            *store.worker.lock() = Some(runtime.spawn(worker.run()));
        }
        store
    }
}

/// A store of which bases are taken. See the [module docs](self).
#[derive(Debug)]
pub struct Backup<S> {
    inner: Arc<S>,
    config: BackupConfig,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl<S> Drop for Backup<S> {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.lock().take() {
            worker.abort();
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for Backup<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.inner.get(key)
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        self.inner.get_many(keys)
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        self.inner.scan(scan)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Backup<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        for op in batch.ops() {
            if op.key().starts_with(RESERVED_PREFIX) {
                return Err(Error::invalid(
                    "keys that begin with \\0tierstack/ are kept for backups; use another key",
                )
                .with_layer(BackupConfig::NAME)
                .with_key(op.key()));
            }
        }
        self.inner.write(batch).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.inner.snapshot().await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    async fn compact(&self) -> Result<()> {
        self.inner.compact().await
    }

    async fn usage(&self) -> Result<Usage> {
        self.inner.usage().await
    }

    async fn close(&self) -> Result<()> {
        let worker = self.worker.lock().take();
        if let Some(worker) = worker {
            worker.abort();
            // An error means that it was ended, as was asked.
            let _ = worker.await;
        }
        self.inner.close().await
    }

    fn profile(&self) -> Profile {
        let below = self.inner.profile();
        // The settings were checked when the layer was made, and the stack when it was built.
        self.config
            .profile(below.clone())
            .unwrap_or_else(|_| Profile::layer(BackupConfig::NAME, below))
    }
}

/// A stack that is open for less than this takes no base: a single `get` should not back up the store.
const SETTLE: Duration = Duration::from_secs(60);
/// The first wait after a failure; it doubles with each further one.
const BACKOFF: Duration = Duration::from_secs(60);
/// The longest wait. The schedule is also looked at this often, as clocks get set.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Keeps the schedule.
pub struct Worker {
    store: Arc<dyn Store>,
    repository: Option<Repository>,
    config: BackupConfig,
    schedule: Schedule,
    failures: u32,
    meters: Meters,
    context: Context,
}

/// How long to wait before the schedule is looked at again.
fn wait(schedule: &Schedule, now: Timestamp, failures: u32) -> Duration {
    if failures > 0 {
        return BACKOFF.saturating_mul(1 << (failures - 1).min(6)).min(LONGEST_WAIT);
    }
    let next = schedule.next(now).map_or(LONGEST_WAIT, |next| next.since(now));
    next.min(LONGEST_WAIT)
}

impl Worker {
    async fn run(mut self) {
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
            Ok(()) => self.failures = 0,
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.meters.failures.increment(1);
                let (stack, failures) = (&self.context.labels.stack, self.failures);
                tracing::error!(%stack, failures, ?error, "a scheduled base was not taken");
            }
        }
        wait(&self.schedule, self.context.clock.now(), self.failures)
    }

    async fn take_if_due(&mut self) -> Result<()> {
        let repository = match &self.repository {
            Some(repository) => repository.clone(),
            None => {
                let opened = self.config.create_repository(&self.context).await?;
                self.repository.insert(opened).clone()
            }
        };
        // Whoever took the last base, perhaps another process, it counts.
        let last = repository.bases().await?.last().map(|base| base.time);
        if let Some(last) = last {
            self.meters.succeeded(last);
        }
        if let Some(interval) = self.schedule.interval() {
            self.meters.expected.set(interval.as_secs_f64());
        }
        if !self.schedule.is_due(last, self.context.clock.now()) {
            return Ok(());
        }
        let meters = Mutex::new((&self.meters, Progress::default()));
        let taken = backup::run(&self.store, &repository, &|progress| {
            let (meters, before) = &mut *meters.lock();
            meters.advanced(before, progress);
            *before = progress;
        })
        .await;
        match taken {
            Ok(taken) => {
                self.meters.succeeded(taken.base.time);
                let (id, entries) = (&taken.base.id, taken.base.entries);
                tracing::info!(stack = %self.context.labels.stack, base = %id, entries, "a base was taken");
                Ok(())
            }
            // Another process was faster. If its base is the one that was due, all is well.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let last = repository.bases().await?.last().map(|base| base.time);
                match self.schedule.is_due(last, self.context.clock.now()) {
                    true => Err(error),
                    false => Ok(()),
                }
            }
            Err(error) => Err(error),
        }
    }
}

struct Meters {
    last: Gauge,
    expected: Gauge,
    read: Counter,
    reused: Counter,
    uploaded: Counter,
    failures: Counter,
}

impl Meters {
    fn new(labels: &Labels) -> Self {
        let bytes = |stage| labels.counter(names::BACKUP_BYTES, &[("stage", stage)]);
        Self {
            last: labels.gauge(names::BACKUP_LAST_SUCCESS, &[("kind", "base")]),
            expected: labels.gauge(names::BACKUP_EXPECTED_INTERVAL, &[("kind", "base")]),
            read: bytes("read"),
            reused: bytes("reused"),
            uploaded: bytes("uploaded"),
            failures: labels.counter(names::BACKUP_FAILURES, &[]),
        }
    }

    fn succeeded(&self, at: Timestamp) {
        self.last.set(at.as_millis() as f64 / 1000.0);
    }

    fn advanced(&self, before: &Progress, now: Progress) {
        self.read.increment(now.bytes - before.bytes);
        self.reused.increment(now.reused_bytes - before.reused_bytes);
        self.uploaded.increment(now.uploaded_bytes - before.uploaded_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::Memory;
    use crate::clock::ManualClock;
    use crate::ext::StoreExt;

    const HOUR: Duration = Duration::from_secs(3600);

    fn setup(clock: &ManualClock, to: &std::path::Path) -> (BackupConfig, Context) {
        let config = BackupConfig {
            to: to.display().to_string(),
            base: Some("0 */6 * * *".parse().unwrap()),
        };
        let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
        (config, context)
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
    async fn the_running_stack_takes_a_base_after_a_minute_and_close_ends_it() {
        let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
        let (config, context) = setup(&clock, folder.path());
        let store = config.open(&context).await.unwrap().wrap(Arc::new(Memory::new()));
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
        assert_eq!(guarantees.recovery, Some(Recovery { lag: Some(week), window: None }));
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
}
