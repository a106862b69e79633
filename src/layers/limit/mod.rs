//! `limit`: so many operations at once, and no more.
//!
//! # Guarantees
//! At most `operations` operations wait for the store below at a time; others wait for their turn,
//! first come, first served. A permit is held while one answer, or one page of a scan, is awaited, and
//! never between pages or by a stream that nobody polls: a scan whose loop reads the same store
//! works with `operations: 1`. What the store below answers at once needs no permit. Snapshots share
//! the permits of their store. A group of batches is one operation.
//!
//! # Gives up
//! Latency under load, for a store below that is not overrun.
//!
//! # Position
//! Anywhere. Inside a `cache`, hits are not counted; outside a `retry`, an operation keeps its permit
//! during the pauses between attempts.
//!
//! # Cancellation
//! A dropped operation leaves the queue, or gives its permit back. One that was polled, and is then
//! neither polled on nor dropped, keeps its permit: set `wait` where that can happen.
//!
//! # Errors
//! `Capacity`, to be tried again, when the turn does not come within `wait` or `queue` operations wait
//! already; nothing was done then. `flush`, `compact` and `close` take no permit, so that a
//! store that is overrun can still be shut down; nor does `ingest`, as its run may be read with the same
//! permits.
//!
//! # Metrics
//! | name | type | labels | a rise means |
//! |---|---|---|---|
//! | `tierstack_limit_wait_seconds` | histogram | | of those that had to wait: the store below is slower, or more is asked of it |
//!
//! # Configuration
//! `limit: { operations: 64, wait: 1s, queue: 1000 }`
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::layers::limit::{LimitConfig, LimitLayer};
//! use tierstack::{Context, Layer, StoreExt};
//!
//! let config = LimitConfig { operations: 8, ..LimitConfig::default() };
//! let store = LimitLayer::new(&config, &Context::default())?.layer(Memory::new());
//! store.put("k", "v").await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Operation, Outcome, Result, Retry};
use crate::forward;
use crate::layer::{Context, Layer, LayerConfig, StackLayer, Zone};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::telemetry::{Histogram, Labels, names};
use crate::types::units::{Span, counted};
use crate::types::{Batch, Commit, Inspection, Profile, Scan, Scope, Usage, Value};
use crate::write_group::complete;

/// Settings of the limit layer. See the [module docs](self).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// How many operations may wait for the store below at once. Default 64; at least 1. Fewer
    /// spare the store, more use it better.
    pub operations: usize,
    /// How long an operation waits for its turn. Default: as long as it takes. A bound turns
    /// overload into errors instead of delay.
    pub wait: Option<Span>,
    /// How many operations may wait for their turn. Default: any number. A bound keeps the memory of
    /// those that wait in bounds; 0 refuses whatever has no turn at once.
    pub queue: Option<usize>,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self { operations: 64, wait: None, queue: None }
    }
}

impl LimitConfig {
    fn check(&self) -> Result<()> {
        if self.operations == 0 || self.operations > Semaphore::MAX_PERMITS {
            return Err(Error::config(format!(
                "operations is {}; it must be from 1 to {}",
                self.operations,
                Semaphore::MAX_PERMITS
            ))
            .with_setting("operations"));
        }
        if self.wait.is_some_and(|wait| wait.0.is_zero()) {
            return Err(Error::config(
                "wait is 0; it must be longer, or `queue: 0` to refuse what has no turn at once",
            )
            .with_setting("wait"));
        }
        Ok(())
    }
}

#[async_trait]
impl LayerConfig for LimitConfig {
    const NAME: &'static str = "limit";
    const ZONE: Zone = Zone::Guard;

    fn profile(&self, below: Profile) -> Result<Profile> {
        self.check()?;
        Ok(Profile::layer(Self::NAME, below))
    }

    fn register_metrics(&self, context: &Context, _: &Profile) {
        drop(waited(&context.labels));
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(LimitLayer::new(self, context)?))
    }
}

fn waited(labels: &Labels) -> Histogram {
    labels.histogram(names::LIMIT_WAIT, &[])
}

/// Bounds the operations of the stores it wraps, of all of them together. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct LimitLayer {
    turns: Arc<Turns>,
}

