//! Faults that other caches had, where no other test looks for them. See `regressions.md`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// Nothing of a load is left, and everything is counted as it was.
fn nothing_is_under_way(cache: &Cache<Gated>) {
    assert_eq!(cache.0.coherence.under_way(), 0);
    assert_eq!(cache.0.engine.held(), cache.0.engine.bytes());
    assert_eq!(cache.0.loads.available_permits(), settings().max_loads);
}

#[tokio::test]
async fn a_load_that_a_delete_overtook_is_not_kept() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.reads.shut();
    let slow = reader(&cache, b"k");
    settle().await;
    let _ = cache.delete("k").await.unwrap();
    cache.0.inner.reads.open();
    assert_eq!(slow.await.unwrap().unwrap(), Some("old".into()), "it began before the delete");
    assert_eq!(get(&cache, b"k").await.unwrap(), None);
}

/// The outer cache has forgotten, the inner one has not, and the delete is under way below.
#[tokio::test]
async fn of_two_caches_the_outer_does_not_bring_back_what_is_being_deleted() {
    let (inner, clock) = cached(settings());
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let ttl = Some(Span(Duration::from_secs(1)));
    let outer =
        CacheLayer::new(&CacheConfig { ttl, ..settings() }, &context).unwrap().layer(inner.clone());
    let _ = outer.put("k", "old").await.unwrap();
    outer.get(b"k").await.unwrap();
    clock.advance(Duration::from_secs(1));
    inner.0.inner.writes.shut();
    let mut delete = tokio_test::task::spawn(outer.delete("k"));
    tokio_test::assert_pending!(delete.poll());
    assert_eq!(outer.get(b"k").await.unwrap(), Some("old".into()), "it is not acknowledged");
    inner.0.inner.writes.open();
    let _ = delete.into_inner().await.unwrap();
    assert_eq!(outer.get(b"k").await.unwrap(), None);
    assert_eq!(inner.get(b"k").await.unwrap(), None);
}

#[tokio::test]
async fn however_many_leave_the_load_goes_on() {
    let (cache, _) = cached(settings());
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    cache.0.inner.reads.shut();
    for _ in 0..1000 {
        let mut leaves = tokio_test::task::spawn(cache.get(b"k"));
        tokio_test::assert_pending!(leaves.poll());
    }
    let mut stays = tokio_test::task::spawn(cache.get(b"k"));
    tokio_test::assert_pending!(stays.poll());
    cache.0.inner.reads.open();
    assert_eq!(stays.into_inner().await.unwrap(), Some("v".into()));
    assert_eq!(asked(&cache), 1);
}

#[tokio::test]
async fn a_reader_that_is_polled_once_and_kept_holds_up_nobody() {
    let (cache, _) = cached(settings());
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    cache.0.inner.reads.shut();
    let mut idle = tokio_test::task::spawn(cache.get(b"k"));
    tokio_test::assert_pending!(idle.poll());
    cache.0.inner.reads.open();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
    let _ = cache.put("k", "new").await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    assert_eq!(idle.into_inner().await.unwrap(), Some("v".into()), "of when it asked");
}

#[tokio::test]
async fn nothing_of_a_load_stays_behind_however_it_ends() {
    let (cache, clock) = cached(settings());
    let below = &cache.0.inner;
    let _ = below.memory.put("k", "v").await.unwrap();

    get(&cache, b"k").await.unwrap();
    get(&cache, b"none").await.unwrap();
    nothing_is_under_way(&cache);

    below.fail.store(true, Ordering::SeqCst);
    get(&cache, b"fails").await.unwrap_err();
    below.fail.store(false, Ordering::SeqCst);
    nothing_is_under_way(&cache);

    below.panic.store(true, Ordering::SeqCst);
    get(&cache, b"panics").await.unwrap_err();
    below.panic.store(false, Ordering::SeqCst);
    nothing_is_under_way(&cache);

    below.reads.shut();
    let hung = reader(&cache, b"hangs");
    settle().await;
    clock.advance(Duration::from_secs(30));
    hung.await.unwrap().unwrap_err();
    settle().await;
    nothing_is_under_way(&cache);

    let mut leaves = tokio_test::task::spawn(cache.get(b"leaves"));
    tokio_test::assert_pending!(leaves.poll());
    drop(leaves);
    // A write makes the next reader lead a load of its own, in addition to the one that no task waits for.
    let _ = cache.put("leaves", "v").await.unwrap();
    let overtakes = reader(&cache, b"leaves");
    settle().await;
    below.reads.open();
    assert_eq!(overtakes.await.unwrap().unwrap(), Some("v".into()));
    settle().await;
    nothing_is_under_way(&cache);
}

/// A store whose `get` panics before it returns a future: in the caller, or in the task of the load.
#[derive(Debug)]
struct Panics {
    gated: Gated,
    calls_until: AtomicU64,
}

impl Read for Panics {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        let left = self.calls_until.fetch_sub(1, Ordering::SeqCst);
        assert!(left != 1, "a defect below");
        self.gated.get(key)
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        self.gated.get_many(keys)
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        self.gated.scan(scan)
    }
}

