//! `memory`: an ordered store in the process's memory.
//!
//! # Guarantees
//! Batches are atomic. Reads take no lock. A snapshot, and every scan, sees one moment and copies
//! no data: the tree is persistent, and a write makes new nodes along one path only. Entries with an
//! expiry are gone at that moment.
//!
//! # Gives up
//! Everything when the process ends.
//!
//! # Cancellation
//! Every operation completes in its first poll.
//!
//! # Errors
//! `InvalidInput` for a key outside 1 to 65,536 bytes; `Unsupported` for a batch that asks to survive
//! anything; `Closed`.
//!
//! # Configuration
//! `memory: {}`
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::{Read, Store, StoreExt};
//!
//! let store = Memory::new();
//! store.put("k", "old").await?;
//! let before = store.snapshot().await?;
//! store.put("k", "new").await?;
//! assert_eq!(before.get(b"k").await?, Some("old".into()));
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use imbl::{OrdMap, OrdSet};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{Error, Result};
use crate::layer::{BackendConfig, Context};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::{
    Batch, Commit, Condition, Conditions, Counting, Durability, Entry, Freshness, Guarantees,
    Identity, Inspection, Limits, Op, Order, Page, Place, Profile, RunOrder, Scan, Scope, Usage,
    Value, check_key,
};
use crate::write_group::complete;

/// Settings of the memory backend: none yet.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::MemoryConfig;
/// use tierstack::{BackendConfig, Context, Store, StoreExt};
///
/// let store = MemoryConfig::default().open(&Context::default()).await?;
/// store.put("k", "v").await?;
/// assert_eq!(store.usage().await?.entries, Some(1));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryConfig {}

#[async_trait]
impl BackendConfig for MemoryConfig {
    const NAME: &'static str = "memory";

    fn profile(&self) -> Result<Profile> {
        Ok(Profile::backend(Self::NAME, Memory::guarantees()))
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Memory::with_clock(Arc::clone(&context.clock))))
    }
}

/// An ordered store in memory. See the [module docs](self).
#[derive(Debug)]
pub struct Memory {
    root: ArcSwap<Root>,
    /// Writers, one at a time. Readers never take it.
    writing: Mutex<()>,
    closed: AtomicBool,
    clock: Arc<dyn Clock>,
    identity: Identity,
}

/// One moment of the store. Cloning copies two pointers.
#[derive(Clone, Default)]
struct Root {
    entries: OrdMap<Bytes, Value>,
    /// The entries that expire, soonest first, so that a write can sweep without a search.
    expiring: OrdSet<(Timestamp, Bytes)>,
    bytes: u64,
    sequence: u64,
}

/// Prints counts, never keys or values.
impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({} entries, {} bytes)", self.entries.len(), self.bytes)
    }
}

/// Expired entries that one write removes at most, in addition to one for each entry that it may add: so
/// they cannot accumulate.
const SWEEP: usize = 16;

/// Stores that were made in this process.
static STORES: AtomicU64 = AtomicU64::new(0);

