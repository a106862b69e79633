mod announced;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::future::join_all;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::backends::Memory;
use crate::clock::{ManualClock, SystemClock};
use crate::error::ErrorKind;
use crate::ext::StoreExt;
use crate::store::{Change, Changes};
use crate::types::units::ByteSize;
use crate::types::{Entry, Freshness, Page};

/// The defaults, with the engine under test: these tests are compiled once for each.
fn settings() -> CacheConfig {
    let moka = module_path!().contains("with_moka");
    let policy = if moka { Policy::TinyLfu } else { Policy::S3Fifo };
    CacheConfig { policy, ..CacheConfig::default() }
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
    asked: AtomicU64,
    fail: AtomicBool,
    panic: AtomicBool,
    /// How late it announces, and to whom.
    announces: Option<Duration>,
    listeners: Mutex<Vec<mpsc::UnboundedSender<Change>>>,
    subscribing: Gate,
    subscribed: AtomicU64,
    refuse: Mutex<Option<ErrorKind>>,
}

impl Gated {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            memory: Memory::with_clock(clock),
            reads: Gate::open_now(),
            writes: Gate::open_now(),
            asked: AtomicU64::new(0),
            fail: AtomicBool::new(false),
            panic: AtomicBool::new(false),
            announces: None,
            listeners: Mutex::default(),
            subscribing: Gate::open_now(),
            subscribed: AtomicU64::new(0),
            refuse: Mutex::default(),
        }
    }

    /// Says it to all who listen.
    fn announce(&self, change: Change) {
        self.listeners.lock().retain(|listener| listener.send(change.clone()).is_ok());
    }
}

impl Read for Gated {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        Reply::later(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panic.load(Ordering::SeqCst), "a defect below");
            let value = self.memory.get(key).await;
            self.reads.pass().await;
            if self.fail.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Unavailable, "out of order"));
            }
            value
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        Reply::later(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let values = self.memory.get_many(keys).await;
            self.reads.pass().await;
            values
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
        if self.fail.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "out of order"));
        }
        self.memory.write(batch).await
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        self.memory.ingest(run).await
    }

    async fn changes(&self) -> Result<Changes> {
        self.subscribing.pass().await;
        self.subscribed.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panic.load(Ordering::SeqCst), "a defect below");
        if let Some(kind) = *self.refuse.lock() {
            return Err(Error::new(kind, "no subscriptions today"));
        }
        let (listener, mut changes) = mpsc::unbounded_channel();
        self.listeners.lock().push(listener);
        Ok(futures_util::stream::poll_fn(move |context| changes.poll_recv(context)).boxed())
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.memory.snapshot().await
    }

    async fn flush(&self) -> Result<()> {
        self.memory.flush().await
    }

    async fn compact(&self) -> Result<()> {
        self.memory.compact().await
    }

    async fn usage(&self) -> Result<Usage> {
        self.memory.usage().await
    }

    async fn close(&self) -> Result<()> {
        self.listeners.lock().clear();
        self.memory.close().await
    }

    fn profile(&self) -> Profile {
        self.memory.profile().changed(|guarantees| {
            guarantees.announces = self.announces;
            if self.announces.is_some() {
                guarantees.freshness = Freshness::Immediate;
            }
        })
    }
}

