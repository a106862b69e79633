//! [`Fraction`]: a part of a whole.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part of a whole from 0 to 1, written as `0.1` or `10%`. Exact to a millionth.
///
/// ```
/// use tierstack::units::Fraction;
///
/// assert_eq!("0.1".parse::<Fraction>(), "10%".parse());
/// assert!("1.5".parse::<Fraction>().is_err());
/// assert_eq!("0.125".parse::<Fraction>().unwrap().to_string(), "12.5%");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fraction {
    millionths: u32,
}

const MILLION: f64 = 1e6;

impl Fraction {
    /// Nothing.
    pub const ZERO: Self = Self { millionths: 0 };
    /// The whole.
    pub const ONE: Self = Self { millionths: 1_000_000 };

    /// That many hundredths; the whole if there are more than a hundred.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        if percent > 100 { Self::ONE } else { Self { millionths: percent * 10_000 } }
    }

    /// As a number from 0 to 1.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.millionths) / MILLION
    }

    fn of(number: f64) -> Option<Self> {
        (0.0..=1.0)
            .contains(&number)
            .then(|| Self { millionths: (number * MILLION).round() as u32 })
    }
}

fn wrong(found: impl fmt::Display) -> String {
    format!(
        "'{found}' is not a fraction; write a number from 0 to 1, or a percentage, such as 0.1 or 10%"
    )
}

/// Digits behind the point: more than a fraction keeps, and few enough that a number over 1 is not rounded to it.
const DIGITS: usize = 9;

impl FromStr for Fraction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, whole) = match text.trim_matches(' ').strip_suffix('%') {
            Some(percent) => (percent.trim_end_matches(' '), 100.0),
            None => (text.trim_matches(' '), 1.0),
        };
        let (before, behind) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let plain = digits(before) && digits(behind) && (1..=DIGITS).contains(&behind.len());
        let number = number.parse().ok().filter(|_| plain);
        number.and_then(|number: f64| Self::of(number / whole)).ok_or_else(|| wrong(text))
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.millionths) / 1e4)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(f64),
    Text(String),
    Other(serde::de::IgnoredAny),
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Number(number) => Self::of(number).ok_or_else(|| wrong(number)),
            Scalar::Text(text) => text.parse(),
            Scalar::Other(_) => Err(wrong("something else")),
        }
        .map_err(D::Error::custom)
    }
}

impl Serialize for Fraction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "config")]
impl schemars::JsonSchema for Fraction {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Fraction".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": 1,
            "pattern": format!(
                r"^ *(0*\.[0-9]{{1,{DIGITS}}}|0+|0*1(\.0{{1,{DIGITS}}})?|(0*[0-9]{{0,2}}\.[0-9]{{1,{DIGITS}}}|0*[0-9]{{1,2}}|0*100(\.0{{1,{DIGITS}}})?) *%) *$"
            ),
            "examples": [0.1, "10%"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_part_of_a_whole_is_refused_with_what_is_allowed() {
        for text in ["1.01", "101%", "-0.1", "nan", "inf", "a tenth", "", "%"] {
            let error = text.parse::<Fraction>().unwrap_err();
            assert!(error.contains("10%"), "{error}");
        }
        assert_eq!("100%".parse(), Ok(Fraction::ONE));
        assert_eq!("0".parse(), Ok(Fraction::ZERO));
    }

    #[test]
    fn what_is_printed_can_be_read() {
        for millionths in [0, 1, 333_333, 100_000, 999_999, 1_000_000] {
            let fraction = Fraction { millionths };
            assert_eq!(fraction.to_string().parse(), Ok(fraction));
        }
    }
}
