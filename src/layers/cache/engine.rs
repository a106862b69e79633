//! The engine that bounds the memory. Everything else about the cache does not know which one it is.

use std::time::Duration;

use bytes::Bytes;
use foldhash::quality::RandomState;

use super::era::Era;
use crate::types::Value;

/// What is kept for a key.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    /// `None`: there is no such key.
    pub(super) value: Option<Value>,
    /// On the coarse clock. `MAX`: never.
    pub(super) deadline: Duration,
    /// In which its load began.
    pub(super) era: Era,
}

/// What an entry costs beside its key and value: the nodes of the engine's map and queues, and the
/// headers of two allocations.
const OVERHEAD: u64 = 256;

/// What is larger than this part of the capacity would push out too much else.
const LARGEST_PART: u64 = 8;

pub(super) struct Engine {
    cache: moka::sync::Cache<Bytes, Cached, RandomState>,
    largest: u64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({} entries)", self.entries())
    }
}

fn weight(key: &[u8], value: Option<&Value>) -> u64 {
    OVERHEAD + (key.len() + value.map_or(0, |value| value.bytes.len())) as u64
}

impl Engine {
    pub(super) fn new(capacity: u64) -> Self {
        let cache = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(|key: &Bytes, cached: &Cached| {
                u32::try_from(weight(key, cached.value.as_ref())).unwrap_or(u32::MAX)
            })
            .build_with_hasher(RandomState::default());
        Self { cache, largest: (capacity / LARGEST_PART).min(u64::from(u32::MAX)) }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Cached> {
        self.cache.get(key)
    }

    /// The entry to keep, unless it is too large.
    pub(super) fn admit(
        &self,
        key: &[u8],
        value: Option<&Value>,
        deadline: Duration,
        era: Era,
    ) -> Option<Cached> {
        let fits = weight(key, value) <= self.largest;
        fits.then(|| Cached { value: value.cloned(), deadline, era })
    }

    pub(super) fn insert(&self, key: &[u8], cached: Cached) {
        self.cache.insert(Bytes::copy_from_slice(key), cached);
    }

    pub(super) fn remove(&self, key: &[u8]) {
        self.cache.invalidate(key);
    }

    pub(super) fn clear(&self) {
        self.cache.invalidate_all();
        self.cache.run_pending_tasks();
    }

    /// An estimate: the engine counts a moment later.
    pub(super) fn bytes(&self) -> u64 {
        self.cache.weighted_size()
    }

    /// An estimate: the engine counts a moment later.
    pub(super) fn entries(&self) -> u64 {
        self.cache.entry_count()
    }
}
