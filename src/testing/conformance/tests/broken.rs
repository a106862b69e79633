//! A memory store with one defect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::keys;
use super::snapshots::{Expiring, Mortal};
use crate::backends::Memory;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::forward;
use crate::reply::Reply;
use crate::store::{Pages, Read, Store};
use crate::testing::conformance::Fixture;
use crate::types::{Batch, Commit, Condition, Durability, Op, Order, Page, Profile, Scan, Value};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    // Writing
    DropsTheLastOp,
    FirstOpOfAKeyWins,
    BatchIsNotAtomic,
    WrongKeyInTheMiddleLeavesTheStart,
    AcceptsLongKeys,
    AcceptsMoreDurability,
    SequenceStandsStill,
    EmptyValueIsADelete,
    DroppedWriteIsHalf,
    LosesConcurrentWrites,
    // Groups
    GroupLosesItsOrder,
    GroupAnswersOutOfStep,
    GroupGoesOn,
    GroupIsCutShort,
    GroupForgetsTheRest,
    GroupChecksConditionsFirst,
    // Reading
    StaleGet,
    BulkReadsSortTheirKeys,
    BulkReadsSkipMissing,
    GetChecksNoKey,
    // Scans
    ReverseLimitIsOneShort,
    IncludedBoundIsExcluded,
    EmptyLastPage,
    PageIgnoresItsSize,
    PageIgnoresItsBytes,
    ScanIsOpenedAtOnce,
    ScanRepeatsTheKeyBetweenPages,
    ScanHoldsALock,
    SignedOrder,
    // Scans of keys only
    KeysComeWithValues,
    KeysComeWithDeadlines,
    KeysOfEmptyValuesAreLeftOut,
    KeysFillWhatIsKept,
    KeysOfExpiredEntriesAppear,
    KeysGoOnBehindTheirPage,
    SnapshotListsTheKeysOfNow,
    // Snapshots
    SnapshotSeesLaterWrites,
    SnapshotExpires,
    SnapshotDiesOnCompaction,
    // Expiry
    ScanShowsExpired,
    ExpiredCountForTheLimit,
    DeadlineIsOneLate,
    DeadlineIsForgotten,
    DeadlineOutlivesOverwrite,
    // Closing
    GetAfterClose,
    WriteAfterClose,
    SecondCloseFails,
    EmptiesBeforeItCloses,
    // Saying
    ErrorsTellTheKey,
    ProfileChanges,
    RefusesNothing,
    Panics,
    Hangs,
}

/// A memory store with a bug.
pub(super) struct Broken {
    memory: Arc<Memory>,
    bug: Bug,
    pub(super) clock: ManualClock,
    closed: AtomicBool,
    after_close: AtomicUsize,
    calls: AtomicUsize,
    /// Entries as they were before their last write, and deadlines of keys.
    pub(super) before: Mutex<Vec<(Bytes, Option<Value>)>>,
    /// Held from the first page of a scan to its last by a store that should not.
    lock: Arc<tokio::sync::Mutex<()>>,
    /// A scan of keys only was asked for.
    listed: AtomicBool,
}

pub(super) fn broken(bug: Bug) -> Fixture {
    let clock = ManualClock::new();
    let memory = Arc::new(Memory::with_clock(Arc::new(clock.clone())));
    let store = Broken {
        memory,
        bug,
        clock: clock.clone(),
        closed: AtomicBool::new(false),
        after_close: AtomicUsize::new(0),
        calls: AtomicUsize::new(0),
        before: Mutex::default(),
        lock: Arc::default(),
        listed: AtomicBool::new(false),
    };
    Fixture::new(store).with_clock(&clock)
}

impl Broken {
    fn has(&self, bug: Bug) -> bool {
        self.bug == bug
    }
}

