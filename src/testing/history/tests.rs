//! Each level forbids what it says and no more, and each flaw of a transaction is found.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::anomalies::Anomaly::{
    FuzzyRead, G0, G1a, G1b, G1c, G2Item, GSingle, Internal, LostUpdate,
};
use super::anomalies::Event::{Read as R, Write as W};
use super::anomalies::{Anomaly, Event, History, Run, Version};
use super::interleave::{Begin, Client};
use super::*;
use crate::backends::Memory;
use crate::error::Result;
use crate::ext::{ReadExt, StoreExt};
use crate::store::{Read, Store};
use crate::transaction::{Isolation, Transaction};
use crate::types::{Batch, Scan, Value};

const SEEDS: u64 = 100;

fn history(runs: &[(bool, &[Event])], order: &[(usize, &[Version])]) -> BTreeSet<Anomaly> {
    let runs = runs
        .iter()
        .map(|(committed, events)| Run { committed: *committed, events: events.to_vec() });
    let order = order.iter().map(|(key, versions)| (*key, versions.to_vec()));
    History { runs: runs.collect(), order: order.collect() }.anomalies()
}

fn found(anomalies: impl IntoIterator<Item = Anomaly>) -> BTreeSet<Anomaly> {
    anomalies.into_iter().collect()
}

#[test]
fn textbook_histories_are_named() {
    let (x, y) = (0, 1);
    let none = found([]);
    // One after the other, the second over what the first wrote.
    let serial = history(&[(true, &[W(x, 1)]), (true, &[R(x, Some(1)), W(x, 2)])], &[(x, &[1, 2])]);
    assert_eq!(serial, none);
    let aborted = history(&[(false, &[W(x, 1)]), (true, &[R(x, Some(1))])], &[(x, &[1])]);
    assert_eq!(aborted, found([G1a]));
    let intermediate =
        history(&[(true, &[W(x, 1), W(x, 2)]), (true, &[R(x, Some(1))])], &[(x, &[1, 2])]);
    assert_eq!(intermediate, found([G1b, GSingle, G2Item]));
    let overwritten = history(
        &[(true, &[W(x, 1), W(y, 2)]), (true, &[W(x, 3), W(y, 4)])],
        &[(x, &[1, 3]), (y, &[4, 2])],
    );
    assert_eq!(overwritten, found([G0]));
    let circular = history(
        &[(true, &[W(x, 1), R(y, Some(2))]), (true, &[W(y, 2), R(x, Some(1))])],
        &[(x, &[1]), (y, &[2])],
    );
    assert_eq!(circular, found([G1c]));
    let lost =
        history(&[(true, &[R(x, None), W(x, 1)]), (true, &[R(x, None), W(x, 2)])], &[(x, &[1, 2])]);
    assert_eq!(lost, found([LostUpdate, GSingle, G2Item]));
    let fuzzy = history(&[(true, &[W(x, 1)]), (true, &[R(x, None), R(x, Some(1))])], &[(x, &[1])]);
    assert_eq!(fuzzy, found([FuzzyRead, GSingle, G2Item]));
    let skewed_read = history(
        &[(true, &[W(x, 1), W(y, 2)]), (true, &[R(x, None), R(y, Some(2))])],
        &[(x, &[1]), (y, &[2])],
    );
    assert_eq!(skewed_read, found([GSingle, G2Item]));
    let skewed_write = history(
        &[(true, &[R(x, None), R(y, None), W(x, 1)]), (true, &[R(x, None), R(y, None), W(y, 2)])],
        &[(x, &[1]), (y, &[2])],
    );
    assert_eq!(skewed_write, found([G2Item]));
    assert_eq!(history(&[(true, &[W(x, 1), R(x, None)])], &[(x, &[1])]), found([Internal]));
    // What was not committed is judged by no one.
    assert_eq!(
        history(&[(true, &[W(x, 1)]), (false, &[R(x, None), R(x, Some(1))])], &[(x, &[1])]),
        none
    );
}

/// What the histories of many seeds show, and how many transactions were committed and refused.
async fn searched<B: Begin>(
    make: impl Fn(Arc<dyn Store>) -> B,
) -> (BTreeSet<Anomaly>, usize, usize) {
    let (mut all, mut committed, mut ended) = (BTreeSet::new(), 0, 0);
    for seed in 0..SEEDS {
        let begin = make(Arc::new(Memory::new()));
        let history = interleave(&begin, "k", true, seed).await.unwrap();
        all.extend(history.anomalies());
        committed += history.runs.iter().filter(|run| run.committed).count();
        ended += history.runs.len();
    }
    (all, committed, ended - committed)
}

