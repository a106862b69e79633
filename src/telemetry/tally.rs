//! Counts of what happens millions of times a second, on several threads.
//!
//! Threads that add to one number wait for each other: two threads that do nothing but hits took four times
//! as long for each where they shared three counters. A [`Tally`] that only one thread adds to goes straight to its
//! counters. From the second thread on each adds to a line of its own, whose sums are handed on every
//! [`BATCH`] events, and every second by a thread that sleeps while nothing is counted. Nothing is lost; what
//! is not handed on yet is by [`gather`].

use std::array;
use std::cell::Cell;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use metrics::Counter;
use parking_lot::Mutex;

/// Threads whose numbers differ by a multiple of this share a line.
const LINES: usize = 16;
/// Events of a line until its sums are handed on.
const BATCH: u64 = 64;
/// The longest time until they are.
const PERIOD: Duration = Duration::from_secs(1);

/// A number of this thread, from 1, unlike that of any other.
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(0) });
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Relaxed));
        }
        number.get()
    })
}

/// Which threads do something: none yet, one and which, or several.
#[derive(Debug, Default)]
pub(crate) struct Crowd(AtomicUsize);

impl Crowd {
    const SEVERAL: usize = usize::MAX;

    /// Whether others than that thread were here before.
    pub(crate) fn is_shared(&self, me: usize) -> bool {
        match self.0.load(Relaxed) {
            only if only == me => false,
            Self::SEVERAL => true,
            _ => self.enter(me),
        }
    }

    /// As if several were here.
    #[cfg(all(test, feature = "cache"))]
    pub(crate) fn several() -> Self {
        Self(AtomicUsize::new(Self::SEVERAL))
    }

    #[cold]
    fn enter(&self, me: usize) -> bool {
        match self.0.compare_exchange(0, me, Relaxed, Relaxed) {
            Ok(_) => false,
            Err(only) if only == me => false,
            Err(_) => {
                self.0.store(Self::SEVERAL, Relaxed);
                true
            }
        }
    }
}

/// Counters that are added to together. The first one counts events.
pub(crate) struct Tally<const N: usize>(Arc<Sums<N>>);

struct Sums<const N: usize> {
    counters: [Counter; N],
    /// Held from taking the sums of a line until they are handed on, so that who looks next finds them there.
    handing: Mutex<()>,
    crowd: Crowd,
    lines: OnceLock<[Line<N>; LINES]>,
}

/// On a cache line that no other thread writes to.
#[repr(align(128))]
struct Line<const N: usize>([AtomicU64; N]);

impl<const N: usize> std::fmt::Debug for Tally<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").finish_non_exhaustive()
    }
}

impl<const N: usize> Tally<N> {
    pub(crate) fn new(counters: [Counter; N]) -> Self {
        Self(Arc::new(Sums {
            counters,
            handing: Mutex::default(),
            crowd: Crowd::default(),
            lines: OnceLock::new(),
        }))
    }

    /// Adds to each counter. The first amount is of events; without one nothing is counted.
    pub(crate) fn add(&self, amounts: [u64; N]) {
        if amounts.first() == Some(&0) {
            return;
        }
        let (me, sums) = (thread_number(), &*self.0);
        if sums.crowd.is_shared(me) {
            self.add_to_line(me, amounts);
        } else {
            sums.hand_on(amounts);
        }
    }

    fn add_to_line(&self, me: usize, amounts: [u64; N]) {
        let lines = self.0.lines.get_or_init(|| {
            let sums: Weak<Sums<N>> = Arc::downgrade(&self.0);
            GATHERER.tallies.lock().push(sums);
            array::from_fn(|_| Line(array::from_fn(|_| AtomicU64::new(0))))
        });
        #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of lines")]
        let line = &lines[me % LINES];
        let mut before = 0;
        // Backwards, so that whoever sees the event sees all of it.
        for (at, (sum, amount)) in line.0.iter().zip(amounts).enumerate().rev() {
            let was = sum.fetch_add(amount, SeqCst);
            if at == 0 {
                before = was;
            }
        }
        if before == 0 {
            GATHERER.wake();
        }
        if before / BATCH != (before + amounts.first().copied().unwrap_or(0)) / BATCH {
            self.0.empty(line);
        }
    }
}

impl<const N: usize> Sums<N> {
    fn hand_on(&self, amounts: [u64; N]) {
        for (counter, amount) in self.counters.iter().zip(amounts) {
            counter.increment(amount);
        }
    }

    fn empty(&self, line: &Line<N>) -> bool {
        let _handing = self.handing.lock();
        let amounts: [u64; N] = line.0.each_ref().map(|sum| sum.swap(0, SeqCst));
        let found = amounts.iter().any(|amount| *amount > 0);
        if found {
            self.hand_on(amounts);
        }
        found
    }
}

