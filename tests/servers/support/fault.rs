//! A load of writes and reads that runs while something goes wrong, and what must hold afterwards.
//!
//! ```ignore
//! let report = Load::default()
//!     .run(&store, async |progress| {
//!         redis.kill();
//!         progress.failures(5).await;
//!         redis.restart().await;
//!     })
//!     .await;
//! ```
//!
//! `run` panics unless
//!
//! - every operation ends (the deadline finds hangs; it measures nothing), and fails with an allowed
//!   kind of error that says that trying again may help;
//! - every value read is one that was written, whole, and none older than the last one acknowledged
//!   before the read began; with scans, and with both keys of a batch of one moment on each page;
//! - after the fault every writer and reader succeeds again, by itself;
//! - in the end every acknowledged write is there, and every batch is there wholly or not at all.
//!
//! **Late writes.** A write that failed with an unknown outcome may still be on its way, and arrive after
//! a newer one: a server that was stopped reads what waits in its sockets, also from clients that
//! have gone; so does one behind a line that [hung](super::Proxy::hang), unless the proxy is
//! [reset](super::Proxy::reset) before it heals. Where a store cannot fence this off, say so with
//! [`Load::late_writes`], and say it in the store's documentation.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tierstack::{Batch, Entry, Error, ErrorKind, Result, Retry, Scan, Store, Value};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

/// Keys of each writer. Small, so that each is written often.
const SLOTS: usize = 8;
/// Between an error and the next attempt.
const PAUSE: Duration = Duration::from_millis(5);

/// How much load, and what may happen to it.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Tasks that write, each its own keys.
    pub(crate) writers: usize,
    /// Tasks that read the keys of all: one by one, several at once, and by scans where there are any.
    pub(crate) readers: usize,
    /// Kinds of error that may come.
    pub(crate) allowed: Vec<ErrorKind>,
    /// An operation that takes longer hangs.
    pub(crate) deadline: Duration,
    /// A store that has not recovered so long after the fault does not.
    pub(crate) patience: Duration,
    /// What the fault leaves of acknowledged writes.
    pub(crate) kept: Kept,
    /// Whether a write that failed with an unknown outcome may take effect after newer ones.
    pub(crate) late_writes: bool,
}

/// What must be left of acknowledged writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of them.
    Everything,
    /// Any part of them, as the profile guarantees nothing for this fault. Only what was written is read.
    Anything,
}

/// What happened. With the asserts of the test it shows that the fault was felt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) acknowledged: u64,
    pub(crate) reads: u64,
    pub(crate) failed_writes: u64,
    pub(crate) failed_reads: u64,
    /// Errors of each kind.
    pub(crate) errors: BTreeMap<&'static str, u64>,
}

/// What the fault may wait for. Counts begin with the fault.
pub(crate) struct Progress {
    counts: watch::Receiver<Counts>,
    begun: Counts,
    patience: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    acknowledged: u64,
    reads: u64,
    failures: u64,
}

impl Progress {
    /// Waits for so many failed operations.
    pub(crate) async fn failures(&self, count: u64) {
        self.wait("failures", count, |counts| counts.failures).await;
    }

    /// Waits for so many acknowledged writes.
    pub(crate) async fn writes(&self, count: u64) {
        self.wait("acknowledged writes", count, |counts| counts.acknowledged).await;
    }

    /// Waits for so many successful reads.
    pub(crate) async fn reads(&self, count: u64) {
        self.wait("reads", count, |counts| counts.reads).await;
    }

    async fn wait(&self, what: &str, count: u64, of: impl Fn(&Counts) -> u64) {
        let aim = of(&self.begun) + count;
        let mut counts = self.counts.clone();
        let reached = timeout(self.patience, counts.wait_for(|counts| of(counts) >= aim)).await;
        assert!(reached.is_ok_and(|reached| reached.is_ok()), "the fault waits for {count} {what}");
    }
}

impl Default for Load {
    fn default() -> Self {
        Self {
            writers: 4,
            readers: 2,
            allowed: vec![ErrorKind::Unavailable, ErrorKind::Timeout],
            deadline: Duration::from_secs(60),
            patience: Duration::from_secs(120),
            kept: Kept::Everything,
            late_writes: false,
        }
    }
}

impl Load {
    /// Allows another kind of error.
    pub(crate) fn allow(mut self, kind: ErrorKind) -> Self {
        self.allowed.push(kind);
        self
    }

