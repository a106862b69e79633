//! The thread that collects what other threads have counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

/// Lines for each processor: there are more threads than processors, and those that come later than all others share
/// one.
const LINES_PER_PROCESSOR: usize = 4;
/// The longest time until what was counted is handed on.
const PERIOD: Duration = Duration::from_secs(1);
/// Periods until durations are handed on.
const DURATIONS: u32 = 10;

/// How many threads have a line of their own.
pub(super) fn lines() -> usize {
    let processors = thread::available_parallelism().map_or(1, |processors| processors.get());
    processors.max(4) * LINES_PER_PROCESSOR
}

pub(super) trait Gather: Send + Sync {
    /// Collects what was counted since the last time.
    fn gather(&self);

    /// Collects how long things took.
    fn gather_durations(&self);
}

/// Collects what threads have counted where it is in use.
pub(super) struct Gatherer {
    counting: Mutex<Vec<Weak<dyn Gather>>>,
    thread: OnceLock<Option<Thread>>,
}

pub(super) static GATHERER: Gatherer =
    Gatherer { counting: Mutex::new(Vec::new()), thread: OnceLock::new() };

impl Gatherer {
    /// Collects what is counted there, from now on. Tells whether there is a thread to do so.
    pub(super) fn attend(&'static self, counting: Weak<dyn Gather>) -> bool {
        let started = self.thread.get_or_init(|| {
            let thread = thread::Builder::new().name("tierstack-counts".into());
            thread.spawn(|| self.run()).ok().map(|handle| handle.thread().clone())
        });
        let Some(thread) = started else { return false };
        self.counting.lock().push(counting);
        thread.unpark();
        true
    }

    fn run(&self) {
        let mut periods = 0_u32;
        loop {
            if self.each(|counting| counting.gather()) {
                thread::park_timeout(PERIOD);
            } else {
                thread::park();
            }
            periods = periods.wrapping_add(1);
            if periods.is_multiple_of(DURATIONS) {
                self.each(|counting| counting.gather_durations());
            }
        }
    }

    /// Tells whether there are any.
    pub(super) fn each(&self, act: impl Fn(&dyn Gather)) -> bool {
        let mut living = Vec::new();
        self.counting.lock().retain(|counting| {
            let counting = counting.upgrade();
            living.extend(counting.clone());
            counting.is_some()
        });
        let any = !living.is_empty();
        // Without the lock: a recorder is somebody else's code, and may panic.
        for counting in living {
            // This may be the last reference, and dropping it collects as well.
            let _ = catch_unwind(AssertUnwindSafe(|| act(&*counting)));
            let _ = catch_unwind(AssertUnwindSafe(move || drop::<Arc<_>>(counting)));
        }
        any
    }
}

/// Collects at once what threads have counted. By itself it happens within a second; this is for a program that
/// reads the counters of its own recorder, such as a test. What other threads count meanwhile may be left out.
/// [`snapshot`](super::snapshot) needs no such call.
pub fn gather() {
    GATHERER.each(|counting| counting.gather());
}