fn cached(config: CacheConfig) -> (Cache<Gated>, ManualClock) {
    let clock = ManualClock::new();
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
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

async fn get(cache: &Cache<Gated>, key: &'static [u8]) -> Result<Option<Value>> {
    cache.get(key).await
}

/// A reader of its own.
fn reader(cache: &Cache<Gated>, key: &'static [u8]) -> JoinHandle<Result<Option<Value>>> {
    let cache = cache.clone();
    tokio::spawn(async move { get(&cache, key).await })
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
async fn a_load_that_a_write_overtook_is_not_kept() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.reads.shut();
    let slow = reader(&cache, b"k");
    settle().await;
    let _ = cache.put("k", "new").await.unwrap();
    cache.0.inner.reads.open();
    assert_eq!(slow.await.unwrap().unwrap(), Some("old".into()), "it began before the write");
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn who_comes_after_a_write_does_not_join_a_load_from_before_it() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.reads.shut();
    let early = reader(&cache, b"k");
    settle().await;
    let _ = cache.put("k", "new").await.unwrap();
    let late = reader(&cache, b"k");
    settle().await;
    cache.0.inner.reads.open();
    assert_eq!(late.await.unwrap().unwrap(), Some("new".into()));
    early.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_load_that_began_during_a_write_is_not_kept() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.writes.shut();
    let write = tokio::spawn({
        let cache = cache.clone();
        async move { cache.put("k", "new").await }
    });
    settle().await;
    assert_eq!(
        get(&cache, b"k").await.unwrap(),
        Some("old".into()),
        "the write is not acknowledged"
    );
    cache.0.inner.writes.open();
    let _ = write.await.unwrap().unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn during_a_write_a_reader_waits_for_a_load_that_begins_after_it_asked() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.writes.shut();
    let mut write = tokio_test::task::spawn(cache.put("k", "new"));
    tokio_test::assert_pending!(write.poll());
    settle().await;
    cache.0.inner.reads.shut();
    let mut early = tokio_test::task::spawn(cache.get(b"k"));
    tokio_test::assert_pending!(early.poll());
    settle().await;
    // The write has taken effect below, and is not acknowledged yet.
    let _ = cache.0.inner.memory.put("k", "new").await.unwrap();
    let mut late = [0; 3].map(|_| tokio_test::task::spawn(cache.get(b"k")));
    late.iter_mut().for_each(|late| tokio_test::assert_pending!(late.poll()));
    settle().await;
    assert_eq!(asked(&cache), 1, "one load at a time");
    cache.0.inner.reads.open();
    assert_eq!(early.into_inner().await.unwrap(), Some("old".into()));
    for late in late {
        assert_eq!(late.into_inner().await.unwrap(), Some("new".into()));
    }
    assert_eq!(asked(&cache), 2);
}

#[tokio::test]
async fn a_bulk_load_that_a_write_overtook_is_not_kept() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.reads.shut();
    let slow = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_many(&[Bytes::from("k"), Bytes::from("other")]).await }
    });
    settle().await;
    let _ = cache.put("k", "new").await.unwrap();
    cache.0.inner.reads.open();
    assert_eq!(slow.await.unwrap().unwrap(), [Some("old".into()), None]);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn a_write_whose_outcome_is_unknown_is_seen_when_it_arrives() {
    for fails in [false, true] {
        let (cache, clock) = cached(settings());
        let _ = cache.put("k", "old").await.unwrap();
        get(&cache, b"k").await.unwrap();
        if fails {
            cache.0.inner.fail.store(true, Ordering::SeqCst);
            cache.put("k", "new").await.unwrap_err();
            cache.0.inner.fail.store(false, Ordering::SeqCst);
        } else {
            cache.0.inner.writes.shut();
            let mut write = tokio_test::task::spawn(cache.put("k", "new"));
            tokio_test::assert_pending!(write.poll());
            drop(write);
        }
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
        clock.advance(Duration::from_secs(29));
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
        let _ = cache.0.inner.memory.put("k", "new").await.unwrap();
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()), "it arrived below");
        clock.advance(Duration::from_secs(1));
        get(&cache, b"k").await.unwrap();
        assert!(matches!(cache.get(b"k"), Reply::Now(Ok(Some(_)))), "kept again");
    }
}

#[tokio::test]
async fn a_write_that_was_refused_leaves_no_doubt() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    let refused = Batch::new().put("k", "new").put("", "no key");
    assert_eq!(cache.write(refused).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    get(&cache, b"k").await.unwrap();
    assert!(matches!(cache.get(b"k"), Reply::Now(Ok(Some(_)))));
}

/// Repeated, and overwritten: an abandoned write must not come after what was acknowledged since.
#[tokio::test]
async fn a_dropped_write_does_not_go_on() {
    let (cache, _) = cached(settings());
    cache.0.inner.writes.shut();
    let mut write = tokio_test::task::spawn(cache.put("k", "1"));
    tokio_test::assert_pending!(write.poll());
    drop(write);
    cache.0.inner.writes.open();
    let _ = cache.put("k", "1").await.unwrap();
    let _ = cache.put("k", "2").await.unwrap();
    settle().await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("2".into()));
    assert_eq!(cache.0.inner.memory.get(b"k").await.unwrap(), Some("2".into()));
}

#[tokio::test]
async fn many_readers_of_one_key_cause_one_load() {
    let (cache, _) = cached(settings());
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    cache.0.inner.reads.shut();
    let readers: Vec<_> = (0..100_000).map(|_| reader(&cache, b"k")).collect();
    settle().await;
    cache.0.inner.reads.open();
    for value in join_all(readers).await {
        assert_eq!(value.unwrap().unwrap(), Some("v".into()));
    }
    assert_eq!(asked(&cache), 1);
}