#[tokio::test]
async fn each_level_shows_what_it_allows_and_nothing_else() {
    for isolation in Isolation::ALL {
        let (anomalies, committed, others) = searched(|store| Plain(store, isolation)).await;
        assert_eq!(anomalies, allowed(isolation), "{isolation}");
        assert!(
            committed > 500 && others > 100,
            "{isolation}: {committed} committed, {others} not"
        );
    }
}

/// What is wrong with transactions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    WritesAtOnce,
    ReadsTheStore,
    HidesItsWrites,
    ForgetsItsConditions,
    ForgetsWhatWasAbsent,
    ForgetsWhatWasThere,
    ForgetsScans,
}

struct Flawed(Arc<dyn Store>, Isolation, Flaw);

struct FlawedClient {
    store: Arc<dyn Store>,
    /// Of the same moment as the transaction.
    beside: Arc<dyn Read>,
    transaction: Transaction,
    flaw: Flaw,
    written: Batch,
}

impl Begin for Flawed {
    type Client = FlawedClient;

    async fn begin(&self) -> Result<FlawedClient> {
        let (store, beside) = (Arc::clone(&self.0), self.0.snapshot().await?);
        let transaction = self.0.begin(self.1).await?;
        let written = Batch::new();
        Ok(FlawedClient { store, beside, transaction, flaw: self.2, written })
    }
}

impl FlawedClient {
    fn source(&self, scans: bool) -> &dyn Read {
        match self.flaw {
            Flaw::ReadsTheStore => &*self.store,
            Flaw::HidesItsWrites => &*self.beside,
            Flaw::ForgetsScans if scans => &*self.beside,
            _ => &self.transaction,
        }
    }
}

impl Client for FlawedClient {
    async fn get(&self, key: &Bytes) -> Result<Option<Value>> {
        let beside = self.beside.get(key).await?;
        let own = self.written.ops().iter().any(|op| op.key() == key);
        let forgotten = match self.flaw {
            Flaw::ForgetsWhatWasAbsent => beside.is_none(),
            Flaw::ForgetsWhatWasThere => beside.is_some(),
            _ => false,
        };
        if forgotten && !own { Ok(beside) } else { self.source(false).get(key).await }
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<(Bytes, Value)>> {
        let entries = self.source(true).collect(scan).await?;
        // A scan that is not forgotten would cover for reads that are.
        let entries = entries.into_iter().filter(|_| self.flaw != Flaw::ForgetsWhatWasThere);
        Ok(entries.map(|entry| (entry.key, entry.value)).collect())
    }

    async fn put(&mut self, key: Bytes, value: Value) -> Result<bool> {
        self.written = std::mem::take(&mut self.written).put(key.clone(), value.clone());
        if self.flaw == Flaw::WritesAtOnce {
            self.store.put(key, value).await?;
            return Ok(true);
        }
        self.transaction.put(key, value).map(|()| false)
    }

    async fn commit(self) -> Result<()> {
        match self.flaw {
            Flaw::WritesAtOnce => Ok(()),
            Flaw::ForgetsItsConditions => self.store.write(self.written).await.map(drop),
            _ => self.transaction.commit().await.map(drop),
        }
    }
}

#[tokio::test]
async fn each_flaw_of_a_transaction_is_found() {
    use Isolation::{ReadCommitted, RepeatableRead, Serializable};
    let dirty = [G0, G1a, G1b, G1c];
    for (isolation, flaw, must_show) in [
        (ReadCommitted, Flaw::WritesAtOnce, &dirty[..]),
        (ReadCommitted, Flaw::HidesItsWrites, &[Internal]),
        (RepeatableRead, Flaw::ReadsTheStore, &[FuzzyRead, GSingle]),
        (RepeatableRead, Flaw::ForgetsItsConditions, &[LostUpdate, GSingle]),
        (Serializable, Flaw::ForgetsItsConditions, &[LostUpdate, G2Item]),
        (Serializable, Flaw::ForgetsWhatWasAbsent, &[G2Item]),
        (Serializable, Flaw::ForgetsWhatWasThere, &[G2Item]),
        (Serializable, Flaw::ForgetsScans, &[G2Item]),
    ] {
        let (anomalies, ..) = searched(|store| Flawed(store, isolation, flaw)).await;
        for anomaly in must_show {
            assert!(!allowed(isolation).contains(anomaly), "{isolation} allows {anomaly:?}");
            assert!(
                anomalies.contains(anomaly),
                "{isolation}: {anomaly:?} is not among {anomalies:?}"
            );
        }
    }
}
