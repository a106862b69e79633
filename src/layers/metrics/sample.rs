//! Which calls are measured.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use crate::clock::Clock;
use crate::telemetry::SAMPLE;

/// What a thread knows of the calls that it makes, through all boundaries.
struct Calls {
    made: Cell<u32>,
    /// The call that is the next to be measured.
    next: Cell<u32>,
    random: Cell<u64>,
    /// The last call that has to wait, and when it began.
    waiting: Cell<(u32, Duration)>,
}

thread_local!(static CALLS: Calls = const { Calls::new() });

/// Differs for each thread that has begun to draw. A thread that lives for a few calls is as likely to have one of them
/// measured as any other.
static SEEDS: AtomicU64 = AtomicU64::new(0);
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A call that is under way.
pub(super) struct Call {
    number: u32,
    /// Whether its answer counts for those that are not measured.
    pub(super) is_sampled: bool,
    pub(super) start: Option<Duration>,
}

impl Call {
    /// A call begins. `waits` is what the last sampled call of its kind did: where answers have to be waited for, each
    /// call is timed, and else one in [`SAMPLE`] on average.
    #[inline]
    pub(super) fn begin(waits: &AtomicBool, clock: &dyn Clock) -> Self {
        let (number, is_sampled) = CALLS.with(|calls| {
            let number = calls.made.get().wrapping_add(1);
            calls.made.set(number);
            (number, number == calls.next.get() && calls.draw(number))
        });
        let start = (is_sampled || waits.load(Relaxed)).then(|| clock.monotonic());
        Self { number, is_sampled, start }
    }

    /// When the call began that has to wait. Where that was not measured, it is when the call of the store below began,
    /// which this one made, or else now.
    pub(super) fn waits(self, waits: &AtomicBool, clock: &dyn Clock) -> Duration {
        if self.is_sampled && !waits.load(Relaxed) {
            waits.store(true, Relaxed);
        }
        CALLS.with(|calls| {
            let (number, start) = calls.waiting.get();
            // Calls that this one made have higher numbers.
            let is_below = number.wrapping_sub(self.number) as i32 > 0;
            let below = is_below.then_some(start);
            let start = self.start.or(below).unwrap_or_else(|| clock.monotonic());
            calls.waiting.set((self.number, start));
            start
        })
    }

    /// The call was sampled, and its answer was there at once.
    pub(super) fn is_there(&self, waits: &AtomicBool) {
        if waits.load(Relaxed) {
            waits.store(false, Relaxed);
        }
    }
}

impl Calls {
    const fn new() -> Self {
        Self {
            made: Cell::new(0),
            next: Cell::new(1),
            random: Cell::new(0),
            waiting: Cell::new((0, Duration::ZERO)),
        }
    }

    /// Draws the next call to be measured. Tells whether this one is: the first draw of a thread decides about its
    /// first call too.
    ///
    /// Each call is measured with the same probability, whatever came before, so that no pattern of calls
    /// escapes.
    #[cold]
    fn draw(&self, number: u32) -> bool {
        let is_first = self.random.get() == 0;
        if is_first {
            self.random.set(SEEDS.fetch_add(1, Relaxed).wrapping_mul(GOLDEN.rotate_left(32)) | 1);
        }
        let stride = self.stride();
        if is_first && stride > 1 {
            self.next.set(number.wrapping_add(stride - 1));
            return false;
        }
        self.next.set(number.wrapping_add(if is_first { self.stride() } else { stride }));
        true
    }

    /// How many calls until the next that is measured, this one not counted: geometric, with the mean [`SAMPLE`].
    fn stride(&self) -> u32 {
        // SplitMix64.
        let state = self.random.get().wrapping_add(GOLDEN);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Above 0, and at most 1.
        let part = (((mixed ^ (mixed >> 31)) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let others = (part.ln() / (-1.0 / f64::from(SAMPLE)).ln_1p()) as u32;
        others.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn sampled(calls: u32) -> Vec<bool> {
        let (waits, clock) = (AtomicBool::new(false), ManualClock::new());
        (0..calls).map(|_| Call::begin(&waits, &clock).is_sampled).collect()
    }

    /// A thread of its own, with calls of its own.
    fn on_a_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(act).join().unwrap())
    }

    #[test]
    fn one_call_in_61_is_measured() {
        let calls = 610_000;
        let sampled = on_a_thread(|| sampled(calls));
        let count = sampled.iter().filter(|sampled| **sampled).count();
        // Ten standard deviations of 100.
        assert!((9_000..=11_000).contains(&count), "{count}");
    }

    #[test]
    fn no_pattern_of_calls_escapes() {
        // One call in 61, at each place among those that follow.
        let sampled = on_a_thread(|| sampled(610_000));
        for place in 0..61 {
            let count = sampled.iter().skip(place).step_by(61).filter(|sampled| **sampled).count();
            // 164 on average, with a deviation of 13.
            assert!((64..=264).contains(&count), "{count} at {place}");
        }
    }

    #[test]
    fn threads_that_call_once_are_measured_as_often() {
        let count = (0..20_000).filter(|_| Calls::new().draw(1)).count();
        // 328 on average, with a deviation of 18.
        assert!((148..=508).contains(&count), "{count}");
    }
}
