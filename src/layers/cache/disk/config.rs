//! The settings of the tier.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::CacheConfig;
use crate::error::{Error, Result};
use crate::layer::LayerConfig;
use crate::types::units::ByteSize;
use crate::types::{Durability, Freshness, Guarantees, Place, Profile};

/// Settings of a cache's second level on disk. See the [module docs](crate::layers::cache).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The folder: empty, or one that was used for this before. It is made if it is missing. One process at
    /// a time can use it, and one cache.
    pub path: PathBuf,
    /// Bytes that it may take on the disk, at least 16MiB. Its index takes 30 to 60 bytes of memory for each
    /// entry, beside the capacity of the cache.
    pub capacity: ByteSize,
    /// Whether what is there when the store is closed is served when it is opened again. Default false: it
    /// begins empty. With `true`, writes that others make meanwhile are not seen before `ttl`.
    #[serde(default)]
    pub warm: bool,
}

/// Less holds too little to be worth a folder.
const MIN_CAPACITY: u64 = 16 << 20;

impl DiskConfig {
    pub(in super::super) fn check(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("disk.path is empty; name a folder"));
        }
        if self.capacity.0 < MIN_CAPACITY {
            return Err(Error::config(format!(
                "disk.capacity is {}; it must be at least {}",
                self.capacity,
                ByteSize(MIN_CAPACITY)
            )));
        }
        Ok(())
    }

    /// Refuses what would serve entries after a restart that the store below does not vouch for.
    pub(in super::super) fn check_below(&self, below: &Guarantees) -> Result<()> {
        if !self.warm {
            return Ok(());
        }
        if below.announces.is_some() {
            return Err(Error::config(
                "disk.warm is set over a store that announces what others change: what it announces while it is closed is lost, and old answers would be served; leave `warm` out",
            ));
        }
        if below.durability_after_flush < Durability::PowerCut {
            return Err(Error::config(format!(
                "disk.warm is set over a store in which a write survives {} even after a flush: the disk would remember what the store has lost; leave `warm` out",
                below.durability_after_flush
            )));
        }
        Ok(())
    }

    /// What the folder changes. `own`: how old an answer of this cache may be.
    pub(in super::super) fn promise(&self, profile: Profile, own: Option<Duration>) -> Profile {
        let place =
            Place { name: CacheConfig::NAME.into(), what: "disk cache".into(), sealed: false };
        let profile = profile.changed(|guarantees| {
            guarantees.places.push(place);
            // While the store is closed, somebody else can write.
            if self.warm && guarantees.freshness == Freshness::Exclusive {
                guarantees.freshness = Freshness::Immediate.delayed(own);
            }
        });
        if !self.warm {
            return profile;
        }
        profile.note(
            "What was cached at the last clean close is served again after a restart. What changes the store while this stack is closed is not seen before the ttl: a restore, another stack over the same backend, another program. Empty the folder of the cache after any of these.",
        )
    }
}
