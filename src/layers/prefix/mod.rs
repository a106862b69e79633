//! `prefix`: a keyspace of its own inside a larger store.
//!
//! # Guarantees
//! A key gets the prefix on its way down and loses it on its way up, so that two stacks with prefixes
//! of which neither begins the other share a store below without seeing each other.
//!
//! # Gives up
//! The length of the prefix, in every key, and the number of entries. The bytes of `usage`, `flush`,
//! `compact` and `close` are of the whole store below: close it through one stack only.
//!
//! # Position
//! Anywhere. A cache or a write-back inside it is shared with the rest of the store below, one
//! outside it is not.
//!
//! # Cancellation
//! As the store below.
//!
//! # Errors
//! `InvalidInput` for a key that is too long with the prefix.
//!
//! # Metrics
//! None. A read that the store below cannot answer at once is put to it a second time, with a key that
//! lives as long as the wait; what counts calls there, such as a cache its misses, counts two.
//!
//! # Configuration
//! `prefix: { prefix: "orders/" }`
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use std::sync::Arc;
//!
//! use tierstack::backends::Memory;
//! use tierstack::layers::prefix::PrefixLayer;
//! use tierstack::{Layer, Read, StoreExt};
//!
//! let shared = Arc::new(Memory::new());
//! let orders = PrefixLayer::new("orders/")?.layer(shared.clone());
//! orders.put("1", "tea").await?;
//! assert_eq!(orders.get(b"1").await?, Some("tea".into()));
//! assert_eq!(shared.get(b"orders/1").await?, Some("tea".into()));
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

#[cfg(test)]
mod tests;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::ready;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::forward;
use crate::layer::{Context, Layer, LayerConfig, StackLayer, Zone};
use crate::reply::Reply;
use crate::store::{Change, Changes, Pages, Read, Store};
use crate::types::{
    Batch, Commit, Condition, Counting, Identity, Inspection, Limits, Op, Page, Profile,
    RESERVED_PREFIX, Scan, Scope, Usage, Value, check_key,
};
use crate::write_group::write_admitted;

/// Settings of the prefix layer.
///
/// ```
/// use tierstack::backends::Memory;
/// use tierstack::layers::prefix::PrefixConfig;
/// use tierstack::{LayerConfig, Limits, Store};
///
/// let config = PrefixConfig { prefix: "orders/".to_owned() };
/// let limits = config.profile(Memory::new().profile())?.guarantees.limits;
/// assert_eq!(limits.key_bytes, Limits::MAX_KEY_BYTES - "orders/".len());
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PrefixConfig {
    /// What every key begins with in the store below. No default; at least 1 byte, and shorter than
    /// the longest key that the store below takes.
    pub prefix: String,
}

#[async_trait]
impl LayerConfig for PrefixConfig {
    const NAME: &'static str = "prefix";
    const ZONE: Zone = Zone::Guard;

    fn profile(&self, below: Profile) -> Result<Profile> {
        let layer = PrefixLayer::new(self.prefix.clone())?;
        let longest = below.guarantees.limits.key_bytes;
        if layer.prefix.len() >= longest {
            return Err(Error::config(format!(
                "prefix has {} bytes, but a key of the store below has at most {longest}; it must be shorter",
                layer.prefix.len()
            ))
            .with_setting("prefix"));
        }
        Ok(profile(&layer.prefix, below))
    }

    async fn open(&self, _: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(PrefixLayer::new(self.prefix.clone())?))
    }
}

fn profile(prefix: &[u8], below: Profile) -> Profile {
    Profile::layer(PrefixConfig::NAME, below)
        .changed(|guarantees| {
            let limits = &mut guarantees.limits;
            limits.key_bytes = limits.key_bytes.saturating_sub(prefix.len());
            // The store below counts those of others as well.
            guarantees.counts = Counting::No;
        })
        .note("The bytes of `usage`, `flush`, `compact` and `close` are of the whole store below the prefix.")
}

/// Puts what the stores it wraps hold under a prefix. See the [module docs](self).
#[derive(Clone)]
pub struct PrefixLayer {
    prefix: Bytes,
}

