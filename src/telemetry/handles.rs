//! What layers count with.
//!
//! Each handle counts in the registry of this process, and for the recorder that was installed when it was made.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use parking_lot::Mutex;

use super::distribution::Distribution;
use super::gatherer::{GATHERER, Gather};
use super::registry::Series;
use super::timing::Timing;

/// A number that only rises. See [`Labels`](super::Labels) for an example.
#[derive(Clone, Debug)]
pub struct Counter {
    pub(super) series: Arc<Series<AtomicU64>>,
    pub(super) facade: metrics::Counter,
}

impl Counter {
    /// Adds to it.
    pub fn increment(&self, by: u64) {
        self.series.cell.fetch_add(by, Relaxed);
        self.facade.increment(by);
    }

    /// What it has come to.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.series.cell.load(Relaxed)
    }
}

/// A whole number that rises and falls. See [`Labels`](super::Labels) for an example.
#[derive(Clone, Debug)]
pub struct Gauge {
    pub(super) series: Arc<Series<AtomicI64>>,
    pub(super) facade: metrics::Gauge,
}

impl Gauge {
    /// Adds to it.
    pub fn increment(&self, by: i64) {
        self.series.cell.fetch_add(by, Relaxed);
        self.facade.increment(by as f64);
    }

    /// Takes away from it.
    pub fn decrement(&self, by: i64) {
        self.series.cell.fetch_sub(by, Relaxed);
        self.facade.decrement(by as f64);
    }

    /// Makes it that number.
    pub fn set(&self, value: i64) {
        self.series.cell.store(value, Relaxed);
        self.facade.set(value as f64);
    }

    /// The number.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.series.cell.load(Relaxed)
    }
}

/// The parts of a distribution that a recorder is told of.
pub(super) const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)];

/// Durations, counted in [buckets](super::BOUNDS). See [`Labels`](super::Labels) for an example.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Told>);

/// What was counted, and what the recorder was told of it.
struct Told {
    series: Arc<Series<Timing>>,
    quantiles: [metrics::Gauge; QUANTILES.len()],
    before: Mutex<Distribution>,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.series.fmt(f)
    }
}

impl Histogram {
    pub(super) fn new(
        series: Arc<Series<Timing>>,
        quantiles: [metrics::Gauge; QUANTILES.len()],
    ) -> Self {
        Self(Arc::new(Told { series, quantiles, before: Mutex::default() }))
    }

    /// Counts a duration.
    pub fn record(&self, took: Duration) {
        self.record_sampled(took, 1);
    }

    /// Counts a duration that stands for so many of which only this one was measured.
    pub fn record_sampled(&self, took: Duration, times: u32) {
        if self.0.series.cell.add(took, times.into()) {
            let told: Arc<dyn Gather> = Arc::<Told>::clone(&self.0);
            // Without a thread the recorder is told nothing.
            let _ = GATHERER.attend(Arc::downgrade(&told));
        }
    }

    /// What it has counted.
    #[must_use]
    pub fn value(&self) -> Distribution {
        self.0.series.cell.read()
    }
}

/// A recorder gets quantiles, as gauges. Histograms of the facade keep every sample until somebody looks: without a
/// scrape, the memory of the process would grow for ever.
impl Gather for Told {
    fn gather(&self) {}

    fn gather_durations(&self) {
        let now = self.series.cell.read();
        let mut before = self.before.lock();
        let since = now.since(&before);
        *before = now;
        drop(before);
        for ((_, part), gauge) in QUANTILES.into_iter().zip(&self.quantiles) {
            if let Some(took) = since.quantile(part) {
                gauge.set(took.as_secs_f64());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use crate::telemetry::{Labels, names};

    use super::*;

    #[test]
    fn a_recorder_gets_quantiles_and_no_sample_that_it_would_keep() {
        let recorder = DebuggingRecorder::new();
        let waited = metrics::with_local_recorder(&recorder, || {
            Labels::new("quantiles", "limit").histogram(names::LIMIT_WAIT, &[])
        });
        for _ in 0..1000 {
            waited.record(Duration::from_nanos(200));
        }
        GATHERER.each(|counting| counting.gather_durations());
        let series = recorder.snapshotter().snapshot().into_vec();
        assert_eq!(series.len(), QUANTILES.len());
        for (key, .., value) in series {
            assert_eq!(key.key().name(), names::LIMIT_WAIT);
            assert!(key.key().labels().any(|label| label.key() == "quantile"));
            let DebugValue::Gauge(value) = value else { panic!("{value:?}") };
            assert!(*value > 100e-9 && *value <= 250e-9, "{value}");
        }
    }
}
