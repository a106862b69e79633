//! The settings of a cache.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk::DiskConfig;
use super::warm_start::WarmStartConfig;
use crate::types::units::{ByteSize, Fraction, Span};

/// Settings of the cache. See the [module docs](crate::layers::cache).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Memory for keys, values and what keeping them costs. Default 256MiB; at least 64KiB, at most 64TiB. More
    /// memory, more hits.
    pub capacity: ByteSize,
    /// Which entries go when the memory is full. Default s3_fifo, whose hits cost least.
    pub policy: Policy,
    /// How long an entry is served, from the moment when the store below was asked for it. Default:
    /// until it is evicted. A short one sees foreign writes sooner, where the store below does not
    /// report them, and loads more often.
    pub ttl: Option<Span>,
    /// How long it is remembered that a key does not exist. Default: not at all. Spares the store
    /// below from repeated questions for keys that are not there.
    pub negative_ttl: Option<Span>,
    /// How long a failed load's error is the answer for its key. Default: not at all. Spares a store that
    /// is unwell from repeated questions, and tells later that it is well again.
    pub error_ttl: Option<Span>,
    /// An entry that nobody read for that long is not served any more. Default: however long. A key that
    /// is read all the time stays, so this does not bound how late a foreign write is seen: only `ttl`
    /// does.
    pub idle: Option<Span>,
    /// By which part of it at most the ttl of an entry is shortened, at random: what was loaded together
    /// does not end together. Default 0; less than 1, and less than `refresh_ahead`.
    pub jitter: Fraction,
    /// After which part of its ttl an entry that is read is loaded again, such as 0.8. Default: not before
    /// the ttl ends. A reader gets what is kept at once, so keys that are read often are always there.
    pub refresh_ahead: Option<Fraction>,
    /// For how long after its ttl an entry is still served at once while it is loaded again. Default: not
    /// at all. The first reader after the ttl does not wait, and gets an older answer.
    pub stale_while_refresh: Option<Span>,
    /// For how long after its ttl an entry is served when its load fails as the store below is unwell.
    /// Default: not at all. A failure below is bridged with older answers.
    pub stale_if_error: Option<Span>,
    /// How long after a failed load of a key its old value is served without another load. Default 1s. A
    /// longer one spares a store that is unwell, and sees later that it is well again.
    pub retry_after_error: Span,
    /// How long a reader waits for a load if there is an old value for `stale_if_error`, and then gets
    /// that. The load goes on until `load_timeout`. Default: until the load ends.
    pub soft_timeout: Option<Span>,
    /// How long a load may take before waiting readers get an error, how long subscribing to changes
    /// may take, and how long the keys of a write with an unknown outcome are not kept. Default 30s.
    pub load_timeout: Span,
    /// How many loads may run at once. More wait for their turn, within their deadline and their share of the
    /// `capacity`. Default 1024.
    pub max_loads: usize,
    /// A second level in a folder, for what the memory has no room for. Default: none.
    pub disk: Option<DiskConfig>,
    /// What becomes of a value that is written. Default keep: a read after a write finds it in memory, and what is
    /// written and never read takes memory for a while. With drop the next read loads it.
    pub on_write: OnWrite,
    /// Loads the keys that were kept when the store was closed. Default: not at all.
    pub warm_start: Option<WarmStartConfig>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            capacity: ByteSize(256 << 20),
            policy: Policy::default(),
            ttl: None,
            negative_ttl: None,
            error_ttl: None,
            idle: None,
            jitter: Fraction::ZERO,
            refresh_ahead: None,
            stale_while_refresh: None,
            stale_if_error: None,
            retry_after_error: Span(Duration::from_secs(1)),
            soft_timeout: None,
            load_timeout: Span(Duration::from_secs(30)),
            max_loads: 1024,
            disk: None,
            on_write: OnWrite::default(),
            warm_start: None,
        }
    }
}

/// What a cache does with a value when its write is acknowledged. Figures are in `docs/cache-figures.md`.
///
/// ```
/// use tierstack::layers::cache::{CacheConfig, OnWrite};
///
/// let config = CacheConfig { on_write: OnWrite::Drop, ..CacheConfig::default() };
/// assert_ne!(config.on_write, OnWrite::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnWrite {
    /// The value is kept if nothing else touched its key meanwhile, so that the next read of it costs nothing
    /// below.
    #[default]
    Keep,
    /// The key is dropped, and the next read of it loads it.
    Drop,
}

/// Which entries a cache evicts when its memory is full. Figures of all three are in `docs/cache-figures.md`.
///
/// ```
/// use tierstack::layers::cache::{CacheConfig, Policy};
///
/// let config = CacheConfig { policy: Policy::Lru, ..CacheConfig::default() };
/// assert_ne!(config.policy, Policy::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// S3-FIFO: what was read once goes before what was read again. A scan does not empty
    /// the cache. The cheapest hits, the least memory for each entry, and a capacity that can be changed.
    #[default]
    S3Fifo,
    /// W-TinyLFU, by `moka`: what is read seldom is not let in.
    TinyLfu,
    /// The least recently used goes first, by `moka`. A scan empties the cache.
    Lru,
}
