//! What is served past its ttl, for how long, and what ends it.

use tokio_test::{assert_pending, assert_ready};

use super::*;

const OUTAGES: [ErrorKind; 3] = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Capacity];

fn seconds(seconds: u64) -> Option<Span> {
    Some(Span(Duration::from_secs(seconds)))
}

fn while_refresh() -> CacheConfig {
    CacheConfig { ttl: seconds(60), stale_while_refresh: seconds(30), ..settings() }
}

fn if_error() -> CacheConfig {
    CacheConfig { ttl: seconds(60), stale_if_error: seconds(300), ..settings() }
}

/// A cache that keeps `old`, whose ttl has just ended, and a store below that has `new`.
async fn ended(config: CacheConfig) -> (Cache<Gated>, ManualClock) {
    let (cache, clock) = cached(config);
    foreign(&cache, "k", "old").await;
    get(&cache, b"k").await.unwrap();
    foreign(&cache, "k", "new").await;
    clock.advance(Duration::from_secs(60));
    assert_eq!(asked(&cache), 1);
    (cache, clock)
}

#[tokio::test]
async fn past_its_ttl_an_entry_is_served_at_once_while_it_is_loaded_anew() {
    let (cache, clock) = ended(while_refresh()).await;
    clock.advance(Duration::from_millis(29_999));
    cache.0.inner.reads.shut();
    for _ in 0..3 {
        assert_eq!(now(&cache, b"k"), Some("old".into()));
    }
    settle().await;
    assert_eq!(asked(&cache), 2, "one load");
    clock.advance(Duration::from_millis(1));
    let mut waits = tokio_test::task::spawn(cache.get(b"k"));
    assert_pending!(waits.poll());
    cache.0.inner.reads.open();
    assert_eq!(waits.into_inner().await.unwrap(), Some("new".into()));
    assert_eq!(asked(&cache), 2);
}

#[tokio::test]
async fn a_write_ends_what_is_served_late() {
    for config in [while_refresh(), if_error()] {
        let (cache, _) = ended(config).await;
        let _ = cache.put("k", "newest").await.unwrap();
        fail(&cache, Some(ErrorKind::Unavailable));
        assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Unavailable);
        fail(&cache, None);
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("newest".into()));
    }
}

#[tokio::test]
async fn a_load_that_fails_after_a_write_does_not_bring_the_old_value_back() {
    let (cache, _) = ended(if_error()).await;
    cache.0.inner.reads.shut();
    let early = reader(&cache, b"k");
    settle().await;
    let _ = cache.put("k", "newest").await.unwrap();
    fail(&cache, Some(ErrorKind::Unavailable));
    cache.0.inner.reads.open();
    assert_eq!(early.await.unwrap().unwrap(), Some("old".into()), "it began before the write");
    assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn only_values_are_served_late() {
    let negative_ttl = seconds(60);
    for config in [while_refresh(), if_error()] {
        let (cache, clock) = cached(CacheConfig { negative_ttl, ..config });
        assert_eq!(get(&cache, b"k").await.unwrap(), None);
        clock.advance(Duration::from_secs(60));
        fail(&cache, Some(ErrorKind::Unavailable));
        for _ in 0..2 {
            assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Unavailable);
        }
    }
}

#[tokio::test]
async fn past_its_own_expiry_a_value_is_served_by_nothing() {
    for config in [while_refresh(), if_error()] {
        let (cache, clock) = cached(config);
        let at = clock.now() + Duration::from_secs(61);
        let _ = cache.put("k", Value::from("v").expiring_at(at)).await.unwrap();
        get(&cache, b"k").await.unwrap();
        clock.advance(Duration::from_secs(60));
        fail(&cache, Some(ErrorKind::Unavailable));
        assert!(get(&cache, b"k").await.unwrap().is_some());
        clock.advance(Duration::from_secs(1));
        assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn while_the_store_below_is_unwell_old_values_are_served_for_so_long_and_no_longer() {
    for kind in OUTAGES {
        let (cache, clock) = ended(if_error()).await;
        fail(&cache, Some(kind));
        // Every failure counts from the load that brought the value, so the end does not move.
        for _ in 0..600 {
            assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
            clock.advance(Duration::from_millis(500));
        }
        assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), kind);
        fail(&cache, None);
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    }
}

