//! `metrics`: every operation counted and timed at the boundary where this layer stands.
//!
//! A stack built from a config has one at every boundary without being asked.
//!
//! # Guarantees
//! 1. Every operation is counted once, with its outcome, exactly. A dropped future counts as
//!    `cancelled`. A counter may be a second behind (see [`telemetry::gather`](crate::telemetry::gather)).
//! 2. An answer that the store below has in memory passes without an allocation or a lock. Its
//!    latency is sampled, one in 61 on each thread; whatever has to wait is always timed.
//! 3. Errors that pass are given the operation, the layer and the key, unless they
//!    have them. Answers are not changed otherwise.
//!
//! # Gives up
//! A few nanoseconds for each operation.
//!
//! # Position
//! Anywhere.
//!
//! # Cancellation
//! As the store below.
//!
//! # Errors
//! None of its own.
//!
//! # Metrics
//! | name | type | labels | a rise means |
//! |---|---|---|---|
//! | `tierstack_ops_total` | counter | stack, layer, op, outcome | more traffic |
//! | `tierstack_op_duration_seconds` | histogram | stack, layer, op | slower answers; a group of batches is timed as one |
//! | `tierstack_op_bytes_total` | counter | stack, layer, op | more or larger values |
//! | `tierstack_inflight` | gauge | stack, layer | answers waited for |
//! | `tierstack_errors_total` | counter | stack, layer, op, kind | failures |
//!
//! # Configuration
//! `metrics: {}`
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::layers::metrics::MetricsLayer;
//! use tierstack::telemetry::Labels;
//! use tierstack::{Layer, Read, StoreExt};
//!
//! let store = MetricsLayer::new(Labels::new("orders", "memory")).layer(Memory::new());
//! store.put("k", "v").await?;
//! assert_eq!(store.get(b"k").await?, Some("v".into()));
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use metrics::{Counter, Gauge, Histogram};
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Operation, Result};
use crate::layer::{Context, Layer, LayerConfig, StackLayer, Zone};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::telemetry::{Labels, Tally, gather, names};
use crate::types::{Batch, Commit, Identity, Profile, Scan, Scope, Sighting, Usage, Value};

/// Settings of the metrics layer: none.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::layers::metrics::MetricsConfig;
/// use tierstack::{Context, LayerConfig, Store};
///
/// let layer = MetricsConfig {}.open(&Context::default()).await?;
/// let store = layer.wrap(Arc::new(Memory::new())).await?;
/// assert_eq!(store.profile().to_string(), "metrics(memory)");
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {}

#[async_trait]
impl LayerConfig for MetricsConfig {
    const NAME: &'static str = "metrics";
    const ZONE: Zone = Zone::Guard;

    fn profile(&self, below: Profile) -> Result<Profile> {
        Ok(Profile::layer(Self::NAME, below))
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        let layer =
            MetricsLayer::new(context.labels.clone()).with_clock(Arc::clone(&context.clock));
        Ok(Arc::new(layer.visible()))
    }
}

/// Counts and times the operations of the stores it wraps, all in the same series.
/// See the [module docs](self).
#[derive(Clone, Debug)]
pub struct MetricsLayer {
    shared: Arc<Shared>,
    visible: bool,
}

impl MetricsLayer {
    /// Registers the series under these labels with the recorder that is installed now.
    #[must_use]
    pub fn new(labels: Labels) -> Self {
        Self { shared: Arc::new(Shared::new(labels, SystemClock::shared(), None)), visible: false }
    }

    /// Measures with that clock.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared::new(self.shared.labels.clone(), clock, self.shared.salt);
        Self { shared: Arc::new(shared), ..self }
    }

    /// Gives errors that [salt](Error::with_salt) for the fingerprint of a key.
    #[must_use]
    pub fn with_salt(self, salt: u64) -> Self {
        let Shared { labels, clock, .. } = &*self.shared;
        let shared = Shared::new(labels.clone(), Arc::clone(clock), Some(salt));
        Self { shared: Arc::new(shared), ..self }
    }

    /// A layer that was asked for shows in the profile; one at a boundary does not.
    fn visible(mut self) -> Self {
        self.visible = true;
        self
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;

    fn layer(&self, inner: S) -> Metrics<S> {
        Metrics { inner, shared: Arc::clone(&self.shared), visible: self.visible }
    }
}