impl PrefixLayer {
    /// A layer with that prefix.
    ///
    /// # Errors
    /// `Config` for an empty prefix, one as long as the longest key, or one that leads to reserved keys.
    pub fn new(prefix: impl Into<Bytes>) -> Result<Self> {
        let prefix = prefix.into();
        if prefix.is_empty() {
            return Err(Error::config("prefix is empty; it must have at least 1 byte")
                .with_setting("prefix"));
        }
        if prefix.len() >= Limits::MAX_KEY_BYTES {
            return Err(Error::config(format!(
                "prefix has {} bytes; it must be shorter than the longest key, {} bytes",
                prefix.len(),
                Limits::MAX_KEY_BYTES
            ))
            .with_setting("prefix"));
        }
        // With the key behind it, it would be that of tierstack's own in the store below.
        if prefix.starts_with(RESERVED_PREFIX) || RESERVED_PREFIX.starts_with(&prefix) {
            return Err(Error::config(
                "prefix is the beginning of \\0tierstack/, under which tierstack keeps keys of its own, or begins with it; choose another one",
            )
            .with_setting("prefix"));
        }
        Ok(Self { prefix })
    }
}

/// Prints the length: a prefix is part of keys.
impl std::fmt::Debug for PrefixLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrefixLayer({} bytes)", self.prefix.len())
    }
}

impl<S: Store> Layer<S> for PrefixLayer {
    type Service = Prefix<S>;

    fn layer(&self, inner: S) -> Prefix<S> {
        let longest = inner.profile().guarantees.limits.key_bytes;
        let keys = Keys { prefix: self.prefix.clone(), longest };
        Prefix { inner, keys }
    }
}

/// See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Prefix<S> {
    inner: S,
    keys: Keys,
}

/// Keys of up to this many bytes, prefix included, are put together on the stack.
const ON_STACK: usize = 256;

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for Prefix<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        if let Err(error) = self.keys.check(key) {
            return Reply::Now(Err(error));
        }
        // A reply that has to be waited for borrows its key for longer than this call has it. So the
        // first call is for an answer that is there, which needs no allocation.
        let length = self.keys.prefix.len() + key.len();
        let mut buffer = [0; ON_STACK];
        if let Some(full) = buffer.get_mut(..length) {
            let (head, tail) = full.split_at_mut(self.keys.prefix.len());
            head.copy_from_slice(&self.keys.prefix);
            tail.copy_from_slice(key);
            if let Reply::Now(result) = self.inner.get(full) {
                return Reply::Now(result.map_err(|error| self.keys.error_above(error)));
            }
        }
        let full = self.keys.below(key);
        Reply::later(async move {
            self.inner.get(&full).await.map_err(|error| self.keys.error_above(error))
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        if let Some(error) = keys.iter().find_map(|key| self.keys.check(key).err()) {
            return Reply::Now(Err(error));
        }
        let full: Vec<Bytes> = keys.iter().map(|key| self.keys.below(key)).collect();
        if let Reply::Now(result) = self.inner.get_many(&full) {
            return Reply::Now(result.map_err(|error| self.keys.error_above(error)));
        }
        Reply::later(async move {
            self.inner.get_many(&full).await.map_err(|error| self.keys.error_above(error))
        })
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        let pages = self.inner.scan(self.keys.scan_below(scan));
        pages
            .map(|page| match page {
                Ok(page) => self.keys.page_above(page),
                Err(error) => Err(self.keys.error_above(error)),
            })
            .boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Prefix<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let batch = self.keys.batch_below(batch)?;
        self.inner.write(batch).await.map_err(|error| self.keys.error_above(error))
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let below = |batch| self.keys.batch_below(batch);
        let answers = write_admitted(&self.inner, group, below).await.into_iter();
        answers.map(|answer| answer.map_err(|error| self.keys.error_above(error))).collect()
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        // What the run fails with names a key of where it comes from.
        let run_failed = AtomicBool::new(false);
        let below = run.map(|page| {
            let page = page.and_then(|page| self.keys.page_below(page));
            page.inspect_err(|_| run_failed.store(true, Ordering::Relaxed))
        });
        let ingested = self.inner.ingest(below.boxed()).await;
        ingested.map_err(|error| match run_failed.load(Ordering::Relaxed) {
            true => error,
            false => self.keys.error_above(error),
        })
    }

    async fn changes(&self) -> Result<Changes> {
        let prefix = self.keys.prefix.clone();
        let changes = self.inner.changes().await?;
        Ok(changes.filter_map(move |change| ready(change_above(&prefix, change))).boxed())
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.inner.invalidate(self.keys.scope_below(scope)).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        self.keys.check(key)?;
        let seen = self.inner.inspect(&self.keys.below(key)).await;
        seen.map_err(|error| self.keys.error_above(error))
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let inner = self.inner.snapshot().await?;
        Ok(Arc::new(Prefix { inner, keys: self.keys.clone() }))
    }

    async fn usage(&self) -> Result<Usage> {
        Ok(Usage { entries: None, ..self.inner.usage().await? })
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        let below = [&self.keys.prefix, prefix].concat();
        let told = |error| self.keys.error_above(error);
        let Some(entries) = self.inner.count(&below).await.map_err(told)? else { return Ok(None) };
        // The key that is nothing but the prefix is none above.
        let bare =
            prefix.is_empty() && self.inner.get(&self.keys.prefix).await.map_err(told)?.is_some();
        Ok(Some(entries - u64::from(bare && entries > 0)))
    }

    fn profile(&self) -> Profile {
        profile(&self.keys.prefix, self.inner.profile())
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.inner.identity()?.within(&self.keys.prefix))
    }

    forward!(self => self.inner; flush, compact, close);
}

