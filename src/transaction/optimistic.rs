//! A transaction: its snapshot, its writes, and what its commit relies on.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::isolation::Isolation;
use super::merge;
use super::read_set::{Seen, unchanged};
use super::writes::{Savepoint, Writes};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::reply::Reply;
use crate::store::{Pages, Read, Store};
use crate::types::{Batch, Commit, Condition, Guarantees, Op, Scan, Value};

/// Reads of one moment and buffered writes, committed together or not at all.
/// [`StoreExt::begin`](crate::StoreExt::begin) begins one.
///
/// It is a [`Read`]: its reads and scans see its own writes over what the store holds. Dropped, it leaves nothing
/// behind. While it lives it holds a snapshot (not with [`ReadCommitted`](Isolation::ReadCommitted)), its writes, and
/// what it read by key; with [`Serializable`](Isolation::Serializable) also what its scans gave.
///
/// **Time does not pass in it**, as in a snapshot: an entry that expires meanwhile stays in it, and so does what it
/// wrote itself, whatever its expiry. At the commit the entry is gone, which is a `Conflict` where the commit relies
/// on it.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::{ErrorKind, Isolation, Read, StoreExt};
///
/// let store = Arc::new(Memory::new());
/// store.put("stock", "3").await?;
///
/// let mut order = store.begin(Isolation::Serializable).await?;
/// assert_eq!(order.get(b"stock").await?, Some("3".into()));
/// order.put("stock", "2")?;
/// order.put("order:1", "an apple")?;
/// assert_eq!(order.get(b"stock").await?, Some("2".into()), "it sees what it wrote");
/// assert_eq!(store.get(b"stock").await?, Some("3".into()), "no one else does");
///
/// store.put("stock", "1").await?;
/// let refused = order.commit().await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Conflict);
/// assert_eq!(store.get(b"order:1").await?, None);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[must_use = "dropped, it leaves nothing behind; `commit` writes it"]
pub struct Transaction {
    store: Arc<dyn Store>,
    /// A snapshot, or the store itself.
    base: Arc<dyn Read>,
    isolation: Isolation,
    pub(super) guarantees: Guarantees,
    writes: Writes,
    seen: Seen,
}

impl Transaction {
    pub(crate) async fn begin(store: Arc<dyn Store>, isolation: Isolation) -> Result<Self> {
        let guarantees = store.profile().guarantees;
        isolation.check(&guarantees)?;
        let base: Arc<dyn Read> = match isolation {
            Isolation::ReadCommitted => Arc::clone(&store) as Arc<dyn Read>,
            Isolation::RepeatableRead | Isolation::Serializable => store.snapshot().await?,
        };
        let (writes, seen) = (Writes::default(), Seen::default());
        Ok(Self { store, base, isolation, guarantees, writes, seen })
    }

