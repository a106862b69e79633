//! Folders as open handles. Every name is looked up in a handle, one at a time, and no symbolic link is
//! followed: so nothing leads out of the store, and no path is too long.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::fault;
use crate::filesystem::file_metadata::Kept;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Missing,
    File,
    Folder,
    /// A symbolic link, a device, a socket, a pipe.
    Other,
}

/// What reading a name finds.
#[derive(Debug)]
pub(super) enum FileRead {
    Missing,
    Value(Vec<u8>),
    Folder,
    Other,
    /// A file over the limit.
    Large,
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
/// Without `NONBLOCK`, opening a pipe would wait for a writer.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

impl Folder {
    /// The root of a store, to which symbolic links may lead.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, FOLDER | OFlags::RDONLY, Mode::empty())?))
    }

    /// Whether the folder was removed since.
    pub(super) fn is_removed(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstat(&self.0)?.st_nlink == 0)
    }

    /// A folder in this one. `None`: there is none of that name.
    pub(super) fn child(&self, name: &[u8]) -> io::Result<Option<Self>> {
        let flags = FOLDER | OFlags::NOFOLLOW | OFlags::RDONLY;
        match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(folder) => Ok(Some(Self(folder))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn what(&self, name: &[u8]) -> io::Result<What> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => What::File,
                FileType::Directory => What::Folder,
                _ => What::Other,
            }),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(What::Missing),
            Err(error) => Err(error.into()),
        }
    }

    /// A file for reading, or what else has the name.
    fn file(&self, name: &[u8]) -> io::Result<Result<File, FileRead>> {
        match rustix::fs::openat(&self.0, name, FILE | OFlags::RDONLY, Mode::empty()) {
            Ok(file) => Ok(Ok(file.into())),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(Err(FileRead::Missing)),
            // What a symbolic link and a socket are refused with.
            Err(Errno::LOOP | Errno::MLINK | Errno::NXIO) => Ok(Err(FileRead::Other)),
            Err(error) => Err(error.into()),
        }
    }

    /// What a file has in addition to its content. `None`: no file has the name.
    pub(super) fn kept(&self, name: &[u8]) -> io::Result<Option<Kept>> {
        let Ok(file) = self.file(name)? else { return Ok(None) };
        let about = file.metadata()?;
        if about.is_file() { Kept::of(&file, &about).map(Some) } else { Ok(None) }
    }

    /// The content of a file of up to `limit` bytes.
    pub(super) fn read(&self, name: &[u8], limit: u64) -> io::Result<FileRead> {
        let file = match self.file(name)? {
            Ok(file) => file,
            Err(other) => return Ok(other),
        };
        let about = file.metadata()?;
        if about.is_dir() {
            return Ok(FileRead::Folder);
        }
        if !about.is_file() {
            return Ok(FileRead::Other);
        }
        if about.len() > limit {
            return Ok(FileRead::Large);
        }
        // One byte more than the file has, so that its end is found without growing.
        let mut value = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0) + 1);
        // Somebody may be writing to the file.
        file.take(limit + 1).read_to_end(&mut value)?;
        if value.len() as u64 > limit { Ok(FileRead::Large) } else { Ok(FileRead::Value(value)) }
    }

    /// Opens a file of the store's own for reading and writing, made if it is missing.
    pub(super) fn open_own(&self, name: &[u8]) -> io::Result<File> {
        let flags = FILE | OFlags::RDWR | OFlags::CREATE;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o666))?.into())
    }

    /// Makes a file, writes it, and syncs it if asked. It gets what another one has in addition to its content, or
    /// what the umask says.
    pub(super) fn create(
        &self,
        name: &[u8],
        content: &[u8],
        kept: Option<&Kept>,
        sync: bool,
    ) -> io::Result<()> {
        fault::step("create")?;
        let flags = FILE | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        // Nobody may read in between what the rights of the other file forbid.
        let mode = Mode::from_raw_mode(if kept.is_some() { 0o600 } else { 0o666 });
        let mut file: File = rustix::fs::openat(&self.0, name, flags, mode)?.into();
        if fault::tears() {
            file.write_all(content.get(..content.len() / 2).unwrap_or_default())?;
        }
        fault::step("write")?;
        file.write_all(content)?;
        if let Some(kept) = kept {
            kept.give(&file)?;
        }
        if sync {
            fault::step("sync file")?;
            file.sync_all()?;
        }
        Ok(())
    }

    /// Makes a folder. `false`: the name is taken.
    pub(super) fn make(&self, name: &[u8]) -> io::Result<bool> {
        fault::step("make folder")?;
        match rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a file another name, in place of what has it.
    pub(super) fn rename(&self, name: &[u8], to: &Self, to_name: &[u8]) -> io::Result<()> {
        fault::step("rename")?;
        Ok(rustix::fs::renameat(&self.0, name, &to.0, to_name)?)
    }

    /// Finds out whether a file could be renamed into this folder: one mounted by itself takes none. The
    /// kernel compares the mounts before it looks for the name, which is none that exists.
    pub(super) fn check_takes(&self, from: &Self) -> io::Result<()> {
        let name = b"no such file".as_slice();
        match rustix::fs::renameat(&from.0, name, &self.0, name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds out whether names in this folder may be changed. A system that cannot tell says yes.
    pub(super) fn check_writable(&self) -> io::Result<()> {
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        match rustix::fs::accessat(&self.0, c".", wanted, AtFlags::EACCESS) {
            Err(error @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Removes a file. `false`: there is none.
    pub(super) fn remove(&self, name: &[u8]) -> io::Result<bool> {
        fault::step("remove")?;
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a folder if it is empty.
    pub(super) fn remove_empty(&self, name: &[u8]) -> io::Result<bool> {
        fault::step("remove folder")?;
        match rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            // Kept by what is in it, as a mount point, or by rights.
            Err(
                Errno::NOTEMPTY
                | Errno::EXIST
                | Errno::NOENT
                | Errno::BUSY
                | Errno::ACCESS
                | Errno::PERM,
            ) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Brings the names in this folder to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        fault::step("sync folder")?;
        Ok(rustix::fs::fsync(&self.0)?)
    }

    /// Brings everything of this file system to the disk.
    #[cfg(target_os = "linux")]
    pub(super) fn sync_all(&self) -> io::Result<()> {
        fault::step("sync all")?;
        Ok(rustix::fs::syncfs(&self.0)?)
    }

    /// Calls `each` with every name in this folder, until it fails.
    pub(super) fn list<E: From<io::Error>>(
        &self,
        mut each: impl FnMut(&[u8], What) -> Result<(), E>,
    ) -> Result<(), E> {
        let io = |error: Errno| E::from(io::Error::from(error));
        for entry in Dir::read_from(&self.0).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let what = match entry.file_type() {
                FileType::RegularFile => What::File,
                FileType::Directory => What::Folder,
                // Some file systems do not say.
                FileType::Unknown => self.what(name)?,
                _ => What::Other,
            };
            if what != What::Missing {
                each(name, what)?;
            }
        }
        Ok(())
    }
}

/// A folder on the way from the root, which stays open.
pub(super) enum Spot<'a> {
    Root(&'a Folder),
    Below(Folder),
}

impl Deref for Spot<'_> {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        match self {
            Self::Root(folder) => folder,
            Self::Below(folder) => folder,
        }
    }
}
