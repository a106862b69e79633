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

use foldhash::fast::RandomState;

use super::era::Era;

/// A sweep looks at every entry, so that the more marks it deals with, the less each of them costs.
const MOST_PREFIXES: usize = 4096;
/// A lookup of something old costs a hash for each length of a prefix.
const MOST_LENGTHS: usize = 64;
const MOST_BYTES: usize = 1 << 20;

/// What is old, and why.
#[derive(Debug)]
pub(super) struct Marks {
    /// What began before it is old.
    horizon: Era,
    /// Loads that began before it are, too.
    loads_from: Era,
    /// The end of the last sweep. Who looked for an entry before it, may have one that the sweep removed.
    swept_at: Era,
    table: Table,
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
        Self {
            horizon: now,
            loads_from: now,
            swept_at: now,
            table: Table::default(),
            sweeping: None,
        }
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
        self.table.add(prefix, now);
        if !self.table.is_full() {
            return Marked::Done;
        }
        if self.sweeping.is_some() {
            // As many marks again before the last sweep has ended.
            self.forget(now);
            return Marked::Everything;
        }
        self.loads_from = now;
        let full = Arc::new(std::mem::take(&mut self.table));
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
#[derive(Default)]
pub(super) struct Table {
    marks: HashMap<Box<[u8]>, Era, RandomState>,
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
        if self.marks.insert(prefix.into(), now).is_none() {
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

#[cfg(test)]
mod tests {
    use super::super::era::{Eras, Mode};
    use super::*;

    #[test]
    fn what_began_before_a_mark_is_old_where_its_key_matches() {
        let eras = Eras::new(Mode::Keeping);
        let looked = |began, key: &str| eras.serve(eras.now(), began, key.as_bytes());
        let began = eras.now();
        for (prefix, keys) in [("user:", ["user:", "user:1"]), ("b", ["b", "bcd"])] {
            assert!(matches!(eras.mark(prefix.as_bytes()), Marked::Done));
            for key in keys {
                assert!(!looked(began, key) && !eras.accept(began, key.as_bytes()), "{key}");
                assert!(looked(eras.now(), key) && eras.accept(eras.now(), key.as_bytes()));
            }
        }
        for key in ["user", "use", "a", "a user:", "\0"] {
            assert!(looked(began, key) && eras.accept(began, key.as_bytes()), "{key}");
        }
        // Between the two.
        let eras = Eras::new(Mode::Keeping);
        eras.mark(b"a");
        let between = eras.now();
        eras.mark(b"b");
        assert!(eras.accept(between, b"a1") && !eras.accept(between, b"b1"));
        eras.mark(b"a");
        assert!(!eras.accept(between, b"a1"), "the newest of a prefix counts");
        assert!(matches!(eras.mark(b""), Marked::Everything));
        assert!(!eras.accept(between, b"c"));
    }

    #[test]
    fn the_table_is_bounded_in_prefixes_lengths_and_bytes() {
        let numbered = |n: usize| n.to_be_bytes().to_vec();
        let long = |n: usize| [vec![b'l'; 32 << 10], numbered(n)].concat();
        let longer = |n: usize| vec![b'l'; n + 1];
        type Prefix<'a> = &'a dyn Fn(usize) -> Vec<u8>;
        let cases: [(Prefix<'_>, usize); 3] = [(&numbered, 4096), (&longer, 64), (&long, 32)];
        for (prefix, most) in cases {
            let eras = Eras::new(Mode::Keeping);
            let began = eras.now();
            let again = (0..most - 1).chain(0..most - 1);
            assert!(again.clone().all(|n| matches!(eras.mark(&prefix(n)), Marked::Done)));
            assert!(eras.accept(began, b"other"));
            let looked = eras.now();
            let Marked::Full(full) = eras.mark(&prefix(most)) else { panic!("{most}") };
            // Until the sweep has ended they count.
            assert!(!eras.serve(eras.now(), began, &prefix(3)) && full.covers(began, &prefix(3)));
            assert!(eras.serve(eras.now(), began, b"other"), "an entry");
            assert!(!eras.accept(began, b"other"), "a load");
            eras.swept(&full);
            assert!(eras.serve(eras.now(), began, &prefix(3)), "it is known to be gone");
            assert!(!eras.serve(looked, began, &prefix(3)), "he may have seen it before");
            assert!(!eras.accept(began, b"other"), "a load");
            assert!(eras.accept(eras.now(), &prefix(3)));
        }
    }

    #[test]
    fn as_many_marks_during_a_sweep_forget_everything() {
        let eras = Eras::new(Mode::Keeping);
        let mark = |n: usize| eras.mark(&n.to_be_bytes());
        let full = (0..4096).map(mark).last();
        let Some(Marked::Full(full)) = full else { panic!("{full:?}") };
        let began = eras.now();
        assert!(matches!((0..4096).map(mark).last(), Some(Marked::Everything)));
        eras.swept(&full);
        assert!(!eras.serve(eras.now(), began, b"other") && !eras.accept(began, b"other"));
    }
}
