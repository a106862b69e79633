//! Writing: batches, groups and compactions, and the wait while RocksDB has stopped writes.

use std::time::Duration;

use ::rocksdb::{BottommostLevelCompaction, CompactOptions, WriteBatch, WriteOptions, properties};

use super::engine::Engine;
use super::error::{failed, is_incomplete, stalled};
use super::look_up::look_up;
use super::read_tier::Tier;
use crate::error::{Error, ErrorKind, Operation, Outcome, Result};
use crate::types::{Batch, Op};
use crate::write_group::complete;

/// The pause between two attempts of a write while RocksDB has stopped all of them.
const STALL_PAUSE: Duration = Duration::from_millis(10);
/// Attempts before a stall is an error: a minute, or 2 seconds once background work has failed, as
/// RocksDB then may never let writes go on by itself.
const STALL_ATTEMPTS: u32 = 6000;
const STALL_ATTEMPTS_AFTER_FAILURE: u32 = 200;

impl Engine {
    /// Hands a batch without conditions to the operating system, unless that would have to wait: `Incomplete`.
    /// `None`: a batch with conditions is being written, or what is replaced has to be read from the disk.
    pub(super) fn write_now(&self, batch: &Batch) -> Option<Result<(), ::rocksdb::Error>> {
        // A thread says what is refused.
        if !matches!(self.check_replaced(batch, Tier::Memory), Ok(true)) {
            return None;
        }
        let _shared = self.writing().try_read()?;
        Some(self.attempt(self.encode(batch), false, true))
    }

    /// Hands a batch to the operating system, or to the disk in one fsync with the other writes that
    /// wait. Blocks.
    pub(super) fn write(&self, batch: &Batch, sync: bool) -> Result<()> {
        let writing = self.writing();
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
        if self.looks() {
            for op in batch.ops().iter().filter(|op| op.value().is_some()) {
                if look_up(self, op.key(), tier, Operation::Write)?.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
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
}