    /// The profile guarantees nothing about acknowledged writes for this fault.
    pub(crate) fn keeps(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// See the head of this file.
    pub(crate) fn late_writes(mut self) -> Self {
        self.late_writes = true;
        self
    }

    /// Runs the load, does the fault (which must heal what it broke), and checks.
    pub(crate) async fn run(
        self,
        store: &Arc<dyn Store>,
        fault: impl AsyncFnOnce(&Progress),
    ) -> Report {
        match self.try_run(store, fault).await {
            Ok(report) => report,
            Err(broken) => panic!("{}", broken.join("\n")),
        }
    }

    /// The same, and gives what was broken.
    pub(crate) async fn try_run(
        self,
        store: &Arc<dyn Store>,
        fault: impl AsyncFnOnce(&Progress),
    ) -> std::result::Result<Report, Vec<String>> {
        let run = Arc::new(Run::new(self, Arc::clone(store)));
        let mut tasks = JoinSet::new();
        for worker in 0..run.load.writers {
            tasks.spawn(Arc::clone(&run).write_on(worker));
        }
        for reader in 0..run.load.readers {
            tasks.spawn(Arc::clone(&run).read_on(run.load.writers + reader));
        }
        if run.everyone_succeeds("before the fault").await {
            let counts = run.counts.subscribe();
            let begun = *counts.borrow();
            fault(&Progress { counts, begun, patience: run.load.patience }).await;
            run.everyone_succeeds("after the fault").await;
        }
        run.ended.store(true, Ordering::SeqCst);
        while let Some(task) = tasks.join_next().await {
            task.expect("no task of the load panics");
        }
        run.check_in_the_end().await;
        let broken = std::mem::take(&mut *run.broken.lock().unwrap());
        let report = run.report.lock().unwrap().clone();
        if broken.is_empty() { Ok(report) } else { Err(broken) }
    }
}

struct Run {
    load: Load,
    store: Arc<dyn Store>,
    /// Of each writer.
    slots: Vec<Vec<Slot>>,
    has_scans: bool,
    counts: watch::Sender<Counts>,
    report: Mutex<Report>,
    broken: Mutex<Vec<String>>,
    ended: AtomicBool,
    phase: AtomicU64,
    /// The latest phase in which each worker began an operation that succeeded.
    succeeded: Vec<AtomicU64>,
}

/// A key that one writer writes, or two that it writes in one batch where those are atomic.
struct Slot {
    keys: Vec<Bytes>,
    history: Mutex<History>,
}

/// What became of the writes of a slot, by their numbers. Number 0 stands for "not there".
struct History {
    fates: Vec<Fate>,
    acknowledged: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// On its way, or failed with an unknown outcome.
    Unknown,
    Acknowledged,
    /// The store said that nothing was written.
    Refused,
}

impl Run {
    fn new(load: Load, store: Arc<dyn Store>) -> Self {
        let guarantees = store.profile().guarantees;
        let id = RandomState::new().hash_one("run") as u32;
        let slot = |writer: usize, slot: usize| {
            let names: &[&str] = if guarantees.atomic_batches { &["a", "b"] } else { &["a"] };
            let key = |name| Bytes::from(format!("load-{id:08x}/{writer}/{slot}/{name}"));
            let history = History { fates: vec![Fate::Unknown], acknowledged: 0 };
            Slot { keys: names.iter().map(key).collect(), history: Mutex::new(history) }
        };
        Self {
            slots: (0..load.writers).map(|w| (0..SLOTS).map(|s| slot(w, s)).collect()).collect(),
            has_scans: guarantees.ordered_scans,
            counts: watch::Sender::new(Counts::default()),
            report: Mutex::default(),
            broken: Mutex::default(),
            ended: AtomicBool::new(false),
            phase: AtomicU64::new(0),
            succeeded: (0..load.writers + load.readers).map(|_| AtomicU64::new(0)).collect(),
            load,
            store,
        }
    }

    /// Begins a phase, and waits until every worker has begun an operation in it that succeeded.
    async fn everyone_succeeds(&self, when: &str) -> bool {
        let phase = self.phase.fetch_add(1, Ordering::SeqCst) + 1;
        let all = async {
            while self.succeeded.iter().any(|latest| latest.load(Ordering::SeqCst) < phase) {
                sleep(PAUSE).await;
            }
        };
        let done = timeout(self.load.patience, all).await.is_ok();
        if !done {
            self.broken(format_args!("{when} not every writer and reader succeeds"));
        }
        done
    }