#[async_trait]
impl Store for Panics {
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        crate::write_in_order(self, group).await
    }

    forward!(self => self.gated; write, ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, close, profile, identity);
}

#[tokio::test]
async fn a_panic_before_there_is_a_future_wedges_nobody() {
    for calls_until in [1, 2] {
        let layer = CacheLayer::new(&settings(), &Context::default()).unwrap();
        let gated = Gated::new(SystemClock::shared());
        let cache = layer.layer(Panics { gated, calls_until: AtomicU64::new(calls_until) });
        let asked = catch_unwind(AssertUnwindSafe(|| cache.get(b"k")));
        assert_eq!(asked.is_err(), calls_until == 1, "the first call is the caller's own");
        if let Ok(reply) = asked {
            // A write came between, so the load asks again.
            let _ = cache.put("k", "v").await.unwrap();
            assert_eq!(reply.await.unwrap_err().kind(), ErrorKind::Internal);
        }
        let _ = cache.put("k", "v").await.unwrap();
        assert_eq!(cache.get(b"k").await.unwrap(), Some("v".into()));
        assert_eq!(cache.0.coherence.under_way(), 0);
    }
}

#[tokio::test]
async fn a_new_value_has_nothing_of_the_expiry_of_the_old() {
    let (cache, clock) = cached(settings());
    let at = clock.now() + Duration::from_secs(10);
    let _ = cache.put("k", Value::from("old").expiring_at(at)).await.unwrap();
    get(&cache, b"k").await.unwrap();
    let _ = cache.put("k", "new").await.unwrap();
    get(&cache, b"k").await.unwrap();
    clock.advance(Duration::from_secs(100));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    assert_eq!(asked(&cache), 2, "kept");
}

/// The store below had its answer in time, and a reader that asks when its time is over waits for the same load.
#[tokio::test]
async fn who_joins_a_load_does_not_get_what_has_expired_meanwhile() {
    let (cache, clock) = cached(settings());
    let at = clock.now() + Duration::from_secs(10);
    let _ = cache.put("k", Value::from("v").expiring_at(at)).await.unwrap();
    cache.0.inner.reads.shut();
    let early = reader(&cache, b"k");
    settle().await;
    clock.advance(Duration::from_secs(10));
    let mut late = tokio_test::task::spawn(cache.get(b"k"));
    tokio_test::assert_pending!(late.poll());
    let many = [Bytes::from("k")];
    let mut bulk = tokio_test::task::spawn(cache.get_many(&many));
    tokio_test::assert_pending!(bulk.poll());
    cache.0.inner.reads.open();
    early.await.unwrap().unwrap();
    assert_eq!(late.into_inner().await.unwrap(), None);
    assert_eq!(bulk.into_inner().await.unwrap(), [None]);
    assert_eq!(asked(&cache), 1, "they joined");
}

/// A cache over a cache keeps the moment at which an entry expires, not a span.
#[tokio::test]
async fn an_expiry_is_not_extended_by_passing_through_caches() {
    let (inner, clock) = cached(settings());
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let ttl = Some(Span(Duration::from_secs(60)));
    let outer =
        CacheLayer::new(&CacheConfig { ttl, ..settings() }, &context).unwrap().layer(inner.clone());
    let at = clock.now() + Duration::from_secs(10);
    let _ = outer.put("k", Value::from("v").expiring_at(at)).await.unwrap();
    inner.get(b"k").await.unwrap();
    clock.advance(Duration::from_secs(9));
    assert_eq!(outer.get(b"k").await.unwrap().unwrap().expires_at, Some(at));
    clock.advance(Duration::from_secs(1));
    assert_eq!(outer.get(b"k").await.unwrap(), None);
}

/// What passes by must not pass by its older copy.
#[tokio::test]
async fn an_update_that_is_too_large_leaves_no_older_copy() {
    let (cache, _) = cached(CacheConfig { capacity: ByteSize(64 << 10), ..settings() });
    let large = Value::new(vec![7; 32 << 10]);
    let _ = cache.put("k", "old").await.unwrap();
    get(&cache, b"k").await.unwrap();
    let _ = cache.put("k", large.clone()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(get(&cache, b"k").await.unwrap(), Some(large.clone()));
    }
    assert_eq!(asked(&cache), 3, "it is not kept");
}

#[tokio::test]
async fn keys_and_values_are_any_bytes() {
    let (cache, _) = cached(settings());
    let keys: Vec<Bytes> = [&b"\xff\xfe"[..], b"\0", b"a:b", b"a", b":", b"a:", b"\r\n"]
        .iter()
        .map(|key| Bytes::from_static(key))
        .collect();
    for key in &keys {
        let _ = cache.put(key.clone(), key.clone()).await.unwrap();
    }
    for _ in 0..2 {
        for key in &keys {
            let value = cache.get(key).await.unwrap().unwrap();
            assert_eq!(value.bytes, *key);
        }
    }
    let _ = cache.delete("a").await.unwrap();
    assert_eq!(cache.get(b"a").await.unwrap(), None);
    assert!(matches!(cache.get(b"a:b"), Reply::Now(Ok(Some(_)))), "no other key went");
}
