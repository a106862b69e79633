//! What a store guarantees, as data.
//!
//! Each backend states its own [`Profile`]; each layer takes the profile of what is below it and says
//! how it changes it. The outermost profile is what the whole stack guarantees.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::batch::{Batch, Durability, Op};
use super::condition::{Condition, Conditions};
use super::limits::{Limits, check_key};
use crate::error::{Error, Result};

/// How old an answer may be compared with a write that bypassed this stack. Writes through the
/// stack are always seen by the reads through it that follow their acknowledgement.
///
/// ```
/// use std::time::Duration;
/// use tierstack::Freshness;
///
/// let ttl = Duration::from_secs(60);
/// assert_eq!(Freshness::Immediate.delayed(Some(ttl)), Freshness::Within(ttl));
/// assert_eq!(Freshness::Exclusive.delayed(None), Freshness::Exclusive, "nobody else writes");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// A foreign write is seen at once.
    Immediate,
    /// A foreign write is seen after at most this long.
    Within(Duration),
    /// A foreign write may never be seen.
    Unbounded,
    /// Only this process can write: the store is locked, or private to it.
    Exclusive,
}

impl Freshness {
    /// The weaker of the two guarantees, where this layer adds a delay of its own.
    #[must_use]
    pub fn delayed(self, own: Option<Duration>) -> Self {
        match (self, own) {
            (Self::Exclusive, _) => Self::Exclusive,
            (Self::Unbounded, _) | (_, None) => Self::Unbounded,
            (Self::Immediate, Some(own)) => Self::Within(own),
            (Self::Within(below), Some(own)) => Self::Within(below.saturating_add(own)),
        }
    }
}

/// A place where bytes come to rest, and whether what rests there is sealed.
///
/// ```
/// use tierstack::backends::Memory;
/// use tierstack::layers::encrypt::EncryptConfig;
/// use tierstack::units::Secret;
/// use tierstack::{LayerConfig, Place, Store};
///
/// let file = Place { name: "mine".into(), what: "file".into(), sealed: false };
/// let below = Memory::new().profile().changed(|guarantees| guarantees.places.push(file));
/// assert!(!below.guarantees.sealed_everywhere());
///
/// let encrypt = EncryptConfig { keys: Secret::Env("KEYS".into()), accept_plain: false };
/// assert!(encrypt.profile(below)?.guarantees.places[0].sealed);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The layer or backend that puts them there, such as `rocksdb` or `backup`.
    pub name: Cow<'static, str>,
    /// What rests there, such as `database` or `bucket`.
    pub what: Cow<'static, str>,
    /// Whether the values are sealed there. Keys are always plain: they must sort.
    pub sealed: bool,
}

/// How far back, and how closely, lost data can be brought back.
///
/// ```
/// use std::time::Duration;
/// use tierstack::backends::Memory;
/// use tierstack::layers::backup::BackupConfig;
/// use tierstack::{LayerConfig, Store};
///
/// let backup = BackupConfig { to: "./backups".into(), base: Some("daily".parse().unwrap()) };
/// let recovery = backup.profile(Memory::new().profile())?.guarantees.recovery.unwrap();
/// assert_eq!(recovery.interval, Some(Duration::from_secs(86_400)));
/// assert_eq!(recovery.window, None);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// The longest time between two backups that are due. What was written since the last finished one was
    /// begun can be lost: the time that a backup takes, failures and the time while it is closed add to that. `None`:
    /// backups are taken by hand.
    pub interval: Option<Duration>,
    /// How far back any moment can be restored. `None`: only the moments at which a base was taken.
    pub window: Option<Duration>,
}

/// How well a store knows how many entries it holds, without reading them.
///
/// ```
/// use tierstack::backends::Memory;
/// use tierstack::{Counting, Store};
///
/// assert_eq!(Memory::new().profile().guarantees.counts, Counting::Estimated);
/// assert!(Counting::Exact > Counting::Estimated);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counting {
    /// Not at all: [`Usage::entries`] is `None`.
    No,
    /// Roughly: a number of about this size, or `None` as long as the store has not counted. Expired
    /// entries may be among those counted.
    Estimated,
    /// Exactly: every acknowledged write is counted, and no expired entry.
    Exact,
}

