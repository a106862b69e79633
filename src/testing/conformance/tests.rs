//! The suite must notice: stores with one defect each, and the check that has to fail.

mod keeping;
mod keys;
mod optional_defects;
mod unreachable;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::*;
use crate::backends::Memory;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Operation};
use crate::forward;
use crate::reply::Reply;
use crate::store::{Pages, Read};
use crate::testing::{FaultStore, Faults};
use crate::types::{Batch, Commit, Condition, Durability, Op, Order, Page, Profile, Scan, Value};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
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
struct Broken {
    memory: Arc<Memory>,
    bug: Bug,
    clock: ManualClock,
    closed: AtomicBool,
    after_close: AtomicUsize,
    calls: AtomicUsize,
    /// Entries as they were before their last write, and deadlines of keys.
    before: Mutex<Vec<(Bytes, Option<Value>)>>,
    /// Held from the first page of a scan to its last by a store that should not.
    lock: Arc<tokio::sync::Mutex<()>>,
    /// A scan of keys only was asked for.
    listed: AtomicBool,
}

fn broken(bug: Bug) -> Fixture {
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

/// A snapshot in which time goes on.
struct Expiring {
    frozen: Arc<dyn Read>,
    clock: ManualClock,
}

impl Read for Expiring {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.frozen.get(key).map(|value| value.filter(|value| !value.is_expired(self.clock.now())))
    }

    forward!(self => self.frozen; get_many, scan);
}

/// A snapshot that turns into the store when that is compacted.
struct Mortal {
    frozen: Arc<dyn Read>,
    memory: Arc<Memory>,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Mortal {
    fn read(&self) -> &dyn Read {
        if self.lock.try_lock().is_ok() { &*self.frozen } else { &*self.memory }
    }
}

impl Read for Mortal {
    forward!(self => self.read(); get, get_many, scan);
}

/// Runs one check on a store with a bug.
async fn outcome(name: &str, bug: Bug) -> Outcome {
    let check = checks().find(|check| check.name() == name);
    check.unwrap_or_else(|| panic!("there is no check '{name}'")).run(broken(bug)).await
}

macro_rules! mutants {
    ($($bug:ident => $($check:literal),+;)+) => {
        $(#[allow(non_snake_case, reason = "named after the bug")]
        #[tokio::test(flavor = "multi_thread")]
        async fn $bug() {
            $(let came = outcome($check, Bug::$bug).await;
            assert!(matches!(came, Outcome::Failed(_)), "{} must fail, not {came:?}", $check);)+
        })+
    };
}

mod notices {
    use super::*;

    mutants! {
        DropsTheLastOp => "batch::puts_and_deletes_happen_together";
        FirstOpOfAKeyWins => "batch::the_last_operation_of_a_key_wins";
        BatchIsNotAtomic =>
            "batch::a_snapshot_holds_a_batch_wholly_or_not_at_all",
            "batch::a_page_holds_a_batch_wholly_or_not_at_all";
        WrongKeyInTheMiddleLeavesTheStart => "batch::a_wrong_key_leaves_nothing_of_the_batch";
        AcceptsLongKeys => "limits::wrong_keys_are_refused";
        AcceptsMoreDurability => "refuse::more_durability_than_guaranteed";
        SequenceStandsStill => "upkeep::commits_become_durable_in_order";
        EmptyValueIsADelete => "basic::an_empty_value_is_not_missing";
        DroppedWriteIsHalf => "cancel::a_dropped_write_happens_wholly_or_not_at_all";
        LosesConcurrentWrites => "concurrency::writes_of_many_tasks_are_all_there";
        GroupLosesItsOrder =>
            "group::batches_take_effect_in_order",
            "group::a_reader_sees_a_prefix",
            "group::a_large_group_is_applied";
        GroupAnswersOutOfStep => "group::a_group_ends_at_the_batch_that_fails";
        GroupGoesOn =>
            "group::a_group_ends_at_the_batch_that_fails",
            "group::a_condition_that_fails_ends_the_group",
            "group::a_batch_of_a_group_is_atomic";
        GroupIsCutShort => "group::a_large_group_is_applied";
        GroupForgetsTheRest => "group::a_group_ends_at_the_batch_that_fails";
        GroupChecksConditionsFirst =>
            "group::conditions_see_the_batches_before_them",
            "group::a_condition_that_fails_ends_the_group";
        StaleGet => "basic::an_overwrite_replaces_the_value", "concurrency::a_key_never_goes_back";
        BulkReadsSortTheirKeys => "basic::bulk_reads_keep_the_order_of_the_keys";
        BulkReadsSkipMissing => "basic::a_missing_key_gives_none";
        GetChecksNoKey => "limits::wrong_keys_are_refused";
        ReverseLimitIsOneShort => "scan::every_limit_and_page_size";
        IncludedBoundIsExcluded => "scan::every_range_in_both_directions";
        EmptyLastPage => "scan::an_empty_store_has_no_pages";
        PageIgnoresItsSize => "scan::every_limit_and_page_size";
        PageIgnoresItsBytes => "scan::pages_end_at_their_bytes";
        ScanIsOpenedAtOnce => "scan::a_scan_reads_nothing_before_it_is_polled";
        ScanRepeatsTheKeyBetweenPages =>
            "scan::entries_that_stay_are_seen_once_while_others_change";
        SignedOrder => "scan::keys_are_ordered_bytewise";
        KeysComeWithValues => "keys::their_values_are_empty_and_those_of_reads_are_not";
        KeysComeWithDeadlines => "keys::their_values_are_empty_and_those_of_reads_are_not";
        KeysOfEmptyValuesAreLeftOut =>
            "keys::their_values_are_empty_and_those_of_reads_are_not";
        KeysFillWhatIsKept => "keys::their_values_are_empty_and_those_of_reads_are_not";
        KeysOfExpiredEntriesAppear => "keys::those_of_expired_entries_do_not_appear";
        KeysGoOnBehindTheirPage =>
            "keys::every_limit_and_page_size",
            "keys::pages_end_at_the_bytes_of_their_keys";
        SnapshotListsTheKeysOfNow => "keys::a_snapshot_lists_its_own";
        SnapshotSeesLaterWrites =>
            "snapshot::a_snapshot_does_not_see_later_writes",
            "transaction::reads_are_of_one_moment",
            "transaction::histories_show_what_is_allowed";
        SnapshotExpires => "expiry::time_stands_still_in_a_snapshot";
        SnapshotDiesOnCompaction => "snapshot::a_snapshot_outlives_flush_and_compaction";
        ScanShowsExpired => "expiry::an_entry_is_there_until_its_deadline";
        ExpiredCountForTheLimit => "expiry::expired_entries_do_not_count";
        DeadlineIsOneLate => "expiry::an_entry_is_there_until_its_deadline";
        DeadlineIsForgotten => "expiry::the_deadline_is_reported";
        DeadlineOutlivesOverwrite => "expiry::an_overwrite_replaces_the_deadline";
        GetAfterClose => "close::operations_after_close_fail_as_closed";
        WriteAfterClose => "close::operations_after_close_fail_as_closed";
        SecondCloseFails => "close::a_second_close_succeeds";
        EmptiesBeforeItCloses => "close::operations_during_close_finish_or_fail_as_closed";
        ErrorsTellTheKey => "upkeep::errors_do_not_tell_the_key";
        ProfileChanges => "upkeep::the_profile_is_stable_and_prints";
        RefusesNothing =>
            "refuse::scans_where_there_are_none",
            "refuse::snapshots_where_there_are_none",
            "refuse::expiries_where_there_are_none",
            "refuse::batches_where_they_are_not_atomic",
            "refuse::more_durability_than_guaranteed";
        Panics => "basic::a_missing_key_gives_none";
    }
}

/// These hang. A paused runtime notices it at once.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_fails() {
    for (check, bug) in [
        ("basic::a_missing_key_gives_none", Bug::Hangs),
        ("scan::a_scan_between_pages_holds_up_nobody", Bug::ScanHoldsALock),
    ] {
        let outcome = outcome(check, bug).await;
        assert!(matches!(&outcome, Outcome::Failed(why) if why.contains("hangs")), "{outcome:?}");
    }
}

