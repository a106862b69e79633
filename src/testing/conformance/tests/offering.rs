//! A memory store that offers what it is made to, with one defect.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Lock, broadcast};

use crate::backends::Memory;
use crate::clock::ManualClock;
use crate::error::{Error, ErrorKind, Result};
use crate::forward;
use crate::store::{Change, Changes, Pages, Read, Store};
use crate::testing::conformance::Fixture;
use crate::types::{
    Batch, Commit, Condition, Conditions, Counting, Freshness, Guarantees, Limits, Op, Page,
    Profile, RunOrder, Scan, Usage, Value,
};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    // Conditions
    ConditionIsIgnored,
    ConditionIsNotAtomic,
    ConditionLooksAtOneKey,
    ConditionLeavesTheStart,
    DeletedKeysExist,
    ExpiredKeysExist,
    DeletesAreConditions,
    BatchMeetsItself,
    ValuesAreNotCompared,
    ExpiriesAreNotCompared,
    ExpiredValuesAreThere,
    ConditionsOnOtherKeysAreIgnored,
    EmptyBatchesCheckNothing,
    ValuesAreComparedBefore,
    ConditionIsTakenUnguaranteed,
    // Runs
    RunKeepsWhatExists,
    RunRemovesOthers,
    RunIsSeenLater,
    RunCountsPages,
    RunEndsWithAnEmptyPage,
    RunForgetsItsLastPage,
    RunOrderIsNotChecked,
    RunOrderIsCheckedWithinPages,
    RunErrorIsTheEnd,
    RunErrorIsHidden,
    RunLosesDeadlines,
    RunShowsInSnapshots,
    RunHoldsALock,
    DroppedRunLeavesALock,
    RunIsTakenUnguaranteed,
    // Reports
    ReportsNothing,
    ReportsNoDeletes,
    ReportsTooEarly,
    ReportsToOne,
    ReportsAfterClose,
    ReportsUnguaranteed,
    // Counts
    CountsOverwrites,
    CountsExpired,
    CountsUnguaranteed,
    CountsTheRest,
    CountIsOneShort,
}

/// A memory store that offers what it is made to.
pub(super) struct Offering {
    memory: Arc<Memory>,
    bug: Bug,
    guarantees: Guarantees,
    /// Keys that were ever put.
    ever: Mutex<BTreeSet<Bytes>>,
    puts: AtomicU64,
    late: Mutex<Vec<Page>>,
    lock: Arc<Lock<()>>,
    locked: AtomicBool,
    subscriptions: Mutex<Vec<broadcast::Sender<Change>>>,
}

pub(super) fn everything(guarantees: &mut Guarantees) {
    guarantees.freshness = Freshness::Immediate;
    guarantees.change_feed = Some(Duration::from_millis(1));
    guarantees.counts = Counting::Exact;
}

pub(super) fn hardly_anything(guarantees: &mut Guarantees) {
    guarantees.atomic_batches = false;
    guarantees.conditions = Conditions::None;
    guarantees.ordered_scans = false;
    guarantees.atomic_pages = false;
    guarantees.snapshots = false;
    guarantees.expiry = false;
    guarantees.ingest = false;
    guarantees.counts = Counting::No;
    guarantees.limits = Limits {
        key_bytes: 250,
        value_bytes: Some(1 << 20),
        batch_ops: Some(1),
        ..Limits::default()
    };
}

pub(super) fn store(bug: Bug, change: impl Fn(&mut Guarantees)) -> (Arc<Offering>, ManualClock) {
    let clock = ManualClock::new();
    let memory = Arc::new(Memory::with_clock(Arc::new(clock.clone())));
    let mut guarantees = memory.profile().guarantees;
    change(&mut guarantees);
    let store = Offering {
        memory,
        bug,
        guarantees,
        ever: Mutex::default(),
        puts: AtomicU64::new(0),
        late: Mutex::default(),
        lock: Arc::default(),
        locked: AtomicBool::new(false),
        subscriptions: Mutex::default(),
    };
    (Arc::new(store), clock)
}