impl Read for Broken {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        let reply = self.memory.get(key);
        match self.bug {
            Bug::KeysFillWhatIsKept if self.listed.load(Ordering::SeqCst) => {
                reply.map(|value| value.map(|_| Value::default()))
            }
            Bug::StaleGet => {
                let before = self.before.lock();
                let stale = before.iter().rev().find(|(written, _)| written == key);
                stale.map_or(reply, |(_, value)| Reply::ready(value.clone()))
            }
            Bug::GetChecksNoKey => reply.then(|got| match got {
                Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
                got => got,
            }),
            Bug::GetAfterClose => reply.then(|got| match got {
                Err(error) if error.kind() == ErrorKind::Closed => Ok(None),
                got => got,
            }),
            Bug::EmptiesBeforeItCloses if self.closed.load(Ordering::SeqCst) => {
                Reply::Now(if self.after_close.fetch_add(1, Ordering::SeqCst) < 8 {
                    Ok(None)
                } else {
                    Err(Error::closed())
                })
            }
            Bug::DeadlineIsOneLate => {
                let late = self.before.lock().iter().rev().find(|(k, _)| k == key).cloned();
                let ago = Timestamp::from_millis(self.clock.now().as_millis() - 1);
                match late {
                    Some((_, Some(value))) if !value.is_expired(ago) => Reply::ready(Some(value)),
                    _ => reply,
                }
            }
            Bug::DeadlineIsForgotten => {
                reply.map(|value| value.map(|value| Value::new(value.bytes)))
            }
            Bug::Panics => panic!("a bug"),
            Bug::Hangs => Reply::later(std::future::pending()),
            _ => reply,
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        match self.bug {
            Bug::BulkReadsSortTheirKeys => {
                let mut keys = keys.to_vec();
                keys.sort();
                Reply::later(async move { self.memory.get_many(&keys).await })
            }
            Bug::BulkReadsSkipMissing => self
                .memory
                .get_many(keys)
                .map(|values| values.into_iter().filter(Option::is_some).collect()),
            _ => self.memory.get_many(keys),
        }
    }

    fn scan(&self, mut scan: Scan) -> Pages<'_> {
        use std::ops::Bound::{Excluded, Included};
        let asked = scan.clone();
        match self.bug {
            Bug::ReverseLimitIsOneShort if scan.order == Order::Reverse => {
                scan.limit = scan.limit.map(|limit| limit.saturating_sub(1).max(1));
            }
            Bug::IncludedBoundIsExcluded => {
                if let Included(to) = &scan.to {
                    scan.to = Excluded(to.clone());
                }
            }
            Bug::PageIgnoresItsSize => scan.page_entries = 1000,
            Bug::PageIgnoresItsBytes => scan.page_bytes = usize::MAX,
            bug if scan.keys_only => keys::ask(bug, &mut scan),
            Bug::ExpiredCountForTheLimit => {
                let expired =
                    self.before.lock().iter().filter(|(key, _)| scan.contains(key)).count();
                scan.limit = scan.limit.map(|limit| limit.saturating_sub(expired as u64).max(1));
            }
            _ => {}
        }
        self.listed.fetch_or(asked.keys_only, Ordering::SeqCst);
        let pages = self.memory.scan(scan);
        match self.bug {
            bug if asked.keys_only => keys::answer(bug, self, &asked, pages),
            Bug::EmptyLastPage => {
                pages.chain(futures_util::stream::iter([Ok(Page::default())])).boxed()
            }
            Bug::ScanIsOpenedAtOnce => {
                let all: Vec<Result<Page>> =
                    futures_util::FutureExt::now_or_never(pages.collect()).unwrap();
                futures_util::stream::iter(all).boxed()
            }
            Bug::ScanRepeatsTheKeyBetweenPages => {
                let mut last = None;
                pages
                    .map_ok(move |mut page| {
                        let next = page.entries.last().cloned();
                        // Where the store changed meanwhile, which is when real ones do it.
                        if self.calls.load(Ordering::SeqCst) > 205 {
                            page.entries.splice(0..0, last.take());
                        }
                        last = next;
                        page
                    })
                    .boxed()
            }
            Bug::ScanHoldsALock => {
                let lock = Arc::clone(&self.lock);
                futures_util::stream::once(async move { lock.lock_owned().await })
                    .flat_map(move |guard| {
                        self.memory.scan(asked.clone()).inspect(move |_| {
                            let _held = &guard;
                        })
                    })
                    .boxed()
            }
            Bug::SignedOrder => pages
                .map_ok(|mut page| {
                    page.entries
                        .sort_by_key(|e| e.key.iter().map(|b| *b as i8).collect::<Vec<_>>());
                    page
                })
                .boxed(),
            Bug::ScanShowsExpired => {
                let before = self.before.lock().clone();
                let pages: Pages<'_> = pages;
                pages
                    .chain(futures_util::stream::iter(before.into_iter().filter_map(
                        move |(key, value)| {
                            let value = value.filter(|value| value.is_expired(self.clock.now()))?;
                            asked.contains(&key).then(|| {
                                Ok(Page { entries: vec![crate::types::Entry { key, value }] })
                            })
                        },
                    )))
                    .boxed()
            }
            _ => pages,
        }
    }
}

