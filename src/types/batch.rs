//! Writes: a batch, and what it is acknowledged with.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::value::Value;
use crate::error::Result;

/// What an acknowledged write survives. Each includes the ones before it.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Batch, Durability, ErrorKind, Store};
///
/// assert!(Durability::PowerCut > Durability::ProcessCrash);
/// let batch = Batch::new().put("k", "v").durability(Durability::PowerCut);
/// let refused = Memory::new().write(batch).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Unsupported);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Nothing: it is lost when the process ends.
    Nothing,
    /// The end of the process, however it comes: the operating system has the data.
    ProcessCrash,
    /// A power cut or a crash of the operating system: the data is on the disk.
    PowerCut,
    /// The loss of the machine: the data is somewhere else.
    MachineLoss,
}

/// One operation of a [`Batch`].
///
/// ```
/// use tierstack::{Batch, Op};
///
/// let ops = [Op::Put("a".into(), "1".into()), Op::Delete("b".into())];
/// assert_eq!((ops[1].key(), ops[1].value()), (&"b".into(), None));
/// let batch: Batch = ops.into_iter().collect();
/// assert_eq!(batch, Batch::new().put("a", "1").delete("b"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets the value of a key, whatever it was before.
    Put(Bytes, Value),
    /// Removes a key. Removing a key that does not exist succeeds.
    Delete(Bytes),
}

impl Op {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// The value, where there is one.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Put(_, value) => Some(value),
            Self::Delete(_) => None,
        }
    }
}

/// Prints lengths, never the bytes.
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, value) => write!(f, "Put(key of {} bytes, {value:?})", key.len()),
            Self::Delete(key) => write!(f, "Delete(key of {} bytes)", key.len()),
        }
    }
}

/// Puts and deletes that happen together: ordered, the last operation of a key wins.
///
/// Applied atomically, or refused with [`Unsupported`](crate::ErrorKind::Unsupported) by a store whose
/// profile says that it cannot.
///
/// ```
/// use tierstack::Batch;
///
/// let batch = Batch::new().put("a", "1").put("b", "2").delete("a");
/// assert_eq!(batch.len(), 3);
/// assert_eq!(batch.bytes(), 5);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Batch {
    ops: Vec<Op>,
    durability: Option<Durability>,
    rewrite: bool,
    conditions: Vec<Condition>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Value>) -> Self {
        self.push(Op::Put(key.into(), value.into()));
        self
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.push(Op::Delete(key.into()));
        self
    }

    /// Asks that the acknowledgement means at least this. A store that cannot guarantee it refuses the
    /// batch with [`Unsupported`](crate::ErrorKind::Unsupported); `durability_on_request` of the profile says what it can. Less
    /// than the profile's `durability` lets a store that can acknowledge sooner do so. Unset: what the profile says.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Says that the values are those that the store holds already, in another form: what a layer adds
    /// to new values, such as a default deadline, it leaves off.
    #[must_use]
    pub fn rewriting(mut self) -> Self {
        self.rewrite = true;
        self
    }

    /// Asks that the batch is applied only if this holds, and so do its other conditions; otherwise it is
    /// refused as a whole with [`Conflict`](crate::ErrorKind::Conflict). The key need not be one that the batch
    /// writes; a batch without operations checks only. See [`Condition`] for an example.
    ///
    /// A store that cannot check it refuses the batch with [`Unsupported`](crate::ErrorKind::Unsupported). A
    /// store without atomic batches takes one condition at a time, on the key that the batch writes.
    ///
    /// Written again after an unknown outcome, the batch may meet its own entries: read before you believe a
    /// conflict that follows one.
    #[must_use]
    pub fn require(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Asks that the batch is applied only if none of the keys that it puts so far exists.
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use tierstack::backends::Memory;
    /// use tierstack::{Batch, ErrorKind, Store};
    ///
    /// let store = Memory::new();
    /// store.write(Batch::new().put("lock", "me").if_absent()).await?;
    /// let refused = store.write(Batch::new().put("lock", "you").if_absent()).await.unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::Conflict);
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        let puts = self.ops.iter().filter(|op| op.value().is_some());
        self.conditions.extend(puts.map(|op| Condition::Absent(op.key().clone())));
        self
    }

    /// What the batch requires of the present state.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Whether it requires anything of the present state.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// The same operations under other conditions: how a layer says them in the terms of the store below.
    #[must_use]
    pub fn with_conditions(mut self, conditions: Vec<Condition>) -> Self {
        self.conditions = conditions;
        self
    }

    /// Whether the values are there already, in another form.
    #[must_use]
    pub fn is_rewrite(&self) -> bool {
        self.rewrite
    }

    /// Adds an operation at the end.
    pub fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// The operations, in order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The operations, in order.
    #[must_use]
    pub fn into_ops(self) -> Vec<Op> {
        self.ops
    }

    /// The durability that was asked for.
    #[must_use]
    pub fn requested_durability(&self) -> Option<Durability> {
        self.durability
    }

    /// The same request with other operations, under the same conditions: how a layer rewrites values.
    ///
    /// # Errors
    /// What `rewrite` returns for the first operation that it refuses.
    pub fn try_map(mut self, rewrite: impl FnMut(Op) -> Result<Op>) -> Result<Self> {
        let ops = std::mem::take(&mut self.ops).into_iter().map(rewrite).collect::<Result<_>>()?;
        Ok(Self { ops, ..self })
    }

    /// How many operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is no operation. Such a batch is accepted and changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of all keys and values that are written.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ops
            .iter()
            .map(|op| op.key().len() + op.value().map_or(0, |value| value.bytes.len()))
            .sum()
    }

    /// The last operation of each key, in the order of those last operations.
    #[must_use]
    pub fn last_ops(&self) -> Vec<&Op> {
        let last: HashMap<&Bytes, usize> =
            self.ops.iter().enumerate().map(|(at, op)| (op.key(), at)).collect();
        self.ops
            .iter()
            .enumerate()
            .filter(|(at, op)| last.get(op.key()) == Some(at))
            .map(|(_, op)| op)
            .collect()
    }
}

