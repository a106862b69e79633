//! A shard of the entries, with queues of its own.
//!
//! S3-FIFO: a new entry comes into a small queue, once the main queue is nearly full. At the end of the small queue, an entry
//! that was read meanwhile moves to the main queue, and any other leaves. The hashes of entries that left lately are remembered;
//! such an entry goes to the main queue at once when it comes back. At the end of the main queue, an entry leaves if it was not
//! read since it was last there. A read writes to one byte.

use std::sync::atomic::Ordering::Relaxed;

use hashbrown::HashTable;

use super::ghosts::{GHOST_BYTES, Ghosts};
use super::packed::Kept;
use super::slots::{NONE, Queue, SLOT_BYTES, Slot, Slots};

/// The small queue has this part of the weight.
const SMALL_PART: u64 = 10;
/// Reads of an entry that are counted, at most.
const MOST_USES: u8 = 3;

/// Of a table of four bytes and a mark for each bucket, which is at least 7/16 full.
const TABLE_BYTES: u64 = 12;

/// What an entry takes in addition to its allocations.
pub(super) const OVERHEAD: u64 = SLOT_BYTES + TABLE_BYTES + GHOST_BYTES;

#[derive(Debug)]
struct List {
    oldest: u32,
    newest: u32,
    weight: u64,
}

impl Default for List {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE, weight: 0 }
    }
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    table: HashTable<u32>,
    slots: Slots,
    /// A slot that is not used, of one that was taken out. No more than one is left.
    vacant: Option<u32>,
    small: List,
    main: List,
    ghosts: Ghosts,
    pub(super) capacity: u64,
}

/// What was taken out.
struct Removed {
    kept: Kept,
    hash: u32,
    queue: Queue,
}

pub(super) fn weight_of(kept: &Kept) -> u64 {
    OVERHEAD + kept.bytes()
}

