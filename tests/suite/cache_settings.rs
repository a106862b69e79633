//! Settings of a cache, chosen at random.

use std::time::Duration;

use tierstack::layers::cache::{CacheConfig, OnWrite, Policy};
use tierstack::testing::Random;
use tierstack::units::{ByteSize, Fraction, Span};

/// Any settings, where times are a few of that unit. Often with too little memory for what a test keeps, sometimes with
/// enough for copies.
pub(crate) fn random_cache(random: &mut Random, unit: Duration) -> CacheConfig {
    let some = |random: &mut Random, chance| {
        random.chance(chance).then(|| Span(unit * (1 + random.below(10) as u32)))
    };
    let capacity = *random.pick(&[64 << 10, 64 << 10, 1 << 20, 64 << 20]).unwrap();
    let plain = CacheConfig {
        policy: *random.pick(&[Policy::S3Fifo, Policy::TinyLfu, Policy::Lru]).unwrap(),
        capacity: ByteSize(capacity),
        ttl: some(random, 0.5),
        negative_ttl: some(random, 0.4),
        error_ttl: some(random, 0.2),
        idle: some(random, 0.3),
        on_write: *random.pick(&[OnWrite::Keep, OnWrite::Keep, OnWrite::Drop]).unwrap(),
        ..CacheConfig::default()
    };
    if plain.ttl.is_none() {
        return plain;
    }
    let stale_if_error = some(random, 0.4);
    CacheConfig {
        jitter: Fraction::percent(if random.chance(0.3) { 20 } else { 0 }),
        refresh_ahead: random.chance(0.4).then(|| Fraction::percent(50)),
        stale_while_refresh: some(random, 0.4),
        stale_if_error,
        retry_after_error: Span(unit),
        soft_timeout: stale_if_error.filter(|_| random.chance(0.5)).map(|_| Span(unit)),
        ..plain
    }
}
