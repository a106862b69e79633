//! Prefix invalidation: the entries of a prefix become old at once.
//!
//! A table holds, for each prefix, the epoch that its invalidation began. Entries and loads that began before it are
//! refused from then on; nothing is looked for. Each invalidation begins an epoch of its own, so that only what
//! began before the newest one has to be compared with the prefixes at all.
//!
//! The table is bounded. Once it is full it is set aside, and a sweep takes the entries that its prefixes match
//! out of the engine, after which it is forgotten. A load that began before could bring such an entry back, so
//! from then on no load is kept that began before the sweep.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::epoch::Epoch;
use super::sync::MOST_PREFIXES;

/// A lookup of something old costs a hash for each length of a prefix.
const MOST_LENGTHS: usize = 64;
const MOST_BYTES: usize = 1 << 20;

/// What is old, and why. Cheap to copy, but for the table, which is copied with each new prefix.
#[derive(Clone, Debug)]
pub(in crate::layers::cache) struct PrefixInvalidations {
    /// What began before it is old.
    horizon: Epoch,
    /// Loads that began before it are, too.
    loads_from: Epoch,
    /// The end of the last sweep. A reader that looked for an entry before it may have one that the sweep removed.
    swept_at: Epoch,
    table: Arc<PrefixTable>,
    /// Set aside, until the sweep has dealt with it.
    sweeping: Option<Arc<PrefixTable>>,
}

/// What the invalidation of a prefix leaves to do.
#[derive(Debug)]
pub(in crate::layers::cache) enum Invalidated {
    /// Nothing.
    Done,
    /// Everything is old now.
    Everything,
    /// The entries that these prefixes match are to be removed.
    Full(Arc<PrefixTable>),
}

impl PrefixInvalidations {
    pub(in crate::layers::cache) fn new(now: Epoch) -> Self {
        Self { horizon: now, loads_from: now, swept_at: now, table: Arc::default(), sweeping: None }
    }

    /// Everything that began before this moment is old.
    pub(in crate::layers::cache) fn forget(&mut self, now: Epoch) {
        *self = Self::new(now);
    }

    /// What began before this moment is old, if its key begins with the prefix.
    pub(in crate::layers::cache) fn add(&mut self, prefix: &[u8], now: Epoch) -> Invalidated {
        if prefix.is_empty() {
            self.forget(now);
            return Invalidated::Everything;
        }
        Arc::make_mut(&mut self.table).add(prefix, now);
        if !self.table.is_full() {
            return Invalidated::Done;
        }
        if self.sweeping.is_some() {
            // As many prefixes again before the last sweep has ended.
            self.forget(now);
            return Invalidated::Everything;
        }
        self.loads_from = now;
        let full = std::mem::take(&mut self.table);
        self.sweeping = Some(Arc::clone(&full));
        Invalidated::Full(full)
    }

    /// The entries that these prefixes match are gone. Tells whether it matters.
    pub(in crate::layers::cache) fn swept(&mut self, full: &Arc<PrefixTable>, now: Epoch) -> bool {
        let matters = self.sweeping.take_if(|sweeping| Arc::ptr_eq(sweeping, full)).is_some();
        if matters {
            self.swept_at = now;
        }
        matters
    }

    /// Whether an entry may be served whose load began then, to a reader that looked at the epoch before it
    /// looked for the entry.
    pub(in crate::layers::cache) fn serve(&self, looked: Epoch, began: Epoch, key: &[u8]) -> bool {
        looked >= self.swept_at && began >= self.horizon && !self.cover(began, key)
    }

    /// Whether a load that began then may be kept, and joined.
    pub(in crate::layers::cache) fn accept(&self, began: Epoch, key: &[u8]) -> bool {
        began >= self.loads_from && !self.cover(began, key)
    }

    fn cover(&self, began: Epoch, key: &[u8]) -> bool {
        self.table.covers(began, key)
            || self.sweeping.as_ref().is_some_and(|table| table.covers(began, key))
    }
}

/// Prefixes, and when they were last invalidated.
#[derive(Clone, Default)]
pub(in crate::layers::cache) struct PrefixTable {
    prefixes: HashMap<Bytes, Epoch, RandomState>,
    /// The lengths that occur among them, ascending.
    lengths: Vec<usize>,
    bytes: usize,
    newest: Option<Epoch>,
}

/// Prints no key.
impl std::fmt::Debug for PrefixTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrefixTable({} prefixes)", self.prefixes.len())
    }
}

impl PrefixTable {
    fn add(&mut self, prefix: &[u8], now: Epoch) {
        if self.prefixes.insert(Bytes::copy_from_slice(prefix), now).is_none() {
            self.bytes += prefix.len();
        }
        if let Err(at) = self.lengths.binary_search(&prefix.len()) {
            self.lengths.insert(at, prefix.len());
        }
        self.newest = Some(now);
    }

    fn is_full(&self) -> bool {
        self.prefixes.len() >= MOST_PREFIXES
            || self.lengths.len() >= MOST_LENGTHS
            || self.bytes >= MOST_BYTES
    }

    /// Whether the key was invalidated after that moment.
    pub(in crate::layers::cache) fn covers(&self, began: Epoch, key: &[u8]) -> bool {
        if self.newest <= Some(began) {
            return false;
        }
        let prefixes = self.lengths.iter().map_while(|length| key.get(..*length));
        prefixes
            .filter_map(|prefix| self.prefixes.get(prefix))
            .any(|invalidated| began < *invalidated)
    }
}
