//! The digest of entries in key order: equal for equal entries, wherever they are kept.

use super::documents::Hash;
use crate::clock::Timestamp;
use crate::types::Entry;

/// BLAKE3 under the repository's key, over each entry's key, value and expiry, each after its length.
#[derive(Clone)]
pub(super) struct Digest(blake3::Hasher);

impl Digest {
    pub(super) fn new(key: &Hash) -> Self {
        Self(blake3::Hasher::new_keyed(&key.0))
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        self.begin(&entry.key, entry.value.bytes.len() as u64);
        self.value(&entry.value.bytes);
        self.end(entry.value.expires_at);
    }

    /// Begins an entry whose value comes in parts.
    pub(super) fn begin(&mut self, key: &[u8], value_bytes: u64) {
        self.0.update(&(key.len() as u64).to_le_bytes());
        self.0.update(key);
        self.0.update(&value_bytes.to_le_bytes());
    }

    /// Adds the next part of the value.
    pub(super) fn value(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// Ends the entry.
    pub(super) fn end(&mut self, expires_at: Option<Timestamp>) {
        let expiry = expires_at.map_or([0; 9], |at| {
            let mut bytes = [1; 9];
            bytes[1..].copy_from_slice(&at.as_millis().to_le_bytes());
            bytes
        });
        self.0.update(&expiry);
    }

    pub(super) fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}
