//! What readers, the writes of the store and the thread that writes share.

use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use super::super::coherence::Epoch;
use super::super::config::DiskConfig;
use super::super::policy::CoarseTime;
use super::counters::Counters;
use super::folder::Folder;
use super::hash::HashKey;
use super::index::Index;
use super::index_file::{self, Saved};
use super::log::{Log, Segment, Shape};
use super::record::Copy;
use super::table::{Held, State, Table};
use super::timeline::Timeline;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::layer::Context;
use crate::types::Value;

/// An entry that was found.
#[derive(Debug)]
pub(in crate::layers::cache) struct DiskHit {
    pub(in crate::layers::cache) value: Value,
    /// In which its load began.
    pub(in crate::layers::cache) began: Epoch,
    /// From then on it is not served.
    pub(in crate::layers::cache) until: CoarseTime,
    pub(super) held: Held,
}

/// What readers, writers of the store and the thread share.
pub(in crate::layers::cache) struct DiskLevel {
    pub(super) table: Mutex<Table>,
    /// Something waits to be written, or to be ended. With the table.
    pub(super) wake: Condvar,
    /// Something was written, or nothing will be any more.
    pub(super) written: Notify,
    /// Gone once the level is closed. Locked before the table.
    pub(super) log: Mutex<Option<Log>>,
    pub(super) folder: Arc<Folder>,
    pub(super) hash_key: HashKey,
    /// In the index.
    pub(super) most_entries: u64,
    /// The first one of this opening.
    pub(super) first_segment: u64,
    pub(super) timeline: Timeline,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) warm: bool,
    pub(super) counters: Counters,
    pub(super) closed: watch::Sender<bool>,
}

/// Prints no key.
impl std::fmt::Debug for DiskLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskLevel({} entries)", self.table.lock().entries())
    }
}

