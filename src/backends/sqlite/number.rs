//! Numbers of a value as cells: each is read as the number that was put, or refused.
//!
//! A number is never left to SQLite as a text. SQLite reads the first 19 digits of one, and makes it infinite where it
//! is too large, which JSON cannot say.

use rusqlite::types::Value as Cell;

/// A 64-bit float has no more significant digits, exactly written.
const MOST_DIGITS: usize = 767;

/// What SQLite takes for a number of a text, in a column whose type is one of numbers.
pub(super) fn of_text(text: &str) -> Option<&str> {
    // SQLite ends a text there.
    let text = text.split('\0').next()?;
    let number = text.trim_matches(['\t', '\n', '\u{b}', '\u{c}', '\r', ' ']);
    // Rust has names for numbers too, such as `inf`.
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    (is_plain && number.parse::<f64>().is_ok()).then_some(number)
}

/// The cell of a number; `real`: its column makes a REAL of each. `None`: it would be another number there.
pub(super) fn cell(number: &str, real: bool) -> Option<Cell> {
    if !real && let Ok(integer) = number.parse() {
        return Some(Cell::Integer(integer));
    }
    let nearest: f64 = number.parse().ok()?;
    let wanted = Decimal::of(number);
    let is = |text: String| Decimal::of(&text) == wanted;
    // A number may be written with more digits than it needs: 0.10000000000000001.
    let digits = wanted.digits.len();
    let is_same = nearest.is_finite()
        && (is(format!("{nearest:e}"))
            || digits <= MOST_DIGITS && is(format!("{nearest:.*e}", digits.saturating_sub(1))));
    is_same.then_some(Cell::Real(nearest))
}

/// A number without its sign: `0.digits` times ten to the power of `point`.
#[derive(PartialEq, Eq)]
struct Decimal {
    digits: String,
    point: i64,
}

impl Decimal {
    fn of(number: &str) -> Self {
        let number = number.trim_start_matches(['+', '-']);
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let leading = all.len() - digits.len();
        let digits = digits.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Self { digits, point: 0 };
        }
        let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        // With an exponent that is no integer of 64 bits a number is 0 or infinite, and so not that one.
        let exponent: i64 = exponent.parse().unwrap_or_default();
        let point = exponent.saturating_add(length(whole.len())).saturating_sub(length(leading));
        Self { digits, point }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_that_a_cell_would_change_has_none() {
        for number in [
            "1e400",
            "-1e400",
            "1e99999999999999999999",
            "1e-400",
            "1e-99999999999999999999",
            "12345678901234567890123",
            "9223372036854775809",
            "9007199254740993.0",
            "3.14159265358979323846",
        ] {
            assert_eq!(cell(number, false), None, "{number}");
        }
        let long = format!("0.{}1", "3".repeat(100_000));
        assert_eq!(cell(&long, false), None);
        for number in ["9007199254740993", "9223372036854775807"] {
            assert!(matches!(cell(number, false), Some(Cell::Integer(_))), "{number}");
            assert_eq!(cell(number, true), None, "{number}");
        }
        for (number, is) in [
            ("0.10000000000000001", 0.1),
            ("0.1", 0.1),
            ("94.52706955539223", 94.527_069_555_392_23),
            ("-0012.500", -12.5),
            ("5e-324", 5e-324),
            ("1.7976931348623157e308", f64::MAX),
            ("0e99999999999999999999", 0.0),
            (".5", 0.5),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
        ] {
            assert_eq!(cell(number, false), Some(Cell::Real(is)), "{number}");
        }
    }

    proptest! {
        #[test]
        fn every_float_has_a_cell(number in any::<f64>()) {
            prop_assume!(number.is_finite());
            for text in [format!("{number:e}"), format!("{number:.16e}"), format!("{number}")] {
                prop_assert_eq!(cell(&text, true), Some(Cell::Real(number)));
            }
        }
    }
}
