//! JSON lines: one entry a line, `{"key": "...", "value": "..."}`.
//!
//! Bytes that are not UTF-8 are written as base64 under `key64` and `value64`. `expires_at` (RFC 3339) is
//! where an entry has an expiry. `docs/command.md` has the fields.
//!
//! ```
//! use tierstack::jsonl::{self, Rules};
//! use tierstack::{Limits, Value};
//!
//! let mut line = Vec::new();
//! jsonl::write(&mut line, b"user:1", Some(&Value::from("Ada")))?;
//! assert_eq!(line, b"{\"key\":\"user:1\",\"value\":\"Ada\"}\n");
//!
//! let entry = jsonl::parse(&line, &Rules { limits: Limits::default(), expiry: true })?;
//! assert_eq!((entry.key, entry.value), ("user:1".into(), "Ada".into()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::types::{Entry, Limits, Value};

/// What is wrong with a line.
///
/// ```
/// use tierstack::Limits;
/// use tierstack::jsonl::{self, Rules};
///
/// let rules = Rules { limits: Limits::default(), expiry: true };
/// let wrong = jsonl::parse(b"{\"key\": 1}", &rules).unwrap_err();
/// assert_eq!(wrong.column, Some(9));
/// assert!(wrong.to_string().starts_with("column 9: invalid type: integer `1`"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The byte of the line, from 1, where it is known.
    pub column: Option<usize>,
    /// What was wrong, and what is allowed.
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = self.column {
            write!(f, "column {column}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Wrong {}

fn wrong<T>(what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { column: None, what: what.into() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    key64: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    value64: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
}

/// What an entry may be in the store that takes it. See [`parse`].
///
/// ```
/// use tierstack::backends::Memory;
/// use tierstack::Store;
/// use tierstack::jsonl::Rules;
///
/// let guarantees = Memory::new().profile().guarantees;
/// let rules = Rules { limits: guarantees.limits, expiry: guarantees.expiry };
/// assert!(rules.expiry);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The largest key and value.
    pub limits: Limits,
    /// Whether an entry can carry an expiry.
    pub expiry: bool,
}

/// What a line of an entry is.
const ENTRY: &str = r#"{"key": "...", "value": "..."}, all of them text"#;

/// Reads the entry of one line.
///
/// # Errors
/// What is wrong with the line, and where.
pub fn parse(line: &[u8], rules: &Rules) -> Result<Entry, Wrong> {
    let record: Record = object(line, ENTRY)?;
    let key = bytes("key", record.key, record.key64)?;
    let bytes = bytes("value", record.value, record.value64)?;
    if key.is_empty() {
        return wrong("the key is empty; it must have at least 1 byte");
    }
    if let Err(error) = rules.limits.check(key.len(), bytes.len()) {
        return wrong(error.message());
    }
    let expires_at: Option<Timestamp> = match record.expires_at {
        Some(time) => match time.parse() {
            Ok(time) => Some(time),
            Err(what) => return wrong(format!("expires_at: {what}")),
        },
        None => None,
    };
    if expires_at.is_some() && !rules.expiry {
        return wrong(
            "expires_at: this store cannot let entries expire; add the layer `expire`, or leave the field out",
        );
    }
    Ok(Entry { key, value: Value { bytes, expires_at } })
}

/// Reads the object of one line. `form` says what the line may be.
pub(crate) fn object<T: DeserializeOwned>(line: &[u8], form: &str) -> Result<T, Wrong> {
    let text = std::str::from_utf8(line).map_err(|error| Wrong {
        column: Some(error.valid_up_to() + 1),
        what: "the bytes are not UTF-8; write them as base64 under key64 or value64".to_owned(),
    })?;
    if !text.trim_start().starts_with('{') {
        return wrong(not_an_object(text.trim_start()));
    }
    serde_json::from_str(text).map_err(|error| malformed(&error, form))
}

fn not_an_object(text: &str) -> &'static str {
    if text.starts_with('[') {
        "this is a JSON array; write one object a line (`jq -c '.[]'` makes lines of an array)"
    } else {
        "this is not a JSON object; write one a line, such as {\"key\": \"a\", \"value\": \"1\"}"
    }
}

fn malformed(error: &serde_json::Error, form: &str) -> Wrong {
    let text = error.to_string();
    // The position is told apart from the message.
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let what = if error.is_eof() {
        format!("the line ends within the object ({what}); an entry must be on one line")
    } else if error.is_data() {
        format!("{what}; write {form}")
    } else if what.contains("hex escape") {
        format!(
            "a `\\u` escape is half of a surrogate pair, which is no character ({what}); write the bytes as base64 under key64 or value64"
        )
    } else {
        format!("not JSON: {what}")
    };
    Wrong { column: Some(error.column().max(1)), what }
}

/// The bytes of a field that is given as text or as base64.
pub(crate) fn bytes(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Bytes, Wrong> {
    match (text, base64) {
        (Some(text), None) => Ok(Bytes::from(text)),
        (None, Some(text)) => match STANDARD_PAD_INDIFFERENT.decode(&text) {
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(error) => {
                wrong(format!("{name}64 is not base64 ({error}); write A-Z, a-z, 0-9, + and /"))
            }
        },
        (Some(_), Some(_)) => wrong(format!("both {name} and {name}64 are given; write one")),
        (None, None) => {
            wrong(format!("no {name}; write \"{name}\" with text, or \"{name}64\" with base64"))
        }
    }
}

/// Bytes as text where they are UTF-8, as base64 where not.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// Bytes as text, or as base64 where they are not UTF-8.
#[must_use]
pub fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// Writes one line: the key, and the value where one is given.
///
/// # Errors
/// Of the writer.
pub fn write(out: &mut impl Write, key: &[u8], value: Option<&Value>) -> io::Result<()> {
    let (text, base64) = text_or_base64(key);
    let (value_text, value_base64) = value.map(|value| text_or_base64(&value.bytes)).unzip();
    let written = Written {
        key: text,
        key64: base64,
        value: value_text.flatten(),
        value64: value_base64.flatten(),
        expires_at: value.and_then(|value| value.expires_at).map(|at| at.to_string()),
    };
    serde_json::to_writer(&mut *out, &written).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules {
        limits: Limits { key_bytes: 8, value_bytes: Some(16), batch_ops: None, text_values: false },
        expiry: true,
    };

    fn refused(line: &str) -> String {
        let wrong = parse(line.as_bytes(), &RULES).unwrap_err();
        format!("{}: {}", wrong.column.unwrap_or(0), wrong.what)
    }

    #[test]
    fn each_bad_line_says_what_is_wrong_and_what_is_allowed() {
        let cases = [
            ("nonsense", "0: this is not a JSON object; write one a line"),
            ("[1, 2]", "0: this is a JSON array; write one object a line"),
            (r#"["a", null, "b", null, null]"#, "0: this is a JSON array"),
            ("{", "1: the line ends within the object"),
            (r#"{"key": "a" "value": "b"}"#, "13: not JSON: expected `,` or `}`"),
            (r#"{"key": "a", "value": "b"} x"#, "28: not JSON: trailing characters"),
            (
                r#"{"key": "a", "val": "b"}"#,
                "18: unknown field `val`, expected one of `key`, `key64`",
            ),
            (r#"{"key": "a", "key": "b", "value": ""}"#, "18: duplicate field `key`"),
            (r#"{"key": 1, "value": "b"}"#, "9: invalid type: integer `1`, expected a string"),
            (r#"{"key": "a", "key64": "YQ==", "value": "b"}"#, "0: both key and key64 are given"),
            (r#"{"key": "a", "value": "", "value64": ""}"#, "0: both value and value64 are given"),
            (r#"{"key": "a"}"#, "0: no value; write \"value\" with text, or \"value64\""),
            (r#"{"value": "a"}"#, "0: no key; write \"key\" with text, or \"key64\""),
            (r#"{"key": "a", "value": null}"#, "0: no value;"),
            (
                r#"{"key64": "!!", "value": ""}"#,
                "0: key64 is not base64 (Invalid symbol 33, offset 0.",
            ),
            (r#"{"key": "", "value": ""}"#, "0: the key is empty"),
            (
                r#"{"key": "123456789", "value": ""}"#,
                "0: a key of 9 bytes is over this store's limit of 8",
            ),
            (r#"{"key": "a", "value": "12345678901234567"}"#, "0: a value of 17 bytes is over"),
            (
                r#"{"key": "a", "value": "", "expires_at": "soon"}"#,
                "0: expires_at: 'soon' is not a time",
            ),
        ];
        for (line, message) in cases {
            let said = refused(line);
            assert!(said.starts_with(message), "{line}\n  says: {said}\n  not: {message}");
        }
    }

    #[test]
    fn half_of_a_surrogate_pair_is_named() {
        for key in [r"\ud800", r"\udc00", r"\ud800A", r"\ud800\u0041", r"\ud800\n"] {
            let said = refused(&format!(r#"{{"key": "{key}", "value": "b"}}"#));
            assert!(said.contains("is half of a surrogate pair, which is no character"), "{said}");
            assert!(said.contains("as base64 under key64 or value64"), "{said}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_pointed_at() {
        let wrong = parse(b"{\"key\": \"\xff\"}", &RULES).unwrap_err();
        assert_eq!(wrong.column, Some(10));
        assert!(wrong.what.contains("base64 under key64"), "{}", wrong.what);
    }

    #[test]
    fn an_expiry_needs_a_store_that_keeps_it() {
        let line = br#"{"key": "a", "value": "", "expires_at": "2030-01-01T00:00:00Z"}"#;
        assert!(parse(line, &RULES).is_ok());
        let wrong = parse(line, &Rules { expiry: false, ..RULES }).unwrap_err();
        assert!(wrong.what.contains("add the layer `expire`"), "{}", wrong.what);
    }

    proptest! {
        #[test]
        fn every_entry_survives_the_round_trip(
            key in proptest::collection::vec(any::<u8>(), 1..40),
            value in proptest::collection::vec(any::<u8>(), 0..40),
            expires in proptest::option::of(any::<u64>()),
        ) {
            let rules = Rules { limits: Limits::default(), expiry: true };
            let value = Value { bytes: value.into(), expires_at: expires.map(Timestamp::from_millis) };
            let mut line = Vec::new();
            write(&mut line, &key, Some(&value)).unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let entry = parse(&line, &rules).unwrap();
            prop_assert_eq!(entry, Entry { key: key.into(), value });
        }

        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line, &RULES);
        }
    }
}
