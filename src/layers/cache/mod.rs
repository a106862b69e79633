//! `cache`: answers kept in memory, so that a key that is read again costs nothing below.
//!
//! # Guarantees
//! 1. After a write through this stack is acknowledged, no read through it returns an older value,
//!    under any interleaving with loads, refreshes, failures, expiry and eviction.
//! 2. One load per key at a time, bulk reads included: however many ask for a key that is not there, the
//!    store below is asked once. A load goes on in a task of its own with a deadline; a reader may leave. A load that
//!    waits for its turn under `max_loads` is skipped when the turn comes and no reader waits for it any more. An
//!    error reaches all who wait, and is kept only for `error_ttl`. What the store below answers at once
//!    needs no task.
//! 3. An entry is served for at most `ttl` after the store below was asked for it. Past that only a value is,
//!    and only for what `stale_while_refresh` and `stale_if_error` add. Both ends are fixed by the load
//!    that brought it: no failure and no read moves them. Nothing is served past its own expiry, and nothing
//!    that a write, an announcement or a run has dropped is served late to who comes afterwards.
//! 4. Entries and loads under way never take more than `capacity`. An entry is counted as its key, its value and
//!    what keeping them takes: with `s3_fifo` 98 to 113 bytes where both have up to 500 together, up to 161 below 1 KiB,
//!    and 257 above; with `tiny_lfu` and `lru` 576. A load is counted as its key and 1 KiB. Loads have a share of
//!    their own, so that neither a burst of reads nor an outage takes the place of entries: a 32nd of the capacity, but
//!    at least 512 KiB where that is no more than a quarter, and at most 64 MiB. An entry of more than
//!    an eighth of `capacity`, or of 22 MiB, passes by; with those policies one of more than a 32nd. With `s3_fifo`,
//!    once a second thread reads, a 32nd of the capacity is for copies that threads make of what they read most, so
//!    that they do not wait for each other.
//! 5. Where the store below [announces](Store::changes) what others change, an entry is dropped when its change
//!    is announced. Before the announcements have begun, and while they are interrupted, nothing is kept
//!    and every read goes below. Whoever listens to this cache hears of a change once it is dropped here.
//! 6. [`invalidate`](Store::invalidate) drops keys, the keys of a prefix, or everything, without looking for
//!    them: the invalidation of a prefix is remembered, and what began before it is refused when it is read. First the store
//!    below is told, then this cache forgets, then whoever listens to it is told. What loads under way bring is
//!    not kept, and who comes afterwards does not wait for them.
//! 7. With `disk`, what the memory has no room for is kept in a folder, and 1, 3, 5 and 6 hold there as well: a
//!    copy keeps the end of its ttl, also through a restart, and is gone before a write of its key is
//!    acknowledged. Its files never take more than its `capacity`. What is damaged there is not served, and a
//!    disk that fails is not used any more; no read and no write fails because of it. After a crash it is empty,
//!    and after a clean close as well, unless it is `warm`.
//! 8. With `on_write: keep`, the default, what an acknowledged write put is served to the reads that follow, and that a key
//!    was deleted where `negative_ttl` is set. It is kept only if since the beginning of the write nothing else touched its key:
//!    no other write, also one whose outcome is unknown, no announcement, invalidation or run; and only where the
//!    store below [gives back](crate::Guarantees::verbatim) what was put. Its ttl counts from the beginning of the write.
//!    What began a load before does not bring back what was there before.
//!
//! # Gives up
//! Freshness against writes that bypass this stack: such a write is seen when it is announced, and after
//! `ttl`, with what may be served late, at the latest; without either when the entry is evicted. `idle` does
//! not help there: a key that is read all the time stays. A thread may serve its copy of an evicted entry for
//! 31 reads more. Announcements are dealt with by a task in
//! the runtime of the first read that missed, so while that runtime stands still they wait. Writes
//! through this stack that the store below announces as well cost a load each, also with `on_write: keep`: its
//! announcement drops what was kept. A foreign write that lands between the store's answer and the keeping, unannounced,
//! is seen after `ttl` like any other.
//!
//! With the policies `tiny_lfu` and `lru` the capacity cannot be changed, a 32nd of it stays free, what was just
//! removed may take a 128th beside it, and what finds no room while other threads take it is not kept. A value that
//! is a part of a larger buffer of the store below is counted as that part. What has expired or was idle takes
//! memory until it is looked for, or evicted.
//!
//! A bulk read asks for what is missing, and not under way, in one call, so who joins it waits for all of
//! it, and an outage is the answer of each of its keys. An error of another kind may be about one of
//! them: it is the answer of who asked in bulk, and those who joined ask again for theirs alone. A bulk read of more
//! keys than there is room for loads asks in several calls.
//!
//! Keys share what tells a load that a write came between: 1,024 slots below a capacity of 512 KiB, and 65,536 from
//! 16 MiB on. A load is not kept, and no refresh begins, where a write of any key of its slot came between, or is under
//! way.
//!
//! After a write whose outcome is unknown, as it failed or its future was dropped, its keys are not kept
//! for the length of `load_timeout`, in which it may still arrive. That many such keys are remembered: 64 of each
//! 1,024th of all keys; one more, and none of that part is kept. After a run that failed or was dropped,
//! no key is. While a run is taken every read goes below.
//!
//! Up to 4096 prefixes are remembered, of up to 64 lengths and 1 MiB together: meanwhile a hit on an entry that
//! is older than the newest of them costs a hash for each length. The call with which they are full removes
//! what they match, in time that grows with the number of entries, and loads that began before it are not kept.
//!
//! On the disk an entry ends with its ttl, and `idle` counts from when it was written. Only values are there.
//! With the policies `tiny_lfu` and `lru` a copy that the disk has evicted is not written again when the memory
//! evicts its entry. What is loaded faster than the disk takes it is not kept there. With `warm`, what changes
//! the store while it is closed is not seen before the ttl, whoever does it; and while it is closed only the
//! wall clock tells the time, so a clock that was wrong at the close, or is at the open, makes the ttl longer by as
//! much.
//!
//! # Position
//! Outside `compress` and `encrypt`, so that a hit is decoded already. Inside them it holds more, or
//! only sealed bytes, and pays for decoding on each hit; so does its folder.
//!
//! # Cancellation
//! A dropped read leaves its load running for others, until its deadline, and so does a dropped bulk read.
//! A dropped write is dropped below as well.
//!
//! # Errors
//! `Capacity`, to be tried again, where there is no room for another load, and no old value for `stale_if_error`;
//! `Timeout` when a load takes longer than `load_timeout`; `Internal` when it panics, or the store below
//! answers a bulk read with another number of values than keys; `Unsupported`
//! for a load outside a tokio runtime. A subscription that cannot be made, within `load_timeout`, is logged,
//! counted in `tierstack_errors_total`, and made again after pauses of 0.1 s to 10 s; reads
//! do not fail because of it, and `changes` gives the error of the last attempt.
//!
//! Opening fails with `Config` if the folder of `disk` or the file of `warm_start` holds something else, or a
//! newer format, and with `Conflict` if the folder is in use.
//!
//! `stale_if_error` hides `Unavailable`, `Timeout` and `Capacity`, which speak of the store below being
//! unwell, and no other kind. A refresh that fails is counted and tells nobody.
//!
//! # Metrics
//! | name | type | labels | a rise means |
//! |---|---|---|---|
//! | `tierstack_cache_requests_total` | counter | result: hit | more reads |
//! | | | result: negative | more reads of keys that do not exist |
//! | | | result: stale | answers from past their ttl: failures below, or rare reads |
//! | | | result: error | reads of keys whose load has just failed |
//! | | | result: disk | reads of what the memory has no room for |
//! | | | result: miss | more loads |
//! | | | result: coalesced | reads that joined a load under way |
//! | | | result: bypass | values that are too large, or nothing is kept at present |
//! | `tierstack_cache_refreshes_total` | counter | outcome: kept, dropped, failed | more refreshes |
//! | `tierstack_cache_writes_total` | counter | outcome: kept | more keys written, with `on_write: keep` |
//! | | | outcome: dropped | writes of one key that overlap, large values, changes by others |
//! | `tierstack_cache_load_duration_seconds` | histogram | | a slower store below, or too few `max_loads` |
//! | `tierstack_cache_bytes` | gauge | | more memory in use |
//! | `tierstack_cache_entries` | gauge | | more entries kept |
//! | `tierstack_cache_evictions_total` | counter | cause: size | the capacity is too small for what is read |
//! | | | cause: expired | more entries that were looked for after their time |
//! | | | cause: idle | more entries that were looked for after nobody had read them for long |
//! | | | cause: disk | the capacity of the disk is too small for what is loaded |
//! | `tierstack_cache_disk_bytes` | gauge | | more of the disk in use |
//! | `tierstack_cache_disk_entries` | gauge | | more entries there, and memory for their index |
//! | `tierstack_cache_disk_active` | gauge | | 1: the disk is in use; 0: it failed, see the log |
//! | `tierstack_cache_disk_drops_total` | counter | cause: queue | values are loaded faster than they are written |
//! | | | cause: busy | no thread is free to read it with: the store below is asked |
//! | | | cause: large | values that fit into no segment |
//! | | | cause: damaged | the disk gives back what was not written |
//! | | | cause: io | the disk failed, or is full |
//! | `tierstack_cache_warm_start_keys_total` | counter | | more keys loaded by a warm start |
//! | `tierstack_cache_invalidations_total` | counter | cause: key | more keys were invalidated |
//! | | | cause: prefix | more prefixes were |
//! | | | cause: all | everything was, or everything was dropped, as announcements were missed |
//!
//! Each read is counted once, a bulk read once for each key; by a cache below another one, the hits of a bulk
//! read twice where the rest of it has to be waited for. What the store below answers at once is not
//! measured, and is no refresh but a miss.
//!
//! Only where the store below announces changes:
//!
//! | name | type | labels | a rise means |
//! |---|---|---|---|
//! | `tierstack_cache_invalidations_total` | counter | cause: announced | more keys and prefixes that others changed |
//! | | | cause: lost | the connection was lost, and everything was dropped |
//! | `tierstack_cache_listening` | gauge | | 1: changes are heard of; 0: nothing is kept |
//!
//! # Configuration
//! `cache: { capacity: 256MiB, ttl: 10m, negative_ttl: 10s, stale_if_error: 1h }`
//!
//! `cache: { disk: { path: ./cache, capacity: 10GiB }, warm_start: { path: ./orders.keys } }`
//!
//! The life of an entry, the second level, the warm start, what the policies cost, and how often they hit: `docs/cache.md`.
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::layers::cache::{CacheConfig, CacheLayer};
//! use tierstack::{Context, Layer, Read, StoreExt};
//!
//! let layer = CacheLayer::new(&CacheConfig::default(), &Context::default())?;
//! let store = layer.layer(Memory::new());
//! store.put("k", "old").await?;
//! assert_eq!(store.get(b"k").await?, Some("old".into()));
//! store.put("k", "new").await?;
//! assert_eq!(store.get(b"k").await?, Some("new".into()));
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod bulk;
mod cached;
mod change_feed;
mod coherence;
mod config;
mod counters;
mod disk;
mod doubts;
mod engine;
mod epoch;
mod freshness;
mod inspect;
mod invalidate;
mod levels;
mod load;
mod lookup;
#[cfg(test)]
mod model_tests;
mod prefix_invalidation;
mod read;
mod single_flight;
mod start;
mod sync;
#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "tests/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests with the other engine")]
mod tests_with_moka;
mod warm;
mod writing;
mod written;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use self::change_feed::ChangeFeed;
use self::coherence::Coherence;
use self::config::check_capacity;
pub use self::config::{CacheConfig, OnWrite, Policy};
use self::counters::Counters;
use self::disk::Disk;
pub use self::disk::DiskConfig;
use self::engine::Engine;
use self::epoch::{Epochs, Mode};
use self::freshness::Times;
use self::inspect::name;
use self::invalidate::Invalidations;
use self::levels::{UnclaimedDisk, write_evicted};
use self::warm::WarmStart;
pub use self::warm::WarmStartConfig;
use self::writing::Writing;
use crate::clock::Clock;
use crate::error::{Error, Outcome, Result};
use crate::group::complete;
use crate::layer::{Context, Layer};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::units::ByteSize;
use crate::types::{
    Batch, Commit, Condition, Identity, Op, Profile, Scan, Scope, Sighting, Usage, Value,
};

