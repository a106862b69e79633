//! Values and entries.

use std::fmt;

use bytes::Bytes;

use crate::clock::Timestamp;

/// Bytes with an optional expiry.
///
/// ```
/// use tierstack::Value;
///
/// let value = Value::from("hello");
/// assert_eq!(value.bytes, "hello");
/// assert!(value.expires_at.is_none());
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Value {
    /// The bytes. May be empty, which is not the same as missing.
    pub bytes: Bytes,
    /// From this moment on the entry is gone. `None`: it stays until it is deleted.
    pub expires_at: Option<Timestamp>,
}

impl Value {
    /// A value that stays until it is deleted.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), expires_at: None }
    }

    /// The same value, gone from that moment on.
    #[must_use]
    pub fn expiring_at(mut self, at: Timestamp) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// Whether the entry is gone at that moment.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

impl<B: Into<Bytes>> From<B> for Value {
    fn from(bytes: B) -> Self {
        Self::new(bytes)
    }
}

/// Prints the length, never the bytes.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes", self.bytes.len())?;
        if let Some(at) = self.expires_at {
            write!(f, ", expires {at}")?;
        }
        f.write_str(")")
    }
}

/// A key with its value, as a scan gives it.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Entry, ReadExt, Scan, StoreExt};
///
/// let store = Memory::new();
/// store.put("user:1", "Ada").await?;
/// for Entry { key, value } in store.collect(Scan::all()).await? {
///     assert_eq!((key, value.bytes), ("user:1".into(), "Ada".into()));
/// }
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Value,
}

/// Prints lengths, never the bytes.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry(key of {} bytes, {:?})", self.key.len(), self.value)
    }
}
