//! The warm start: loads of their own, paced by the clock.

use super::*;

fn config(folder: &tempfile::TempDir, rate: u32, within: u64) -> CacheConfig {
    let within = Span(Duration::from_secs(within));
    let warm_start = Some(WarmStartConfig { path: folder.path().join("keys"), rate, within });
    CacheConfig { warm_start, ..settings() }
}

async fn fill(cache: &Cache<Gated>, keys: u32) {
    for n in 0..keys {
        let key = n.to_be_bytes().to_vec();
        let _ = cache.0.inner.memory.put(key, vec![7; 200]).await.unwrap();
    }
}

/// A cache over `keys` entries, after one that had kept that many of them was closed.
async fn restarted(config: &CacheConfig, keys: u32, kept: u32) -> (Cache<Gated>, ManualClock) {
    let (before, _) = cached(config.clone());
    fill(&before, keys).await;
    for n in 0..kept {
        before.get(&n.to_be_bytes()).await.unwrap();
    }
    before.close().await.unwrap();
    let clock = ManualClock::new();
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let below = Gated::new(Arc::clone(&context.clock));
    for n in 0..keys {
        let key = n.to_be_bytes().to_vec();
        let _ = below.memory.put(key, vec![7; 200]).await.unwrap();
    }
    (CacheLayer::new(config, &context).unwrap().layer(below), clock)
}

fn kept(cache: &Cache<Gated>) -> u64 {
    cache.0.engine.finish();
    cache.0.engine.entries()
}

#[tokio::test]
async fn the_keys_that_were_kept_are_loaded_at_the_rate() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, clock) = restarted(&config(&folder, 100, 60), 200, 50).await;
    for round in 1..=5 {
        settle().await;
        assert_eq!(kept(&cache), round * 10);
        assert_eq!(asked(&cache), round, "a bulk read each");
        clock.advance(Duration::from_millis(100));
    }
    clock.advance(Duration::from_secs(1));
    settle().await;
    assert_eq!((kept(&cache), asked(&cache)), (50, 5), "it has ended");
    assert!((0..50u32).all(|n| matches!(cache.get(&n.to_be_bytes()), Reply::Now(Ok(Some(_))))));
}

#[tokio::test]
async fn it_ends_when_its_time_is_over_and_leaves_the_rest_for_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, 10, 3);
    let (cache, clock) = restarted(&config, 50, 50).await;
    for _ in 0..100 {
        settle().await;
        clock.advance(Duration::from_millis(100));
    }
    assert_eq!(kept(&cache), 30);
    cache.close().await.unwrap();
    let (cache, clock) = cached(config);
    fill(&cache, 50).await;
    for _ in 0..100 {
        settle().await;
        clock.advance(Duration::from_millis(100));
    }
    assert_eq!(asked(&cache), 30, "from the file");
}

#[tokio::test]
async fn reads_do_not_wait_for_it_and_close_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, clock) = restarted(&config(&folder, 10, 60), 50, 50).await;
    cache.0.inner.reads.shut();
    settle().await;
    assert_eq!(asked(&cache), 1, "it waits below");
    let mut read = tokio_test::task::spawn(cache.get(b"other"));
    tokio_test::assert_pending!(read.poll());
    settle().await;
    assert_eq!(asked(&cache), 2, "the read goes below all the same");
    drop(read);
    let mut close = tokio_test::task::spawn(cache.close());
    while close.poll().is_pending() {
        settle().await;
    }
    drop(close);
    cache.0.inner.reads.open();
    for _ in 0..10 {
        settle().await;
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(asked(&cache), 2);
}

