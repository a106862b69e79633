//! `metrics`: every operation counted and timed at the boundary where this layer is.
//!
//! A stack built from a config has one at every boundary without being asked.
//!
//! # Guarantees
//! 1. Every operation is counted once, with its outcome, exactly. A dropped future counts as
//!    `cancelled`. A counter may be a second behind (see [`telemetry::gather`](crate::telemetry::gather)).
//! 2. An answer that the store below has in memory passes without an allocation or a lock. One in 61 of these is
//!    timed, chosen at random, and counts 61 times; what has to wait is always timed. So the histogram is that of all
//!    operations: a quantile of it is right within its bucket.
//! 3. A duration is from the call of the operation, not from when its answer is first waited for. Where answers from
//!    memory and others take turns, that of the others is from when the innermost boundary was asked.
//! 4. The series exist from the start, at 0, and end when the last store that the layer wraps is closed.
//! 5. Errors that pass are given the operation, the layer and the key, unless they
//!    have them. Answers are not changed otherwise.
//!
//! # Gives up
//! A hit of a cache takes 17 ns more with a boundary over it than without, 21 ns with two threads
//! (`cargo bench --features full --bench stack -- metrics`).
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
//! | `tierstack_op_duration_seconds` | histogram | stack, layer, op (get, get_many, scan, write, ingest, flush) | slower answers; a group of batches is timed as one |
//! | `tierstack_op_bytes_total` | counter | stack, layer, op (get, get_many, scan, write, ingest) | more or larger values |
//! | `tierstack_inflight` | gauge | stack, layer | answers waited for |
//! | `tierstack_errors_total` | counter | stack, layer, kind | failures |
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

mod sample;
mod series;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use self::sample::Call;
use self::series::{Opened, Shared, Waiting};
use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::layer::{Context, Layer, LayerConfig, StackLayer, Zone};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::telemetry::{Labels, gather};
use crate::types::{Batch, Commit, Identity, Inspection, Profile, Scan, Scope, Usage, Value};

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

    /// Gives errors that [salt](crate::Error::with_salt) for the fingerprint of a key.
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
        let opened = Arc::new(self.shared.opened());
        Metrics { inner, shared: Arc::clone(&self.shared), opened, visible: self.visible }
    }
}

/// See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Metrics<S> {
    inner: S,
    shared: Arc<Shared>,
    opened: Arc<Opened>,
    visible: bool,
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for Metrics<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        let shared = &*self.shared;
        let series = &shared.get;
        let call = Call::begin(&series.waits, &*shared.clock);
        // An answer stays where the store below has put it: a move takes as long as the counting.
        let mut reply = self.inner.get(key);
        if let Reply::Now(Ok(value)) = &reply {
            series.answered(&*shared.clock, call);
            series.found(value.as_ref());
        } else {
            reply = shared.watch_get(call, reply, key);
        }
        reply
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let shared = &*self.shared;
        let series = &shared.get_many;
        let count = |values: &Vec<Option<Value>>| {
            let bytes = values.iter().flatten().map(|value| value.bytes.len() as u64).sum();
            series.succeeded(bytes);
        };
        let call = Call::begin(&series.waits, &*shared.clock);
        match self.inner.get_many(keys) {
            Reply::Now(result) => {
                series.answered(&*shared.clock, call);
                let result = result.inspect(count);
                Reply::Now(result.map_err(|error| shared.failed(series, error)))
            }
            Reply::Later(future) => {
                let start = call.waits(&series.waits, &*shared.clock);
                Reply::later(async move {
                    let values = shared.watch_from(series, start, future).await?;
                    count(&values);
                    Ok(values)
                })
            }
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        let shared = &*self.shared;
        let series = &shared.scan;
        let start = shared.clock.monotonic();
        let pages = self.inner.scan(scan);
        // What the call itself took counts for the first page.
        let called = shared.clock.monotonic().saturating_sub(start);
        // Each page is one operation: a scan that rests between pages is not slow.
        futures_util::stream::unfold((pages, called), move |(mut pages, called)| async move {
            let waiting = Waiting::new(&shared.inflight, &series.cancelled);
            let start = shared.clock.monotonic().saturating_sub(called);
            let page = pages.next().await;
            waiting.done();
            // The end of a scan is no page.
            let page = page?;
            series.time(&*shared.clock, start);
            if let Ok(page) = &page {
                series.succeeded(page.bytes() as u64);
            }
            Some((page.map_err(|error| shared.failed(series, error)), (pages, Duration::ZERO)))
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
        series.succeeded(bytes);
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
                series.succeeded(bytes.unwrap_or_default());
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
                Ok(page) => shared.ingested.increment(page.bytes() as u64),
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
            Ok(_) => series.succeeded(0),
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

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        self.shared.count(&self.shared.inspect, self.inner.inspect(key)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let inner = self.shared.count(&self.shared.snapshot, self.inner.snapshot()).await?;
        let (shared, opened) = (Arc::clone(&self.shared), Arc::clone(&self.opened));
        Ok(Arc::new(Metrics { inner, shared, opened, visible: self.visible }))
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
        // For recorders: what was counted before is not lost with the process.
        gather();
        self.opened.closed(&self.shared);
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

#[cfg(test)]
mod tests;
