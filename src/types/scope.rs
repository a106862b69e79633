//! Which keys an invalidation is of, and what an inspection finds.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::units::Span;
use super::value::Value;
use crate::clock::Timestamp;

/// The keys of an [invalidation](crate::Store::invalidate).
///
/// ```
/// use tierstack::Scope;
///
/// let scope = Scope::Prefix("user:".into());
/// assert!(scope.contains(b"user:1") && !scope.contains(b"order:1"));
/// assert_eq!(format!("{scope:?}"), "Prefix(5 bytes)", "keys do not print");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum Scope {
    /// These keys.
    Keys(Vec<Bytes>),
    /// Every key that begins with these bytes. An empty prefix is every key.
    Prefix(Bytes),
    /// Every key.
    All,
}

impl Scope {
    /// Whether a key is among them.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Keys(keys) => keys.iter().any(|own| own == key),
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::All => true,
        }
    }
}

/// Prints how many keys or bytes, never the keys.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(keys) => write!(f, "Keys({})", keys.len()),
            Self::Prefix(prefix) => write!(f, "Prefix({} bytes)", prefix.len()),
            Self::All => f.write_str("All"),
        }
    }
}

/// Whether one place has a key. See [`Inspection`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// There is nothing about the key.
    None,
    /// It remembers that there is no such key.
    Absence,
    /// It remembers that the last load failed, and answers with that.
    Failure,
    /// There is an entry. It need not be the newest: places further out answer first.
    Entry,
}

/// What one place has of a key, as [`Store::inspect`](crate::Store::inspect) finds it. What is not known
/// there, or does not apply, is `None`.
///
/// ```
/// use tierstack::{Presence, Inspection, Value};
///
/// let value = Value::from("Ada");
/// let inspection = Inspection::of_entry("memory", "memory", Some(&value));
/// assert_eq!((inspection.presence, inspection.bytes), (Presence::Entry, Some(3)));
/// assert_eq!(Inspection::of_entry("memory", "memory", None).presence, Presence::None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The layer or backend, with its place in the stack where its name occurs more than once.
    pub layer: String,
    /// Where it keeps entries: `memory`, `disk`, `table`, `journal`, ...
    pub place: String,
    /// Whether the key is there.
    pub presence: Presence,
    /// Bytes of the value as it is kept there: compressed, or sealed, if it is.
    pub bytes: Option<u64>,
    /// How long ago it was kept, or asked for below.
    pub age: Option<Span>,
    /// Until when it is served without a question below.
    pub fresh_until: Option<Timestamp>,
    /// Until when it is kept at most.
    pub kept_until: Option<Timestamp>,
    /// When the entry itself expires.
    pub expires_at: Option<Timestamp>,
    /// Whether it has still to be written to the store below.
    pub dirty: Option<bool>,
    /// Where that is so, its place in the order of writes.
    #[serde(default)]
    pub sequence: Option<u64>,
}

impl Inspection {
    /// Of a place where nothing about the key is kept.
    pub fn none(layer: impl Into<String>, place: impl Into<String>) -> Self {
        Self {
            layer: layer.into(),
            place: place.into(),
            presence: Presence::None,
            bytes: None,
            age: None,
            fresh_until: None,
            kept_until: None,
            expires_at: None,
            dirty: None,
            sequence: None,
        }
    }

    /// Of a place that has this value of the key, or none.
    pub fn of_entry(
        layer: impl Into<String>,
        place: impl Into<String>,
        value: Option<&Value>,
    ) -> Self {
        let nothing = Self::none(layer, place);
        match value {
            None => nothing,
            Some(value) => Self {
                presence: Presence::Entry,
                bytes: Some(value.bytes.len() as u64),
                expires_at: value.expires_at,
                ..nothing
            },
        }
    }
}
