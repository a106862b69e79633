//! The engine that bounds the memory. Everything else about the cache does not know which one it is.
//!
//! An engine keeps entries and decides which of them go. What it offers beyond that stays unused: its expiry, as
//! ours follows an injected clock; its loader, as it would keep what a write has overtaken; its
//! listeners, except to count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::coherence::{Epoch, StripeVersion};
use super::super::config::Policy;
use super::super::policy::{Answer, Cached, CoarseTime};
use super::counters::Counters;
use super::moka::{self, Moka};
use super::near_cache::{self, NearCaches};
use super::s3_fifo::{self, Evicted, S3Fifo};
use crate::error::{Error, Result};
use crate::telemetry::Labels;
use crate::types::Value;

/// What is larger than this part of the capacity would push out too much else.
pub(super) const LARGEST_PART: u64 = 8;

/// Bytes of a load under way in addition to its key: its task with the future of the store below, its place in
/// the list, the channel on which its outcome is told.
pub(super) const LOAD_OVERHEAD: u64 = 1024;

/// What loads may take of the capacity: this part of it, and at least so much where that is no more than a quarter. It
/// is theirs alone, so that neither a burst of loads nor an outage takes the place of entries.
const LOADS_PART: u64 = 32;
const LEAST_FOR_LOADS: u64 = 512 << 10;
const MOST_FOR_LOADS: u64 = 64 << 20;

/// Rounds of moka's housekeeping in which there has to be room for an entry. One makes it, but others may take it.
const MOST_ROUNDS: u32 = 16;

/// Two engines, told apart by a branch that a processor predicts.
enum Kind {
    S3Fifo(S3Fifo, NearCaches),
    Moka(Moka),
}

pub(in crate::layers::cache) struct Engine {
    kind: Kind,
    pub(super) counters: Arc<Counters>,
    room: Mutex<Room>,
    /// Bytes of loads under way, and the most that they may take.
    loads: AtomicU64,
    most_loads: AtomicU64,
    /// Whether there is room for copies.
    copies: AtomicBool,
    /// Held while the capacity is changed.
    resizing: Mutex<()>,
    /// The weight of the largest entry that is kept.
    largest: AtomicU64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({} entries)", self.entries())
    }
}

/// Registers the series of an engine, and lets go of them.
pub(in crate::layers::cache) fn register_counters(labels: &Labels) {
    drop(Counters::new(labels));
}

impl Engine {
    #[cfg(test)]
    pub(in crate::layers::cache) fn new(policy: Policy, capacity: u64, labels: &Labels) -> Self {
        Self::telling(policy, capacity, labels, None)
    }

    /// An engine that tells what it evicts, if it [can](Self::tells).
    pub(in crate::layers::cache) fn telling(
        policy: Policy,
        capacity: u64,
        labels: &Labels,
        evicted: Option<Evicted>,
    ) -> Self {
        let counters = Arc::new(Counters::new(labels));
        let room = Room { capacity, copies: false };
        let kind = match policy {
            Policy::S3Fifo => {
                let entries = S3Fifo::new(room.entries(), Arc::clone(&counters), evicted);
                Kind::S3Fifo(entries, NearCaches::new(capacity))
            }
            Policy::TinyLfu | Policy::Lru => {
                Kind::Moka(Moka::new(policy, room.entries(), Arc::clone(&counters)))
            }
        };
        let engine = Self {
            kind,
            counters,
            room: Mutex::new(room),
            loads: AtomicU64::new(0),
            most_loads: AtomicU64::new(for_loads(capacity)),
            copies: AtomicBool::new(false),
            resizing: Mutex::default(),
            largest: AtomicU64::new(0),
        };
        engine.set_largest(capacity);
        engine
    }

    fn set_largest(&self, capacity: u64) {
        let most = match &self.kind {
            Kind::S3Fifo(fifo, _) => fifo.largest().min(capacity / LARGEST_PART),
            Kind::Moka(_) => u64::from(u32::MAX).min(capacity / moka::LARGEST_PART),
        };
        self.largest.store(most, Ordering::Relaxed);
    }

    pub(super) fn weight(&self, key: &[u8], cached: &Cached) -> u64 {
        match self.kind {
            Kind::S3Fifo(..) => s3_fifo::weight(key, cached),
            Kind::Moka(_) => moka::weight(key, cached),
        }
    }

    pub(in crate::layers::cache) fn get(&self, key: &[u8]) -> Option<Cached> {
        match &self.kind {
            Kind::S3Fifo(fifo, _) => fifo.get(key),
            Kind::Moka(moka) => moka.get(key),
        }
    }

    /// The entry, as if nobody had looked at it.
    pub(in crate::layers::cache) fn peek(&self, key: &[u8]) -> Option<Cached> {
        match &self.kind {
            Kind::S3Fifo(fifo, _) => fifo.peek(key),
            Kind::Moka(moka) => moka.peek(key),
        }
    }

