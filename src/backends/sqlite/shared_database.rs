//! What the stores over one database file have in common, as far as this process has it open.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::error::NAME;
use crate::error::{Error, ErrorKind, Result};

pub(super) type FileId = (u64, u64);

/// What tells a file from another one that takes its path. `None`: there is none, or no way to tell.
pub(super) fn file_id(path: &Path) -> Option<FileId> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
    }
    #[cfg(not(unix))]
    {
        // A file that is open cannot be replaced.
        let _ = path;
        None
    }
}

/// Whether the header says that there is a write-ahead log.
pub(super) fn has_log(file: &mut File) -> Result<bool> {
    let mut header = Vec::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_end(&mut header));
    read.map_err(|error| Error::io("the database file cannot be read", error).with_layer(NAME))?;
    // An empty file is a database without tables.
    if !header.is_empty() && !header.starts_with(b"SQLite format 3\0") {
        return Err(Error::config("the file is no database of SQLite").with_layer(NAME));
    }
    Ok(header.get(18) == Some(&2))
}

/// A database file that is open here, however many stores have tables in it.
#[derive(Default)]
pub(super) struct Database {
    /// Writers take turns: those that wait for a lock of SQLite look for it now and then, and one that writes
    /// all the time would keep the others out until they give up. With a rollback journal readers take turns with
    /// them, for the same reason.
    pub(super) turns: RwLock<()>,
    broken: AtomicBool,
    /// Kept open: closing it would release the locks that SQLite holds on the file in this process.
    header: Mutex<Option<File>>,
}

impl Database {
    /// The one in that file. A file that is open is not removed, so its number is no other's.
    pub(super) fn of(file: Option<FileId>) -> Arc<Self> {
        static OPEN: Mutex<BTreeMap<FileId, Weak<Database>>> = Mutex::new(BTreeMap::new());
        let Some(file) = file else { return Arc::default() };
        let mut open = OPEN.lock();
        if let Some(there) = open.get(&file).and_then(Weak::upgrade) {
            return there;
        }
        open.retain(|_, database| database.strong_count() > 0);
        let database = Arc::default();
        open.insert(file, Arc::downgrade(&database));
        database
    }

    /// Whether the file says that there is a write-ahead log.
    pub(super) fn has_log(&self, path: &Path) -> Result<bool> {
        let mut header = self.header.lock();
        let file = match &mut *header {
            Some(file) => file,
            none => none.insert(File::open(path).map_err(|error| {
                Error::io("the database file cannot be read", error).with_layer(NAME)
            })?),
        };
        has_log(file)
    }

    /// The disk has failed to save a write. The log is that of all stores: what is written behind the lost part is
    /// lost with it.
    pub(super) fn fail(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// After a failed fsync the next one may succeed without having saved what the first did not.
    pub(super) fn check(&self) -> Result<()> {
        if self.broken.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::Closed,
                "the disk failed to save a write, so what it says later cannot be believed; check the disk, and open the database again, with all stores that have tables in it",
            )
            .with_layer(NAME));
        }
        Ok(())
    }
}
