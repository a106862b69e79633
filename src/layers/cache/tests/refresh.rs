//! An entry that is read is loaded again before its ttl ends.

use tokio_test::{assert_pending, assert_ready};

use super::*;

/// Due 80 s after it was loaded.
fn config() -> CacheConfig {
    let ttl = Some(Span(Duration::from_secs(100)));
    CacheConfig { ttl, refresh_ahead: Some(Fraction::percent(80)), ..settings() }
}

/// A cache that keeps `old`, which is due, and a store below that has `new`.
async fn due(config: CacheConfig) -> (Cache<Gated>, ManualClock) {
    let (cache, clock) = cached(config);
    foreign(&cache, "k", "old").await;
    get(&cache, b"k").await.unwrap();
    foreign(&cache, "k", "new").await;
    clock.advance(Duration::from_secs(80));
    assert_eq!(asked(&cache), 1);
    (cache, clock)
}

#[tokio::test]
async fn who_reads_late_in_the_ttl_gets_what_is_kept_and_the_next_what_was_loaded() {
    let (cache, clock) = cached(config());
    foreign(&cache, "k", "old").await;
    get(&cache, b"k").await.unwrap();
    foreign(&cache, "k", "new").await;
    clock.advance(Duration::from_millis(79_999));
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    assert_eq!(asked(&cache), 1, "not due yet");
    clock.advance(Duration::from_millis(1));
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    assert_eq!(asked(&cache), 2);
    assert_eq!(now(&cache, b"k"), Some("new".into()));
    clock.advance(Duration::from_secs(79));
    assert_eq!(now(&cache, b"k"), Some("new".into()), "its ttl began when it was loaded again");
}

#[tokio::test]
async fn one_refresh_of_a_key_runs_however_many_read_it() {
    let (cache, _) = due(config()).await;
    cache.0.inner.reads.shut();
    let many = [Bytes::from("k")];
    for _ in 0..100 {
        assert_eq!(now(&cache, b"k"), Some("old".into()));
        assert!(matches!(cache.get_many(&many), Reply::Now(Ok(_))));
    }
    settle().await;
    assert_eq!(asked(&cache), 2);
    let called = cache.0.inner.called.load(Ordering::SeqCst);
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    assert_eq!(cache.0.inner.called.load(Ordering::SeqCst), called, "not even looked at");
    cache.0.inner.reads.open();
    settle().await;
    assert_eq!(now(&cache, b"k"), Some("new".into()));
    assert_eq!(asked(&cache), 2);
}

#[tokio::test]
async fn a_refresh_that_a_write_overtook_is_not_kept() {
    let (cache, _) = due(config()).await;
    cache.0.inner.reads.shut();
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    let _ = cache.put("k", "newest").await.unwrap();
    cache.0.inner.reads.open();
    settle().await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("newest".into()));
}

#[tokio::test]
async fn during_a_write_nothing_is_refreshed() {
    let (cache, _) = due(config()).await;
    cache.0.inner.writes.shut();
    let neighbour = neighbour(&cache, b"k");
    let mut write = tokio_test::task::spawn(cache.put(neighbour, "v"));
    assert_pending!(write.poll());
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    assert_eq!(asked(&cache), 1, "it would not be kept");
    cache.0.inner.writes.open();
    let _ = write.into_inner().await.unwrap();
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    assert_eq!(now(&cache, b"k"), Some("new".into()));
}