impl DiskLevel {
    pub(super) fn open(config: &DiskConfig, shape: Shape, context: &Context) -> Result<Self> {
        let counters = Counters::new(&context.labels);
        let clock = Arc::clone(&context.clock);
        let folder = Arc::new(Folder::open(&context.resolve(&config.path))?);
        let opening = |error: io::Error| {
            Error::new(crate::ErrorKind::Unavailable, "disk: opening the folder failed")
                .with_source(error)
        };
        let saved = folder.consume_index(index_file::decode).map_err(opening)?;
        let restored = saved.filter(|_| config.warm).and_then(|saved| {
            let restored = saved.and_then(|saved| restore(saved, &folder, &*clock));
            if restored.is_none() {
                counters.damaged();
                tracing::warn!("what a cache left on its disk is damaged, of another time or of another version; it begins empty");
            }
            restored
        });
        let (kept, owner, hash_key, timeline, mut index) = match restored {
            Some((saved, timeline, index)) => {
                (saved.segments, Some(saved.owner), saved.hash_key, timeline, index)
            }
            None => {
                let (timeline, index) = (Timeline::new(&*clock), Index::default());
                (Vec::new(), None, HashKey::random()?, timeline, index)
            }
        };
        let mut log = Log::new(Arc::clone(&folder), shape, kept).map_err(opening)?;
        // It may have become smaller.
        log.make_room(0, |segment| index.drop_segment_everywhere(segment)).map_err(opening)?;
        while index.len() as u64 > shape.entries
            && log
                .remove_oldest(|segment| index.drop_segment_everywhere(segment))
                .map_err(opening)?
        {}
        let first_segment = log.next_segment();
        let table = Table::new(index, owner, shape);
        counters.entries(&table);
        counters.bytes(&log);
        Ok(Self {
            table: Mutex::new(table),
            wake: Condvar::new(),
            written: Notify::new(),
            log: Mutex::new(Some(log)),
            folder,
            hash_key,
            most_entries: shape.entries,
            first_segment,
            timeline,
            clock,
            warm: config.warm,
            counters,
            closed: watch::Sender::new(false),
        })
    }

    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hash_key.hash(key)
    }

    /// The stack whose entries these are. What another one left is forgotten.
    /// `None`: nothing is taken over, and nothing is left.
    pub(in crate::layers::cache) fn belongs_to(&self, owner: Option<&str>) {
        let owner = owner.map(|owner| self.hash(owner.as_bytes()));
        let mut table = self.table.lock();
        if owner.is_none() || table.owner != owner {
            table.clear();
        }
        table.owner = owner;
        self.counters.entries(&table);
    }

    /// Takes an entry to be written, that is served until then. Whatever was here of the key is gone, also where this is not taken.
    ///
    /// To be called in the step that keeps it in memory, after that.
    pub(in crate::layers::cache) fn offer(
        &self,
        key: &[u8],
        value: &Value,
        until: CoarseTime,
        began: Epoch,
    ) {
        let copy = Copy { value: value.clone(), began, until: self.timeline.tick(until) };
        let mut table = self.table.lock();
        let taken = table.offer(self.hash(key), key, copy);
        self.counters.entries(&table);
        drop(table);
        match taken {
            Ok(()) => {
                self.wake.notify_one();
            }
            Err(refused) => self.counters.refused(refused),
        }
    }

    /// Like [`offer`](Self::offer), unless a copy is here. For what the memory evicts.
    pub(in crate::layers::cache) fn offer_evicted(
        &self,
        key: &[u8],
        value: &Value,
        until: CoarseTime,
        began: Epoch,
    ) {
        if !self.may_hold(key) && until > CoarseTime::now(&*self.clock) {
            self.offer(key, value, until, began);
        }
    }

    /// Waits until half of what may wait to be written has been. At once, where nothing is taken any more.
    pub(in crate::layers::cache) async fn has_room(&self) {
        loop {
            let written = self.written.notified();
            if self.table.lock().has_room() {
                return;
            }
            written.await;
        }
    }

    /// Removes a key. To be called wherever it is removed from memory, after that.
    pub(in crate::layers::cache) fn remove(&self, key: &[u8]) {
        let mut table = self.table.lock();
        table.remove(self.hash(key), key);
        self.counters.entries(&table);
        self.spoil(table);
    }

    /// Forgets everything that began before that epoch. To be called after it was forgotten in memory.
    pub(in crate::layers::cache) fn forget(&self, epoch: Epoch) {
        let mut table = self.table.lock();
        table.forget(epoch);
        self.counters.entries(&table);
        self.spoil(table);
    }

    /// From now on nothing is left for the next open.
    pub(in crate::layers::cache) fn leave_nothing(&self) {
        let mut table = self.table.lock();
        table.owner = None;
        self.spoil(table);
    }

    /// Whether an index is left for the next open.
    pub(in crate::layers::cache) fn is_left(&self) -> bool {
        self.table.lock().state == State::Saved
    }

    /// What is removed after the index was saved must not come back with it.
    fn spoil(&self, mut table: parking_lot::MutexGuard<'_, Table>) {
        if table.state == State::Saved {
            table.state = State::Spoiled;
            drop(table);
            // Else the thread, that is at it, sees the new state.
            if let Err(error) = self.folder.forget_index() {
                tracing::error!(%error, "what a cache has on its disk is out of date and cannot be removed; empty the folder before the store is opened again");
            }
        }
    }

    /// Whether what was found still is the copy of its key: no later one, and not removed.
    pub(in crate::layers::cache) fn is_current(&self, key: &[u8], found: &DiskHit) -> bool {
        self.table.lock().is_current(self.hash(key), key, &found.held)
    }

    /// Whether a copy may be here. Asks no disk.
    pub(in crate::layers::cache) fn may_hold(&self, key: &[u8]) -> bool {
        self.table.lock().holds(self.hash(key), key)
    }

    /// The disk does not do what it should: nothing is kept there any more.
    pub(super) fn fail(&self, error: &io::Error) {
        let mut table = self.table.lock();
        if !matches!(table.state, State::Open | State::Closing) {
            return;
        }
        table.state = State::Off;
        table.clear();
        self.counters.failed(&table);
        drop(table);
        self.written.notify_one();
        tracing::warn!(%error, "the disk of a cache failed; nothing is kept there until the store is opened again");
    }

    /// Bytes of its files.
    #[cfg(test)]
    pub(in crate::layers::cache) fn bytes(&self) -> u64 {
        self.log.lock().as_ref().map_or(0, Log::bytes)
    }
}

/// What a close left, if it is whole, and of a time that has passed.
fn restore(
    (saved, index): (Saved, Index),
    folder: &Folder,
    clock: &dyn Clock,
) -> Option<(Saved, Timeline, Index)> {
    let whole = |segment: &Segment| {
        folder.segment_length(segment.number).is_ok_and(|length| length == segment.bytes)
    };
    let timeline = Timeline::resume(saved.stood, clock)?;
    saved.segments.iter().all(whole).then_some((saved, timeline, index))
}