/// Keeps what is read from the stores it wraps, each in a cache of its own. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct CacheLayer {
    config: CacheConfig,
    context: Context,
    disk: UnclaimedDisk,
    warm: Option<Arc<WarmStart>>,
}

impl CacheLayer {
    /// A layer with these settings. With a disk or a warm start it waits for the disk. The first store that it
    /// wraps gets the disk.
    ///
    /// # Errors
    /// `Config` if a setting is out of range, or a folder or file is somebody else's; `Conflict` if the folder is
    /// in use; otherwise as the file system says.
    pub fn new(config: &CacheConfig, context: &Context) -> Result<Self> {
        config.check()?;
        let mut config = config.clone();
        if !context.may_create {
            // Nothing is made for those that only read: they do without what is not there.
            config.disk = config.disk.filter(|disk| context.resolve(&disk.path).exists());
            // The keys that a service kept are not replaced by the few that one command reads.
            config.warm_start = None;
        }
        let config = &config;
        let warm = config.warm_start.as_ref().map(|warm| WarmStart::open(warm, context));
        Ok(Self {
            disk: UnclaimedDisk::open(config, context)?,
            warm: warm.transpose()?.map(Arc::new),
            config: config.clone(),
            context: context.clone(),
        })
    }
}

impl<S: Store> Layer<S> for CacheLayer {
    type Service = Cache<S>;

