//! `redis`: a database of a Redis or Valkey server, or of a cluster of them, as it is.
//!
//! # Guarantees
//! An entry is a string key of the database, its value the string, its time to live the expiry, to the
//! millisecond, by the server's clock. Nothing about the database changes until it is written to. Keys of
//! other types are no entries: reading, replacing or deleting one is refused and leaves it as it is.
//! Batches are atomic on one server, and in a cluster where all keys are in one slot. An acknowledged
//! write survives what `durability` says, which is checked when the store is opened. Bulk reads take one
//! round trip, in a cluster one to each node.
//!
//! # Gives up
//! Snapshots. Scans, unless an `index` is kept, or each scan gathers and sorts its keys (`scan: sorted`). In a cluster, batches across slots, unless there is a
//! `hash_tag`. A failover to a replica may lose what was acknowledged shortly before it.
//!
//! # Cancellation
//! A read that is dropped leaves nothing behind. A write that is dropped takes effect wholly or not at
//! all, also some time later.
//!
//! # Errors
//! Opening: `Config` (settings; a server that keeps less than `durability`, evicts, or is of another kind),
//! `Access` (credentials, certificates, a replica), `Unavailable`, `Unsupported` (a server that is too
//! old). Later: `InvalidInput` (key, limits, a key of another type), `Capacity` (the memory or the disk of
//! the server is full), `Conflict` (conditions), `Unavailable` (the connection; the cluster does not
//! serve the slot; too few replicas), `Timeout`, `Access`, `Closed`. A lost connection is made again by the
//! next operation. Reads are repeated once, writes never where the outcome is unknown.
//!
//! # Configuration
//! `redis: { url: "redis://127.0.0.1:6379/0" }`; see [`RedisConfig`].
//!
//! # Example
//! ```no_run
//! # tokio_test::block_on(async {
//! use tierstack::backends::{Redis, RedisConfig};
//! use tierstack::{Read, Store, StoreExt};
//!
//! let store = Redis::open(RedisConfig::new("redis://127.0.0.1:6379/0")).await?;
//! store.put("user:1", "Ada").await?;
//! assert_eq!(store.get(b"user:1").await?, Some("Ada".into()));
//! store.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod change_feed;
mod cluster;
mod command;
mod config;
mod connection;
mod error;
mod index;
mod open;
mod permissions;
mod router;
mod scan;
mod script;
mod survey;
mod unindexed_scan;
mod url;
mod walk;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::sync::watch;

use self::command::Place;
pub use self::config::{Foreign, RedisConfig, ScanBy, Survives};
use self::router::{Call, Servers};
use crate::error::{Error, ErrorKind, Operation, Outcome, Result};
use crate::layer::{BackendConfig, Context};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::{
    Batch, Commit, Condition, Counting, Guarantees, Identity, Inspection, Op, Profile, RunOrder,
    Scan, Scope, Usage, Value, check_key,
};

/// A database of Redis or Valkey. See the [module docs](self).
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Servers,
    place: Place,
    profile: Profile,
    /// What a batch may ask for whose keys are all in one slot.
    in_one_slot: Guarantees,
    /// The largest value that the servers take: what the profile says, or less.
    largest: u64,
    replicas: u32,
    foreign: Foreign,
    /// Whether a scan without an index gathers its keys.
    sorts: bool,
    /// Whether an index that is missing may be made.
    may_create: bool,
    /// Whether one step of a look was found not to see every key.
    is_large: AtomicBool,
    identity: Option<Identity>,
    closing: watch::Sender<bool>,
}

/// A batch is one command, which the server holds twice while its script runs.
const MAX_BATCH_BYTES: usize = 768 << 20;

/// What one command of a bulk load puts: the server does nothing else meanwhile.
const LOAD_STEP: usize = 512;
const LOAD_BYTES: usize = 1 << 20;

impl Redis {
    /// Connects to the server, and checks that it keeps what the settings guarantee.
    ///
    /// # Errors
    /// See the [module docs](self).
    pub async fn open(config: RedisConfig) -> Result<Self> {
        Self::open_in(config, &Context::default()).await
    }

