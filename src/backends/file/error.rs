//! The file system's errors as ours. They name no file: a name tells the key.

use std::io;

use rustix::io::Errno;

use crate::error::{Error, ErrorKind};
use crate::types::units::counted;

/// What the file system refused, with the kind that fits.
pub(super) fn failed(doing: &'static str, error: io::Error) -> Error {
    let (kind, why) = match Errno::from_io_error(&error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            (ErrorKind::Capacity, "the disk is full; free some space. Reads go on")
        }
        Some(Errno::FBIG) => {
            (ErrorKind::Capacity, "the file is larger than the file system or `ulimit -f` allows")
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            (ErrorKind::Capacity, "too many open files; raise the limit (`ulimit -n`)")
        }
        Some(Errno::MLINK) => (ErrorKind::Capacity, "a folder cannot hold more folders"),
        Some(Errno::NOMEM) => (ErrorKind::Capacity, "the system is out of memory"),
        Some(Errno::ACCESS | Errno::PERM) => {
            (ErrorKind::Access, "a folder or file is not readable and writable for this process")
        }
        Some(Errno::ROFS) => (ErrorKind::Access, "the file system is read-only"),
        Some(Errno::NAMETOOLONG | Errno::ILSEQ | Errno::INVAL) => {
            (ErrorKind::Unsupported, "the file system takes no such name, or not this operation")
        }
        Some(Errno::XDEV) => (
            ErrorKind::Unsupported,
            "a folder of the store is on another file system than its root; mount the whole folder, or open the inner one as a store of its own",
        ),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => (
            ErrorKind::Unavailable,
            "the folder changed meanwhile: another program made, moved or removed a part of it",
        ),
        Some(Errno::TIMEDOUT) => (ErrorKind::Timeout, "the file system did not answer in time"),
        _ => (ErrorKind::Unavailable, "the disk or the file system failed"),
    };
    Error::new(kind, format!("{doing}: {why}")).with_source(error)
}

/// The folder has no name any more, so that nobody else can find what is in it.
pub(super) fn removed() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the folder was removed while the store was open; bring it back, and open the store again",
    )
}

/// An entry whose name is held by something that is no file.
pub(super) fn foreign() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "a name that belongs to an entry is a symbolic link, a device, a socket or a pipe, which this store neither follows nor replaces; remove it (`find DIR -not -type f -not -type d` finds it), or set `foreign: skip` so that reads pass it by",
    )
}

/// A name that the layout of the store gives to no key.
pub(super) fn no_key() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the folder holds a file or folder whose name stands for no key in the layout of this store, so a scan would leave it out; rename or remove it, or set `foreign: skip`",
    )
}

/// Files that reads pass over, as the settings say.
pub(super) fn passed_over(files: u64) -> Error {
    let files =
        counted(files, "thing that is no entry, and is", "things that are no entries, and are");
    Error::unsupported(format!("the folder holds {files} passed over (`foreign: skip`)"))
}

/// An entry's file has what this process may not give to the one that is to take its place.
pub(super) fn not_kept(error: io::Error) -> Error {
    Error::new(
        ErrorKind::Access,
        "the file of an entry belongs to another user or group, or has attributes, that this process may not give to the new file in its place, so nothing was written; let its owner or root write it, or change its owner (`chown`)",
    )
    .with_source(error)
}

/// An entry needs the name next to a folder's, and a folder has that as well.
pub(super) fn taken() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "an entry has the name of a folder, so its file needs that name followed by `%=`, and another folder has that name; rename that folder",
    )
}

pub(super) fn large(limit: u64) -> Error {
    Error::new(
        ErrorKind::Capacity,
        format!("a file of the folder is over this store's limit of {limit} bytes for a value"),
    )
}