trait Gather: Send + Sync {
    /// Hands on what is in the lines. Says whether there was anything.
    fn gather(&self) -> bool;
}

impl<const N: usize> Gather for Sums<N> {
    fn gather(&self) -> bool {
        let lines = self.lines.get().into_iter().flatten();
        lines.fold(false, |found, line| self.empty(line) | found)
    }
}

impl<const N: usize> Drop for Sums<N> {
    fn drop(&mut self) {
        self.gather();
    }
}

/// Whoever hands on what stays in the lines of a thread that has nothing more to count.
struct Gatherer {
    tallies: Mutex<Vec<Weak<dyn Gather>>>,
    /// Whether it looks again after the period.
    awake: AtomicBool,
    thread: OnceLock<Option<Thread>>,
}

static GATHERER: Gatherer = Gatherer {
    tallies: Mutex::new(Vec::new()),
    awake: AtomicBool::new(false),
    thread: OnceLock::new(),
};

impl Gatherer {
    /// Called by whoever has made an empty line one that is not.
    fn wake(&'static self) {
        // In one order with what `run` does: either this sees that it sleeps, or it sees the line.
        if self.awake.load(SeqCst) || self.awake.swap(true, SeqCst) {
            return;
        }
        let started = self.thread.get_or_init(|| {
            let thread = thread::Builder::new().name("tierstack-counts".into());
            thread.spawn(|| self.run()).ok().map(|handle| handle.thread().clone())
        });
        // Without a thread whole batches are handed on, and the rest at the end.
        if let Some(thread) = started {
            thread.unpark();
        }
    }

    fn run(&self) {
        loop {
            thread::park_timeout(PERIOD);
            if !self.gather() {
                self.awake.store(false, SeqCst);
                if !self.gather() {
                    while !self.awake.load(SeqCst) {
                        thread::park();
                    }
                } else {
                    self.awake.store(true, SeqCst);
                }
            }
        }
    }

    fn gather(&self) -> bool {
        let mut living = Vec::new();
        self.tallies.lock().retain(|tally| {
            let tally = tally.upgrade();
            living.extend(tally.clone());
            tally.is_some()
        });
        // Without the lock: a recorder is somebody else's code.
        living.iter().fold(false, |found, tally| tally.gather() | found)
    }
}

/// Hands on at once what threads have counted. By itself it happens within a second; this is for whoever
/// reads counters inside the process, such as a test.
pub fn gather() {
    GATHERER.gather();
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use super::*;
    use crate::telemetry::Labels;

    fn tally() -> (Tally<2>, Snapshotter) {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let labels = Labels::default();
        let tally = metrics::with_local_recorder(&recorder, || {
            Tally::new([labels.counter("events", &[]), labels.counter("bytes", &[])])
        });
        (tally, snapshotter)
    }

    /// Events and bytes since the last look.
    fn counted(snapshotter: &Snapshotter) -> (u64, u64) {
        let (mut events, mut bytes) = (0, 0);
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            match (key.key().name(), value) {
                ("events", DebugValue::Counter(value)) => events += value,
                (_, DebugValue::Counter(value)) => bytes += value,
                _ => {}
            }
        }
        (events, bytes)
    }

    #[test]
    fn one_thread_counts_at_once() {
        let (tally, snapshotter) = tally();
        for _ in 0..3 {
            tally.add([1, 10]);
        }
        assert_eq!(counted(&snapshotter), (3, 30));
    }

    #[test]
    fn several_threads_lose_nothing() {
        let (tally, snapshotter) = tally();
        const EACH: u64 = 100_003;
        thread::scope(|scope| {
            for _ in 0..LINES + 3 {
                scope.spawn(|| (0..EACH).for_each(|_| tally.add([1, 7])));
            }
            scope.spawn(|| (0..1000).for_each(|_| gather()));
        });
        gather();
        let events = EACH * (LINES as u64 + 3);
        assert_eq!(counted(&snapshotter), (events, events * 7));
    }

    #[test]
    fn what_a_thread_leaves_is_handed_on_when_the_tally_goes() {
        let (tally, snapshotter) = tally();
        tally.add([1, 1]);
        thread::scope(|scope| scope.spawn(|| tally.add([1, 1])).join().unwrap());
        drop(tally);
        assert_eq!(counted(&snapshotter), (2, 2));
    }

    #[test]
    fn what_a_thread_leaves_is_handed_on_by_itself() {
        for _ in 0..2 {
            let (tally, snapshotter) = tally();
            tally.add([1, 1]);
            thread::scope(|scope| scope.spawn(|| tally.add([1, 1])).join().unwrap());
            let mut seen = 0;
            while seen < 2 {
                seen += counted(&snapshotter).0;
                thread::yield_now();
            }
            assert_eq!(seen, 2);
        }
    }
}
