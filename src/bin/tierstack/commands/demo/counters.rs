//! The stack's own counters, read back: the demo prints what a Prometheus would show.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use tierstack::telemetry::names;

/// Keeps counters; gauges and histograms are not needed here.
#[derive(Clone, Default)]
pub(super) struct Counters(Arc<Mutex<HashMap<Key, Arc<AtomicU64>>>>);

impl Counters {
    /// Records from now on. Only the first recorder of a process gets the place; then nothing is
    /// counted here, and the demo shows no hit rate.
    pub(super) fn install() -> Self {
        let counters = Self::default();
        // Another recorder has the place: its owner wants it more.
        let _ = metrics::set_global_recorder(counters.clone());
        counters
    }

    /// The counter of the hits of a store's cache; `None` if it has no cache.
    pub(super) fn cache_hits(&self, store: &str) -> Option<Arc<AtomicU64>> {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |key: &Key, name: &str, value: &str| {
            key.labels().any(|label| label.key() == name && label.value() == value)
        };
        let found = counters.iter().find(|(key, _)| {
            key.name() == names::CACHE_REQUESTS
                && is(key, "stack", store)
                && is(key, "result", "hit")
        });
        found.map(|(_, counter)| Arc::clone(counter))
    }
}

/// What a counter says now, with all that threads have counted.
pub(super) fn value(counter: Option<&Arc<AtomicU64>>) -> u64 {
    counter.map_or(0, |counter| {
        tierstack::telemetry::gather();
        counter.load(Ordering::Relaxed)
    })
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Counter::from_arc(Arc::clone(counters.entry(key.clone()).or_default()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
