//! The model test: random operations on a store and on a `BTreeMap`, which must agree.
//!
//! ```
//! # tokio_test::block_on(async {
//! use std::sync::Arc;
//!
//! use tierstack::backends::Memory;
//! use tierstack::testing::model;
//! use tierstack::ManualClock;
//!
//! let clock = ManualClock::new();
//! let store = Memory::with_clock(Arc::new(clock.clone()));
//! model::run(&store, Some(&clock), 7, 200).await.unwrap();
//! # });
//! ```

mod write;

use std::collections::VecDeque;
use std::fmt::Display;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::oracle::{Known, compare, scanned, show, show_scan, show_value};
use super::{Faults, Random};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::store::{Read, Store};
use crate::types::{Guarantees, Limits, Op, Order, Page, Scan, Scope, Value};

/// Operations that a failure prints.
const REMEMBERED: usize = 25;
/// Snapshots that are held at the same time.
const SNAPSHOTS: usize = 4;

/// Runs that many random steps on an empty store, and compares it with a `BTreeMap` at each.
///
/// The operations follow from the seed and from what the profile offers. With the clock by which
/// entries of the store expire, time moves, and entries are given deadlines; without one they get none.
/// The store is not closed.
///
/// # Errors
/// What differed or failed, with the seed, the step, and the last operations. Printed keys and values
/// are those of the test.
pub async fn run<S: Store + ?Sized>(
    store: &S,
    clock: Option<&ManualClock>,
    seed: u64,
    steps: usize,
) -> Result<(), String> {
    Model::new(store, clock, None, seed).run(seed, steps).await
}

/// Like [`run`], over a stack with a [`FaultStore`](super::FaultStore) somewhere in it, which now and
/// then fails a call before or after its effect. A failed write must have happened wholly or not at
/// all; everything must stay right afterwards.
///
/// The rules of the plan are the model's while it runs. A layer that waits on the manual clock, such
/// as `retry`, waits for ever here.
///
/// # Errors
/// Like [`run`].
pub async fn run_with_faults<S: Store + ?Sized>(
    store: &S,
    faults: &Faults,
    clock: Option<&ManualClock>,
    seed: u64,
    steps: usize,
) -> Result<(), String> {
    Model::new(store, clock, Some(faults), seed).run(seed, steps).await
}

/// Why a step ended early.
enum Stop {
    Wrong(String),
    Failed(Error),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

type Step = Result<(), Stop>;

struct Model<'a, S: ?Sized> {
    store: &'a S,
    clock: Option<&'a ManualClock>,
    faults: Option<&'a Faults>,
    guarantees: Guarantees,
    random: Random,
    known: Known,
    snapshots: Vec<(Arc<dyn Read>, Known)>,
    log: VecDeque<String>,
}

impl<'a, S: Store + ?Sized> Model<'a, S> {
    fn new(
        store: &'a S,
        clock: Option<&'a ManualClock>,
        faults: Option<&'a Faults>,
        seed: u64,
    ) -> Self {
        Self {
            store,
            clock,
            faults,
            guarantees: store.profile().guarantees,
            random: Random::new(seed),
            known: Known::new(),
            snapshots: Vec::new(),
            log: VecDeque::new(),
        }
    }

    async fn run(mut self, seed: u64, steps: usize) -> Result<(), String> {
        for step in 0..=steps {
            self.arm(step < steps);
            let done = if step < steps { self.step().await } else { self.whole().await };
            if let Some(why) = done.err().and_then(|stop| self.wrong(stop)) {
                let last: Vec<String> = self.log.into_iter().collect();
                return Err(format!(
                    "{}: seed {seed}, step {step}: {why}\nthe last operations:\n  {}",
                    self.store.profile(),
                    last.join("\n  ")
                ));
            }
        }
        Ok(())
    }

    /// Makes one of the next calls fail, sometimes.
    fn arm(&mut self, more: bool) {
        let Some(faults) = self.faults else { return };
        faults.clear();
        if more && self.random.chance(0.3) {
            let rule = faults.on_all().skip(self.random.below(3) as u64).times(1);
            let rule = if self.random.chance(0.5) { rule.after_effect() } else { rule };
            let page = self.random.below(3);
            rule.at_page(page).fail(ErrorKind::Unavailable);
            self.log(format_args!("(a call may fail)"));
        }
    }

    /// What is wrong, unless it is a failure that was asked for.
    fn wrong(&self, stop: Stop) -> Option<String> {
        match stop {
            Stop::Wrong(why) => Some(why),
            Stop::Failed(error) if self.tolerates(&error) => None,
            Stop::Failed(error) => Some(format!("it failed: {error:?}")),
        }
    }

    fn tolerates(&self, error: &Error) -> bool {
        self.faults.is_some() && error.kind() == ErrorKind::Unavailable
    }

    async fn step(&mut self) -> Step {
        match self.random.below(100) {
            0..20 => self.write().await,
            20..26 => self.write_group().await,
            26..30 => self.load().await,
            30..50 => self.get().await,
            50..60 => self.get_many().await,
            60..75 => self.scan().await,
            75..80 => self.take_snapshot().await,
            80..90 => self.look_at_snapshot().await,
            90..92 => self.upkeep().await,
            92..98 => {
                self.pass_time();
                Ok(())
            }
            _ => self.whole().await,
        }
    }

