//! Transactions that are open at the same time, of which a seed says which one does what next.
//!
//! One task runs them all, as no transaction waits for another. So the same seed gives the same history over every
//! store that keeps its guarantees.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use super::anomalies::{Event, History, Run, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{ReadExt, StoreExt};
use crate::store::{Read, Store};
use crate::testing::random::Random;
use crate::transaction::{Isolation, Transaction};
use crate::types::{Scan, Value};

const KEYS: usize = 4;
/// Transactions that are open at a time.
const OPEN: usize = 3;
const RUNS: usize = 24;

/// What gives transactions.
pub(in crate::testing) trait Begin: Sync {
    type Client: Client;
    fn begin(&self) -> impl Future<Output = Result<Self::Client>> + Send;
}

/// A transaction, or what claims to be one.
pub(in crate::testing) trait Client: Send {
    fn get(&self, key: &Bytes) -> impl Future<Output = Result<Option<Value>>> + Send;
    fn scan(&self, scan: Scan) -> impl Future<Output = Result<Vec<(Bytes, Value)>>> + Send;
    /// Says whether others may see the write at once.
    fn put(&mut self, key: Bytes, value: Value) -> impl Future<Output = Result<bool>> + Send;
    fn commit(self) -> impl Future<Output = Result<()>> + Send;
}

/// Transactions of a store, as they are.
pub(in crate::testing) struct Plain(
    pub(in crate::testing) Arc<dyn Store>,
    pub(in crate::testing) Isolation,
);

impl Begin for Plain {
    type Client = Transaction;

    fn begin(&self) -> impl Future<Output = Result<Transaction>> + Send {
        self.0.begin(self.1)
    }
}

impl Client for Transaction {
    async fn get(&self, key: &Bytes) -> Result<Option<Value>> {
        Read::get(self, key).await
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<(Bytes, Value)>> {
        let entries = self.collect(scan).await?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    async fn put(&mut self, key: Bytes, value: Value) -> Result<bool> {
        self.put(key, value).map(|()| false)
    }

    async fn commit(self) -> Result<()> {
        self.commit().await.map(drop)
    }
}

struct Opened<C> {
    client: C,
    run: usize,
}

/// Runs transactions on a few keys with this prefix, of which none exists, and gives what they saw. `scans`: whether
/// the store offers them.
pub(in crate::testing) async fn interleave<B: Begin>(
    begin: &B,
    prefix: &str,
    scans: bool,
    seed: u64,
) -> Result<History> {
    let mut random = Random::new(seed);
    let mut history = History::default();
    let mut open: Vec<Opened<B::Client>> = Vec::new();
    let mut next: Version = 0;
    let key = |n: usize| Bytes::from(format!("{prefix}{n}"));
    while history.runs.len() < RUNS || !open.is_empty() {
        if open.len() < OPEN && history.runs.len() < RUNS {
            open.push(Opened { client: begin.begin().await?, run: history.runs.len() });
            history.runs.push(Run::default());
            continue;
        }
        let at = random.below(open.len());
        let (chosen, one) = (random.below(KEYS), random.below(10));
        let Some(Opened { client, run }) = open.get_mut(at) else { break };
        let Some(Run { events, .. }) = history.runs.get_mut(*run) else { break };
        match one {
            0..4 => events.push(Event::Read(chosen, version(client.get(&key(chosen)).await?)?)),
            4 if scans => {
                for (found, value) in client.scan(Scan::prefix(prefix)).await? {
                    let number = (0..KEYS).find(|n| key(*n) == found);
                    let number =
                        number.ok_or_else(|| Error::internal("a scan gives another key"))?;
                    events.push(Event::Read(number, version(Some(value))?));
                }
            }
            4..8 => {
                next += 1;
                events.push(Event::Write(chosen, next));
                if client.put(key(chosen), Value::new(next.to_string())).await? {
                    history.order.entry(chosen).or_default().push(next);
                }
            }
            8 if random.below(3) == 0 => drop(open.swap_remove(at)),
            _ => {
                let Opened { client, run } = open.swap_remove(at);
                let committed = client.commit().await;
                history.end(run, committed)?;
            }
        }
    }
    Ok(history)
}

impl History {
    /// Notes how a run ended. The writes of one that was committed took effect after all before them.
    fn end(&mut self, run: usize, committed: Result<()>) -> Result<()> {
        match committed {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
            Err(error) => return Err(error),
        }
        let Some(run) = self.runs.get_mut(run) else { return Ok(()) };
        run.committed = true;
        let mut last = BTreeMap::new();
        for event in &run.events {
            if let Event::Write(key, version) = *event {
                last.insert(key, version);
            }
        }
        for (key, version) in last {
            let order = self.order.entry(key).or_default();
            if !order.contains(&version) {
                order.push(version);
            }
        }
        Ok(())
    }
}

fn version(value: Option<Value>) -> Result<Option<Version>> {
    let Some(value) = value else { return Ok(None) };
    let number = std::str::from_utf8(&value.bytes).ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| Error::internal("a value is not one that was written"))
}
