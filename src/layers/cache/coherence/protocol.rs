//! The protocol of writes, loads and readers. See the [face of this room](super).

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::current_epoch::Epochs;
use super::single_flight::{InFlight, WaitGuard};
use super::sync::{AtomicU64, Mutex, Ordering, RandomState, STRIPES};
use super::versions::{Doubt, Stripe, StripeVersion, Ticket};
use crate::clock::Clock;

pub(in crate::layers::cache) struct Coherence {
    stripes: Box<[Mutex<Stripe>]>,
    /// Of each stripe: changed under its lock, and read without.
    states: Box<[AtomicU64]>,
    hasher: RandomState,
    pub(in crate::layers::cache) epochs: Epochs,
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
pub(in crate::layers::cache) enum Admission<R> {
    /// Waits for the load that is under way.
    Join(WaitGuard),
    /// Runs the load that was just registered in this room, and waits for it.
    Lead(WaitGuard, Ticket, R),
    /// There is no room for another load.
    Full,
}

/// What becomes of a load whose turn has come.
pub(in crate::layers::cache) enum Turn {
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
    pub(in crate::layers::cache) fn new(
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

    pub(in crate::layers::cache) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// To be looked at before a copy is taken of what is kept for a key, and before the copy is used.
    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of stripes")]
    pub(in crate::layers::cache) fn version(&self, key: &[u8]) -> StripeVersion {
        let hash = self.hash(key);
        let state = self.states[(hash % STRIPES as u64) as usize].load(Ordering::Acquire);
        StripeVersion { hash, state }
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of stripes")]
    fn at(&self, hash: u64) -> &Mutex<Stripe> {
        &self.stripes[(hash % STRIPES as u64) as usize]
    }

    /// To be taken before the store below is asked. Tells also whether a load is under way that a reader of the key joins.
    pub(in crate::layers::cache) fn ticket_and_load(&self, key: &[u8]) -> (Ticket, bool) {
        let hash = self.hash(key);
        let mut stripe = self.at(hash).lock();
        let ticket = self.issue(hash, &mut stripe);
        (ticket, self.is_loading(&stripe, key, ticket))
    }

    #[cfg(test)]
    pub(in crate::layers::cache) fn ticket(&self, key: &[u8]) -> Ticket {
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
    pub(in crate::layers::cache) fn if_unchanged(
        &self,
        ticket: Ticket,
        key: &[u8],
        keep: impl FnOnce(),
    ) {
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

    /// Waits for tasks that keep something at this moment.
    pub(in crate::layers::cache) fn wait_for_keepers(&self) {
        self.stripes.iter().for_each(|stripe| drop(stripe.lock()));
    }

    /// A write of a key begins. The ticket is of the moment behind that: no doubt, and nothing else is under way that
    /// touches the key.
    pub(in crate::layers::cache) fn begin(&self, hash: u64) -> Ticket {
        self.change(hash, |stripe| {
            let epoch = self.epochs.now();
            let in_doubt = !epoch.keeps() || stripe.is_written(hash, &*self.clock);
            stripe.begin(Some(hash));
            Ticket { hash, generation: stripe.generation_of(hash), epoch, in_doubt }
        })
    }

    /// It ends, and may still arrive below if it is in `doubt`.
    pub(in crate::layers::cache) fn end(&self, hash: u64, doubt: Option<Doubt>) {
        self.change(hash, |stripe| {
            stripe.end(Some(hash));
            if let Some(doubt) = doubt {
                stripe.doubts.add(hash, doubt.from, doubt.until);
            }
        });
    }

    /// A write of any keys begins.
    pub(in crate::layers::cache) fn begin_all(&self) {
        (0..STRIPES as u64).for_each(|stripe| self.change(stripe, |stripe| stripe.begin(None)));
    }

    pub(in crate::layers::cache) fn end_all(&self, doubt: Option<Doubt>) {
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
    pub(in crate::layers::cache) fn doubt(&self) -> Doubt {
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
    /// A load that began before a write may bring what was there before it, so a reader that comes after
    /// the write does not join it. While a write is under way its moment is unknown: a reader may
    /// have seen the new value already, so it waits for the load that begins when this one ends.
    /// So it does while changes go unreported: how old the answer of this one is, nobody knows. And so it
    /// does about a load that began in doubt, however long ago the doubt ended.
    ///
    /// `room` is asked for before a new one is registered.
    pub(in crate::layers::cache) fn join_or_lead<R>(
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
    pub(in crate::layers::cache) fn is_quiet(&self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        let mut stripe = self.at(hash).lock();
        let ticket = self.issue(hash, &mut stripe);
        self.quiet(&stripe, key, ticket)
    }

    fn quiet(&self, stripe: &Stripe, key: &[u8], ticket: Ticket) -> bool {
        !ticket.in_doubt && !self.is_loading(stripe, key, ticket)
    }

    /// Whether a load of the key is under way that a reader with this ticket joins.
    fn is_loading(&self, stripe: &Stripe, key: &[u8], ticket: Ticket) -> bool {
        let load = stripe.loads.get(key);
        load.is_some_and(|(first, _)| self.is_as_new(*first, ticket, key))
    }

    /// Whether nothing that concerns the key came between the beginning of its load and the ticket.
    fn is_as_new(&self, first: Ticket, ticket: Ticket, key: &[u8]) -> bool {
        first.generation == ticket.generation && self.epochs.accept(first.epoch, key)
    }

    /// Registers a load that no task waits for, if there is `room`.
    pub(in crate::layers::cache) fn lead_if_quiet<R>(
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
    pub(in crate::layers::cache) fn unregister(
        &self,
        key: &[u8],
        in_flight: &InFlight,
    ) -> Option<(InFlight, Ticket)> {
        let hash = self.hash(key);
        self.take_off(hash, key, in_flight, &mut self.at(hash).lock())
    }

    /// Takes a load that no task waits for off the list. Nobody can come to wait for it then.
    pub(in crate::layers::cache) fn turn(&self, key: &[u8], in_flight: &InFlight) -> Turn {
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
    pub(in crate::layers::cache) fn share_slot(&self, one: &[u8], other: &[u8]) -> bool {
        let [one, other] = [one, other].map(|key| self.hash(key));
        let slots = STRIPES as u64 * self.at(one).lock().slots.len() as u64;
        one % slots == other % slots
    }

    /// Loads that are on the list.
    #[cfg(test)]
    pub(in crate::layers::cache) fn under_way(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().loads.len()).sum()
    }
}