impl Memory {
    /// An empty store on the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(SystemClock::shared())
    }

    /// An empty store whose entries expire by that clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            root: ArcSwap::default(),
            writing: Mutex::new(()),
            closed: AtomicBool::new(false),
            clock,
            // No two stores of a process have the same number; of others nobody can ask.
            identity: Identity::new(
                MemoryConfig::NAME,
                &[
                    &std::process::id().to_string(),
                    &STORES.fetch_add(1, Ordering::Relaxed).to_string(),
                ],
            ),
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    /// The root of this moment. It is loaded before the flag is read: the other way round, a read
    /// that overtakes `close` would find the emptied root and call an entry missing.
    fn root(&self) -> Result<Guard<Arc<Root>>> {
        let root = self.root.load();
        self.check_open().map(|()| root)
    }

    fn guarantees() -> Guarantees {
        Guarantees {
            durability: Durability::Nothing,
            durability_on_request: Durability::Nothing,
            durability_after_flush: Durability::Nothing,
            atomic_batches: true,
            conditions: Conditions::Value,
            verbatim: true,
            freshness: Freshness::Exclusive,
            change_feed: None,
            ordered_scans: true,
            atomic_pages: true,
            snapshots: true,
            expiry: true,
            ingest: true,
            counts: Counting::Estimated,
            writable: true,
            places: Vec::<Place>::new(),
            recovery: None,
            limits: Limits::default(),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for Memory {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        Reply::Now(self.root().and_then(|root| root.get(key, || self.clock.now())))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let get_all = |root: Guard<Arc<Root>>| {
            keys.iter().map(|key| root.get(key, || self.clock.now())).collect()
        };
        Reply::Now(self.root().and_then(get_all))
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        pages(scan, || self.clock.now(), || self.root().map(Guard::into_inner))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Memory {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        Self::guarantees().check_batch(&batch)?;
        let _writing = self.writing.lock();
        self.check_open()?;
        let mut root = Root::clone(&self.root.load());
        let commit = root.write(batch, self.clock.now())?;
        self.root.store(Arc::new(root));
        Ok(commit)
    }

    /// Readers see the whole group at once.
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let batches = group.len();
        let _writing = self.writing.lock();
        if let Err(closed) = self.check_open() {
            return complete(vec![Err(closed)], batches);
        }
        let mut root = Root::clone(&self.root.load());
        let now = self.clock.now();
        let mut answers = Vec::with_capacity(batches);
        for batch in group {
            let checked = Self::guarantees().check_batch(&batch);
            answers.push(checked.and_then(|()| root.write(batch, now)));
            if answers.last().is_some_and(Result::is_err) {
                break;
            }
        }
        self.root.store(Arc::new(root));
        complete(answers, batches)
    }

    /// A page at a time: there is no faster way into memory.
    async fn ingest(&self, mut run: Pages<'_>) -> Result<u64> {
        self.check_open()?;
        let (mut order, mut entries) = (RunOrder::default(), 0);
        while let Some(page) = run.try_next().await? {
            order.check(&page)?;
            entries += page.len() as u64;
            let puts = page.entries.into_iter().map(|entry| Op::Put(entry.key, entry.value));
            let _ = self.write(puts.collect()).await?;
        }
        Ok(entries)
    }

    async fn changes(&self) -> Result<Changes> {
        self.check_open()?;
        Err(Error::unsupported(
            "only this process can change the store, so there is no change feed",
        ))
    }

    /// There is nothing in front of the data here.
    async fn invalidate(&self, _: Scope) -> Result<()> {
        self.check_open()
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let value = self.get(key).await?;
        Ok(vec![Inspection::of_entry(MemoryConfig::NAME, "memory", value.as_ref())])
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        Ok(Arc::new(Frozen { root: Guard::into_inner(self.root()?), now: self.clock.now() }))
    }

    async fn flush(&self) -> Result<()> {
        self.check_open()
    }

    async fn compact(&self) -> Result<()> {
        self.check_open()
    }

    async fn usage(&self) -> Result<Usage> {
        let root = self.root()?;
        Ok(Usage {
            entries: Some(root.entries.len() as u64),
            memory_bytes: Some(root.bytes),
            stored_bytes: None,
        })
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        let (root, now) = (self.root()?, self.clock.now());
        let behind = (Bound::Included(prefix), Bound::Unbounded);
        let entries = root.entries.range::<_, [u8]>(behind);
        let entries = entries.take_while(|(key, _)| key.starts_with(prefix));
        Ok(Some(entries.filter(|(_, value)| !value.is_expired(now)).count() as u64))
    }

    async fn close(&self) -> Result<()> {
        let _writing = self.writing.lock();
        self.closed.store(true, Ordering::Release);
        self.root.store(Arc::default());
        Ok(())
    }

    fn profile(&self) -> Profile {
        Profile::backend(MemoryConfig::NAME, Self::guarantees())
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }
}

impl Root {
    fn get(&self, key: &[u8], now: impl FnOnce() -> Timestamp) -> Result<Option<Value>> {
        check_key(key)?;
        let value = self.entries.get(key);
        // The clock is read only for an entry that can expire.
        Ok(value.filter(|value| value.expires_at.is_none() || !value.is_expired(now())).cloned())
    }

    /// Applies a batch, or leaves everything as it was.
    fn write(&mut self, batch: Batch, now: Timestamp) -> Result<Commit> {
        self.check(batch.conditions(), now)?;
        self.sweep(now, batch.len() + SWEEP);
        for op in batch.into_ops() {
            self.apply(op);
        }
        self.sequence += 1;
        Ok(Commit::at(self.sequence))
    }

    fn check(&self, conditions: &[Condition], now: Timestamp) -> Result<()> {
        for condition in conditions {
            let found = self.entries.get(condition.key()).filter(|value| !value.is_expired(now));
            if !condition.holds(found) {
                return Err(condition.unmet());
            }
        }
        Ok(())
    }

    fn apply(&mut self, op: Op) {
        let (key, old) = match op {
            Op::Put(key, value) => {
                if let Some(at) = value.expires_at {
                    self.expiring.insert((at, key.clone()));
                }
                self.bytes += (key.len() + value.bytes.len()) as u64;
                let expires_at = value.expires_at;
                let old = self.entries.insert(key.clone(), value);
                // The same deadline again stays in the index.
                (
                    key,
                    old.map(|mut old| {
                        if old.expires_at == expires_at {
                            old.expires_at = None;
                        }
                        old
                    }),
                )
            }
            Op::Delete(key) => {
                let old = self.entries.remove(&key);
                (key, old)
            }
        };
        if let Some(old) = old {
            self.bytes -= (key.len() + old.bytes.len()) as u64;
            if let Some(at) = old.expires_at {
                self.expiring.remove(&(at, key));
            }
        }
    }

    fn sweep(&mut self, now: Timestamp, most: usize) {
        for _ in 0..most {
            match self.expiring.get_min() {
                Some((at, key)) if *at <= now => {
                    let key = key.clone();
                    self.apply(Op::Delete(key));
                }
                _ => break,
            }
        }
    }

    /// The next page, and whether there may be more behind it.
    fn page(&self, scan: &Scan, now: Timestamp) -> (Page, bool) {
        let mut page = Page::default();
        let mut bytes = 0;
        let full = scan.next_page_entries();
        let range = (scan.from.as_ref(), scan.to.as_ref());
        let mut take = |(key, value): (&Bytes, &Value)| {
            if !value.is_expired(now) {
                let value = if scan.keys_only { Value::default() } else { value.clone() };
                bytes += key.len() + value.bytes.len();
                page.entries.push(Entry { key: key.clone(), value });
            }
            page.entries.len() >= full || bytes >= scan.page_bytes
        };
        let range = self.entries.range::<(Bound<&Bytes>, Bound<&Bytes>), Bytes>(range);
        let more = match scan.order {
            Order::Forward => range.into_iter().any(&mut take),
            Order::Reverse => range.rev().any(&mut take),
        };
        (page, more)
    }
}

/// The pages of one moment, which `open` picks at the first poll.
fn pages<'a>(
    scan: Scan,
    now: impl Fn() -> Timestamp + Send + 'a,
    open: impl FnOnce() -> Result<Arc<Root>> + Send + 'a,
) -> Pages<'a> {
    enum State<F> {
        Start(F),
        Scanning(Arc<Root>),
        Done,
    }
    let state = (State::Start(open), scan, now);
    futures_util::stream::unfold(state, |(state, mut scan, now)| async move {
        let root = match state {
            State::Done => return None,
            State::Scanning(root) => root,
            State::Start(open) => match open() {
                Ok(root) => root,
                Err(error) => return Some((Err(error), (State::Done, scan, now))),
            },
        };
        if scan.is_empty() {
            return None;
        }
        let (page, more) = root.page(&scan, now());
        let last = page.entries.last()?.key.clone();
        scan.resume_after(last);
        scan.consume(page.len());
        let state = if more { State::Scanning(root) } else { State::Done };
        Some((Ok(page), (state, scan, now)))
    })
    .boxed()
}

