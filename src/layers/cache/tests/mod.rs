//! What the cache guarantees, a file for each guarantee, and what they share.

mod bound;
mod bulk;
mod change_feed;
mod coherence;
mod copies;
mod counted;
mod disk;
mod epoch;
mod expiry;
mod idle;
mod ingest;
mod inspected;
mod invalidated;
mod loads;
mod memory;
mod model;
mod prefix_invalidation;
mod race;
mod refresh;
mod regressions;
mod settings;
mod stale;
mod warm;
mod written;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::coherence::{Epochs, Invalidated, Mode};
use super::config::{CacheConfig, DiskConfig, OnWrite, Policy, WarmStartConfig};
use super::disk::Disk;
use super::layer::CacheLayer;
use super::lookup::Lookup;
use super::policy::{Answer, Cached, CoarseTime};
use super::state::Cache;
use super::unclaimed_disk::UnclaimedDisk;
use crate::backends::Memory;
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::ext::StoreExt;
use crate::forward;
use crate::layer::{Context, Layer};
use crate::reply::Reply;
use crate::store::{Change, Changes, Pages, Read, Store};
use crate::types::units::{ByteSize, Fraction, Span};
use crate::types::{
    Batch, Commit, Condition, Entry, Freshness, Inspection, Op, Page, Profile, Scan, Scope, Value,
};

/// The defaults, with the engine under test: these tests are compiled once for each.
fn settings() -> CacheConfig {
    let moka = module_path!().contains("with_moka");
    let policy = if moka { Policy::TinyLfu } else { Policy::S3Fifo };
    // What is kept of a write has tests of its own; the others are about loads.
    CacheConfig { policy, on_write: OnWrite::Drop, ..CacheConfig::default() }
}

/// A door that lets everybody pass until it is shut.
#[derive(Debug)]
struct Gate(Semaphore);

impl Gate {
    fn open_now() -> Self {
        Self(Semaphore::new(Semaphore::MAX_PERMITS))
    }

    fn shut(&self) {
        self.0.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS);
    }

    async fn pass(&self) {
        let _permit = self.0.acquire().await.unwrap();
    }
}

/// A store whose reads have their value before the gate, and whose writes take effect behind it.
#[derive(Debug)]
struct Gated {
    memory: Memory,
    reads: Gate,
    writes: Gate,
    invalidations: Gate,
    asked: AtomicU64,
    /// Times that a reply was made, whether it was polled or not.
    called: AtomicU64,
    fail: AtomicBool,
    failure: Mutex<ErrorKind>,
    /// How bulk reads fail, in addition to that.
    fail_many: Mutex<Option<ErrorKind>>,
    /// Bulk reads answer one key less.
    forgets: AtomicBool,
    /// Reads are answered without a wait.
    at_once: AtomicBool,
    /// Reads have their value before they are polled.
    early: AtomicBool,
    /// For how many keys it was asked in each call.
    wanted: Mutex<Vec<usize>>,
    panic: AtomicBool,
    /// How late it reports changes, and to which subscribers.
    change_feed: Option<Duration>,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<Change>>>,
    subscribing: Gate,
    subscribed: AtomicU64,
    /// What it changes about its guarantees.
    guarantees: fn(&mut crate::types::Guarantees),
    refuse: Mutex<Option<ErrorKind>>,
}

impl Gated {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            memory: Memory::with_clock(clock),
            reads: Gate::open_now(),
            writes: Gate::open_now(),
            invalidations: Gate::open_now(),
            asked: AtomicU64::new(0),
            called: AtomicU64::new(0),
            fail: AtomicBool::new(false),
            failure: Mutex::new(ErrorKind::Unavailable),
            fail_many: Mutex::default(),
            forgets: AtomicBool::new(false),
            at_once: AtomicBool::new(false),
            early: AtomicBool::new(false),
            wanted: Mutex::default(),
            panic: AtomicBool::new(false),
            change_feed: None,
            subscribers: Mutex::default(),
            subscribing: Gate::open_now(),
            subscribed: AtomicU64::new(0),
            guarantees: |_| (),
            refuse: Mutex::default(),
        }
    }

    /// Counts a question.
    fn ask(&self, keys: usize) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.wanted.lock().push(keys);
        assert!(!self.panic.load(Ordering::SeqCst), "a defect below");
    }

    fn error(&self) -> Option<Error> {
        let fails = self.fail.load(Ordering::SeqCst);
        fails.then(|| Error::new(*self.failure.lock(), "out of order"))
    }

    /// Says it to all subscribers.
    fn report(&self, change: Change) {
        self.subscribers.lock().retain(|subscriber| subscriber.send(change.clone()).is_ok());
    }
}