    pub(super) async fn open_in(config: RedisConfig, context: &Context) -> Result<Self> {
        let opening =
            |error: Error| error.with_layer(RedisConfig::NAME).with_operation(Operation::Open);
        Self::connect(config, context).await.map_err(opening)
    }

    async fn connect(config: RedisConfig, context: &Context) -> Result<Self> {
        // Where the index is missing and may not be made, keys are gathered in its place.
        let profile = config.profile()?.changed(|own| own.atomic_pages &= context.may_create);
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::unsupported("the Redis client needs a tokio runtime"));
        }
        let servers = open::servers(&config, context).await?;
        let millis = u64::try_from(config.timeout.0.as_millis() / 2).unwrap_or(u64::MAX);
        let wait = (config.wait_replicas > 0).then_some((config.wait_replicas, millis));
        let place =
            Place::new(config.prefix().into_bytes(), config.index, config.is_cluster(), wait);
        let mut largest = config::MAX_VALUE_BYTES;
        let all = servers.all(Operation::Open).await?;
        let mut histories = Vec::new();
        for link in &all {
            let facts = open::verify(&config, &servers, link).await?;
            largest = largest.min(facts.largest);
            histories.push(facts.history);
            permissions::verify(&servers, &place, &config, link).await?;
        }
        let identity = open::identity(&all, histories, &config.prefix());
        let mut in_one_slot = profile.guarantees.clone();
        in_one_slot.atomic_batches = true;
        let shared = Arc::new(Shared {
            servers,
            place,
            profile,
            in_one_slot,
            largest,
            replicas: config.wait_replicas,
            foreign: config.foreign,
            sorts: config.scan.is_some(),
            may_create: context.may_create,
            is_large: AtomicBool::new(false),
            identity,
            closing: watch::Sender::new(false),
        });
        if shared.may_create {
            index::build(&shared, Operation::Open).await?;
        }
        Ok(Self { shared })
    }
}

impl Shared {
    fn guarantees(&self) -> &Guarantees {
        &self.profile.guarantees
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        let answers = self.servers.call(Operation::Get, &self.place.get(key)).await?;
        match command::got(answers) {
            Err(error) if error.kind() == ErrorKind::Capacity => {
                let key = [Bytes::copy_from_slice(key)];
                Ok(self.read(key.iter()).await?.into_iter().next().flatten())
            }
            found => found,
        }
    }