#[async_trait]
impl Store for Broken {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let (durability, conditions) = (batch.requested_durability(), batch.conditions().to_vec());
        let mut ops = batch.into_ops();
        for op in &ops {
            let value = match self.bug {
                Bug::StaleGet => self.memory.get(op.key()).await.ok().flatten(),
                _ => op.value().cloned(),
            };
            let expires = value.as_ref().is_some_and(|value| value.expires_at.is_some());
            if self.has(Bug::StaleGet) || expires {
                self.before.lock().push((op.key().clone(), value));
            }
        }
        match self.bug {
            Bug::DropsTheLastOp if ops.len() > 1 => drop(ops.pop()),
            Bug::FirstOpOfAKeyWins => {
                let mut seen = Vec::new();
                ops.retain(|op| {
                    let new = !seen.contains(op.key());
                    seen.push(op.key().clone());
                    new
                });
            }
            Bug::BatchIsNotAtomic if ops.iter().all(|op| !op.key().is_empty()) => {
                for op in ops {
                    let _ = self.memory.write([op].into_iter().collect()).await?;
                    tokio::task::yield_now().await;
                }
                return Ok(Commit::done());
            }
            Bug::WrongKeyInTheMiddleLeavesTheStart => {
                let mut last = Commit::done();
                for op in ops {
                    last = self.memory.write([op].into_iter().collect()).await?;
                }
                return Ok(last);
            }
            Bug::AcceptsLongKeys => ops.retain(|op| op.key().len() <= 65_536),
            Bug::AcceptsMoreDurability => {
                return self.memory.write(ops.into_iter().collect()).await;
            }
            Bug::SequenceStandsStill => {
                let _ = self.memory.write(ops.into_iter().collect()).await?;
                return Ok(Commit::at(1));
            }
            Bug::EmptyValueIsADelete => {
                for op in &mut ops {
                    if op.value().is_some_and(|value| value.bytes.is_empty()) {
                        *op = Op::Delete(op.key().clone());
                    }
                }
            }
            Bug::DroppedWriteIsHalf => {
                let rest = ops.split_off(ops.len() / 2);
                let _ = self.memory.write(ops.into_iter().collect()).await?;
                tokio::task::yield_now().await;
                return self.memory.write(rest.into_iter().collect()).await;
            }
            Bug::LosesConcurrentWrites => {
                if let Ok(_guard) = self.lock.try_lock() {
                    tokio::task::yield_now().await;
                    return self.memory.write(ops.into_iter().collect()).await;
                }
                return Ok(Commit::done());
            }
            Bug::ScanHoldsALock => drop(self.lock.lock().await),
            Bug::DeadlineOutlivesOverwrite => {
                for op in &mut ops {
                    let old = self.memory.get(op.key()).await.ok().flatten();
                    if let (Op::Put(_, value), Some(old)) = (op, old) {
                        value.expires_at = value.expires_at.or(old.expires_at);
                    }
                }
            }
            Bug::ErrorsTellTheKey => {
                if let Some(op) = ops.iter().find(|op| op.key().len() > 65_536) {
                    return Err(Error::invalid(format!("the key {:?} is too long", op.key())));
                }
            }
            Bug::RefusesNothing => {}
            _ => {}
        }
        let mut batch = ops.into_iter().collect::<Batch>().with_conditions(conditions);
        if let Some(durability) = durability.filter(|_| !self.has(Bug::RefusesNothing)) {
            batch = batch.durability(durability);
        }
        match self.memory.write(batch).await {
            Err(error) if self.has(Bug::WriteAfterClose) && error.kind() == ErrorKind::Closed => {
                Ok(Commit::done())
            }
            done => done,
        }
    }

    async fn write_group(&self, mut group: Vec<Batch>) -> Vec<Result<Commit>> {
        match self.bug {
            Bug::GroupLosesItsOrder => {
                let mut answers = Vec::new();
                for batch in group.into_iter().rev() {
                    answers.push(self.write(batch).await);
                    tokio::task::yield_now().await;
                }
                return answers;
            }
            Bug::GroupGoesOn => {
                let writes = group.into_iter().map(|batch| self.write(batch));
                return futures_util::future::join_all(writes).await;
            }
            Bug::GroupIsCutShort => {
                let rest = group.split_off(group.len().min(1000));
                let mut answers = crate::write_in_order(self, group).await;
                answers.extend(rest.into_iter().map(|_| Ok(Commit::done())));
                return answers;
            }
            Bug::GroupChecksConditionsFirst => {
                // Each is compared with what was there before the group.
                for batch in &mut group {
                    let mut conditions = Vec::new();
                    for condition in batch.conditions() {
                        let now = self.memory.get(condition.key()).await.unwrap();
                        if !condition.holds(now.as_ref()) {
                            let key = condition.key();
                            conditions = vec![
                                Condition::absent(key.clone()),
                                Condition::equals(key.clone(), "both cannot be"),
                            ];
                        }
                    }
                    *batch = std::mem::take(batch).with_conditions(conditions);
                }
            }
            _ => {}
        }
        let batches = group.len();
        let mut answers = crate::write_in_order(self, group).await;
        match self.bug {
            Bug::GroupAnswersOutOfStep => answers.reverse(),
            Bug::GroupForgetsTheRest => {
                let failed = answers.iter().position(Result::is_err);
                answers.truncate(failed.map_or(batches, |at| at + 1));
            }
            _ => {}
        }
        answers
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let frozen = self.memory.snapshot().await?;
        match self.bug {
            Bug::SnapshotSeesLaterWrites => Ok(Arc::clone(&self.memory) as Arc<dyn Read>),
            Bug::SnapshotListsTheKeysOfNow => {
                Ok(Arc::new(keys::ListsNow { frozen, store: Arc::clone(&self.memory) }))
            }
            Bug::SnapshotExpires => Ok(Arc::new(Expiring { frozen, clock: self.clock.clone() })),
            Bug::SnapshotDiesOnCompaction => Ok(Arc::new(Mortal {
                frozen,
                memory: Arc::clone(&self.memory),
                lock: Arc::clone(&self.lock),
            })),
            _ => Ok(frozen),
        }
    }

    async fn compact(&self) -> Result<()> {
        if self.has(Bug::SnapshotDiesOnCompaction) {
            // A lock that nobody can take any more stands for "was compacted".
            std::mem::forget(Arc::clone(&self.lock).try_lock_owned());
        }
        self.memory.compact().await
    }

    async fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::SeqCst) && self.has(Bug::SecondCloseFails) {
            return Err(Error::closed());
        }
        self.memory.close().await
    }

    fn profile(&self) -> Profile {
        let profile = self.memory.profile();
        match self.bug {
            Bug::ProfileChanges if self.calls.load(Ordering::SeqCst) > 0 => profile
                .changed(|guarantees| guarantees.durability_after_flush = Durability::PowerCut),
            Bug::RefusesNothing => profile.changed(|guarantees| {
                guarantees.ordered_scans = false;
                guarantees.snapshots = false;
                guarantees.expiry = false;
                guarantees.atomic_batches = false;
            }),
            _ => profile,
        }
    }

    forward!(self => self.memory; ingest, changes, invalidate, inspect, flush, usage, count, identity);
}
