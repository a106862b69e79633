//! Which keys may be dirty, for readers that take no lock.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

use super::sync::{AtomicU16, Ordering};

/// How many dirty keys there are of each slot. A key whose slot has none is clean; of another one nothing is known.
///
/// One task at a time changes it: the one that changes the map of what is dirty, under the lock of that map. A key is counted
/// before it is in the map, and no more once it is out.
///
/// What a reader must not miss is a key that was acknowledged, or that another reader saw, before the read began. Each of them is ordered
/// behind the change of the map, and so behind [`add`](Self::add): of one number a later load never gives what was there before. What is
/// under way at the same time may be seen or not.
pub(super) struct Filter {
    /// As many as a power of two.
    counts: Box<[AtomicU16]>,
    /// Seeded, so that nobody can choose keys that meet.
    hasher: RandomState,
}

impl Filter {
    /// With that many slots, rounded up to a power of two.
    pub(super) fn new(slots: usize) -> Self {
        let counts = (0..slots.next_power_of_two()).map(|_| AtomicU16::new(0)).collect();
        Self { counts, hasher: RandomState::default() }
    }

    fn count(&self, key: &[u8]) -> Option<&AtomicU16> {
        self.counts.get(self.hasher.hash_one(key) as usize & (self.counts.len() - 1))
    }

    /// Whether a key may be dirty. `false`: it is not, or is being written right now.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        // Behind what the store below got before the key was taken out.
        self.count(key).is_none_or(|count| count.load(Ordering::Acquire) > 0)
    }

    /// A key becomes dirty.
    pub(super) fn add(&self, key: &[u8]) {
        self.change(key, 1);
    }

    /// A key is dirty no more: the store below has it.
    pub(super) fn remove(&self, key: &[u8]) {
        self.change(key, -1);
    }

    fn change(&self, key: &[u8], by: i16) {
        let Some(count) = self.count(key) else { return };
        let known = count.load(Ordering::Relaxed);
        // One that was full stays so: nobody knows any more how many there are.
        if known < u16::MAX {
            // Nobody else writes in between. `Release`: a reader that finds none reads what the store below has by now.
            count.store(known.saturating_add_signed(by), Ordering::Release);
        }
    }
}
