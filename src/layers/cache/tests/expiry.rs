//! How long an entry is served.

use super::*;

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
    let longest = Some(Span(Duration::from_secs(u64::MAX)));
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
