//! An open store: reads share it, writes are decided one at a time.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::entry_files::{Touched, Tree};
use super::error::{failed, removed};
use super::folder::Folder;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};

pub(super) const INTENT: &[u8] = b"intent";
/// The intent of a store that does not sync: a power cut can tear it.
pub(super) const INTENT_UNSYNCED: &[u8] = b"intent-unsynced";
/// What the lock file holds while nobody has the store open.
pub(super) const CLOSED: &str = "closed\n";
/// An open store.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) tree: Tree,
    /// `None`: the folder was no store before, and is not made one, as it is only read.
    pub(super) own: Option<Own>,
    pub(super) sync: bool,
    /// Held while a write is decided. Readers never hold it.
    pub(super) deciding: Mutex<()>,
    /// Readers share it for the time of a get or a page.
    pub(super) view: RwLock<()>,
    pub(super) unfinished: AtomicBool,
    pub(super) closed: AtomicBool,
    /// The failure after which it is unknown what is on the disk.
    pub(super) broken: Mutex<Option<Error>>,
    /// The lock of the folder.
    pub(super) lock: Mutex<Option<File>>,
    pub(super) next: AtomicU64,
}

/// The folders of the store's own files.
#[derive(Debug)]
pub(super) struct Own {
    /// `.tierstack`
    pub(super) home: Folder,
    /// `.tierstack/temporary`
    pub(super) temporary: Folder,
}

impl Core {
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    /// In a folder that was removed, nothing is found: what it held may be in another one by now.
    pub(super) fn check_there(&self) -> Result<()> {
        match self.tree.root.is_removed() {
            Ok(false) => Ok(()),
            Ok(true) => Err(removed()),
            Err(error) => Err(failed("looking at the folder", error)),
        }
    }

    pub(super) fn own(&self) -> Result<&Own> {
        self.own.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Access,
                "the folder is open for reading only (`read_only: true`, or a command that only reads); leave that out to change it",
            )
            .with_outcome(Outcome::Nothing)
        })
    }

    /// Reads while nothing is written. Blocks.
    pub(super) fn reading<T>(&self, read: impl FnOnce(&Tree) -> Result<T>) -> Result<T> {
        loop {
            let view = self.view.read();
            self.check_open()?;
            if !self.unfinished.load(Ordering::Acquire) {
                let found = read(&self.tree)?;
                self.check_there()?;
                return Ok(found);
            }
            drop(view);
            drop(self.decide()?);
        }
    }

    /// Waits for its turn to write, and finishes what another write could not.
    pub(super) fn decide(&self) -> Result<MutexGuard<'_, ()>> {
        let turn = self.deciding.lock();
        self.check_open()?;
        if let Some(error) = &*self.broken.lock() {
            return Err(error.clone());
        }
        self.check_there()?;
        if self.unfinished.load(Ordering::Acquire) {
            self.finish().map_err(unfinished)?;
        }
        Ok(turn)
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// After a failed sync the kernel may have dropped what it could not write, and the next sync would
    /// succeed: so the store writes no more.
    pub(super) fn sync_touched(&self, touched: &Touched) -> Result<()> {
        if !self.sync {
            return Ok(());
        }
        self.tree.sync(touched).map_err(|error| self.break_with(error))
    }

    pub(super) fn break_with(&self, error: Error) -> Error {
        let broken = Error::new(
            ErrorKind::Unavailable,
            format!(
                "{}; whether earlier writes reached the disk is unknown: open the store again",
                error.message()
            ),
        )
        .with_source(error)
        .with_retry(Retry::Never);
        self.broken.lock().get_or_insert(broken).clone()
    }

    pub(super) fn check_unbroken(&self) -> Result<()> {
        self.broken.lock().clone().map_or(Ok(()), Err)
    }

    /// Brings all that was written to the disk. With `sync` it is there already.
    pub(super) fn flush(&self) -> Result<()> {
        let _turn = self.decide()?;
        self.sync_everything()
    }

    fn sync_everything(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        if !self.sync && self.own.is_some() {
            let synced = self.tree.root.sync_all();
            return synced
                .map_err(|error| self.break_with(failed("syncing the file system", error)));
        }
        Ok(())
    }

    /// Syncs, and lets go of the folder.
    pub(super) fn close(&self) -> Result<()> {
        let _turn = self.deciding.lock();
        let unfinished = self.unfinished.load(Ordering::Acquire);
        let finished = if unfinished { self.finish() } else { self.check_unbroken() };
        let _view = self.view.write();
        let lock = self.lock.lock().take();
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        finished?;
        self.sync_everything()?;
        let Some(mut lock) = lock else { return Ok(()) };
        let said = lock.set_len(0).and_then(|()| {
            lock.rewind()?;
            lock.write_all(CLOSED.as_bytes())
        });
        said.map_err(|error| failed("closing", error))
    }
}

/// A batch that was decided, and is not done yet: whether it was written is for the next operation.
pub(super) fn unfinished(error: Error) -> Error {
    if error.kind() == ErrorKind::Corruption {
        return error;
    }
    let message = format!(
        "a batch was begun and could not be finished, which every further operation tries again before its own work: {}",
        error.message()
    );
    Error::new(ErrorKind::Unavailable, message).with_source(error).with_retry(Retry::Later)
}
