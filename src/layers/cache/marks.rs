//! Marks: what makes the entries of a prefix old at once.
//!
//! A mark is the moment at which the keys of a prefix were invalidated. What began before it, entries and
//! loads, is refused from then on; nothing is looked for. Each mark is a moment of its own, so that only what
//! began before the newest one has to be compared with the marks at all.
//!
//! The table is bounded. Once it is full it is set aside, and a sweep takes the entries that its marks match
//! out of the engine, after which it is forgotten. A load that began before could bring such an entry back, so
//! from then on no load is kept that began before the sweep.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::era::Era;
use super::sync::MOST_PREFIXES;

/// A lookup of something old costs a hash for each length of a prefix.
const MOST_LENGTHS: usize = 64;
const MOST_BYTES: usize = 1 << 20;

/// What is old, and why. Cheap to copy, but for the table, which is copied with each new mark.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    /// What began before it is old.
    horizon: Era,
    /// Loads that began before it are, too.
    loads_from: Era,
    /// The end of the last sweep. Who looked for an entry before it, may have one that the sweep removed.
    swept_at: Era,
    table: Arc<Table>,
    /// Set aside, until the sweep has dealt with it.
    sweeping: Option<Arc<Table>>,
}

/// What a mark leaves to do.
#[derive(Debug)]
pub(super) enum Marked {
    /// Nothing.
    Done,
    /// Everything is old now.
    Everything,
    /// The entries that these marks match are to be removed.
    Full(Arc<Table>),
}

impl Marks {
    pub(super) fn new(now: Era) -> Self {
        Self { horizon: now, loads_from: now, swept_at: now, table: Arc::default(), sweeping: None }
    }

    /// Everything that began before this moment is old.
    pub(super) fn forget(&mut self, now: Era) {
        *self = Self::new(now);
    }

    /// What began before this moment is old, if its key begins with the prefix.
    pub(super) fn add(&mut self, prefix: &[u8], now: Era) -> Marked {
        if prefix.is_empty() {
            self.forget(now);
            return Marked::Everything;
        }
        Arc::make_mut(&mut self.table).add(prefix, now);
        if !self.table.is_full() {
            return Marked::Done;
        }
        if self.sweeping.is_some() {
            // As many marks again before the last sweep has ended.
            self.forget(now);
            return Marked::Everything;
        }
        self.loads_from = now;
        let full = std::mem::take(&mut self.table);
        self.sweeping = Some(Arc::clone(&full));
        Marked::Full(full)
    }

    /// The entries that these marks match are gone. Tells whether it matters.
    pub(super) fn swept(&mut self, full: &Arc<Table>, now: Era) -> bool {
        let matters = self.sweeping.take_if(|sweeping| Arc::ptr_eq(sweeping, full)).is_some();
        if matters {
            self.swept_at = now;
        }
        matters
    }

    /// Whether an entry may be served whose load began then, to somebody who looked at the era before he
    /// looked for the entry.
    pub(super) fn serve(&self, looked: Era, began: Era, key: &[u8]) -> bool {
        looked >= self.swept_at && began >= self.horizon && !self.cover(began, key)
    }

    /// Whether a load that began then may be kept, and joined.
    pub(super) fn accept(&self, began: Era, key: &[u8]) -> bool {
        began >= self.loads_from && !self.cover(began, key)
    }

    fn cover(&self, began: Era, key: &[u8]) -> bool {
        self.table.covers(began, key)
            || self.sweeping.as_ref().is_some_and(|table| table.covers(began, key))
    }
}

/// Prefixes, and when they were last invalidated.
#[derive(Clone, Default)]
pub(super) struct Table {
    marks: HashMap<Bytes, Era, RandomState>,
    /// The lengths that occur among them, ascending.
    lengths: Vec<usize>,
    bytes: usize,
    newest: Option<Era>,
}

/// Prints no key.
impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({} marks)", self.marks.len())
    }
}

impl Table {
    fn add(&mut self, prefix: &[u8], now: Era) {
        if self.marks.insert(Bytes::copy_from_slice(prefix), now).is_none() {
            self.bytes += prefix.len();
        }
        if let Err(at) = self.lengths.binary_search(&prefix.len()) {
            self.lengths.insert(at, prefix.len());
        }
        self.newest = Some(now);
    }

    fn is_full(&self) -> bool {
        self.marks.len() >= MOST_PREFIXES
            || self.lengths.len() >= MOST_LENGTHS
            || self.bytes >= MOST_BYTES
    }

    /// Whether the key was invalidated after that moment.
    pub(super) fn covers(&self, began: Era, key: &[u8]) -> bool {
        if self.newest <= Some(began) {
            return false;
        }
        let prefixes = self.lengths.iter().map_while(|length| key.get(..*length));
        prefixes.filter_map(|prefix| self.marks.get(prefix)).any(|marked| began < *marked)
    }
}
