//! The open database, and the two tiers in which it is read: memory, which never waits, and disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ::rocksdb::{
    BottommostLevelCompaction, BoundColumnFamily, Cache, CompactOptions, DB, DBPinnableSlice,
    IngestExternalFileOptions, ReadOptions, ReadTier, Snapshot, WriteBatch, WriteOptions,
    properties,
};
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::entities;
use super::error::{failed, is_incomplete, stalled};
use super::inline_policy::Pace;
use super::lock::Opened;
use super::open::lost;
use super::reader::look_up;
use super::ttl::Stamps;
use crate::error::{Error, ErrorKind, Operation, Outcome, Result};
use crate::group::complete;
use crate::types::{Batch, Op, Usage, Value};

/// The handle of a column family belongs to the database that it was opened with.
type Family<'a> = Arc<BoundColumnFamily<'a>>;

self_cell::self_cell! {
    /// A database with the column family that is read and written.
    ///
    /// An `Arc` of it is held only by code that runs, or that runs by itself to its end in a thread;
    /// never by a future that a caller may leave alone, as closing waits for the last one.
    pub(super) struct Engine {
        owner: Hold,
        #[covariant]
        dependent: Family,
    }
}

/// An open database, which the stores over its column families have in common.
pub(super) struct Database {
    opened: Opened,
    tiers: Tiers,
    /// Whether an entity may be among the entries: a put looks at what it replaces.
    looks: bool,
    /// Shared by writes, except for one with conditions: nothing is written between its check and its write.
    writing: RwLock<()>,
    /// For column families that are made later.
    pub(super) cache: Cache,
    /// The column family that it was opened for.
    pub(super) first: String,
    /// Engines that have not been told to close, or [`CLOSING`].
    users: AtomicUsize,
}

/// The last engine was told to close: background work ends for good, so no other may begin to use the database.
const CLOSING: usize = usize::MAX;

impl Database {
    pub(super) fn new(opened: Opened, cache: Cache, first: &str, looks: bool) -> Arc<Self> {
        let (tiers, writing) = (Tiers::new(None), RwLock::new(()));
        let (first, users) = (first.to_owned(), AtomicUsize::new(0));
        Arc::new(Self { opened, tiers, looks, writing, cache, first, users })
    }

    pub(super) fn db(&self) -> &DB {
        self.opened.db()
    }

    fn enter(&self) -> Result<()> {
        // There is no number behind `CLOSING`.
        let one_more = |users: usize| users.checked_add(1);
        match self.users.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(
                ErrorKind::Conflict,
                "the last store that had the database open is just closing it; open this one again",
            )),
        }
    }

    /// Whether it was the last one.
    fn leave(&self) -> bool {
        let one_less = |users| Some(if users == 1 { CLOSING } else { users - 1 });
        self.users.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less) == Ok(1)
    }
}

/// An engine's hold on the database. The fields are dropped in this order.
pub(super) struct Hold {
    database: Arc<Database>,
    pace: Pace,
    stamps: Option<Stamps>,
    left: AtomicBool,
    /// Dropped when this engine, and with the last one the database, has let go of the folder.
    _gone: watch::Sender<()>,
}

impl Hold {
    /// Whether this is the last one, at the first call.
    fn leave(&self) -> bool {
        let first = !self.left.swap(true, Ordering::AcqRel);
        first && self.database.leave()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Options of reads. Making them costs about as much as a hit, so they are made once.
pub(super) struct Tiers {
    memory: ReadOptions,
    disk: ReadOptions,
}

/// How far down a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// Memtables and the block cache. What is not there is `Incomplete`.
    Memory,
    /// All of it. Blocks.
    Disk,
}

impl Tiers {
    fn new(snapshot: Option<&Snapshot<'_>>) -> Self {
        let options = |tier| read_options(tier, snapshot);
        Self { memory: options(Tier::Memory), disk: options(Tier::Disk) }
    }

    fn of(&self, tier: Tier) -> &ReadOptions {
        match tier {
            Tier::Memory => &self.memory,
            Tier::Disk => &self.disk,
        }
    }
}

fn read_options(tier: Tier, snapshot: Option<&Snapshot<'_>>) -> ReadOptions {
    let mut options = ReadOptions::default();
    if tier == Tier::Memory {
        options.set_read_tier(ReadTier::BlockCache);
    }
    if let Some(snapshot) = snapshot {
        options.set_snapshot(snapshot);
    }
    options
}

/// One moment of the database.
pub(super) struct Frozen<'a> {
    tiers: Tiers,
    snapshot: Snapshot<'a>,
}