    fn op(&mut self) -> Op {
        let key = self.key();
        if self.random.chance(0.3) {
            return Op::Delete(key);
        }
        Op::Put(key, self.value())
    }

    fn value(&mut self) -> Value {
        // Mostly small ones of a few letters, which compress; some at the sizes of frames and blocks.
        let size = match self.random.below(20) {
            0 => 0,
            1 => 4000 + self.random.below(200),
            2 => 70_000,
            _ => self.random.below(40),
        };
        let value = if self.random.chance(0.5) {
            Value::new(vec![b'a' + self.random.below(26) as u8; size])
        } else {
            Value::new(self.random.bytes(size))
        };
        match self.deadline() {
            Some(deadline) => value.expiring_at(deadline),
            None => value,
        }
    }

    /// Near deadlines mostly, some now or past, some far.
    fn deadline(&mut self) -> Option<Timestamp> {
        let clock = self.clock.filter(|_| self.guarantees.expiry)?;
        let seconds = match self.random.below(12) {
            0 => 0,
            1..5 => 1 + self.random.below(30),
            5 => 100_000,
            6 => return Some(Timestamp::from_millis(self.random.next_u64() % 1000)),
            _ => return None,
        };
        Some(clock.now() + Duration::from_secs(seconds as u64))
    }

    /// Few enough keys that operations meet, of the bytes at which orders go wrong.
    fn key(&mut self) -> Bytes {
        const LETTERS: [u8; 5] = [0x00, b'a', b'b', 0x7f, 0xff];
        let length = 1 + self.random.below(3);
        let mut key: Vec<u8> =
            (0..length).filter_map(|_| self.random.pick(&LETTERS).copied()).collect();
        if self.random.chance(0.02) {
            key.resize(self.guarantees.limits.key_bytes.min(Limits::MAX_KEY_BYTES), b'a');
        }
        key.into()
    }

    async fn get(&mut self) -> Step {
        let key = self.key();
        self.log(format_args!("get {}", show(&key)));
        self.forget_expired();
        let got = self.store.get(&key).await?;
        Ok(same(&key, got.as_ref(), self.known.get(&key))?)
    }

    async fn get_many(&mut self) -> Step {
        let keys: Vec<Bytes> = (0..self.random.below(30)).map(|_| self.key()).collect();
        self.log(format_args!("get_many of {} keys", keys.len()));
        self.forget_expired();
        let got = self.store.get_many(&keys).await?;
        if got.len() != keys.len() {
            return Err(Stop::Wrong(format!("{} values for {} keys", got.len(), keys.len())));
        }
        for (key, got) in keys.iter().zip(&got) {
            same(key, got.as_ref(), self.known.get(key))?;
        }
        Ok(())
    }

    async fn scan(&mut self) -> Step {
        if !self.guarantees.ordered_scans {
            return Ok(());
        }
        let scan = self.some_scan();
        self.log(format_args!("scan {}", show_scan(&scan)));
        self.forget_expired();
        scan_agrees(self.store, scan, &self.known).await
    }

    fn some_scan(&mut self) -> Scan {
        let order = if self.random.chance(0.5) { Order::Forward } else { Order::Reverse };
        let scan = if self.random.chance(0.2) {
            Scan::prefix(self.key())
        } else {
            Scan { from: self.bound(), to: self.bound(), ..Scan::all() }
        };
        let limit = self.random.chance(0.4).then(|| self.random.below(20) as u64);
        let page_entries = *self.random.pick(&[1, 2, 3, 7, 1000]).unwrap_or(&1);
        let page_bytes = *self.random.pick(&[1, 100, 1 << 20]).unwrap_or(&1);
        let keys_only = self.random.chance(0.3);
        Scan { order, limit, page_entries, page_bytes, keys_only, ..scan }
    }

    fn bound(&mut self) -> Bound<Bytes> {
        match self.random.below(5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Excluded(self.key()),
            _ => Bound::Included(self.key()),
        }
    }

    async fn take_snapshot(&mut self) -> Step {
        if !self.guarantees.snapshots {
            return Ok(());
        }
        self.log(format_args!("snapshot"));
        self.forget_expired();
        if self.snapshots.len() == SNAPSHOTS {
            let oldest = self.random.below(SNAPSHOTS);
            self.snapshots.swap_remove(oldest);
        }
        let snapshot = self.store.snapshot().await?;
        self.snapshots.push((snapshot, self.known.clone()));
        Ok(())
    }

