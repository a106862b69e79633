//! What a batch requires of the present state.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use super::value::Value;
use crate::error::{Error, ErrorKind};

/// What a [`Batch`](super::Batch) requires of a key. The batch is applied only if all of its conditions hold
/// at the moment at which it takes effect.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Batch, Condition, ErrorKind, Read, Store, StoreExt};
///
/// let store = Memory::new();
/// store.put("stock", "3").await?;
/// let seen = store.get(b"stock").await?.unwrap();
///
/// let take = || Batch::new().put("stock", "2").require(Condition::equals("stock", seen.clone()));
/// store.write(take()).await?;
/// let refused = store.write(take()).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Conflict, "another writer was first");
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist. An entry that has expired does not exist.
    Absent(Bytes),
    /// The key holds exactly this value: these bytes, with this expiry or none. What a read gave is what to
    /// pass on.
    Equals(Bytes, Value),
}

impl Condition {
    /// The key does not exist.
    #[must_use]
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::Absent(key.into())
    }

    /// The key holds exactly this value.
    #[must_use]
    pub fn equals(key: impl Into<Bytes>, value: impl Into<Value>) -> Self {
        Self::Equals(key.into(), value.into())
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Absent(key) | Self::Equals(key, _) => key,
        }
    }

    /// The value that the key is to hold, unless it is to be absent.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Absent(_) => None,
            Self::Equals(_, value) => Some(value),
        }
    }

    /// Whether it holds where a read of the key gives `found`.
    #[must_use]
    pub fn holds(&self, found: Option<&Value>) -> bool {
        self.value() == found
    }

    /// The same requirement of another key.
    #[must_use]
    pub fn with_key(self, key: Bytes) -> Self {
        match self {
            Self::Absent(_) => Self::Absent(key),
            Self::Equals(_, value) => Self::Equals(key, value),
        }
    }

    /// The `Conflict` of a batch of which this does not hold.
    #[must_use]
    pub fn unmet(&self) -> Error {
        match self {
            Self::Absent(key) => Error::exists(key),
            Self::Equals(key, _) => {
                let message =
                    "a key does not hold the value that was required, so nothing was written";
                Error::new(ErrorKind::Conflict, message).with_key(key)
            }
        }
    }

    /// What a store must be able to check.
    #[must_use]
    pub fn needs(&self) -> Conditions {
        match self {
            Self::Absent(_) => Conditions::Absence,
            Self::Equals(..) => Conditions::Value,
        }
    }
}

/// Prints lengths, never the bytes.
impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(key) => write!(f, "Absent(key of {} bytes)", key.len()),
            Self::Equals(key, value) => write!(f, "Equals(key of {} bytes, {value:?})", key.len()),
        }
    }
}

/// Which conditions a store can check. Each includes the ones before it.
///
/// ```
/// use tierstack::backends::Memory;
/// use tierstack::{Conditions, Store};
///
/// assert_eq!(Memory::new().profile().guarantees.conditions, Conditions::Value);
/// assert!(Conditions::Value > Conditions::Absence);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Conditions {
    /// None: a batch with conditions is refused.
    None,
    /// That a key is absent.
    Absence,
    /// That a key is absent, or holds a given value.
    Value,
}
