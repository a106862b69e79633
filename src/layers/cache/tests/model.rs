//! Random operations, while time moves and the store below fails, give what a map gives.

#![cfg(feature = "testing")]

use super::*;
use crate::testing::{FaultStore, Faults, model};

/// Every setting that serves something else than the answer of a load.
fn config() -> CacheConfig {
    let span = |seconds| Some(Span(Duration::from_secs(seconds)));
    CacheConfig {
        ttl: span(20),
        negative_ttl: span(10),
        idle: span(60),
        jitter: Fraction::percent(20),
        refresh_ahead: Some(Fraction::percent(50)),
        stale_while_refresh: span(10),
        stale_if_error: span(600),
        soft_timeout: span(1),
        ..settings()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_late_agrees_with_a_map() {
    for seed in 0..20 {
        let (cache, clock) = cached_with_seed(config(), seed);
        cache.0.inner.at_once.store(seed % 2 == 0, Ordering::SeqCst);
        model::run(&cache, Some(&clock), seed, 300).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_while_the_store_below_fails() {
    for seed in 0..20 {
        let clock = ManualClock::new();
        let context = Context { clock: Arc::new(clock.clone()), seed, ..Context::default() };
        let faults = Faults::new();
        let below = FaultStore::new(Memory::with_clock(Arc::clone(&context.clock)), &faults);
        let cache = CacheLayer::new(&config(), &context).unwrap().layer(below);
        model::run_with_faults(&cache, &faults, Some(&clock), seed, 300).await.unwrap();
    }
}
