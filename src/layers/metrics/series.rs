//! The series of a boundary.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::sample::Call;
use crate::clock::Clock;
use crate::error::{Error, Operation, Result};
use crate::reply::Reply;
use crate::telemetry::{Counter, Errors, Gauge, Histogram, Labels, SAMPLE, ShardedCounters, names};
use crate::types::Value;

pub(super) struct Shared {
    pub(super) labels: Labels,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) salt: Option<u64>,
    /// Stores that are wrapped, and not closed.
    open: AtomicUsize,
    _depth: Option<Gauge>,
    pub(super) inflight: Gauge,
    errors: Errors,
    pub(super) get: Series,
    pub(super) get_many: Series,
    pub(super) scan: Series,
    pub(super) write: Series,
    pub(super) ingest: Series,
    /// The bytes of runs, page by page.
    pub(super) ingested: Counter,
    pub(super) changes: Series,
    pub(super) invalidate: Series,
    pub(super) inspect: Series,
    pub(super) snapshot: Series,
    pub(super) flush: Series,
    pub(super) compact: Series,
    pub(super) usage: Series,
    pub(super) close: Series,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.labels.fmt(f)
    }
}

impl Shared {
    pub(super) fn new(labels: Labels, clock: Arc<dyn Clock>, salt: Option<u64>) -> Self {
        let series = |operation| Series::new(&labels, operation);
        Self {
            open: AtomicUsize::new(0),
            _depth: labels.depth(),
            inflight: labels.gauge(names::INFLIGHT, &[]),
            errors: labels.errors(),
            get: series(Operation::Get),
            get_many: series(Operation::GetMany),
            scan: series(Operation::Scan),
            write: series(Operation::Write),
            ingest: series(Operation::Ingest),
            ingested: labels.counter(names::OP_BYTES, &[("op", Operation::Ingest.as_str())]),
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

    pub(super) fn opened(&self) -> Opened {
        self.open.fetch_add(1, Ordering::AcqRel);
        self.labels.begin();
        Opened(AtomicBool::new(true))
    }

    /// Counts an error, and says where it arose.
    pub(super) fn failed(&self, series: &Series, error: Error) -> Error {
        series.error.increment(1);
        self.errors.count(&error);
        let error = match self.salt {
            Some(salt) => error.with_salt(salt),
            None => error,
        };
        error.with_operation(series.operation).with_layer(self.labels.layer().to_owned())
    }

    /// Times what has to be waited for, and counts it unless it succeeds.
    pub(super) async fn watch<T>(
        &self,
        series: &Series,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let start = self.clock.monotonic();
        self.watch_from(series, start, future).await
    }

    /// As `watch`, of what began before.
    pub(super) async fn watch_from<T>(
        &self,
        series: &Series,
        start: Duration,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let waiting = Waiting::new(&self.inflight, &series.cancelled);
        let result = future.await;
        waiting.done();
        series.time(&*self.clock, start);
        result.map_err(|error| self.failed(series, error))
    }

    /// Times and counts a read that failed, or waits.
    pub(super) fn watch_get<'a>(
        &'a self,
        call: Call,
        reply: Reply<'a, Option<Value>>,
        key: &'a [u8],
    ) -> Reply<'a, Option<Value>> {
        let series = &self.get;
        match reply {
            Reply::Now(result) => {
                series.answered(&*self.clock, call);
                Reply::Now(result.map_err(|error| self.failed(series, error).with_key(key)))
            }
            Reply::Later(future) => {
                let start = call.waits(&series.waits, &*self.clock);
                Reply::later(async move {
                    let value = self.watch_from(series, start, future).await;
                    let value = value.map_err(|error| error.with_key(key))?;
                    series.found(value.as_ref());
                    Ok(value)
                })
            }
        }
    }

    /// Times and counts.
    pub(super) async fn count<T>(
        &self,
        series: &Series,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let value = self.watch(series, future).await?;
        series.succeeded(0);
        Ok(value)
    }
}

