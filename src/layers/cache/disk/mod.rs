//! The second level: what the memory has no room for, in a folder.
//!
//! A log of segment files, and an index in memory. Nothing that is read from the disk is believed: a record
//! carries a checksum, its key, its segment and its deadlines, and whatever is wrong with it makes it a miss.
//!
//! # Never an old answer
//! - An entry is [offered](Tier::offer) under the lock of its stripe, in the same step in which it is kept in
//!   memory; from then on the offer is what a reader finds, and the copy of before is gone, whether or not the
//!   offer is taken. The writer makes a record of it, and the record enters the index only if the offer is still
//!   that of its key.
//! - Whatever removes a key from memory [removes](Tier::remove) it here next, from the offers and from the
//!   index. A record that is in neither is dead, wherever it stands.
//! - An entry carries the epoch in which its load began, and whoever finds it asks the epochs whether it may be served.
//!   Where everything is forgotten the tier is emptied, and takes nothing more of before.
//! - What was found is kept in memory only if it still is the copy of its key ([`Tier::is_current`]), under
//!   the lock of the stripe, with a ticket of before the disk was read.
//!
//! # Restart
//! A folder that is opened is emptied, unless the last close left an index. That is deleted, and its deletion
//! brought to the disk, before anything is taken: after a crash there is none, so nothing comes back that was
//! deleted since.

mod config;
mod counters;
mod folder;
mod hash;
mod index;
mod log;
mod read;
mod record;
mod saved;
mod table;
#[cfg(test)]
mod tests;
mod timeline;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

pub use self::config::DiskConfig;
use self::counters::Counters;
pub(super) use self::counters::register_counters;
use self::folder::Folder;
use self::hash::HashKey;
use self::index::Index;
use self::log::{Log, Segment, Shape};
use self::record::Copy;
use self::saved::Saved;
use self::table::{Held, State, Table};
use self::timeline::Timeline;
use self::writer::Stop;
use super::epoch::Epoch;
use super::freshness::CoarseTime;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::layer::Context;
use crate::types::Value;
use crate::types::units::ByteSize;

/// An entry that was found.
#[derive(Debug)]
pub(super) struct DiskHit {
    pub(super) value: Value,
    /// In which its load began.
    pub(super) began: Epoch,
    /// From then on it is not served.
    pub(super) until: CoarseTime,
    held: Held,
}

/// An open tier, and the thread that writes for it.
#[derive(Debug)]
pub(super) struct Disk {
    tier: Arc<Tier>,
    writer: Option<JoinHandle<()>>,
    /// A cache has it: what was there of before may have been changed since.
    taken: bool,
}

/// What readers, writers of the store and the thread share.
pub(super) struct Tier {
    table: Mutex<Table>,
    /// Something waits to be written, or to be ended. With the table.
    wake: Condvar,
    /// Something was written, or nothing will be any more.
    written: Notify,
    /// Gone once the tier is closed. Locked before the table.
    log: Mutex<Option<Log>>,
    folder: Arc<Folder>,
    hash_key: HashKey,
    /// In the index.
    most_entries: u64,
    /// The first one of this opening.
    first_segment: u64,
    timeline: Timeline,
    clock: Arc<dyn Clock>,
    warm: bool,
    counters: Counters,
    closed: watch::Sender<bool>,
}

/// Prints no key.
impl std::fmt::Debug for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tier({} entries)", self.table.lock().entries())
    }
}

impl Disk {
    /// Takes the folder, and starts the thread. Waits for the disk.
    ///
    /// # Errors
    /// `Config` if the folder holds something else, or a newer format; `Conflict` if it is in use; otherwise as
    /// the file system says.
    pub(super) fn open(
        config: &DiskConfig,
        index_memory: ByteSize,
        context: &Context,
    ) -> Result<Self> {
        let shape = Shape::new(config.capacity.0, index_memory.0);
        await_former(&context.resolve(&config.path));
        let tier = Arc::new(Tier::open(config, shape, context)?);
        let writer = std::thread::Builder::new().name("tierstack-cache".to_owned()).spawn({
            let tier = Arc::clone(&tier);
            move || tier.run()
        });
        let writer = writer.map_err(|error| {
            Error::internal("the thread of the cache's disk did not start").with_source(error)
        })?;
        Ok(Self { tier, writer: Some(writer), taken: false })
    }

    /// One that is written by hand.
    #[cfg(test)]
    pub(super) fn by_hand(config: &DiskConfig, context: &Context) -> Result<Self> {
        let shape = Shape::new(config.capacity.0, 1 << 20);
        let tier = Arc::new(Tier::open(config, shape, context)?);
        Ok(Self { tier, writer: None, taken: true })
    }

