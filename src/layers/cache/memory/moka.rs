//! `moka`: W-TinyLFU, or LRU. A hit takes no lock, and leaves a note for the housekeeping. Entries are kept first, and
//! others evicted when one of the callers does the housekeeping.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::super::config::Policy;
use super::super::policy::Cached;
use super::counters::Counters;

/// Bytes of an entry in addition to its key and value: the nodes of the engine's table and queues, and the
/// headers of its allocations.
const OVERHEAD: u64 = 576;

/// What is larger than this part of the capacity is not kept. It keeps entries first and evicts then: so much is free.
pub(super) const LARGEST_PART: u64 = 32;

/// What was removed may take this part of the capacity, in addition to it.
const MOST_REMOVED_PART: u64 = 128;

type Key = Box<[u8]>;

pub(super) fn weight(key: &[u8], cached: &Cached) -> u64 {
    OVERHEAD + key.len() as u64 + cached.bytes()
}

pub(super) struct Moka {
    cache: Cache<Key, Cached, RandomState>,
    /// Weight of what was removed, and is in memory until the next housekeeping.
    removed: Arc<AtomicU64>,
    most_removed: u64,
}

impl Moka {
    pub(super) fn new(policy: Policy, capacity: u64, counters: Arc<Counters>) -> Self {
        let policy = match policy {
            Policy::Lru => EvictionPolicy::lru(),
            Policy::TinyLfu | Policy::S3Fifo => EvictionPolicy::tiny_lfu(),
        };
        let removed = Arc::new(AtomicU64::new(0));
        let unsettled = Arc::clone(&removed);
        let cache = Cache::builder()
            // What is kept before others are evicted goes into the rest.
            .max_capacity(capacity - capacity / LARGEST_PART)
            .eviction_policy(policy)
            .weigher(|key: &Key, cached: &Cached| {
                u32::try_from(weight(key, cached)).unwrap_or(u32::MAX)
            })
            .eviction_listener(move |key: Arc<Key>, cached: Cached, cause| {
                let weight = weight(&key, &cached);
                counters.removed(weight);
                if cause != RemovalCause::Size {
                    unsettled.fetch_add(weight, Ordering::Relaxed);
                }
                counters.evicted.increment(u64::from(cause == RemovalCause::Size));
            })
            .build_with_hasher(RandomState::default());
        Self { cache, removed, most_removed: capacity / MOST_REMOVED_PART }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Cached> {
        self.cache.get(key)
    }

    /// The engine counts every look at a single entry as a use of it; a walk over all of them is none.
    pub(super) fn peek(&self, key: &[u8]) -> Option<Cached> {
        if !self.cache.contains_key(key) {
            return None;
        }
        self.cache.iter().find(|(kept, _)| ***kept == *key).map(|(_, cached)| cached)
    }

    pub(super) fn for_each(&self, act: impl Fn(&[u8], Cached)) {
        self.cache.iter().for_each(|(key, cached)| act(&key, cached));
    }

    pub(super) fn weight_of(&self, key: &[u8]) -> Option<u64> {
        self.cache.get(key).map(|cached| weight(key, &cached))
    }

    /// Never in the place of an entry of another weight: where such a one goes before the housekeeping sees it, the
    /// engine takes the new weight from its sum and not the old one, and the sum stays wrong.
    pub(super) fn insert(&self, key: &[u8], cached: Cached) {
        if self.removed.load(Ordering::Relaxed) > self.most_removed {
            self.settle();
        }
        self.cache.insert(key.into(), cached);
    }

    pub(super) fn remove(&self, key: &[u8]) {
        self.cache.invalidate(key);
    }

    /// A later entry that comes between the look and the removal is lost, which costs a load.
    pub(super) fn remove_if(&self, key: &[u8], expired: &Cached) -> bool {
        let found = self.cache.get(key).is_some_and(|cached| cached.is(expired));
        found && self.cache.remove(key).is_some()
    }

    /// Until that is enough.
    pub(super) fn each_key(&self, mut more: impl FnMut(&[u8]) -> bool) {
        self.cache.iter().all(|(key, _)| more(&key));
    }

    pub(super) fn clear(&self) {
        self.cache.invalidate_all();
        self.cache.run_pending_tasks();
    }

    /// Removes any entries, which the engine does not do by itself when it is to take less. Gives how many.
    pub(super) fn evict_while(&self, over: impl Fn() -> bool) -> u64 {
        let mut evicted = 0;
        for (key, _) in self.cache.iter() {
            if !over() {
                break;
            }
            self.cache.invalidate(&*key);
            evicted += 1;
        }
        evicted
    }

    pub(super) fn settle(&self) {
        self.removed.store(0, Ordering::Relaxed);
        self.cache.run_pending_tasks();
    }
}