/// A store that is wrapped, until it is closed.
#[derive(Debug)]
pub(super) struct Opened(AtomicBool);

impl Opened {
    /// The series end with the last store that counts in them.
    pub(super) fn closed(&self, shared: &Shared) {
        if self.0.swap(false, Ordering::AcqRel) && shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.labels.end();
        }
    }
}

/// The series of one operation.
pub(super) struct Series {
    operation: Operation,
    /// Whether the last answer that was sampled had to be waited for.
    pub(super) waits: AtomicBool,
    ok: Succeeded,
    missing: Option<ShardedCounters<1>>,
    pub(super) error: Counter,
    pub(super) cancelled: Counter,
    duration: Option<Histogram>,
}

/// Operations that succeeded.
enum Succeeded {
    /// With their bytes.
    Bytes(ShardedCounters<2>),
    Only(Counter),
}

/// Operations that carry values.
const CARRIES: [Operation; 5] =
    [Operation::Get, Operation::GetMany, Operation::Scan, Operation::Write, Operation::Ingest];

impl Series {
    fn new(labels: &Labels, operation: Operation) -> Self {
        let op = ("op", operation.as_str());
        let outcome = |outcome| labels.counter(names::OPS, &[op, ("outcome", outcome)]);
        let carries = CARRIES.contains(&operation);
        // Each histogram is thirty series, so the operations that no task waits for often have none.
        let is_timed = carries || operation == Operation::Flush;
        Self {
            operation,
            waits: AtomicBool::new(false),
            ok: match carries {
                true => {
                    let bytes = labels.counter(names::OP_BYTES, &[op]);
                    Succeeded::Bytes(ShardedCounters::new([outcome("ok"), bytes]))
                }
                false => Succeeded::Only(outcome("ok")),
            },
            missing: (operation == Operation::Get)
                .then(|| ShardedCounters::new([outcome("missing")])),
            error: outcome("error"),
            cancelled: outcome("cancelled"),
            duration: is_timed.then(|| labels.histogram(names::OP_DURATION, &[op])),
        }
    }

    /// An operation succeeded, with so many bytes.
    pub(super) fn succeeded(&self, bytes: u64) {
        match &self.ok {
            Succeeded::Bytes(counters) => counters.add([1, bytes]),
            Succeeded::Only(counter) => counter.increment(1),
        }
    }

    pub(super) fn found(&self, value: Option<&Value>) {
        match (value, &self.missing) {
            (Some(value), _) => self.succeeded(value.bytes.len() as u64),
            (None, Some(missing)) => missing.add([1]),
            (None, None) => {}
        }
    }

    /// An answer that was there at once.
    #[inline]
    pub(super) fn answered(&self, clock: &dyn Clock, call: Call) {
        if call.is_sampled {
            self.sampled(clock, &call);
        }
    }

    #[cold]
    fn sampled(&self, clock: &dyn Clock, call: &Call) {
        call.is_there(&self.waits);
        if let (Some(duration), Some(start)) = (&self.duration, call.start) {
            duration.record_sampled(clock.monotonic().saturating_sub(start), SAMPLE);
        }
    }

    pub(super) fn time(&self, clock: &dyn Clock, start: Duration) {
        if let Some(duration) = &self.duration {
            duration.record(clock.monotonic().saturating_sub(start));
        }
    }
}

/// Counts an operation that waits, and notices when it is dropped before it is done.
pub(super) struct Waiting<'a> {
    inflight: &'a Gauge,
    cancelled: Option<&'a Counter>,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(inflight: &'a Gauge, cancelled: &'a Counter) -> Self {
        inflight.increment(1);
        Self { inflight, cancelled: Some(cancelled) }
    }

    pub(super) fn done(mut self) {
        self.cancelled = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.inflight.decrement(1);
        if let Some(cancelled) = self.cancelled {
            cancelled.increment(1);
        }
    }
}
