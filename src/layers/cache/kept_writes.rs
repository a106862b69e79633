//! Keeping what is written, so that a read that follows finds it.

use std::collections::HashSet;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::coherence::WriteGuard;
use super::policy::CoarseTime;
use super::state::Shared;
use crate::types::{Batch, Condition, Op, Value};

/// A larger value is not kept: the caller may hold it in a buffer that is larger still, so it is copied.
const LARGEST: usize = 64 << 10;

/// What batches leave in their keys. `None`: nothing is kept.
pub(super) struct Written {
    asked: CoarseTime,
    /// Each key once. `None`: it is deleted.
    entries: Vec<(Bytes, Option<Value>)>,
}

impl<S> Shared<S> {
    /// To be taken before the store below is asked: the ttl counts from then.
    pub(super) fn written(&self, batches: &[Batch]) -> Option<Written> {
        if !self.keeps_written || !self.coherence.epochs.now().keeps() {
            return None;
        }
        let entry = |op: &Op| (op.key().clone(), op.value().cloned());
        let mut ops = batches.iter().rev().flat_map(|batch| batch.ops().iter().rev());
        let entries = match (batches.iter().map(Batch::len).sum(), ops.next()) {
            (1, Some(op)) => vec![entry(op)],
            // The last operation of a key wins. One that comes before it must not be kept for a moment.
            (all, last) => {
                let mut seen = HashSet::with_capacity_and_hasher(all, RandomState::default());
                last.into_iter().chain(ops).filter(|op| seen.insert(op.key())).map(entry).collect()
            }
        };
        Some(Written { asked: self.now(), entries })
    }

    /// The write is acknowledged. What it wrote is the answer of its keys from now on, unless something else touched
    /// them. It comes to the disk when the memory evicts it; at once, where the engine does not tell of that.
    pub(super) fn keep_written(&self, written: Option<Written>, writing: &WriteGuard<'_>) {
        let Some(Written { asked, entries }) = written else { return };
        let (mut kept, all) = (0, entries.len() as u64);
        for (key, value) in entries {
            kept += u64::from(self.keep_one(&key, value, asked, writing));
        }
        self.counters.written_kept.increment(kept);
        self.counters.written_dropped.increment(all - kept);
    }

    fn keep_one(
        &self,
        key: &[u8],
        mut value: Option<Value>,
        asked: CoarseTime,
        writing: &WriteGuard<'_>,
    ) -> bool {
        if let Some(value) = &mut value {
            // Some stores keep expiries in signed numbers, and give back the last of them for what lies beyond.
            let beyond = value.expires_at.is_some_and(|at| i64::try_from(at.as_millis()).is_err());
            if value.bytes.len() > LARGEST || beyond || self.is_expired(value) {
                return false;
            }
            value.bytes = Bytes::copy_from_slice(&value.bytes);
        }
        let mut kept = false;
        writing.keep(key, |epoch| {
            let entry = self.times.entry(value.as_ref(), asked, || self.now(), epoch);
            if let Some(cached) = entry.filter(|cached| self.engine.fits(key, cached)) {
                // What was there of the key is gone from the disk since the write began.
                match self.engine.tells() {
                    true => self.engine.insert(key, cached),
                    false => self.keep(key, cached),
                }
                kept = true;
            }
        });
        kept
    }
}

impl<S> Shared<S> {
    /// Registers the writes of these batches, and drops what is kept of their keys.
    pub(super) fn register(&self, batches: &[Batch]) -> WriteGuard<'_> {
        let written = batches.iter().flat_map(Batch::ops).map(Op::key);
        // A condition that does not hold shows that what is kept of its key may be old.
        let conditions = batches.iter().flat_map(Batch::conditions).map(Condition::key);
        let keys = written.chain(conditions);
        let writing = self.coherence.begin_write(keys.clone().map(Bytes::as_ref));
        for key in keys {
            self.remove(key);
        }
        writing
    }
}