impl Read for Gated {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.called.fetch_add(1, Ordering::SeqCst);
        if self.at_once.load(Ordering::SeqCst) {
            self.ask(1);
            let value = self.memory.get(key);
            return if let Some(error) = self.error() { Reply::Now(Err(error)) } else { value };
        }
        let early = self.early.load(Ordering::SeqCst).then(|| self.memory.get(key));
        Reply::later(async move {
            self.ask(1);
            let value = match early {
                Some(early) => early.await,
                None => self.memory.get(key).await,
            };
            self.reads.pass().await;
            if let Some(error) = self.error() { Err(error) } else { value }
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let answer = |mut values: Vec<Option<Value>>| {
            let error = self.fail_many.lock().map(|kind| Error::new(kind, "one of them"));
            if let Some(error) = error.or_else(|| self.error()) {
                return Err(error);
            }
            if self.forgets.load(Ordering::SeqCst) {
                values.pop();
            }
            Ok(values)
        };
        if self.at_once.load(Ordering::SeqCst) {
            self.ask(keys.len());
            return self.memory.get_many(keys).and_then(answer);
        }
        self.called.fetch_add(1, Ordering::SeqCst);
        Reply::later(async move {
            self.ask(keys.len());
            let values = self.memory.get_many(keys).await;
            self.reads.pass().await;
            answer(values?)
        })
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        self.memory.scan(scan)
    }
}

#[async_trait]
impl Store for Gated {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.writes.pass().await;
        if let Some(error) = self.error() {
            return Err(error);
        }
        self.memory.write(batch).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        crate::write_in_order(self, group).await
    }

    async fn changes(&self) -> Result<Changes> {
        self.subscribing.pass().await;
        self.subscribed.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panic.load(Ordering::SeqCst), "a defect below");
        if let Some(kind) = *self.refuse.lock() {
            return Err(Error::new(kind, "no subscriptions today"));
        }
        let (subscriber, mut changes) = mpsc::unbounded_channel();
        self.subscribers.lock().push(subscriber);
        Ok(futures_util::stream::poll_fn(move |context| changes.poll_recv(context)).boxed())
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.invalidations.pass().await;
        if self.fail.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "out of order"));
        }
        self.memory.invalidate(scope).await
    }

    async fn close(&self) -> Result<()> {
        self.subscribers.lock().clear();
        self.memory.close().await
    }

    fn profile(&self) -> Profile {
        self.memory.profile().changed(|guarantees| {
            (self.guarantees)(guarantees);
            guarantees.change_feed = self.change_feed;
            if self.change_feed.is_some() {
                guarantees.freshness = Freshness::Immediate;
            }
        })
    }

    forward!(self => self.memory; ingest, inspect, snapshot, flush, compact, usage, count, identity);
}

fn cached(config: CacheConfig) -> (Cache<Gated>, ManualClock) {
    cached_with_seed(config, 0)
}

fn cached_with_seed(config: CacheConfig, seed: u64) -> (Cache<Gated>, ManualClock) {
    let clock = ManualClock::new();
    let context = Context { clock: Arc::new(clock.clone()), seed, ..Context::default() };
    let below = Gated::new(Arc::clone(&context.clock));
    (CacheLayer::new(&config, &context).unwrap().layer(below), clock)
}

/// Lets every task go as far as it can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn asked(cache: &Cache<Gated>) -> u64 {
    cache.0.inner.asked.load(Ordering::SeqCst)
}

/// A write behind the back of the cache.
async fn foreign(cache: &Cache<Gated>, key: &'static str, value: &'static str) {
    let _ = cache.0.inner.memory.put(key, value).await.unwrap();
}

/// From now on the store below fails, or does not.
fn fail(cache: &Cache<Gated>, kind: Option<ErrorKind>) {
    *cache.0.inner.failure.lock() = kind.unwrap_or(ErrorKind::Unavailable);
    cache.0.inner.fail.store(kind.is_some(), Ordering::SeqCst);
}

/// The answer, which has to be there at once.
fn now(cache: &Cache<Gated>, key: &[u8]) -> Option<Value> {
    match cache.get(key) {
        Reply::Now(answer) => answer.unwrap(),
        Reply::Later(_) => panic!("the answer has to be waited for"),
    }
}

async fn get(cache: &Cache<Gated>, key: &'static [u8]) -> Result<Option<Value>> {
    cache.get(key).await
}

/// A reader of its own.
fn reader(cache: &Cache<Gated>, key: &'static [u8]) -> JoinHandle<Result<Option<Value>>> {
    let cache = cache.clone();
    tokio::spawn(async move { get(&cache, key).await })
}

type Counted = std::collections::BTreeMap<String, f64>;

/// A cache under a recorder of its own, and a function that reads its series by name and last label.
fn recorded(config: CacheConfig) -> (Cache<Gated>, ManualClock, impl FnMut() -> Counted) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let (cache, clock) = metrics::with_local_recorder(&recorder, || cached(config));
    let mut seen = Counted::new();
    let read = move || {
        crate::telemetry::gather();
        // A snapshot resets the series, so they are added up.
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let label = key.key().labels().last().map_or("", |label| label.value());
            *seen.entry(format!("{} {label}", key.key().name())).or_default() += match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(value) => value.0,
                DebugValue::Histogram(_) => 0.0,
            };
        }
        seen.clone()
    };
    (cache, clock, read)
}

fn kept(counted: &Counted) -> (f64, f64) {
    (counted["tierstack_cache_entries "], counted["tierstack_cache_bytes "])
}

#[tokio::test]
async fn a_second_read_is_answered_from_memory() {
    let (cache, _) = cached(settings());
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
    assert!(matches!(cache.get(b"k"), Reply::Now(Ok(Some(_)))));
    assert_eq!(asked(&cache), 1);
}

#[tokio::test]
async fn nothing_is_served_after_close() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "v").await.unwrap();
    get(&cache, b"k").await.unwrap();
    cache.close().await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Closed);
}
