//! Metrics: what layers count with, and how it is read.
//!
//! [`FAMILIES`] is the list of all that is counted. One family per idea; a label never holds a key, and no path but that of the
//! socket of a listener.
//!
//! # Reading
//! Every series of this process is in a registry of this crate, whichever recorder is installed: [`snapshot`] gives it
//! as data, [`render`] as Prometheus text, [`listen`](listen()) serves that. Series exist from the moment that a stack
//! is opened, at 0, and end when it is closed.
//!
//! # Durations
//! An operation that waits is always timed. Of answers from memory one in 61 is, chosen at random; it counts 61 times.
//! So a quantile over both is that of all operations, within a bucket.
//!
//! # Spans
//! What is slow is a span of `tracing`: `backup`, `restore`, `verify` and `rewrite`, and at the level of debugging
//! `upload` (of a part of a backup) and `load` (of a cache from the store below). A subscriber of the program, such as one for
//! OpenTelemetry, sees them; an answer from memory has none. No field holds a key, a value or a path.
//!
//! # Recorders of your own
//! Layers also count through the facade `metrics`, for the recorder that is installed when they are made. It gets
//! counters up to a second late, gauges at once, and of each histogram gauges with a label `quantile` (0.5, 0.9, 0.99),
//! every ten seconds, of what happened since. It gets no histograms: a recorder keeps each sample until it is read, and
//! without a reader, memory would grow for ever. The facade cannot take a series back: after a stack is closed, a recorder
//! shows the last values of its counters. A recorder that serves Prometheus text is best read by [`render_beside`].

mod distribution;
#[cfg(feature = "telemetry")]
mod endpoint;
mod families;
mod gatherer;
mod handles;
mod labels;
mod listen;
#[cfg(feature = "telemetry")]
mod others;
mod registry;
mod sharded_counters;
mod snapshot;
#[cfg(test)]
mod tests;
mod text;
mod timing;

pub use self::distribution::{BOUNDS, Distribution};
pub use self::families::{FAMILIES, Family, Kind, Unit, names};
pub use self::gatherer::gather;
pub use self::handles::{Counter, Gauge, Histogram};
pub use self::labels::{Errors, Labels};
pub use self::listen::listen;
pub(crate) use self::registry::SAMPLE;
pub use self::registry::{PROCESS_SERIES, snapshot};
#[cfg(feature = "config")]
pub(crate) use self::registry::{looked, rehearse};
pub(crate) use self::sharded_counters::ShardedCounters;
pub use self::snapshot::{Sample, Snapshot, Value};
pub use self::text::{CONTENT_TYPE, render, render_beside};
