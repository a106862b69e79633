//! Names of metrics and labels, and the handles that layers count with.
//!
//! One family per idea; a label never holds a key or a path. Handles are made once, when a layer is
//! built, from the recorder that is installed at that moment; without one they cost a branch.

mod tally;

use metrics::{Counter, Gauge, Histogram};

#[cfg(feature = "telemetry")]
use crate::error::ErrorKind;
use crate::error::{Error, Operation, Result};

pub(crate) use self::tally::Tally;
pub use self::tally::gather;

/// Every metric of the crate.
pub mod names {
    /// Histogram, seconds: how long an operation took at a boundary. Hits in memory are sampled.
    pub const OP_DURATION: &str = "tierstack_op_duration_seconds";
    /// Counter: operations at a boundary, by outcome.
    pub const OPS: &str = "tierstack_ops_total";
    /// Counter: bytes of keys and values through a boundary.
    pub const OP_BYTES: &str = "tierstack_op_bytes_total";
    /// Gauge: operations under way at a boundary that wait for the disk or the network.
    pub const INFLIGHT: &str = "tierstack_inflight";
    /// Counter: errors at a boundary, by kind of error.
    pub const ERRORS: &str = "tierstack_errors_total";
    /// Counter: reads that reached a cache, by result.
    pub const CACHE_REQUESTS: &str = "tierstack_cache_requests_total";
    /// Counter: loads that a cache began before it needed their answers, by outcome.
    pub const CACHE_REFRESHES: &str = "tierstack_cache_refreshes_total";
    /// Histogram, seconds: how long a cache waited for the store below, where that did not answer at once.
    pub const CACHE_LOAD_DURATION: &str = "tierstack_cache_load_duration_seconds";
    /// Counter: keys of acknowledged writes, by whether a cache that keeps what is written has kept them.
    pub const CACHE_WRITES: &str = "tierstack_cache_writes_total";
    /// Gauge: bytes in a cache.
    pub const CACHE_BYTES: &str = "tierstack_cache_bytes";
    /// Gauge: entries in a cache.
    pub const CACHE_ENTRIES: &str = "tierstack_cache_entries";
    /// Counter: entries that left a cache, by cause.
    pub const CACHE_EVICTIONS: &str = "tierstack_cache_evictions_total";
    /// Counter: what a cache dropped as somebody said that it is old, or may be, by cause.
    pub const CACHE_INVALIDATIONS: &str = "tierstack_cache_invalidations_total";
    /// Gauge: 1 while a cache is told of what others change, else 0.
    pub const CACHE_LISTENING: &str = "tierstack_cache_listening";
    /// Gauge: bytes of the files of a cache's disk.
    pub const CACHE_DISK_BYTES: &str = "tierstack_cache_disk_bytes";
    /// Gauge: entries on a cache's disk, and on their way to it.
    pub const CACHE_DISK_ENTRIES: &str = "tierstack_cache_disk_entries";
    /// Gauge: 1 while a cache's disk is in use, 0 once it failed.
    pub const CACHE_DISK_ACTIVE: &str = "tierstack_cache_disk_active";
    /// Counter: entries that a cache's disk did not take, or could not give back, by cause.
    pub const CACHE_DISK_DROPS: &str = "tierstack_cache_disk_drops_total";
    /// Counter: keys that a cache loaded for its warm start.
    pub const CACHE_WARM_START_KEYS: &str = "tierstack_cache_warm_start_keys_total";
    /// Counter: bytes of values before and after a codec.
    pub const CODEC_BYTES: &str = "tierstack_codec_bytes_total";
    /// Counter: attempts beyond the first.
    pub const RETRIES: &str = "tierstack_retries_total";
    /// Histogram, seconds: how long an operation waited for a permit.
    pub const LIMIT_WAIT: &str = "tierstack_limit_wait_seconds";
    /// Gauge, seconds since the epoch: when a backup last succeeded.
    pub const BACKUP_LAST_SUCCESS: &str = "tierstack_backup_last_success_timestamp_seconds";
    /// Gauge, seconds: the longest time between two scheduled backups.
    pub const BACKUP_EXPECTED_INTERVAL: &str = "tierstack_backup_expected_interval_seconds";
    /// Counter: bytes of a backup, by stage.
    pub const BACKUP_BYTES: &str = "tierstack_backup_bytes_total";
    /// Counter: backups that failed.
    pub const BACKUP_FAILURES: &str = "tierstack_backup_failures_total";
}

