//! What makes an answer never an old one: generations of keys, counted in stripes.
//!
//! A write announces itself to the stripes of its keys before it touches the store below, and takes
//! its leave when it is done; both begin a new generation. A load takes a [`Ticket`] before its first
//! read below, and what it found is kept only if the generation is still the same and no write is
//! under way. A write whose outcome is unknown, as it failed or its future was dropped, may still arrive
//! below, so its stripes stay in doubt for a while, as if it were under way. Keys that share a stripe
//! cost each other a load that is not kept, never an old answer.
//!
//! What concerns every key at once is an [`Era`], which a ticket and an entry carry as well.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::era::{Era, Eras};
use super::flight::Flight;
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

/// The moment at which the load of a key began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) stripe: usize,
    generation: u64,
    pub(super) era: Era,
    /// A load that begins during a write may find what was there before it, and so may whoever waits
    /// for it while changes go unannounced.
    in_doubt: bool,
}

#[derive(Default)]
struct Stripe {
    generation: u64,
    writing: u32,
    /// On the coarse clock: until then a write may arrive that nobody waits for.
    doubtful_until: Option<Duration>,
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
pub(super) enum Lookup {
    /// Waits for the load that is under way.
    Join(Flight),
    /// Runs the load that was just registered.
    Lead(Flight, Ticket),
}

impl Stripes {
    /// Stripes that stay in doubt for that long after a write with an unknown outcome.
    pub(super) fn new(clock: Arc<dyn Clock>, doubt: Duration, eras: Eras) -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        let states = (0..STRIPES).map(|_| AtomicU64::default()).collect();
        Self { stripes, states, hasher: RandomState::default(), eras, clock, doubt }
    }

    fn index(&self, key: &[u8]) -> usize {
        // The remainder is below the number of stripes.
        (self.hasher.hash_one(key) % STRIPES as u64) as usize
    }

    /// To be looked at before a copy is taken of what is kept for a key, and before the copy is used.
    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of stripes")]
    pub(super) fn seen(&self, key: &[u8]) -> Seen {
        let hash = self.hasher.hash_one(key);
        let state = self.states[(hash % STRIPES as u64) as usize].load(Ordering::Acquire);
        Seen { hash, state }
    }

    /// Begins a generation. To be called with the lock of the stripe.
    #[expect(clippy::indexing_slicing, reason = "`index` stays below the number of stripes")]
    fn renew(&self, index: usize, stripe: &mut Stripe) {
        stripe.generation += 1;
        let state = stripe.generation << 1 | u64::from(stripe.writing > 0);
        self.states[index].store(state, Ordering::Release);
    }

    #[expect(clippy::indexing_slicing, reason = "`index` stays below the number of stripes")]
    fn at(&self, index: usize) -> &Mutex<Stripe> {
        &self.stripes[index]
    }

    /// To be taken before the first read below.
    pub(super) fn ticket(&self, key: &[u8]) -> Ticket {
        let index = self.index(key);
        self.issue(index, &mut self.at(index).lock())
    }

    fn issue(&self, index: usize, stripe: &mut Stripe) -> Ticket {
        let era = self.eras.now();
        let in_doubt = !era.keeps() || stripe.is_written(&*self.clock);
        Ticket { stripe: index, generation: stripe.generation, era, in_doubt }
    }

    /// Keeps what a load found, under the lock of its stripe, so that no write can come between the
    /// look at the generation and the keeping.
    pub(super) fn if_unchanged(&self, ticket: Ticket, key: &[u8], keep: impl FnOnce()) {
        let stripe = self.at(ticket.stripe).lock();
        // Without a write since, there is none under way that began since. An era may end before the
        // answer is kept: then it is never served, if that concerns its key.
        if !ticket.in_doubt
            && stripe.generation == ticket.generation
            && self.eras.accept(ticket.era, key)
        {
            keep();
        }
    }

    /// Waits for whoever keeps something at this moment.
    pub(super) fn pass(&self) {
        self.stripes.iter().for_each(|stripe| drop(stripe.lock()));
    }