/// Prints counts, never keys or values.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} operations, {} bytes)", self.len(), self.bytes())
    }
}

impl FromIterator<Op> for Batch {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Self {
        Self { ops: ops.into_iter().collect(), ..Self::default() }
    }
}

impl Extend<Op> for Batch {
    fn extend<I: IntoIterator<Item = Op>>(&mut self, ops: I) {
        self.ops.extend(ops);
    }
}

type Wait = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// What an acknowledged write returns.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::Commit;
///
/// let commit = Commit::at(7);
/// assert_eq!(commit.sequence, Some(7));
/// commit.durable().await?;
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Default)]
pub struct Commit {
    /// The place of the write in the store's order of writes, where the store has one.
    pub sequence: Option<u64>,
    wait: Option<Wait>,
}

impl Commit {
    /// A commit that is as durable as the stack guarantees, without a sequence.
    pub fn done() -> Self {
        Self::default()
    }

    /// A commit that is as durable as the stack guarantees.
    pub fn at(sequence: u64) -> Self {
        Self { sequence: Some(sequence), wait: None }
    }

    /// The same commit, durable once `wait` has resolved, and what it waited for already: each layer adds its
    /// own wait to the commit of the store below.
    ///
    /// A layer that acknowledges a write before the store below has it waits for that commit in turn:
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use tierstack::{Commit, Error, Result};
    /// use tokio::sync::oneshot;
    ///
    /// let (flushed, below) = oneshot::channel::<Result<Commit>>();
    /// let commit = Commit::at(7).durable_after(async {
    ///     let below = below.await.map_err(|_| Error::internal("the flush ended"))??;
    ///     below.durable().await
    /// });
    /// // Later, when the store below has the write:
    /// let _ = flushed.send(Ok(Commit::done()));
    /// commit.durable().await?;
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    pub fn durable_after(
        mut self,
        wait: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Self {
        self.wait = Some(match self.wait.take() {
            // Both are polled, so that what one of them sets going does not wait for the other.
            Some(before) => Box::pin(async { try_join(before, wait).await.map(|_| ()) }),
            None => Box::pin(wait),
        });
        self
    }

    /// Resolves once the write is as durable as the whole stack guarantees: at once, unless a
    /// write-back holds it. Dropping the future changes nothing about the write.
    ///
    /// # Errors
    /// What kept the write from getting there.
    pub async fn durable(self) -> Result<()> {
        match self.wait {
            Some(wait) => wait.await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("sequence", &self.sequence)
            .field("durable", &self.wait.is_none())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_ops_keeps_the_last_operation_of_each_key() {
        let batch =
            Batch::new().put("a", "1").put("b", "2").delete("a").put("c", "3").put("b", "4");
        let keys: Vec<&[u8]> = batch.last_ops().iter().map(|op| op.key().as_ref()).collect();
        assert_eq!(keys, [b"a", b"c", b"b"]);
    }

    #[test]
    fn debug_prints_neither_keys_nor_values() {
        let batch = Batch::new().put("secret-key", "secret-value").delete("secret-key");
        assert!(!format!("{:?}", batch.ops()).contains("secret"), "{:?}", batch.ops());
        assert!(!format!("{batch:?} {:?}", batch.ops()[0].value()).contains("secret-v"));
        assert!(!format!("{batch:?}").contains("secret"));
    }
}
