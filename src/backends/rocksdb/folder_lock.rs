//! The lock of a database's folder, taken before anything in the folder is touched: RocksDB takes it only after
//! it has renamed the `LOG` file, which is the owner's if the database is open elsewhere.
//!
//! It is the lock that RocksDB takes itself. On Unix it belongs to the process and not to a handle: a second
//! handle of the same process gets it too, and closing **any** handle of the file gives it up. So the
//! databases that are open in this process are listed, and a handle is closed only when no database is open.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ::rocksdb::DB;
use parking_lot::Mutex;

use super::error::open_elsewhere;
use crate::error::{Error, ErrorKind, Result};

/// The folders that are locked by this process.
static LOCKED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// An open database, and its lock. The fields are dropped in this order.
pub(super) struct Opened {
    db: DB,
    _lock: Option<Lock>,
}

impl Opened {
    /// Opens a database in a folder that is there.
    pub(super) fn with(folder: &Path, open: impl FnOnce() -> Result<DB>) -> Result<Self> {
        let lock = Lock::take(folder)?;
        match open() {
            Ok(db) => Ok(Self { db, _lock: Some(lock) }),
            Err(error) => {
                if error.kind() == ErrorKind::Conflict {
                    // Another user of RocksDB in this process has the database open: a closed handle would
                    // give up its lock.
                    lock.leak();
                }
                Err(error)
            }
        }
    }

    /// A database that is only read, which locks nothing.
    pub(super) fn unlocked(db: DB) -> Self {
        Self { db, _lock: None }
    }

    pub(super) fn db(&self) -> &DB {
        &self.db
    }
}

struct Lock {
    folder: PathBuf,
    /// `None`: there was no file to lock, so that nobody has the database open.
    file: Option<File>,
}

impl Lock {
    fn take(folder: &Path) -> Result<Self> {
        let failed = |error| Error::io("the folder cannot be read", error);
        let folder = fs::canonicalize(folder).map_err(failed)?;
        if !LOCKED.lock().insert(folder.clone()) {
            return Err(open_elsewhere());
        }
        let mut lock = Self { folder, file: None };
        lock.file = locked(&lock.folder.join("LOCK"))?;
        Ok(lock)
    }

    fn leak(mut self) {
        if let Some(file) = self.file.take() {
            std::mem::forget(file);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // First the handle: a later one of this process must not be there when it is closed.
        self.file = None;
        LOCKED.lock().remove(&self.folder);
    }
}

#[cfg(unix)]
fn locked(path: &Path) -> Result<Option<File>> {
    use std::io;

    use rustix::fs::{FlockOperation, fcntl_lock};
    use rustix::io::Errno;

    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::io("the LOCK file cannot be opened for writing", error));
        }
    };
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::AGAIN | Errno::ACCESS) => Err(open_elsewhere()),
        // A file system without locks: RocksDB says so itself.
        Err(_) => Ok(None),
    }
}

/// RocksDB's own lock is a handle that nobody else can open.
#[cfg(not(unix))]
fn locked(_: &Path) -> Result<Option<File>> {
    Ok(None)
}
