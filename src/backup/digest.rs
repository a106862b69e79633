//! The digest of entries in key order: equal for equal entries, wherever they are kept.

use super::format::Hash;
use crate::types::Entry;

/// BLAKE3 under the repository's key, over each entry's key, value and expiry, each after its length.
#[derive(Clone)]
pub(super) struct Digest(blake3::Hasher);

impl Digest {
    pub(super) fn new(key: &Hash) -> Self {
        Self(blake3::Hasher::new_keyed(&key.0))
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        let value = &entry.value;
        let expiry = value.expires_at.map_or([0; 9], |at| {
            let mut bytes = [1; 9];
            bytes[1..].copy_from_slice(&at.as_millis().to_le_bytes());
            bytes
        });
        self.0.update(&(entry.key.len() as u64).to_le_bytes());
        self.0.update(&entry.key);
        self.0.update(&(value.bytes.len() as u64).to_le_bytes());
        self.0.update(&value.bytes);
        self.0.update(&expiry);
    }

    pub(super) fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}
