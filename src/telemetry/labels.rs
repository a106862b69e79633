//! Which stack and layer a series belongs to.

use std::fmt;
use std::sync::Arc;

use super::families::{Family, Kind, names};
use super::handles::{Counter, Gauge, Histogram, QUANTILES};
use super::registry::{Scope, is_rehearsal};
use crate::error::{Error, ErrorKind};

/// Which stack and layer a series belongs to, and what makes its handles.
///
/// Clones belong together: when the store that they are at is closed, the series of all of them end.
///
/// ```
/// use tierstack::telemetry::{Labels, names, snapshot};
///
/// let gets = Labels::new("orders", "cache").counter(names::OPS, &[("op", "get")]);
/// gets.increment(2);
/// assert_eq!(snapshot().counter(names::OPS, &[("stack", "orders"), ("layer", "cache")]), 2);
/// drop(gets);
/// assert_eq!(snapshot().select(names::OPS, &[("stack", "orders")]).count(), 0);
///
/// let labels = Labels::new("orders", "remote");
/// let (errors, waiting) = (labels.errors(), labels.gauge(names::INFLIGHT, &[]));
/// let waited = labels.histogram(names::LIMIT_WAIT, &[]);
/// errors.count(&tierstack::Error::closed());
/// waiting.set(2);
/// waited.record(std::time::Duration::from_millis(3));
/// assert_eq!((waiting.value(), waited.value().count()), (2, 1));
/// assert_eq!(snapshot().counter(names::ERRORS, &[("kind", "closed")]), 1);
/// ```
#[derive(Clone)]
pub struct Labels(Arc<Scope>);

impl Labels {
    /// Labels of one layer of a stack. An empty name is no label.
    pub fn new(stack: impl AsRef<str>, layer: impl AsRef<str>) -> Self {
        Self(Arc::new(Scope::new(&named(stack.as_ref(), layer.as_ref()), None)))
    }

    /// Labels of what is no layer of a stack.
    #[cfg(feature = "serve")]
    pub(crate) fn of(name: &'static str, value: &str) -> Self {
        Self(Arc::new(Scope::new(&[(name, value)], None)))
    }

    /// Labels of a layer below so many others.
    #[cfg(feature = "config")]
    pub(crate) fn below(stack: &str, layer: &str, depth: usize) -> Self {
        Self(Arc::new(Scope::new(&named(stack, layer), Some(depth))))
    }

    /// Shows how many layers are above this one, where that is known.
    pub(crate) fn depth(&self) -> Option<Gauge> {
        let depth = i64::try_from(self.0.depth?).unwrap_or(i64::MAX);
        let gauge = self.gauge(names::LAYER_DEPTH, &[]);
        gauge.set(depth);
        Some(gauge)
    }

    /// The name of the store in the config file.
    #[must_use]
    pub fn stack(&self) -> &str {
        self.value(STACK)
    }

    /// The name of the layer or backend, with its place where it occurs more than once.
    #[must_use]
    pub fn layer(&self) -> &str {
        self.value(LAYER)
    }

    fn value(&self, label: &str) -> &str {
        let mut own = self.0.own.iter();
        own.find_map(|(name, value)| (*name == label).then_some(&**value)).unwrap_or_default()
    }

    /// Shows the series, until they are ended.
    pub(crate) fn begin(&self) {
        self.0.begin();
    }

    /// Ends the series: they are not shown any more.
    pub(crate) fn end(&self) {
        self.0.end();
    }

    fn with(&self, more: &[(&'static str, &'static str)]) -> Vec<metrics::Label> {
        let own =
            self.0.own.iter().map(|(name, value)| metrics::Label::new(*name, value.to_string()));
        let more = more.iter().map(|(name, value)| metrics::Label::from_static_parts(name, value));
        own.chain(more).collect()
    }

    /// A counter of this layer. It exists from now on, at 0.
    pub fn counter(&self, name: &'static str, more: &[(&'static str, &'static str)]) -> Counter {
        let (series, is_new) = self.0.series(name, more);
        let facade = match is_rehearsal() {
            true => metrics::Counter::noop(),
            false => metrics::counter!(name, self.with(more)),
        };
        describe(name, is_new);
        Counter { series, facade }
    }

    /// A gauge of this layer. It exists from now on, at 0.
    pub fn gauge(&self, name: &'static str, more: &[(&'static str, &'static str)]) -> Gauge {
        let (series, is_new) = self.0.series(name, more);
        let facade = match is_rehearsal() {
            true => metrics::Gauge::noop(),
            false => metrics::gauge!(name, self.with(more)),
        };
        describe(name, is_new);
        Gauge { series, facade }
    }

    /// A histogram of this layer. It exists from now on, empty.
    pub fn histogram(
        &self,
        name: &'static str,
        more: &[(&'static str, &'static str)],
    ) -> Histogram {
        let (series, is_new) = self.0.series(name, more);
        let quantiles = QUANTILES.map(|(quantile, _)| match is_rehearsal() {
            true => metrics::Gauge::noop(),
            false => {
                let more = [more, &[("quantile", quantile)]].concat();
                metrics::gauge!(name, self.with(&more))
            }
        });
        describe(name, is_new);
        Histogram::new(series, quantiles)
    }

