//! Sizes, durations, addresses and secrets as people write them in a config file.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use super::fraction::Fraction;
pub use super::path::check_path;
use super::scalar::Scalar;
pub use super::secret::Secret;
pub use super::secret_text::SecretText;
pub use super::url::Url;

/// A number of bytes, written as `256MiB`, `10MB`, `512B` or a plain number of bytes.
///
/// ```
/// use tierstack::units::ByteSize;
///
/// assert_eq!("256MiB".parse(), Ok(ByteSize(256 << 20)));
/// assert_eq!("1.5 kB".parse(), Ok(ByteSize(1500)));
/// assert!("256 megs".parse::<ByteSize>().is_err());
/// assert_eq!(ByteSize(256 << 20).to_string(), "256MiB");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Binary units first, so that printing finds the exact one. With each the digits that a number of it may have: as
/// many as always fit.
const UNITS: [(&str, u64, usize); 9] = [
    ("TiB", 1 << 40, 7),
    ("GiB", 1 << 30, 10),
    ("MiB", 1 << 20, 13),
    ("KiB", 1 << 10, 16),
    ("TB", 1_000_000_000_000, 7),
    ("GB", 1_000_000_000, 10),
    ("MB", 1_000_000, 13),
    ("KB", 1_000, 16),
    ("B", 1, 19),
];

impl ByteSize {
    /// The number, as the machine counts memory.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not a size; write a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 256MiB"
            )
        };
        let trimmed = text.trim_matches(' ');
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, name) = trimmed.split_at(end);
        let name = match name.trim_start_matches(' ') {
            "" => "B",
            name => name,
        };
        let unit = UNITS.iter().find(|(unit, ..)| unit.eq_ignore_ascii_case(name));
        let (_, unit, most) = unit.ok_or_else(wrong)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        if !(1..=*most).contains(&whole.len()) || part.is_empty() || part.contains('.') {
            return Err(wrong());
        }
        let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(*unit));
        // Exact as far as it matters: a part of a unit.
        let part = format!("0.{part}").parse::<f64>().map(|part| (part * *unit as f64) as u64);
        let bytes = whole.zip(part.ok()).and_then(|(whole, part)| whole.checked_add(part));
        bytes.map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact =
            UNITS.iter().find(|(_, size, _)| self.0 >= *size && self.0.is_multiple_of(*size));
        match exact {
            Some((unit, size, _)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A duration, written as `500ms`, `30s`, `10m`, `1h 30m` or `7d`.
///
/// ```
/// use std::time::Duration;
/// use tierstack::units::Span;
///
/// assert_eq!("10m".parse(), Ok(Span(Duration::from_secs(600))));
/// assert!("10".parse::<Span>().is_err(), "a unit is required");
/// assert_eq!(Span(Duration::from_secs(90)).to_string(), "1m 30s");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// What `humantime` knows, but for `M`: to it that is a month, and `10M` is more likely meant as ten minutes.
const TIMES: [&str; 28] = [
    "nsec", "ns", "usec", "us", "msec", "ms", "seconds", "second", "sec", "s", "minutes", "minute",
    "min", "m", "hours", "hour", "hr", "h", "days", "day", "d", "weeks", "week", "w", "months",
    "month", "years", "year",
];
/// Digits that a number of a duration may have.
const TIME_DIGITS: usize = 10;

/// Whether a text is numbers with units, as the schema says.
fn is_span(mut text: &str) -> bool {
    loop {
        text = text.trim_start_matches(' ');
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        if !(1..=TIME_DIGITS).contains(&(text.len() - rest.len())) {
            return false;
        }
        let unit = rest.trim_start_matches(' ');
        text = unit.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let unit = unit.strip_suffix(text).unwrap_or_default();
        if !TIMES.contains(&unit) {
            return false;
        }
        if text.trim_matches(' ').is_empty() {
            return true;
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(span) if is_span(text) => Ok(Self(span)),
            _ => Err(format!(
                "'{text}' is not a duration; write a number with ms, s, m, h or d, such as 10m"
            )),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Integer(bytes) => Ok(Self(bytes)),
            Scalar::Text(text) => text.parse().map_err(D::Error::custom),
            Scalar::Other(_) => Err(D::Error::invalid_type(
                Unexpected::Other("something else"),
                &"a size such as 256MiB",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => text.parse().map_err(D::Error::custom),
            Scalar::Integer(number) => Err(D::Error::custom(format!(
                "'{number}' has no unit; write a number with ms, s, m, h or d, such as {number}s"
            ))),
            Scalar::Other(_) => Err(D::Error::invalid_type(
                Unexpected::Other("something else"),
                &"a duration such as 10m",
            )),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `1 entry`, `12 entries`
pub(crate) fn counted(number: impl TryInto<u64>, one: &str, many: &str) -> String {
    // Only a `u128` could be more.
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(feature = "config")]
impl schemars::JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // A letter of either case.
        let letter = |c: char| format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase());
        let number = |digits| format!(r"[0-9]{{1,{digits}}}(\.[0-9]+)?");
        let mut forms = vec![number(19)];
        forms.extend(UNITS.iter().map(|(unit, _, digits)| {
            format!("{} *{}", number(*digits), unit.chars().map(letter).collect::<String>())
        }));
        schemars::json_schema!({
            "type": ["string", "integer"],
            "minimum": 0,
            "maximum": u64::MAX,
            "pattern": format!("^ *({}) *$", forms.join("|")),
            "examples": ["256MiB", "10MB", 4096],
        })
    }
}

#[cfg(feature = "config")]
impl schemars::JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": format!("^ *([0-9]{{1,{TIME_DIGITS}}} *({}) *)+$", TIMES.join("|")),
            "examples": ["500ms", "30s", "10m", "7d"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_counted_in_the_singular() {
        for (number, text) in [(0_u64, "0 entries"), (1, "1 entry"), (2, "2 entries")] {
            assert_eq!(counted(number, "entry", "entries"), text);
        }
    }

    #[test]
    fn a_size_without_a_known_unit_is_refused_with_the_allowed_ones() {
        let error = "12 parsecs".parse::<ByteSize>().unwrap_err();
        assert!(error.contains("12 parsecs") && error.contains("MiB"), "{error}");
        assert!("99999999TiB".parse::<ByteSize>().is_err(), "too large to count");
        assert!("-1".parse::<ByteSize>().is_err());
        assert!("".parse::<ByteSize>().is_err());
    }

    #[test]
    fn months_are_not_mistaken_for_minutes() {
        for text in ["10M", "1h 10M", "10 M"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        let long = Span(Duration::from_secs(400 * 86_400));
        assert_eq!(long.to_string().parse(), Ok(long), "what is printed can be read");
    }
}
