//! The settings, and what they promise over a store.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::layer::LayerConfig;
use crate::types::Profile;
use crate::types::units::{ByteSize, Span};

/// Settings of the cache. See the [module docs](super).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Memory for keys, values and what keeping them costs. Default 256MiB; at least 64KiB. More
    /// memory, more hits.
    pub capacity: ByteSize,
    /// Which entries go when the memory is full. Default s3_fifo, whose hits cost least.
    pub policy: Policy,
    /// How long an entry is served, from the moment when the store below was asked for it. Default:
    /// until it is evicted. A short one sees foreign writes sooner, where the store below does not
    /// announce them, and loads more often.
    pub ttl: Option<Span>,
    /// How long it is remembered that a key does not exist. Default: not at all. Spares the store
    /// below from repeated questions for keys that are not there.
    pub negative_ttl: Option<Span>,
    /// How long a load may take before those who wait get an error, how long subscribing to changes
    /// may take, and how long the keys of a write with an unknown outcome are not kept. Default 30s.
    pub load_timeout: Span,
    /// How many loads may run at once; more wait for their turn, within their deadline. Default
    /// 1024.
    pub max_loads: usize,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            capacity: ByteSize(256 << 20),
            policy: Policy::default(),
            ttl: None,
            negative_ttl: None,
            load_timeout: Span(Duration::from_secs(30)),
            max_loads: 1024,
        }
    }
}

/// Which entries a cache evicts when its memory is full. Figures of all three are in `docs/cache.md`.
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
    /// S3-FIFO, by `quick_cache`: what was read once goes before what was read again. A scan does not empty
    /// the cache. The cheapest hits, the strictest bound, and a capacity that can be changed.
    #[default]
    S3Fifo,
    /// W-TinyLFU, by `moka`: what is read seldom is not let in. Entries are evicted a moment after the bound
    /// was passed.
    TinyLfu,
    /// The least recently used goes first, by `moka`. A scan empties the cache.
    Lru,
}

/// Less holds too little to be a cache.
const MIN_CAPACITY: u64 = 64 << 10;

impl CacheConfig {
    pub(super) fn check(&self) -> Result<()> {
        check_capacity(self.capacity)?;
        for (name, span) in [
            ("ttl", self.ttl),
            ("negative_ttl", self.negative_ttl),
            ("load_timeout", Some(self.load_timeout)),
        ] {
            if span.is_some_and(|span| span.0.is_zero()) {
                return Err(Error::config(format!(
                    "{name} is 0; it must be longer, or be left out"
                )));
            }
        }
        if self.max_loads == 0 || self.max_loads > Semaphore::MAX_PERMITS {
            return Err(Error::config(format!(
                "max_loads is {}; it must be at least 1",
                self.max_loads
            )));
        }
        Ok(())
    }

    /// What a cache with these settings promises.
    pub(super) fn promises(&self, below: Profile) -> Profile {
        let announced = below.guarantees.announces;
        let longest = self.ttl.map(|ttl| ttl.max(self.negative_ttl.unwrap_or_default()).0);
        let own = announced.into_iter().chain(longest).min();
        let profile = Profile::layer(Self::NAME, below)
            .changed(|guarantees| guarantees.freshness = guarantees.freshness.delayed(own));
        match announced {
            Some(within) => profile.note(format!(
                "What others change is dropped from the cache when the store below announces it, within {}. While the announcements are interrupted nothing is kept, and every read goes below.",
                Span(within)
            )),
            None => profile,
        }
    }
}

pub(super) fn check_capacity(capacity: ByteSize) -> Result<()> {
    if capacity.0 < MIN_CAPACITY {
        let message = format!("capacity is {capacity}; it must be at least 64KiB");
        return Err(Error::config(message));
    }
    Ok(())
}