    /// Announces a write of these keys. It ends when the guard is dropped, in doubt unless it was
    /// [settled](Writing::settle).
    pub(super) fn begin_write<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Writing<'_> {
        let mut indexes: Vec<usize> = keys.map(|key| self.index(key)).collect();
        indexes.sort_unstable();
        indexes.dedup();
        self.begin(indexes)
    }

    /// Announces a write of any keys.
    pub(super) fn begin_write_all(&self) -> Writing<'_> {
        self.begin((0..STRIPES).collect())
    }

    fn begin(&self, indexes: Vec<usize>) -> Writing<'_> {
        for index in &indexes {
            let mut stripe = self.at(*index).lock();
            stripe.writing += 1;
            self.renew(*index, &mut stripe);
        }
        Writing { stripes: self, indexes, settled: false }
    }

    /// Finds the load of a key that a reader may wait for, or registers a new one.
    ///
    /// A load that began before a write may bring what was there before it, so whoever comes after
    /// the write does not join it. While a write is under way its moment is unknown: a reader may
    /// have seen the new value already, so it waits for the load that begins when this one ends.
    /// So it does while changes go unannounced: how old the answer of this one is, nobody knows. And so it
    /// does about a load that began in doubt, however long ago the doubt ended.
    pub(super) fn join_or_lead(&self, key: &[u8]) -> Lookup {
        let index = self.index(key);
        let mut stripe = self.at(index).lock();
        let ticket = self.issue(index, &mut stripe);
        match stripe.flights.get(key) {
            Some((first, flight)) if self.is_as_new(*first, ticket, key) => {
                // The end of a doubt begins no generation.
                let in_doubt = first.in_doubt || ticket.in_doubt;
                Lookup::Join(if in_doubt { flight.next() } else { flight.clone() })
            }
            _ => Lookup::Lead(stripe.register(key, ticket), ticket),
        }
    }

    /// Whether neither a load of the key is under way nor a write that would keep its answer from being kept.
    pub(super) fn is_quiet(&self, key: &[u8]) -> bool {
        let index = self.index(key);
        let mut stripe = self.at(index).lock();
        let ticket = self.issue(index, &mut stripe);
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

    /// Registers a load that nobody waits for.
    pub(super) fn lead_if_quiet(&self, key: &[u8]) -> Option<(Flight, Ticket)> {
        let index = self.index(key);
        let mut stripe = self.at(index).lock();
        let ticket = self.issue(index, &mut stripe);
        self.quiet(&stripe, key, ticket).then(|| (stripe.register(key, ticket), ticket))
    }

    /// Takes a load that has ended off the list, and gives the one that waits for its end.
    pub(super) fn land(&self, key: &[u8], flight: &Flight) -> Option<(Flight, Ticket)> {
        let index = self.index(key);
        let mut stripe = self.at(index).lock();
        let ticket = self.issue(index, &mut stripe);
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

    /// Loads that are on the list.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().flights.len()).sum()
    }
}

impl Stripe {
    fn register(&mut self, key: &[u8], ticket: Ticket) -> Flight {
        let flight = Flight::default();
        self.flights.insert(Bytes::copy_from_slice(key), (ticket, flight.clone()));
        flight
    }

    /// Whether a write is under way, or may still arrive.
    fn is_written(&mut self, clock: &dyn Clock) -> bool {
        self.doubtful_until = self.doubtful_until.filter(|until| clock.coarse() < *until);
        self.writing > 0 || self.doubtful_until.is_some()
    }
}

/// A write under way.
#[must_use]
pub(super) struct Writing<'a> {
    stripes: &'a Stripes,
    indexes: Vec<usize>,
    settled: bool,
}

impl Writing<'_> {
    /// The outcome is known: nothing of the write arrives below any more.
    pub(super) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        for index in &self.indexes {
            let mut stripe = self.stripes.at(*index).lock();
            stripe.writing -= 1;
            self.stripes.renew(*index, &mut stripe);
            if !self.settled {
                stripe.doubtful_until =
                    Some(self.stripes.clock.coarse().saturating_add(self.stripes.doubt));
            }
        }
    }
}