self_cell::self_cell! {
    /// A snapshot, with the database that it borrows.
    pub(super) struct Moment {
        owner: Arc<Engine>,
        #[covariant]
        dependent: Frozen,
    }
}

/// What can be read: the newest state, or a moment.
pub(super) trait View: Send + Sync + 'static {
    fn engine(&self) -> &Engine;
    fn tiers(&self) -> &Tiers;
    fn snapshot(&self) -> Option<&Snapshot<'_>>;

    fn get(&self, key: &[u8], tier: Tier) -> Result<Option<Value>, ::rocksdb::Error> {
        let found = self.engine().db().get_pinned_cf_opt(
            self.engine().family(),
            key,
            self.tiers().of(tier),
        )?;
        Ok(found.map(|pinned| owned(&pinned)))
    }

    /// One answer for each key, in their order. Blocks: RocksDB ignores the memory tier here.
    fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<Value>, ::rocksdb::Error>> {
        let found = self.engine().db().batched_multi_get_cf_opt(
            self.engine().family(),
            keys,
            false,
            self.tiers().of(Tier::Disk),
        );
        found
            .into_iter()
            .map(|result| result.map(|found| found.map(|pinned| owned(&pinned))))
            .collect()
    }

    /// Whether the entry of a key, whose value was found to be empty, is an entity.
    fn is_entity(&self, key: &[u8], tier: Tier) -> Result<bool, ::rocksdb::Error> {
        let (engine, options) = (self.engine(), self.scan_options(tier));
        let mut entries = engine.db().raw_iterator_cf_opt(engine.family(), options);
        entries.seek(key);
        entries.status()?;
        Ok(entries.item().is_some_and(|(at, value)| at == key && entities::is_shown_as(value)))
    }

    /// Options of a scan.
    fn scan_options(&self, tier: Tier) -> ReadOptions {
        let mut options = read_options(tier, self.snapshot());
        // The order of all keys, whatever prefix extractor the database has.
        options.set_total_order_seek(true);
        options.set_background_purge_on_iterator_cleanup(true);
        options
    }
}

fn owned(pinned: &DBPinnableSlice<'_>) -> Value {
    Value::new(Bytes::copy_from_slice(pinned))
}

impl View for Engine {
    fn engine(&self) -> &Engine {
        self
    }

    fn tiers(&self) -> &Tiers {
        &self.borrow_owner().database.tiers
    }

    fn snapshot(&self) -> Option<&Snapshot<'_>> {
        None
    }
}

impl View for Moment {
    fn engine(&self) -> &Engine {
        self.borrow_owner()
    }

    fn tiers(&self) -> &Tiers {
        &self.borrow_dependent().tiers
    }

    fn snapshot(&self) -> Option<&Snapshot<'_>> {
        Some(&self.borrow_dependent().snapshot)
    }
}

impl Moment {
    pub(super) fn of(engine: Arc<Engine>) -> Self {
        Self::new(engine, |engine| {
            let snapshot = engine.db().snapshot();
            Frozen { tiers: Tiers::new(Some(&snapshot)), snapshot }
        })
    }
}

/// Keys that are counted by one iterator, which holds files back.
const COUNTED: u64 = if cfg!(test) { 10 } else { 100_000 };

/// The pause between two attempts of a write while RocksDB has stopped all of them.
const STALL_PAUSE: Duration = Duration::from_millis(10);
/// Attempts before a stall is an error: a minute, or 2 seconds once background work has failed, as
/// RocksDB then may never let writes go on by itself.
const STALL_ATTEMPTS: u32 = 6000;
const STALL_ATTEMPTS_AFTER_FAILURE: u32 = 200;

impl Engine {
    pub(super) fn over(
        database: Arc<Database>,
        family: &str,
        pace: Pace,
        stamps: Option<Stamps>,
        gone: watch::Sender<()>,
    ) -> Result<Self> {
        database.enter()?;
        let hold = Hold { database, pace, stamps, left: AtomicBool::new(false), _gone: gone };
        Self::try_new(hold, |hold| hold.database.db().cf_handle(family).ok_or_else(lost))
    }