/// A frozen view: the tree of one moment, and that moment, after which nothing expires.
#[derive(Debug)]
struct Frozen {
    root: Arc<Root>,
    now: Timestamp,
}

#[deny(clippy::missing_trait_methods)]
impl Read for Frozen {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        Reply::Now(self.root.get(key, || self.now))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        Reply::Now(keys.iter().map(|key| self.root.get(key, || self.now)).collect())
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        pages(scan, || self.now, || Ok(Arc::clone(&self.root)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn debug_prints_no_key() {
        let store = Memory::new();
        let soon = Timestamp::from_millis(u64::MAX);
        let value = Value::new("secret-value").expiring_at(soon);
        let _ = store.write(Batch::new().put("secret-key", value)).await.unwrap();
        assert!(!format!("{store:?}").contains("secret"), "{store:?}");
    }

    #[tokio::test]
    async fn expired_entries_do_not_accumulate() {
        let clock = ManualClock::new();
        let store = Memory::with_clock(Arc::new(clock.clone()));
        for round in 0..10u8 {
            let soon = clock.now() + Duration::from_secs(1);
            let put = |n: u8| Op::Put(vec![round, n].into(), Value::new("v").expiring_at(soon));
            let _ = store.write((0..100).map(put).collect()).await.unwrap();
            clock.advance(Duration::from_secs(2));
        }
        assert_eq!(store.usage().await.unwrap().entries, Some(100), "only the last round is left");
    }
}