    fn layer(&self, inner: S) -> Cache<S> {
        let (config, labels, clock) = (&self.config, &self.context.labels, &self.context.clock);
        let below = inner.profile().guarantees;
        let announced = below.announces.is_some();
        let epochs = Epochs::new(if announced { Mode::Disconnected } else { Mode::Keeping });
        let disk = self.disk.take(config, &self.context, &inner);
        let evicted = disk.as_ref().map(|disk| write_evicted(disk, config));
        let cache = Cache(Arc::new(Shared {
            inner,
            engine: Engine::telling(config.policy, config.capacity.0, labels, evicted),
            disk,
            warm: self.warm.clone(),
            coherence: Coherence::new(
                Arc::clone(clock),
                config.capacity.0,
                config.load_timeout.0,
                epochs,
            ),
            change_feed: announced.then(|| ChangeFeed::new(&self.context)),
            loads: Arc::new(Semaphore::new(config.max_loads)),
            load_timeout: config.load_timeout.0,
            times: Times::new(config, self.context.seed),
            keeps_written: config.on_write == OnWrite::Keep && below.verbatim,
            config: config.clone(),
            clock: Arc::clone(clock),
            counters: Counters::new(labels),
            invalidations: Invalidations::new(labels),
            name: name(labels),
        }));
        cache.start_warm();
        cache
    }
}