impl LimitLayer {
    /// A layer with these settings, on the context's clock.
    ///
    /// # Errors
    /// `Config` if a setting is out of range.
    pub fn new(config: &LimitConfig, context: &Context) -> Result<Self> {
        config.check()?;
        let turns = Turns {
            permits: Semaphore::new(config.operations),
            waiting: AtomicUsize::new(0),
            config: config.clone(),
            clock: Arc::clone(&context.clock),
            waited: waited(&context.labels),
        };
        Ok(Self { turns: Arc::new(turns) })
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit { inner, turns: Arc::clone(&self.turns) }
    }
}

/// See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Limit<S> {
    inner: S,
    turns: Arc<Turns>,
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for Limit<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        match self.inner.get(key) {
            Reply::Now(result) => Reply::Now(result),
            later => Reply::later(self.turns.during(Operation::Get, later)),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        match self.inner.get_many(keys) {
            Reply::Now(result) => Reply::Now(result),
            later => Reply::later(self.turns.during(Operation::GetMany, later)),
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        let pages = self.inner.scan(scan);
        futures_util::stream::unfold(Some(pages), |pages| async {
            let mut pages = pages?;
            let next = async { pages.next().await.transpose() };
            match self.turns.during(Operation::Scan, next).await.transpose()? {
                Ok(page) => Some((Ok(page), Some(pages))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Limit<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.turns.during(Operation::Write, self.inner.write(batch)).await
    }

    /// One operation, with one permit.
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let batches = group.len();
        let written = async { Ok(self.inner.write_group(group).await) };
        let answers = self.turns.during(Operation::Write, written).await;
        answers.unwrap_or_else(|error| complete(vec![Err(error)], batches))
    }

    // Passes without a permit: the run may be read through this very store.
    forward!(self => self.inner; ingest);

    async fn changes(&self) -> Result<Changes> {
        self.turns.during(Operation::Changes, self.inner.changes()).await
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.turns.during(Operation::Invalidate, self.inner.invalidate(scope)).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        self.turns.during(Operation::Inspect, self.inner.inspect(key)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let inner = self.turns.during(Operation::Snapshot, self.inner.snapshot()).await?;
        Ok(Arc::new(Limit { inner, turns: Arc::clone(&self.turns) }))
    }

    async fn usage(&self) -> Result<Usage> {
        self.turns.during(Operation::Usage, self.inner.usage()).await
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.turns.during(Operation::Usage, self.inner.count(prefix)).await
    }

    fn profile(&self) -> Profile {
        Profile::layer(LimitConfig::NAME, self.inner.profile())
    }

    forward!(self => self.inner; flush, compact, close, identity);
}

struct Turns {
    /// Fair: a permit that is given back goes to the caller that has waited longest.
    permits: Semaphore,
    waiting: AtomicUsize,
    config: LimitConfig,
    clock: Arc<dyn Clock>,
    waited: Histogram,
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.config.fmt(f)
    }
}

impl Turns {
    /// Awaits an answer with a permit in hand. Nothing is polled before.
    async fn during<T>(
        &self,
        operation: Operation,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let _permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => self
                .wait()
                .await
                .map_err(|error| error.with_layer(LimitConfig::NAME).with_operation(operation))?,
        };
        answer.await
    }

    async fn wait(&self) -> Result<SemaphorePermit<'_>> {
        let _place = self.enter_queue()?;
        let start = self.clock.monotonic();
        let time_is_up = async {
            match self.config.wait {
                Some(wait) => {
                    self.clock.sleep(wait.0).await;
                    wait
                }
                None => std::future::pending().await,
            }
        };
        let permit = tokio::select! {
            biased;
            permit = self.permits.acquire() => {
                permit.map_err(|_| Error::internal("the semaphore is never closed"))
            }
            wait = time_is_up => Err(overrun(format!("no turn came within {wait}"))),
        };
        self.waited.record(self.clock.monotonic().saturating_sub(start));
        permit
    }

    fn enter_queue(&self) -> Result<QueuePlace<'_>> {
        // Counted first, so that two callers at once cannot both take the last place.
        let place = QueuePlace(&self.waiting);
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        match self.config.queue {
            Some(queue) if before >= queue => {
                let waiting = counted(before as u64, "operation waits", "operations wait");
                Err(overrun(format!("{waiting} already")))
            }
            _ => Ok(place),
        }
    }
}

/// A place in the queue, left when dropped.
struct QueuePlace<'a>(&'a AtomicUsize);

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn overrun(what: String) -> Error {
    Error::new(
        ErrorKind::Capacity,
        format!("{what}; nothing was done, try again later or raise the limit"),
    )
    .with_retry(Retry::Later)
    .with_outcome(Outcome::Nothing)
}
