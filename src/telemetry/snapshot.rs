//! What was counted, as data.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::distribution::{BUCKETS, Distribution};

/// Labels of what a series belongs to: its stack and its layer.
pub(super) type Own = Arc<[(&'static str, Arc<str>)]>;

/// Labels of a series in addition to these.
pub(super) type More = Arc<[(&'static str, &'static str)]>;

/// The value of a series. See [`Snapshot`] for an example.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(f64),
    /// Of a histogram.
    Durations(Box<Distribution>),
}

impl Value {
    /// Adds what is counted elsewhere under the same labels. Of gauges the newer one stays.
    fn merge(&mut self, newer: Self) {
        match (self, newer) {
            (Self::Counter(sum), Self::Counter(count)) => *sum = sum.saturating_add(count),
            (Self::Durations(sum), Self::Durations(took)) => sum.merge(&took),
            (value, newer) => *value = newer,
        }
    }
}

/// A series and its value. See [`Snapshot`] for an example.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub(super) own: Own,
    pub(super) more: More,
    pub(super) value: Value,
}

impl Sample {
    /// The labels, names and values. What has no stack or no layer has no such label.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let own = self.own.iter().map(|(name, value)| (*name, &**value));
        own.chain(self.more.iter().copied())
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels().find_map(|(label, value)| (label == name).then_some(value))
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == Some(value))
    }
}

/// The series of this process and their values at one moment, as [`snapshot`](super::snapshot()) takes them.
///
/// ```
/// use tierstack::telemetry::{Labels, Value, names, snapshot};
///
/// let reads = Labels::new("orders", "file").counter(names::OPS, &[("op", "get")]);
/// reads.increment(3);
/// let seen = snapshot();
/// let gets = seen.select(names::OPS, &[("op", "get")]).find(|gets| gets.label("layer") == Some("file"));
/// assert_eq!(gets.map(|gets| gets.value()), Some(&Value::Counter(3)));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    families: BTreeMap<&'static str, Vec<Sample>>,
}

impl Snapshot {
    pub(super) fn push(&mut self, name: &'static str, sample: Sample) {
        self.families.entry(name).or_default().push(sample);
    }

    /// Adds a series of which there may be another with the same labels.
    pub(super) fn merge(&mut self, name: &'static str, sample: Sample) {
        let all = self.families.entry(name).or_default();
        let same = |other: &&mut Sample| (&other.own, &other.more) == (&sample.own, &sample.more);
        match all.iter_mut().rev().find(same) {
            Some(other) => other.value.merge(sample.value),
            None => all.push(sample),
        }
    }

    /// The families by name, and the series of each.
    pub fn families(&self) -> impl Iterator<Item = (&'static str, &[Sample])> {
        self.families.iter().map(|(name, samples)| (*name, &**samples))
    }

    /// The series of a family that have these labels, whatever others they have.
    pub fn select<'a>(
        &'a self,
        family: &str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> + use<'a> {
        let all = self.families.get(family).into_iter().flatten();
        all.filter(move |sample| sample.has(labels))
    }

    /// The sum of the counters with these labels.
    #[must_use]
    pub fn counter(&self, family: &str, labels: &[(&str, &str)]) -> u64 {
        let counts = self.select(family, labels).map(|sample| match &sample.value {
            Value::Counter(count) => *count,
            _ => 0,
        });
        counts.fold(0, u64::saturating_add)
    }

    /// The sum of the gauges with these labels; `None` if there is none.
    #[must_use]
    pub fn gauge(&self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let gauges = self.select(family, labels).filter_map(|sample| match sample.value {
            Value::Gauge(value) => Some(value),
            _ => None,
        });
        gauges.reduce(|sum, value| sum + value)
    }

    /// What the histograms with these labels have counted together.
    #[must_use]
    pub fn durations(&self, family: &str, labels: &[(&str, &str)]) -> Distribution {
        let mut all = Distribution::default();
        for sample in self.select(family, labels) {
            if let Value::Durations(took) = &sample.value {
                all.merge(took);
            }
        }
        all
    }

    /// How many series Prometheus keeps of this: of a histogram each bucket is one, and the sum and the count.
    #[must_use]
    pub fn series(&self) -> usize {
        let series = |sample: &Sample| match sample.value {
            Value::Durations(_) => BUCKETS + 2,
            _ => 1,
        };
        self.families.values().flatten().map(series).sum()
    }
}