/// See the [module docs](self).
#[derive(Debug)]
pub struct Cache<S>(Arc<Shared<S>>);

impl<S> Clone for Cache<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store> Read for Cache<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.read(key)
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        self.read_many(keys)
    }

    /// Passes by: a scan neither asks the cache nor fills it.
    fn scan(&self, scan: Scan) -> Pages<'_> {
        self.0.inner.scan(scan)
    }
}

impl<S> Cache<S> {
    /// Changes the memory that the entries and loads may use. What is over it is evicted before this
    /// returns, in time that grows with what is evicted; readers and writers go on meanwhile.
    ///
    /// ```
    /// use tierstack::Layer;
    /// use tierstack::backends::Memory;
    /// use tierstack::layers::cache::{CacheConfig, CacheLayer};
    ///
    /// let layer = CacheLayer::new(&CacheConfig::default(), &tierstack::Context::default())?;
    /// let cache = layer.layer(Memory::new());
    /// cache.set_capacity("64MiB".parse()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Config` if it is out of range; `Unsupported` with another policy than `s3_fifo`.
    pub fn set_capacity(&self, capacity: ByteSize) -> Result<()> {
        check_capacity(capacity)?;
        self.0.engine.set_capacity(capacity.0)
    }
}

impl<S: Store> Cache<S> {
    /// Sees to it that foreign changes are heard of, where they are announced.
    fn ensure_subscribed(&self) {
        if let Some(change_feed) = &self.0.change_feed
            && !self.0.coherence.epochs.now().keeps()
        {
            // Where it cannot begin to listen, nothing is kept.
            let _ = self.listen(change_feed);
        }
    }
}

