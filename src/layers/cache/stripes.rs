//! What makes an answer never an old one: generations of keys, counted in stripes.
//!
//! A write announces itself to the stripes of its keys before it touches the store below, and takes
//! its leave when it is done; both begin a new generation. A load takes a [`Ticket`] before its first
//! read below, and what it found is kept only if the generation is still the same and no write is
//! under way. A write whose outcome is unknown, as it failed or its future was dropped, may still arrive
//! below, so its stripes stay in doubt for a while, as if it were under way. Keys that share a stripe
//! cost each other a load that is not kept, never an old answer.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::quality::RandomState;
use parking_lot::Mutex;

use super::flight::Flight;
use crate::clock::Clock;

/// Enough that writes to a few keys seldom disturb loads of others.
const STRIPES: usize = 1024;

/// The generation of a key at the moment when its load began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    stripe: usize,
    generation: u64,
    /// A load that begins during a write may find what was there before it.
    during_write: bool,
}

#[derive(Default)]
struct Stripe {
    generation: u64,
    writing: u32,
    /// On the coarse clock: until then a write may arrive that nobody waits for.
    doubtful_until: Option<Duration>,
    flights: HashMap<Bytes, (u64, Flight)>,
}

pub(super) struct Stripes {
    stripes: Box<[Mutex<Stripe>]>,
    hasher: RandomState,
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
    pub(super) fn new(clock: Arc<dyn Clock>, doubt: Duration) -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self { stripes, hasher: RandomState::default(), clock, doubt }
    }

    fn index(&self, key: &[u8]) -> usize {
        // The remainder is below the number of stripes.
        (self.hasher.hash_one(key) % STRIPES as u64) as usize
    }

    #[expect(clippy::indexing_slicing, reason = "`index` stays below the number of stripes")]
    fn at(&self, index: usize) -> &Mutex<Stripe> {
        &self.stripes[index]
    }

    /// To be taken before the first read below.
    pub(super) fn ticket(&self, key: &[u8]) -> Ticket {
        let index = self.index(key);
        self.at(index).lock().ticket(index, &*self.clock)
    }

    /// Keeps what a load found, under the lock of its stripe, so that no write can come between the
    /// look at the generation and the keeping.
    pub(super) fn if_unchanged(&self, ticket: Ticket, keep: impl FnOnce()) {
        let stripe = self.at(ticket.stripe).lock();
        // Without a write since, there is none under way that began since.
        if !ticket.during_write && stripe.generation == ticket.generation {
            keep();
        }
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
            stripe.generation += 1;
            stripe.writing += 1;
        }
        Writing { stripes: self, indexes, settled: false }
    }

    /// Finds the load of a key that a reader may wait for, or registers a new one.
    ///
    /// A load that began before a write may bring what was there before it, so whoever comes after
    /// the write does not join it. While a write is under way its moment is unknown: a reader may
    /// have seen the new value already, so it waits for the load that begins when this one ends.
    pub(super) fn join_or_lead(&self, key: &[u8]) -> Lookup {
        let index = self.index(key);
        let mut stripe = self.at(index).lock();
        let ticket = stripe.ticket(index, &*self.clock);
        match stripe.flights.get(key) {
            Some((generation, flight)) if *generation == ticket.generation => {
                Lookup::Join(if ticket.during_write { flight.next() } else { flight.clone() })
            }
            _ => {
                let flight = Flight::default();
                stripe
                    .flights
                    .insert(Bytes::copy_from_slice(key), (ticket.generation, flight.clone()));
                Lookup::Lead(flight, ticket)
            }
        }
    }

    /// Takes a load that has ended off the list, and gives the one that waits for its end.
    pub(super) fn land(&self, key: &[u8], flight: &Flight) -> Option<(Flight, Ticket)> {
        let index = self.index(key);
        let mut stripe = self.at(index).lock();
        let ticket = stripe.ticket(index, &*self.clock);
        let next = flight.take_next();
        let replaced = stripe.flights.get(key).is_some_and(|(_, current)| !current.is(flight));
        if !replaced {
            match &next {
                Some(next) => {
                    stripe
                        .flights
                        .insert(Bytes::copy_from_slice(key), (ticket.generation, next.clone()));
                }
                None => {
                    stripe.flights.remove(key);
                }
            }
        }
        next.map(|next| (next, ticket))
    }
}

impl Stripe {
    fn ticket(&mut self, index: usize, clock: &dyn Clock) -> Ticket {
        self.doubtful_until = self.doubtful_until.filter(|until| clock.coarse() < *until);
        let during_write = self.writing > 0 || self.doubtful_until.is_some();
        Ticket { stripe: index, generation: self.generation, during_write }
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
            stripe.generation += 1;
            stripe.writing -= 1;
            if !self.settled {
                stripe.doubtful_until = Some(self.stripes.clock.coarse() + self.stripes.doubt);
            }
        }
    }
}