#[tokio::test]
async fn after_a_failure_the_store_below_is_left_alone_for_a_while() {
    let retry_after_error = Span(Duration::from_secs(5));
    let (cache, clock) = ended(CacheConfig { retry_after_error, ..if_error() }).await;
    fail(&cache, Some(ErrorKind::Unavailable));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
    assert_eq!(asked(&cache), 2);
    clock.advance(Duration::from_millis(4999));
    for _ in 0..100 {
        assert_eq!(now(&cache, b"k"), Some("old".into()));
    }
    settle().await;
    assert_eq!(asked(&cache), 2);
    fail(&cache, None);
    clock.advance(Duration::from_millis(1));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn what_does_not_speak_of_an_outage_is_not_hidden() {
    for kind in [
        ErrorKind::Access,
        ErrorKind::Corruption,
        ErrorKind::Conflict,
        ErrorKind::Closed,
        ErrorKind::Unsupported,
        ErrorKind::InvalidInput,
        ErrorKind::Config,
        ErrorKind::Internal,
    ] {
        let (cache, _) = ended(if_error()).await;
        fail(&cache, Some(kind));
        for asked_before in [1, 2] {
            assert_eq!(asked(&cache), asked_before);
            assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), kind);
        }
        fail(&cache, Some(ErrorKind::Unavailable));
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()), "it is still there");
    }
}

/// A refresh that fails says nothing to anybody. The next reader that would wait gets its error.
#[tokio::test]
async fn a_refresh_that_finds_damage_does_not_lengthen_what_is_served() {
    let (cache, clock) =
        ended(CacheConfig { stale_if_error: seconds(300), ..while_refresh() }).await;
    fail(&cache, Some(ErrorKind::Corruption));
    clock.advance(Duration::from_millis(29_999));
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    settle().await;
    assert_eq!(asked(&cache), 2);
    assert_eq!(now(&cache, b"k"), Some("old".into()));
    clock.advance(Duration::from_millis(1));
    assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Corruption);
}

#[tokio::test]
async fn a_panic_is_not_hidden_and_a_load_that_hangs_is() {
    let (cache, clock) = ended(if_error()).await;
    cache.0.inner.panic.store(true, Ordering::SeqCst);
    assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Internal);
    cache.0.inner.panic.store(false, Ordering::SeqCst);
    cache.0.inner.reads.shut();
    let hung = reader(&cache, b"k");
    settle().await;
    clock.advance(Duration::from_secs(30));
    assert_eq!(hung.await.unwrap().unwrap(), Some("old".into()));
    assert_eq!(now(&cache, b"k"), Some("old".into()), "and not asked for a moment");
}

#[tokio::test]
async fn who_has_an_old_value_waits_for_the_soft_timeout_only_and_the_load_goes_on() {
    let (cache, clock) = ended(CacheConfig { soft_timeout: seconds(2), ..if_error() }).await;
    cache.0.inner.reads.shut();
    let mut first = tokio_test::task::spawn(cache.get(b"k"));
    assert_pending!(first.poll());
    settle().await;
    clock.advance(Duration::from_millis(1999));
    assert_pending!(first.poll());
    clock.advance(Duration::from_millis(1));
    assert_eq!(assert_ready!(first.poll()).unwrap(), Some("old".into()));
    // Others do not wait for a load that is known to be slow.
    let mut second = tokio_test::task::spawn(cache.get(b"k"));
    assert_eq!(assert_ready!(second.poll()).unwrap(), Some("old".into()));
    drop((first, second));
    assert_eq!(asked(&cache), 2);
    cache.0.inner.reads.open();
    settle().await;
    assert_eq!(now(&cache, b"k"), Some("new".into()), "it was kept");
    assert_eq!(asked(&cache), 2);
}

