//! Versions of keys: generations that are counted in slots, and the tickets that are compared with them.

use std::collections::HashMap;
#[cfg(test)]
use std::hash::BuildHasher;
use std::time::Duration;

use bytes::Bytes;

use super::epoch::Epoch;
use super::single_flight::InFlight;
use super::sync::STRIPES;
use super::unknown_outcomes::Doubts;
use crate::clock::Clock;

/// What a reader sees of the stripe of a key without its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers::cache) struct StripeVersion {
    pub(super) hash: u64,
    /// The generation, and in the lowest bit whether a write is under way.
    pub(super) state: u64,
}

impl StripeVersion {
    /// As if the stripe of the key were in that generation.
    #[cfg(test)]
    pub(in crate::layers::cache) fn of(key: &[u8], generation: u64) -> Self {
        let hash = foldhash::quality::FixedState::default().hash_one(key);
        Self { hash, state: generation << 1 }
    }

    #[cfg(test)]
    pub(in crate::layers::cache) fn written(key: &[u8]) -> Self {
        Self { state: 1, ..Self::of(key, 0) }
    }

    /// Of the key: the stripe is its remainder by [`STRIPES`].
    pub(in crate::layers::cache) fn hash(self) -> u64 {
        self.hash / STRIPES as u64
    }

    /// Whether a write of the stripe is under way.
    pub(in crate::layers::cache) fn is_written(self) -> bool {
        self.state & 1 == 1
    }
}

/// The moment at which the load of a key began, or right after its write did. Two of a key are equal where nothing
/// concerned it between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers::cache) struct Ticket {
    pub(super) hash: u64,
    pub(super) generation: u32,
    pub(in crate::layers::cache) epoch: Epoch,
    /// A load that begins during a write may find what was there before it, and so may a reader that waits
    /// for it while changes go unreported.
    pub(super) in_doubt: bool,
}

impl Ticket {
    pub(in crate::layers::cache) const fn hash(&self) -> u64 {
        self.hash
    }
}

/// Until when a write may still arrive, whose outcome was unknown from that moment on.
#[derive(Clone, Copy, Debug)]
pub(in crate::layers::cache) struct Doubt {
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// Writes of some keys.
#[derive(Clone, Copy, Default)]
pub(super) struct Slot {
    /// A load does not live long enough to see it come round.
    generation: u32,
    writing: u32,
}

pub(super) struct Stripe {
    pub(super) slots: Box<[Slot]>,
    /// Writes of any keys.
    all: Slot,
    /// Of the stripe.
    pub(super) generation: u64,
    pub(super) writing: u32,
    pub(super) doubts: Doubts,
    pub(super) loads: HashMap<Bytes, (Ticket, InFlight)>,
}

impl Stripe {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: vec![Slot::default(); slots].into(),
            all: Slot::default(),
            generation: 0,
            writing: 0,
            doubts: Doubts::default(),
            loads: HashMap::new(),
        }
    }

    pub(super) fn register(&mut self, key: &[u8], ticket: Ticket) -> InFlight {
        let in_flight = InFlight::default();
        self.loads.insert(Bytes::copy_from_slice(key), (ticket, in_flight.clone()));
        in_flight
    }

    /// The slot of a key, or that of all.
    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of slots")]
    fn slot(&mut self, hash: Option<u64>) -> &mut Slot {
        match hash {
            Some(hash) => {
                let at = hash / STRIPES as u64 % self.slots.len() as u64;
                &mut self.slots[at as usize]
            }
            None => &mut self.all,
        }
    }

    pub(super) fn begin(&mut self, hash: Option<u64>) {
        self.writing += 1;
        let slot = self.slot(hash);
        slot.writing += 1;
        slot.generation = slot.generation.wrapping_add(1);
    }

    pub(super) fn end(&mut self, hash: Option<u64>) {
        self.writing -= 1;
        let slot = self.slot(hash);
        slot.writing -= 1;
        slot.generation = slot.generation.wrapping_add(1);
    }

    pub(super) fn generation_of(&mut self, hash: u64) -> u32 {
        let all = self.all.generation;
        self.slot(Some(hash)).generation.wrapping_add(all)
    }

    /// Whether a write of the key is under way, or may still arrive.
    pub(super) fn is_written(&mut self, hash: u64, clock: &dyn Clock) -> bool {
        self.all.writing > 0
            || self.slot(Some(hash)).writing > 0
            || self.doubts.concern(hash, || clock.coarse())
    }
}
