//! The two levels together: memory, and the disk where there is one.
//!
//! What is done to a key is done in memory first and on the disk next. In this order, what the memory evicts
//! at the same time reaches the disk before: it is replaced there, or removed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Shared;
use super::cached::{Answer, Cached};
use super::coherence::Ticket;
use super::config::CacheConfig;
use super::disk::{self, Disk, DiskConfig};
use super::engine::Evicted;
use super::freshness::CoarseTime;
use super::load::Load;
use crate::error::Result;
use crate::layer::Context;
use crate::store::Store;
use crate::types::Sighting;

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
        // Refused when the stack was checked, or opened; by hand, nothing of before is served.
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
        disk.tier().belongs_to(owner.as_deref());
        Some(disk)
    }
}

/// Writes to the disk what the memory evicts and is not there any more.
pub(super) fn write_evicted(disk: &Disk, config: &CacheConfig) -> Evicted {
    let (tier, idle) = (Arc::clone(disk.tier()), config.idle.map(|idle| idle.0));
    Arc::new(move |key: &[u8], cached: &Cached| {
        if let Answer::Value(value) = &cached.answer {
            tier.offer_evicted(key, value, until(cached, idle), cached.epoch);
        }
    })
}

/// Until when an entry is served from the disk: while it is fresh. Who reads it in memory is not seen there.
fn until(cached: &Cached, idle: Option<Duration>) -> CoarseTime {
    match (&cached.extra, idle) {
        (Some(extra), Some(idle)) => cached.until.min(extra.read().after(idle)),
        _ => cached.until,
    }
}

impl<S> Shared<S> {
    /// Removes a key from both.
    pub(super) fn remove(&self, key: &[u8]) {
        self.engine.remove(key);
        if let Some(disk) = &self.disk {
            disk.tier().remove(key);
        }
    }

    /// Empties both, once an epoch has begun that knows nothing of what was there.
    pub(super) fn clear(&self) {
        self.engine.clear();
        self.clear_disk();
    }

    pub(super) fn clear_disk(&self) {
        if let Some(disk) = &self.disk {
            disk.tier().forget(self.coherence.epochs.now());
        }
    }

    /// Empties the memory at a close. What was written and is nowhere else comes to a disk that is left to the next open.
    pub(super) async fn empty_memory(&self) {
        let warm = self.config.disk.as_ref().is_some_and(|disk| disk.warm);
        if let Some(disk) = self.disk.as_ref().filter(|_| warm) {
            tokio::select! {
                biased;
                () = self.engine.evict_all(|| disk.tier().has_room()) => {}
                () = self.clock.sleep(self.load_timeout) => {
                    tracing::warn!("the disk of a cache was too slow to take what is in memory at a close; the rest is loaded again after the next open");
                }
            }
        }
        self.engine.clear();
    }

    /// The keys of a prefix are old. Where they are on the disk is not known, and the next one to open it would
    /// not know that they are old.
    pub(super) fn leave_nothing_on_disk(&self) {
        if let Some(disk) = &self.disk {
            disk.tier().leave_nothing();
        }
    }

    /// The rest of the deadline is for the store below.
    fn patience_with_disk(&self) -> Duration {
        self.load_timeout / 2
    }

    /// Whether the disk has left its entries to the next open. What a write removed then would come back.
    pub(super) fn has_left_disk(&self) -> bool {
        self.coherence.epochs.now().is_closed()
            && self.disk.as_ref().is_some_and(|disk| disk.tier().is_left())
    }

    /// What is on the disk, if it may be served.
    pub(super) async fn sighting_on_disk(&self, key: &[u8]) -> Option<Sighting> {
        let disk = self.disk.as_ref()?;
        let epoch = self.coherence.epochs.now();
        let key = Bytes::copy_from_slice(key);
        let asked = disk.tier().get_many(std::slice::from_ref(&key), self.patience_with_disk());
        let found = asked.await.pop().flatten();
        let found = found.filter(|found| self.coherence.epochs.serve(epoch, found.began, &key));
        let value = found.as_ref().map(|found| &found.value);
        let mut sighting = Sighting::of_entry(&*self.name, "disk", value);
        sighting.fresh_until = found.and_then(|found| self.wall_time(found.until));
        sighting.kept_until = sighting.fresh_until;
        Some(sighting)
    }

    /// Keeps an entry in memory and on the disk. Under the lock of its stripe.
    pub(super) fn keep(&self, key: &[u8], cached: Cached) {
        let copy = self.disk.as_ref().map(|_| cached.clone());
        self.engine.insert(key, cached);
        if let Some(copy) = copy {
            self.keep_on_disk(key, Some(&copy));
        }
    }

    /// Keeps an answer on the disk only, if it is a value. Under the lock of its stripe.
    pub(super) fn keep_on_disk(&self, key: &[u8], cached: Option<&Cached>) {
        let Some(disk) = &self.disk else { return };
        match cached {
            Some(cached @ Cached { answer: Answer::Value(value), .. }) => {
                let until = until(cached, self.config.idle.map(|idle| idle.0));
                disk.tier().offer(key, value, until, cached.epoch);
            }
            _ => disk.tier().remove(key),
        }
    }

    /// Keeps in memory what was found on the disk, unless something came between.
    pub(super) fn promote(&self, key: &[u8], found: &disk::DiskHit, ticket: Ticket) {
        let Some(disk) = &self.disk else { return };
        let cached = self.times.found(found.value.clone(), found.until, self.now(), found.began);
        if !self.engine.fits(key, &cached) {
            return;
        }
        self.coherence.if_unchanged(ticket, key, || {
            if disk.tier().is_current(key, found) {
                self.engine.insert(key, cached);
            }
        });
    }
}

/// Ends the loads whose answer is on the disk. Gives the others, and those that waited for one that ended.
pub(super) async fn find_on_disk<S>(shared: &Shared<S>, loads: Vec<Load<S>>) -> Vec<Load<S>> {
    let Some(disk) = &shared.disk else { return loads };
    let sought = loads.iter().filter(|load| load.may_be_kept());
    let keys: Vec<Bytes> = sought.map(|load| load.key().clone()).collect();
    // Before the look: whoever forgets something later, does so behind what is found.
    let epoch = shared.coherence.epochs.now();
    let mut found = disk.tier().get_many(&keys, shared.patience_with_disk()).await.into_iter();
    let rest = loads.into_iter().filter_map(|load| {
        let copy = if load.may_be_kept() { found.next().flatten() } else { None };
        let served =
            |copy: &disk::DiskHit| shared.coherence.epochs.serve(epoch, copy.began, load.key());
        match copy.filter(served) {
            Some(copy) => {
                shared.promote(load.key(), &copy, load.ticket());
                load.end_on_disk(copy.value)
            }
            None => Some(load),
        }
    });
    rest.collect()
}

impl<S: Store> Shared<S> {
    /// Closes the store below, and then the disk: what is written until then is in both.
    pub(super) async fn close_levels(&self) -> Result<()> {
        let Some(disk) = &self.disk else { return self.inner.close().await };
        let warm = self.config.disk.as_ref().is_some_and(|disk| disk.warm);
        // What the store below could still lose must not be found on the disk the next time.
        let flushed = if warm { self.inner.flush().await } else { Ok(()) };
        let closed = self.inner.close().await;
        disk.tier().close(flushed.is_ok() && closed.is_ok(), self.load_timeout).await;
        closed
    }
}
