//! A local log that a crash takes nothing acknowledged from: what write-back, the backup log and mirrors are made of.
//!
//! Records are appended with consecutive sequences, and [`Journal::durable`] waits until one is on the disk. All that
//! wait are served by one sync. [`Reader`]s follow at positions of their own, which the journal keeps by their names; a
//! file lives until the last of them has released what is in it. The bytes are drawn in `docs/formats/journal.md`.
//!
//! # What holds
//!
//! - A record that was acknowledged as durable is there after a crash and after a power cut, in its order, and whole.
//!   One that was not is there wholly, or not at all; so is one whose `append` was dropped.
//! - What is read is what was written. A write that was cut off at the end is dropped at the next open, and cannot come
//!   back. Damage before the end is an error that names the file and the place, and nothing is changed.
//! - After a failed write or sync nothing is written any more: a sync that is tried again says that all is well when it
//!   is not. Every caller that waits is told the failure, and later appends fail with it. Opening the journal again goes on.
//! - One process at a time: a lock is held while the journal is open.
//!
//! What it cannot see: damage to the last group that was written, where nothing was written after it and the journal
//! was not closed, looks like a write that was cut off.

pub mod batch;
mod core;
mod disk;
mod format;
mod positions;
mod reader;
mod recover;
mod scan;
mod segment;
mod settings;
mod state;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, oneshot, watch};

use self::core::{Core, Progress, Step};
use self::disk::{Disk, Folder};
pub use self::reader::{Reader, Record};
use self::segment::Entry;
pub use self::settings::{Settings, Usage};
pub use self::state::OnFull;
use self::state::{Offer, Shape};
use crate::error::{Error, Result};

/// How often a full disk is looked at again.
const AGAIN: Duration = Duration::from_secs(1);

/// A log in a folder.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::journal::{Journal, Settings};
///
/// let folder = tempfile::tempdir().unwrap();
/// let journal = Journal::open(folder.path(), Settings::default()).await?;
/// let mut reader = journal.reader("mirror", 0).await?;
/// let sequence = journal.append("a record").await?;
/// journal.durable(sequence).await?;
///
/// for record in reader.read(1 << 20).await? {
///     assert_eq!((record.sequence, record.bytes), (1, "a record".into()));
///     reader.release(record.sequence)?;
/// }
/// journal.close().await?;
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Journal {
    core: Arc<Core>,
    progress: watch::Receiver<Progress>,
    /// Appends that wait for room, in their order.
    queue: Mutex<()>,
}

impl Journal {
    /// Opens the journal of a folder, or begins one there, and reads all that it holds once.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) where it is open already, [`Corruption`](crate::ErrorKind::Corruption)
    /// where a file is damaged before its end or missing, and what the disk fails with.
    pub async fn open(folder: impl AsRef<Path>, settings: Settings) -> Result<Self> {
        let shape = settings.shape()?;
        let folder = folder.as_ref().to_owned();
        Self::start(move || Ok(Arc::new(Folder::open(&folder)?)), shape).await
    }