    /// Like [`get`](Self::get), for a reader: a copy of its thread, if that is `usable`.
    #[inline(always)]
    pub(in crate::layers::cache) fn read(
        &self,
        key: &[u8],
        version: impl FnOnce() -> StripeVersion,
        usable: impl FnOnce(&Cached) -> bool,
    ) -> Option<Cached> {
        match &self.kind {
            Kind::S3Fifo(fifo, near_caches) => near_caches.get(
                key,
                version,
                usable,
                || fifo.get(key),
                || self.leave_room_for_copies(),
            ),
            Kind::Moka(moka) => moka.get(key),
        }
    }

    fn leave_room_for_copies(&self) {
        let Kind::S3Fifo(fifo, _) = &self.kind else { return };
        // Without the lock: a change of the capacity holds it for long.
        if self.copies.load(Ordering::Acquire) {
            return;
        }
        let mut room = self.room.lock();
        if !room.copies {
            room.copies = true;
            fifo.set_capacity(room.entries());
        }
        self.copies.store(true, Ordering::Release);
    }

    /// Whether an entry is small enough to be kept.
    pub(in crate::layers::cache) fn fits(&self, key: &[u8], cached: &Cached) -> bool {
        self.weight(key, cached) <= self.largest.load(Ordering::Relaxed)
    }

    /// Keeps an entry that [fits](Self::fits), in the place of what is kept for the key. One at a time for each
    /// key.
    pub(in crate::layers::cache) fn insert(&self, key: &[u8], cached: Cached) {
        match &self.kind {
            Kind::S3Fifo(fifo, _) => fifo.insert(key, cached),
            Kind::Moka(moka) => {
                let weight = self.weight(key, &cached);
                // With another weight never in its place, see there. With the same, no reader finds it gone.
                let in_place = moka.weight_of(key) == Some(weight) && self.admit_now(weight);
                if !in_place {
                    moka.remove(key);
                }
                if in_place || self.admit(moka, weight) {
                    moka.insert(key, cached);
                } else {
                    self.counters.evicted.increment(1);
                }
            }
        }
    }

    /// Counts an entry for moka, if there is room.
    fn admit_now(&self, weight: u64) -> bool {
        let room = self.room.lock();
        let fits = self.over(&room, weight) == 0;
        if fits {
            self.counters.added(weight);
        }
        fits
    }

    /// Counts an entry for moka, and makes room for it: by its policy, as far as it keeps less than the capacity, and
    /// without where that is not enough. What finds no room then waits, as others take it.
    fn admit(&self, moka: &Moka, weight: u64) -> bool {
        (0..MOST_ROUNDS).any(|_| {
            self.admit_now(weight) || {
                self.make_room(moka, weight);
                self.admit_now(weight)
            }
        })
    }

    fn make_room(&self, moka: &Moka, weight: u64) {
        moka.settle();
        let room = self.room.lock();
        let evicted = moka.evict_while(|| self.over(&room, weight) > 0);
        self.counters.evicted.increment(evicted);
    }

    /// Bytes over what entries may use, with that many more.
    fn over(&self, room: &Room, more: u64) -> u64 {
        (self.counters.bytes() + more).saturating_sub(room.entries())
    }

    pub(in crate::layers::cache) fn remove(&self, key: &[u8]) {
        match &self.kind {
            Kind::S3Fifo(fifo, _) => fifo.remove(key),
            Kind::Moka(moka) => moka.remove(key),
        }
    }

    /// Removes an entry whose time has come: it expired, or was idle.
    pub(in crate::layers::cache) fn remove_ended(&self, key: &[u8], ended: &Cached, idle: bool) {
        let removed = self.remove_this(key, ended);
        let cause = if idle { &self.counters.idle } else { &self.counters.expired };
        cause.increment(u64::from(removed));
    }

    /// Removes an entry that was looked at, and not a later one. Tells whether it was there.
    pub(in crate::layers::cache) fn remove_this(&self, key: &[u8], cached: &Cached) -> bool {
        match &self.kind {
            Kind::S3Fifo(fifo, _) => fifo.remove_if(key, cached),
            Kind::Moka(moka) => moka.remove_if(key, cached),
        }
    }

    /// Removes the entries that are old, one at a time, and lets go of all copies. What is kept meanwhile may be
    /// passed over.
    pub(in crate::layers::cache) fn remove_where(&self, old: impl Fn(&[u8], Epoch) -> bool) {
        let remove = |key: &[u8], cached: Cached| {
            if old(key, cached.epoch) {
                self.remove_this(key, &cached);
            }
        };
        match &self.kind {
            Kind::S3Fifo(fifo, near_caches) => {
                fifo.for_each(remove);
                // Behind the entries: a copy is made of an entry that is there.
                near_caches.clear();
            }
            Kind::Moka(moka) => moka.for_each(remove),
        }
    }