    async fn write_on(self: Arc<Self>, worker: usize) {
        for turn in 0.. {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            let slot = &self.slots[worker][turn % SLOTS];
            let number = slot.begin();
            let batch = slot
                .keys
                .iter()
                .fold(Batch::new(), |batch, key| batch.put(key.clone(), value(key, number)));
            match self.watched(worker, "a write", self.store.write(batch)).await {
                Some(Ok(_)) => {
                    slot.end(number, Fate::Acknowledged);
                    self.report.lock().unwrap().acknowledged += 1;
                    self.counts.send_modify(|counts| counts.acknowledged += 1);
                }
                Some(Err(kind)) => {
                    if kind == ErrorKind::Conflict {
                        slot.end(number, Fate::Refused);
                    }
                    self.report.lock().unwrap().failed_writes += 1;
                }
                None => self.report.lock().unwrap().failed_writes += 1,
            }
        }
    }

    async fn read_on(self: Arc<Self>, worker: usize) {
        for turn in worker.. {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            let slots = &self.slots[turn % self.slots.len()];
            let way = turn / self.slots.len() % if self.has_scans { 3 } else { 2 };
            let slot = &slots[turn % SLOTS];
            let read = match way {
                0 => self.get(worker, slot).await,
                1 => self.get_many(worker, slots).await,
                _ => self.scan(worker, slots).await,
            };
            if read.is_some() {
                self.report.lock().unwrap().reads += 1;
                self.counts.send_modify(|counts| counts.reads += 1);
            } else {
                self.report.lock().unwrap().failed_reads += 1;
            }
        }
    }

    async fn get(&self, worker: usize, slot: &Slot) -> Option<()> {
        for key in &slot.keys {
            let floor = slot.acknowledged();
            let read = self.watched(worker, "a get", self.store.get(key)).await?.ok()?;
            self.check("a get", slot, key, floor, read.as_ref());
        }
        Some(())
    }

    async fn get_many(&self, worker: usize, slots: &[Slot]) -> Option<()> {
        let keys: Vec<Bytes> = slots.iter().flat_map(|slot| slot.keys.clone()).collect();
        let floors: Vec<usize> = slots.iter().map(Slot::acknowledged).collect();
        let read = self.watched(worker, "a get_many", self.store.get_many(&keys)).await?.ok()?;
        let mut read = read.iter();
        for (slot, floor) in slots.iter().zip(floors) {
            for key in &slot.keys {
                let read = read.next().expect("one for each key").as_ref();
                self.check("a get_many", slot, key, floor, read);
            }
        }
        Some(())
    }

    async fn scan(&self, worker: usize, slots: &[Slot]) -> Option<()> {
        let floors: Vec<usize> = slots.iter().map(Slot::acknowledged).collect();
        let prefix = slots[0].keys[0].split(|&byte| byte == b'/').take(2).collect::<Vec<_>>();
        let scan = Scan::prefix([prefix.join(&b'/'), b"/".to_vec()].concat()).page_entries(5);
        let pages = async { self.store.scan(scan).try_collect::<Vec<_>>().await };
        let pages = self.watched(worker, "a scan", pages).await?.ok()?;
        for page in &pages {
            for pair in page.entries.windows(2) {
                let [first, second] = pair else { continue };
                let same_slot = slots.iter().any(|slot| slot.keys == [&first.key, &second.key]);
                if same_slot && number(first) != number(second) {
                    self.broken(format_args!("a page holds one half of a batch"));
                }
            }
        }
        let entries: Vec<&Entry> = pages.iter().flat_map(|page| &page.entries).collect();
        if !entries.is_sorted_by(|first, second| first.key < second.key) {
            self.broken(format_args!("a scan is out of order, or has an entry twice"));
        }
        let found: HashMap<&Bytes, &Value> = entries.iter().map(|e| (&e.key, &e.value)).collect();
        for (slot, floor) in slots.iter().zip(floors) {
            for key in &slot.keys {
                self.check("a scan", slot, key, floor, found.get(key).copied());
            }
        }
        Some(())
    }

    /// Waits for an operation. `None` after an error that was not allowed, or a hang.
    async fn watched<T>(
        &self,
        worker: usize,
        what: &str,
        operation: impl Future<Output = Result<T>>,
    ) -> Option<std::result::Result<T, ErrorKind>> {
        // A store in memory never waits, and would keep every other task from running.
        yield_now().await;
        let phase = self.phase.load(Ordering::SeqCst);
        let Ok(result) = timeout(self.load.deadline, operation).await else {
            self.broken(format_args!("{what} hangs for more than {:?}", self.load.deadline));
            return None;
        };
        match result {
            Ok(value) => {
                if let Some(latest) = self.succeeded.get(worker) {
                    latest.store(phase, Ordering::SeqCst);
                }
                Some(Ok(value))
            }
            Err(error) => {
                self.note(what, &error);
                self.counts.send_modify(|counts| counts.failures += 1);
                sleep(PAUSE).await;
                Some(Err(error.kind()))
            }
        }
    }

