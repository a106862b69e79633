//! Connections that read: a pool of them for the newest state, one for each snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::error::{NAME, closed, failed};
use super::inline_policy::Pace;
use super::open::{Reading, Site};
use super::statements::Layout;
use super::untouched::overtaken;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Operation, Result};

/// Reads at a time. More wait.
const READERS: u32 = 16;
/// Snapshots at a time. More are refused: each holds three files open.
const SNAPSHOTS: usize = 64;

/// Where reads get a connection from.
pub(super) trait Source: Send + Sync + 'static {
    fn base(&self) -> &Base;

    /// Works on the caller's thread, with a connection that does not wait for locks. `None`: none is
    /// free.
    fn at_once<T>(&self, work: impl FnOnce(&Connection) -> T) -> Option<T>;

    /// Works in a thread, once a connection is free.
    fn in_thread<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send;

    /// The time by which entries expire.
    fn now(&self) -> Timestamp;
}

/// What all reads of a store share.
pub(super) struct Base {
    pub(super) site: Site,
    pub(super) layout: Layout,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pace: Pace,
    closed: AtomicBool,
}

impl Base {
    pub(super) fn new(site: Site, layout: Layout, clock: Arc<dyn Clock>) -> Self {
        Self { site, layout, clock, pace: Pace::default(), closed: AtomicBool::new(false) }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    /// Does work, and lets the pace know how long each of its parts took.
    pub(super) fn timed<T>(&self, parts: usize, work: impl FnOnce() -> T) -> T {
        let begun = self.clock.monotonic();
        let done = work();
        let span = self.clock.monotonic().saturating_sub(begun);
        let parts = u32::try_from(parts.max(1)).unwrap_or(u32::MAX);
        self.pace.took(span.checked_div(parts).unwrap_or(Duration::MAX));
        done
    }
}

/// Connections to the newest state.
pub(super) struct Pool {
    base: Arc<Base>,
    /// The one used last is on top: its pages are in its memory.
    idle: Mutex<Vec<Reading>>,
    readers: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
}

impl Pool {
    pub(super) fn new(base: Arc<Base>, first: Reading) -> Self {
        Self {
            base,
            idle: Mutex::new(vec![first]),
            readers: Arc::new(Semaphore::new(READERS as usize)),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS)),
        }
    }

    fn connection(&self) -> Result<Reading> {
        loop {
            // In a statement of its own, so that the lock is not held while the file is looked at.
            let idle = self.idle.lock().pop();
            match idle {
                Some(reading) if self.base.site.is_current(&reading) => return Ok(reading),
                Some(_) => {}
                None => return self.base.site.reader(),
            }
        }
    }

    fn give_back(&self, db: Reading) {
        // One that is in the middle of something is closed, which ends it.
        if db.db.is_autocommit() && self.base.check_open().is_ok() {
            let mut idle = self.idle.lock();
            if idle.len() < READERS as usize {
                idle.push(db);
            }
        }
    }

    /// A view of this moment.
    pub(super) async fn freeze(self: &Arc<Self>) -> Result<Moment> {
        let permit = match Arc::clone(&self.snapshots).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.base.check_open()?;
                return Err(Error::new(
                    ErrorKind::Capacity,
                    format!("{SNAPSHOTS} snapshots are open already; drop some"),
                )
                .with_operation(Operation::Snapshot)
                .with_layer(NAME));
            }
        };
        let pool = Arc::clone(self);
        offload(move || {
            let db = pool.connection()?;
            let base = Arc::clone(&pool.base);
            let view = View { reading: Some(db), pool, _permit: permit };
            base.site
                .patient(view.db()?, |db| {
                    // The first read fixes the moment, not BEGIN.
                    db.execute_batch("BEGIN")?;
                    db.prepare_cached(&base.layout.begin)?.query([])?.next().map(drop)
                })
                .map_err(|error| failed(Operation::Snapshot, error))?;
            // After it: what was swept before has expired by then.
            let now = base.clock.now();
            Ok(Moment { base, now, view: Arc::new(tokio::sync::Mutex::new(view)) })
        })
        .await
    }

    /// Refuses further reads, waits for those that run, and closes the connections.
    pub(super) async fn close(&self) {
        self.base.closed.store(true, Ordering::Release);
        // Fails where an earlier call has closed it.
        let all = self.readers.acquire_many(READERS).await;
        self.readers.close();
        self.snapshots.close();
        drop(all);
        self.idle.lock().clear();
    }
}

impl Source for Pool {
    fn base(&self) -> &Base {
        &self.base
    }

    fn at_once<T>(&self, work: impl FnOnce(&Connection) -> T) -> Option<T> {
        let _permit = self.readers.try_acquire().ok()?;
        let _turn = self.base.site.try_reading()?;
        let reading = self.idle.lock().pop()?;
        if !self.base.site.is_current(&reading) {
            return None;
        }
        let done = work(&reading.db);
        let is_current = self.base.site.is_current(&reading);
        if is_current {
            self.give_back(reading);
        }
        is_current.then_some(done)
    }

    async fn in_thread<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.base.check_open()?;
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| closed())?;
        offload(move || {
            self.base.check_open()?;
            let _turn = self.base.site.reading();
            let reading = self.connection()?;
            let done = self.base.site.patient(&reading.db, work);
            if !self.base.site.is_current(&reading) {
                return Err(overtaken());
            }
            self.give_back(reading);
            drop(permit);
            done
        })
        .await
    }

    fn now(&self) -> Timestamp {
        self.base.clock.now()
    }
}

/// A snapshot: a connection in a read transaction that stays open.
pub(super) struct Moment {
    base: Arc<Base>,
    now: Timestamp,
    view: Arc<tokio::sync::Mutex<View>>,
}

struct View {
    reading: Option<Reading>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl View {
    fn db(&self) -> Result<&Connection> {
        self.reading.as_ref().map(|reading| &reading.db).ok_or_else(closed)
    }

    /// Fails where what was read may be of another moment.
    fn check(&self) -> Result<()> {
        match &self.reading {
            Some(reading) if !self.pool.base.site.is_current(reading) => Err(overtaken()),
            _ => Ok(()),
        }
    }

    fn end(&mut self) {
        if let Some(reading) = self.reading.take()
            && (reading.db.is_autocommit() || reading.db.execute_batch("ROLLBACK").is_ok())
        {
            self.pool.give_back(reading);
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.end();
    }
}

impl Moment {
    pub(super) async fn close(&self) {
        self.view.lock().await.end();
    }
}

impl Source for Moment {
    fn base(&self) -> &Base {
        &self.base
    }

    fn at_once<T>(&self, work: impl FnOnce(&Connection) -> T) -> Option<T> {
        let view = self.view.try_lock().ok()?;
        let done = work(view.db().ok()?);
        view.check().ok()?;
        Some(done)
    }

    async fn in_thread<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let view = Arc::clone(&self.view).lock_owned().await;
        offload(move || {
            let done = work(view.db()?);
            view.check()?;
            done
        })
        .await
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

/// Runs what blocks in a thread of the runtime. Dropped before a thread has begun it, it is never done.
pub(super) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let runtime = Handle::try_current().map_err(|error| {
        Error::unsupported("what needs the disk runs in a thread of a tokio runtime, and there is none; call it from within one").with_source(error)
    })?;
    let mut task = JoinSet::new();
    task.spawn_blocking_on(work, &runtime);
    match task.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(error)) if error.is_panic() => {
            Err(Error::internal("a thread panicked").with_source(error))
        }
        _ => Err(Error::new(ErrorKind::Closed, "the runtime is shutting down")),
    }
}
