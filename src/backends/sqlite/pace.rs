//! Whether to work on the caller's thread.
//!
//! SQLite cannot tell whether a page is in memory, so what was asked for last decides: as long as
//! operations take a few microseconds they are done at once, which spares them a hop between threads
//! that costs several times as much. One that took long sends those after it to threads, until enough
//! in a row were fast there; each time it happens, that run gets longer. So of a database that lies on a
//! slow disk, one operation in some thousands waits for the disk on the caller's thread.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A get of what is in memory takes 5 µs, a hop to a thread and back 10 to 30, a read of an SSD from 50.
const SLOW: Duration = Duration::from_micros(150);
const SHORTEST: u32 = 8;
const LONGEST: u32 = 8192;

#[derive(Debug)]
pub(super) struct Pace {
    /// Fast operations that are still to be seen.
    waits: AtomicU32,
    /// How many are to be seen after the next slow one.
    patience: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { waits: AtomicU32::new(0), patience: AtomicU32::new(SHORTEST) }
    }
}

impl Pace {
    /// Whether to do the next operation at once. Nothing else hangs on the numbers, so races between
    /// threads only blur them.
    pub(super) fn is_fast(&self) -> bool {
        self.waits.load(Ordering::Relaxed) == 0
    }

    /// Notes how long an operation took, wherever it was done.
    pub(super) fn took(&self, span: Duration) {
        let (waits, patience) = next(
            self.waits.load(Ordering::Relaxed),
            self.patience.load(Ordering::Relaxed),
            span > SLOW,
        );
        self.waits.store(waits, Ordering::Relaxed);
        self.patience.store(patience, Ordering::Relaxed);
    }
}

fn next(waits: u32, patience: u32, slow: bool) -> (u32, u32) {
    match (waits, slow) {
        (_, true) => (patience, (patience * 2).min(LONGEST)),
        (0, false) => (0, patience),
        (1, false) => (0, (patience / 2).max(SHORTEST)),
        (_, false) => (waits - 1, patience),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_operations_send_more_and_more_to_threads() {
        let pace = Pace::default();
        let mut inline = 0;
        for _ in 0..100_000 {
            if pace.is_fast() {
                inline += 1;
            }
            pace.took(Duration::from_millis(1));
        }
        assert_eq!(inline, 1, "none was ever fast again");
        let mut waited = 0;
        while !pace.is_fast() {
            pace.took(Duration::from_micros(5));
            waited += 1;
        }
        assert_eq!(waited, LONGEST);
    }

    #[test]
    fn fast_operations_stay_and_one_slow_one_costs_little() {
        let pace = Pace::default();
        for _ in 0..10 {
            pace.took(Duration::from_micros(5));
            assert!(pace.is_fast());
        }
        for _ in 0..100 {
            pace.took(Duration::from_millis(1));
            for _ in 0..SHORTEST {
                assert!(!pace.is_fast());
                pace.took(Duration::from_micros(5));
            }
            assert!(pace.is_fast(), "patience does not grow by slow ones that are rare");
        }
    }
}
