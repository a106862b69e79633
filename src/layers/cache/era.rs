//! Eras: what makes all that is kept old at once, and whether anything may be kept at all.

use std::sync::Arc;

use super::marks::{Marked, Marks, Table};
use super::sync::{AtomicU64, Mutex, Ordering, Published};

/// A stretch of time without an event that concerns more than single keys. An entry is served in the era in
/// which its load began, and in later ones where nothing between them concerns its key ([`Marks`] tell): so
/// such an event forgets what it is about, whatever the engine still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Era(u64);

/// What an era is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Answers are kept.
    Keeping,
    /// Nothing is kept: others may change it, and nobody would tell.
    Deaf,
    /// Nothing is kept any more.
    Closed,
}

impl Era {
    /// The mode is in the lowest bits, the number of the era in the others.
    const BITS: u32 = 2;

    /// Of a cache over a store that announces nothing.
    pub(super) const FIRST: Self = Self::new(0, Mode::Keeping);

    /// As a number that can be kept elsewhere.
    pub(super) const fn number(self) -> u64 {
        self.0
    }

    pub(super) const fn of_number(number: u64) -> Self {
        Self(number)
    }

    const fn new(number: u64, mode: Mode) -> Self {
        Self(number << Self::BITS | mode as u64)
    }

    pub(super) const fn is_closed(self) -> bool {
        self.is(Mode::Closed)
    }

    const fn is(self, mode: Mode) -> bool {
        self.0 & ((1 << Self::BITS) - 1) == mode as u64
    }

    /// Whether what is loaded in this era may be kept.
    pub(super) const fn keeps(self) -> bool {
        self.is(Mode::Keeping)
    }

    /// The one that follows. Nothing follows the closed one.
    const fn next(self, mode: Option<Mode>) -> Self {
        if self.is(Mode::Closed) {
            return self;
        }
        let mode = match mode {
            Some(mode) => mode,
            None if self.keeps() => Mode::Keeping,
            None => Mode::Deaf,
        };
        Self::new((self.0 >> Self::BITS) + 1, mode)
    }
}

/// The present era. Reading it is one load.
#[derive(Debug)]
pub(super) struct Eras {
    /// Changed under the lock only, and behind the marks: who sees an era finds there what began it.
    now: AtomicU64,
    /// Read without the lock: hits on what is older than the newest mark look there.
    marks: Published<Marks>,
    changing: Mutex<()>,
}

impl Eras {
    pub(super) fn new(mode: Mode) -> Self {
        let now = Era::new(0, mode);
        let marks = Published::new(Marks::new(now));
        Self { now: AtomicU64::new(now.0), marks, changing: Mutex::default() }
    }

    pub(super) fn now(&self) -> Era {
        Era(self.now.load(Ordering::Acquire))
    }

    /// Begins an era of that mode.
    pub(super) fn begin(&self, mode: Mode) {
        self.follow(Some(mode), Marks::forget);
    }

    /// Begins an era of the same mode, which forgets everything.
    pub(super) fn renew(&self) {
        self.follow(None, Marks::forget);
    }

    /// Begins an era of the same mode, which forgets the keys of a prefix.
    pub(super) fn mark(&self, prefix: &[u8]) -> Marked {
        self.follow(None, |marks, now| marks.add(prefix, now))
    }

    /// The entries that these marks match were removed.
    pub(super) fn swept(&self, full: &Arc<Table>) {
        self.follow(None, |marks, now| marks.swept(full, now));
    }

    /// Whether an entry may be served whose load began then. `looked`: the era as it was before the entry
    /// was looked for.
    #[inline]
    pub(super) fn serve(&self, looked: Era, began: Era, key: &[u8]) -> bool {
        looked == began || self.serve_old(looked, began, key)
    }

    #[inline(never)]
    fn serve_old(&self, looked: Era, began: Era, key: &[u8]) -> bool {
        self.marks.get().serve(looked, began, key)
    }

    /// Whether a load that began then may be kept, and joined.
    pub(super) fn accept(&self, began: Era, key: &[u8]) -> bool {
        began == self.now() || self.marks.get().accept(began, key)
    }

    fn follow<T>(&self, mode: Option<Mode>, change: impl FnOnce(&mut Marks, Era) -> T) -> T {
        let _changing = self.changing.lock();
        let mut marks = Marks::clone(&self.marks.get());
        let next = self.now().next(mode);
        let changed = change(&mut marks, next);
        self.marks.publish(marks);
        self.now.store(next.0, Ordering::Release);
        changed
    }
}
