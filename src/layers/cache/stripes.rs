//! What makes an answer never an old one: generations of keys, counted in slots.
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
//! What concerns every key at once is an [`Era`], which a ticket and an entry carry as well.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::doubts::Doubts;
use super::era::{Era, Eras};
use super::flight::{Flight, Seat};
use super::sync::{AtomicU64, Mutex, Ordering, RandomState, STRIPES};
use crate::clock::Clock;

/// What a reader sees of the stripe of a key without its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    hash: u64,
    /// The generation, and in the lowest bit whether a write is under way.
    state: u64,
}

impl Seen {
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
    pub(super) era: Era,
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
    flights: HashMap<Bytes, (Ticket, Flight)>,
}

pub(super) struct Stripes {
    stripes: Box<[Mutex<Stripe>]>,
    /// Of each stripe: changed under its lock, and read without.
    states: Box<[AtomicU64]>,
    hasher: RandomState,
    pub(super) eras: Eras,
    clock: Arc<dyn Clock>,
    doubt: Duration,
}

/// Prints no key.
impl std::fmt::Debug for Stripes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stripes").finish_non_exhaustive()
    }
}

/// What a reader does about a key that is not kept.
pub(super) enum Lookup<R> {
    /// Waits for the load that is under way.
    Join(Seat),
    /// Runs the load that was just registered in this room, and waits for it.
    Lead(Seat, Ticket, R),
    /// There is no room for another load.
    Full,
}

/// What becomes of a load whose turn has come.
pub(super) enum Turn {
    /// Somebody waits for it.
    Wanted,
    /// Nobody does, and this one waited for its end.
    Next(Flight, Ticket),
    Over,
}

/// Bytes of a cache's capacity for each slot, and the most slots of a stripe: half a MiB of them in all.
const BYTES_PER_SLOT: u64 = 256;
const MOST_SLOTS: u64 = 64;

impl Stripes {
    /// For a cache of that capacity. Keys stay in doubt for that long after a write with an unknown outcome.
    pub(super) fn new(clock: Arc<dyn Clock>, capacity: u64, doubt: Duration, eras: Eras) -> Self {
        let slots = (capacity / BYTES_PER_SLOT / STRIPES as u64).clamp(1, MOST_SLOTS);
        let stripes = (0..STRIPES).map(|_| Mutex::new(Stripe::new(slots as usize))).collect();
        let states = (0..STRIPES).map(|_| AtomicU64::default()).collect();
        Self { stripes, states, hasher: RandomState::default(), eras, clock, doubt }
    }

    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// To be looked at before a copy is taken of what is kept for a key, and before the copy is used.
    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of stripes")]
    pub(super) fn seen(&self, key: &[u8]) -> Seen {
        let hash = self.hash(key);
        let state = self.states[(hash % STRIPES as u64) as usize].load(Ordering::Acquire);
        Seen { hash, state }
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
        let era = self.eras.now();
        let in_doubt = !era.keeps() || stripe.is_written(hash, &*self.clock);
        Ticket { hash, generation: stripe.generation_of(hash), era, in_doubt }
    }

    /// Keeps what a load found, or what was written, under the lock of its stripe, so that no write can come between
    /// the look at the generation and the keeping.
    pub(super) fn if_unchanged(&self, ticket: Ticket, key: &[u8], keep: impl FnOnce()) {
        let mut stripe = self.at(ticket.hash).lock();
        // Without a write since, there is none under way that began since. An era may end before the
        // answer is kept: then it is never served, if that concerns its key.
        if !ticket.in_doubt
            && stripe.generation_of(ticket.hash) == ticket.generation
            && self.eras.accept(ticket.era, key)
        {
            keep();
        }
    }

    /// Waits for whoever keeps something at this moment.
    pub(super) fn pass(&self) {
        self.stripes.iter().for_each(|stripe| drop(stripe.lock()));
    }

    /// A write of a key begins. The ticket is of the moment behind that: no doubt, and nothing else is under way that
    /// touches the key.
    pub(super) fn begin(&self, hash: u64) -> Ticket {
        self.change(hash, |stripe| {
            let era = self.eras.now();
            let in_doubt = !era.keeps() || stripe.is_written(hash, &*self.clock);
            stripe.begin(Some(hash));
            Ticket { hash, generation: stripe.generation_of(hash), era, in_doubt }
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
    ) -> Lookup<R> {
        let hash = self.hash(key);
        let mut stripe = self.at(hash).lock();
        let ticket = self.issue(hash, &mut stripe);
        match stripe.flights.get(key) {
            Some((first, flight)) if self.is_as_new(*first, ticket, key) => {
                // The end of a doubt begins no generation.
                let in_doubt = first.in_doubt || ticket.in_doubt;
                Lookup::Join(if in_doubt { flight.next().seat() } else { flight.seat() })
            }
            _ => match room() {
                Some(room) => Lookup::Lead(stripe.register(key, ticket).seat(), ticket, room),
                None => Lookup::Full,
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
        let flight = stripe.flights.get(key);
        !ticket.in_doubt && !flight.is_some_and(|(first, _)| self.is_as_new(*first, ticket, key))
    }

    /// Whether nothing that concerns the key came between the beginning of its load and the ticket.
    fn is_as_new(&self, first: Ticket, ticket: Ticket, key: &[u8]) -> bool {
        first.generation == ticket.generation && self.eras.accept(first.era, key)
    }

    /// Registers a load that nobody waits for, if there is `room`.
    pub(super) fn lead_if_quiet<R>(
        &self,
        key: &[u8],
        room: impl FnOnce() -> Option<R>,
    ) -> Option<(Flight, Ticket, R)> {
        let hash = self.hash(key);
        let mut stripe = self.at(hash).lock();
        let ticket = self.issue(hash, &mut stripe);
        let room = self.quiet(&stripe, key, ticket).then(room).flatten()?;
        Some((stripe.register(key, ticket), ticket, room))
    }

    /// Takes a load that has ended off the list, and gives the one that waits for its end.
    pub(super) fn land(&self, key: &[u8], flight: &Flight) -> Option<(Flight, Ticket)> {
        let hash = self.hash(key);
        self.take_off(hash, key, flight, &mut self.at(hash).lock())
    }

    /// Takes a load that nobody waits for off the list. Nobody can come to wait for it then.
    pub(super) fn turn(&self, key: &[u8], flight: &Flight) -> Turn {
        let hash = self.hash(key);
        let mut stripe = self.at(hash).lock();
        if flight.is_awaited() {
            return Turn::Wanted;
        }
        match self.take_off(hash, key, flight, &mut stripe) {
            Some((next, ticket)) => Turn::Next(next, ticket),
            None => Turn::Over,
        }
    }

    fn take_off(
        &self,
        hash: u64,
        key: &[u8],
        flight: &Flight,
        stripe: &mut Stripe,
    ) -> Option<(Flight, Ticket)> {
        let ticket = self.issue(hash, stripe);
        let next = flight.take_next();
        let replaced = stripe.flights.get(key).is_some_and(|(_, current)| !current.is(flight));
        if !replaced {
            match &next {
                Some(next) => {
                    stripe.flights.insert(Bytes::copy_from_slice(key), (ticket, next.clone()));
                }
                None => {
                    stripe.flights.remove(key);
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
        self.stripes.iter().map(|stripe| stripe.lock().flights.len()).sum()
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
            flights: HashMap::new(),
        }
    }

    fn register(&mut self, key: &[u8], ticket: Ticket) -> Flight {
        let flight = Flight::default();
        self.flights.insert(Bytes::copy_from_slice(key), (ticket, flight.clone()));
        flight
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
