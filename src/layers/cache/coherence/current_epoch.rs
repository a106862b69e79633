//! The present epoch of a cache, and what each event that began one has made old.

use std::sync::Arc;

use super::epoch::{Epoch, Mode};
use super::prefix_invalidation::{Invalidated, PrefixInvalidations, PrefixTable};
use super::sync::{AtomicU64, Mutex, Ordering, Published};

/// The present epoch. Reading it is one load.
#[derive(Debug)]
pub(in crate::layers::cache) struct Epochs {
    /// Changed under the lock only, and after the prefixes: a reader that sees an epoch finds there what began it.
    now: AtomicU64,
    /// Read without the lock: hits on what is older than the newest prefix invalidation look there.
    prefixes: Published<PrefixInvalidations>,
    changing: Mutex<()>,
}

impl Epochs {
    pub(in crate::layers::cache) fn new(mode: Mode) -> Self {
        let now = Epoch::new(0, mode);
        let prefixes = Published::new(PrefixInvalidations::new(now));
        Self { now: AtomicU64::new(now.number()), prefixes, changing: Mutex::default() }
    }

    pub(in crate::layers::cache) fn now(&self) -> Epoch {
        Epoch::of_number(self.now.load(Ordering::Acquire))
    }

    /// Begins an epoch of that mode.
    pub(in crate::layers::cache) fn begin(&self, mode: Mode) {
        self.follow(Some(mode), PrefixInvalidations::forget);
    }

    /// Begins an epoch of the same mode, which forgets everything.
    pub(in crate::layers::cache) fn renew(&self) {
        self.follow(None, PrefixInvalidations::forget);
    }

    /// Begins an epoch of the same mode, which forgets the keys of a prefix.
    pub(in crate::layers::cache) fn invalidate_prefix(&self, prefix: &[u8]) -> Invalidated {
        self.follow(None, |prefixes, now| prefixes.add(prefix, now))
    }

    /// The entries that these prefixes match were removed.
    pub(in crate::layers::cache) fn swept(&self, full: &Arc<PrefixTable>) {
        self.follow(None, |prefixes, now| prefixes.swept(full, now));
    }

    /// Whether an entry may be served whose load began then. `looked`: the epoch as it was before the entry
    /// was looked for.
    #[inline]
    pub(in crate::layers::cache) fn serve(&self, looked: Epoch, began: Epoch, key: &[u8]) -> bool {
        looked == began || self.serve_old(looked, began, key)
    }

    #[inline(never)]
    fn serve_old(&self, looked: Epoch, began: Epoch, key: &[u8]) -> bool {
        self.prefixes.get().serve(looked, began, key)
    }

    /// Whether a load that began then may be kept, and joined.
    pub(in crate::layers::cache) fn accept(&self, began: Epoch, key: &[u8]) -> bool {
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
        self.now.store(next.number(), Ordering::Release);
        changed
    }
}