    /// Keys of one slot, from a server whose memory is full.
    async fn read(&self, keys: impl Iterator<Item = &Bytes> + Clone) -> Result<Vec<Option<Value>>> {
        command::read(self.servers.call(Operation::GetMany, &self.place.read(keys)).await?)
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Value>>> {
        if keys.is_empty() {
            self.servers.check_open()?;
            return Ok(Vec::new());
        }
        let slots = by_slot(keys, |key| self.place.slot(key));
        let calls: Vec<Call> = slots
            .iter()
            .map(|slot| self.place.get_many(slot.iter().map(|(_, key)| *key)))
            .collect();
        let answers = match calls.as_slice() {
            [call] => vec![self.servers.call(Operation::GetMany, call).await],
            calls => self.servers.call_all(Operation::GetMany, calls).await?,
        };
        let mut found: Vec<Option<Value>> = vec![None; keys.len()];
        for (slot, answers) in slots.iter().zip(answers) {
            let keys = slot.iter().map(|(_, key)| *key);
            let values = match command::got_many(answers?, keys.clone()) {
                Err(error) if error.kind() == ErrorKind::Capacity => self.read(keys).await,
                values => values,
            };
            let values = values?;
            for ((at, _), value) in slot.iter().zip(values) {
                if let Some(place) = found.get_mut(*at) {
                    *place = value;
                }
            }
        }
        Ok(found)
    }

    fn check(&self, batch: &Batch) -> Result<()> {
        let keys = batch.ops().iter().map(Op::key);
        let keys = keys.chain(batch.conditions().iter().map(Condition::key));
        let mut slots = keys.map(|key| self.place.slot(key));
        let first = slots.next();
        let together = slots.all(|slot| Some(slot) == first);
        match together {
            true => self.in_one_slot.check_batch(batch)?,
            false => self.guarantees().check_batch(batch)?,
        }
        for op in batch.ops() {
            self.check_op(op)?;
        }
        let compared = batch.conditions().iter().filter_map(Condition::value);
        let bytes = batch.bytes() + compared.map(|value| value.bytes.len()).sum::<usize>();
        if bytes > MAX_BATCH_BYTES && batch.len() + batch.conditions().len() > 1 {
            return Err(Error::invalid(format!(
                "a batch of {bytes} bytes is over this store's limit of {MAX_BATCH_BYTES} bytes"
            )));
        }
        Ok(())
    }

    fn check_op(&self, op: &Op) -> Result<()> {
        command::check_deadline(op)?;
        if self.place.is_index(op.key()) {
            return Err(Error::invalid(
                "the key `tierstack:index` is that of the index; choose another one",
            )
            .with_key(op.key()));
        }
        match op.value() {
            Some(value) if value.bytes.len() as u64 > self.largest => Err(Error::invalid(format!(
                "a value of {} bytes is over the server's limit of {} bytes (`proto-max-bulk-len`, `client-query-buffer-limit`)",
                value.bytes.len(),
                self.largest
            ))
            .with_key(op.key())),
            _ => Ok(()),
        }
    }

    fn may_write(&self) -> Result<()> {
        self.servers.check_open()?;
        if self.guarantees().writable {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Access,
            "the database is open for reading only; leave `read_only` out to change it",
        )
        .with_outcome(Outcome::Nothing)
        .with_layer(RedisConfig::NAME))
    }

    async fn write(&self, batch: &Batch) -> Result<Commit> {
        self.may_write()?;
        self.check(batch)?;
        if !batch.is_empty() || batch.is_conditional() {
            let call = self.place.write(batch.ops().iter(), batch.conditions());
            let answers = self.servers.call(Operation::Write, &call).await?;
            self.place.learn(&answers);
            let ops = (|at: usize| batch.ops().get(at), batch.len());
            command::written(Operation::Write, answers, ops, batch.conditions(), self.replicas)?;
        }
        Ok(Commit::done())
    }

    /// Puts entries, each by itself.
    async fn load(&self, ops: &[Op]) -> Result<()> {
        let mut parts: Vec<Vec<&Op>> = Vec::new();
        for slot in by_slot(ops, |op| self.place.slot(op.key())) {
            let mut room = 0;
            for (_, op) in slot {
                let bytes = op.key().len() + op.value().map_or(0, |value| value.bytes.len());
                match parts.last_mut() {
                    Some(part) if room >= bytes && part.len() < LOAD_STEP => {
                        part.push(op);
                        room -= bytes;
                    }
                    _ => {
                        parts.push(vec![op]);
                        room = LOAD_BYTES.saturating_sub(bytes);
                    }
                }
            }
        }
        let calls: Vec<Call> =
            parts.iter().map(|part| self.place.write(part.iter().copied(), &[])).collect();
        let answers = self.servers.call_all(Operation::Ingest, &calls).await?;
        for (part, answers) in parts.iter().zip(answers) {
            let ops = (|at: usize| part.get(at).copied(), part.len());
            command::written(Operation::Ingest, answers?, ops, &[], self.replicas)?;
        }
        Ok(())
    }

    async fn ingest(&self, mut run: Pages<'_>) -> Result<u64> {
        self.may_write().map_err(|error| error.with_operation(Operation::Ingest))?;
        let (mut order, mut entries) = (RunOrder::default(), 0);
        while let Some(page) = run.try_next().await? {
            order.check(&page)?;
            entries += page.len() as u64;
            let ops: Vec<Op> =
                page.entries.into_iter().map(|entry| Op::Put(entry.key, entry.value)).collect();
            for op in &ops {
                let value = op.value().map_or(0, |value| value.bytes.len());
                self.guarantees().limits.check(op.key().len(), value)?;
                self.check_op(op)?;
            }
            self.load(&ops).await?;
        }
        Ok(entries)
    }

