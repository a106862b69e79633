//! Inspection.

use metrics_util::debugging::DebuggingRecorder;

use super::change_feed::counted;
use super::*;
use crate::types::Presence;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> CacheConfig {
    let (ttl, negative_ttl) = (Some(Span(60 * SECOND)), Some(Span(10 * SECOND)));
    CacheConfig { ttl, negative_ttl, ..settings() }
}

/// What the cache says, and what the store below says.
async fn inspect(cache: &Cache<Gated>, key: &str) -> [Inspection; 2] {
    cache.inspect(key.as_bytes()).await.unwrap().try_into().unwrap()
}

#[tokio::test]
async fn an_inspection_tells_what_is_kept_and_for_how_long() {
    let (cache, clock) = cached(config());
    let expires_at = clock.now() + 90 * SECOND;
    let value = Value::from("a value").expiring_at(expires_at);
    let _ = cache.0.inner.memory.put("k", value).await.unwrap();
    let [above, below] = inspect(&cache, "k").await;
    assert_eq!((&*above.layer, above.presence), ("cache", Presence::None));
    assert_eq!((&*below.layer, below.presence), ("memory", Presence::Entry));
    assert_eq!(below.expires_at, Some(expires_at));

    get(&cache, b"k").await.unwrap();
    get(&cache, b"none").await.unwrap();
    let asked_at = clock.now();
    clock.advance(5 * SECOND);
    let [above, _] = inspect(&cache, "k").await;
    assert_eq!((above.presence, above.bytes), (Presence::Entry, Some(7)));
    assert_eq!(above.age, Some(Span(5 * SECOND)));
    assert_eq!(above.fresh_until, Some(asked_at + 60 * SECOND));
    assert_eq!(above.expires_at, Some(expires_at));
    let [above, below] = inspect(&cache, "none").await;
    assert_eq!((above.presence, below.presence), (Presence::Absence, Presence::None));
    assert_eq!(above.fresh_until, Some(asked_at + 10 * SECOND));

    // Its time is over, and nobody has looked for it.
    clock.advance(70 * SECOND);
    let [above, _] = inspect(&cache, "k").await;
    assert_eq!(above.presence, Presence::Entry);
    assert_eq!(above.fresh_until, Some(asked_at + 60 * SECOND));
}

#[tokio::test]
async fn an_inspection_leaves_no_trace() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "v").await.unwrap();
    for _ in 0..3 {
        assert_eq!(inspect(&cache, "k").await[0].presence, Presence::None);
    }
    get(&cache, b"k").await.unwrap();
    for _ in 0..3 {
        let [above, _] = inspect(&cache, "k").await;
        assert_eq!((above.presence, above.age), (Presence::Entry, None), "no ttl, no clock");
    }
    let count = counted(&recorder);
    let requests = |result| count("tierstack_cache_requests_total", result);
    assert_eq!((requests("hit"), requests("miss"), requests("negative")), (0.0, 1.0, 0.0));
    assert_eq!(asked(&cache), 1);
}

#[tokio::test]
async fn what_was_invalidated_is_not_seen() {
    let (cache, _) = cached(settings());
    for scope in [Scope::Keys(vec!["k".into()]), Scope::Prefix("k".into()), Scope::All] {
        get(&cache, b"k").await.unwrap();
        let _ = cache.put("k", "v").await.unwrap();
        get(&cache, b"k").await.unwrap();
        assert_eq!(inspect(&cache, "k").await[0].presence, Presence::Entry);
        cache.invalidate(scope).await.unwrap();
        assert_eq!(inspect(&cache, "k").await[0].presence, Presence::None);
    }
}
