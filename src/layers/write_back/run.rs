//! A run: a contiguous part of the sequence of batches, which reaches the store below as one.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::clock::Timestamp;
use crate::types::{Batch, Op, Value};

/// What an entry takes in memory in addition to its key and value, about.
pub(super) const ENTRY_BYTES: u64 = 160;

/// A batch that was given its sequence. One operation for each key.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) sequence: u64,
    pub(super) ops: Vec<Op>,
    pub(super) bytes: u64,
    /// Bytes of its record in the journal.
    pub(super) logged: u64,
    pub(super) rewrite: bool,
}

impl Given {
    /// The batch with bytes of its own: those of the caller may be part of something larger.
    pub(super) fn new(batch: &Batch, logged: u64) -> Self {
        Self::with(batch, logged, |bytes| Bytes::copy_from_slice(bytes))
    }

    /// A batch from a record of the journal. A value that is alone in its record stays part of it. A key is copied: it stays when
    /// its value is replaced, and would hold the record.
    pub(super) fn replayed(batch: &Batch, logged: u64) -> Self {
        match batch.ops() {
            [_] => Self::with(batch, logged, Bytes::clone),
            _ => Self::new(batch, logged),
        }
    }

    fn with(batch: &Batch, logged: u64, own: impl Fn(&Bytes) -> Bytes) -> Self {
        let copy = |op: &Op| match op {
            Op::Put(key, value) => {
                let bytes = own(&value.bytes);
                Op::Put(Bytes::copy_from_slice(key), Value { bytes, expires_at: value.expires_at })
            }
            Op::Delete(key) => Op::Delete(Bytes::copy_from_slice(key)),
        };
        let ops: Vec<Op> = match batch.ops() {
            [only] => vec![copy(only)],
            _ => batch.last_ops().into_iter().map(copy).collect(),
        };
        let bytes = ops.iter().map(bytes_of).sum();
        Self { sequence: 0, ops, bytes, logged, rewrite: batch.is_rewrite() }
    }
}

fn bytes_of(op: &Op) -> u64 {
    size(op.key().len(), op.value())
}

/// Of an entry whose key is that long.
fn size(key: usize, value: Option<&Value>) -> u64 {
    ENTRY_BYTES + (key + value.map_or(0, |value| value.bytes.len())) as u64
}

/// The last operation of each key of the batches that it is made of.
#[derive(Debug)]
pub(super) struct Run {
    /// The sequence of its last batch.
    pub(super) last: u64,
    /// When the first of its writes became visible, on the monotonic clock: later ones do not move that.
    pub(super) since: Duration,
    ops: HashMap<Bytes, (u64, Option<Value>), RandomState>,
    pub(super) bytes: u64,
    pub(super) logged: u64,
    rewrite: bool,
}

impl Run {
    pub(super) fn new(since: Duration, first: &Given) -> Self {
        let (last, rewrite) = (first.sequence, first.rewrite);
        Self { last, since, ops: HashMap::default(), bytes: 0, logged: 0, rewrite }
    }

    /// Whether the batch can be part of it, and it stays within these bounds.
    pub(super) fn takes(&self, given: &Given, bytes: u64, ops: usize) -> bool {
        let at_most = (self.bytes + given.bytes, self.ops.len() + given.ops.len());
        // Keys that it has already are looked up only where that decides.
        self.rewrite == given.rewrite
            && (at_most.0 <= bytes && at_most.1 <= ops || self.takes_exactly(given, bytes, ops))
    }

    fn takes_exactly(&self, given: &Given, bytes: u64, ops: usize) -> bool {
        let new = |op: &&Op| !self.ops.contains_key(op.key());
        self.bytes + self.growth(given) <= bytes
            && self.ops.len() + given.ops.iter().filter(new).count() <= ops
    }

    /// Bytes by which it grows at most.
    fn growth(&self, given: &Given) -> u64 {
        let grown = |op: &Op| {
            let before = self.ops.get(op.key());
            let before = before.map_or(0, |(_, value)| size(op.key().len(), value.as_ref()));
            bytes_of(op).saturating_sub(before)
        };
        given.ops.iter().map(grown).sum()
    }

    /// Adds a batch. Gives the number of operations that it makes needless.
    pub(super) fn add(&mut self, given: Given) -> u64 {
        let mut replaced = 0;
        for op in given.ops {
            self.bytes += bytes_of(&op);
            let (key, value) = match op {
                Op::Put(key, value) => (key, Some(value)),
                Op::Delete(key) => (key, None),
            };
            let length = key.len();
            if let Some((_, old)) = self.ops.insert(key, (given.sequence, value)) {
                self.bytes -= size(length, old.as_ref());
                replaced += 1;
            }
        }
        self.logged += given.logged;
        self.last = given.sequence;
        replaced
    }

    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.ops.contains_key(key)
    }

    /// Its keys, each with the sequence of its operation.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&Bytes, u64)> {
        self.ops.iter().map(|(key, (sequence, _))| (key, *sequence))
    }

    /// Takes out what the store below has, and gives the sequence that it had.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<u64> {
        let (sequence, value) = self.ops.remove(key)?;
        self.bytes -= size(key.len(), value.as_ref());
        Some(sequence)
    }

    /// Its operations, in their order. What has expired is deleted: to a reader it is gone, and by a clock of its own the
    /// store below could bring it back.
    pub(super) fn batch(&self, now: Timestamp) -> Batch {
        let mut ops: Vec<_> = self.ops.iter().collect();
        ops.sort_unstable_by(|(key, (one, _)), (other, (two, _))| (one, key).cmp(&(two, other)));
        let ops = ops.into_iter().map(|(key, (_, value))| match value {
            Some(value) if !value.is_expired(now) => Op::Put(key.clone(), value.clone()),
            _ => Op::Delete(key.clone()),
        });
        let batch: Batch = ops.collect();
        if self.rewrite { batch.rewriting() } else { batch }
    }
}