    async fn look_at_snapshot(&mut self) -> Step {
        let (key, scan) = (self.key(), self.some_scan());
        let at = self.random.below(self.snapshots.len());
        self.log(format_args!("snapshot {at}: get {}, scan {}", show(&key), show_scan(&scan)));
        let Some((snapshot, known)) = self.snapshots.get(at) else {
            return Ok(());
        };
        let got = snapshot.get(&key).await?;
        same(&key, got.as_ref(), known.get(&key)).map_err(in_snapshot)?;
        let many = snapshot.get_many(std::slice::from_ref(&key)).await?;
        same(&key, many.first().and_then(Option::as_ref), known.get(&key)).map_err(in_snapshot)?;
        if self.guarantees.ordered_scans {
            scan_agrees(&**snapshot, scan, known).await.map_err(|stop| match stop {
                Stop::Wrong(why) => Stop::Wrong(in_snapshot(why)),
                failed => failed,
            })?;
        }
        Ok(())
    }

    /// What changes nothing that a reader sees.
    async fn upkeep(&mut self) -> Step {
        match self.random.below(3) {
            0 => {
                self.log(format_args!("flush"));
                self.store.flush().await?;
            }
            1 => {
                self.log(format_args!("compact"));
                self.store.compact().await?;
            }
            _ => {
                let key = self.key();
                let scope = match self.random.below(3) {
                    0 => Scope::Keys(vec![key]),
                    1 => Scope::Prefix(key),
                    _ => Scope::All,
                };
                self.log(format_args!("invalidate {scope:?}"));
                self.store.invalidate(scope).await?;
            }
        }
        Ok(())
    }

    fn pass_time(&mut self) {
        if let Some(clock) = self.clock {
            let span = Duration::from_millis(1 + self.random.below(10_000) as u64);
            self.log(format_args!("{span:?} pass"));
            clock.advance(span);
        }
    }

    /// Compares everything.
    async fn whole(&mut self) -> Step {
        self.log(format_args!("compare everything"));
        self.forget_expired();
        for (key, value) in &self.known {
            let got = self.store.get(key).await?;
            same(key, got.as_ref(), Some(value))?;
        }
        if self.guarantees.ordered_scans {
            scan_agrees(self.store, Scan::all(), &self.known).await?;
        }
        Ok(())
    }

    fn forget_expired(&mut self) {
        if let Some(clock) = self.clock {
            let now = clock.now();
            self.known.retain(|_, value| !value.is_expired(now));
        }
    }

    fn log(&mut self, operation: impl Display) {
        if self.log.len() == REMEMBERED {
            self.log.pop_front();
        }
        self.log.push_back(operation.to_string());
    }
}

async fn scan_agrees(read: &(impl Read + ?Sized), scan: Scan, known: &Known) -> Step {
    let want = scanned(known, &scan);
    let pages: Vec<Page> = read.scan(scan.clone()).try_collect().await?;
    // The values here compress, and a codec counts the bytes of a page as they are below it. That pages
    // end at their bytes is for the conformance suite, whose values do not compress.
    Ok(compare(&Scan { page_bytes: usize::MAX, ..scan }, pages, &want)?)
}

fn same(key: &[u8], got: Option<&Value>, want: Option<&Value>) -> Result<(), String> {
    if got == want {
        return Ok(());
    }
    Err(format!("{} is {}, and must be {}", show(key), show_value(got), show_value(want)))
}

fn show_op(op: &Op) -> String {
    match op {
        Op::Put(key, value) => format!("{} = {}", show(key), show_value(Some(value))),
        Op::Delete(key) => format!("delete {}", show(key)),
    }
}

fn in_snapshot(why: String) -> String {
    format!("in a snapshot: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::Memory;
    use crate::testing::{FaultStore, Faults};
    use crate::{Batch, ErrorKind, Operation};

    #[tokio::test]
    async fn a_difference_names_the_seed_the_step_and_the_last_operations() {
        let faults = Faults::new();
        let store = FaultStore::new(Memory::new(), &faults);
        faults.on(Operation::Get).skip(5).fail(ErrorKind::Unavailable);
        let text = run(&store, None, 42, 500).await.unwrap_err();
        assert!(text.contains("seed 42, step") && text.contains("write "), "{text}");
    }

    /// Somebody else writes: the model must notice, however the entry is read.
    #[tokio::test]
    async fn a_foreign_write_is_noticed() {
        let store = Memory::new();
        let mut model = Model::new(&store, None, None, 1);
        for _ in 0..50 {
            assert!(model.step().await.is_ok());
        }
        let _ = store.write(Batch::new().put("foreign", "1")).await.unwrap();
        assert!(model.whole().await.is_err());
    }

    #[tokio::test]
    async fn a_failed_write_may_have_happened_or_not() {
        for seed in 0..20 {
            let clock = ManualClock::new();
            let faults = Faults::new();
            let memory = Memory::with_clock(Arc::new(clock.clone()));
            let store = FaultStore::new(memory, &faults);
            run_with_faults(&store, &faults, Some(&clock), seed, 200).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_failed_write_that_happened_in_part_is_noticed() {
        let store = Memory::new();
        let mut model = Model::new(&store, None, None, 1);
        let ops = ["a", "b"].map(|key| Op::Put(key.into(), "1".into()));
        let after: Known = ["a", "b"].map(|key| (key.into(), "1".into())).into();
        let _ = store.write(Batch::new().put("a", "1")).await.unwrap();
        let settled = model.settle(&ops, after).await;
        assert!(matches!(settled, Err(Stop::Wrong(_))));
    }
}
