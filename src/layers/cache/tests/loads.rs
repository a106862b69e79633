//! One load per key at a time, with a deadline and a cap; nobody is wedged by another.

use super::*;

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

/// Calls of the store below, whether the reply was waited for or not.
fn calls(cache: &Cache<Gated>) -> u64 {
    cache.0.inner.called.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_miss_asks_the_store_below_once() {
    let (cache, _) = cached(settings());
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    cache.0.inner.reads.shut();
    let first = reader(&cache, b"k");
    settle().await;
    assert_eq!(calls(&cache), 1);
    // A reader that joins the load looks whether the answer is there by now. One that leaves takes nothing along.
    let second = reader(&cache, b"k");
    settle().await;
    assert_eq!((calls(&cache), asked(&cache)), (2, 1));
    first.abort();
    settle().await;
    cache.0.inner.reads.open();
    assert_eq!(second.await.unwrap().unwrap(), Some("v".into()));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
    assert_eq!((calls(&cache), asked(&cache)), (2, 1), "it was kept");
}

#[tokio::test]
async fn a_bulk_read_asks_the_store_below_once() {
    let (cache, _) = cached(settings());
    for key in ["a", "b", "c"] {
        let _ = cache.0.inner.memory.put(key, key).await.unwrap();
    }
    assert_eq!(get(&cache, b"b").await.unwrap(), Some("b".into()));
    let before = calls(&cache);
    let keys = ["a", "b", "c"].map(Bytes::from);
    let values = cache.get_many(&keys).await.unwrap();
    assert_eq!(values, ["a", "b", "c"].map(|value| Some(value.into())));
    assert_eq!(calls(&cache), before + 1);
}

/// What it would bring is from before the write.
#[tokio::test]
async fn a_question_is_asked_again_after_a_write_of_its_key() {
    let (cache, _) = cached(settings());
    let _ = cache.0.inner.memory.put("k", "old").await.unwrap();
    cache.0.inner.early.store(true, Ordering::SeqCst);
    let read = cache.get(b"k");
    assert_eq!(calls(&cache), 1);
    let _ = cache.put("k", "new").await.unwrap();
    assert_eq!(read.await.unwrap(), Some("new".into()));
    assert_eq!(calls(&cache), 2);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

/// Its ttl counts from when it was asked.
#[tokio::test]
async fn a_question_that_waited_for_its_reader_ages() {
    let ttl = Duration::from_secs(10);
    let (cache, clock) = cached(CacheConfig { ttl: Some(Span(ttl)), ..settings() });
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    let read = cache.get(b"k");
    clock.advance(ttl - Duration::from_secs(1));
    assert_eq!(read.await.unwrap(), Some("v".into()));
    assert_eq!(calls(&cache), 1);
    assert_eq!(now(&cache, b"k"), Some("v".into()));
    clock.advance(Duration::from_secs(1));
    assert!(matches!(cache.get(b"k"), Reply::Later(_)), "its time is over");
}

/// A deadline after it was asked it is asked again, however long its reader did not wait.
#[tokio::test]
async fn a_question_that_is_older_than_the_deadline_is_asked_again() {
    let (cache, clock) = cached(settings());
    let read = cache.get(b"k");
    clock.advance(Duration::from_secs(30));
    assert_eq!(read.await.unwrap(), None);
    assert_eq!(calls(&cache), 2);
}

#[tokio::test]
async fn a_refresh_asks_the_store_below_once() {
    let config = CacheConfig {
        ttl: Some(Span(Duration::from_secs(10))),
        stale_while_refresh: Some(Span(Duration::from_secs(60))),
        ..settings()
    };
    let (cache, clock) = cached(config);
    assert_eq!(get(&cache, b"k").await.unwrap(), None);
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    clock.advance(Duration::from_secs(10));
    let _ = cache.get(b"k").await.unwrap();
    clock.advance(Duration::from_secs(20));
    let before = calls(&cache);
    assert_eq!(now(&cache, b"k"), Some("v".into()));
    settle().await;
    assert_eq!(calls(&cache), before + 1);
}

#[tokio::test]
async fn the_reader_that_asked_first_may_leave() {
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

/// The reader that asked first begins the load, and leaves it to the runtime where it has to wait.
#[test]
fn a_reader_may_be_polled_outside_of_the_runtime_and_never_again() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let context = Context::default();
    let below = Gated::new(Arc::clone(&context.clock));
    let cache = CacheLayer::new(&settings(), &context).unwrap().layer(below);
    let _ = runtime.block_on(cache.0.inner.memory.put("k", "v")).unwrap();
    cache.0.inner.reads.shut();
    let (mut first, mut second) = {
        let _inside = runtime.enter();
        (tokio_test::task::spawn(cache.get(b"k")), tokio_test::task::spawn(cache.get(b"k")))
    };
    // The deadline of the load is a timer of the runtime.
    tokio_test::assert_pending!(first.poll());
    tokio_test::assert_pending!(second.poll());
    cache.0.inner.reads.open();
    assert_eq!(runtime.block_on(second.into_inner()).unwrap(), Some("v".into()));
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

/// An outage with as many loads under way as there is room for.
async fn full_of_loads(config: CacheConfig) -> (Cache<Gated>, ManualClock) {
    let (cache, clock) = cached(CacheConfig { capacity: ByteSize(64 << 10), ..config });
    for n in 0..40_u32 {
        let _ = cache.0.inner.memory.put(n.to_be_bytes().to_vec(), "v").await.unwrap();
    }
    let _ = cache.put("old", "v").await.unwrap();
    get(&cache, b"old").await.unwrap();
    (cache, clock)
}

fn leave_loads_behind(cache: &Cache<Gated>) -> usize {
    let readers = (0..40_u32).map(|n| {
        let cache = cache.clone();
        tokio_test::task::spawn(async move { cache.get(&n.to_be_bytes()).await })
    });
    readers.filter_map(|mut reader| reader.poll().is_pending().then_some(())).count()
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_is_skipped_when_its_turn_comes() {
    let (cache, _) = full_of_loads(CacheConfig { max_loads: 2, ..settings() }).await;
    cache.0.inner.reads.shut();
    let before = asked(&cache);
    assert_eq!(leave_loads_behind(&cache), 15);
    settle().await;
    // One of those that wait for their turn is joined.
    let joined = reader(&cache, &[0, 0, 0, 9]);
    settle().await;
    assert_eq!(asked(&cache), before + 2);
    cache.0.inner.reads.open();
    assert_eq!(joined.await.unwrap().unwrap(), Some("v".into()));
    settle().await;
    assert_eq!(asked(&cache), before + 3, "two were under way, and one was waited for");
    assert_eq!((cache.0.engine.loads(), cache.0.coherence.under_way()), (0, 0));
}

#[tokio::test]
async fn keys_of_a_bulk_read_that_nobody_waits_for_are_skipped() {
    let (cache, _) = cached(CacheConfig { max_loads: 1, ..settings() });
    cache.0.inner.reads.shut();
    let before = reader(&cache, b"x");
    settle().await;
    let keys = ["a", "b", "c"].map(Bytes::from);
    let mut bulk = tokio_test::task::spawn(cache.get_many(&keys));
    tokio_test::assert_pending!(bulk.poll());
    let joined = reader(&cache, b"b");
    settle().await;
    drop(bulk);
    cache.0.inner.reads.open();
    before.await.unwrap().unwrap();
    joined.await.unwrap().unwrap();
    assert_eq!(*cache.0.inner.wanted.lock(), [1, 1]);
    assert_eq!((cache.0.engine.loads(), cache.0.coherence.under_way()), (0, 0));
}

#[tokio::test]
async fn where_there_is_no_room_for_a_load_an_old_value_is_served_or_an_error() {
    let span = |seconds| Some(Span(Duration::from_secs(seconds)));
    let config = CacheConfig { ttl: span(10), stale_if_error: span(100), ..settings() };
    let (cache, clock) = full_of_loads(config).await;
    clock.advance(Duration::from_secs(11));
    cache.0.inner.reads.shut();
    leave_loads_behind(&cache);
    assert_eq!(get(&cache, b"old").await.unwrap(), Some("v".into()));
    let error = get(&cache, b"new").await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Capacity, Retry::Later));
    assert_eq!(error.layer(), Some("cache"));
    let both = [Bytes::from("old"), Bytes::from("new")];
    assert_eq!(cache.get_many(&both).await.unwrap_err().kind(), ErrorKind::Capacity);
    assert_eq!(cache.get_many(&both[..1]).await.unwrap(), [Some("v".into())]);
    clock.advance(Duration::from_secs(30));
    settle().await;
    cache.0.inner.reads.open();
    assert_eq!(get(&cache, b"new").await.unwrap(), None);
}

/// It asks as often as it has to, and is not refused.
#[tokio::test]
async fn a_bulk_read_of_more_than_there_is_room_for_asks_in_parts() {
    let (cache, _) = cached(CacheConfig { capacity: ByteSize(64 << 10), ..settings() });
    let keys: Vec<Bytes> = (0..40).map(|n| format!("{n:02}").into()).collect();
    for key in &keys {
        let _ = cache.0.inner.memory.put(key.clone(), key.clone()).await.unwrap();
    }
    let values = cache.get_many(&keys).await.unwrap();
    let wanted: Vec<_> = keys.iter().map(|key| Some(key.clone().into())).collect();
    assert_eq!(values, wanted);
    assert_eq!(*cache.0.inner.wanted.lock(), [15, 15, 10]);
    assert_eq!(cache.0.engine.loads(), 0);
}
