//! Whether a read of the disk may hold the thread of its caller.
//!
//! The system has most blocks of most databases in memory and gives one in a few microseconds; a hop to a thread
//! and back costs ten times as much. So reads stay on the caller's thread for as long as they are faster than the hop.
//! One slow read ends that: whether it was made here or in a thread, reads go to threads for twenty times as long as
//! it took. A runtime thread then waits for slow reads for a twentieth of its time at most. After that a read in a
//! thread is the probe, so that no caller waits to learn that the disk is still slow.
//!
//! A disk may stop answering at all. Some threads are never held, so that it cannot stop all of a runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use crate::clock::Clock;

/// A read that takes longer is slow: what the hop to a thread costs.
const HOP: Duration = Duration::from_micros(50);
/// For how many times as long reads go to threads.
const BACK_OFF: u32 = 20;
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

pub(super) struct Pace {
    clock: Arc<dyn Clock>,
    /// How many callers may be held at a time.
    most: usize,
    held: AtomicUsize,
    /// Whether the last reads were fast. False until a read in a thread was.
    fast: AtomicBool,
    /// Until when a fast read proves nothing, in nanoseconds of the clock.
    threads_until: AtomicU64,
}

impl Pace {
    /// All threads of the machine but one may be held, and at least one; without `inline`, none.
    pub(super) fn new(clock: Arc<dyn Clock>, inline: bool) -> Self {
        let threads = available_parallelism().map_or(1, |threads| threads.get());
        Self {
            clock,
            most: if inline { threads.saturating_sub(1).max(1) } else { 0 },
            held: AtomicUsize::new(0),
            fast: AtomicBool::new(false),
            threads_until: AtomicU64::new(0),
        }
    }

    /// Leave to read on the caller's thread. The read ends when it is dropped.
    pub(super) fn hold(&self) -> Option<Held<'_>> {
        if !self.fast.load(Ordering::Relaxed) {
            return None;
        }
        if self.held.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Held { pace: self, began: self.clock.monotonic() })
    }

    /// Does that many reads in a thread, which shows how fast the disk is.
    pub(super) fn probe<T>(&self, reads: usize, read: impl FnOnce() -> T) -> T {
        let began = self.clock.monotonic();
        let found = read();
        self.learn(began, reads);
        found
    }

    fn learn(&self, began: Duration, reads: usize) {
        let now = self.clock.monotonic();
        let took = now.saturating_sub(began) / u32::try_from(reads.max(1)).unwrap_or(u32::MAX);
        if took > HOP {
            let until = now.saturating_add(took.saturating_mul(BACK_OFF).min(LONGEST_BACK_OFF));
            self.threads_until.fetch_max(nanos(until), Ordering::Relaxed);
            self.fast.store(false, Ordering::Relaxed);
        } else if !self.fast.load(Ordering::Relaxed)
            && nanos(now) >= self.threads_until.load(Ordering::Relaxed)
        {
            self.fast.store(true, Ordering::Relaxed);
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Leave to read on the caller's thread.
pub(super) struct Held<'a> {
    pace: &'a Pace,
    began: Duration,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.pace.held.fetch_sub(1, Ordering::Relaxed);
        self.pace.learn(self.began, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn pace(most: usize) -> (Pace, ManualClock) {
        let clock = ManualClock::new();
        (Pace { most, ..Pace::new(Arc::new(clock.clone()), true) }, clock)
    }

    const SLOW: Duration = Duration::from_millis(1);

    #[test]
    fn no_caller_is_held_before_a_thread_has_seen_a_fast_read() {
        let (pace, clock) = pace(1);
        assert!(pace.hold().is_none());
        pace.probe(1, || clock.advance(SLOW));
        assert!(pace.hold().is_none());
        clock.advance(SLOW * BACK_OFF);
        assert!(pace.hold().is_none(), "nobody knows whether the disk is still slow");
        pace.probe(1, || ());
        assert!(pace.hold().is_some());
    }

    #[test]
    fn one_slow_read_sends_reads_to_threads_for_twenty_times_as_long() {
        for on_the_callers_thread in [true, false] {
            let (pace, clock) = pace(1);
            pace.probe(1, || clock.advance(HOP));
            if on_the_callers_thread {
                let held = pace.hold();
                clock.advance(SLOW);
                drop(held.unwrap());
            } else {
                pace.probe(1, || clock.advance(SLOW));
            }
            assert!(pace.hold().is_none());
            clock.advance(SLOW * BACK_OFF - Duration::from_nanos(1));
            pace.probe(1, || ());
            assert!(pace.hold().is_none(), "one fast read among slow ones proves nothing");
            clock.advance(Duration::from_nanos(1));
            pace.probe(1, || ());
            assert!(pace.hold().is_some());
        }
    }

    #[test]
    fn a_read_that_ends_late_does_not_hide_a_slow_one() {
        let (pace, clock) = pace(2);
        pace.probe(1, || ());
        let (first, second) = (pace.hold().unwrap(), pace.hold().unwrap());
        clock.advance(SLOW);
        drop(first);
        let fast = Held { began: clock.monotonic(), pace: second.pace };
        std::mem::forget(second);
        drop(fast);
        assert!(pace.hold().is_none());
    }

    #[test]
    fn a_disk_that_hangs_holds_no_more_callers_than_may_be_held() {
        let (pace, clock) = pace(2);
        pace.probe(1, || ());
        let hanging = [pace.hold().unwrap(), pace.hold().unwrap()];
        assert!(pace.hold().is_none());
        clock.advance(Duration::from_secs(3600));
        assert!(pace.hold().is_none());
        drop(hanging);
        clock.advance(LONGEST_BACK_OFF);
        pace.probe(1, || ());
        assert!(pace.hold().is_some());
    }

    #[test]
    fn a_probe_of_many_reads_is_judged_by_one_of_them() {
        let (pace, clock) = pace(1);
        pace.probe(100, || clock.advance(HOP * 100));
        assert!(pace.hold().is_some());
        pace.probe(100, || clock.advance(HOP * 101));
        assert!(pace.hold().is_none());
    }

    #[test]
    fn without_inline_reads_nobody_is_held() {
        let pace = Pace::new(Arc::new(ManualClock::new()), false);
        pace.probe(1, || ());
        assert!(pace.hold().is_none());
    }
}