/// Another key of the same slot.
fn neighbour(cache: &Cache<Gated>, key: &[u8]) -> Bytes {
    let mut keys = (0..1_000_000).map(|n| Bytes::from(n.to_string()));
    keys.find(|other| cache.0.coherence.share_slot(other, key)).unwrap()
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_entry_and_frees_its_key() {
    let (cache, clock) = due(config()).await;
    fail(&cache, Some(ErrorKind::Unavailable));
    for _ in 0..3 {
        assert_eq!(now(&cache, b"k"), Some("old".into()));
        settle().await;
        assert_eq!(asked(&cache), 2, "and leaves the store below alone for a while");
    }
    fail(&cache, None);
    clock.advance(Duration::from_secs(1));
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    assert_eq!(now(&cache, b"k"), Some("new".into()));
}

#[tokio::test]
async fn a_failed_refresh_serves_nothing_past_the_ttl() {
    let (cache, clock) = due(config()).await;
    fail(&cache, Some(ErrorKind::Unavailable));
    for _ in 0..20 {
        assert_eq!(now(&cache, b"k"), Some("old".into()));
        settle().await;
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_refresh_that_panics_or_hangs_frees_its_key() {
    let (cache, clock) = due(config()).await;
    cache.0.inner.panic.store(true, Ordering::SeqCst);
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    cache.0.inner.panic.store(false, Ordering::SeqCst);
    cache.0.inner.reads.shut();
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    assert_eq!(asked(&cache), 3);
    clock.advance(Duration::from_secs(15));
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    // Beyond the ttl, a reader waits for the refresh, and learns that it hangs.
    clock.advance(Duration::from_secs(10));
    let mut waits = tokio_test::task::spawn(cache.get(b"k"));
    assert_pending!(waits.poll());
    clock.advance(Duration::from_secs(5));
    settle().await;
    assert_eq!(assert_ready!(waits.poll()).unwrap_err().kind(), ErrorKind::Timeout);
    drop(waits);
    assert_eq!(asked(&cache), 3);
    cache.0.inner.reads.open();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[test]
fn a_refresh_whose_runtime_has_ended_frees_its_key() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let first = runtime();
    let (cache, _) = first.block_on(due(config()));
    cache.0.inner.reads.shut();
    first.block_on(async {
        assert_eq!(now(&cache, b"k"), Some("old".into()));
        settle().await;
    });
    drop(first);
    cache.0.inner.reads.open();
    assert_eq!(now(&cache, b"k"), Some("old".into()), "without a runtime as well");
    runtime().block_on(async {
        assert_eq!(now(&cache, b"k"), Some("old".into()));
        settle().await;
        assert_eq!(now(&cache, b"k"), Some("new".into()));
    });
}

#[tokio::test]
async fn a_refresh_that_fails_late_does_not_remove_what_another_load_brought() {
    let error_ttl = Some(Span(Duration::from_secs(60)));
    let (cache, clock) = due(CacheConfig { error_ttl, ..config() }).await;
    cache.0.inner.reads.shut();
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    clock.advance(Duration::from_secs(20));
    // The next answer is there at once, so it comes before the load under way ends.
    cache.0.inner.at_once.store(true, Ordering::SeqCst);
    assert_eq!(now(&cache, b"k"), Some("new".into()));
    fail(&cache, Some(ErrorKind::Unavailable));
    cache.0.inner.reads.open();
    settle().await;
    assert_eq!(now(&cache, b"k"), Some("new".into()));
    assert_eq!(asked(&cache), 3, "and it was not loaded for that");
}

#[tokio::test]
async fn a_refresh_that_finds_no_such_key_ends_the_entry() {
    let (cache, _) = due(config()).await;
    let _ = cache.0.inner.memory.delete("k").await.unwrap();
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    assert_eq!(get(&cache, b"k").await.unwrap(), None);
}

#[tokio::test]
async fn a_refresh_that_finds_too_large_a_value_ends_the_entry() {
    let (cache, _) = due(CacheConfig { capacity: ByteSize(64 << 10), ..config() }).await;
    let _ = cache.0.inner.memory.put("k", vec![0; 8 << 10]).await.unwrap();
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    assert_eq!(get(&cache, b"k").await.unwrap().unwrap().bytes.len(), 8 << 10);
}

#[test]
fn what_is_there_at_once_needs_no_runtime_and_is_the_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (cache, _) = runtime.block_on(due(config()));
    drop(runtime);
    cache.0.inner.at_once.store(true, Ordering::SeqCst);
    assert_eq!(now(&cache, b"k"), Some("new".into()));
    assert_eq!(asked(&cache), 2);
    assert_eq!(now(&cache, b"k"), Some("new".into()));
    assert_eq!(asked(&cache), 2);
}

#[tokio::test]
async fn a_missing_key_is_not_refreshed() {
    let negative_ttl = Some(Span(Duration::from_secs(100)));
    let (cache, clock) = cached(CacheConfig { negative_ttl, ..config() });
    get(&cache, b"k").await.unwrap();
    clock.advance(Duration::from_secs(99));
    assert_eq!(now(&cache, b"k"), None);
    settle().await;
    assert_eq!(asked(&cache), 1);
}

#[tokio::test]
async fn refreshes_have_their_turn_under_the_cap() {
    let (cache, clock) = cached(CacheConfig { max_loads: 1, ..config() });
    for key in [b"a", b"b", b"c"] {
        foreign(&cache, std::str::from_utf8(key).unwrap(), "v").await;
        get(&cache, key).await.unwrap();
    }
    clock.advance(Duration::from_secs(80));
    cache.0.inner.reads.shut();
    for key in [b"a", b"b", b"c"] {
        assert_eq!(now(&cache, key), Some("v".into()));
    }
    settle().await;
    assert_eq!(asked(&cache), 4);
    cache.0.inner.reads.open();
    settle().await;
    assert_eq!(asked(&cache), 6);
}