pub(super) fn offering(bug: Bug, change: impl Fn(&mut Guarantees)) -> Fixture {
    let (store, clock) = store(bug, change);
    let foreign = Arc::clone(&store);
    Fixture::new(store).with_clock(&clock).changed_by(move |op| {
        let store = Arc::clone(&foreign);
        async move { store.foreign(op).await }
    })
}

impl Offering {
    fn has(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    /// Another program writes.
    async fn foreign(&self, op: Op) -> Result<()> {
        let (deletes, change) = (op.value().is_none(), Change::Keys(vec![op.key().clone()]));
        if self.has(Bug::ReportsTooEarly) {
            self.report(&change);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = self.memory.write([op].into_iter().collect()).await?;
        match self.bug {
            Bug::ReportsNothing | Bug::ReportsTooEarly => {}
            Bug::ReportsNoDeletes if deletes => {}
            _ => self.report(&change),
        }
        Ok(())
    }

    fn report(&self, change: &Change) {
        for subscription in self.subscriptions.lock().iter() {
            let _ = subscription.send(change.clone());
            if self.has(Bug::ReportsToOne) {
                break;
            }
        }
    }

    fn count(&self) -> u64 {
        let pages = self.memory.scan(Scan::all()).try_collect::<Vec<Page>>();
        let pages = futures_util::FutureExt::now_or_never(pages).unwrap().unwrap();
        pages.iter().map(|page| page.len() as u64).sum()
    }

    /// Writes where keys are absent, in the wrong way.
    async fn condition(&self, batch: Batch) -> Result<Commit> {
        let puts = || batch.ops().iter().filter(|op| op.value().is_some());
        let plain = || -> Batch { batch.ops().iter().cloned().collect() };
        match self.bug {
            Bug::ConditionIsIgnored => self.memory.write(plain()).await,
            Bug::ConditionIsNotAtomic => {
                for op in puts() {
                    if self.memory.get(op.key()).await?.is_some() {
                        return Err(Error::exists(op.key()));
                    }
                }
                tokio::task::yield_now().await;
                self.memory.write(plain()).await
            }
            Bug::ConditionLooksAtOneKey => {
                let first = puts().next();
                if let Some(op) = first
                    && self.memory.get(op.key()).await?.is_some()
                {
                    return Err(Error::exists(op.key()));
                }
                self.memory.write(plain()).await
            }
            Bug::ConditionLeavesTheStart => {
                for op in batch.ops() {
                    let one: Batch = [op.clone()].into_iter().collect();
                    let _ = self.memory.write(one.if_absent()).await?;
                }
                Ok(Commit::done())
            }
            Bug::DeletedKeysExist => {
                let ever = self.ever.lock().clone();
                match puts().find(|op| ever.contains(op.key())) {
                    Some(op) => Err(Error::exists(op.key())),
                    None => self.memory.write(plain()).await,
                }
            }
            Bug::ExpiredKeysExist => {
                let ever = self.ever.lock().clone();
                for op in puts() {
                    if ever.contains(op.key()) && self.memory.get(op.key()).await?.is_none() {
                        return Err(Error::exists(op.key()));
                    }
                }
                self.memory.write(batch).await
            }
            Bug::DeletesAreConditions => {
                for op in batch.ops() {
                    if self.memory.get(op.key()).await?.is_some() {
                        return Err(Error::exists(op.key()));
                    }
                }
                self.memory.write(plain()).await
            }
            Bug::BatchMeetsItself => {
                let keys: BTreeSet<&Bytes> = puts().map(Op::key).collect();
                if keys.len() < puts().count() {
                    return Err(Error::exists(b"k"));
                }
                self.memory.write(batch).await
            }
            Bug::ValuesAreNotCompared => {
                for condition in batch.conditions() {
                    let found = self.memory.get(condition.key()).await?;
                    if found.is_some() != condition.value().is_some() {
                        return Err(condition.unmet());
                    }
                }
                self.memory.write(plain()).await
            }
            Bug::ExpiriesAreNotCompared => {
                for condition in batch.conditions() {
                    let found = self.memory.get(condition.key()).await?;
                    let bytes = |value: &Value| value.bytes.clone();
                    if found.as_ref().map(bytes) != condition.value().map(bytes) {
                        return Err(condition.unmet());
                    }
                }
                self.memory.write(plain()).await
            }
            Bug::ExpiredValuesAreThere => {
                let ever = self.ever.lock().clone();
                let gone = |condition: &&Condition| {
                    condition.value().is_some() && ever.contains(condition.key())
                };
                let mut kept = batch.conditions().to_vec();
                for condition in batch.conditions().iter().filter(gone) {
                    if self.memory.get(condition.key()).await?.is_none() {
                        kept.retain(|other| other != condition);
                    }
                }
                self.memory.write(batch.with_conditions(kept)).await
            }
            Bug::ConditionsOnOtherKeysAreIgnored => {
                let own = |condition: &Condition| {
                    batch.is_empty() || batch.ops().iter().any(|op| op.key() == condition.key())
                };
                let kept = batch.conditions().iter().filter(|c| own(c)).cloned().collect();
                self.memory.write(batch.with_conditions(kept)).await
            }
            Bug::EmptyBatchesCheckNothing if batch.is_empty() => Ok(Commit::done()),
            Bug::ValuesAreComparedBefore => {
                let checks = Batch::new().with_conditions(batch.conditions().to_vec());
                let _ = self.memory.write(checks).await?;
                tokio::task::yield_now().await;
                self.memory.write(plain()).await
            }
            _ => self.memory.write(batch).await,
        }
    }

    /// Puts a run, in the wrong way.
    async fn put_run(&self, mut run: Pages<'_>) -> Result<u64> {
        let _held = match self.bug {
            Bug::RunHoldsALock => Some(Arc::clone(&self.lock).lock_owned().await),
            _ => None,
        };
        if self.has(Bug::DroppedRunLeavesALock) && self.locked.swap(true, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "a run is under way"));
        }
        if self.has(Bug::RunRemovesOthers) {
            let all: Vec<Page> = self.memory.scan(Scan::all()).try_collect().await?;
            let deletes = all.into_iter().flat_map(|page| page.entries);
            let _ = self.memory.write(deletes.map(|entry| Op::Delete(entry.key)).collect()).await?;
        }
        let (mut order, mut entries, mut pages) = (RunOrder::default(), 0, 0);
        let mut held_back = None;
        loop {
            let page = match run.try_next().await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(_) if self.has(Bug::RunErrorIsTheEnd) => break,
                Err(_) if self.has(Bug::RunErrorIsHidden) => {
                    return Err(Error::internal("the run could not be read"));
                }
                Err(error) => return Err(error),
            };
            match self.bug {
                Bug::RunOrderIsNotChecked => {}
                Bug::RunOrderIsCheckedWithinPages => RunOrder::default().check(&page)?,
                _ => order.check(&page)?,
            }
            if self.has(Bug::RunEndsWithAnEmptyPage) && page.is_empty() {
                break;
            }
            pages += 1;
            entries += page.len() as u64;
            let mut page = page;
            match self.bug {
                Bug::RunKeepsWhatExists => {
                    let mut new = Vec::new();
                    for entry in page.entries {
                        if self.memory.get(&entry.key).await?.is_none() {
                            new.push(entry);
                        }
                    }
                    page.entries = new;
                }
                Bug::RunLosesDeadlines => {
                    page.entries.iter_mut().for_each(|entry| entry.value.expires_at = None);
                }
                Bug::RunIsSeenLater => {
                    self.late.lock().push(page);
                    continue;
                }
                Bug::RunForgetsItsLastPage if page.len() == 700 => {
                    held_back = Some(page);
                    continue;
                }
                _ => {}
            }
            drop(held_back.take());
            let puts = page.entries.into_iter().map(|entry| Op::Put(entry.key, entry.value));
            let _ = self.memory.write(puts.collect()).await?;
            if self.has(Bug::DroppedRunLeavesALock) {
                tokio::task::yield_now().await;
            }
        }
        self.locked.store(false, Ordering::SeqCst);
        Ok(if self.has(Bug::RunCountsPages) { pages } else { entries })
    }
}