    pub(in crate::layers::cache) fn clear(&self) {
        match &self.kind {
            Kind::S3Fifo(fifo, near_caches) => {
                near_caches.clear();
                fifo.clear();
            }
            Kind::Moka(moka) => moka.clear(),
        }
    }

    /// Changes the bound, and evicts what is over it.
    pub(in crate::layers::cache) fn set_capacity(&self, capacity: u64) -> Result<()> {
        let Kind::S3Fifo(fifo, near_caches) = &self.kind else {
            return Err(Error::unsupported(
                "the engine of this policy has the capacity that it was made with; with the policy s3_fifo it can be changed",
            ));
        };
        let _resizing = self.resizing.lock();
        // Before the lock of the room, which a near cache takes within its own.
        near_caches.set_capacity(capacity);
        let mut room = self.room.lock();
        room.capacity = capacity;
        self.most_loads.store(for_loads(capacity), Ordering::Relaxed);
        fifo.set_capacity(room.entries());
        self.set_largest(capacity);
        Ok(())
    }

    /// Whether it tells what it evicts.
    pub(in crate::layers::cache) fn tells(&self) -> bool {
        matches!(self.kind, Kind::S3Fifo(..))
    }

    /// Evicts everything, and tells of it, with a pause after every few entries; an engine that does not
    /// [tell](Self::tells) keeps it.
    pub(in crate::layers::cache) async fn evict_all<F: Future>(&self, pause: impl Fn() -> F) {
        if let Kind::S3Fifo(fifo, _) = &self.kind {
            fifo.evict_all(pause).await;
        }
    }

    /// Counts a load, if there is room for it. Gives what is to be [given back](Self::end_load).
    pub(in crate::layers::cache) fn begin_load(&self, key: &[u8]) -> Option<u64> {
        let most = self.most_loads.load(Ordering::Relaxed);
        // However long the key is, some fit.
        let bytes = (LOAD_OVERHEAD + key.len() as u64).min(most / 4);
        let more = |loads: u64| Some(loads + bytes).filter(|loads| *loads <= most);
        self.loads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then_some(bytes)
    }

    /// The load has ended.
    pub(in crate::layers::cache) fn end_load(&self, bytes: u64) {
        self.loads.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Some of the keys, in no order, so that their cost together is at most that.
    pub(in crate::layers::cache) fn keys(
        &self,
        most: usize,
        cost: impl Fn(&[u8]) -> usize,
    ) -> Vec<Bytes> {
        let mut bytes = 0;
        let mut keys = Vec::new();
        let add = |key: &[u8]| {
            bytes += cost(key);
            let fits = bytes <= most;
            if fits {
                keys.push(Bytes::copy_from_slice(key));
            }
            fits
        };
        match &self.kind {
            Kind::S3Fifo(fifo, _) => fifo.each_key(add),
            Kind::Moka(moka) => moka.each_key(add),
        }
        keys
    }

    /// What part of what entries may use these would take.
    pub(in crate::layers::cache) fn part_of<'e>(
        &self,
        entries: impl Iterator<Item = (&'e Bytes, &'e Value)>,
    ) -> f64 {
        let weights = entries.map(|(key, value)| {
            let answer = Answer::Value(value.clone());
            let epoch = Epoch::FIRST;
            self.weight(key, &Cached { answer, until: CoarseTime::NEVER, epoch, extra: None })
        });
        weights.sum::<u64>() as f64 / self.room.lock().entries() as f64
    }

    /// Bytes of the entries.
    pub(in crate::layers::cache) fn bytes(&self) -> u64 {
        match &self.kind {
            Kind::S3Fifo(fifo, _) => fifo.bytes(),
            Kind::Moka(_) => self.counters.bytes(),
        }
    }

    pub(in crate::layers::cache) fn entries(&self) -> u64 {
        self.counters.entries()
    }

    /// Lets the engine do what it has put off.
    #[cfg(test)]
    pub(in crate::layers::cache) fn finish(&self) {
        if let Kind::Moka(moka) = &self.kind {
            for _ in 0..10 {
                moka.settle();
            }
        }
    }

    /// Bytes of loads under way, where they are counted.
    #[cfg(test)]
    pub(in crate::layers::cache) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    /// Bytes of entries and of loads under way.
    #[cfg(test)]
    pub(in crate::layers::cache) fn held(&self) -> u64 {
        self.bytes() + self.loads()
    }
}

/// What loads may take of a capacity.
fn for_loads(capacity: u64) -> u64 {
    let least = LEAST_FOR_LOADS.min(capacity / 4);
    (capacity / LOADS_PART).clamp(least, MOST_FOR_LOADS)
}

/// How the capacity is divided.
#[derive(Clone, Copy, Debug)]
struct Room {
    capacity: u64,
    /// Whether threads make copies.
    copies: bool,
}

impl Room {
    /// What entries may use.
    fn entries(&self) -> u64 {
        let copies = if self.copies { near_cache::share(self.capacity) } else { 0 };
        self.capacity - for_loads(self.capacity) - copies
    }
}