#[tokio::test]
async fn whoever_asked_first_may_leave() {
    let (cache, _) = cached(settings());
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    cache.0.inner.reads.shut();
    let mut first = tokio_test::task::spawn(cache.get(b"k"));
    tokio_test::assert_pending!(first.poll());
    let mut second = tokio_test::task::spawn(cache.get(b"k"));
    tokio_test::assert_pending!(second.poll());
    settle().await;
    drop(first);
    cache.0.inner.reads.open();
    assert_eq!(second.into_inner().await.unwrap(), Some("v".into()));
    assert_eq!(asked(&cache), 1);
}

#[tokio::test]
async fn a_load_that_hangs_is_given_up_and_the_next_begins_anew() {
    let (cache, clock) = cached(settings());
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    cache.0.inner.reads.shut();
    let hung = reader(&cache, b"k");
    settle().await;
    clock.advance(Duration::from_secs(30));
    assert_eq!(hung.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    cache.0.inner.reads.open();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
    assert_eq!(asked(&cache), 2);
}

#[tokio::test]
async fn an_error_reaches_all_and_is_not_kept() {
    let (cache, _) = cached(settings());
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    cache.0.inner.reads.shut();
    cache.0.inner.fail.store(true, Ordering::SeqCst);
    let readers: Vec<_> = (0..3).map(|_| reader(&cache, b"k")).collect();
    settle().await;
    cache.0.inner.reads.open();
    for outcome in join_all(readers).await {
        assert_eq!(outcome.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    cache.0.inner.fail.store(false, Ordering::SeqCst);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn a_panic_below_is_an_error_and_wedges_nobody() {
    let (cache, _) = cached(settings());
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    cache.0.inner.panic.store(true, Ordering::SeqCst);
    assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Internal);
    cache.0.inner.panic.store(false, Ordering::SeqCst);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn no_more_loads_run_at_once_than_allowed() {
    let (cache, _) = cached(CacheConfig { max_loads: 2, ..settings() });
    cache.0.inner.reads.shut();
    let keys: [&'static [u8]; 5] = [b"a", b"b", b"c", b"d", b"e"];
    let readers = keys.map(|key| reader(&cache, key));
    settle().await;
    assert_eq!(asked(&cache), 2);
    cache.0.inner.reads.open();
    join_all(readers)
        .await
        .into_iter()
        .for_each(|outcome| assert_eq!(outcome.unwrap().unwrap(), None));
    assert_eq!(asked(&cache), 5);
}

#[tokio::test]
async fn an_entry_is_served_for_its_ttl_and_no_longer() {
    let ttl = Some(Span(Duration::from_secs(60)));
    let (cache, clock) = cached(CacheConfig { ttl, ..settings() });
    let _ = cache.0.inner.memory.put("k", "old").await.unwrap();
    get(&cache, b"k").await.unwrap();
    let _ = cache.0.inner.memory.put("k", "new").await.unwrap();
    clock.advance(Duration::from_secs(59));
    assert_eq!(
        get(&cache, b"k").await.unwrap(),
        Some("old".into()),
        "a foreign write is not seen yet"
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn an_entry_is_never_served_past_its_own_expiry() {
    let ttl = Some(Span(Duration::from_secs(600)));
    let (cache, clock) = cached(CacheConfig { ttl, ..settings() });
    let at = clock.now() + Duration::from_secs(10);
    let _ = cache.put("k", Value::from("v").expiring_at(at)).await.unwrap();
    clock.advance(Duration::from_secs(5));
    assert_eq!(get(&cache, b"k").await.unwrap().unwrap().expires_at, Some(at));
    clock.advance(Duration::from_secs(5));
    assert_eq!(get(&cache, b"k").await.unwrap(), None);
}

#[tokio::test]
async fn the_ttl_begins_when_the_store_below_is_asked() {
    let ttl = Some(Span(Duration::from_secs(60)));
    let negative_ttl = ttl;
    let (cache, clock) = cached(CacheConfig { ttl, negative_ttl, ..settings() });
    let _ = cache.0.inner.memory.put("k", "old").await.unwrap();
    cache.0.inner.reads.shut();
    let mut slow = tokio_test::task::spawn(cache.get(b"k"));
    let mut none = tokio_test::task::spawn(cache.get(b"none"));
    let many = [Bytes::from("m")];
    let mut bulk = tokio_test::task::spawn(cache.get_many(&many));
    tokio_test::assert_pending!(slow.poll());
    tokio_test::assert_pending!(none.poll());
    tokio_test::assert_pending!(bulk.poll());
    settle().await;
    // A foreign write, just after the store below has read.
    let foreign = Batch::new().put("k", "new").put("none", "new").put("m", "new");
    let _ = cache.0.inner.memory.write(foreign).await.unwrap();
    clock.advance(Duration::from_secs(20));
    cache.0.inner.reads.open();
    assert_eq!(slow.into_inner().await.unwrap(), Some("old".into()));
    assert_eq!(none.into_inner().await.unwrap(), None);
    assert_eq!(bulk.into_inner().await.unwrap(), [None]);
    clock.advance(Duration::from_secs(40));
    for key in [&b"k"[..], b"none", b"m"] {
        assert_eq!(cache.get(key).await.unwrap(), Some("new".into()), "60 s after it was written");
    }
}

#[tokio::test]
async fn an_entry_expires_with_the_wall_clock_when_that_is_set_forward() {
    let (cache, clock) = cached(settings());
    let at = clock.now() + Duration::from_secs(3600);
    let _ = cache.put("k", Value::from("v").expiring_at(at)).await.unwrap();
    assert!(get(&cache, b"k").await.unwrap().is_some());
    clock.jump(Duration::from_secs(3600));
    assert_eq!(cache.0.inner.memory.get(b"k").await.unwrap(), None);
    assert_eq!(get(&cache, b"k").await.unwrap(), None);
}

#[tokio::test]
async fn the_longest_times_are_no_overflow() {
    let longest = Some("580000000000y".parse::<Span>().unwrap());
    let config = CacheConfig { ttl: longest, negative_ttl: longest, ..settings() };
    let (cache, clock) = cached(config);
    clock.advance(Duration::from_secs(200_000_000_000_000_000));
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    for _ in 0..2 {
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
        assert_eq!(get(&cache, b"none").await.unwrap(), None);
    }
    assert_eq!(asked(&cache), 2);
}

#[tokio::test]
async fn a_missing_key_is_remembered_for_the_negative_ttl_only_when_asked() {
    let (cache, _) = cached(settings());
    for _ in 0..2 {
        assert_eq!(get(&cache, b"k").await.unwrap(), None);
    }
    assert_eq!(asked(&cache), 2);

    let negative_ttl = Some(Span(Duration::from_secs(5)));
    let (cache, clock) = cached(CacheConfig { negative_ttl, ..settings() });
    for _ in 0..2 {
        assert_eq!(get(&cache, b"k").await.unwrap(), None);
    }
    assert_eq!(asked(&cache), 1);
    clock.advance(Duration::from_secs(5));
    assert_eq!(get(&cache, b"k").await.unwrap(), None);
    assert_eq!(asked(&cache), 2);
    let _ = cache.put("k", "v").await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()), "a write ends it at once");
}

#[tokio::test]
async fn what_is_too_large_passes_by() {
    let (cache, _) = cached(CacheConfig { capacity: ByteSize(64 << 10), ..settings() });
    let _ = cache.put("large", vec![0; 8 << 10]).await.unwrap();
    let _ = cache.put("small", vec![0; 1 << 10]).await.unwrap();
    for _ in 0..2 {
        get(&cache, b"large").await.unwrap();
        get(&cache, b"small").await.unwrap();
    }
    assert_eq!(asked(&cache), 3);
}

#[tokio::test]
async fn a_bulk_read_asks_below_once_for_what_is_missing() {
    let (cache, _) = cached(settings());
    let _ = cache.write(Batch::new().put("a", "1").put("b", "2").put("c", "3")).await.unwrap();
    get(&cache, b"b").await.unwrap();
    let keys = ["a", "b", "c", "missing", "a"].map(Bytes::from);
    let values = cache.get_many(&keys).await.unwrap();
    assert_eq!(
        values,
        [Some("1".into()), Some("2".into()), Some("3".into()), None, Some("1".into())]
    );
    assert_eq!(asked(&cache), 2, "one get, one bulk read");
    assert!(matches!(cache.get_many(&keys[..3]), Reply::Now(Ok(_))), "all of them are kept now");
}

/// Some tell a write that came too late by a conflict, and a refusal by a kind of its own.
#[tokio::test]
async fn a_write_only_where_keys_are_absent_leaves_no_doubt_when_they_exist() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    let batch = Batch::new().put("k", "new").put("other", "new").if_absent();
    assert_eq!(cache.write(batch).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
    assert!(matches!(cache.get(b"k"), Reply::Now(Ok(Some(_)))), "kept");
    let _ = cache.write(Batch::new().put("other", "new").if_absent()).await.unwrap();
    assert_eq!(get(&cache, b"other").await.unwrap(), Some("new".into()));
}

/// What is tried again below may fail for sure in the end, while its first attempt is on its way.
#[test]
fn a_refusal_after_other_attempts_is_in_doubt() {
    for kind in [ErrorKind::Access, ErrorKind::Conflict, ErrorKind::InvalidInput] {
        let error = Error::new(kind, "no");
        assert!(nothing_follows(&error));
        assert!(!nothing_follows(&error.with_retry(Retry::GaveUp)));
    }
    assert!(!nothing_follows(&Error::new(ErrorKind::Timeout, "late")));
}

/// A run of one page that comes when it is let.
fn run<'a>(gate: &'a Gate, pairs: &[(&'static str, &'static str)]) -> Pages<'a> {
    let entries =
        pairs.iter().map(|(key, value)| Entry { key: (*key).into(), value: (*value).into() });
    let page = Page { entries: entries.collect() };
    futures_util::stream::once(async {
        gate.pass().await;
        Ok(page)
    })
    .boxed()
}

#[tokio::test]
async fn nothing_is_kept_while_a_run_is_taken_and_nothing_of_before() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    get(&cache, b"k").await.unwrap();
    let gate = Gate::open_now();
    gate.shut();
    cache.0.inner.reads.shut();
    let mut early = tokio_test::task::spawn(cache.get(b"a"));
    tokio_test::assert_pending!(early.poll());
    settle().await;
    let mut ingest =
        tokio_test::task::spawn(cache.ingest(run(&gate, &[("a", "new"), ("k", "new")])));
    tokio_test::assert_pending!(ingest.poll());
    cache.0.inner.reads.open();
    assert_eq!(early.into_inner().await.unwrap(), None);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()), "not taken yet");
    // A part of it is there before it is acknowledged.
    let _ = cache.0.inner.memory.put("k", "new").await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    gate.open();
    assert_eq!(ingest.into_inner().await.unwrap(), 2);
    for key in [b"a", b"k"] {
        assert_eq!(get(&cache, key).await.unwrap(), Some("new".into()));
        assert!(matches!(cache.get(key), Reply::Now(Ok(Some(_)))), "kept again");
    }
}