    #[cfg(test)]
    pub(super) fn write_out(&self) {
        while self.tier.step(false) {}
    }

    #[cfg(test)]
    pub(super) fn break_it(&self) {
        self.tier.folder.fault.after(0);
    }

    pub(super) fn tier(&self) -> &Arc<Tier> {
        &self.tier
    }

    pub(super) fn taken(mut self) -> Self {
        self.taken = true;
        self
    }
}

/// Ends the thread without writing what waits: only a close does that. Where no cache came to have it, as the
/// opening of its stack failed, what was there is there the next time.
impl Drop for Disk {
    fn drop(&mut self) {
        let keep = self.tier.warm && !self.taken;
        self.tier.stop(if keep { Stop::Written { keep } } else { Stop::Now });
        let Some(writer) = self.writer.take() else { return };
        if Handle::try_current().is_err() {
            // It has told of its panic.
            let _ = writer.join();
        } else {
            // In a runtime nobody may wait for a disk. Whoever opens the folder next does.
            let mut ending = ENDING.lock();
            ending.retain(|(_, writer)| !writer.is_finished());
            ending.push((self.tier.folder.path().to_owned(), writer));
        }
    }
}

/// Threads that let go of their folder when they end, which they were told.
static ENDING: Mutex<Vec<(PathBuf, JoinHandle<()>)>> = Mutex::new(Vec::new());

/// Waits for those that have that folder.
fn await_former(path: &Path) {
    let Ok(path) = path.canonicalize() else { return };
    let former: Vec<_> = ENDING.lock().extract_if(.., |(folder, _)| *folder == path).collect();
    for (_, writer) in former {
        // It has told of its panic.
        let _ = writer.join();
    }
}

impl Tier {
    fn open(config: &DiskConfig, shape: Shape, context: &Context) -> Result<Self> {
        let counters = Counters::new(&context.labels);
        let clock = Arc::clone(&context.clock);
        let folder = Arc::new(Folder::open(&context.resolve(&config.path))?);
        let opening = |error: io::Error| {
            Error::new(crate::ErrorKind::Unavailable, "disk: opening the folder failed")
                .with_source(error)
        };
        let saved = folder.consume_index(saved::decode).map_err(opening)?;
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

    fn hash(&self, key: &[u8]) -> u64 {
        self.hash_key.hash(key)
    }

    /// The stack whose entries these are. What another one left is forgotten.
    /// `None`: nothing is taken over, and nothing is left.
    pub(super) fn belongs_to(&self, owner: Option<&str>) {
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
    pub(super) fn offer(&self, key: &[u8], value: &Value, until: CoarseTime, began: Epoch) {
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

    /// As [`offer`](Self::offer), unless a copy is here. For what the memory evicts.
    pub(super) fn offer_evicted(&self, key: &[u8], value: &Value, until: CoarseTime, began: Epoch) {
        if !self.may_hold(key) && until > CoarseTime::now(&*self.clock) {
            self.offer(key, value, until, began);
        }
    }

    /// Waits until half of what may wait to be written has been. At once, where nothing is taken any more.
    pub(super) async fn has_room(&self) {
        loop {
            let written = self.written.notified();
            if self.table.lock().has_room() {
                return;
            }
            written.await;
        }
    }

    /// Removes a key. To be called wherever it is removed from memory, after that.
    pub(super) fn remove(&self, key: &[u8]) {
        let mut table = self.table.lock();
        table.remove(self.hash(key), key);
        self.counters.entries(&table);
        self.spoil(table);
    }

    /// Forgets everything that began before that epoch. To be called after it was forgotten in memory.
    pub(super) fn forget(&self, epoch: Epoch) {
        let mut table = self.table.lock();
        table.forget(epoch);
        self.counters.entries(&table);
        self.spoil(table);
    }

    /// From now on nothing is left for the next open.
    pub(super) fn leave_nothing(&self) {
        let mut table = self.table.lock();
        table.owner = None;
        self.spoil(table);
    }

    /// Whether an index is left for the next open.
    pub(super) fn is_left(&self) -> bool {
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
    pub(super) fn is_current(&self, key: &[u8], found: &DiskHit) -> bool {
        self.table.lock().is_current(self.hash(key), key, &found.held)
    }

    /// Whether a copy may be here. Asks no disk.
    pub(super) fn may_hold(&self, key: &[u8]) -> bool {
        self.table.lock().holds(self.hash(key), key)
    }

    /// The disk does not do what it should: nothing is kept there any more.
    fn fail(&self, error: &io::Error) {
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
    pub(super) fn bytes(&self) -> u64 {
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