    /// How far it is kept apart from others.
    #[must_use]
    pub const fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Sets the value of a key, in this transaction.
    ///
    /// # Errors
    /// `InvalidInput` for a key or a value over a limit; `Unsupported` for an expiry where the store has none.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Value>) -> Result<()> {
        self.apply(Op::Put(key.into(), value.into()))
    }

    /// Removes a key, in this transaction.
    ///
    /// # Errors
    /// Like [`put`](Self::put).
    pub fn delete(&mut self, key: impl Into<Bytes>) -> Result<()> {
        self.apply(Op::Delete(key.into()))
    }

    fn apply(&mut self, op: Op) -> Result<()> {
        let batch = Batch::from_iter([op]);
        self.guarantees.check_batch(&batch)?;
        for op in batch.into_ops() {
            self.writes.apply(op);
        }
        Ok(())
    }

    /// Applies a batch, in this transaction. Its conditions must hold for what the transaction reads. Those on
    /// keys that it did not write must hold once more at the commit, at every level: so a transaction with
    /// [`ReadCommitted`](Isolation::ReadCommitted) loses no update that it requires, and one with
    /// [`RepeatableRead`](Isolation::RepeatableRead) has no write skew on a key that it requires. The commit is as
    /// durable as the batch that asks for most.
    ///
    /// # Errors
    /// `Conflict` if a condition does not hold, and nothing of the batch is applied; `InvalidInput`, `Unsupported` as
    /// [`Store::write`]; as [`Read::get`] while conditions are looked up.
    pub async fn write(&mut self, batch: Batch) -> Result<()> {
        self.guarantees.check_batch(&batch)?;
        if batch.is_rewrite() {
            return Err(Error::unsupported(
                "a batch that rewrites what is stored cannot be part of a transaction; write it to the store",
            ));
        }
        let keys: Vec<Bytes> = batch.conditions().iter().map(|c| c.key().clone()).collect();
        let found = if keys.is_empty() { Vec::new() } else { self.get_many(&keys).await? };
        for (condition, found) in batch.conditions().iter().zip(&found) {
            if !condition.holds(found.as_ref()) {
                return Err(condition.unmet());
            }
        }
        let theirs = batch.conditions().iter().filter(|c| self.writes.get(c.key()).is_none());
        let theirs: Vec<Condition> = theirs.cloned().collect();
        self.writes.require(theirs);
        self.writes.survive(batch.requested_durability());
        for op in batch.into_ops() {
            self.writes.apply(op);
        }
        Ok(())
    }

    /// A place to which [`rollback_to`](Self::rollback_to) can go back.
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use std::sync::Arc;
    /// use tierstack::backends::Memory;
    /// use tierstack::{Isolation, Read, StoreExt};
    ///
    /// let store = Arc::new(Memory::new());
    /// let mut order = store.begin(Isolation::Serializable).await?;
    /// order.put("order:1", "an apple")?;
    /// let with_an_apple = order.savepoint();
    /// order.put("order:1", "an apple and a pear")?;
    /// order.rollback_to(with_an_apple)?;
    /// order.commit().await?;
    /// assert_eq!(store.get(b"order:1").await?, Some("an apple".into()));
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    pub fn savepoint(&mut self) -> Savepoint {
        self.writes.savepoint()
    }

    /// Takes back what was written since the savepoint, with the conditions of batches. The savepoint
    /// stays, later ones end. What was read meanwhile stays read: the program may have acted on it.
    ///
    /// # Errors
    /// `InvalidInput` for a savepoint that is of another transaction, or has ended.
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        self.writes.rollback_to(savepoint)
    }

    /// Ends the transaction and leaves nothing behind, as dropping it does.
    pub fn rollback(self) {}

    /// Writes what the transaction wrote, as one batch, if what it relies on is unchanged. The snapshot is released
    /// first. A transaction that wrote nothing asks the store for nothing, unless a batch had conditions.
    ///
    /// # Errors
    /// `Conflict`: another writer was first, and nothing was written; begin again. `InvalidInput` if the store takes no
    /// batch of so many operations. Otherwise as [`Store::write`]. Where the [outcome](Error::outcome) is unknown, the
    /// transaction may have been committed: read before you begin again.
    pub async fn commit(self) -> Result<Commit> {
        let Self { store, base, isolation, guarantees, writes, seen } = self;
        if writes.is_empty() {
            return Ok(Commit::done());
        }
        let mut seen = seen.into_inner();
        if isolation == Isolation::RepeatableRead {
            let blind: Vec<Bytes> =
                writes.latest().keys().filter(|key| !seen.contains_key(*key)).cloned().collect();
            if !blind.is_empty() {
                let found = base.get_many(&blind).await;
                let found = found.map_err(|error| error.with_outcome(Outcome::Nothing))?;
                seen.extend(blind.into_iter().zip(found));
            }
            seen.retain(|key, _| writes.get(key).is_some());
        }
        drop(base);
        let mut batch = writes.into_batch();
        let required: BTreeSet<Bytes> =
            batch.conditions().iter().map(|c| c.key().clone()).collect();
        let relied_on = seen.into_iter().filter(|(key, _)| !required.contains(key));
        for (key, value) in relied_on {
            batch = batch.require(unchanged(key, value));
        }
        guarantees.check_batch(&batch).map_err(explain)?;
        store.write(batch).await.map_err(explain)
    }

    /// What reads are noted in, where the commit may rely on them.
    fn noting(&self) -> Option<&Seen> {
        (self.isolation != Isolation::ReadCommitted).then_some(&self.seen)
    }
}

/// Says of an error of a commit what became of the transaction.
fn explain(error: Error) -> Error {
    if error.outcome() == Outcome::Unknown {
        error.with_context(
            "it is unknown whether the transaction was committed; read before you begin it again",
        )
    } else if error.kind() == ErrorKind::Conflict {
        error.with_context("the transaction was not committed, as what it relies on was changed")
    } else {
        error.with_context("the transaction was not committed")
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for Transaction {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        if let Some(own) = self.writes.get(key) {
            return Reply::ready(own.clone());
        }
        let reply = self.base.get(key);
        let Some(seen) = self.noting() else { return reply };
        reply.map(move |value| {
            seen.note(key, value.as_ref());
            value
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let others: Vec<Bytes> =
            keys.iter().filter(|key| self.writes.get(key).is_none()).cloned().collect();
        if others.is_empty() && !keys.is_empty() {
            return Reply::ready(
                keys.iter().map(|key| self.writes.get(key).cloned().flatten()).collect(),
            );
        }
        Reply::later(async move {
            let found = self.base.get_many(&others).await?;
            if let Some(seen) = self.noting() {
                others.iter().zip(&found).for_each(|(key, value)| seen.note(key, value.as_ref()));
            }
            let mut found = found.into_iter();
            let own_or_found = |key: &Bytes| match self.writes.get(key) {
                Some(own) => own.clone(),
                None => found.next().flatten(),
            };
            Ok(keys.iter().map(own_or_found).collect())
        })
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        // A commit with RepeatableRead relies on no read, only on what it writes.
        let seen = (self.isolation == Isolation::Serializable).then_some(&self.seen);
        merge::merged(&*self.base, self.writes.latest(), scan, seen)
    }
}

/// Prints counts, never keys or values.
impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transaction({}, {} writes)", self.isolation, self.writes.latest().len())
    }
}
