//! `quick_cache`: CLOCK-PRO with small counters and a list of what was evicted lately, which is S3-FIFO but
//! for its names. A hit takes a lock for reading, of one of several parts.

use std::sync::Arc;

use foldhash::fast::RandomState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::{Cached, Evicted, Meter};

/// Bytes of an entry beside its key and value: its place in the engine's table and list, which grow by doubling, and
/// the headers of its allocations.
pub(super) const OVERHEAD: u64 = 304;

/// Readers of different parts do not meet. An entry has to fit into one part: there are no more than four until
/// each has so much, and four take entries of an eighth of them all.
const LEAST_PART: u64 = 24 << 20;
const LEAST_PARTS: u64 = 4;
/// More would keep no more readers apart, and cost memory.
const MOST_PARTS: u64 = 1024;

/// For each so many bytes of the capacity one key is remembered that was evicted: what comes back soon is
/// kept longer.
const BYTES_PER_GHOST: u64 = 4 << 10;
/// What that costs: as much room in the engine's list as an entry.
const GHOST_BYTES: u64 = 128;

type Key = Box<[u8]>;

pub(super) fn weight(key: &[u8], cached: &Cached) -> u64 {
    OVERHEAD + key.len() as u64 + cached.bytes()
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Cached> for Weight {
    fn weight(&self, key: &Key, cached: &Cached) -> u64 {
        weight(key, cached)
    }
}

/// Counts what leaves on the engine's own decision, or is replaced.
#[derive(Clone)]
struct Leaving {
    meter: Arc<Meter>,
    evicted: Option<Evicted>,
    /// Drops entries when the lock is released.
    late: DefaultLifecycle<Key, Cached>,
}

impl Lifecycle<Key, Cached> for Leaving {
    type RequestState = <DefaultLifecycle<Key, Cached> as Lifecycle<Key, Cached>>::RequestState;

    fn before_evict(&self, _: &mut Self::RequestState, key: &Key, cached: &mut Cached) {
        self.meter.evicted.increment(1);
        if let Some(evicted) = &self.evicted {
            evicted(key, cached);
        }
    }

    fn on_evict(&self, late: &mut Self::RequestState, key: Key, cached: Cached) {
        self.meter.removed(weight(&key, &cached));
        self.late.on_evict(late, key, cached);
    }
}

pub(super) struct Quick {
    cache: Cache<Key, Cached, Weight, RandomState, Leaving>,
    meter: Arc<Meter>,
}

impl Quick {
    pub(super) fn new(capacity: u64, meter: Arc<Meter>, evicted: Option<Evicted>) -> Self {
        let ghosts = capacity / BYTES_PER_GHOST;
        let parts = (capacity / LEAST_PART).clamp(LEAST_PARTS, MOST_PARTS);
        // The next lower power of two; the engine takes the next higher.
        let parts = 1 << parts.ilog2();
        let options = OptionsBuilder::new()
            .shards(parts)
            // Of the entries that are expected, half are remembered when they are evicted.
            .estimated_items_capacity(usize::try_from(ghosts * 2).unwrap_or(usize::MAX))
            .ghost_allocation(0.5)
            .weight_capacity(usable(capacity))
            .build();
        #[expect(clippy::expect_used, reason = "it fails only where a capacity is not set")]
        let options = options.expect("both capacities are set");
        let leaving =
            Leaving { meter: Arc::clone(&meter), evicted, late: DefaultLifecycle::default() };
        let cache = Cache::with_options(options, Weight, RandomState::default(), leaving);
        Self { cache, meter }
    }

    /// What one part takes: the rest of it is for entries that are on trial.
    pub(super) fn largest(&self) -> u64 {
        self.cache.shard_capacity() / 100 * 97
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Cached> {
        self.cache.get(key)
    }

    pub(super) fn peek(&self, key: &[u8]) -> Option<Cached> {
        self.cache.peek(key)
    }

    /// The lock is free between two entries.
    pub(super) fn for_each(&self, act: impl Fn(&[u8], Cached)) {
        self.cache.iter().for_each(|(key, cached)| act(&key, cached));
    }

    pub(super) fn insert(&self, key: &[u8], cached: Cached) {
        self.cache.insert(key.into(), cached);
    }

    pub(super) fn remove(&self, key: &[u8]) {
        self.left(self.cache.remove(key));
    }

    pub(super) fn remove_if(&self, key: &[u8], expired: &Cached) -> bool {
        self.left(self.cache.remove_if(key, |cached| cached.is(expired)))
    }

    fn left(&self, entry: Option<(Key, Cached)>) -> bool {
        if let Some((key, cached)) = &entry {
            self.meter.removed(weight(key, cached));
        }
        entry.is_some()
    }

    /// Until that is enough.
    pub(super) fn each_key(&self, mut more: impl FnMut(&[u8]) -> bool) {
        self.cache.iter().all(|(key, _)| more(&key));
    }

    /// One by one, so that no reader waits for all of them.
    pub(super) fn clear(&self) {
        for entry in self.cache.drain() {
            self.left(Some(entry));
        }
    }

    /// Rounding makes the engine forget one or two of those that it remembers per part and change.
    pub(super) fn set_capacity(&self, capacity: u64) {
        self.cache.set_capacity(usable(capacity));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

/// What the entries may use: not what it costs to remember those that were evicted.
fn usable(capacity: u64) -> u64 {
    capacity - capacity / BYTES_PER_GHOST * GHOST_BYTES
}