/// Upper bounds of the latency histograms, in seconds: from a microsecond, as a hit in memory takes
/// less, to a minute.
#[cfg(feature = "telemetry")]
const BUCKETS: [f64; 24] = [
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2,
    5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Serves Prometheus text at that address, from now until the process ends. To be called once, in a
/// tokio runtime, before stacks are opened: series are registered when a layer is made.
///
/// # Errors
/// `Conflict` if metrics are recorded by somebody already; `Unavailable` if the address is taken;
/// `Unsupported` outside a tokio runtime, or without the feature `telemetry`.
#[cfg(feature = "telemetry")]
pub fn listen(address: std::net::SocketAddr) -> Result<()> {
    use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

    tokio::runtime::Handle::try_current().map_err(|error| {
        Error::unsupported(
            "metrics are served by a task of a tokio runtime, and there is none here",
        )
        .with_source(error)
    })?;
    let failed = |error: BuildError| {
        let (kind, what) = match &error {
            BuildError::FailedToCreateHTTPListener(_) => {
                (ErrorKind::Unavailable, "is taken, or not an address of this machine")
            }
            _ => (
                ErrorKind::Conflict,
                "cannot be served: this process records its metrics elsewhere",
            ),
        };
        Error::new(kind, format!("telemetry.listen {address} {what}")).with_source(error)
    };
    PrometheusBuilder::new()
        .with_http_listener(address)
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .and_then(PrometheusBuilder::install)
        .map_err(failed)
}

/// See the function of the same name with the feature `telemetry`.
///
/// # Errors
/// `Unsupported`, always.
#[cfg(not(feature = "telemetry"))]
pub fn listen(_address: std::net::SocketAddr) -> Result<()> {
    Err(Error::unsupported(
        "this build serves no metrics; build tierstack with the cargo feature 'telemetry'",
    ))
}

/// Which stack and layer a series belongs to.
///
/// ```
/// use metrics_util::debugging::{DebugValue, DebuggingRecorder};
/// use tierstack::telemetry::{Labels, names};
///
/// let recorder = DebuggingRecorder::new();
/// let recorded = recorder.snapshotter();
/// metrics::with_local_recorder(&recorder, || {
///     let gets = Labels::new("orders", "cache").counter(names::OPS, &[("op", "get")]);
///     gets.increment(2);
/// });
/// let (series, _, _, value) = recorded.snapshot().into_vec().remove(0);
/// let labels: Vec<_> = series.key().labels().map(|label| label.value()).collect();
/// assert_eq!((labels, value), (vec!["orders", "cache", "get"], DebugValue::Counter(2)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The name of the store in the config file.
    pub stack: String,
    /// The name of the layer or backend, with its place where it occurs more than once.
    pub layer: String,
}

impl Labels {
    /// Labels of one layer of a stack.
    pub fn new(stack: impl Into<String>, layer: impl Into<String>) -> Self {
        Self { stack: stack.into(), layer: layer.into() }
    }

    fn with(&self, more: &[(&'static str, &'static str)]) -> Vec<metrics::Label> {
        let mut labels = vec![
            metrics::Label::new("stack", self.stack.clone()),
            metrics::Label::new("layer", self.layer.clone()),
        ];
        labels.extend(
            more.iter().map(|(name, value)| metrics::Label::from_static_parts(name, value)),
        );
        labels
    }

    /// A counter of this layer.
    pub fn counter(&self, name: &'static str, more: &[(&'static str, &'static str)]) -> Counter {
        metrics::counter!(name, self.with(more))
    }

    /// A gauge of this layer.
    pub fn gauge(&self, name: &'static str, more: &[(&'static str, &'static str)]) -> Gauge {
        metrics::gauge!(name, self.with(more))
    }

    /// A histogram of this layer.
    pub fn histogram(
        &self,
        name: &'static str,
        more: &[(&'static str, &'static str)],
    ) -> Histogram {
        metrics::histogram!(name, self.with(more))
    }

    /// Counts an error. Errors are rare enough to look their series up each time.
    pub fn count_error(&self, operation: Operation, error: &Error) {
        self.counter(names::ERRORS, &[("op", operation.as_str()), ("kind", error.kind().as_str())])
            .increment(1);
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::new("", "")
    }
}
