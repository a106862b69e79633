//! What is refused, and what is guaranteed.

use super::*;
use crate::layer::LayerConfig;
use crate::store::Store;

fn seconds(seconds: u64) -> Option<Span> {
    Some(Span(Duration::from_secs(seconds)))
}

fn refused(config: &CacheConfig) -> String {
    let error = CacheLayer::new(config, &Context::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.message().to_owned()
}

#[test]
fn a_setting_out_of_range_is_refused_by_name() {
    let zero = Some(Span::default());
    let aged = || CacheConfig { ttl: seconds(60), stale_if_error: seconds(60), ..settings() };
    for (config, name) in [
        (CacheConfig { capacity: ByteSize(1), ..settings() }, "capacity is"),
        (
            CacheConfig { capacity: ByteSize((64 << 40) + 1), ..settings() },
            "capacity is 70368744177665B; it must be at most 64TiB",
        ),
        (
            CacheConfig { capacity: ByteSize(1000 << 40), ..settings() },
            "capacity is 1000TiB; it must be at most 64TiB",
        ),
        (CacheConfig { ttl: zero, ..settings() }, "ttl is 0"),
        (CacheConfig { negative_ttl: zero, ..settings() }, "negative_ttl is 0"),
        (CacheConfig { error_ttl: zero, ..settings() }, "error_ttl is 0"),
        (CacheConfig { idle: zero, ..settings() }, "idle is 0"),
        (CacheConfig { retry_after_error: Span::default(), ..aged() }, "retry_after_error is 0"),
        (CacheConfig { stale_if_error: zero, ..aged() }, "stale_if_error is 0"),
        (CacheConfig { stale_while_refresh: zero, ..aged() }, "stale_while_refresh is 0"),
        (CacheConfig { soft_timeout: zero, ..aged() }, "soft_timeout is 0"),
        (
            CacheConfig { soft_timeout: seconds(30), ..aged() },
            "soft_timeout is 30s; it must be shorter",
        ),
        (
            CacheConfig { soft_timeout: seconds(1), stale_if_error: None, ..aged() },
            "soft_timeout needs stale_if_error",
        ),
        (CacheConfig { ttl: None, ..aged() }, "stale_if_error needs a ttl"),
        (
            CacheConfig { stale_while_refresh: seconds(1), ..settings() },
            "stale_while_refresh needs a ttl",
        ),
        (
            CacheConfig { refresh_ahead: Some(Fraction::percent(80)), ..settings() },
            "refresh_ahead needs a ttl",
        ),
        (CacheConfig { refresh_ahead: Some(Fraction::ZERO), ..aged() }, "refresh_ahead is 0%"),
        (CacheConfig { refresh_ahead: Some(Fraction::ONE), ..aged() }, "refresh_ahead is 100%"),
        (CacheConfig { jitter: Fraction::ONE, ..aged() }, "jitter is 100%"),
        (CacheConfig { jitter: Fraction::percent(10), ..settings() }, "jitter needs a ttl"),
        (
            CacheConfig {
                jitter: Fraction::percent(50),
                refresh_ahead: Some(Fraction::percent(50)),
                ..aged()
            },
            "refresh_ahead is 50%; it must be more than jitter",
        ),
        (CacheConfig { max_loads: 0, ..settings() }, "max_loads is 0; it must be from 1 to"),
        (CacheConfig { max_loads: usize::MAX, ..settings() }, "max_loads is 18446744073709551615;"),
    ] {
        let message = refused(&config);
        assert!(message.starts_with(name), "{message}");
    }
}

#[tokio::test]
async fn the_largest_capacity_can_be_used() {
    let (cache, _) = cached(CacheConfig { capacity: ByteSize(64 << 40), ..settings() });
    let _ = cache.put("k", "v").await.unwrap();
    get(&cache, b"k").await.unwrap();
    assert_eq!(now(&cache, b"k"), Some("v".into()));
    if settings().policy == Policy::S3Fifo {
        cache.set_capacity(ByteSize(1 << 20)).unwrap();
        cache.set_capacity(ByteSize(64 << 40)).unwrap();
        cache.set_capacity(ByteSize(u64::MAX)).unwrap_err();
    }
}

#[test]
fn the_profile_says_how_old_an_answer_may_be_and_when() {
    let below = || {
        Gated::new(SystemClock::shared()).profile().changed(|guarantees| {
            guarantees.freshness = Freshness::Immediate;
        })
    };
    let within = |seconds| Freshness::Within(Duration::from_secs(seconds));
    let aged = || CacheConfig { ttl: seconds(60), ..settings() };
    for (config, freshness, note) in [
        (aged(), within(60), None),
        (CacheConfig { idle: seconds(5), ..aged() }, within(60), None),
        (
            CacheConfig { idle: seconds(5), ..settings() },
            Freshness::Unbounded,
            Some("`idle` does not"),
        ),
        (CacheConfig { stale_while_refresh: seconds(30), ..aged() }, within(90), None),
        (
            CacheConfig { stale_if_error: seconds(40), ..aged() },
            within(100),
            Some("up to 1m old, and up to 1m 40s while loads fail"),
        ),
        (
            CacheConfig { stale_if_error: seconds(10), stale_while_refresh: seconds(30), ..aged() },
            within(90),
            None,
        ),
        (
            CacheConfig { negative_ttl: seconds(300), stale_if_error: seconds(40), ..aged() },
            within(300),
            None,
        ),
    ] {
        let profile = config.profile(below()).unwrap();
        assert_eq!(profile.guarantees.freshness, freshness, "{config:?}");
        let said = profile.notes.iter().map(String::as_str).collect::<String>();
        assert_eq!(note.is_some(), !said.is_empty(), "{said}");
        assert!(said.contains(note.unwrap_or_default()), "{said}");
    }
}
