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

/// The one who asked first begins the load, and leaves it to the runtime where it has to wait.
#[test]
fn whoever_asks_may_be_polled_outside_of_the_runtime_and_never_again() {
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