/// A change below as it is seen above; `None` if it is of other keys.
fn change_above(prefix: &[u8], change: Change) -> Option<Change> {
    let keys = match change {
        Change::Keys(keys) => keys,
        Change::Prefix(below) if below.starts_with(prefix) => {
            return Some(Change::Prefix(below.slice(prefix.len()..)));
        }
        // Every key above begins with it.
        Change::Prefix(below) if prefix.starts_with(&below) => {
            return Some(Change::Prefix(Bytes::new()));
        }
        Change::Prefix(_) => return None,
        Change::All | Change::Lost => return Some(change),
    };
    let inside = |key: &Bytes| key.len() > prefix.len() && key.starts_with(prefix);
    let keys: Vec<_> =
        keys.iter().filter(|key| inside(key)).map(|key| key.slice(prefix.len()..)).collect();
    (!keys.is_empty()).then_some(Change::Keys(keys))
}

/// How keys above and below correspond.
#[derive(Clone)]
struct Keys {
    prefix: Bytes,
    /// Bytes of the longest key below.
    longest: usize,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys(prefix of {} bytes)", self.prefix.len())
    }
}

impl Keys {
    /// Checks a key as it is above; the store below would count the prefix.
    fn check(&self, key: &[u8]) -> Result<()> {
        check_key(key)?;
        let limits = Limits {
            key_bytes: self.longest.saturating_sub(self.prefix.len()),
            ..Limits::default()
        };
        limits.check(key.len(), 0).map_err(|error| error.with_layer(PrefixConfig::NAME))
    }

    fn below(&self, key: &[u8]) -> Bytes {
        [&self.prefix, key].concat().into()
    }

    /// The error as it is above: its key is one of this store.
    fn batch_below(&self, batch: Batch) -> Result<Batch> {
        let require = |condition: &Condition| {
            self.check(condition.key())?;
            Ok(condition.clone().with_key(self.below(condition.key())))
        };
        let conditions = batch.conditions().iter().map(require).collect::<Result<_>>()?;
        batch.with_conditions(conditions).try_map(|op| {
            self.check(op.key())?;
            Ok(match op {
                Op::Put(key, value) => Op::Put(self.below(&key), value),
                Op::Delete(key) => Op::Delete(self.below(&key)),
            })
        })
    }

    fn error_above(&self, error: Error) -> Error {
        error.map_key(|key| match key.starts_with(&self.prefix) {
            true => key.slice(self.prefix.len()..),
            false => key,
        })
    }

    fn scope_below(&self, scope: Scope) -> Scope {
        match scope {
            Scope::Keys(keys) => Scope::Keys(keys.iter().map(|key| self.below(key)).collect()),
            Scope::Prefix(prefix) => Scope::Prefix(self.below(&prefix)),
            Scope::All => Scope::Prefix(self.prefix.clone()),
        }
    }

    fn scan_below(&self, scan: Scan) -> Scan {
        let all = Scan::prefix(&self.prefix);
        let from = match scan.from {
            Bound::Included(key) if key.is_empty() => Bound::Unbounded,
            from => from.map(|key| self.below(&key)),
        };
        Scan {
            // A key that is the prefix itself would be empty above, which no key is.
            from: match from {
                Bound::Unbounded => Bound::Excluded(self.prefix.clone()),
                from => from,
            },
            to: match scan.to.map(|key| self.below(&key)) {
                Bound::Unbounded => all.to,
                to => to,
            },
            ..scan
        }
    }

    fn page_below(&self, mut page: Page) -> Result<Page> {
        for entry in &mut page.entries {
            self.check(&entry.key)?;
            entry.key = self.below(&entry.key);
        }
        Ok(page)
    }

    fn page_above(&self, mut page: Page) -> Result<Page> {
        for entry in &mut page.entries {
            if !entry.key.starts_with(&self.prefix) {
                return Err(Error::internal("the store below gave an entry outside of the range")
                    .with_layer(PrefixConfig::NAME)
                    .with_key(&entry.key));
            }
            entry.key = entry.key.slice(self.prefix.len()..);
        }
        Ok(page)
    }
}
