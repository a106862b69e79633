//! Cache coherence: no answer is older than a write that was acknowledged, by generations of keys, counted in slots.
//!
//! A write announces itself to the slots of its keys before it touches the store below, and takes
//! its leave when it is done; both begin a new generation. A load takes a [`Ticket`] before its first
//! read below, and what it found is kept only if the generation is still the same and no write is
//! under way. A write whose outcome is unknown, as it failed or its future was dropped, may still arrive
//! below, so its keys stay in [doubt](Doubts) for a while, as if it were under way. Keys that share a slot
//! cost each other a load that is not kept, never an old answer: a large cache has many slots.
//!
//! A stripe is a lock over some slots. A copy of an entry is compared with the generation of the whole stripe, which
//! is read without the lock.
//!
//! What concerns every key at once is an [`Epoch`], which a ticket and an entry carry as well.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::doubts::Doubts;
use super::epoch::{Epoch, Epochs};
use super::single_flight::{InFlight, WaitGuard};
use super::sync::{AtomicU64, Mutex, Ordering, RandomState, STRIPES};
use crate::clock::Clock;

/// What a reader sees of the stripe of a key without its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StripeVersion {
    hash: u64,
    /// The generation, and in the lowest bit whether a write is under way.
    state: u64,
}

impl StripeVersion {
    /// As if the stripe of the key were in that generation.
    #[cfg(test)]
    pub(super) fn of(key: &[u8], generation: u64) -> Self {
        let hash = foldhash::quality::FixedState::default().hash_one(key);
        Self { hash, state: generation << 1 }
    }

    #[cfg(test)]
    pub(super) fn written(key: &[u8]) -> Self {
        Self { state: 1, ..Self::of(key, 0) }
    }

    /// Of the key: the stripe is its remainder by [`STRIPES`].
    pub(super) fn hash(self) -> u64 {
        self.hash / STRIPES as u64
    }

    /// Whether a write of the stripe is under way.
    pub(super) fn is_written(self) -> bool {
        self.state & 1 == 1
    }
}

/// The moment at which the load of a key began, or right after its write did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    hash: u64,
    generation: u32,
    pub(super) epoch: Epoch,
    /// A load that begins during a write may find what was there before it, and so may whoever waits
    /// for it while changes go unannounced.
    in_doubt: bool,
}

impl Ticket {
    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }
}

/// Until when a write may still arrive, whose outcome was unknown from that moment on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    from: Duration,
    until: Duration,
}

/// Writes of some keys.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// A load does not live long enough to see it come round.
    generation: u32,
    writing: u32,
}

struct Stripe {
    slots: Box<[Slot]>,
    /// Writes of any keys.
    all: Slot,
    /// Of the stripe.
    generation: u64,
    writing: u32,
    doubts: Doubts,
    loads: HashMap<Bytes, (Ticket, InFlight)>,
}

pub(super) struct Coherence {
    stripes: Box<[Mutex<Stripe>]>,
    /// Of each stripe: changed under its lock, and read without.
    states: Box<[AtomicU64]>,
    hasher: RandomState,
    pub(super) epochs: Epochs,
    clock: Arc<dyn Clock>,
    doubt: Duration,
}

/// Prints no key.
impl std::fmt::Debug for Coherence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coherence").finish_non_exhaustive()
    }
}

/// What a reader does about a key that is not kept.
pub(super) enum Admission<R> {
    /// Waits for the load that is under way.
    Join(WaitGuard),
    /// Runs the load that was just registered in this room, and waits for it.
    Lead(WaitGuard, Ticket, R),
    /// There is no room for another load.
    Full,
}

/// What becomes of a load whose turn has come.
pub(super) enum Turn {
    /// Somebody waits for it.
    Wanted,
    /// Nobody does, and this one waited for its end.
    Next(InFlight, Ticket),
    Over,
}

/// Bytes of a cache's capacity for each slot, and the most slots of a stripe: half a MiB of them in all.
const BYTES_PER_SLOT: u64 = 256;
const MOST_SLOTS: u64 = 64;

