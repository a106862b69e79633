//! Reading what the level holds: what waits is there at once, the rest in another thread.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::super::coherence::Epoch;
use super::super::policy::CoarseTime;
use super::disk_level::{DiskHit, DiskLevel};
use super::index::Location;
use super::record::{self, Copy};
use super::table::Held;

/// A free thread to read the disk with is waited for that long. Without one the store below is asked.
pub(super) const MOST_WAIT: Duration = Duration::from_millis(100);

impl DiskLevel {
    /// The copies of these keys, in their order. It reads the disk once for each, in another thread. A disk that takes
    /// longer than `patience` is not used any more.
    ///
    /// Dropped, it may still read.
    pub(in crate::layers::cache) async fn get_many(
        self: &Arc<Self>,
        keys: &[Bytes],
        patience: Duration,
    ) -> Vec<Option<DiskHit>> {
        let held: Vec<Option<Held>> = {
            let mut table = self.table.lock();
            keys.iter().map(|key| table.find(self.hash(key), key)).collect()
        };
        let on_disk = held.iter().filter(|held| matches!(held, Some(Held::At(_)))).count();
        if on_disk == 0 {
            return held.into_iter().map(|held| self.found(held?)).collect();
        }
        let none = || keys.iter().map(|_| None).collect();
        let Ok(runtime) = Handle::try_current() else { return none() };
        let (level, asked) = (Arc::clone(self), keys.to_vec());
        let (begin, begun) = oneshot::channel();
        let mut read = runtime.spawn_blocking(move || {
            // No task waits for it any more.
            if begin.send(()).is_err() {
                return Vec::new();
            }
            asked.iter().zip(held).map(|(key, held)| level.read(key, held?)).collect()
        });
        // Threads that are busy with something else say nothing about the disk.
        tokio::select! {
            biased;
            _ = begun => {}
            () = self.clock.sleep(MOST_WAIT.min(patience)) => {
                self.counters.busy(on_disk);
                return none();
            }
        }
        tokio::select! {
            biased;
            found = &mut read => found.unwrap_or_else(|_| none()),
            () = self.clock.sleep(patience) => {
                // It is not asked again: each question would leave a thread behind.
                self.fail(&io::Error::from(io::ErrorKind::TimedOut));
                none()
            }
        }
    }

    /// Reads what is held. Waits for the disk.
    pub(super) fn read(&self, key: &[u8], held: Held) -> Option<DiskHit> {
        let Held::At(location) = held else { return self.found(held) };
        let Location { segment, offset, length } = location;
        let record = match self.folder.read(segment, offset, length) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            // Of the process, and not of the disk.
            Err(error) if is_passing(&error) => return None,
            Err(error) => {
                self.fail(&error);
                return None;
            }
        };
        let Some((found, copy)) = record::decode(&record, segment) else {
            // A segment may be removed while it is read.
            if self.discard(key, location) {
                self.counters.damaged();
                tracing::warn!("a record on the disk of a cache is damaged, and is not served");
            }
            return None;
        };
        // Another key of the same hash.
        if found != key {
            return None;
        }
        // From before a restart, since when nothing was forgotten.
        let began = if segment < self.first_segment { Epoch::FIRST } else { copy.began };
        let found = self.judge(Copy { began, ..copy }, Held::At(location));
        if found.is_none() {
            self.discard(key, location);
        }
        found
    }

    fn found(&self, held: Held) -> Option<DiskHit> {
        match &held {
            Held::Waiting(_, copy) => self.judge(copy.clone(), held),
            Held::At(_) => None,
        }
    }

    /// What is served of a copy now, if it is.
    fn judge(&self, copy: Copy, held: Held) -> Option<DiskHit> {
        let until = self.timeline.time(copy.until);
        if until <= CoarseTime::now(&*self.clock) || copy.value.is_expired(self.clock.now()) {
            return None;
        }
        Some(DiskHit { value: copy.value, began: copy.began, until, held })
    }

    /// Removes the record of a key from the index. Whether it was there.
    fn discard(&self, key: &[u8], location: Location) -> bool {
        let hash = self.hash(key);
        let mut table = self.table.lock();
        let there = table.index().get(hash) == Some(location);
        if there {
            table.index().remove(hash);
        }
        self.counters.entries(&table);
        there
    }
}

/// Whether an error says that the process, or the system, has too much open at the moment.
fn is_passing(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    cfg!(unix) && matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
        || matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::Interrupted)
}
