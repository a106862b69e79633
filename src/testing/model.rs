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

use std::collections::VecDeque;
use std::fmt::Display;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::Random;
use super::oracle::{Known, compare, scanned, show, show_scan, show_value};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::error::Error;
use crate::store::{Read, Store};
use crate::types::{Batch, Guarantees, Limits, Op, Order, Page, Scan, Value};

/// Operations that a failure prints.
const REMEMBERED: usize = 25;
/// Snapshots that are held at the same time.
const SNAPSHOTS: usize = 4;

/// Runs that many random steps on an empty store, and compares it with a `BTreeMap` after each.
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
    let mut model = Model::new(store, clock, seed);
    for step in 0..steps {
        if let Err(why) = model.step().await {
            let last: Vec<String> = model.log.into_iter().collect();
            return Err(format!(
                "{}: seed {seed}, step {step}: {why}\nthe last operations:\n  {}",
                store.profile(),
                last.join("\n  ")
            ));
        }
    }
    model
        .whole()
        .await
        .map_err(|why| format!("{}: seed {seed}, at the end: {why}", store.profile()))
}

struct Model<'a, S: ?Sized> {
    store: &'a S,
    clock: Option<&'a ManualClock>,
    promises: Guarantees,
    random: Random,
    known: Known,
    snapshots: Vec<(Arc<dyn Read>, Known)>,
    log: VecDeque<String>,
}