/// What a store guarantees.
///
/// ```
/// use tierstack::backends::Memory;
/// use tierstack::{Durability, Store};
///
/// let guarantees = Memory::new().profile().guarantees;
/// assert!(guarantees.atomic_batches && guarantees.ordered_scans && guarantees.expiry);
/// assert_eq!(guarantees.durability, Durability::Nothing);
/// assert!(guarantees.check_durability(Some(Durability::PowerCut)).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Guarantees {
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// What an acknowledged write survives at most where its batch [asks](super::Batch::durability) for it: at least
    /// `durability`. More than that costs such a batch a longer wait.
    pub durability_on_request: Durability,
    /// What every acknowledged write survives once `flush` has returned.
    pub durability_after_flush: Durability,
    /// Whether a batch is applied wholly or not at all, also across a crash. Without it, a batch of
    /// more than one operation is refused, unless the store can apply just that one atomically.
    pub atomic_batches: bool,
    /// What a batch can [require](super::Batch::require) of the present state: with atomic batches of as many
    /// keys as it names, without them of the one key that it writes.
    pub conditions: Conditions,
    /// Whether a read gives back what was put as it was put, value and expiry to the millisecond. Not so where a
    /// default expiry is added, where a column rounds expiries, or where a database of others may change what is
    /// written, by a trigger or a rule.
    pub verbatim: bool,
    /// How old an answer may be compared with writes that bypass this stack.
    pub freshness: Freshness,
    /// How late changes that bypass this stack are reported by [`changes`](crate::Store::changes), at
    /// most, the loss of the connection included. `None`: not at all.
    pub change_feed: Option<Duration>,
    /// Whether scans are offered, in key order.
    pub ordered_scans: bool,
    /// Whether each page of a scan is of one moment, so that it holds an atomic batch wholly or not at all.
    pub atomic_pages: bool,
    /// Whether frozen views are offered.
    pub snapshots: bool,
    /// Whether an entry can carry an expiry.
    pub expiry: bool,
    /// Whether runs of sorted entries are taken in bulk, by [`ingest`](crate::Store::ingest).
    pub ingest: bool,
    /// How well the number of entries is known.
    pub counts: Counting,
    /// Whether writes are accepted.
    pub writable: bool,
    /// Every place where bytes come to rest.
    pub places: Vec<Place>,
    /// Whether lost data can be brought back.
    pub recovery: Option<Recovery>,
    /// The largest things the store takes.
    pub limits: Limits,
}

impl Guarantees {
    /// Whether the values are sealed in every place where they rest.
    #[must_use]
    pub fn sealed_everywhere(&self) -> bool {
        self.places.iter().all(|place| place.sealed)
    }

    /// Operations that any batch may have: 1 without atomic batches. `None`: bounded by memory.
    #[must_use]
    pub fn batch_ops(&self) -> Option<usize> {
        if self.atomic_batches { self.limits.batch_ops.map(|limit| limit.max(1)) } else { Some(1) }
    }

    /// Checks that a batch asks for no more than is guaranteed: keys and values within the limits,
    /// expiries, conditions, atomicity, durability. What every backend does before it writes anything.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported`, which say what is guaranteed.
    pub fn check_batch(&self, batch: &Batch) -> Result<()> {
        for op in batch.ops() {
            self.check_op(op).map_err(|error| error.with_key(op.key()))?;
        }
        for condition in batch.conditions() {
            self.check_condition(batch, condition).map_err(|e| e.with_key(condition.key()))?;
        }
        if batch.len() > 1 && !self.atomic_batches {
            return Err(Error::unsupported(
                "this store has no atomic batches; write one operation at a time",
            ));
        }
        match self.limits.batch_ops {
            Some(limit) if batch.len() > limit => Err(Error::invalid(format!(
                "a batch of {} operations is over this store's limit of {limit}",
                batch.len()
            ))),
            _ => self.check_durability(batch.requested_durability()),
        }
    }

    fn check_condition(&self, batch: &Batch, condition: &Condition) -> Result<()> {
        check_key(condition.key())?;
        self.limits.check(condition.key().len(), 0)?;
        if condition.needs() > self.conditions {
            return Err(Error::unsupported(match self.conditions {
                Conditions::None => "the batch has a condition, but this store cannot check any",
                _ => {
                    "the batch requires a value, but this store can only check that a key is absent"
                }
            }));
        }
        let elsewhere = batch.ops().iter().any(|op| op.key() != condition.key())
            || batch.conditions().iter().any(|other| other != condition);
        if elsewhere && !self.atomic_batches {
            return Err(Error::unsupported(
                "this store has no atomic batches, so a condition can only be on the one key that is written",
            ));
        }
        Ok(())
    }

    fn check_op(&self, op: &Op) -> Result<()> {
        check_key(op.key())?;
        let value = op.value();
        self.limits.check(op.key().len(), value.map_or(0, |value| value.bytes.len()))?;
        if !self.expiry && value.is_some_and(|value| value.expires_at.is_some()) {
            return Err(Error::unsupported(
                "this store has no expiry of entries; add the `expire` layer",
            ));
        }
        Ok(())
    }

    /// Checks that a layer may write values here that are not text, such as frames. For the profile of
    /// such a layer.
    ///
    /// # Errors
    /// `Config`, as every write would be refused.
    pub fn check_takes_frames(&self) -> Result<()> {
        if self.writable && self.limits.text_values {
            return Err(Error::config(
                "the values that this layer writes are not UTF-8, and the store below takes only that (`values: text`): every write would fail. Set `values: blob` there, which reads text as well (`sqlite`), keep values in a column of `bytea` (`postgres`), or leave this layer out",
            ));
        }
        Ok(())
    }

