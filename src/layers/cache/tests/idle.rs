//! What nobody reads goes, and what is loaded together does not end together.

use super::*;

fn seconds(seconds: u64) -> Option<Span> {
    Some(Span(Duration::from_secs(seconds)))
}

#[tokio::test]
async fn an_entry_that_nobody_read_for_so_long_goes() {
    let config = CacheConfig { idle: seconds(10), negative_ttl: seconds(1000), ..settings() };
    let (cache, clock) = cached(config);
    foreign(&cache, "k", "old").await;
    let many = [Bytes::from("k")];
    get(&cache, b"k").await.unwrap();
    get(&cache, b"none").await.unwrap();
    foreign(&cache, "k", "new").await;
    for _ in 0..10 {
        clock.advance(Duration::from_millis(9999));
        assert_eq!(now(&cache, b"k"), Some("old".into()), "each read counts");
        clock.advance(Duration::from_millis(9999));
        assert!(matches!(cache.get_many(&many), Reply::Now(Ok(_))), "in bulk as well");
    }
    assert_eq!(asked(&cache), 2);
    clock.advance(Duration::from_secs(10));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    get(&cache, b"none").await.unwrap();
    assert_eq!(asked(&cache), 4);
}

/// A key that is read all the time would otherwise stay for ever.
#[tokio::test]
async fn reading_does_not_lengthen_the_ttl() {
    let (cache, clock) = cached(CacheConfig { idle: seconds(10), ttl: seconds(60), ..settings() });
    foreign(&cache, "k", "old").await;
    get(&cache, b"k").await.unwrap();
    foreign(&cache, "k", "new").await;
    for _ in 0..11 {
        clock.advance(Duration::from_secs(5));
        assert_eq!(now(&cache, b"k"), Some("old".into()));
    }
    clock.advance(Duration::from_secs(5));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn a_slow_load_is_not_idle_before_it_was_read() {
    let (cache, clock) = cached(CacheConfig { idle: seconds(10), ..settings() });
    foreign(&cache, "k", "v").await;
    cache.0.inner.reads.shut();
    let slow = reader(&cache, b"k");
    settle().await;
    clock.advance(Duration::from_secs(20));
    cache.0.inner.reads.open();
    slow.await.unwrap().unwrap();
    assert_eq!(now(&cache, b"k"), Some("v".into()));
}

#[test]
fn without_idle_an_entry_has_no_cell() {
    let (cache, _) = cached(CacheConfig { ttl: seconds(60), ..settings() });
    cache.0.inner.at_once.store(true, Ordering::SeqCst);
    let _ = tokio_test::block_on(cache.0.inner.memory.put("k", "v")).unwrap();
    assert_eq!(now(&cache, b"k"), Some("v".into()));
    assert!(cache.0.engine.get(b"k").unwrap().extra.is_none());
}

/// When each of many keys, loaded at one moment, is loaded again.
async fn ends(config: CacheConfig, seed: u64) -> Vec<u64> {
    let (cache, clock) = cached_with_seed(config, seed);
    cache.0.inner.at_once.store(true, Ordering::SeqCst);
    let keys: Vec<Bytes> = (0..100).map(|n| n.to_string().into()).collect();
    for key in &keys {
        let _ = cache.0.inner.memory.put(key.clone(), "v").await.unwrap();
        cache.get(key).await.unwrap();
    }
    let mut ends = vec![0; 100];
    for second in 1..=100 {
        clock.advance(Duration::from_secs(1));
        for (key, end) in keys.iter().zip(&mut ends) {
            let Some(kept) = cache.0.engine.get(key) else { continue };
            let gone = !matches!(cache.0.lookup(key), Lookup::Answer(_));
            if gone && *end == 0 {
                *end = second;
                assert!(kept.value().is_some());
            }
        }
    }
    ends
}

#[tokio::test]
async fn jitter_shortens_each_ttl_by_a_part_of_its_own_and_lengthens_none() {
    let config = CacheConfig { ttl: seconds(100), ..settings() };
    assert_eq!(ends(config.clone(), 1).await, [100; 100]);
    let config = CacheConfig { jitter: Fraction::percent(20), ..config };
    let first = ends(config.clone(), 1).await;
    assert!(first.iter().all(|end| (80..=100).contains(end)), "{first:?}");
    let different: std::collections::BTreeSet<_> = first.iter().collect();
    assert!(different.len() > 10, "{first:?}");
    assert_eq!(ends(config.clone(), 1).await, first, "it follows from the seed");
    assert_ne!(ends(config, 2).await, first);
}