    /// Whether a folder holds a journal. [`open`](Self::open) begins one where there is none.
    ///
    /// # Errors
    /// What the disk fails with. A folder that does not exist holds none.
    pub fn is_in(folder: impl AsRef<Path>) -> Result<bool> {
        let folder = folder.as_ref();
        match std::fs::read_dir(folder) {
            Ok(mut names) => Ok(names.any(|name| {
                name.is_ok_and(|name| format::number(&name.file_name().to_string_lossy()).is_some())
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(format!("{} cannot be read", folder.display()), error)),
        }
    }

    /// Opens it in the thread that will write it.
    async fn start(
        disk: impl FnOnce() -> Result<Arc<dyn Disk>> + Send + 'static,
        shape: Shape,
    ) -> Result<Self> {
        let (opened, answer) = oneshot::channel();
        let work = move || match disk().and_then(|disk| Core::open(disk, shape)) {
            Ok(core) => {
                let core = Writer(Arc::new(core));
                // The one that opened it has gone: so nothing was appended.
                if opened.send(Ok(Arc::clone(&core.0))).is_ok() {
                    core.run();
                }
            }
            Err(error) => drop(opened.send(Err(error))),
        };
        thread::Builder::new()
            .name("tierstack-journal".to_owned())
            .spawn(work)
            .map_err(|error| Error::io("the thread of the journal could not be started", error))?;
        let core =
            answer.await.map_err(|_| Error::internal("opening the journal ended early"))??;
        Ok(Self { progress: core.progress(), core, queue: Mutex::new(()) })
    }

    /// A number that was drawn when the journal began: another journal has another one.
    #[must_use]
    pub fn id(&self) -> u128 {
        self.core.id
    }

    /// Appends a record, and gives its sequence. It is written soon, without anybody asking for it; [`durable`](Self::durable)
    /// waits until it is on the disk. Where there is no room it waits, or fails, as [`OnFull`] says.
    ///
    /// Dropped before it returns, the record is appended wholly or not at all.
    ///
    /// # Errors
    /// [`Capacity`](crate::ErrorKind::Capacity) where there is no room, [`InvalidInput`](crate::ErrorKind::InvalidInput)
    /// where the record is larger than any that the journal takes, and the first failure of the journal. Nothing was
    /// appended then.
    pub async fn append(&self, record: impl Into<Bytes>) -> Result<u64> {
        let entry = Entry::data(record.into());
        let now = self.core.with(|state| {
            // Nobody goes past those that wait.
            let offer = if state.waiting == 0 { state.offer(&entry, false)? } else { Offer::Wait };
            state.waiting += usize::from(offer == Offer::Wait);
            Ok::<_, Error>(offer)
        })?;
        if let Offer::Taken(sequence) = now {
            return Ok(sequence);
        }
        let _waiting = Waiting(&self.core);
        let _turn = self.queue.lock().await;
        let mut again = false;
        loop {
            let room = self.core.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if let Offer::Taken(sequence) = self.core.offer(&entry, again)? {
                return Ok(sequence);
            }
            room.await;
            again = true;
        }
    }

    /// Waits until a record, and all before it, are on the disk.
    ///
    /// # Errors
    /// The first failure of the journal, where it came before; [`InvalidInput`](crate::ErrorKind::InvalidInput) where the
    /// record was not appended.
    pub async fn durable(&self, sequence: u64) -> Result<()> {
        let next = self.core.with(|state| state.next);
        if sequence >= next {
            return Err(Error::invalid(format!(
                "the record {sequence} was not appended to the journal: the next one is {next}"
            )));
        }
        self.until(|progress| progress.durable > sequence).await
    }

    /// Waits for something to have happened.
    async fn until(&self, happened: impl Fn(&Progress) -> bool) -> Result<()> {
        let mut progress = self.progress.clone();
        let ended = |progress: &Progress| progress.failed.is_some() || progress.closed;
        let last = progress.wait_for(|progress| happened(progress) || ended(progress)).await;
        let last = last.map_err(|_| Error::internal("the journal is gone"))?;
        match &last.failed {
            _ if happened(&last) => Ok(()),
            Some(error) => Err(error.clone()),
            None => Err(Error::closed()),
        }
    }

    /// The reader of a name. One that the journal does not know is added, durably, and begins with the record `new_at`, or
    /// with the oldest one that is there.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the name is empty or long, [`Capacity`](crate::ErrorKind::Capacity)
    /// where there are many readers, and the first failure of the journal.
    pub async fn reader(&self, name: &str, new_at: u64) -> Result<Reader> {
        let next = self.core.with(|state| {
            state.check_open()?;
            if let Some(next) = state.positions.of(name) {
                return Ok(next);
            }
            state.save = true;
            state.positions.add(name, new_at.min(state.durable))
        })?;
        self.saved().await?;
        Ok(Reader::new(Arc::clone(&self.core), name.to_owned(), next))
    }

    /// Forgets a reader: nothing is kept for it any more.
    ///
    /// # Errors
    /// The first failure of the journal.
    pub async fn forget(&self, name: &str) -> Result<()> {
        self.core.with(|state| {
            state.check_open()?;
            state.save = true;
            state.positions.forget(name);
            Ok::<_, Error>(())
        })?;
        self.core.room.notify_waiters();
        self.saved().await
    }

    /// Waits until the readers that there are now are known on the disk.
    async fn saved(&self) -> Result<()> {
        loop {
            let (saves, there) =
                (self.progress.borrow().saves, self.core.with(|state| state.save_is_done()));
            if there {
                return Ok(());
            }
            self.until(|progress| progress.saves > saves).await?;
        }
    }

    /// What it holds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.core.with(|state| Usage {
            bytes: state.held,
            segments: state.segments.len(),
            first: state.positions.released(),
            durable: state.durable,
            next: state.next,
            readers: state.positions.all().map(|(name, next)| (name.to_owned(), next)).collect(),
        })
    }

    /// Writes what waits, keeps the positions of the readers, and gives the folder up to others. Appends that wait for
    /// room fail.
    ///
    /// # Errors
    /// The first failure of the journal. The folder is given up all the same.
    pub async fn close(&self) -> Result<()> {
        self.core.with(|state| state.closing = true);
        self.core.room.notify_waiters();
        let mut progress = self.progress.clone();
        let closed = progress.wait_for(|progress| progress.closed).await;
        let closed = closed.map_err(|_| Error::internal("the journal is gone"))?;
        closed.failed.clone().map_or(Ok(()), Err)
    }
}

/// A journal that is dropped is closed, by its own thread and a little later.
impl Drop for Journal {
    fn drop(&mut self) {
        self.core.with(|state| state.closing = true);
    }
}

/// An append that waits for room.
struct Waiting<'a>(&'a Core);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.with(|state| state.waiting -= 1);
    }
}

/// The thread that writes.
struct Writer(Arc<Core>);

impl Writer {
    fn run(&self) {
        loop {
            self.0.wait();
            match self.0.step() {
                Step::Worked => {}
                Step::Stuck => self.0.wait_for(AGAIN),
                Step::Ended => return,
            }
        }
    }
}

/// No task waits for a thread that has panicked.
impl Drop for Writer {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(Error::internal("the thread of the journal panicked"));
            self.0.end();
        }
    }
}