#[tokio::test]
async fn a_part_of_a_run_that_was_abandoned_is_seen_when_it_arrives() {
    let (cache, clock) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    let gate = Gate::open_now();
    gate.shut();
    let mut ingest = tokio_test::task::spawn(cache.ingest(run(&gate, &[("k", "new")])));
    tokio_test::assert_pending!(ingest.poll());
    drop(ingest);
    clock.advance(Duration::from_secs(29));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
    let _ = cache.0.inner.memory.put("k", "new").await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    clock.advance(Duration::from_secs(1));
    get(&cache, b"k").await.unwrap();
    assert!(matches!(cache.get(b"k"), Reply::Now(Ok(Some(_)))), "kept again");
}

type Counted = std::collections::BTreeMap<String, f64>;

/// A cache under a recorder of its own, and a function that reads its series by name and last label.
fn recorded(config: CacheConfig) -> (Cache<Gated>, ManualClock, impl FnMut() -> Counted) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let (cache, clock) = metrics::with_local_recorder(&recorder, || cached(config));
    let mut seen = Counted::new();
    let read = move || {
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
async fn what_is_kept_is_counted_to_the_byte_and_what_goes_by_its_cause() {
    let ttl = Some(Span(Duration::from_secs(60)));
    let config = CacheConfig { capacity: ByteSize(64 << 10), ttl, ..settings() };
    let (cache, clock, mut read) = recorded(config);
    let _ = cache.put("k", "v").await.unwrap();
    get(&cache, b"k").await.unwrap();
    let one = read();
    assert_eq!(one["tierstack_cache_entries "], 1.0);
    let (bytes, usage) = (one["tierstack_cache_bytes "], cache.usage().await.unwrap());
    assert_eq!(usage.memory_bytes, Some(bytes as u64 + 2), "the store below keeps two bytes");
    let overhead = bytes - 2.0;
    assert!(overhead > 100.0, "more than key and value");

    // An expired entry goes when it is looked at.
    clock.advance(Duration::from_secs(60));
    cache.0.inner.reads.shut();
    let reading = reader(&cache, b"k");
    settle().await;
    let expired = read();
    assert_eq!(expired["tierstack_cache_evictions_total expired"], 1.0);
    assert_eq!(expired["tierstack_cache_evictions_total size"], 0.0);
    assert_eq!(kept(&expired), (0.0, 0.0));
    cache.0.inner.reads.open();
    reading.await.unwrap().unwrap();

    // A write is no eviction.
    let _ = cache.put("k", "new").await.unwrap();
    assert_eq!(read()["tierstack_cache_entries "], 0.0);

    let keys: Vec<Bytes> = (0..1000).map(|n| format!("{n:04}").into()).collect();
    for key in &keys {
        let _ = cache.put(key.clone(), "value").await.unwrap();
        cache.get(key).await.unwrap();
    }
    cache.0.engine.finish();
    let full = read();
    let entries = full["tierstack_cache_entries "];
    assert_eq!(full["tierstack_cache_bytes "], entries * (overhead + 9.0));
    assert!(full["tierstack_cache_bytes "] <= f64::from(64 << 10));
    assert_eq!(full["tierstack_cache_evictions_total size"], 1000.0 - entries);
    assert_eq!(full["tierstack_cache_evictions_total expired"], 1.0);

    cache.close().await.unwrap();
    cache.0.engine.finish();
    let closed = read();
    assert_eq!(kept(&closed), (0.0, 0.0));
}

#[tokio::test]
async fn the_gauges_forget_a_cache_that_was_dropped() {
    let (cache, _, mut read) = recorded(settings());
    let _ = cache.put("k", "v").await.unwrap();
    get(&cache, b"k").await.unwrap();
    assert_eq!(read()["tierstack_cache_entries "], 1.0);
    drop(cache);
    assert_eq!(kept(&read()), (0.0, 0.0));
}

#[tokio::test]
async fn the_capacity_is_changed_while_it_is_in_use_or_refused() {
    let (cache, _) = cached(CacheConfig { capacity: ByteSize(1 << 20), ..settings() });
    assert_eq!(cache.set_capacity(ByteSize(1)).unwrap_err().kind(), ErrorKind::Config);
    let keys: Vec<Bytes> = (0..10_000).map(|n| format!("{n:04}").into()).collect();
    let fill = || async {
        for key in &keys {
            let _ = cache.put(key.clone(), vec![0; 1000]).await.unwrap();
            cache.get(key).await.unwrap();
        }
        cache.0.engine.bytes()
    };
    assert!(fill().await > 900 << 10);
    if settings().policy != Policy::S3Fifo {
        let error = cache.set_capacity(ByteSize(128 << 10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        return;
    }
    cache.set_capacity(ByteSize(128 << 10)).unwrap();
    assert!(cache.0.engine.bytes() <= 128 << 10);
    let small = fill().await;
    assert!((100 << 10..=128 << 10).contains(&small), "{small}");
    cache.set_capacity(ByteSize(4 << 20)).unwrap();
    let large = fill().await;
    assert!((3800 << 10..=4 << 20).contains(&large), "{large}");
}

#[tokio::test]
async fn loads_under_way_take_room_from_entries() {
    let (cache, _) = cached(CacheConfig { capacity: ByteSize(1 << 20), ..settings() });
    let keys: Vec<Bytes> = (0..2000).map(|n| format!("{n:04}").into()).collect();
    for key in &keys {
        let _ = cache.put(key.clone(), vec![0; 1000]).await.unwrap();
        cache.get(key).await.unwrap();
    }
    let full = cache.0.engine.bytes();
    cache.0.inner.reads.shut();
    let readers: Vec<_> = (0..300u32)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get(&n.to_be_bytes()).await })
        })
        .collect();
    settle().await;
    assert!(cache.0.engine.held() <= 1 << 20);
    if settings().policy == Policy::S3Fifo {
        assert!(cache.0.engine.bytes() < full - (250 << 10), "a quarter is left to the loads");
    }
    cache.0.inner.reads.open();
    for reader in readers {
        reader.await.unwrap().unwrap();
    }
    for key in &keys {
        cache.get(key).await.unwrap();
    }
    assert!(cache.0.engine.bytes() > full - (64 << 10), "and comes back");
}