/// Runs a check over a store with faults, and gives how long it took on the paused clock of the runtime.
async fn with_faults(name: &str, faults: &Faults) -> (Outcome, Duration) {
    let begun = tokio::time::Instant::now();
    let check = checks().find(|check| check.name() == name).unwrap();
    let outcome = check.run(FaultStore::new(Memory::new(), faults)).await;
    (outcome, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_and_moves_does_not_hang() {
    let faults = Faults::new();
    faults.on_all().delay(Duration::from_secs(60));
    for check in ["basic::an_overwrite_replaces_the_value", "ingest::every_store_can_be_loaded"] {
        let (outcome, took) = with_faults(check, &faults).await;
        assert_eq!(outcome, Outcome::Passed, "{check}");
        assert!(took > Duration::from_secs(200), "{check} took {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_beside_reads_that_move_is_noticed() {
    let faults = Faults::new();
    faults.on(Operation::Write).skip(3).delay(Duration::from_secs(1 << 20));
    faults.on_all().delay(Duration::from_secs(1));
    let (outcome, took) = with_faults("concurrency::a_key_never_goes_back", &faults).await;
    let hangs = "it hangs: write has not answered for 120 seconds";
    assert_eq!(outcome, Outcome::Failed(hangs.to_owned()));
    assert!(took < Duration::from_secs(600), "{took:?}");
}

/// Every increment is refused, and the check tries again for ever.
#[tokio::test(start_paused = true)]
async fn a_check_that_moves_and_never_ends_fails() {
    let faults = Faults::new();
    faults.on(Operation::Write).fail(ErrorKind::Conflict);
    faults.on_all().delay(Duration::from_secs(1));
    let (outcome, _) = with_faults("condition::no_increment_is_lost", &faults).await;
    assert!(
        matches!(&outcome, Outcome::Failed(why) if why.contains("does not end")),
        "{outcome:?}"
    );
}

/// The wrapper by itself must not be what fails the mutants.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_bug_every_check_passes() {
    let report = run(|| async { Ok(broken(Bug::None)) }).await;
    assert!(report.is_ok(), "{report}");
}

#[tokio::test]
async fn a_report_names_what_failed_and_why() {
    let outcomes = vec![
        ("a::b", Outcome::Passed),
        ("c::d", Outcome::Skipped("no scans")),
        ("e::f", Outcome::Failed("it is wrong".to_owned())),
    ];
    let report = Report { store: "x(y)".to_owned(), outcomes };
    assert!(!report.is_ok());
    let text = report.to_string();
    assert!(text.contains("x(y)") && text.contains("e::f: it is wrong"), "{text}");
    assert!(!Report::default().is_ok(), "nothing checked is not conforming");
}

#[tokio::test]
async fn a_factory_that_fails_is_reported() {
    let report = run(|| async { Err::<Memory, _>(Error::internal("no disk")) }).await;
    assert!(report.to_string().contains("no disk"), "{report}");
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = checks().map(Check::name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count > 60, "{count}");
}
