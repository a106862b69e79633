//! What a transaction read.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::types::{Condition, Entry, Value};

/// The first answer to each key that was read, in the order of keys.
#[derive(Default)]
pub(super) struct Seen(Mutex<BTreeMap<Bytes, Option<Value>>>);

impl Seen {
    pub(super) fn note(&self, key: &[u8], value: Option<&Value>) {
        let mut seen = self.0.lock();
        if !seen.contains_key(key) {
            seen.insert(Bytes::copy_from_slice(key), value.cloned());
        }
    }

    /// Notes an entry of a scan. It is copied, as it shares its bytes with a whole page.
    pub(super) fn note_entry(&self, entry: &Entry) {
        let bytes = Bytes::copy_from_slice(&entry.value.bytes);
        self.note(&entry.key, Some(&Value { bytes, expires_at: entry.value.expires_at }));
    }

    pub(super) fn into_inner(self) -> BTreeMap<Bytes, Option<Value>> {
        self.0.into_inner()
    }
}

/// That a key is as it was read.
pub(super) fn unchanged(key: Bytes, value: Option<Value>) -> Condition {
    match value {
        Some(value) => Condition::Equals(key, value),
        None => Condition::Absent(key),
    }
}