impl Read for Offering {
    fn scan(&self, scan: Scan) -> Pages<'_> {
        if self.guarantees.ordered_scans {
            return self.memory.scan(scan);
        }
        stream::iter([Err(Error::unsupported("no scans"))]).boxed()
    }

    forward!(self => self.memory; get, get_many);
}

#[async_trait]
impl Store for Offering {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        if self.has(Bug::ConditionIsTakenUnguaranteed) && batch.is_conditional() {
            return self.memory.write(batch).await;
        }
        self.guarantees.check_batch(&batch)?;
        if self.has(Bug::RunHoldsALock) {
            drop(self.lock.lock().await);
        }
        let late = std::mem::take(&mut *self.late.lock());
        for page in late {
            let puts = page.entries.into_iter().map(|entry| Op::Put(entry.key, entry.value));
            let _ = self.memory.write(puts.collect()).await?;
        }
        let puts: Vec<Bytes> = batch
            .ops()
            .iter()
            .filter(|op| op.value().is_some())
            .map(|op| op.key().clone())
            .collect();
        let deletes = batch.len() - puts.len();
        let commit = match batch.is_conditional() {
            true => self.condition(batch).await?,
            false => self.memory.write(batch).await?,
        };
        self.puts.fetch_add(puts.len() as u64, Ordering::SeqCst);
        self.puts.fetch_sub(deletes as u64, Ordering::SeqCst);
        self.ever.lock().extend(puts);
        Ok(commit)
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        crate::write_in_order(self, group).await
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        let _ = self.memory.usage().await?;
        if !self.guarantees.ingest && !self.has(Bug::RunIsTakenUnguaranteed) {
            return Err(Error::unsupported("no runs"));
        }
        let limits = self.guarantees.limits;
        let checked = run.and_then(move |page| {
            let wrong = page
                .entries
                .iter()
                .find_map(|entry| limits.check(entry.key.len(), entry.value.bytes.len()).err());
            futures_util::future::ready(wrong.map_or(Ok(page), Err))
        });
        self.put_run(checked.boxed()).await
    }

    async fn changes(&self) -> Result<Changes> {
        let _ = self.memory.usage().await?;
        if self.guarantees.change_feed.is_none() && !self.has(Bug::ReportsUnguaranteed) {
            return Err(Error::unsupported("there is no change feed"));
        }
        let (sender, receiver) = broadcast::channel(100);
        self.subscriptions.lock().push(sender);
        let changes = stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await.ok()?, receiver))
        });
        Ok(changes.boxed())
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        if !self.guarantees.snapshots {
            let _ = self.memory.usage().await?;
            return Err(Error::unsupported("no snapshots"));
        }
        if self.has(Bug::RunShowsInSnapshots) {
            return Ok(Arc::clone(&self.memory) as _);
        }
        self.memory.snapshot().await
    }

    async fn usage(&self) -> Result<Usage> {
        let usage = self.memory.usage().await?;
        let exact = match self.bug {
            Bug::CountsOverwrites => self.puts.load(Ordering::SeqCst),
            Bug::CountsExpired => usage.entries.unwrap_or_default(),
            _ => self.count(),
        };
        let entries = match self.guarantees.counts {
            Counting::No if !self.has(Bug::CountsUnguaranteed) => None,
            _ => Some(exact),
        };
        Ok(Usage { entries, ..usage })
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        let counted = self.memory.count(if self.has(Bug::CountsTheRest) { b"" } else { prefix });
        let short = u64::from(self.has(Bug::CountIsOneShort));
        Ok(counted.await?.map(|counted| counted.saturating_sub(short)))
    }

    async fn close(&self) -> Result<()> {
        if !self.has(Bug::ReportsAfterClose) {
            self.subscriptions.lock().clear();
        }
        self.memory.close().await
    }

    fn profile(&self) -> Profile {
        self.memory.profile().changed(|guarantees| *guarantees = self.guarantees.clone())
    }

    forward!(self => self.memory; invalidate, inspect, flush, compact, identity);
}
