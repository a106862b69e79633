//! The largest keys, values and batches.

use serde::Serialize;

use crate::error::{Error, Result};

/// The largest things a store takes. Exceeding one is an error that says so.
///
/// ```
/// use tierstack::Limits;
///
/// let limits = Limits { value_bytes: Some(1024), ..Limits::default() };
/// assert!(limits.check(10, 1024).is_ok());
/// let refused = limits.check(10, 1025).unwrap_err();
/// assert!(refused.to_string().contains("limit of 1024 bytes"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Bytes of a value. `None`: bounded by memory.
    pub value_bytes: Option<u64>,
    /// Operations of a batch. `None`: bounded by memory.
    pub batch_ops: Option<usize>,
    /// Whether values must be UTF-8. A layer that writes other bytes cannot be above such a store.
    pub text_values: bool,
}

impl Limits {
    /// The contract's limit on a key: 64 KiB.
    pub const MAX_KEY_BYTES: usize = 64 * 1024;

    /// Checks an operation on an entry against the limits.
    ///
    /// # Errors
    /// `InvalidInput` that says the limit.
    pub fn check(&self, key: usize, value: usize) -> Result<()> {
        if key > self.key_bytes {
            return Err(Error::invalid(format!(
                "a key of {key} bytes is over this store's limit of {} bytes",
                self.key_bytes
            )));
        }
        match self.value_bytes {
            Some(limit) if value as u64 > limit => Err(Error::invalid(format!(
                "a value of {value} bytes is over this store's limit of {limit} bytes"
            ))),
            _ => Ok(()),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: Self::MAX_KEY_BYTES,
            value_bytes: None,
            batch_ops: None,
            text_values: false,
        }
    }
}

/// Checks a key against the contract: 1 to 64 KiB.
///
/// # Errors
/// `InvalidInput` for an empty key or one over 65,536 bytes.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid("a key must have at least 1 byte"));
    }
    if key.len() > Limits::MAX_KEY_BYTES {
        return Err(Error::invalid(format!(
            "a key of {} bytes is over the limit of {} bytes",
            key.len(),
            Limits::MAX_KEY_BYTES
        )));
    }
    Ok(())
}