/// The hash as the table wants it, with something in its highest bits.
const fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Shard {
    pub(super) fn new(capacity: u64) -> Self {
        Self { capacity, ..Self::default() }
    }

    pub(super) fn weight(&self) -> u64 {
        self.small.weight + self.main.weight
    }

    /// The number of entries.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// The number of places.
    pub(super) const fn places(&self) -> usize {
        self.slots.len()
    }

    /// The entry at a place. From the last one down, removals of what was visited hide no other.
    pub(super) fn at(&self, place: usize) -> Option<&Kept> {
        let place = u32::try_from(place).ok().filter(|_| place < self.slots.len())?;
        self.slots.get(place).filter(|_| self.vacant != Some(place)).map(|slot| &slot.kept)
    }

    #[inline]
    fn find(&self, hash: u32, key: &[u8]) -> Option<u32> {
        let of_key = |at: &u32| {
            self.slots.get(*at).is_some_and(|slot| slot.hash == hash && slot.kept.key() == key)
        };
        self.table.find(spread(hash), of_key).copied()
    }

    #[inline]
    pub(super) fn peek(&self, hash: u32, key: &[u8]) -> Option<&Kept> {
        Some(&self.slots.get(self.find(hash, key)?)?.kept)
    }

    /// The entry, which is read.
    #[inline]
    pub(super) fn get(&self, hash: u32, key: &[u8]) -> Option<&Kept> {
        let slot = self.slots.get(self.find(hash, key)?)?;
        let uses = slot.uses.load(Relaxed);
        if uses < MOST_USES {
            // Two readers may count as one.
            slot.uses.store(uses + 1, Relaxed);
        }
        Some(&slot.kept)
    }

    /// Keeps an entry in the place of what is there of its key, which it gives, and evicts what is over the capacity.
    /// An entry over the capacity is evicted at once: what was there of its key is older.
    pub(super) fn insert(
        &mut self,
        hash: u32,
        kept: Kept,
        mut evicted: impl FnMut(Kept),
    ) -> Option<Kept> {
        let weight = weight_of(&kept);
        if weight > self.capacity {
            let replaced = self.remove_if(hash, kept.key(), |_| true);
            evicted(kept);
            return replaced;
        }
        if let Some(at) = self.find(hash, kept.key()) {
            let slot = self.slots.get_mut(at)?;
            let replaced = std::mem::replace(&mut slot.kept, kept);
            let list = self.list_of(at)?;
            list.weight = list.weight + weight - weight_of(&replaced);
            self.make_room(0, evicted);
            return Some(replaced);
        }
        self.make_room(weight, evicted);
        let is_known = self.ghosts.take(hash) || self.main.weight + weight <= self.at_first();
        let queue = if is_known { Queue::Main } else { Queue::Small };
        let slot = Slot { kept, hash, queue, older: NONE, newer: NONE, ..Slot::default() };
        // No shard is so large that its slots are more than numbers of 32 bits.
        let at = self.place(slot)?;
        let slots = &self.slots;
        let hash_of = |at: &u32| spread(slots.get(*at).map_or(0, |slot| slot.hash));
        self.table.insert_unique(spread(hash), at, hash_of);
        self.link(at);
        None
    }

    /// Puts a slot where one is vacant, or at the end.
    fn place(&mut self, slot: Slot) -> Option<u32> {
        let Some(at) = self.vacant.take() else {
            self.ghosts.fit(self.slots.len() + 1);
            return self.slots.push(slot);
        };
        *self.slots.get_mut(at)? = slot;
        Some(at)
    }

    /// Removes the entry of a key, if it is that.
    pub(super) fn remove_if(
        &mut self,
        hash: u32,
        key: &[u8],
        is: impl FnOnce(&Kept) -> bool,
    ) -> Option<Kept> {
        let at = self.find(hash, key)?;
        if !is(&self.slots.get(at)?.kept) {
            return None;
        }
        let taken = self.take_out(at)?;
        if taken.queue == Queue::Main {
            // Where it is loaded again, it is known to be read.
            self.ghosts.add(hash);
        }
        Some(taken.kept)
    }

    /// Evicts until there is room for that much.
    pub(super) fn make_room(&mut self, weight: u64, mut evicted: impl FnMut(Kept)) {
        while self.weight() + weight > self.capacity
            && let Some(kept) = self.evict()
        {
            evicted(kept);
        }
    }

    /// Evicts what is over the capacity, and no more than that many entries. Gives how many.
    pub(super) fn make_some_room(&mut self, most: usize, mut evicted: impl FnMut(Kept)) -> usize {
        for count in 0..most {
            if self.weight() <= self.capacity {
                return count;
            }
            let Some(kept) = self.evict() else { return count };
            evicted(kept);
        }
        most
    }

    fn evict(&mut self) -> Option<Kept> {
        // What goes round has one use less each time.
        loop {
            let main = self.main.oldest;
            let is_small = main == NONE || self.small.weight > self.capacity / SMALL_PART;
            let at = if is_small && self.small.oldest != NONE { self.small.oldest } else { main };
            let slot = self.slots.get_mut(at)?;
            let uses = *slot.uses.get_mut();
            if uses == 0 {
                let taken = self.take_out(at)?;
                if taken.queue == Queue::Small {
                    self.ghosts.add(taken.hash);
                }
                return Some(taken.kept);
            }
            *slot.uses.get_mut() = if slot.queue == Queue::Small { 0 } else { uses - 1 };
            self.unlink(at);
            self.slots.get_mut(at)?.queue = Queue::Main;
            self.link(at);
        }
    }

    /// What is new comes into the main queue until that has so much: of a loop over more than fits, a part stays. It is
    /// less than the main queue may have, or the small one would never be too large.
    const fn at_first(&self) -> u64 {
        self.capacity - 2 * (self.capacity / SMALL_PART)
    }

    fn list(&mut self, queue: Queue) -> &mut List {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    fn list_of(&mut self, at: u32) -> Option<&mut List> {
        let queue = self.slots.get(at)?.queue;
        Some(self.list(queue))
    }

    /// Puts a slot at the young end of its queue.
    fn link(&mut self, at: u32) {
        let Some(slot) = self.slots.get(at) else { return };
        let (queue, weight) = (slot.queue, weight_of(&slot.kept));
        let list = self.list(queue);
        list.weight += weight;
        let older = std::mem::replace(&mut list.newest, at);
        if older == NONE {
            list.oldest = at;
        } else if let Some(slot) = self.slots.get_mut(older) {
            slot.newer = at;
        }
        if let Some(slot) = self.slots.get_mut(at) {
            (slot.older, slot.newer) = (older, NONE);
        }
    }

    /// Takes a slot out of its queue.
    fn unlink(&mut self, at: u32) {
        let Some(slot) = self.slots.get(at) else { return };
        let (queue, weight) = (slot.queue, weight_of(&slot.kept));
        let (older, newer) = (slot.older, slot.newer);
        self.list(queue).weight -= weight;
        self.set_neighbours(queue, older, newer, (newer, older));
    }

    /// What the older neighbour has as its newer one, and the other way round.
    fn set_neighbours(&mut self, queue: Queue, older: u32, newer: u32, ends: (u32, u32)) {
        match self.slots.get_mut(older) {
            Some(slot) => slot.newer = ends.0,
            None => self.list(queue).oldest = ends.0,
        }
        match self.slots.get_mut(newer) {
            Some(slot) => slot.older = ends.1,
            None => self.list(queue).newest = ends.1,
        }
    }

    /// Takes an entry out of everything.
    fn take_out(&mut self, at: u32) -> Option<Removed> {
        self.unlink(at);
        let slot = self.slots.get_mut(at)?;
        let taken =
            Removed { kept: std::mem::take(&mut slot.kept), hash: slot.hash, queue: slot.queue };
        if let Ok(entry) = self.table.find_entry(spread(taken.hash), |place| *place == at) {
            entry.remove();
        }
        match self.vacant {
            None => self.vacant = Some(at),
            Some(vacant) => {
                self.close(at, vacant);
                self.shrink();
            }
        }
        Some(taken)
    }

    /// Closes a place that is not used, as another one is vacant: the last slot moves into it.
    fn close(&mut self, at: u32, vacant: u32) {
        let last = self.slots.swap_remove(at);
        if last == Some(vacant) {
            self.vacant = Some(at);
        } else if let Some(last) = last.filter(|last| *last != at)
            && let Some(moved) = self.slots.get(at)
        {
            let (queue, older, newer) = (moved.queue, moved.older, moved.newer);
            if let Some(place) = self.table.find_mut(spread(moved.hash), |place| *place == last) {
                *place = at;
            }
            self.set_neighbours(queue, older, newer, (at, at));
        }
    }

    /// Table and ghosts take what goes with the slots.
    fn shrink(&mut self) {
        let length = self.slots.len();
        if self.table.capacity() > 64 && length * 4 < self.table.capacity() {
            let slots = &self.slots;
            let hash_of = |at: &u32| spread(slots.get(*at).map_or(0, |slot| slot.hash));
            self.table.shrink_to(length * 2, hash_of);
        }
        self.ghosts.fit(length);
    }

    /// That queues, table and slots tell the same.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut seen = vec![false; self.slots.len()];
        for (queue, list) in [(Queue::Small, &self.small), (Queue::Main, &self.main)] {
            let (mut at, mut older, mut sum) = (list.oldest, NONE, 0);
            while let Some(slot) = self.slots.get(at) {
                assert!(slot.queue == queue && slot.older == older);
                assert!(!std::mem::replace(&mut seen[at as usize], true), "twice");
                assert_eq!(self.find(slot.hash, slot.kept.key()), Some(at));
                sum += weight_of(&slot.kept);
                (older, at) = (at, slot.newer);
            }
            assert!(at == NONE && older == list.newest && sum == list.weight);
        }
        if let Some(vacant) = self.vacant {
            assert!(!std::mem::replace(&mut seen[vacant as usize], true), "in a queue");
        }
        assert!(seen.into_iter().all(|seen| seen));
        assert_eq!(self.len() + usize::from(self.vacant.is_some()), self.slots.len());
    }

    /// Places that are there and not used.
    #[cfg(test)]
    pub(super) fn spare(&self) -> usize {
        self.slots.room() - self.slots.len()
    }

    #[cfg(test)]
    pub(super) fn queue_of(&self, hash: u32, key: &[u8]) -> Option<Queue> {
        Some(self.slots.get(self.find(hash, key)?)?.queue)
    }
}
