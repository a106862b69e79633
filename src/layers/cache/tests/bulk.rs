//! Bulk reads join loads and are joined, within the deadline and the cap.

use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use super::*;

fn seconds(seconds: u64) -> Option<Span> {
    Some(Span(Duration::from_secs(seconds)))
}

/// A reader of its own.
fn bulk(cache: &Cache<Gated>, keys: &[&'static str]) -> JoinHandle<Result<Vec<Option<Value>>>> {
    let cache = cache.clone();
    let keys: Vec<Bytes> = keys.iter().map(|key| Bytes::from(*key)).collect();
    tokio::spawn(async move { cache.get_many(&keys).await })
}

async fn with(config: CacheConfig, keys: &[&'static str]) -> (Cache<Gated>, ManualClock) {
    let (cache, clock) = cached(config);
    for key in keys {
        foreign(&cache, key, key).await;
    }
    (cache, clock)
}

#[tokio::test]
async fn a_bulk_read_joins_the_loads_under_way_and_is_joined() {
    let (cache, _) = with(settings(), &["a", "b", "c"]).await;
    cache.0.inner.reads.shut();
    let first = reader(&cache, b"a");
    settle().await;
    let many = bulk(&cache, &["a", "b", "c"]);
    settle().await;
    assert_eq!(asked(&cache), 2);
    let (again, late) = (bulk(&cache, &["c", "a", "b"]), reader(&cache, b"b"));
    settle().await;
    assert_eq!(asked(&cache), 2, "all of it is under way");
    cache.0.inner.reads.open();
    let value = |key: &'static str| Some(Value::from(key));
    assert_eq!(many.await.unwrap().unwrap(), [value("a"), value("b"), value("c")]);
    assert_eq!(again.await.unwrap().unwrap(), [value("c"), value("a"), value("b")]);
    assert_eq!(late.await.unwrap().unwrap(), value("b"));
    assert_eq!(first.await.unwrap().unwrap(), value("a"));
    assert_eq!(cache.0.inner.wanted.lock()[..], [1, 2], "the rest in one call");
    for key in [b"a", b"b", b"c"] {
        assert!(now(&cache, key).is_some());
    }
}

#[tokio::test]
async fn who_asks_in_bulk_after_a_write_does_not_join_a_load_from_before_it() {
    let (cache, _) = with(settings(), &["a", "b"]).await;
    cache.0.inner.reads.shut();
    let (early, single) = (bulk(&cache, &["a", "b"]), reader(&cache, b"b"));
    settle().await;
    let _ = cache.write(Batch::new().put("a", "new").put("b", "new")).await.unwrap();
    let (late, late_single) = (bulk(&cache, &["a", "b"]), reader(&cache, b"b"));
    settle().await;
    cache.0.inner.reads.open();
    assert_eq!(late.await.unwrap().unwrap(), [Some("new".into()), Some("new".into())]);
    assert_eq!(late_single.await.unwrap().unwrap(), Some("new".into()));
    early.await.unwrap().unwrap();
    single.await.unwrap().unwrap();
    for key in [b"a", b"b"] {
        assert_eq!(get(&cache, key).await.unwrap(), Some("new".into()));
    }
}

#[tokio::test]
async fn during_a_write_a_bulk_reader_waits_for_a_load_that_begins_after_it_asked() {
    let (cache, _) = with(settings(), &["a"]).await;
    cache.0.inner.writes.shut();
    let mut write = spawn(cache.put("a", "new"));
    assert_pending!(write.poll());
    cache.0.inner.reads.shut();
    let early = bulk(&cache, &["a", "b"]);
    settle().await;
    // The write has taken effect below, and is not acknowledged yet.
    foreign(&cache, "a", "new").await;
    let late = [bulk(&cache, &["a", "b"]), bulk(&cache, &["b", "a"])];
    settle().await;
    cache.0.inner.reads.open();
    assert_eq!(early.await.unwrap().unwrap()[0], Some("a".into()));
    for (late, at) in late.into_iter().zip([0, 1]) {
        assert_eq!(late.await.unwrap().unwrap()[at], Some("new".into()));
    }
}

#[tokio::test]
async fn a_bulk_read_that_hangs_is_given_up_and_its_keys_are_free() {
    let (cache, clock) = with(settings(), &["a", "b"]).await;
    cache.0.inner.reads.shut();
    let (hung, single) = (bulk(&cache, &["a", "b"]), reader(&cache, b"a"));
    settle().await;
    clock.advance(Duration::from_secs(30));
    assert_eq!(hung.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(single.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    cache.0.inner.reads.open();
    assert_eq!(get(&cache, b"a").await.unwrap(), Some("a".into()));
    assert_eq!(cache.0.engine.loads(), 0, "what they take was given back");
}

#[tokio::test]
async fn a_reader_in_bulk_may_leave() {
    let (cache, _) = with(settings(), &["a", "b"]).await;
    cache.0.inner.reads.shut();
    let keys = [Bytes::from("a"), Bytes::from("b")];
    let mut first = spawn(cache.get_many(&keys));
    assert_pending!(first.poll());
    let second = reader(&cache, b"b");
    settle().await;
    drop(first);
    cache.0.inner.reads.open();
    assert_eq!(second.await.unwrap().unwrap(), Some("b".into()));
    assert_eq!(asked(&cache), 1);
    assert_eq!(now(&cache, b"a"), Some("a".into()));
}

#[tokio::test]
async fn a_bulk_read_has_its_turn_under_the_cap() {
    let (cache, _) = with(CacheConfig { max_loads: 1, ..settings() }, &["a", "b", "c"]).await;
    cache.0.inner.reads.shut();
    let single = reader(&cache, b"a");
    settle().await;
    let many = bulk(&cache, &["b", "c"]);
    settle().await;
    assert_eq!(asked(&cache), 1);
    cache.0.inner.reads.open();
    single.await.unwrap().unwrap();
    assert_eq!(many.await.unwrap().unwrap(), [Some("b".into()), Some("c".into())]);
}

#[tokio::test]
async fn a_panic_in_a_bulk_read_is_an_error_to_all_and_wedges_nobody() {
    let (cache, _) = with(settings(), &["a", "b"]).await;
    cache.0.inner.panic.store(true, Ordering::SeqCst);
    let (many, single) = (bulk(&cache, &["a", "b"]), reader(&cache, b"a"));
    assert_eq!(many.await.unwrap().unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(single.await.unwrap().unwrap_err().kind(), ErrorKind::Internal);
    cache.0.inner.panic.store(false, Ordering::SeqCst);
    let values = bulk(&cache, &["a", "b"]).await.unwrap().unwrap();
    assert_eq!(values, [Some("a".into()), Some("b".into())]);
    assert_eq!(cache.0.engine.loads(), 0);
}

#[test]
fn a_runtime_that_ends_tells_all_who_wait_for_its_bulk_read() {
    let (cache, _) = tokio_test::block_on(with(settings(), &["a", "b"]));
    cache.0.inner.reads.shut();
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let first = runtime();
    let keys = [Bytes::from("a"), Bytes::from("b")];
    let (mut many, mut single) = first.block_on(async {
        let (mut many, mut single) = (spawn(cache.get_many(&keys)), spawn(cache.get(b"b")));
        assert_pending!(many.poll());
        assert_pending!(single.poll());
        settle().await;
        (many, single)
    });
    drop(first);
    assert_eq!(assert_ready!(many.poll()).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(assert_ready!(single.poll()).unwrap_err().kind(), ErrorKind::Internal);
    cache.0.inner.reads.open();
    let values = runtime().block_on(async { cache.get_many(&keys).await.unwrap() });
    assert_eq!(values.len(), 2);
}

/// A damaged entry is an error of each bulk read that asks for it, and of nobody else's read.
#[tokio::test]
async fn an_error_that_may_be_about_one_key_is_not_the_answer_of_the_others() {
    let error_ttl = seconds(60);
    let (cache, _) = with(CacheConfig { error_ttl, ..settings() }, &["a", "b"]).await;
    *cache.0.inner.fail_many.lock() = Some(ErrorKind::Corruption);
    cache.0.inner.reads.shut();
    let many = bulk(&cache, &["a", "b"]);
    settle().await;
    let joined = [reader(&cache, b"a"), reader(&cache, b"a"), reader(&cache, b"b")];
    settle().await;
    cache.0.inner.reads.open();
    assert_eq!(many.await.unwrap().unwrap_err().kind(), ErrorKind::Corruption);
    for (joined, value) in joined.into_iter().zip(["a", "a", "b"]) {
        assert_eq!(joined.await.unwrap().unwrap(), Some(value.into()));
    }
    assert_eq!(asked(&cache), 3, "each key once more");
    let at_once = cached(CacheConfig { error_ttl, ..settings() }).0;
    at_once.0.inner.at_once.store(true, Ordering::SeqCst);
    *at_once.0.inner.fail_many.lock() = Some(ErrorKind::Corruption);
    at_once.get_many(&[Bytes::from("a"), Bytes::from("b")]).await.unwrap_err();
    assert_eq!(get(&at_once, b"a").await.unwrap(), None);
}

#[tokio::test]
async fn an_outage_is_the_answer_of_every_key() {
    let (cache, _) = with(CacheConfig { error_ttl: seconds(60), ..settings() }, &["a"]).await;
    fail(&cache, Some(ErrorKind::Unavailable));
    bulk(&cache, &["a", "b"]).await.unwrap().unwrap_err();
    for key in [b"a", b"b"] {
        assert_eq!(get(&cache, key).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(asked(&cache), 1);
}

#[tokio::test]
async fn old_values_are_served_where_there_is_one_for_each_missing_key() {
    for at_once in [false, true] {
        let config = CacheConfig { ttl: seconds(60), stale_if_error: seconds(60), ..settings() };
        let (cache, clock) = with(config, &["a", "b", "c"]).await;
        bulk(&cache, &["a", "b"]).await.unwrap().unwrap();
        cache.0.inner.at_once.store(at_once, Ordering::SeqCst);
        clock.advance(Duration::from_secs(60));
        fail(&cache, Some(ErrorKind::Unavailable));
        let error = bulk(&cache, &["a", "c"]).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let values = bulk(&cache, &["b", "a"]).await.unwrap().unwrap();
        assert_eq!(values, [Some("b".into()), Some("a".into())]);
        let before = asked(&cache);
        let values = bulk(&cache, &["b", "a"]).await.unwrap().unwrap();
        assert_eq!(values, [Some("b".into()), Some("a".into())]);
        assert_eq!(asked(&cache), before, "left alone for a while");
        clock.advance(Duration::from_secs(60));
        bulk(&cache, &["b", "a"]).await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn a_bulk_reader_with_old_values_waits_for_the_soft_timeout_only() {
    let config = CacheConfig {
        ttl: seconds(60),
        stale_if_error: seconds(60),
        soft_timeout: seconds(2),
        ..settings()
    };
    let (cache, clock) = with(config, &["a", "b", "c"]).await;
    bulk(&cache, &["a", "b"]).await.unwrap().unwrap();
    clock.advance(Duration::from_secs(60));
    cache.0.inner.reads.shut();
    let keys = ["a", "b", "c"].map(Bytes::from);
    let mut old = spawn(cache.get_many(&keys[..2]));
    let mut more = spawn(cache.get_many(&keys));
    assert_pending!(old.poll());
    assert_pending!(more.poll());
    settle().await;
    clock.advance(Duration::from_secs(2));
    assert_eq!(assert_ready!(old.poll()).unwrap(), [Some("a".into()), Some("b".into())]);
    assert_pending!(more.poll());
    cache.0.inner.reads.open();
    assert_eq!(more.into_inner().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_bulk_read_refreshes_what_is_due_and_does_not_wait_for_it() {
    let refresh_ahead = Some(Fraction::percent(50));
    let config = CacheConfig { ttl: seconds(60), refresh_ahead, ..settings() };
    let (cache, clock) = with(config, &["a", "b"]).await;
    bulk(&cache, &["a", "b"]).await.unwrap().unwrap();
    clock.advance(Duration::from_secs(30));
    for key in ["a", "b"] {
        foreign(&cache, key, "new").await;
    }
    let keys = ["a", "b"].map(Bytes::from);
    let Reply::Now(Ok(values)) = cache.get_many(&keys) else { panic!("both are kept") };
    assert_eq!(values, [Some("a".into()), Some("b".into())]);
    settle().await;
    let Reply::Now(Ok(values)) = cache.get_many(&keys) else { panic!("both are kept") };
    assert_eq!(values, [Some("new".into()), Some("new".into())]);
}

#[test]
fn what_is_there_at_once_needs_no_task() {
    let (cache, _) = tokio_test::block_on(with(settings(), &["a"]));
    cache.0.inner.at_once.store(true, Ordering::SeqCst);
    let keys = ["a", "b"].map(Bytes::from);
    assert!(matches!(cache.get_many(&keys), Reply::Now(Ok(_))));
    assert_eq!(now(&cache, b"a"), Some("a".into()));
}

#[test]
fn a_bulk_read_that_has_to_wait_needs_a_runtime() {
    let (cache, _) = cached(settings());
    let Reply::Now(Err(error)) = cache.get_many(&[Bytes::from("a")]) else { panic!("no runtime") };
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_store_that_forgets_a_key_does_not_make_it_look_missing() {
    for at_once in [false, true] {
        let (cache, _) = with(settings(), &["a", "b"]).await;
        cache.0.inner.at_once.store(at_once, Ordering::SeqCst);
        cache.0.inner.forgets.store(true, Ordering::SeqCst);
        let error = bulk(&cache, &["a", "b"]).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