/// See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Metrics<S> {
    inner: S,
    shared: Arc<Shared>,
    visible: bool,
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for Metrics<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        let shared = &*self.shared;
        let series = &shared.get;
        let start = sampled().then(|| shared.clock.monotonic());
        // An answer stays where the store below has put it: a move takes as long as the counting.
        let mut reply = self.inner.get(key);
        if let Reply::Now(Ok(value)) = &reply {
            if let Some(start) = start {
                series.time(&*shared.clock, start);
            }
            series.found(value.as_ref());
        } else {
            reply = shared.watch_get(reply, key);
        }
        reply
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let shared = &*self.shared;
        let series = &shared.get_many;
        let count = |values: &Vec<Option<Value>>| {
            let bytes = values.iter().flatten().map(|value| value.bytes.len() as u64).sum();
            series.ok.add([1, bytes]);
        };
        let start = sampled().then(|| shared.clock.monotonic());
        match self.inner.get_many(keys) {
            Reply::Now(Ok(values)) => {
                if let Some(start) = start {
                    series.time(&*shared.clock, start);
                }
                count(&values);
                Reply::Now(Ok(values))
            }
            Reply::Now(Err(error)) => Reply::Now(Err(shared.failed(series, error))),
            Reply::Later(future) => Reply::later(async move {
                let values = shared.watch(series, future).await?;
                count(&values);
                Ok(values)
            }),
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        let shared = &*self.shared;
        let series = &shared.scan;
        let pages = self.inner.scan(scan);
        // Each page is one operation: a scan that rests between pages is not slow.
        futures_util::stream::unfold(pages, move |mut pages| async move {
            let waiting = Waiting::new(&shared.inflight, &series.cancelled);
            let start = shared.clock.monotonic();
            let page = pages.next().await;
            waiting.done();
            // The end of a scan is no page.
            let page = page?;
            series.time(&*shared.clock, start);
            if let Ok(page) = &page {
                series.ok.add([1, page.bytes() as u64]);
            }
            Some((page.map_err(|error| shared.failed(series, error)), pages))
        })
        .boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Metrics<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let series = &self.shared.write;
        let bytes = batch.bytes() as u64;
        let commit = self.shared.watch(series, self.inner.write(batch)).await?;
        series.ok.add([1, bytes]);
        Ok(commit)
    }

    /// Counts every batch, and times the group.
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let (shared, series) = (&*self.shared, &self.shared.write);
        let bytes: Vec<u64> = group.iter().map(|batch| batch.bytes() as u64).collect();
        let waiting = Waiting::new(&shared.inflight, &series.cancelled);
        let start = shared.clock.monotonic();
        let answers = self.inner.write_group(group).await;
        waiting.done();
        series.time(&*shared.clock, start);
        let mut bytes = bytes.into_iter();
        let count = |answer: Result<Commit>| match (answer, bytes.next()) {
            (Ok(commit), bytes) => {
                series.ok.add([1, bytes.unwrap_or_default()]);
                Ok(commit)
            }
            (Err(error), _) => Err(shared.failed(series, error)),
        };
        answers.into_iter().map(count).collect()
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        let shared = &*self.shared;
        let series = &shared.ingest;
        let run_failed = AtomicBool::new(false);
        let counted = run.map(|page| {
            match &page {
                Ok(page) => series.bytes.increment(page.bytes() as u64),
                Err(_) => run_failed.store(true, Ordering::Relaxed),
            }
            page
        });
        let waiting = Waiting::new(&shared.inflight, &series.cancelled);
        let start = shared.clock.monotonic();
        let result = self.inner.ingest(counted.boxed()).await;
        waiting.done();
        series.time(&*shared.clock, start);
        match &result {
            Ok(_) => series.ok.add([1, 0]),
            // It did not arise here, but where the run comes from.
            Err(_) if run_failed.load(Ordering::Relaxed) => series.error.increment(1),
            Err(error) => return Err(shared.failed(series, error.clone())),
        }
        result
    }

    async fn changes(&self) -> Result<Changes> {
        self.shared.count(&self.shared.changes, self.inner.changes()).await
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.shared.count(&self.shared.invalidate, self.inner.invalidate(scope)).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Sighting>> {
        self.shared.count(&self.shared.inspect, self.inner.inspect(key)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let inner = self.shared.count(&self.shared.snapshot, self.inner.snapshot()).await?;
        Ok(Arc::new(Metrics { inner, shared: Arc::clone(&self.shared), visible: self.visible }))
    }

    async fn flush(&self) -> Result<()> {
        self.shared.count(&self.shared.flush, self.inner.flush()).await
    }

    async fn compact(&self) -> Result<()> {
        self.shared.count(&self.shared.compact, self.inner.compact()).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.shared.count(&self.shared.usage, self.inner.usage()).await
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.shared.count(&self.shared.usage, self.inner.count(prefix)).await
    }

    async fn close(&self) -> Result<()> {
        let closed = self.shared.count(&self.shared.close, self.inner.close()).await;
        gather();
        closed
    }

    fn profile(&self) -> Profile {
        let below = self.inner.profile();
        if self.visible { Profile::layer(MetricsConfig::NAME, below) } else { below }
    }

    fn identity(&self) -> Option<Identity> {
        self.inner.identity()
    }
}

/// Of so many answers from memory the latency of one is measured. A prime: the boundaries of a stack
/// take turns, and with a number that theirs divides the same one would always be measured.
const SAMPLE: u32 = 61;

/// Whether this call is measured: every 61st of a thread, without contention between threads.
fn sampled() -> bool {
    thread_local!(static CALLS: Cell<u32> = const { Cell::new(0) });
    CALLS.with(|calls| {
        let call = calls.get();
        calls.set(call.wrapping_add(1));
        call.is_multiple_of(SAMPLE)
    })
}

struct Shared {
    labels: Labels,
    clock: Arc<dyn Clock>,
    salt: Option<u64>,
    inflight: Gauge,
    get: Series,
    get_many: Series,
    scan: Series,
    write: Series,
    ingest: Series,
    changes: Series,
    invalidate: Series,
    inspect: Series,
    snapshot: Series,
    flush: Series,
    compact: Series,
    usage: Series,
    close: Series,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.labels.fmt(f)
    }
}

