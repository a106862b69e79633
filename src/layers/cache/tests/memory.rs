//! The bound on memory, and what is counted.

use super::*;

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
async fn what_is_kept_is_counted_to_the_byte_and_what_goes_by_its_cause() {
    let ttl = Some(Span(Duration::from_secs(60)));
    let config = CacheConfig { capacity: ByteSize(64 << 10), ttl, ..settings() };
    let (cache, clock, mut read) = recorded(config);
    // As long as those below: an entry is rounded up.
    let _ = cache.put("once", "value").await.unwrap();
    get(&cache, b"once").await.unwrap();
    let one = read();
    assert_eq!(one["tierstack_cache_entries "], 1.0);
    let (bytes, usage) = (one["tierstack_cache_bytes "], cache.usage().await.unwrap());
    assert_eq!(usage.memory_bytes, Some(bytes as u64 + 9), "the store below keeps nine bytes");
    let overhead = bytes - 9.0;
    assert!(overhead > 100.0, "more than key and value");

    // An expired entry goes when it is looked at.
    clock.advance(Duration::from_secs(60));
    cache.0.inner.reads.shut();
    let reading = reader(&cache, b"once");
    settle().await;
    let expired = read();
    assert_eq!(expired["tierstack_cache_evictions_total expired"], 1.0);
    assert_eq!(expired["tierstack_cache_evictions_total size"], 0.0);
    assert_eq!(kept(&expired), (0.0, 0.0));
    cache.0.inner.reads.open();
    reading.await.unwrap().unwrap();

    // A write is no eviction.
    let _ = cache.put("once", "new").await.unwrap();
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
    assert!(fill().await > 700 << 10);
    if settings().policy != Policy::S3Fifo {
        let error = cache.set_capacity(ByteSize(128 << 10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        return;
    }
    cache.set_capacity(ByteSize(128 << 10)).unwrap();
    assert!(cache.0.engine.bytes() <= 128 << 10);
    let small = fill().await;
    assert!((85 << 10..=96 << 10).contains(&small), "{small}");
    cache.set_capacity(ByteSize(4 << 20)).unwrap();
    let large = fill().await;
    assert!((3200 << 10..=4 << 20).contains(&large), "{large}");
}

/// What an outage leaves under way takes nothing from what bridges it.
#[tokio::test]
async fn loads_under_way_take_no_room_from_entries() {
    let (cache, clock) = cached(CacheConfig { capacity: ByteSize(1 << 20), ..settings() });
    let keys: Vec<Bytes> = (0..2000).map(|n| format!("{n:04}").into()).collect();
    for key in &keys {
        let _ = cache.put(key.clone(), vec![0; 1000]).await.unwrap();
        cache.get(key).await.unwrap();
    }
    cache.0.engine.finish();
    let full = cache.0.engine.bytes();
    assert!(full > 700 << 10, "{full}");
    cache.0.inner.reads.shut();
    let mut waits = Vec::new();
    let mut refused = 0;
    for n in 0..5000_u32 {
        let cache = cache.clone();
        let mut reader = tokio_test::task::spawn(async move { cache.get(&n.to_be_bytes()).await });
        match reader.poll() {
            std::task::Poll::Pending => waits.push(reader),
            std::task::Poll::Ready(outcome) => {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Capacity);
                refused += 1;
            }
        }
    }
    // A quarter is theirs.
    assert!(waits.len() > 240 && refused > 4700, "{} wait", waits.len());
    assert_eq!(cache.0.engine.bytes(), full);
    assert!(cache.0.engine.held() <= 1 << 20);
    drop(waits);
    settle().await;
    clock.advance(Duration::from_secs(30));
    settle().await;
    cache.0.inner.reads.open();
    assert_eq!((cache.0.engine.loads(), cache.0.engine.bytes()), (0, full));
    assert_eq!(get(&cache, b"new").await.unwrap(), None);
}
