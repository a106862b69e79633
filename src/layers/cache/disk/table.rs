//! What the level knows without the disk: entries that wait to be written, and where the others are.
//!
//! Pure state, behind one lock. That lock is a leaf: it may be taken under the lock of a stripe or of the
//! engine, and nothing is locked or waited for under it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::super::coherence::Epoch;
use super::index::{Index, Location};
use super::log::Shape;
use super::record::{self, Copy};

/// What an entry costs while it waits, in addition to its key and value.
const WAITING_BYTES: u64 = 256;

/// Whether the level takes and gives entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// Writes out what waits, and takes nothing more.
    Closing,
    /// Holds nothing: it was closed, or the disk failed.
    Off,
    /// Holds nothing, and its index is a file, or becomes one.
    Saved,
    /// A key was removed that is in that file.
    Spoiled,
}

/// What the thread is asked to do in addition to writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stop {
    #[default]
    No,
    /// Ends when nothing waits any more. Keeps the entries for the next open, or removes them.
    Written { keep: bool },
    /// Ends at once.
    Now,
}

/// Where a copy was found.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// It waits to be written, as that offer.
    Waiting(u64, Copy),
    At(Location),
}

/// Why an offer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too much waits to be written.
    Full,
    /// It fits into no segment.
    Large,
    /// It began before everything was forgotten, or the level is not open.
    Late,
}

struct Waiting {
    offer: u64,
    copy: Copy,
}

pub(super) struct Table {
    pub(super) state: State,
    pub(super) stop: Stop,
    /// The stack whose entries these are.
    pub(super) owner: Option<u64>,
    /// What began before it is not taken.
    horizon: Epoch,
    index: Index,
    waiting: HashMap<Bytes, Waiting>,
    /// Offers in the order in which they came, without the one that is being written.
    queue: BTreeMap<u64, Bytes>,
    offers: u64,
    bytes: u64,
    shape: Shape,
}

fn cost(key: &[u8], copy: &Copy) -> u64 {
    WAITING_BYTES + record::length(key, &copy.value)
}

impl Table {
    /// A table over the index of that stack.
    pub(super) fn new(index: Index, owner: Option<u64>, shape: Shape) -> Self {
        Self {
            state: State::Open,
            stop: Stop::No,
            owner,
            horizon: Epoch::FIRST,
            index,
            waiting: HashMap::new(),
            queue: BTreeMap::new(),
            offers: 0,
            bytes: 0,
            shape,
        }
    }

    /// Takes the entry to be written. Whatever was there of the key before is gone, also when it is refused.
    pub(super) fn offer(&mut self, hash: u64, key: &[u8], copy: Copy) -> Result<(), Refused> {
        self.remove(hash, key);
        if copy.began < self.horizon || self.state != State::Open {
            return Err(Refused::Late);
        }
        if record::length(key, &copy.value) > self.shape.segment {
            return Err(Refused::Large);
        }
        let bytes = cost(key, &copy);
        if self.bytes + bytes > self.shape.waiting {
            return Err(Refused::Full);
        }
        let key = Bytes::copy_from_slice(key);
        self.bytes += bytes;
        self.offers += 1;
        self.queue.insert(self.offers, key.clone());
        self.waiting.insert(key, Waiting { offer: self.offers, copy });
        Ok(())
    }

    /// Whether less than half of what may wait does, or nothing is taken any more.
    pub(super) fn has_room(&self) -> bool {
        self.state != State::Open || self.bytes <= self.shape.waiting / 2
    }

    /// Nothing that began before that epoch is there any more, nor comes.
    pub(super) fn forget(&mut self, horizon: Epoch) {
        self.horizon = self.horizon.max(horizon);
        self.clear();
    }

    pub(super) fn clear(&mut self) {
        self.index = Index::default();
        self.waiting.clear();
        self.queue.clear();
        self.bytes = 0;
    }

    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) {
        self.index.remove(hash);
        self.withdraw(key);
    }

    fn withdraw(&mut self, key: &[u8]) -> Option<Waiting> {
        let (key, waiting) = self.waiting.remove_entry(key)?;
        self.bytes -= cost(&key, &waiting.copy);
        self.queue.remove(&waiting.offer);
        Some(waiting)
    }

    /// Where the copy of a key is.
    pub(super) fn find(&mut self, hash: u64, key: &[u8]) -> Option<Held> {
        match self.waiting.get(key) {
            Some(waiting) => Some(Held::Waiting(waiting.offer, waiting.copy.clone())),
            None => self.index.get(hash).map(Held::At),
        }
    }

    pub(super) fn holds(&mut self, hash: u64, key: &[u8]) -> bool {
        self.waiting.contains_key(key) || self.index.get(hash).is_some()
    }

    /// Whether that is the copy of the key still, and not a later one, or none.
    pub(super) fn is_current(&mut self, hash: u64, key: &[u8], held: &Held) -> bool {
        match (held, self.waiting.get(key)) {
            (Held::Waiting(offer, _), Some(waiting)) => *offer == waiting.offer,
            (Held::At(location), None) => self.index.get(hash) == Some(*location),
            _ => false,
        }
    }

    /// The next one to write. It stays where a reader finds it.
    pub(super) fn next(&mut self) -> Option<(u64, Bytes, Copy)> {
        let (offer, key) = self.queue.pop_first()?;
        let waiting = self.waiting.get(&key)?;
        Some((offer, key, waiting.copy.clone()))
    }

    /// The offer was written. Whether it still is the one of its key: else the record is dead.
    pub(super) fn publish(
        &mut self,
        offer: u64,
        hash: u64,
        key: &[u8],
        location: Location,
    ) -> bool {
        let current = self.waiting.get(key).is_some_and(|waiting| waiting.offer == offer);
        if current {
            self.withdraw(key);
            self.index.insert(hash, location);
        }
        current
    }

    pub(super) fn index(&mut self) -> &mut Index {
        &mut self.index
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn entries(&self) -> usize {
        self.index.len() + self.waiting.len()
    }
}