#[tokio::test]
async fn who_has_no_old_value_waits_until_the_hard_timeout() {
    let (cache, clock) = cached(CacheConfig { soft_timeout: seconds(2), ..if_error() });
    cache.0.inner.reads.shut();
    let mut reader = tokio_test::task::spawn(cache.get(b"k"));
    assert_pending!(reader.poll());
    settle().await;
    clock.advance(Duration::from_secs(29));
    settle().await;
    assert_pending!(reader.poll());
    clock.advance(Duration::from_secs(1));
    settle().await;
    assert_eq!(assert_ready!(reader.poll()).unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn an_old_value_whose_end_comes_during_the_wait_is_not_served() {
    let config = CacheConfig { soft_timeout: seconds(2), ..if_error() };
    // The end of what is served late, and an expiry of the value's own.
    for (stale, expires) in [(1, 1000), (300, 61)] {
        let (cache, clock) =
            cached(CacheConfig { stale_if_error: seconds(stale), ..config.clone() });
        let at = clock.now() + Duration::from_secs(expires);
        let _ = cache.put("k", Value::from("v").expiring_at(at)).await.unwrap();
        get(&cache, b"k").await.unwrap();
        clock.advance(Duration::from_secs(60));
        cache.0.inner.reads.shut();
        let mut waits = tokio_test::task::spawn(cache.get(b"k"));
        assert_pending!(waits.poll());
        settle().await;
        clock.advance(Duration::from_secs(2));
        assert_pending!(waits.poll());
        fail(&cache, Some(ErrorKind::Unavailable));
        cache.0.inner.reads.open();
        assert_eq!(waits.into_inner().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn an_error_is_the_answer_of_its_key_for_as_long_as_was_asked_for() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Corruption] {
        let (cache, clock) = cached(CacheConfig { error_ttl: seconds(5), ..settings() });
        foreign(&cache, "k", "v").await;
        fail(&cache, Some(kind));
        assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), kind);
        fail(&cache, None);
        clock.advance(Duration::from_millis(4999));
        assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), kind);
        let many = [Bytes::from("k"), Bytes::from("other")];
        assert_eq!(cache.get_many(&many).await.unwrap_err().kind(), kind);
        assert_eq!(get(&cache, b"other").await.unwrap(), None, "of its key");
        assert_eq!(asked(&cache), 2);
        clock.advance(Duration::from_millis(1));
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
    }
}

#[tokio::test]
async fn a_write_ends_a_kept_error() {
    let (cache, _) = cached(CacheConfig { error_ttl: seconds(5), ..settings() });
    fail(&cache, Some(ErrorKind::Unavailable));
    get(&cache, b"k").await.unwrap_err();
    fail(&cache, None);
    let _ = cache.put("k", "v").await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn a_load_that_failed_across_a_write_is_no_answer_after_it() {
    let (cache, _) = cached(CacheConfig { error_ttl: seconds(5), ..settings() });
    cache.0.inner.reads.shut();
    let (early, many) = (reader(&cache, b"k"), [Bytes::from("a"), Bytes::from("b")]);
    let mut bulk = tokio_test::task::spawn(cache.get_many(&many));
    assert_pending!(bulk.poll());
    settle().await;
    let _ = cache.write(Batch::new().put("k", "v").put("a", "v")).await.unwrap();
    fail(&cache, Some(ErrorKind::Unavailable));
    cache.0.inner.reads.open();
    early.await.unwrap().unwrap_err();
    bulk.into_inner().await.unwrap_err();
    fail(&cache, None);
    for key in [b"k", b"a"] {
        assert_eq!(get(&cache, key).await.unwrap(), Some("v".into()));
    }
}

#[tokio::test]
async fn an_old_value_goes_before_a_kept_error() {
    let (cache, clock) = ended(CacheConfig { error_ttl: seconds(500), ..if_error() }).await;
    fail(&cache, Some(ErrorKind::Unavailable));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
    clock.advance(Duration::from_secs(10));
    fail(&cache, None);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn what_is_served_late_is_dropped_by_foreign_changes() {
    for change in [Change::Keys(vec![Bytes::from("k")]), Change::All, Change::Lost] {
        let (cache, clock) = change_feed::fresh_with(if_error());
        foreign(&cache, "k", "old").await;
        get(&cache, b"k").await.unwrap();
        settle().await;
        get(&cache, b"k").await.unwrap();
        clock.advance(Duration::from_secs(60));
        fail(&cache, Some(ErrorKind::Unavailable));
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
        cache.0.inner.report(change);
        settle().await;
        assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Unavailable);
        cache.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_wall_clock_may_jump() {
    let (cache, clock) = ended(if_error()).await;
    fail(&cache, Some(ErrorKind::Unavailable));
    clock.jump(Duration::from_secs(1_000_000_000));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
}
