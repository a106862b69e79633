//! Numbers as people read them.

use std::time::Duration;

/// `1.4 MiB`
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// `12,345`
pub(crate) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// `1 entry`, `12,345 entries`
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `12,345 entries`
pub(crate) fn entries(number: u64) -> String {
    counted(number, "entry", "entries")
}

/// `850 ns`, `1.43 µs`, `12.0 ms`, `3.2 s`, `2m 5s`
pub(crate) fn duration(span: Duration) -> String {
    let nanos = span.as_nanos();
    let (scale, unit) = match nanos {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ if span.as_secs() < 60 => (1e9, "s"),
        _ => return format!("{}m {}s", span.as_secs() / 60, span.as_secs() % 60),
    };
    let number = nanos as f64 / scale;
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let cases = [
            (850, "850 ns"),
            (1_430, "1.43 µs"),
            (31_000, "31.0 µs"),
            (128_000, "128 µs"),
            (12_000_000, "12.0 ms"),
            (3_200_000_000, "3.20 s"),
            (125_000_000_000, "2m 5s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }
}