#[tokio::test]
async fn nothing_is_served_after_close() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "v").await.unwrap();
    get(&cache, b"k").await.unwrap();
    cache.close().await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_setting_out_of_range_is_refused_by_name() {
    let wrong = [
        (CacheConfig { capacity: ByteSize(1), ..settings() }, "capacity"),
        (CacheConfig { ttl: Some(Span::default()), ..settings() }, "ttl"),
        (CacheConfig { max_loads: 0, ..settings() }, "max_loads"),
    ];
    for (config, name) in wrong {
        let error = CacheLayer::new(&config, &Context::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().starts_with(name), "{error}");
    }
}

/// Readers and writers of a few keys on real threads: each write carries a higher number than the
/// one before, and no reader may see less than what was acknowledged before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_sees_less_than_what_was_acknowledged() {
    const KEYS: usize = 4;
    const WRITES: u64 = 3000;

    /// Answers at once or later, so that both paths race.
    #[derive(Debug)]
    struct Mixed(Gated, AtomicU64);

    impl Read for Mixed {
        fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
            if self.1.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                self.0.memory.get(key)
            } else {
                Reply::later(async move {
                    let value = self.0.memory.get(key).await;
                    tokio::task::yield_now().await;
                    value
                })
            }
        }

        fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
            self.0.memory.get_many(keys)
        }

        fn scan(&self, scan: Scan) -> Pages<'_> {
            self.0.scan(scan)
        }
    }

    #[async_trait]
    impl Store for Mixed {
        async fn write(&self, batch: Batch) -> Result<Commit> {
            tokio::task::yield_now().await;
            let commit = self.0.write(batch).await;
            tokio::task::yield_now().await;
            commit
        }

        async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
            self.0.ingest(run).await
        }

        async fn changes(&self) -> Result<Changes> {
            self.0.changes().await
        }

        async fn snapshot(&self) -> Result<Arc<dyn Read>> {
            self.0.snapshot().await
        }

        async fn flush(&self) -> Result<()> {
            Ok(())
        }

        async fn compact(&self) -> Result<()> {
            Ok(())
        }

        async fn usage(&self) -> Result<Usage> {
            self.0.usage().await
        }

        async fn close(&self) -> Result<()> {
            Ok(())
        }

        fn profile(&self) -> Profile {
            self.0.profile()
        }
    }

    let layer = CacheLayer::new(&settings(), &Context::default()).unwrap();
    let cache = layer.layer(Mixed(Gated::new(SystemClock::shared()), AtomicU64::new(0)));
    let acknowledged: Arc<[AtomicU64; KEYS]> = Arc::default();
    let key = |at: usize| Bytes::from(format!("key {at}"));
    let number = |value: Option<Value>| {
        value.map_or(0, |v| u64::from_be_bytes(v.bytes[..].try_into().unwrap()))
    };

    let writers = (0..KEYS).map(|at| {
        let (cache, acknowledged) = (cache.clone(), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            for number in 1..=WRITES {
                let _ = cache.put(key(at), number.to_be_bytes().to_vec()).await.unwrap();
                acknowledged[at].store(number, Ordering::SeqCst);
            }
        })
    });
    let readers = (0..8usize).map(|reader| {
        let (cache, acknowledged) = (cache.clone(), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            let mut at = reader;
            let mut seen = [0; KEYS];
            while acknowledged.iter().any(|a| a.load(Ordering::SeqCst) < WRITES) {
                at = (at * 7 + 3) % KEYS;
                let before = acknowledged[at].load(Ordering::SeqCst);
                let key = key(at);
                let read = if reader % 4 == 0 {
                    number(cache.get_many(std::slice::from_ref(&key)).await.unwrap().remove(0))
                } else {
                    number(cache.get(&key).await.unwrap())
                };
                assert!(read >= before, "read {read} after {before} was acknowledged");
                assert!(read >= seen[at], "read {read} after {} was read", seen[at]);
                seen[at] = read;
                tokio::task::yield_now().await;
            }
        })
    });
    for task in join_all(writers.chain(readers).collect::<Vec<_>>()).await {
        task.unwrap();
    }
}
