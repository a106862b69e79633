//! A store below that does whatever a store may do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tierstack::backends::Memory;
use tierstack::testing::Random;
use tierstack::{
    Batch, Change, Changes, Clock, Commit, Error, ErrorKind, Freshness, ManualClock, Pages,
    Profile, Read, Reply, Result, Scan, Store, Value, forward,
};
use tokio::sync::mpsc;

/// Answers at once or later, and fails for sure, before its effect, after it, or long before it.
#[derive(Debug)]
pub(crate) struct Unruly {
    memory: Memory,
    random: Mutex<Random>,
    fails: Fails,
    /// Whether it reports what is written. The subscribers, and whether they were told that the feed is lost.
    change_feed: bool,
    listeners: Mutex<Vec<mpsc::UnboundedSender<Change>>>,
    lost: AtomicBool,
    /// Batches that no task waits for any more, with the rounds until they arrive.
    late: Mutex<Vec<(u8, Batch)>>,
}

/// How writes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fails {
    Never,
    /// Before their effect or after it, so that they can be tried again.
    Passing,
    /// Also for good, late, and without an answer.
    Anyhow,
}

/// What becomes of a write.
enum Fate {
    Done,
    Refused,
    FailsBefore,
    FailsAfter,
    /// Fails, and arrives.
    Late,
    /// Gives no answer, and arrives.
    Hangs,
}

impl Unruly {
    pub(crate) fn new(seed: u64, clock: &ManualClock, fails: Fails, change_feed: bool) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let memory = Memory::with_clock(clock);
        Self {
            memory,
            random: Mutex::new(Random::new(seed)),
            fails,
            change_feed,
            listeners: Mutex::default(),
            lost: AtomicBool::new(false),
            late: Mutex::default(),
        }
    }

    /// Lets what is late come closer. After two rounds it is there.
    pub(crate) async fn round(&self) {
        let mut due = Vec::new();
        self.late.lock().retain_mut(|(rounds, batch)| {
            *rounds -= 1;
            if *rounds == 0 {
                due.push(batch.clone());
            }
            *rounds > 0
        });
        for batch in due {
            let _ = self.take(batch).await.unwrap();
        }
        // The connection is lost, and found again.
        if self.lost.load(Ordering::SeqCst) || self.draw(10) == 0 {
            let was = self.lost.fetch_xor(true, Ordering::SeqCst);
            self.report(&if was { Change::All } else { Change::Lost });
        }
    }

    fn report(&self, change: &Change) {
        self.listeners.lock().retain(|listener| listener.send(change.clone()).is_ok());
    }

    async fn take(&self, batch: Batch) -> Result<Commit> {
        let keys = batch.ops().iter().map(|op| op.key().clone()).collect();
        let commit = self.memory.write(batch).await;
        self.report(&Change::Keys(keys));
        commit
    }

    fn draw(&self, end: usize) -> usize {
        self.random.lock().below(end)
    }

    async fn dawdle(&self) {
        for _ in 0..self.draw(4) {
            tokio::task::yield_now().await;
        }
    }

    fn fate(&self) -> Fate {
        match (self.fails, self.draw(40)) {
            (Fails::Never, _) => Fate::Done,
            (_, 1) => Fate::FailsBefore,
            (_, 2) => Fate::FailsAfter,
            (Fails::Passing, _) => Fate::Done,
            (_, 0) => Fate::Refused,
            (_, 3) => Fate::Late,
            (_, 4) => Fate::Hangs,
            _ => Fate::Done,
        }
    }

    fn comes_late(&self, batch: Batch) {
        let rounds = 1 + self.draw(2) as u8;
        self.late.lock().push((rounds, batch));
    }

    fn answers_now(&self) -> bool {
        self.draw(3) == 0
    }

    async fn read<T>(&self, read: impl Future<Output = Result<T>>) -> Result<T> {
        self.dawdle().await;
        let answer = read.await;
        self.dawdle().await;
        if self.draw(50) == 0 {
            return Err(Error::new(ErrorKind::Unavailable, "a read fails"));
        }
        answer
    }
}

impl Read for Unruly {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        if self.answers_now() {
            return self.memory.get(key);
        }
        Reply::later(self.read(async { self.memory.get(key).await }))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        if self.answers_now() {
            return self.memory.get_many(keys);
        }
        Reply::later(self.read(async { self.memory.get_many(keys).await }))
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        self.memory.scan(scan)
    }
}

#[async_trait]
impl Store for Unruly {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let failed = Err(Error::new(ErrorKind::Timeout, "a write fails"));
        let fate = self.fate();
        if matches!(fate, Fate::Hangs) {
            self.comes_late(batch);
            return std::future::pending().await;
        }
        self.dawdle().await;
        match fate {
            Fate::Refused => return Err(Error::invalid("a write is refused")),
            Fate::FailsBefore => return failed,
            Fate::Late => {
                self.comes_late(batch);
                return failed;
            }
            _ => {}
        }
        let done = self.take(batch).await;
        self.dawdle().await;
        if matches!(fate, Fate::FailsAfter) { failed } else { done }
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        tierstack::write_in_order(self, group).await
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        self.dawdle().await;
        self.memory.ingest(run).await
    }

    async fn changes(&self) -> Result<Changes> {
        if !self.change_feed {
            return self.memory.changes().await;
        }
        self.dawdle().await;
        let (listener, mut changes) = mpsc::unbounded_channel();
        self.listeners.lock().push(listener);
        Ok(futures_util::stream::poll_fn(move |context| changes.poll_recv(context)).boxed())
    }

    async fn close(&self) -> Result<()> {
        self.listeners.lock().clear();
        self.memory.close().await
    }

    fn profile(&self) -> Profile {
        let profile = self.memory.profile();
        if !self.change_feed {
            return profile;
        }
        profile.changed(|guarantees| {
            guarantees.change_feed = Some(Duration::from_millis(1));
            guarantees.freshness = Freshness::Immediate;
        })
    }

    forward!(self => self.memory; invalidate, inspect, snapshot, flush, compact, usage, count, identity);
}
