//! A task that reads and writes, and the log of what all of them saw.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tierstack::testing::Random;
use tierstack::{
    Batch, Clock, Entry, ErrorKind, ManualClock, Page, Result, Scan, Scope, Store, StoreExt,
    Timestamp, Value,
};

use super::register::{Expiries, Number, Op, What, explain};

const KEYS: usize = 12;
/// An entry of more than an eighth of the capacity passes by.
const LARGEST: usize = 9 << 10;

fn key(at: usize) -> Bytes {
    format!("key {at:02}").into()
}

fn number(value: Option<&Value>) -> Number {
    value.map(|value| u64::from_be_bytes(value.bytes[..8].try_into().unwrap()))
}

/// What happened, in one order of all begins and ends.
#[derive(Debug, Default)]
pub(crate) struct Log {
    ticks: AtomicU64,
    numbers: AtomicU64,
    asked: AtomicU64,
    ops: Mutex<Vec<(usize, Op)>>,
    /// When a number expires, of those that do.
    deadlines: Mutex<HashMap<u64, Timestamp>>,
    /// When time passed, and until when.
    passed: Mutex<Vec<(u64, Timestamp)>>,
}

impl Log {
    pub(crate) fn new(clock: &ManualClock) -> Self {
        Self { passed: Mutex::new(vec![(0, clock.now())]), ..Self::default() }
    }

    /// Operations that were begun so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// Lets time pass.
    pub(crate) fn passes(&self, clock: &ManualClock, span: Duration) {
        let tick = self.tick();
        clock.advance(span);
        self.passed.lock().push((tick, clock.now()));
    }

    fn saw(&self, key: usize, begin: u64, end: u64, found: Option<&Value>) {
        let what = What::Read(number(found));
        self.ops.lock().push((key, Op { begin, end: Some(end), what }));
    }

    /// Checks the history of each key.
    pub(crate) fn explain(&self) -> Result<(), String> {
        let mut histories: Vec<Vec<Op>> = vec![Vec::new(); KEYS];
        for (key, op) in self.ops.lock().drain(..) {
            histories[key].push(op);
        }
        let passed = self.passed.lock();
        let expiries: Expiries = self
            .deadlines
            .lock()
            .drain()
            .filter_map(|(number, deadline)| {
                let (tick, _) = passed.iter().find(|(_, now)| *now >= deadline)?;
                Some((number, *tick))
            })
            .collect();
        for (at, history) in histories.iter().enumerate() {
            assert!(history.len() > 100, "a history that says little");
            explain(history, &expiries).map_err(|why| format!("key {at}: {why}"))?;
        }
        Ok(())
    }
}

pub(crate) struct Client {
    store: Arc<dyn Store>,
    clock: ManualClock,
    log: Arc<Log>,
    random: Random,
    /// Whether a write may never give an answer.
    hangs: bool,
    /// Whether it drops writes.
    drops: bool,
}