#[tokio::test]
async fn it_ends_when_the_memory_is_nearly_full_or_a_load_fails() {
    let folder = tempfile::tempdir().unwrap();
    let large = config(&folder, 100, 60);
    let (cache, clock) = restarted(&large, 400, 400).await;
    cache.close().await.unwrap();
    drop((cache, clock));
    let small = CacheConfig { capacity: ByteSize(64 << 10), ..large.clone() };
    let (cache, clock) = cached(small);
    fill(&cache, 400).await;
    for _ in 0..100 {
        settle().await;
        clock.advance(Duration::from_millis(100));
    }
    assert!((3..20).contains(&asked(&cache)), "{}", asked(&cache));
    cache.close().await.unwrap();

    let (cache, clock) = cached(large);
    cache.0.inner.fail.store(true, Ordering::SeqCst);
    let _ = cache.0.inner.memory.put("k", "v").await.unwrap();
    for _ in 0..100 {
        settle().await;
        clock.advance(Duration::from_millis(100));
    }
    assert!(asked(&cache) <= 1 || kept(&cache) == 0, "{}", asked(&cache));
}

#[tokio::test]
async fn a_damaged_file_is_no_warm_start_and_is_counted() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, 10, 60);
    std::fs::write(folder.path().join("keys"), b"tsck\x01 nonsense").unwrap();
    let (cache, _) = cached(config.clone());
    settle().await;
    assert_eq!(asked(&cache), 0);
    let errors = recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .filter(|(key, ..)| key.key().name() == "tierstack_errors_total");
    let errors: Vec<_> = errors.map(|(.., value)| value).collect();
    assert_eq!(errors, [DebugValue::Counter(1)]);
    // Somebody else's is neither read nor written.
    std::fs::write(folder.path().join("keys"), "my thesis").unwrap();
    let error = CacheLayer::new(&config, &Context::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn where_changes_are_reported_it_waits_until_the_feed_is_connected() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, 100, 60);
    let (before, _) = restarted(&config, 50, 50).await;
    before.close().await.unwrap();
    let clock = ManualClock::new();
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let change_feed = Some(Duration::from_secs(1));
    let below = Gated { change_feed, ..Gated::new(Arc::clone(&context.clock)) };
    below.subscribing.shut();
    let cache = CacheLayer::new(&config, &context).unwrap().layer(below);
    fill(&cache, 50).await;
    for _ in 0..10 {
        settle().await;
        clock.advance(Duration::from_millis(100));
    }
    assert_eq!(asked(&cache), 0);
    cache.0.inner.subscribing.open();
    for _ in 0..10 {
        settle().await;
        clock.advance(Duration::from_millis(100));
    }
    assert_eq!((asked(&cache), kept(&cache)), (5, 50));
}

#[tokio::test]
async fn those_that_only_read_leave_the_keys_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = (config(&folder, 1000, 60), folder.path().join("keys"));
    let clock = ManualClock::new();
    let used = async |may_create, keys: u32| {
        let context = Context { clock: Arc::new(clock.clone()), may_create, ..Context::default() };
        let layer = CacheLayer::new(&config, &context).unwrap();
        let cache = layer.layer(Gated::new(Arc::clone(&context.clock)));
        fill(&cache, keys).await;
        for n in 0..keys {
            assert!(cache.get(&n.to_be_bytes()).await.unwrap().is_some());
        }
        cache.close().await.unwrap();
    };
    used(false, 2).await;
    assert!(!file.exists());
    used(true, 20).await;
    let before = std::fs::read(&file).unwrap();
    used(false, 2).await;
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_stays_and_what_is_no_file_is_refused() {
    use std::os::unix::fs::{FileTypeExt as _, symlink};
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = (config(&folder, 1000, 60), folder.path().join("keys"));
    std::fs::write(folder.path().join("real"), "").unwrap();
    symlink("real", &file).unwrap();
    let (cache, _) = cached(config.clone());
    cache.close().await.unwrap();
    assert!(file.is_symlink());
    assert!(std::fs::metadata(folder.path().join("real")).unwrap().len() > 0);
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    let error = CacheLayer::new(&config, &Context::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("a pipe or a device"), "{error}");
    assert!(std::fs::metadata(&file).unwrap().file_type().is_fifo());
}