    /// Registers a counter for each kind of error.
    pub fn errors(&self) -> Errors {
        Errors(KINDS.map(|kind| self.counter(names::ERRORS, &[("kind", kind.as_str())])))
    }

    /// Counts an error. It looks for its series; a layer that counts many keeps [`errors`](Self::errors).
    pub fn count_error(&self, error: &Error) {
        self.counter(names::ERRORS, &[("kind", error.kind().as_str())]).increment(1);
    }
}

const STACK: &str = "stack";
const LAYER: &str = "layer";

fn named<'a>(stack: &'a str, layer: &'a str) -> [(&'static str, &'a str); 2] {
    [(STACK, stack), (LAYER, layer)]
}

/// Tells the recorder what a family is.
fn describe(name: &'static str, is_new: bool) {
    if !is_new || is_rehearsal() {
        return;
    }
    let Some(family) = Family::of(name) else { return };
    let unit = family.unit.into();
    match family.kind {
        Kind::Counter => metrics::describe_counter!(name, unit, family.help),
        Kind::Gauge | Kind::Histogram => metrics::describe_gauge!(name, unit, family.help),
    }
}

/// Counters of errors by kind, which exist before the first error: a rise from nothing is no rise to Prometheus, and no
/// alert would tell of the first one. See [`Labels`] for an example.
#[derive(Clone, Debug)]
pub struct Errors([Counter; KINDS.len()]);

/// Every kind of error.
const KINDS: [ErrorKind; 12] = [
    ErrorKind::Access,
    ErrorKind::Corruption,
    ErrorKind::Unavailable,
    ErrorKind::Timeout,
    ErrorKind::Conflict,
    ErrorKind::Aborted,
    ErrorKind::Capacity,
    ErrorKind::Closed,
    ErrorKind::Unsupported,
    ErrorKind::InvalidInput,
    ErrorKind::Config,
    ErrorKind::Internal,
];

impl Errors {
    /// Counts an error.
    pub fn count(&self, error: &Error) {
        let kinds = KINDS.iter().zip(&self.0);
        for (_, counter) in kinds.filter(|(kind, _)| **kind == error.kind()) {
            counter.increment(1);
        }
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.0.own == other.0.own
    }
}

impl Eq for Labels {}

impl Default for Labels {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.own.iter().map(|(name, value)| (name, value))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::snapshot;

    #[test]
    fn every_kind_of_error_is_there_before_the_first_error() {
        // The compiler names a kind that is missing here.
        let place = |kind: ErrorKind| match kind {
            ErrorKind::Access => 0,
            ErrorKind::Corruption => 1,
            ErrorKind::Unavailable => 2,
            ErrorKind::Timeout => 3,
            ErrorKind::Conflict => 4,
            ErrorKind::Aborted => 5,
            ErrorKind::Capacity => 6,
            ErrorKind::Closed => 7,
            ErrorKind::Unsupported => 8,
            ErrorKind::InvalidInput => 9,
            ErrorKind::Config => 10,
            ErrorKind::Internal => 11,
        };
        assert_eq!(KINDS.map(place), std::array::from_fn(|at| at));
        let errors = Labels::new("errors at zero", "memory").errors();
        let stack = ("stack", "errors at zero");
        assert_eq!(snapshot().select(names::ERRORS, &[stack]).count(), KINDS.len());
        assert_eq!(snapshot().counter(names::ERRORS, &[stack]), 0);
        errors.count(&Error::corruption("damaged"));
        let corruption = [stack, ("kind", "corruption")];
        assert_eq!(snapshot().counter(names::ERRORS, &corruption), 1);
        assert_eq!(snapshot().counter(names::ERRORS, &[stack]), 1);
    }

    #[test]
    fn series_of_the_same_labels_are_one() {
        let stack = [("stack", "twice")];
        let labels = Labels::new("twice", "cache");
        let (a, b) = (labels.counter(names::OPS, &[]), labels.clone().counter(names::OPS, &[]));
        let other = Labels::new("twice", "cache");
        let c = other.counter(names::OPS, &[]);
        a.increment(1);
        b.increment(2);
        c.increment(4);
        let (old, new) = (labels.gauge(names::INFLIGHT, &[]), other.gauge(names::INFLIGHT, &[]));
        old.set(8);
        new.set(16);
        let seen = snapshot();
        assert_eq!(seen.select(names::OPS, &stack).count(), 1);
        assert_eq!(seen.counter(names::OPS, &stack), 7);
        assert_eq!(seen.gauge(names::INFLIGHT, &stack), Some(16.0), "the newer one");
        other.end();
        let seen = snapshot();
        assert_eq!(seen.counter(names::OPS, &stack), 3);
        assert_eq!(seen.gauge(names::INFLIGHT, &stack), Some(8.0));
        drop((a, b, old));
        assert_eq!(snapshot().select(names::OPS, &stack).count(), 0);
    }
}
