//! Whether to work on the caller's thread.
//!
//! SQLite cannot tell whether a page is in memory, so what was asked for last decides. As long as fewer
//! than one in 128 operations take long, they are done at once, which spares them a hop between threads
//! that costs several times as much. Otherwise they go to threads, until for long enough nearly all were
//! fast there. A single slow one decides nothing: on a busy machine the thread may just have lost the
//! processor for a while.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A get of what is in memory takes 5 µs, a hop to a thread and back 10 to 30, a read of an SSD from 50.
const SLOW: Duration = Duration::from_micros(150);
/// Fast operations that make up for a slow one.
const COST: u32 = 128;
/// Two slow ones close to each other are too many.
const ENOUGH: u32 = 2 * COST;
/// What has to be made up for at most.
const MOST: u32 = 8192;

/// Fast operations that are still to come to make up for the slow ones.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU32);

impl Pace {
    /// Whether to do the next operation at once. Nothing else hangs on the number, so races between
    /// threads only blur it.
    pub(super) fn is_fast(&self) -> bool {
        self.0.load(Ordering::Relaxed) < ENOUGH
    }

    /// Notes how long an operation took, wherever it was done.
    pub(super) fn took(&self, span: Duration) {
        let owed = self.0.load(Ordering::Relaxed);
        if span > SLOW {
            self.0.store((owed + COST).min(MOST), Ordering::Relaxed);
        } else if owed > 0 {
            self.0.store(owed - 1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(5);
    const DISK: Duration = Duration::from_millis(1);

    /// How many of so many operations are done at once, if one in so many needs the disk.
    fn at_once(pace: &Pace, operations: u32, every: u32) -> u32 {
        let mut count = 0;
        for n in 0..operations {
            count += u32::from(pace.is_fast());
            pace.took(if (n + 1).is_multiple_of(every) { DISK } else { FAST });
        }
        count
    }

    #[test]
    fn what_needs_the_disk_goes_to_threads() {
        for every in [1, 2, 10, 50] {
            let inline = at_once(&Pace::default(), 100_000, every);
            assert!(inline < 300, "{inline} of 100000 at once, when one in {every} is slow");
        }
    }

    #[test]
    fn what_is_in_memory_is_done_at_once_though_some_are_slow() {
        for every in [200, 1000] {
            assert_eq!(at_once(&Pace::default(), 100_000, every), 100_000, "one in {every}");
        }
    }

    #[test]
    fn it_comes_back_once_all_is_in_memory() {
        let pace = Pace::default();
        at_once(&pace, 100_000, 1);
        assert_eq!(at_once(&pace, MOST, u32::MAX), ENOUGH - 1);
        assert!(pace.is_fast());
    }
}
