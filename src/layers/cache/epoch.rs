//! The epoch of a cache: what makes all that is kept old at once, and whether anything may be kept at all.

use std::sync::Arc;

use super::prefix_invalidation::{Invalidated, PrefixInvalidations, PrefixTable};
use super::sync::{AtomicU64, Mutex, Ordering, Published};

/// A stretch of time without an event that concerns more than single keys. An entry is served in the epoch in
/// which its load began, and in later ones where nothing between them concerns its key ([`PrefixInvalidations`]): so
/// such an event forgets what it is about, whatever the engine still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch(u64);

/// What an epoch is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Answers are kept.
    Keeping,
    /// Nothing is kept: others may change it, and nobody would tell.
    Disconnected,
    /// Nothing is kept any more.
    Closed,
}

impl Epoch {
    /// The mode is in the lowest bits, the number of the epoch in the others.
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

    /// Whether what is loaded in this epoch may be kept.
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
            None => Mode::Disconnected,
        };
        Self::new((self.0 >> Self::BITS) + 1, mode)
    }
}

/// The present epoch. Reading it is one load.
#[derive(Debug)]
pub(super) struct Epochs {
    /// Changed under the lock only, and after the prefixes: a reader that sees an epoch finds there what began it.
    now: AtomicU64,
    /// Read without the lock: hits on what is older than the newest prefix invalidation look there.
    prefixes: Published<PrefixInvalidations>,
    changing: Mutex<()>,
}

impl Epochs {
    pub(super) fn new(mode: Mode) -> Self {
        let now = Epoch::new(0, mode);
        let prefixes = Published::new(PrefixInvalidations::new(now));
        Self { now: AtomicU64::new(now.0), prefixes, changing: Mutex::default() }
    }

    pub(super) fn now(&self) -> Epoch {
        Epoch(self.now.load(Ordering::Acquire))
    }

    /// Begins an epoch of that mode.
    pub(super) fn begin(&self, mode: Mode) {
        self.follow(Some(mode), PrefixInvalidations::forget);
    }

    /// Begins an epoch of the same mode, which forgets everything.
    pub(super) fn renew(&self) {
        self.follow(None, PrefixInvalidations::forget);
    }

    /// Begins an epoch of the same mode, which forgets the keys of a prefix.
    pub(super) fn invalidate_prefix(&self, prefix: &[u8]) -> Invalidated {
        self.follow(None, |prefixes, now| prefixes.add(prefix, now))
    }

    /// The entries that these prefixes match were removed.
    pub(super) fn swept(&self, full: &Arc<PrefixTable>) {
        self.follow(None, |prefixes, now| prefixes.swept(full, now));
    }

    /// Whether an entry may be served whose load began then. `looked`: the epoch as it was before the entry
    /// was looked for.
    #[inline]
    pub(super) fn serve(&self, looked: Epoch, began: Epoch, key: &[u8]) -> bool {
        looked == began || self.serve_old(looked, began, key)
    }

    #[inline(never)]
    fn serve_old(&self, looked: Epoch, began: Epoch, key: &[u8]) -> bool {
        self.prefixes.get().serve(looked, began, key)
    }

    /// Whether a load that began then may be kept, and joined.
    pub(super) fn accept(&self, began: Epoch, key: &[u8]) -> bool {
        began == self.now() || self.prefixes.get().accept(began, key)
    }

    fn follow<T>(
        &self,
        mode: Option<Mode>,
        change: impl FnOnce(&mut PrefixInvalidations, Epoch) -> T,
    ) -> T {
        let _changing = self.changing.lock();
        let mut prefixes = PrefixInvalidations::clone(&self.prefixes.get());
        let next = self.now().next(mode);
        let changed = change(&mut prefixes, next);
        self.prefixes.publish(prefixes);
        self.now.store(next.0, Ordering::Release);
        changed
    }
}