impl Client {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: ManualClock,
        log: Arc<Log>,
        random: Random,
        hangs: bool,
        drops: bool,
    ) -> Self {
        Self { store, clock, log, random, hangs, drops }
    }

    pub(crate) async fn run(mut self, operations: usize) {
        for _ in 0..operations {
            self.log.asked.fetch_add(1, Ordering::SeqCst);
            match self.random.below(100) {
                0..50 => self.get().await,
                50..65 => self.get_many().await,
                65..70 => self.scan().await,
                70..90 => self.write().await,
                90..95 => self.write_group().await,
                95..99 => self.invalidate().await,
                _ => self.load().await,
            }
            if self.random.chance(0.3) {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn get(&mut self) {
        let at = self.random.below(KEYS);
        let (now, begin) = (self.clock.now(), self.log.tick());
        let answer = self.store.get(&key(at)).await;
        let end = self.log.tick();
        if let Some(found) = tolerated(answer) {
            self.saw(at, now, begin, end, found.as_ref());
        }
    }

    async fn get_many(&mut self) {
        let ats: Vec<usize> =
            (0..1 + self.random.below(KEYS)).map(|_| self.random.below(KEYS)).collect();
        let keys: Vec<Bytes> = ats.iter().copied().map(key).collect();
        let (now, begin) = (self.clock.now(), self.log.tick());
        let answer = self.store.get_many(&keys).await;
        let end = self.log.tick();
        if let Some(found) = tolerated(answer) {
            assert_eq!(found.len(), ats.len());
            for (at, found) in ats.into_iter().zip(&found) {
                self.saw(at, now, begin, end, found.as_ref());
            }
        }
    }

    async fn scan(&mut self) {
        let (now, begin) = (self.clock.now(), self.log.tick());
        let pages: Result<Vec<Page>> = self.store.scan(Scan::all()).try_collect().await;
        let end = self.log.tick();
        if let Some(pages) = tolerated(pages) {
            let entries: HashMap<Bytes, Value> = pages
                .into_iter()
                .flat_map(|page| page.entries)
                .map(|entry| (entry.key, entry.value))
                .collect();
            for at in 0..KEYS {
                self.saw(at, now, begin, end, entries.get(&key(at)));
            }
        }
    }

    fn saw(&self, at: usize, now: Timestamp, begin: u64, end: u64, found: Option<&Value>) {
        let expired = found.is_some_and(|value| value.is_expired(now));
        assert!(!expired, "key {at}: {:?} was served after its time", number(found));
        self.log.saw(at, begin, end, found);
    }

    /// A value of a number of its own, of any size, that expires sometimes.
    fn value(&mut self) -> (u64, Value) {
        let number = self.log.numbers.fetch_add(1, Ordering::SeqCst);
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.resize(8 + self.random.below(LARGEST), 0);
        let value = Value::new(bytes);
        if !self.random.chance(0.1) {
            return (number, value);
        }
        let deadline = self.clock.now() + Duration::from_millis(self.random.below(8) as u64);
        self.log.deadlines.lock().insert(number, deadline);
        (number, value.expiring_at(deadline))
    }

    fn batch(&mut self) -> (Batch, HashMap<usize, Number>) {
        let count = if self.random.chance(0.2) { 1 + self.random.below(KEYS) } else { 1 };
        let ats: Vec<usize> = (0..count).map(|_| self.random.below(KEYS)).collect();
        let mut batch = Batch::new();
        let mut written = HashMap::new();
        for at in ats {
            if self.random.chance(0.3) {
                batch = batch.delete(key(at));
                written.insert(at, None);
            } else {
                let (number, value) = self.value();
                batch = batch.put(key(at), value);
                written.insert(at, Some(number));
            }
        }
        (batch, written)
    }

    /// Each batch by itself may have taken effect, or not.
    async fn write_group(&mut self) {
        let count = 1 + self.random.below(4);
        let (group, written): (Vec<_>, Vec<_>) = (0..count).map(|_| self.batch()).unzip();
        let patience = self.patience();
        let begin = self.log.tick();
        let answers = patient(patience, self.store.write_group(group)).await;
        let answers: Vec<_> = match answers {
            Some(answers) => answers.into_iter().map(Some).collect(),
            None => (0..count).map(|_| None).collect(),
        };
        assert_eq!(answers.len(), count);
        for (answer, written) in answers.into_iter().zip(written) {
            self.wrote(begin, answer.map(|answer| answer.map(drop)), written);
        }
    }

    async fn write(&mut self) {
        let (batch, written) = self.batch();
        let patience = self.patience();
        let begin = self.log.tick();
        let done = patient(patience, self.store.write(batch)).await;
        self.wrote(begin, done.map(|done| done.map(drop)), written);
    }

    /// A run of some keys, which may be taken in part where it fails.
    async fn load(&mut self) {
        let mut written = HashMap::new();
        let mut entries = Vec::new();
        for at in 0..KEYS {
            if self.random.chance(0.3) {
                let (number, value) = self.value();
                entries.push(Entry { key: key(at), value });
                written.insert(at, Some(number));
            }
        }
        let pages: Vec<_> =
            entries.chunks(2).map(|entries| Ok(Page { entries: entries.to_vec() })).collect();
        let patience = self.patience();
        let begin = self.log.tick();
        let done = patient(patience, self.store.load(stream::iter(pages).boxed())).await;
        self.wrote(begin, done.map(|done| done.map(drop)), written);
    }

    /// Of some keys, of a prefix, or of all.
    async fn invalidate(&mut self) {
        let at = self.random.below(KEYS);
        let scope = match self.random.below(3) {
            0 => Scope::Keys(vec![key(at)]),
            1 => Scope::Prefix(key(at).slice(..self.random.below(7))),
            _ => Scope::All,
        };
        self.store.invalidate(scope).await.unwrap();
    }

    /// How often it looks at a write before it drops it, if it does. Some leave at once.
    fn patience(&mut self) -> Option<usize> {
        match self.drops && self.random.chance(0.1) {
            true => Some(self.random.below(6)),
            false => self.hangs.then(|| 50 + self.random.below(100)),
        }
    }

    /// Writes down what a write may have done. `None`: its future was dropped.
    fn wrote(&self, begin: u64, done: Option<Result<()>>, written: HashMap<usize, Number>) {
        let end = match done {
            Some(Ok(())) => Some(self.log.tick()),
            Some(Err(error))
                if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Aborted) =>
            {
                return;
            }
            Some(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
                None
            }
            None => None,
        };
        let mut ops = self.log.ops.lock();
        ops.extend(written.into_iter().map(|(at, number)| {
            let what = What::Write(number);
            (at, Op { begin, end, what })
        }));
    }
}

/// The answer, unless the read failed as one may.
fn tolerated<T>(answer: Result<T>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            use ErrorKind::{Capacity, Timeout, Unavailable};
            let kind = error.kind();
            // The last where there is no room for another load.
            assert!(matches!(kind, Unavailable | Timeout | Capacity), "{error:?}");
            None
        }
    }
}

/// The answer, unless it does not come within so many looks.
async fn patient<T>(looks: Option<usize>, answer: impl Future<Output = T>) -> Option<T> {
    let Some(looks) = looks else { return Some(answer.await) };
    tokio::select! {
        biased;
        answer = answer => Some(answer),
        () = yields(looks) => None,
    }
}

async fn yields(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}
