//! Words for what is wrong with a setting.
//!
//! Values may be secrets, so no message quotes one: `serde` would (`invalid type: string "hunter2"`).
//! Quoted are names of settings, and a value that is a slip of the pen from an allowed one.

use std::fmt::Write as _;

use serde_path_to_error::{Path, Segment};

use crate::spelling::nearest;

/// The path with the segments of `more`: `stores.orders.layers[1]`.
pub(super) fn join(base: &str, more: &Path) -> String {
    let mut path = base.to_owned();
    for segment in more {
        match segment {
            // Writing to a string does not fail.
            Segment::Seq { index } => drop(write!(path, "[{index}]")),
            Segment::Map { key } => push(&mut path, key),
            Segment::Enum { variant } => push(&mut path, variant),
            Segment::Unknown => push(&mut path, "?"),
        }
    }
    path
}

fn push(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// `serde`'s message, in words and without the value.
pub(super) fn explain(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let (name, allowed) = name_and_allowed(rest);
        return unknown("setting", name, allowed.into_iter());
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let (value, allowed) = name_and_allowed(rest);
        return match nearest(value, allowed.iter().copied()) {
            Some(_) => unknown("value", value, allowed.into_iter()),
            None => format!("this value is not known. Allowed: {}", list(allowed.into_iter())),
        };
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("the setting '{}' is missing", name.trim_matches('`'));
    }
    for prefix in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some((found, expected)) =
            message.strip_prefix(prefix).and_then(|rest| rest.rsplit_once(", expected "))
        {
            return mismatch(found, expected, prefix == "invalid value: ");
        }
    }
    message.to_owned()
}

/// What follows the backtick of an `unknown ...` message: the name, and the allowed ones.
fn name_and_allowed(rest: &str) -> (&str, Vec<&str>) {
    let end = rest.rfind("`, expected ").or_else(|| rest.rfind("`, there are no ")).unwrap_or(0);
    let (name, rest) = rest.split_at(end);
    let allowed = rest.trim_start_matches('`').split('`').skip(1).step_by(2).collect();
    (name, allowed)
}

/// An unknown name, the nearest of the allowed ones, and all of them.
pub(super) fn unknown<'a>(
    what: &str,
    name: &str,
    allowed: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let mut text = format!("unknown {what} '{name}'");
    match nearest(name, allowed.clone()) {
        Some(near) => drop(write!(text, "; did you mean '{near}'?")),
        None => text.push('.'),
    }
    match list(allowed).as_str() {
        "" => text.push_str(" None is allowed here."),
        allowed => drop(write!(text, " Allowed: {allowed}")),
    }
    text
}

/// The names, separated by commas.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// A value of the wrong kind. `show` a number that is only out of range.
fn mismatch(found: &str, expected: &str, show: bool) -> String {
    let expected = expectation(expected, show);
    let number = found.split('`').nth(1).filter(|_| show);
    let kind = match found.split([' ', '`']).next().unwrap_or_default() {
        "string" | "character" | "str" => "text",
        "integer" | "number" | "floating" | "u128" | "i128" => "a number",
        "boolean" => "true or false",
        "null" | "unit" | "Option" => "nothing",
        "map" => "a map",
        "sequence" => "a list",
        _ => "something else",
    };
    let found = match number {
        Some(number) if kind == "a number" => number.to_owned(),
        _ => kind.to_owned(),
    };
    let hint = match (expected.as_str(), kind) {
        ("text", "a number" | "true or false") => "; put it in quotes",
        ("true or false" | "a number" | "a whole number", "text") => "; write it without quotes",
        _ => "",
    };
    format!("expected {expected}, found {found}{hint}")
}

/// What `serde` expects, in a user's words; for a number that is out of it, the range.
fn expectation(expected: &str, range: bool) -> String {
    let between = |from: i64, to: u64| match range {
        true => format!("a whole number from {from} to {to}"),
        false => "a whole number".to_owned(),
    };
    match expected {
        "a string" | "a borrowed string" | "path string" | "string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "u8" => between(0, u8::MAX.into()),
        "u16" => between(0, u16::MAX.into()),
        "u32" => between(0, u32::MAX.into()),
        "u64" | "usize" | "u128" => between(0, u64::MAX),
        "i8" => between(i8::MIN.into(), 0x7f),
        "i16" => between(i16::MIN.into(), 0x7fff),
        "i32" => between(i32::MIN.into(), 0x7fff_ffff),
        "i64" | "isize" | "i128" => "a whole number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "string or map" => "a name, or a name with settings".to_owned(),
        other if other.starts_with("struct ") => "a map of settings".to_owned(),
        other if other.starts_with("enum ") => "one of the allowed names".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_gets_the_nearest_and_all() {
        assert_eq!(
            explain("unknown field `levl`, expected one of `codec`, `level`, `min_size`"),
            "unknown setting 'levl'; did you mean 'level'? Allowed: codec, level, min_size"
        );
        assert_eq!(explain("unknown field `x`, expected `on`"), "unknown setting 'x'. Allowed: on");
        assert_eq!(
            explain("unknown field `x`, there are no fields"),
            "unknown setting 'x'. None is allowed here."
        );
        assert_eq!(
            explain("unknown field `a`, expected `b`, expected `on`"),
            "unknown setting 'a`, expected `b'. Allowed: on",
            "a name with backticks is still one name"
        );
    }

    #[test]
    fn a_value_is_quoted_only_if_it_is_near_an_allowed_one() {
        let text = explain("unknown variant `hunter2`, expected `zstd` or `lz4`");
        assert_eq!(text, "this value is not known. Allowed: zstd, lz4");
        let text = explain("unknown variant `zsdt`, expected `zstd` or `lz4`");
        assert_eq!(text, "unknown value 'zsdt'; did you mean 'zstd'? Allowed: zstd, lz4");
        for message in [
            "invalid type: string \"hunter2\", expected struct Keys",
            "invalid type: string \"hunter2, expected x\", expected u8",
            "invalid value: string \"hunter2\", expected a date",
        ] {
            assert!(!explain(message).contains("hunter2"), "{}", explain(message));
        }
    }

    #[test]
    fn a_wrong_type_is_told_in_words() {
        assert_eq!(
            explain("invalid type: integer `5`, expected a string"),
            "expected text, found a number; put it in quotes"
        );
        assert_eq!(
            explain("invalid value: integer `300`, expected u8"),
            "expected a whole number from 0 to 255, found 300"
        );
        assert_eq!(explain("missing field `path`"), "the setting 'path' is missing");
    }
}
