//! Prometheus text, version 0.0.4.

use std::fmt::Write as _;

use super::distribution::{Distribution, LIMITED};
use super::families::Family;
use super::registry::snapshot;
use super::snapshot::{Sample, Snapshot, Value};

/// The type of the text, for a header `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What tierstack has counted in this process, as Prometheus text, followed by what the recorder of
/// [`listen`](super::listen()) has recorded of others, if that was called.
///
/// ```
/// let text = tierstack::telemetry::render();
/// assert!(text.contains("# TYPE tierstack_info gauge\ntierstack_info{version=\""));
/// ```
#[must_use]
pub fn render() -> String {
    #[cfg(feature = "telemetry")]
    let others = super::others::text();
    #[cfg(not(feature = "telemetry"))]
    let others = String::new();
    render_beside(&others)
}

/// Like [`render`], followed by the text of a recorder of your own, without the families that are in the first part: what
/// this crate counts is recorded by both, and durations only here as histograms.
///
/// ```
/// let text = tierstack::telemetry::render_beside(
///     "# TYPE visits counter\nvisits 3\n# TYPE tierstack_info gauge\ntierstack_info 0\n",
/// );
/// assert!(text.ends_with("# TYPE visits counter\nvisits 3\n"));
/// assert_eq!(text.matches("# TYPE tierstack_info gauge").count(), 1);
/// ```
#[must_use]
pub fn render_beside(recorded: &str) -> String {
    let mut text = write(&snapshot());
    let mut is_ours = false;
    for line in recorded.lines() {
        if let Some(family) = family(line) {
            is_ours = Family::of(family).is_some();
        }
        if !is_ours && !line.is_empty() {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The family that a line begins, which the lines of its series follow.
fn family(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("# ")?;
    let words = rest.strip_prefix("HELP ").or_else(|| rest.strip_prefix("TYPE "))?;
    words.split(' ').next()
}

fn write(snapshot: &Snapshot) -> String {
    let mut text = String::with_capacity(1 << 16);
    let mut labels = String::new();
    for (name, samples) in snapshot.families() {
        if let Some(family) = Family::of(name) {
            let _ = writeln!(text, "# HELP {name} {}", family.help);
        }
        let kind = match samples.first().map(Sample::value) {
            Some(Value::Counter(_)) => "counter",
            Some(Value::Gauge(_)) => "gauge",
            Some(Value::Durations(_)) => "histogram",
            None => continue,
        };
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for sample in samples {
            labels.clear();
            for (label, value) in sample.labels() {
                if !labels.is_empty() {
                    labels.push(',');
                }
                labels.push_str(label);
                labels.push_str("=\"");
                escape(&mut labels, value);
                labels.push('"');
            }
            match sample.value() {
                Value::Counter(count) => line(&mut text, name, "", &labels, *count),
                Value::Gauge(value) => line(&mut text, name, "", &labels, *value),
                Value::Durations(took) => durations(&mut text, name, &mut labels, took),
            }
        }
    }
    text
}

fn line(text: &mut String, name: &str, suffix: &str, labels: &str, value: impl std::fmt::Display) {
    text.push_str(name);
    text.push_str(suffix);
    if !labels.is_empty() {
        text.push('{');
        text.push_str(labels);
        text.push('}');
    }
    // Nothing fails that is written to a text.
    let _ = writeln!(text, " {value}");
}

fn durations(text: &mut String, name: &str, labels: &mut String, took: &Distribution) {
    let own = labels.len();
    let mut sum = 0;
    for (at, (_, count)) in took.buckets().enumerate() {
        sum += count;
        labels.truncate(own);
        if own > 0 {
            labels.push(',');
        }
        labels.push_str("le=\"");
        labels.push_str(LE.get(at).copied().unwrap_or("+Inf"));
        labels.push('"');
        line(text, name, "_bucket", labels, sum);
    }
    labels.truncate(own);
    line(text, name, "_sum", labels, took.sum().as_secs_f64());
    line(text, name, "_count", labels, sum);
}

/// The bounds of the buckets in seconds, as text.
const LE: [&str; LIMITED] = [
    "0.0000001",
    "0.00000025",
    "0.0000005",
    "0.000001",
    "0.0000025",
    "0.000005",
    "0.00001",
    "0.000025",
    "0.00005",
    "0.0001",
    "0.00025",
    "0.0005",
    "0.001",
    "0.0025",
    "0.005",
    "0.01",
    "0.025",
    "0.05",
    "0.1",
    "0.25",
    "0.5",
    "1",
    "2.5",
    "5",
    "10",
    "60",
];

fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            character => text.push(character),
        }
    }
}