impl Coherence {
    /// For a cache of that capacity. Keys stay in doubt for that long after a write with an unknown outcome.
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        capacity: u64,
        doubt: Duration,
        epochs: Epochs,
    ) -> Self {
        let slots = (capacity / BYTES_PER_SLOT / STRIPES as u64).clamp(1, MOST_SLOTS);
        let stripes = (0..STRIPES).map(|_| Mutex::new(Stripe::new(slots as usize))).collect();
        let states = (0..STRIPES).map(|_| AtomicU64::default()).collect();
        Self { stripes, states, hasher: RandomState::default(), epochs, clock, doubt }
    }

    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// To be looked at before a copy is taken of what is kept for a key, and before the copy is used.
    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of stripes")]
    pub(super) fn version(&self, key: &[u8]) -> StripeVersion {
        let hash = self.hash(key);
        let state = self.states[(hash % STRIPES as u64) as usize].load(Ordering::Acquire);
        StripeVersion { hash, state }
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of stripes")]
    fn at(&self, hash: u64) -> &Mutex<Stripe> {
        &self.stripes[(hash % STRIPES as u64) as usize]
    }

    /// To be taken before the first read below.
    pub(super) fn ticket(&self, key: &[u8]) -> Ticket {
        let hash = self.hash(key);
        self.issue(hash, &mut self.at(hash).lock())
    }

    fn issue(&self, hash: u64, stripe: &mut Stripe) -> Ticket {
        let epoch = self.epochs.now();
        let in_doubt = !epoch.keeps() || stripe.is_written(hash, &*self.clock);
        Ticket { hash, generation: stripe.generation_of(hash), epoch, in_doubt }
    }

    /// Keeps what a load found, or what was written, under the lock of its stripe, so that no write can come between
    /// the look at the generation and the keeping.
    pub(super) fn if_unchanged(&self, ticket: Ticket, key: &[u8], keep: impl FnOnce()) {
        let mut stripe = self.at(ticket.hash).lock();
        // Without a write since, there is none under way that began since. An epoch may end before the
        // answer is kept: then it is never served, if that concerns its key.
        if !ticket.in_doubt
            && stripe.generation_of(ticket.hash) == ticket.generation
            && self.epochs.accept(ticket.epoch, key)
        {
            keep();
        }
    }

    /// Waits for whoever keeps something at this moment.
    pub(super) fn wait_for_keepers(&self) {
        self.stripes.iter().for_each(|stripe| drop(stripe.lock()));
    }

    /// A write of a key begins. The ticket is of the moment behind that: no doubt, and nothing else is under way that
    /// touches the key.
    pub(super) fn begin(&self, hash: u64) -> Ticket {
        self.change(hash, |stripe| {
            let epoch = self.epochs.now();
            let in_doubt = !epoch.keeps() || stripe.is_written(hash, &*self.clock);
            stripe.begin(Some(hash));
            Ticket { hash, generation: stripe.generation_of(hash), epoch, in_doubt }
        })
    }

    /// It ends, and may still arrive below if it is in `doubt`.
    pub(super) fn end(&self, hash: u64, doubt: Option<Doubt>) {
        self.change(hash, |stripe| {
            stripe.end(Some(hash));
            if let Some(doubt) = doubt {
                stripe.doubts.add(hash, doubt.from, doubt.until);
            }
        });
    }

    /// A write of any keys begins.
    pub(super) fn begin_all(&self) {
        (0..STRIPES as u64).for_each(|stripe| self.change(stripe, |stripe| stripe.begin(None)));
    }

    pub(super) fn end_all(&self, doubt: Option<Doubt>) {
        for stripe in 0..STRIPES as u64 {
            self.change(stripe, |stripe| {
                stripe.end(None);
                if let Some(doubt) = doubt {
                    stripe.doubts.add_all(doubt.until);
                }
            });
        }
    }

    /// For a write that ends now with an unknown outcome.
    pub(super) fn doubt(&self) -> Doubt {
        let from = self.clock.coarse();
        Doubt { from, until: from.saturating_add(self.doubt) }
    }

    /// Begins a generation of the stripe.
    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of stripes")]
    fn change<T>(&self, hash: u64, change: impl FnOnce(&mut Stripe) -> T) -> T {
        let mut stripe = self.at(hash).lock();
        let changed = change(&mut stripe);
        stripe.generation += 1;
        let state = stripe.generation << 1 | u64::from(stripe.writing > 0);
        self.states[(hash % STRIPES as u64) as usize].store(state, Ordering::Release);
        changed
    }

    /// Finds the load of a key that a reader may wait for, or registers a new one.
    ///
    /// A load that began before a write may bring what was there before it, so whoever comes after
    /// the write does not join it. While a write is under way its moment is unknown: a reader may
    /// have seen the new value already, so it waits for the load that begins when this one ends.
    /// So it does while changes go unannounced: how old the answer of this one is, nobody knows. And so it
    /// does about a load that began in doubt, however long ago the doubt ended.
    ///
    /// `room` is asked for before a new one is registered.
    pub(super) fn join_or_lead<R>(
        &self,
        key: &[u8],
        room: impl FnOnce() -> Option<R>,
    ) -> Admission<R> {
        let hash = self.hash(key);
        let mut stripe = self.at(hash).lock();
        let ticket = self.issue(hash, &mut stripe);
        match stripe.loads.get(key) {
            Some((first, in_flight)) if self.is_as_new(*first, ticket, key) => {
                // The end of a doubt begins no generation.
                let in_doubt = first.in_doubt || ticket.in_doubt;
                Admission::Join(if in_doubt { in_flight.next().guard() } else { in_flight.guard() })
            }
            _ => match room() {
                Some(room) => Admission::Lead(stripe.register(key, ticket).guard(), ticket, room),
                None => Admission::Full,
            },
        }
    }

    /// Whether neither a load of the key is under way nor a write that would keep its answer from being kept.
    pub(super) fn is_quiet(&self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        let mut stripe = self.at(hash).lock();
        let ticket = self.issue(hash, &mut stripe);
        self.quiet(&stripe, key, ticket)
    }

    fn quiet(&self, stripe: &Stripe, key: &[u8], ticket: Ticket) -> bool {
        let in_flight = stripe.loads.get(key);
        !ticket.in_doubt && !in_flight.is_some_and(|(first, _)| self.is_as_new(*first, ticket, key))
    }

    /// Whether nothing that concerns the key came between the beginning of its load and the ticket.
    fn is_as_new(&self, first: Ticket, ticket: Ticket, key: &[u8]) -> bool {
        first.generation == ticket.generation && self.epochs.accept(first.epoch, key)
    }

    /// Registers a load that nobody waits for, if there is `room`.
    pub(super) fn lead_if_quiet<R>(
        &self,
        key: &[u8],
        room: impl FnOnce() -> Option<R>,
    ) -> Option<(InFlight, Ticket, R)> {
        let hash = self.hash(key);
        let mut stripe = self.at(hash).lock();
        let ticket = self.issue(hash, &mut stripe);
        let room = self.quiet(&stripe, key, ticket).then(room).flatten()?;
        Some((stripe.register(key, ticket), ticket, room))
    }

    /// Takes a load that has ended off the list, and gives the one that waits for its end.
    pub(super) fn unregister(
        &self,
        key: &[u8],
        in_flight: &InFlight,
    ) -> Option<(InFlight, Ticket)> {
        let hash = self.hash(key);
        self.take_off(hash, key, in_flight, &mut self.at(hash).lock())
    }

    /// Takes a load that nobody waits for off the list. Nobody can come to wait for it then.
    pub(super) fn turn(&self, key: &[u8], in_flight: &InFlight) -> Turn {
        let hash = self.hash(key);
        let mut stripe = self.at(hash).lock();
        if in_flight.is_awaited() {
            return Turn::Wanted;
        }
        match self.take_off(hash, key, in_flight, &mut stripe) {
            Some((next, ticket)) => Turn::Next(next, ticket),
            None => Turn::Over,
        }
    }

    fn take_off(
        &self,
        hash: u64,
        key: &[u8],
        in_flight: &InFlight,
        stripe: &mut Stripe,
    ) -> Option<(InFlight, Ticket)> {
        let ticket = self.issue(hash, stripe);
        let next = in_flight.take_next();
        let replaced = stripe.loads.get(key).is_some_and(|(_, current)| !current.is(in_flight));
        if !replaced {
            match &next {
                Some(next) => {
                    stripe.loads.insert(Bytes::copy_from_slice(key), (ticket, next.clone()));
                }
                None => {
                    stripe.loads.remove(key);
                }
            }
        }
        next.map(|next| (next, ticket))
    }

    /// Whether writes of one of the keys disturb loads of the other.
    #[cfg(test)]
    pub(super) fn share_slot(&self, one: &[u8], other: &[u8]) -> bool {
        let [one, other] = [one, other].map(|key| self.hash(key));
        let slots = STRIPES as u64 * self.at(one).lock().slots.len() as u64;
        one % slots == other % slots
    }

    /// Loads that are on the list.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().loads.len()).sum()
    }
}

impl Stripe {
    fn new(slots: usize) -> Self {
        Self {
            slots: vec![Slot::default(); slots].into(),
            all: Slot::default(),
            generation: 0,
            writing: 0,
            doubts: Doubts::default(),
            loads: HashMap::new(),
        }
    }

    fn register(&mut self, key: &[u8], ticket: Ticket) -> InFlight {
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

    fn begin(&mut self, hash: Option<u64>) {
        self.writing += 1;
        let slot = self.slot(hash);
        slot.writing += 1;
        slot.generation = slot.generation.wrapping_add(1);
    }

    fn end(&mut self, hash: Option<u64>) {
        self.writing -= 1;
        let slot = self.slot(hash);
        slot.writing -= 1;
        slot.generation = slot.generation.wrapping_add(1);
    }

    fn generation_of(&mut self, hash: u64) -> u32 {
        let all = self.all.generation;
        self.slot(Some(hash)).generation.wrapping_add(all)
    }

    /// Whether a write of the key is under way, or may still arrive.
    fn is_written(&mut self, hash: u64, clock: &dyn Clock) -> bool {
        self.all.writing > 0
            || self.slot(Some(hash)).writing > 0
            || self.doubts.concern(hash, || clock.coarse())
    }
}
