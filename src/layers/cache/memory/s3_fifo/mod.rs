//! The engine of the policy `s3_fifo`: [S3-FIFO](part) over entries that take little memory in addition to their keys and values.
//!
//! A library is what evicts for the other policies. None was found for this one whose entries take less than half
//! as much as ours in addition to what they hold (figures: `docs/cache-figures.md`): a key and a value are pieces of their own there, and
//! the places of entries grow by doubling.
//!
//! A hit takes a lock for reading, of one of several parts.

mod ghosts;
mod packed;
mod part;
mod slots;
#[cfg(test)]
mod tests;

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use self::packed::Kept;
use self::part::{OVERHEAD, Part, weight_of};
use super::super::policy::Cached;
use super::counters::{Change, Counters};

/// Is told of each entry that is evicted, under a lock of its part.
pub(in crate::layers::cache) type Evicted = Arc<dyn Fn(&[u8], &Cached) + Send + Sync>;

/// Readers of different parts do not meet. An entry has to fit into one part: there are no more than four until
/// each has so much, and four take entries of an eighth of them all.
const LEAST_PART: u64 = 24 << 20;
const LEAST_PARTS: u64 = 4;
/// More would keep no more readers apart, and cost memory.
const MOST_PARTS: u64 = 1024;

/// Entries that are evicted without a pause for readers, where the capacity shrinks.
const AT_ONCE: usize = 64;

/// What an entry takes of memory.
pub(super) fn weight(key: &[u8], cached: &Cached) -> u64 {
    OVERHEAD + packed::bytes(key, cached)
}

/// On cache lines that no other part is on.
#[repr(align(128))]
#[derive(Debug)]
struct Shared(RwLock<Part>);

pub(super) struct S3Fifo {
    parts: Box<[Shared]>,
    hasher: RandomState,
    counters: Arc<Counters>,
    evicted: Option<Evicted>,
}

impl S3Fifo {
    pub(super) fn new(capacity: u64, counters: Arc<Counters>, evicted: Option<Evicted>) -> Self {
        let parts = (capacity / LEAST_PART).clamp(LEAST_PARTS, MOST_PARTS);
        // The next lower power of two, so that the hash tells the part.
        let parts = 1 << parts.ilog2();
        let part = |_| Shared(RwLock::new(Part::new(capacity / parts)));
        let parts = (0..parts).map(part).collect();
        Self { parts, hasher: RandomState::default(), counters, evicted }
    }

    /// The part of a key, and what it knows the key by.
    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of parts")]
    #[inline]
    fn part(&self, key: &[u8]) -> (&RwLock<Part>, u32) {
        let hash = self.hasher.hash_one(key);
        let at = (hash >> 32) as usize & (self.parts.len() - 1);
        // The lower half.
        (&self.parts[at].0, hash as u32)
    }

    /// What one part takes.
    pub(super) fn largest(&self) -> u64 {
        self.parts.first().map_or(0, |part| part.0.read().capacity)
    }

    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Option<Cached> {
        let (part, hash) = self.part(key);
        part.read().get(hash, key).map(Kept::cached)
    }

    pub(super) fn peek(&self, key: &[u8]) -> Option<Cached> {
        let (part, hash) = self.part(key);
        part.read().peek(hash, key).map(Kept::cached)
    }

    /// The entries. No lock is held meanwhile. What is there all the time is seen, whatever is removed.
    fn entries(&self) -> impl Iterator<Item = Kept> {
        self.parts.iter().flat_map(|part| {
            let length = part.0.read().places();
            (0..length).rev().filter_map(|place| part.0.read().at(place).cloned())
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
        let (part, hash) = self.part(key);
        let (mut evicted, mut last) = (0, None);
        let replaced = part.write().insert(hash, kept, |kept| {
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
        let (part, hash) = self.part(key);
        let removed = part.write().remove_if(hash, key, |_| true);
        self.left(removed);
    }

    pub(super) fn remove_if(&self, key: &[u8], expired: &Cached) -> bool {
        let (part, hash) = self.part(key);
        let removed = part.write().remove_if(hash, key, |kept| kept.cached().is(expired));
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
        for Shared(part) in &self.parts {
            let mut part = part.write();
            let new = Part::new(part.capacity);
            let old = std::mem::replace(&mut *part, new);
            drop(part);
            for place in 0..old.places() {
                self.left(old.at(place).cloned());
            }
        }
    }

    /// Readers come between as the rest is evicted.
    pub(super) fn set_capacity(&self, capacity: u64) {
        let capacity = capacity / self.parts.len() as u64;
        for Shared(part) in &self.parts {
            part.write().capacity = capacity;
            let mut evicted = AT_ONCE;
            while evicted == AT_ONCE {
                evicted = part.write().make_some_room(AT_ONCE, |kept| self.leaves(&kept));
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
        for Shared(part) in &self.parts {
            part.write().capacity = 0;
            while part.write().make_some_room(AT_ONCE, leaves) == AT_ONCE {
                pause().await;
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.0.read().weight()).sum()
    }
}
