//! What the program records in addition to this crate, where [`listen`](super::listen()) serves it.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio::runtime::Handle;

use super::distribution::BOUNDS;
use super::families::Family;
use crate::clock::SystemClock;

/// How often what histograms have kept is taken from them: they would grow without a scrape.
const UPKEEP: Duration = Duration::from_secs(5);

static RECORDED: OnceLock<PrometheusHandle> = OnceLock::new();

/// What was recorded, as text.
pub(super) fn text() -> String {
    RECORDED.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Installs a recorder, unless there is one.
pub(super) fn install(runtime: &Handle) {
    let bounds = BOUNDS.map(|bound| bound.as_secs_f64());
    let seconds = Matcher::Suffix("_seconds".to_owned());
    // It fails without bounds.
    let Ok(builder) = PrometheusBuilder::new().set_buckets_for_metric(seconds, &bounds) else {
        return;
    };
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(Others(recorder)).is_ok()
        && RECORDED.set(handle.clone()).is_ok()
    {
        runtime.spawn(async move {
            let clock = SystemClock::shared();
            loop {
                clock.sleep(UPKEEP).await;
                handle.run_upkeep();
            }
        });
    }
}

/// Records all but the families of this crate, which has a registry of its own.
struct Others(PrometheusRecorder);

fn is_ours(name: &str) -> bool {
    Family::of(name).is_some()
}

impl Recorder for Others {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_counter(name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_gauge(name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_histogram(name, unit, text);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        match is_ours(key.name()) {
            true => Counter::noop(),
            false => self.0.register_counter(key, metadata),
        }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        match is_ours(key.name()) {
            true => Gauge::noop(),
            false => self.0.register_gauge(key, metadata),
        }
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        match is_ours(key.name()) {
            true => Histogram::noop(),
            false => self.0.register_histogram(key, metadata),
        }
    }
}