impl<S> Shared<S> {
    /// Announces the writes of these batches, and drops what is kept of their keys.
    fn announce(&self, batches: &[Batch]) -> Writing<'_> {
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

/// Whether nothing of the write can still arrive below.
fn is_settled(answer: &Result<Commit>) -> bool {
    answer.as_ref().err().is_none_or(|error| error.outcome() == Outcome::Nothing)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Cache<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let shared = &*self.0;
        if shared.has_left_disk() {
            return Err(Error::closed().with_outcome(Outcome::Nothing));
        }
        let batches = std::slice::from_ref(&batch);
        let (writing, written) = (shared.announce(batches), shared.written(batches));
        let commit = shared.inner.write(batch).await;
        if commit.is_ok() {
            shared.keep_written(written, &writing);
        }
        if is_settled(&commit) {
            writing.settle();
        }
        commit
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let shared = &*self.0;
        if shared.has_left_disk() {
            let closed = Error::closed().with_outcome(Outcome::Nothing);
            return complete(vec![Err(closed)], group.len());
        }
        let (writing, written) = (shared.announce(&group), shared.written(&group));
        let batches = group.len();
        let answers = shared.inner.write_group(group).await;
        // What a store leaves unanswered has an unknown outcome.
        let answered = answers.len() == batches;
        if answered && answers.iter().all(Result::is_ok) {
            shared.keep_written(written, &writing);
        }
        if answered && answers.iter().all(is_settled) {
            writing.settle();
        }
        answers
    }

    /// Nothing is kept while a run is taken, and nothing of before it.
    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        let shared = &*self.0;
        if shared.has_left_disk() {
            return Err(Error::closed());
        }
        if !shared.inner.profile().guarantees.ingest {
            // It is refused, so what is kept stays.
            return shared.inner.ingest(run).await;
        }
        let writing = shared.coherence.begin_write_all();
        shared.forget();
        let taken = shared.inner.ingest(run).await;
        if taken.is_ok() {
            writing.settle();
        }
        taken
    }

    async fn changes(&self) -> Result<Changes> {
        match &self.0.change_feed {
            Some(change_feed) => self.announcements(change_feed).await,
            None => self.0.inner.changes().await,
        }
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.drop_below_and_here(scope).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Sighting>> {
        let below = self.0.inner.inspect(key).await?;
        let disk = self.0.sighting_on_disk(key).await;
        Ok(std::iter::once(self.0.sighting(key)).chain(disk).chain(below).collect())
    }

    /// A snapshot passes by: it is older than what is kept.
    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.0.inner.snapshot().await
    }

    async fn flush(&self) -> Result<()> {
        self.0.inner.flush().await
    }

    async fn compact(&self) -> Result<()> {
        self.0.inner.compact().await
    }

    async fn usage(&self) -> Result<Usage> {
        let below = self.0.inner.usage().await?;
        let memory_bytes = Some(below.memory_bytes.unwrap_or(0) + self.0.engine.bytes());
        Ok(Usage { memory_bytes, ..below })
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.0.inner.count(prefix).await
    }

    async fn close(&self) -> Result<()> {
        let shared = &*self.0;
        if let Some(warm) = &shared.warm {
            warm.stop().await;
        }
        let before = shared.coherence.epochs.now();
        shared.coherence.epochs.begin(Mode::Closed);
        if let Some(warm) = shared.warm.as_ref().filter(|_| before != shared.coherence.epochs.now())
        {
            warm.save(&shared.engine).await;
        }
        shared.empty_memory().await;
        if let Some(change_feed) = &self.0.change_feed {
            change_feed.stop().await;
        }
        shared.close_levels().await
    }

    fn profile(&self) -> Profile {
        self.0.config.promises(self.0.inner.profile())
    }

    fn identity(&self) -> Option<Identity> {
        self.0.inner.identity()
    }
}

#[derive(Debug)]
struct Shared<S> {
    inner: S,
    engine: Engine,
    disk: Option<Disk>,
    warm: Option<Arc<WarmStart>>,
    coherence: Coherence,
    /// Where the store below announces what others change.
    change_feed: Option<ChangeFeed>,
    loads: Arc<Semaphore>,
    load_timeout: Duration,
    times: Times,
    /// Whether what is written is kept.
    keeps_written: bool,
    config: CacheConfig,
    clock: Arc<dyn Clock>,
    counters: Counters,
    invalidations: Invalidations,
    name: String,
}