impl<'a, S: Store + ?Sized> Model<'a, S> {
    fn new(store: &'a S, clock: Option<&'a ManualClock>, seed: u64) -> Self {
        Self {
            store,
            clock,
            promises: store.profile().guarantees,
            random: Random::new(seed),
            known: Known::new(),
            snapshots: Vec::new(),
            log: VecDeque::new(),
        }
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..30 => self.write().await,
            30..50 => self.get().await,
            50..60 => self.get_many().await,
            60..75 => self.scan().await,
            75..80 => self.take_snapshot().await,
            80..90 => self.look_at_snapshot().await,
            90..92 => self.upkeep().await,
            92..98 => self.pass_time(),
            _ => self.whole().await,
        }
    }

    async fn write(&mut self) -> Result<(), String> {
        let limits = &self.promises.limits;
        let most =
            if self.promises.atomic_batches { limits.batch_ops.unwrap_or(12).min(12) } else { 1 };
        // Single operations mostly, sometimes none.
        let count = match self.random.below(10) {
            0 => 0,
            1..6 => 1,
            _ => 1 + self.random.below(most),
        };
        let ops: Vec<Op> = (0..count).map(|_| self.op()).collect();
        let shown: Vec<String> = ops.iter().map(show_op).collect();
        self.log(format_args!("write {}", shown.join(", ")));
        let mut batch: Batch = ops.iter().cloned().collect();
        if self.random.chance(0.2) {
            batch = batch.durability(self.promises.durability);
        }
        let commit = self.store.write(batch).await.map_err(failed)?;
        if self.random.chance(0.2) {
            commit.durable().await.map_err(failed)?;
        }
        for op in ops {
            match op {
                Op::Put(key, value) => self.known.insert(key, value),
                Op::Delete(key) => self.known.remove(&key),
            };
        }
        Ok(())
    }

    fn op(&mut self) -> Op {
        let key = self.key();
        if self.random.chance(0.3) {
            return Op::Delete(key);
        }
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
            Some(deadline) => Op::Put(key, value.expiring_at(deadline)),
            None => Op::Put(key, value),
        }
    }

    /// Near deadlines mostly, some now or past, some far.
    fn deadline(&mut self) -> Option<Timestamp> {
        let clock = self.clock.filter(|_| self.promises.expiry)?;
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
            key.resize(self.promises.limits.key_bytes.min(Limits::MAX_KEY_BYTES), b'a');
        }
        key.into()
    }

    async fn get(&mut self) -> Result<(), String> {
        let key = self.key();
        self.log(format_args!("get {}", show(&key)));
        self.forget_expired();
        let got = self.store.get(&key).await.map_err(failed)?;
        same(&key, got.as_ref(), self.known.get(&key))
    }

    async fn get_many(&mut self) -> Result<(), String> {
        let keys: Vec<Bytes> = (0..self.random.below(30)).map(|_| self.key()).collect();
        self.log(format_args!("get_many of {} keys", keys.len()));
        self.forget_expired();
        let got = self.store.get_many(&keys).await.map_err(failed)?;
        if got.len() != keys.len() {
            return Err(format!("{} values for {} keys", got.len(), keys.len()));
        }
        keys.iter()
            .zip(&got)
            .try_for_each(|(key, got)| same(key, got.as_ref(), self.known.get(key)))
    }

    async fn scan(&mut self) -> Result<(), String> {
        if !self.promises.ordered_scans {
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
        Scan { order, limit, page_entries, page_bytes, ..scan }
    }

    fn bound(&mut self) -> Bound<Bytes> {
        match self.random.below(5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Excluded(self.key()),
            _ => Bound::Included(self.key()),
        }
    }

    async fn take_snapshot(&mut self) -> Result<(), String> {
        if !self.promises.snapshots {
            return Ok(());
        }
        self.log(format_args!("snapshot"));
        self.forget_expired();
        if self.snapshots.len() == SNAPSHOTS {
            let oldest = self.random.below(SNAPSHOTS);
            self.snapshots.swap_remove(oldest);
        }
        let snapshot = self.store.snapshot().await.map_err(failed)?;
        self.snapshots.push((snapshot, self.known.clone()));
        Ok(())
    }

    async fn look_at_snapshot(&mut self) -> Result<(), String> {
        let (key, scan) = (self.key(), self.some_scan());
        let at = self.random.below(self.snapshots.len());
        self.log(format_args!("snapshot {at}: get {}, scan {}", show(&key), show_scan(&scan)));
        let Some((snapshot, known)) = self.snapshots.get(at) else {
            return Ok(());
        };
        let got = snapshot.get(&key).await.map_err(failed)?;
        same(&key, got.as_ref(), known.get(&key)).map_err(in_snapshot)?;
        let many = snapshot.get_many(std::slice::from_ref(&key)).await.map_err(failed)?;
        same(&key, many.first().and_then(Option::as_ref), known.get(&key)).map_err(in_snapshot)?;
        if self.promises.ordered_scans {
            scan_agrees(&**snapshot, scan, known).await.map_err(in_snapshot)?;
        }
        Ok(())
    }

    async fn upkeep(&mut self) -> Result<(), String> {
        if self.random.chance(0.5) {
            self.log(format_args!("flush"));
            self.store.flush().await.map_err(failed)
        } else {
            self.log(format_args!("compact"));
            self.store.compact().await.map_err(failed)
        }
    }

    fn pass_time(&mut self) -> Result<(), String> {
        if let Some(clock) = self.clock {
            let span = Duration::from_millis(1 + self.random.below(10_000) as u64);
            self.log(format_args!("{span:?} pass"));
            clock.advance(span);
        }
        Ok(())
    }

    /// Compares everything.
    async fn whole(&mut self) -> Result<(), String> {
        self.log(format_args!("compare everything"));
        self.forget_expired();
        for (key, value) in &self.known {
            let got = self.store.get(key).await.map_err(failed)?;
            same(key, got.as_ref(), Some(value))?;
        }
        if self.promises.ordered_scans {
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

async fn scan_agrees(read: &(impl Read + ?Sized), scan: Scan, known: &Known) -> Result<(), String> {
    let want = scanned(known, &scan);
    let pages: Vec<Page> = read.scan(scan.clone()).try_collect().await.map_err(failed)?;
    // The values here compress, and a codec counts the bytes of a page as they are below it. That pages
    // end at their bytes is for the conformance suite, whose values do not compress.
    compare(&Scan { page_bytes: usize::MAX, ..scan }, pages, &want)
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

fn failed(error: Error) -> String {
    format!("it failed: {error:?}")
}

fn in_snapshot(why: String) -> String {
    format!("in a snapshot: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::Memory;
    use crate::testing::{FaultStore, Faults};
    use crate::{ErrorKind, Operation};

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
        let mut model = Model::new(&store, None, 1);
        for _ in 0..50 {
            model.step().await.unwrap();
        }
        let _ = store.write(Batch::new().put("foreign", "1")).await.unwrap();
        assert!(model.whole().await.is_err());
    }
}
