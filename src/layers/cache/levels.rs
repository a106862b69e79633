//! The two levels together: memory, and the disk where there is one.
//!
//! What is done to a key is done in memory first and on the disk next. In this order, what the memory evicts
//! at the same time reaches the disk before: it is replaced there, or removed.

use std::time::Duration;

use bytes::Bytes;

use super::coherence::Ticket;
use super::disk::DiskHit;
use super::policy::{Answer, Cached};
use super::state::Shared;
use super::unclaimed_disk::until;
use crate::error::Result;
use crate::store::Store;
use crate::types::Inspection;

impl<S> Shared<S> {
    /// Removes a key from both.
    pub(super) fn remove(&self, key: &[u8]) {
        self.engine.remove(key);
        if let Some(disk) = &self.disk {
            disk.level().remove(key);
        }
    }

    /// Empties both, once an epoch has begun that knows nothing of what was there.
    pub(super) fn clear(&self) {
        self.engine.clear();
        self.clear_disk();
    }

    pub(super) fn clear_disk(&self) {
        if let Some(disk) = &self.disk {
            disk.level().forget(self.coherence.epochs.now());
        }
    }

    /// Empties the memory at a close. What was written and is nowhere else comes to a disk that is left to the next open.
    pub(super) async fn empty_memory(&self) {
        let warm = self.config.disk.as_ref().is_some_and(|disk| disk.warm);
        if let Some(disk) = self.disk.as_ref().filter(|_| warm) {
            tokio::select! {
                biased;
                () = self.engine.evict_all(|| disk.level().has_room()) => {}
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
            disk.level().leave_nothing();
        }
    }

    /// The rest of the deadline is for the store below.
    pub(super) fn patience_with_disk(&self) -> Duration {
        self.load_timeout / 2
    }

    /// Whether the disk has left its entries to the next open. What a write removed then would come back.
    pub(super) fn has_left_disk(&self) -> bool {
        self.coherence.epochs.now().is_closed()
            && self.disk.as_ref().is_some_and(|disk| disk.level().is_left())
    }

    /// What is on the disk, if it may be served.
    pub(super) async fn inspection_on_disk(&self, key: &[u8]) -> Option<Inspection> {
        let disk = self.disk.as_ref()?;
        let epoch = self.coherence.epochs.now();
        let key = Bytes::copy_from_slice(key);
        let asked = disk.level().get_many(std::slice::from_ref(&key), self.patience_with_disk());
        let found = asked.await.pop().flatten();
        let found = found.filter(|found| self.coherence.epochs.serve(epoch, found.began, &key));
        let value = found.as_ref().map(|found| &found.value);
        let mut inspection = Inspection::of_entry(&*self.name, "disk", value);
        inspection.fresh_until = found.and_then(|found| self.wall_time(found.until));
        inspection.kept_until = inspection.fresh_until;
        Some(inspection)
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
                disk.level().offer(key, value, until, cached.epoch);
            }
            _ => disk.level().remove(key),
        }
    }

    /// Keeps in memory what was found on the disk, unless something came between.
    pub(super) fn promote(&self, key: &[u8], found: &DiskHit, ticket: Ticket) {
        let Some(disk) = &self.disk else { return };
        let cached = self.times.found(found.value.clone(), found.until, self.now(), found.began);
        if !self.engine.fits(key, &cached) {
            return;
        }
        self.coherence.if_unchanged(ticket, key, || {
            if disk.level().is_current(key, found) {
                self.engine.insert(key, cached);
            }
        });
    }
}

impl<S: Store> Shared<S> {
    /// Closes the store below, and then the disk: what is written until then is in both.
    pub(super) async fn close_levels(&self) -> Result<()> {
        let Some(disk) = &self.disk else { return self.inner.close().await };
        let warm = self.config.disk.as_ref().is_some_and(|disk| disk.warm);
        // What the store below could still lose must not be found on the disk the next time.
        let flushed = if warm { self.inner.flush().await } else { Ok(()) };
        let closed = self.inner.close().await;
        disk.level().close(flushed.is_ok() && closed.is_ok(), self.load_timeout).await;
        closed
    }
}
