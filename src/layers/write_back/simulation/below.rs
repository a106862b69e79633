//! A store below that dawdles, fails before and after the effect of a call, and loses in a power cut what was not flushed.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use parking_lot::Mutex;

use crate::backends::Memory;
use crate::clock::{Clock, ManualClock};
use crate::error::{Error, ErrorKind, Result};
use crate::forward;
use crate::journal::tests::faulty::End;
use crate::journal::tests::rng::Rng;
use crate::reply::Reply;
use crate::store::{Pages, Read, Store};
use crate::types::{Batch, Commit, Durability, Identity, Op, Profile, Scan, Value};

/// The data, which outlives the process.
#[derive(Debug)]
pub(super) struct Data {
    map: BTreeMap<Bytes, Value>,
    /// What may be lost in a power cut, but not in part.
    unsynced: Vec<Vec<Op>>,
    /// Whether each write is synced.
    synced: bool,
    pub(super) atomic: bool,
    /// In percent, how many calls fail.
    pub(super) failing: u64,
    /// No call succeeds.
    pub(super) away: bool,
    rng: Rng,
    pub(super) writes: u64,
}

impl Data {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            map: BTreeMap::new(),
            unsynced: Vec::new(),
            synced: rng.percent(50),
            atomic: rng.percent(70),
            failing: 0,
            away: false,
            rng: Rng(rng.next()),
            writes: 0,
        }
    }

    fn sync(&mut self) {
        for op in self.unsynced.drain(..).flatten() {
            match op {
                Op::Put(key, value) => drop(self.map.insert(key, value)),
                Op::Delete(key) => drop(self.map.remove(&key)),
            }
        }
    }

    /// The process has ended.
    pub(super) fn restart(&mut self, end: End) {
        if end == End::PowerCut {
            let kept = self.rng.below(self.unsynced.len() as u64 + 1);
            self.unsynced.truncate(kept as usize);
        }
        self.sync();
    }
}

pub(super) struct Below {
    memory: Memory,
    data: Arc<Mutex<Data>>,
}

impl Below {
    /// What the next process finds.
    pub(super) async fn open(data: &Arc<Mutex<Data>>, clock: &ManualClock) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let memory = Memory::with_clock(clock);
        let all = data.lock().map.clone();
        let batch: Batch = all.into_iter().map(|(key, value)| Op::Put(key, value)).collect();
        let _ = memory.write(batch).await.unwrap();
        Self { memory, data: Arc::clone(data) }
    }

    /// The data alone, of which no call fails.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    async fn dawdle(&self) {
        let rounds = self.data.lock().rng.below(4);
        for _ in 0..rounds {
            tokio::task::yield_now().await;
        }
    }

    fn strike(&self, kind: ErrorKind) -> Result<()> {
        let mut data = self.data.lock();
        let failing = data.failing;
        if data.away || data.rng.percent(failing) {
            return Err(Error::new(kind, "a call fails"));
        }
        Ok(())
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.dawdle().await;
        self.strike(ErrorKind::Unavailable)?;
        let answer = call.await;
        self.dawdle().await;
        answer
    }

    /// At one moment.
    async fn take(&self, batch: Batch) -> Result<Commit> {
        {
            let mut data = self.data.lock();
            data.writes += 1;
            data.unsynced.push(batch.ops().to_vec());
            if data.synced {
                data.sync();
            }
        }
        self.memory.write(batch).await
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for Below {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        Reply::later(self.call(async { self.memory.get(key).await }))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        Reply::later(self.call(async { self.memory.get_many(keys).await }))
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        let first = async move {
            self.dawdle().await;
            self.strike(ErrorKind::Unavailable)?;
            Ok(self.memory.scan(scan))
        };
        Box::pin(futures_util::stream::once(first).try_flatten())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Below {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.dawdle().await;
        self.strike(ErrorKind::Unavailable)?;
        let atomic = self.data.lock().atomic;
        assert!(atomic || batch.len() <= 1, "a batch for a store that takes none");
        let done = self.take(batch).await;
        self.dawdle().await;
        self.strike(ErrorKind::Timeout)?;
        done
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        crate::write_group::write_in_order(self, group).await
    }

    async fn ingest(&self, mut run: Pages<'_>) -> Result<u64> {
        let mut entries = 0;
        while let Some(page) = run.try_next().await? {
            self.dawdle().await;
            self.strike(ErrorKind::Unavailable)?;
            entries += page.len() as u64;
            let ops = page.entries.into_iter().map(|entry| Op::Put(entry.key, entry.value));
            let _ = self.take(ops.collect()).await?;
        }
        self.strike(ErrorKind::Timeout)?;
        Ok(entries)
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.call(self.memory.snapshot()).await
    }

    async fn flush(&self) -> Result<()> {
        self.dawdle().await;
        self.strike(ErrorKind::Unavailable)?;
        self.data.lock().sync();
        self.dawdle().await;
        self.strike(ErrorKind::Timeout)
    }

    fn profile(&self) -> Profile {
        let data = self.data.lock();
        let durability = if data.synced { Durability::PowerCut } else { Durability::ProcessCrash };
        self.memory.profile().changed(|guarantees| {
            guarantees.durability = durability;
            guarantees.durability_after_flush = Durability::PowerCut;
            guarantees.atomic_batches = data.atomic;
        })
    }

    fn identity(&self) -> Option<Identity> {
        None
    }

    forward!(self => self.memory; changes, invalidate, inspect, compact, usage, count, close);
}