impl Shared {
    fn new(labels: Labels, clock: Arc<dyn Clock>, salt: Option<u64>) -> Self {
        let series = |operation| Series::new(&labels, operation);
        Self {
            inflight: labels.gauge(names::INFLIGHT, &[]),
            get: series(Operation::Get),
            get_many: series(Operation::GetMany),
            scan: series(Operation::Scan),
            write: series(Operation::Write),
            ingest: series(Operation::Ingest),
            changes: series(Operation::Changes),
            invalidate: series(Operation::Invalidate),
            inspect: series(Operation::Inspect),
            snapshot: series(Operation::Snapshot),
            flush: series(Operation::Flush),
            compact: series(Operation::Compact),
            usage: series(Operation::Usage),
            close: series(Operation::Close),
            labels,
            clock,
            salt,
        }
    }

    /// Counts an error, and says where it arose.
    fn failed(&self, series: &Series, error: Error) -> Error {
        series.error.increment(1);
        self.labels.count_error(series.operation, &error);
        let error = match self.salt {
            Some(salt) => error.with_salt(salt),
            None => error,
        };
        error.with_operation(series.operation).with_layer(self.labels.layer.clone())
    }

    /// Times what has to be waited for, and counts it unless it succeeds.
    async fn watch<T>(
        &self,
        series: &Series,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let waiting = Waiting::new(&self.inflight, &series.cancelled);
        let start = self.clock.monotonic();
        let result = future.await;
        waiting.done();
        series.time(&*self.clock, start);
        result.map_err(|error| self.failed(series, error))
    }

    /// Times and counts a read that failed, or waits.
    fn watch_get<'a>(
        &'a self,
        reply: Reply<'a, Option<Value>>,
        key: &'a [u8],
    ) -> Reply<'a, Option<Value>> {
        let series = &self.get;
        match reply {
            Reply::Now(result) => {
                Reply::Now(result.map_err(|error| self.failed(series, error).with_key(key)))
            }
            Reply::Later(future) => Reply::later(async move {
                let value = self.watch(series, future).await;
                let value = value.map_err(|error| error.with_key(key))?;
                series.found(value.as_ref());
                Ok(value)
            }),
        }
    }

    /// Times and counts.
    async fn count<T>(
        &self,
        series: &Series,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let value = self.watch(series, future).await?;
        series.ok.add([1, 0]);
        Ok(value)
    }
}

/// The series of one operation.
struct Series {
    operation: Operation,
    /// Operations that succeeded, and their bytes.
    ok: Tally<2>,
    missing: Tally<1>,
    error: Counter,
    cancelled: Counter,
    bytes: Counter,
    duration: Histogram,
}

impl Series {
    fn new(labels: &Labels, operation: Operation) -> Self {
        let op = ("op", operation.as_str());
        let outcome = |outcome| labels.counter(names::OPS, &[op, ("outcome", outcome)]);
        Self {
            operation,
            ok: Tally::new([outcome("ok"), labels.counter(names::OP_BYTES, &[op])]),
            missing: Tally::new([outcome("missing")]),
            error: outcome("error"),
            cancelled: outcome("cancelled"),
            bytes: labels.counter(names::OP_BYTES, &[op]),
            duration: labels.histogram(names::OP_DURATION, &[op]),
        }
    }

    fn found(&self, value: Option<&Value>) {
        match value {
            Some(value) => self.ok.add([1, value.bytes.len() as u64]),
            None => self.missing.add([1]),
        }
    }

    fn time(&self, clock: &dyn Clock, start: Duration) {
        self.duration.record(clock.monotonic().saturating_sub(start));
    }
}

/// Counts an operation that waits, and notices when it is dropped before it is done.
struct Waiting<'a> {
    inflight: &'a Gauge,
    cancelled: Option<&'a Counter>,
}

impl<'a> Waiting<'a> {
    fn new(inflight: &'a Gauge, cancelled: &'a Counter) -> Self {
        inflight.increment(1.0);
        Self { inflight, cancelled: Some(cancelled) }
    }

    fn done(mut self) {
        self.cancelled = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.inflight.decrement(1.0);
        if let Some(cancelled) = self.cancelled {
            cancelled.increment(1);
        }
    }
}

#[cfg(test)]
mod tests;
