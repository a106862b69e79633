//! The epoch: a number that tells what is old because of an event that concerns more than single keys, and whether
//! anything may be kept at all.

/// A stretch of time without an event that concerns more than single keys. An entry is served in the epoch in
/// which its load began, and in later ones where nothing between them concerns its key (`prefix_invalidation`): so
/// such an event forgets what it is about, whatever the engine still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::layers::cache) struct Epoch(u64);

/// What an epoch is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers::cache) enum Mode {
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

    /// Of a cache over a store that reports nothing.
    pub(in crate::layers::cache) const FIRST: Self = Self::new(0, Mode::Keeping);

    /// As a number that can be kept elsewhere.
    pub(in crate::layers::cache) const fn number(self) -> u64 {
        self.0
    }

    pub(in crate::layers::cache) const fn of_number(number: u64) -> Self {
        Self(number)
    }

    pub(in crate::layers::cache) const fn new(number: u64, mode: Mode) -> Self {
        Self(number << Self::BITS | mode as u64)
    }

    pub(in crate::layers::cache) const fn is_closed(self) -> bool {
        self.is(Mode::Closed)
    }

    const fn is(self, mode: Mode) -> bool {
        self.0 & ((1 << Self::BITS) - 1) == mode as u64
    }

    /// Whether what is loaded in this epoch may be kept.
    pub(in crate::layers::cache) const fn keeps(self) -> bool {
        self.is(Mode::Keeping)
    }

    /// The one that follows. Nothing follows the closed one.
    pub(in crate::layers::cache) const fn next(self, mode: Option<Mode>) -> Self {
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
