//! The disk of a layer, until a cache has it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::config::{CacheConfig, DiskConfig};
use super::disk::Disk;
use super::memory::Evicted;
use super::policy::{Answer, Cached, CoarseTime};
use crate::error::Result;
use crate::layer::Context;
use crate::store::Store;

/// A disk that no cache has yet. A folder holds the entries of one.
#[derive(Clone, Debug, Default)]
pub(super) struct UnclaimedDisk(Arc<Mutex<Option<Disk>>>);

impl UnclaimedDisk {
    pub(super) fn open(config: &CacheConfig, context: &Context) -> Result<Self> {
        let index_memory = |disk: &DiskConfig| disk.index_memory.unwrap_or(config.capacity);
        let open = |disk: &DiskConfig| Disk::open(disk, index_memory(disk), context);
        let disk = config.disk.as_ref().map(open).transpose()?;
        Ok(Self(Arc::new(Mutex::new(disk))))
    }

    #[cfg(test)]
    pub(super) fn of(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new(Some(disk))))
    }

    /// Gives it to the cache over that store.
    pub(super) fn take(
        &self,
        config: &CacheConfig,
        context: &Context,
        below: &impl Store,
    ) -> Option<Disk> {
        let disk_config = config.disk.as_ref()?;
        let Some(disk) = self.0.lock().take() else {
            tracing::warn!(
                "the disk of a cache has been given to another store of the same layer; this one has none"
            );
            return None;
        };
        let (below, identity) = (below.profile(), below.identity());
        // Refused when the stack was checked, or opened; by hand, nothing from before is served.
        let owner = disk_config
            .check_below(&below.guarantees)
            .is_ok()
            .then_some(context.below.zip(identity))
            .flatten()
            .map(|(layers, data)| {
                let (stack, times) = (context.labels.stack(), config.times());
                format!("{stack}\n{layers:016x}\n{}\n{below}\n{times}", data.as_str())
            });
        let disk = disk.taken();
        disk.level().belongs_to(owner.as_deref());
        Some(disk)
    }
}

/// Writes to the disk what the memory evicts and is not there any more.
pub(super) fn write_evicted(disk: &Disk, config: &CacheConfig) -> Evicted {
    let (level, idle) = (Arc::clone(disk.level()), config.idle.map(|idle| idle.0));
    Arc::new(move |key: &[u8], cached: &Cached| {
        if let Answer::Value(value) = &cached.answer {
            level.offer_evicted(key, value, until(cached, idle), cached.epoch);
        }
    })
}

/// Until when an entry is served from the disk: while it is fresh. A read of it in memory is not seen there.
pub(super) fn until(cached: &Cached, idle: Option<Duration>) -> CoarseTime {
    match (&cached.extra, idle) {
        (Some(extra), Some(idle)) => cached.until.min(extra.read().after(idle)),
        _ => cached.until,
    }
}
