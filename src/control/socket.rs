//! A socket that appears with its mode, in place of one where nobody answers, and is removed by its owner only.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::ErrorKind as Io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// How often the lock of the folder is tried, and how long is waited between.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The file of a socket. Removed when dropped, unless another stands there by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

/// Makes a socket at that path.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile)> {
    if SocketAddr::from_pathname(path).is_err() {
        return Err(too_long());
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Of processes that find the same stale file, one replaces it, and the others find who did. The lock
    // ends with the handle.
    let _locked = locked(folder)?;
    make_room(path)?;
    // Nobody else may look into this folder, so the socket is out of reach until it has its mode.
    let private = Private::new(folder)?;
    let inside = private.0.join("s");
    let listener = UnixListener::bind(&inside).map_err(|error| match error.kind() {
        Io::InvalidInput => too_long(),
        _ => failed("it cannot be made", error),
    })?;
    let place = || {
        std::fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
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
        "control: the path is too long for a Unix domain socket; with its folder it must have about 90 bytes at most",
    )
}

/// The folder, locked. Who holds it else does so for a moment, or is not one of us and may hold it for ever.
fn locked(folder: &Path) -> Result<File> {
    let unusable = |error| failed("its folder cannot be used", error);
    let file = File::open(folder).map_err(unusable)?;
    for _ in 0..ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
    }
    let message =
        "control: another process has locked the folder of the socket; name a path in another one";
    Err(Error::new(ErrorKind::Conflict, message))
}

/// Refuses what must not be replaced.
fn make_room(path: &Path) -> Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == Io::NotFound => return Ok(()),
        found => found.map_err(|error| failed("what stands there cannot be looked at", error))?,
    };
    if !found.file_type().is_socket() {
        let message = "control: another file stands there, which is no socket; name another path";
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    match UnixStream::connect(path) {
        Err(error) if matches!(error.kind(), Io::ConnectionRefused | Io::NotFound) => Ok(()),
        Err(error) => Err(failed("whether somebody listens there cannot be told", error)),
        Ok(_) => Err(Error::new(
            ErrorKind::Conflict,
            "control: another process listens there; give each process a path of its own",
        )),
    }
}

fn failed(what: &str, error: std::io::Error) -> Error {
    Error::io(format!("control: the socket: {what}"), error)
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
        made.map_err(|error| failed("it cannot be made in its folder", error))?;
        Ok(Self(path))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What is left is an empty folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