    async fn usage(&self) -> Result<Usage> {
        self.servers.check_open()?;
        let (mut entries, mut memory) = (0, 0);
        for link in self.servers.all(Operation::Usage).await? {
            entries += index::count(self, &link).await?;
            let told = open::info(&self.servers, &link, Operation::Usage).await?;
            memory += told.get("used_memory").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        }
        Ok(Usage {
            entries: (self.guarantees().counts != Counting::No).then_some(entries),
            memory_bytes: Some(memory),
            stored_bytes: None,
        })
    }
}

/// The items of each slot, with their places.
fn by_slot<T>(items: &[T], slot: impl Fn(&T) -> u16) -> Vec<Vec<(usize, &T)>> {
    let mut slots: BTreeMap<u16, Vec<(usize, &T)>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        slots.entry(slot(item)).or_default().push((at, item));
    }
    slots.into_values().collect()
}

#[deny(clippy::missing_trait_methods)]
impl Read for Redis {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        match check_key(key) {
            Err(error) => Reply::Now(Err(error)),
            Ok(()) => Reply::later(async move {
                self.shared.get(key).await.map_err(|error| error.with_key(key))
            }),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        match keys.iter().try_for_each(|key| check_key(key)) {
            Err(error) => Reply::Now(Err(error)),
            Ok(()) => Reply::later(self.shared.get_many(keys)),
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        scan::pages(&self.shared, scan)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Redis {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let named =
            |error: Error| error.with_operation(Operation::Write).with_layer(RedisConfig::NAME);
        self.shared.write(&batch).await.map_err(named)
    }

    /// As many batches at a time as one: a round trip for each would take longer.
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        // In a cluster a batch has keys of one slot. Of a store that is closed before, nothing of the group happens.
        if self.shared.guarantees().atomic_batches && self.shared.servers.check_open().is_ok() {
            crate::write_group::write_merged(self, group).await
        } else {
            crate::write_in_order(self, group).await
        }
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        self.shared.ingest(run).await
    }

    async fn changes(&self) -> Result<Changes> {
        self.shared.servers.check_open()?;
        if self.shared.guarantees().change_feed.is_none() {
            return Err(Error::unsupported(
                "there is no change feed; set `change_feed: true` for client tracking",
            ));
        }
        change_feed::subscribe(&self.shared).await
    }

    /// Does nothing: the server tells others of writes only.
    async fn invalidate(&self, _: Scope) -> Result<()> {
        self.shared.servers.check_open()
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let value = self.get(key).await?;
        Ok(vec![Inspection::of_entry(RedisConfig::NAME, "server", value.as_ref())])
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.shared.servers.check_open()?;
        Err(Error::unsupported("Redis has no snapshots of its data that can be read"))
    }

    /// Nothing to do: what a write survives, it survives when it is acknowledged.
    async fn flush(&self) -> Result<()> {
        self.shared.servers.check_open()
    }

    async fn compact(&self) -> Result<()> {
        self.shared.may_write().map_err(|error| error.with_operation(Operation::Compact))?;
        index::renew(&self.shared, Operation::Compact).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.shared.usage().await
    }

    /// `Unsupported` where there are keys that no entry can have, which scans pass by.
    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.shared.servers.check_open()?;
        index::count_keys(&self.shared, prefix).await
    }

    async fn close(&self) -> Result<()> {
        self.shared.servers.close();
        // Fails when there is no subscriber.
        self.shared.closing.send_replace(true);
        Ok(())
    }

    fn profile(&self) -> Profile {
        self.shared.profile.clone()
    }

    fn identity(&self) -> Option<Identity> {
        self.shared.identity.clone()
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("index", &self.shared.place.index.is_some())
            .finish_non_exhaustive()
    }
}
