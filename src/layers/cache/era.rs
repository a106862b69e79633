//! Eras: what makes all that is kept old at once, and whether anything may be kept at all.

use std::sync::atomic::{AtomicU64, Ordering};

/// A stretch of time without an event that concerns every key. An entry is served in the era in which
/// its load began, and in no other: so a new era forgets everything, whatever the engine still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    const fn new(number: u64, mode: Mode) -> Self {
        Self(number << Self::BITS | mode as u64)
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
pub(super) struct Eras(AtomicU64);

impl Eras {
    pub(super) const fn new(mode: Mode) -> Self {
        Self(AtomicU64::new(Era::new(0, mode).0))
    }

    pub(super) fn now(&self) -> Era {
        Era(self.0.load(Ordering::Acquire))
    }

    /// Begins an era of that mode.
    pub(super) fn begin(&self, mode: Mode) {
        self.follow(Some(mode));
    }

    /// Begins an era of the same mode.
    pub(super) fn renew(&self) {
        self.follow(None);
    }

    fn follow(&self, mode: Option<Mode>) {
        // The closure always gives a successor.
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| Some(Era(now).next(mode).0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_era_differs_from_all_before_it_and_nothing_follows_the_closed_one() {
        let eras = Eras::new(Mode::Deaf);
        let mut seen = vec![eras.now()];
        for mode in [Some(Mode::Keeping), None, Some(Mode::Keeping), Some(Mode::Deaf), None] {
            eras.follow(mode);
            let now = eras.now();
            assert!(!seen.contains(&now));
            let keeps = mode.map_or(seen[seen.len() - 1].keeps(), |mode| mode == Mode::Keeping);
            assert_eq!(now.keeps(), keeps);
            seen.push(now);
        }
        eras.begin(Mode::Closed);
        let closed = eras.now();
        eras.begin(Mode::Keeping);
        eras.renew();
        assert_eq!(eras.now(), closed);
        assert!(!closed.keeps());
    }
}
