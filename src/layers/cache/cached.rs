//! What is kept for a key.

use super::era::Era;
use super::freshness::Moment;
use crate::types::Value;

#[derive(Clone, Debug)]
pub(super) struct Cached {
    /// `None`: there is no such key.
    pub(super) value: Option<Value>,
    /// From then on it is not served.
    pub(super) until: Moment,
    /// In which its load began.
    pub(super) era: Era,
}

impl Cached {
    /// Of its value.
    pub(super) fn bytes(&self) -> u64 {
        self.value.as_ref().map_or(0, |value| value.bytes.len() as u64)
    }

    /// Whether this is the entry that was looked at, and not a later one.
    pub(super) fn is(&self, other: &Self) -> bool {
        let expires = |cached: &Self| cached.value.as_ref().and_then(|value| value.expires_at);
        (self.until, self.era, expires(self)) == (other.until, other.era, expires(other))
    }
}
