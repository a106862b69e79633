//! `backup`: takes bases of what the backend holds, on a schedule, into a folder or a bucket.
//!
//! # Guarantees
//! Reads and writes pass unchanged. While the stack is open for a service
//! ([`background`](crate::Context::background), as in `OpenOptions::service`), a base is taken at each moment of the schedule, and one
//! that was missed while it was closed is made up for, a minute after it is opened. The commands of
//! `tierstack` open without it, so that none of them takes a base. A base is of one moment, and
//! restores without any layer: see [`backup`](crate::backup).
//!
//! # Gives up
//! Between bases nothing is recorded yet: what is written after the last finished base was begun is lost
//! with the store. A base that is due while the one before is still being taken waits for it. Keys that begin with [`RESERVED_PREFIX`] cannot be written.
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
//! Folders that it makes have the mode 0700, files 0600: a backup holds what the store holds.
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
//! let context = Context { background: true, ..Context::default() };
//! let store = config.open(&context).await?.wrap(Arc::new(Memory::new())).await?;
//! store.put("user:1", "Ada").await?;
//!
//! // By hand, in addition to the schedule:
//! let repository = config.create_repository(&context).await?;
//! backup::run(&store, &repository, &|_| ()).await?;
//! assert_eq!(repository.plan(Target::Latest).await?.base.entries, 1);
//! store.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod config;
mod worker;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub use self::config::BackupConfig;
use self::worker::Counters;
pub use self::worker::Worker;
use crate::backup::{Location, RESERVED_PREFIX, Schedule};
use crate::error::{Error, Result};
use crate::forward;
use crate::layer::{Claim, Context, Layer, LayerConfig, StackLayer, Zone};
use crate::reply::Reply;
use crate::store::{Pages, Read, Store};
use crate::types::{Batch, Commit, Inspection, Place, Profile, Recovery, Scan, Value};
use crate::write_group::write_admitted;

#[async_trait]
impl LayerConfig for BackupConfig {
    const NAME: &'static str = "backup";
    const ZONE: Zone = Zone::Backup;

    fn profile(&self, below: Profile) -> Result<Profile> {
        let place = match self.parse()? {
            Location::Folder(_) => "folder",
            Location::Bucket { .. } => "bucket",
        };
        let lacking = match (below.guarantees.snapshots, below.guarantees.ordered_scans) {
            (true, true) => None,
            (false, true) => Some("snapshots"),
            (true, false) => Some("ordered scans"),
            (false, false) => Some("snapshots and ordered scans"),
        };
        if let Some(lacking) = lacking {
            return Err(Error::config(format!(
                "'backup' needs {lacking} below it, which '{}' does not have with these settings; leave the layer out",
                below.name
            )));
        }
        let interval = self.base.as_ref().and_then(Schedule::interval);
        let note = match &self.base {
            Some(schedule) => format!(
                "A base is taken {schedule} (UTC) where a service has the stack open \
                 (`OpenOptions::service`); no command but 'tierstack backup run' takes one."
            ),
            None => "Bases are taken by hand, with 'tierstack backup run'.".to_owned(),
        };
        let place = Place { name: Self::NAME.into(), what: place.into(), sealed: false };
        Ok(Profile::layer(Self::NAME, below)
            .changed(|guarantees| {
                guarantees.places.push(place);
                guarantees.recovery = Some(Recovery { interval, window: None });
            })
            .note(note))
    }

    fn claims(&self, context: &Context) -> Vec<Claim> {
        let place = self.location(context).ok();
        place.map(|place| place.claim("the place of backups", "")).into_iter().collect()
    }

    fn register_metrics(&self, context: &Context, _: &Profile) {
        if let (Some(schedule), true) = (&self.base, context.background) {
            drop(Counters::new(&context.labels, schedule));
        }
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(BackupLayer::new(self, context)?))
    }
}

/// Wraps a store in [`Backup`]. See [`Worker`] for an example.
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
        if context.background && config.base.is_some() && runtime.is_none() {
            return Err(Error::config(
                "a backup schedule needs a tokio runtime; open the layer in one",
            ));
        }
        Ok(Self { config: config.clone(), context: context.clone(), runtime })
    }

    /// The store, and the worker that keeps the schedule, where there is one: not started, whatever the
    /// context says, so that a test can take its steps.
    pub fn pair<S: Store>(&self, inner: S) -> (Backup<S>, Option<Worker>) {
        let inner = Arc::new(inner);
        let below = inner.profile();
        // Refused when the stack was built; by hand, each base fails and says why.
        let profile = (self.config.profile(below.clone()))
            .unwrap_or_else(|_| Profile::layer(BackupConfig::NAME, below));
        let below: Arc<dyn Store> = Arc::clone(&inner) as _;
        let schedule = self.config.base.clone();
        let worker =
            schedule.map(|schedule| Worker::new(below, &self.config, schedule, &self.context));
        (Backup { inner, profile, worker: Mutex::default() }, worker)
    }
}

impl<S: Store> Layer<S> for BackupLayer {
    type Service = Backup<S>;

    fn layer(&self, inner: S) -> Backup<S> {
        let (store, worker) = self.pair(inner);
        let Some(worker) = worker else { return store };
        match &self.runtime {
            Some(runtime) if self.context.background => {
                *store.worker.lock() = Some(runtime.spawn(worker.run()));
            }
            _ => tracing::info!(
                stack = %self.context.labels.stack(),
                "opened without background work: the schedule of backups is not kept here"
            ),
        }
        store
    }
}

/// A store of which bases are taken. See the [module docs](self).
#[derive(Debug)]
pub struct Backup<S> {
    inner: Arc<S>,
    profile: Profile,
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
        match check_reserved(key) {
            Ok(()) => self.inner.get(key),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        match keys.iter().try_for_each(|key| check_reserved(key)) {
            Ok(()) => self.inner.get_many(keys),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        self.inner.scan(scan)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Backup<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.inner.write(admit(batch)?).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        write_admitted(&self.inner, group, admit).await
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        let checked = run.and_then(|page| async {
            page.entries.iter().try_for_each(|entry| check_reserved(&entry.key))?;
            Ok(page)
        });
        self.inner.ingest(checked.boxed()).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        check_reserved(key)?;
        self.inner.inspect(key).await
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
        self.profile.clone()
    }

    forward!(self => self.inner; changes, invalidate, snapshot, flush, compact, usage, count, identity);
}

fn admit(batch: Batch) -> Result<Batch> {
    batch.ops().iter().try_for_each(|op| check_reserved(op.key()))?;
    batch.conditions().iter().try_for_each(|condition| check_reserved(condition.key()))?;
    Ok(batch)
}

fn check_reserved(key: &[u8]) -> Result<()> {
    if key.starts_with(RESERVED_PREFIX) {
        return Err(Error::invalid(
            "keys that begin with \\0tierstack/ are kept for backups; use another key",
        )
        .with_layer(BackupConfig::NAME)
        .with_key(key));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