    fn note(&self, what: &str, error: &Error) {
        let kind = error.kind();
        *self.report.lock().unwrap().errors.entry(kind.as_str()).or_default() += 1;
        if !self.load.allowed.contains(&kind) {
            self.broken(format_args!("{what} may not fail so: {error:?}"));
        }
        let is_passing = matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout);
        if is_passing && error.retry() == Retry::Never {
            self.broken(format_args!(
                "{what} could be tried again, and does not say so: {error:?}"
            ));
        }
    }

    /// `floor` is what was acknowledged before the read began.
    fn check(&self, what: &str, slot: &Slot, key: &Bytes, floor: usize, read: Option<&Value>) {
        let number = match read {
            None => 0,
            Some(read) => match number_of(key, &read.bytes) {
                Some(number) => number,
                None => return self.broken(format_args!("{what} gives what nobody wrote")),
            },
        };
        let history = slot.history.lock().unwrap();
        let fate = history.fates.get(number);
        let is_new_enough = self.load.kept == Kept::Anything
            || number >= floor
            || (self.load.late_writes && number > 0 && fate == Some(&Fate::Unknown));
        if fate.is_none() || fate == Some(&Fate::Refused) {
            self.broken(format_args!(
                "{what} gives write {number}, which was not made or was refused"
            ));
        } else if !is_new_enough {
            self.broken(format_args!(
                "{what} gives write {number} ({fate:?}) though {floor} was acknowledged before it began"
            ));
        }
    }

    /// With nothing else going on.
    async fn check_in_the_end(&self) {
        for slot in self.slots.iter().flatten() {
            let floor = slot.acknowledged();
            let mut numbers = Vec::new();
            for key in &slot.keys {
                let Some(read) = self.settled(key).await else { return };
                self.check("the last read", slot, key, floor, read.as_ref());
                numbers.push(read.and_then(|read| number_of(key, &read.bytes)));
            }
            if numbers.windows(2).any(|pair| pair[0] != pair[1]) {
                self.broken(format_args!("a batch is there by halves: writes {numbers:?}"));
            }
        }
    }

    /// A read that may find connections which the fault has broken.
    async fn settled(&self, key: &Bytes) -> Option<Option<Value>> {
        let nobody = usize::MAX;
        let read = async {
            loop {
                match self.watched(nobody, "the last read", self.store.get(key)).await {
                    Some(Ok(read)) => return Some(read),
                    Some(Err(_)) => {}
                    None => return None,
                }
            }
        };
        let read = timeout(self.load.patience, read).await;
        if read.is_err() {
            self.broken(format_args!("in the end the store cannot be read"));
        }
        read.ok().flatten()
    }

    fn broken(&self, what: fmt::Arguments<'_>) {
        let mut broken = self.broken.lock().unwrap();
        // The first are the ones that matter.
        if broken.len() < 20 {
            broken.push(what.to_string());
        }
    }
}

impl Slot {
    fn acknowledged(&self) -> usize {
        self.history.lock().unwrap().acknowledged
    }

    fn begin(&self) -> usize {
        let mut history = self.history.lock().unwrap();
        history.fates.push(Fate::Unknown);
        history.fates.len() - 1
    }

    fn end(&self, number: usize, fate: Fate) {
        let mut history = self.history.lock().unwrap();
        history.fates[number] = fate;
        if fate == Fate::Acknowledged {
            history.acknowledged = number;
        }
    }
}

/// The value of a write: another one for each key and number, and of many lengths.
fn value(key: &Bytes, number: usize) -> Vec<u8> {
    let mut value = format!("{number}:").into_bytes();
    value.extend_from_slice(key);
    value.resize(value.len() + number * 37 % 300, b'.');
    value
}

fn number_of(key: &Bytes, bytes: &[u8]) -> Option<usize> {
    let digits = bytes.split(|&byte| byte == b':').next()?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (value(key, number) == bytes).then_some(number)
}

fn number(entry: &Entry) -> Option<usize> {
    number_of(&entry.key, &entry.value.bytes)
}