    /// Checks that no more durability is asked for than is guaranteed.
    ///
    /// # Errors
    /// `Unsupported` that says what is guaranteed.
    pub fn check_durability(&self, asked: Option<Durability>) -> Result<()> {
        match asked {
            Some(asked) if asked > self.durability_on_request => Err(Error::unsupported(format!(
                "the batch asks to survive {asked}, but a write here survives {}",
                self.durability_on_request
            ))),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::ProcessCrash => "a process crash",
            Self::PowerCut => "a power cut",
            Self::MachineLoss => "the loss of the machine",
        })
    }
}

/// Whether a store holds data or wraps one that does. See [`Profile`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileKind {
    /// Holds data itself.
    Backend,
    /// Wraps a store.
    Layer,
}

/// What a store is, what it guarantees, and what is below it.
///
/// ```
/// use tierstack::backends::Memory;
/// use tierstack::layers::read_only::ReadOnlyLayer;
/// use tierstack::{Layer, ProfileKind, Store};
///
/// let profile = ReadOnlyLayer.layer(Memory::new()).profile();
/// assert_eq!(profile.to_string(), "read_only(memory)");
/// let kinds: Vec<_> = profile.levels().map(|level| level.kind).collect();
/// assert_eq!(kinds, [ProfileKind::Layer, ProfileKind::Backend]);
/// assert!(!profile.guarantees.writable);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// The name of the layer or backend, as in a config file.
    pub name: Cow<'static, str>,
    /// Layer or backend.
    pub kind: ProfileKind,
    /// What the stack guarantees at this level.
    pub guarantees: Guarantees,
    /// What a person should know about this level: a cost, a limit, a choice. Whole sentences.
    pub notes: Vec<String>,
    /// The profile of the store below.
    pub below: Option<Box<Self>>,
}

impl Profile {
    /// The profile of a backend.
    #[must_use]
    pub fn backend(name: impl Into<Cow<'static, str>>, guarantees: Guarantees) -> Self {
        Self {
            name: name.into(),
            kind: ProfileKind::Backend,
            guarantees,
            notes: Vec::new(),
            below: None,
        }
    }

    /// The profile of a layer that changes nothing about what is below it.
    #[must_use]
    pub fn layer(name: impl Into<Cow<'static, str>>, below: Self) -> Self {
        Self {
            name: name.into(),
            kind: ProfileKind::Layer,
            guarantees: below.guarantees.clone(),
            notes: Vec::new(),
            below: Some(Box::new(below)),
        }
    }

    /// The same profile with changed guarantees.
    #[must_use]
    pub fn changed(mut self, change: impl FnOnce(&mut Guarantees)) -> Self {
        change(&mut self.guarantees);
        self
    }

    /// The same profile with a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The levels from the outermost to the backend.
    pub fn levels(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |profile| profile.below.as_deref())
    }
}

/// The stack from the outside in: `cache(compress(rocksdb))`.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.below {
            Some(below) => write!(f, "{}({below})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// How much a store holds. What a store cannot tell cheaply is `None`.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Store, StoreExt, Usage};
///
/// let store = Memory::new();
/// store.put("k", "v").await?;
/// let Usage { entries, stored_bytes, .. } = store.usage().await?;
/// assert_eq!((entries, stored_bytes), (Some(1), None));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Entries, as precisely as [`Guarantees::counts`] says.
    pub entries: Option<u64>,
    /// Bytes in memory.
    pub memory_bytes: Option<u64>,
    /// Bytes on the disk, or wherever the backend keeps them.
    pub stored_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::MemoryConfig;
    use crate::layer::BackendConfig;

    #[test]
    fn delays_add_up_and_the_weakest_guarantee_wins() {
        let second = Duration::from_secs(1);
        assert_eq!(Freshness::Immediate.delayed(Some(second)), Freshness::Within(second));
        assert_eq!(Freshness::Within(second).delayed(Some(second)), Freshness::Within(2 * second));
        assert_eq!(Freshness::Within(second).delayed(None), Freshness::Unbounded);
        assert_eq!(Freshness::Exclusive.delayed(None), Freshness::Exclusive);
        let longest = Freshness::Within(Duration::MAX);
        assert_eq!(longest.delayed(Some(second)), longest);
    }

    #[test]
    fn a_batch_has_one_operation_where_it_would_not_be_atomic() {
        let with = |atomic_batches, batch_ops| {
            let limits = Limits { batch_ops, ..Limits::default() };
            let memory = MemoryConfig::default().profile().unwrap().guarantees;
            Guarantees { atomic_batches, limits, ..memory }.batch_ops()
        };
        assert_eq!(with(true, None), None);
        assert_eq!(with(true, Some(9)), Some(9));
        assert_eq!(with(true, Some(0)), Some(1), "a loop by this number ends");
        assert_eq!(with(false, None), Some(1));
        assert_eq!(with(false, Some(9)), Some(1));
    }
}
