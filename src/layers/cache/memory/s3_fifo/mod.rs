//! The engine of the policy `s3_fifo`: [S3-FIFO](shard) over entries that take little memory in addition to their keys and values.
//!
//! A library is what evicts for the other policies. None was found for this one whose entries take less than half
//! as much as ours in addition to what they hold (figures: `docs/cache-figures.md`): a key and a value are pieces of their own there, and
//! the places of entries grow by doubling.
//!
//! A hit takes a lock for reading, of one of several shards.

mod ghosts;
mod packed;
mod shard;
mod slots;
#[cfg(test)]
mod tests;

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use self::packed::Kept;
use self::shard::{OVERHEAD, Shard, weight_of};
use super::super::policy::Cached;
use super::counters::{Change, Counters};

/// Is told of each entry that is evicted, under a lock of its shard.
pub(in crate::layers::cache) type Evicted = Arc<dyn Fn(&[u8], &Cached) + Send + Sync>;

/// Readers of different shards do not meet. An entry has to fit into one shard: there are no more than four until
/// each has so much, and four take entries of an eighth of them all.
const LEAST_SHARD: u64 = 24 << 20;
const LEAST_SHARDS: u64 = 4;
/// More would keep no more readers apart, and cost memory.
const MOST_SHARDS: u64 = 1024;

/// Entries that are evicted without a pause for readers, where the capacity shrinks.
const AT_ONCE: usize = 64;

/// What an entry takes of memory.
pub(super) fn weight(key: &[u8], cached: &Cached) -> u64 {
    OVERHEAD + packed::bytes(key, cached)
}

/// On cache lines that no other shard is on.
#[repr(align(128))]
#[derive(Debug)]
struct Shared(RwLock<Shard>);

pub(super) struct S3Fifo {
    shards: Box<[Shared]>,
    hasher: RandomState,
    counters: Arc<Counters>,
    evicted: Option<Evicted>,
}

impl S3Fifo {
    pub(super) fn new(capacity: u64, counters: Arc<Counters>, evicted: Option<Evicted>) -> Self {
        let shards = (capacity / LEAST_SHARD).clamp(LEAST_SHARDS, MOST_SHARDS);
        // The next lower power of two, so that the hash tells the shard.
        let shards = 1 << shards.ilog2();
        let shard = |_| Shared(RwLock::new(Shard::new(capacity / shards)));
        let shards = (0..shards).map(shard).collect();
        Self { shards, hasher: RandomState::default(), counters, evicted }
    }

    /// The shard of a key, and what it knows the key by.
    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    #[inline]
    fn shard(&self, key: &[u8]) -> (&RwLock<Shard>, u32) {
        let hash = self.hasher.hash_one(key);
        let at = (hash >> 32) as usize & (self.shards.len() - 1);
        // The lower half.
        (&self.shards[at].0, hash as u32)
    }

    /// What one shard takes.
    pub(super) fn largest(&self) -> u64 {
        self.shards.first().map_or(0, |shard| shard.0.read().capacity)
    }

    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Option<Cached> {
        let (shard, hash) = self.shard(key);
        shard.read().get(hash, key).map(Kept::cached)
    }

    pub(super) fn peek(&self, key: &[u8]) -> Option<Cached> {
        let (shard, hash) = self.shard(key);
        shard.read().peek(hash, key).map(Kept::cached)
    }

    /// The entries. No lock is held meanwhile. What is there all the time is seen, whatever is removed.
    fn entries(&self) -> impl Iterator<Item = Kept> {
        self.shards.iter().flat_map(|shard| {
            let length = shard.0.read().places();
            (0..length).rev().filter_map(|place| shard.0.read().at(place).cloned())
        })
    }

    /// The lock is free between two entries.
    pub(super) fn for_each(&self, act: impl Fn(&[u8], Cached)) {
        self.entries().for_each(|kept| act(kept.key(), kept.cached()));
    }

    /// Until that is enough.
    pub(super) fn each_key(&self, mut more: impl FnMut(&[u8]) -> bool) {
        self.entries().all(|kept| more(kept.key()));
    }

    pub(super) fn insert(&self, key: &[u8], cached: Cached) {
        let kept = Kept::new(key, cached);
        let mut change = Change::default().with(weight_of(&kept));
        let (shard, hash) = self.shard(key);
        let (mut evicted, mut last) = (0, None);
        let replaced = shard.write().insert(hash, kept, |kept| {
            self.tell(&kept);
            change = change.without(weight_of(&kept));
            evicted += 1;
            // The last one is freed without the lock.
            last = Some(kept);
        });
        if let Some(replaced) = &replaced {
            change = change.without(weight_of(replaced));
        }
        self.counters.changed(change);
        if evicted > 0 {
            self.counters.evicted.increment(evicted);
        }
    }

    pub(super) fn remove(&self, key: &[u8]) {
        let (shard, hash) = self.shard(key);
        let removed = shard.write().remove_if(hash, key, |_| true);
        self.left(removed);
    }

    pub(super) fn remove_if(&self, key: &[u8], expired: &Cached) -> bool {
        let (shard, hash) = self.shard(key);
        let removed = shard.write().remove_if(hash, key, |kept| kept.cached().is(expired));
        self.left(removed)
    }

    /// It leaves on the engine's own decision.
    fn leaves(&self, kept: &Kept) {
        self.tell(kept);
        self.counters.removed(weight_of(kept));
        self.counters.evicted.increment(1);
    }

    fn tell(&self, kept: &Kept) {
        if let Some(evicted) = &self.evicted {
            evicted(kept.key(), &kept.cached());
        }
    }

    fn left(&self, kept: Option<Kept>) -> bool {
        if let Some(kept) = &kept {
            self.counters.removed(weight_of(kept));
        }
        kept.is_some()
    }

    /// Readers do not wait for all of it.
    pub(super) fn clear(&self) {
        for Shared(shard) in &self.shards {
            let mut shard = shard.write();
            let new = Shard::new(shard.capacity);
            let old = std::mem::replace(&mut *shard, new);
            drop(shard);
            for place in 0..old.places() {
                self.left(old.at(place).cloned());
            }
        }
    }

    /// Readers come between as the rest is evicted.
    pub(super) fn set_capacity(&self, capacity: u64) {
        let capacity = capacity / self.shards.len() as u64;
        for Shared(shard) in &self.shards {
            shard.write().capacity = capacity;
            let mut evicted = AT_ONCE;
            while evicted == AT_ONCE {
                evicted = shard.write().make_some_room(AT_ONCE, |kept| self.leaves(&kept));
            }
        }
    }

    /// Evicts everything and keeps nothing more, with a pause after every few entries, in which no lock is held. It is not
    /// for want of room, so it is not counted as that.
    pub(super) async fn evict_all<F: Future>(&self, pause: impl Fn() -> F) {
        let leaves = |kept: Kept| {
            self.tell(&kept);
            self.counters.removed(weight_of(&kept));
        };
        for Shared(shard) in &self.shards {
            shard.write().capacity = 0;
            while shard.write().make_some_room(AT_ONCE, leaves) == AT_ONCE {
                pause().await;
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.read().weight()).sum()
    }
}
