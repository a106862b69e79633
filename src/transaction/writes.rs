//! What a transaction wrote so far, and how a part of it is taken back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::types::{Batch, Condition, Durability, Op, Value};

/// The last write of each key: a value, or `None` for a delete.
pub(super) type Latest = BTreeMap<Bytes, Option<Value>>;

/// A place in a transaction to which it can go back. See
/// [`Transaction::savepoint`](super::Transaction::savepoint).
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::{ErrorKind, Isolation, Savepoint, StoreExt};
///
/// let store = Arc::new(Memory::new());
/// let (mut one, mut two) =
///     (store.begin(Isolation::Serializable).await?, store.begin(Isolation::Serializable).await?);
/// let start: Savepoint = one.savepoint();
/// one.rollback_to(start)?;
/// assert_eq!(two.rollback_to(start).unwrap_err().kind(), ErrorKind::InvalidInput);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint(u64);

impl Savepoint {
    /// No two of a process are the same, so that one of another transaction is recognised.
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Default)]
pub(super) struct Writes {
    latest: Latest,
    /// What batches required, of keys that the transaction had not written.
    conditions: Vec<Condition>,
    durability: Option<Durability>,
    /// What each write since the first savepoint replaced.
    replaced: Vec<(Bytes, Option<Option<Value>>)>,
    marks: Vec<Mark>,
}

/// How much there was at a savepoint.
struct Mark {
    savepoint: Savepoint,
    replaced: usize,
    conditions: usize,
    durability: Option<Durability>,
}

impl Writes {
    pub(super) const fn latest(&self) -> &Latest {
        &self.latest
    }

    /// What the transaction wrote of a key last, if it wrote it.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Value>> {
        self.latest.get(key)
    }

    pub(super) fn apply(&mut self, op: Op) {
        let (key, value) = match op {
            Op::Put(key, value) => (key, Some(value)),
            Op::Delete(key) => (key, None),
        };
        let before = self.latest.insert(key.clone(), value);
        if !self.marks.is_empty() {
            self.replaced.push((key, before));
        }
    }

    pub(super) fn require(&mut self, conditions: impl IntoIterator<Item = Condition>) {
        self.conditions.extend(conditions);
    }

    pub(super) fn survive(&mut self, durability: Option<Durability>) {
        self.durability = self.durability.max(durability);
    }

    pub(super) fn savepoint(&mut self) -> Savepoint {
        let savepoint = Savepoint::new();
        self.marks.push(Mark {
            savepoint,
            replaced: self.replaced.len(),
            conditions: self.conditions.len(),
            durability: self.durability,
        });
        savepoint
    }

    pub(super) fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        let at = self.marks.iter().rposition(|mark| mark.savepoint == savepoint);
        let Some((at, mark)) = at.and_then(|at| Some((at, self.marks.get(at)?))) else {
            return Err(Error::invalid(
                "the savepoint is of another transaction, or was taken after one to which this one was rolled back",
            ));
        };
        self.conditions.truncate(mark.conditions);
        self.durability = mark.durability;
        for (key, before) in self.replaced.drain(mark.replaced..).rev() {
            match before {
                Some(before) => self.latest.insert(key, before),
                None => self.latest.remove(&key),
            };
        }
        self.marks.truncate(at + 1);
        Ok(())
    }

    /// Whether a commit would neither write nor check anything.
    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty() && self.conditions.is_empty()
    }

    /// As one batch, with the conditions that batches had.
    pub(super) fn into_batch(self) -> Batch {
        let ops = self.latest.into_iter().map(|(key, value)| match value {
            Some(value) => Op::Put(key, value),
            None => Op::Delete(key),
        });
        let batch = ops.collect::<Batch>().with_conditions(self.conditions);
        match self.durability {
            Some(durability) => batch.durability(durability),
            None => batch,
        }
    }
}