    pub(super) fn db(&self) -> &DB {
        self.borrow_owner().database.db()
    }

    /// Says that this engine is to close. Whether no other has the database open.
    pub(super) fn leave(&self) -> bool {
        self.borrow_owner().leave()
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.borrow_owner().pace
    }

    /// Where values end in the time at which they were written.
    pub(super) fn stamps(&self) -> Option<&Stamps> {
        self.borrow_owner().stamps.as_ref()
    }

    pub(super) fn family(&self) -> &Family<'_> {
        self.borrow_dependent()
    }

    /// Hands a batch without conditions to the operating system, unless that would have to wait: `Incomplete`.
    /// `None`: a batch with conditions is being written, or what is replaced has to be read from the disk.
    pub(super) fn write_now(&self, batch: &Batch) -> Option<Result<(), ::rocksdb::Error>> {
        // A thread says what is refused.
        if !matches!(self.check_replaced(batch, Tier::Memory), Ok(true)) {
            return None;
        }
        let _shared = self.borrow_owner().database.writing.try_read()?;
        Some(self.attempt(self.encode(batch), false, true))
    }

    /// Hands a batch to the operating system, or to the disk in one fsync with the other writes that
    /// wait. Blocks.
    pub(super) fn write(&self, batch: &Batch, sync: bool) -> Result<()> {
        let writing = &self.borrow_owner().database.writing;
        if !batch.is_conditional() {
            self.check_replaced(batch, Tier::Disk)?;
            let _shared = writing.read();
            return self.commit(Operation::Write, || self.encode(batch), sync);
        }
        let _alone = writing.write();
        for condition in batch.conditions() {
            let found = look_up(self, condition.key(), Tier::Disk, Operation::Write)?.flatten();
            if !condition.holds(found.as_ref()) {
                return Err(condition.unmet().with_layer("rocksdb"));
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.check_replaced(batch, Tier::Disk)?;
        self.commit(Operation::Write, || self.encode(batch), sync)
    }

    /// Writes batches, up to the first that fails, and syncs the log once: with an fsync for each, a group would
    /// take as long as its batches one after the other. Blocks.
    pub(super) fn write_group(&self, group: &[Batch], sync: bool) -> Vec<Result<()>> {
        if let [only] = group {
            return vec![self.write(only, sync)];
        }
        let mut answers = Vec::with_capacity(group.len());
        for batch in group {
            answers.push(self.write(batch, false));
            if answers.last().is_some_and(Result::is_err) {
                break;
            }
        }
        if sync
            && answers.first().is_some_and(Result::is_ok)
            && let Err(error) = self.sync(Operation::Write)
        {
            // They are written, and may be gone after a power cut.
            let error = error.with_outcome(Outcome::Unknown);
            for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
                *answer = Err(error.clone());
            }
        }
        complete(answers, group.len())
    }

    /// Refuses to replace an entity, as far as one can be told from a value. Nobody puts one while the database is
    /// open here. `false`: what is replaced is not in memory.
    pub(super) fn check_replaced(&self, batch: &Batch, tier: Tier) -> Result<bool> {
        if self.borrow_owner().database.looks {
            for op in batch.ops().iter().filter(|op| op.value().is_some()) {
                if look_up(self, op.key(), tier, Operation::Write)?.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Takes in a table: all of its entries or none. Blocks, and other writes with it while entries of the
    /// same keys are moved out of memory.
    pub(super) fn ingest(&self, table: &Path) -> Result<()> {
        let _shared = self.borrow_owner().database.writing.read();
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db()
            .ingest_external_file_cf_opts(self.family(), &options, vec![table])
            .map_err(|error| failed(Operation::Ingest, error))
    }

    /// Syncs the log, and returns what earlier background work failed with: an empty write does both.
    pub(super) fn sync(&self, operation: Operation) -> Result<()> {
        self.commit(operation, WriteBatch::default, true)
    }

    fn encode(&self, batch: &Batch) -> WriteBatch {
        let mut writes = WriteBatch::default();
        for op in batch.ops() {
            match op {
                Op::Put(key, value) => match self.stamps() {
                    Some(stamps) => {
                        writes.put_cf(self.family(), key, stamps.stamped(&value.bytes));
                    }
                    None => writes.put_cf(self.family(), key, &value.bytes),
                },
                Op::Delete(key) => writes.delete_cf(self.family(), key),
            }
        }
        writes
    }

    /// Waits out a stall by itself: inside RocksDB a write waits without end when a full disk keeps
    /// the flush from happening that would end the stall.
    fn commit(
        &self,
        operation: Operation,
        writes: impl Fn() -> WriteBatch,
        sync: bool,
    ) -> Result<()> {
        let mut attempts = 0;
        // RocksDB slows writes down before it stops them; that wait has an end, and is left to it.
        let mut no_slowdown = true;
        loop {
            match self.attempt(writes(), sync, no_slowdown) {
                Err(error) if is_incomplete(&error) => {
                    attempts += 1;
                    let broken = self.number(properties::BACKGROUND_ERRORS) > Some(0);
                    if attempts > STALL_ATTEMPTS
                        || broken && attempts > STALL_ATTEMPTS_AFTER_FAILURE
                    {
                        return Err(stalled(operation, broken, error));
                    }
                    no_slowdown = self.number(properties::IS_WRITE_STOPPED) == Some(1);
                    if no_slowdown {
                        std::thread::sleep(STALL_PAUSE);
                    }
                }
                done => return done.map_err(|error| failed(operation, error)),
            }
        }
    }

    fn attempt(
        &self,
        writes: WriteBatch,
        sync: bool,
        no_slowdown: bool,
    ) -> Result<(), ::rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        options.set_no_slowdown(no_slowdown);
        self.db().write_opt(writes, &options)
    }

    pub(super) fn compact(&self) -> Result<()> {
        let failures = || self.number(properties::BACKGROUND_ERRORS);
        let before = failures();
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        // Automatic compactions go on meanwhile.
        options.set_exclusive_manual_compaction(false);
        // It reports no error, so it is asked for afterwards.
        self.db().compact_range_cf_opt(self.family(), None::<&[u8]>, None::<&[u8]>, &options);
        self.sync(Operation::Compact)?;
        if failures() > before {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "RocksDB could not finish a background job; a full disk is the usual cause, and the LOG file in the folder says which it is",
            ));
        }
        Ok(())
    }

    fn number(&self, property: &properties::PropName) -> Option<u64> {
        self.db().property_int_value_cf(self.family(), property).ok().flatten()
    }

    pub(super) fn usage(&self) -> Usage {
        let sum = |properties: &[&properties::PropName]| {
            Some(properties.iter().filter_map(|property| self.number(property)).sum())
        };
        Usage {
            entries: self.number(properties::ESTIMATE_NUM_KEYS),
            memory_bytes: sum(&[
                properties::SIZE_ALL_MEM_TABLES,
                properties::BLOCK_CACHE_USAGE,
                properties::ESTIMATE_TABLE_READERS_MEM,
            ]),
            stored_bytes: sum(&[properties::TOTAL_SST_FILES_SIZE]),
        }
    }

    /// Counts the next keys that begin with a prefix. Gives the key that is to be counted first behind them.
    pub(super) fn count(&self, from: Vec<u8>, prefix: &[u8]) -> Result<(u64, Option<Vec<u8>>)> {
        let mut options = self.scan_options(Tier::Disk);
        options.fill_cache(false);
        let mut entries = self.db().raw_iterator_cf_opt(self.family(), options);
        entries.seek(from);
        let mut counted = 0;
        while let Some((key, value)) = entries.item().filter(|(key, _)| key.starts_with(prefix)) {
            if counted == COUNTED {
                return Ok((counted, Some(key.to_vec())));
            }
            let there = match self.stamps() {
                Some(stamps) => stamps.split(value)?.is_some(),
                None => true,
            };
            counted += u64::from(there);
            entries.next();
        }
        entries.status().map_err(|error| failed(Operation::Usage, error))?;
        Ok((counted, None))
    }

    /// Makes a compaction that runs end soon, and stalled writes fail.
    pub(super) fn cancel_background_work(&self) {
        self.db().cancel_all_background_work(false);
    }
}
