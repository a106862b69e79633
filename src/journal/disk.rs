//! What the journal asks of a disk: few calls, so that a test can put a faulty one in the place of the real one.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::filesystem::{make_folder, sync_folder};

const LOCK: &str = "lock";

/// A folder of files.
pub(super) trait Disk: fmt::Debug + Send + Sync + 'static {
    fn names(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file, or empties the one of this name, and takes that much room for it, which then reads as
    /// zeros. A file system that cannot do this lets the file grow.
    fn create(&self, name: &str, room: u64) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names that were made, changed and removed before are so after a power cut too.
    fn sync_folder(&self) -> io::Result<()>;
    /// A number that nobody can foresee.
    fn draw(&self) -> io::Result<u64>;
    /// Where a file is, in words for an operator.
    fn place(&self, name: &str) -> String;
    /// Gives the folder up to others.
    fn leave(&self);
}

/// A file, read and written at places that the caller names.
pub(super) trait DiskFile: fmt::Debug + Send + Sync + 'static {
    fn bytes(&self) -> io::Result<u64>;
    /// Fewer bytes than were asked for where the file ends.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Gives back what lies behind.
    fn cut(&self, bytes: u64) -> io::Result<()>;
    /// What was written before is there after a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the file system, locked against other processes.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Gone once the folder is left to others.
    lock: Mutex<Option<File>>,
}

impl Folder {
    /// Makes or takes the folder.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed =
            |error| Error::io(format!("the journal in {} cannot be opened", path.display()), error);
        make(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = private().create(true).truncate(false).open(path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, lock: Mutex::new(Some(lock)) }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the journal in {} is open already, in another process or in this one; close it there, or name another folder",
                    path.display()
                ),
            )),
        }
    }
}

/// Its content is for the owner of the process alone.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_folder(parent)?;
    }
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only modes change it"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }?;
    sync(parent.unwrap_or(Path::new(".")))
}

/// Elsewhere than on Unix a folder cannot be synced, and its names are.
fn sync(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { sync_folder(folder) } else { Ok(()) }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

impl Disk for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.path)?;
        // A name that is no text is none of the journal's.
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, name: &str, room: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = private().create(true).truncate(true).open(self.path.join(name))?;
        take_room(&file, room)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(private().open(self.path.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        // Strict, unlike that of the parent: this folder is the journal's own, so it can be opened.
        if cfg!(unix) { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }

    fn draw(&self) -> io::Result<u64> {
        getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
    }

    fn place(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn leave(&self) {
        self.lock.lock().take();
    }
}

#[cfg(target_os = "linux")]
fn take_room(file: &File, room: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, room) {
            Err(Errno::INTR) => {}
            Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
            taken => return Ok(taken?),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn take_room(_file: &File, _room: u64) -> io::Result<()> {
    Ok(())
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match place::read(&self.0, rest, offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        place::write(&self.0, bytes, offset)
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(unix)]
mod place {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt as _;

    pub(super) fn read(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(bytes, offset)
    }

    pub(super) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }
}

/// Each handle has one user at a time, so the place that they share is nobody else's.
#[cfg(not(unix))]
mod place {
    use std::fs::File;
    use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

    pub(super) fn read(mut file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek(SeekFrom::Start(offset))?;
        file.read(bytes)
    }

    pub(super) fn write(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }
}
