//! The time of the level: of the wall clock when a folder is used first, and from then on steady.
//!
//! A deadline must survive a restart, so it cannot be measured by a clock that begins with the machine; and it must
//! not move when the wall clock is set, so it cannot be measured by that one either. While the level is open its time
//! goes on with the steady clock. From a close to the next open it goes on by as much as the wall clock did, and
//! where that went back, what was kept is given up.

use super::super::policy::CoarseTime;
use crate::clock::{Clock, Timestamp};

/// A moment on the timeline, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(pub(super) u64);

impl Tick {
    const NEVER: Self = Self(u64::MAX);
}

/// What the two clocks showed at a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stood {
    pub(super) tick: Tick,
    pub(super) wall: Timestamp,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    base: u64,
    /// Where the coarse clock was then.
    origin: CoarseTime,
}

impl Timeline {
    pub(super) fn new(clock: &dyn Clock) -> Self {
        Self { base: clock.now().as_millis(), origin: CoarseTime::now(clock) }
    }

    /// Goes on from a close. `None`: the wall clock went back.
    pub(super) fn resume(stood: Stood, clock: &dyn Clock) -> Option<Self> {
        let gone = clock.now().as_millis().checked_sub(stood.wall.as_millis())?;
        // Both clocks were rounded down.
        let base = stood.tick.0.checked_add(gone)?.checked_add(1)?;
        Some(Self { base, origin: CoarseTime::now(clock) })
    }

    pub(super) fn stands(&self, clock: &dyn Clock) -> Stood {
        Stood { tick: self.tick(CoarseTime::now(clock)), wall: clock.now() }
    }

    pub(super) fn tick(&self, time: CoarseTime) -> Tick {
        if time == CoarseTime::NEVER {
            return Tick::NEVER;
        }
        Tick(self.base.saturating_add(time.0.saturating_sub(self.origin.0)))
    }

    /// One from before this opening is the moment of the opening.
    pub(super) fn time(&self, tick: Tick) -> CoarseTime {
        if tick == Tick::NEVER {
            return CoarseTime::NEVER;
        }
        CoarseTime(self.origin.0.saturating_add(tick.0.saturating_sub(self.base)))
    }
}
