//! A socket that appears with its mode, in place of one where nobody answers, and is removed by its owner only.

use std::fs::{DirBuilder, File, Metadata, Permissions, TryLockError};
use std::io::ErrorKind as Io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, ErrorKind, Result};

/// How often the lock is tried, and how long is waited between.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The file of a socket. Removed when dropped, unless another is there by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

/// Makes a socket at that path, whose file has that mode from the first moment.
pub(crate) fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile)> {
    if SocketAddr::from_pathname(path).is_err() {
        return Err(too_long());
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Nobody else may look into this folder, so the socket is out of reach until it has its mode.
    let private = Private::new(folder)?;
    // Of processes that find the same stale file, one replaces it, and the others find its socket.
    let _lock = Lock::take(path, private.owner()?)?;
    make_room(path)?;
    let inside = private.0.join("s");
    let listener = UnixListener::bind(&inside).map_err(|error| match error.kind() {
        Io::InvalidInput => too_long(),
        _ => failed("it cannot be made", error),
    })?;
    let place = || {
        std::fs::set_permissions(&inside, Permissions::from_mode(mode))?;
        let made = std::fs::symlink_metadata(&inside)?;
        std::fs::rename(&inside, path)?;
        listener.set_nonblocking(true)?;
        Ok((made.dev(), made.ino()))
    };
    let id = place().map_err(|error| failed("it cannot be made", error))?;
    Ok((listener, SocketFile { path: path.to_owned(), id }))
}

fn too_long() -> Error {
    Error::config(
        "the path is too long for a Unix domain socket; with its folder it must have about 90 bytes at most",
    )
}

/// A file next to the socket, locked, which no other user may open: a process that can open a file can keep it locked for ever.
/// Removed when dropped.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(socket: &Path, user: u32) -> Result<Self> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        for _ in 0..ATTEMPTS {
            let file = open_own(&path, user)?;
            match file.try_lock() {
                // The process that had it before may have removed the file meanwhile, and another one is there.
                Ok(()) if stands_there(&file, &path) => return Ok(Self { path, _file: file }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => {
                    return Err(failed("its lock cannot be taken", error));
                }
            }
        }
        let message = format!(
            "another process of this user holds the lock {} and does not let go; end it, or name another path",
            path.display()
        );
        Err(Error::new(ErrorKind::Conflict, message))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is locked, so that nobody has it. What is left is an empty file, to be locked again.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes the file, or opens the one of that user, through no link.
fn open_own(path: &Path, user: u32) -> Result<File> {
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => File::from(file),
        Err(_) if std::fs::symlink_metadata(path).is_ok() => return Err(not_own(path)),
        Err(error) => return Err(failed("its lock cannot be made", error.into())),
    };
    let found = file.metadata().map_err(|error| failed("its lock cannot be looked at", error))?;
    let own = found.is_file() && found.uid() == user && found.mode() & 0o077 == 0;
    if own { Ok(file) } else { Err(not_own(path)) }
}

fn not_own(path: &Path) -> Error {
    let message = format!(
        "{} is to lock the socket, and is not a file that only this user can open; remove it, or name a socket in a folder that no other user can write into",
        path.display()
    );
    Error::new(ErrorKind::Conflict, message)
}

fn stands_there(file: &File, path: &Path) -> bool {
    let id = |found: Metadata| (found.dev(), found.ino());
    let (ours, found) = (file.metadata().map(id), std::fs::symlink_metadata(path).map(id));
    ours.is_ok_and(|ours| found.is_ok_and(|found| found == ours))
}

/// Refuses what must not be replaced.
fn make_room(path: &Path) -> Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == Io::NotFound => return Ok(()),
        found => found.map_err(|error| failed("what is there cannot be looked at", error))?,
    };
    if !found.file_type().is_socket() {
        let message = "another file is there, which is no socket; name another path";
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    match UnixStream::connect(path) {
        Err(error) if matches!(error.kind(), Io::ConnectionRefused | Io::NotFound) => Ok(()),
        Err(error) => Err(failed("it is unknown whether a process listens there", error)),
        Ok(_) => Err(Error::new(
            ErrorKind::Conflict,
            "another process listens there; give each process a path of its own",
        )),
    }
}

fn failed(what: &str, error: std::io::Error) -> Error {
    Error::io(format!("the socket: {what}"), error)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path);
        if ours.is_ok_and(|found| (found.dev(), found.ino()) == self.id) {
            // Nobody is left to tell; the next one finds that nobody answers.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A folder for its owner only, removed with what is in it.
struct Private(PathBuf);

impl Private {
    fn new(parent: &Path) -> Result<Self> {
        let number = getrandom::u32().map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the system gives no random numbers")
                .with_source(error)
        })?;
        let path = parent.join(format!(".ts{number:08x}"));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| failed("its folder cannot be used", error))?;
        Ok(Self(path))
    }

    /// The user of this process.
    fn owner(&self) -> Result<u32> {
        let made = std::fs::symlink_metadata(&self.0);
        Ok(made.map_err(|error| failed("its folder cannot be used", error))?.uid())
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What is left is an empty folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
