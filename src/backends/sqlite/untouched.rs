//! Connections that only read and make no files.
//!
//! SQLite makes two files next to a database with a write-ahead log, also where it is only read. A connection here makes
//! none. While a program has the database open, their index of the log is there and is read. Otherwise all of the data is in
//! the database file, which is read as one that nobody changes (`immutable`). A program may begin to write at any moment;
//! before it changes that file, it makes its log. So after each read the file must be what it was, and there must be no log:
//! what was read otherwise is not believed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags};

use super::error::{NAME, opening};
use super::shared_database::{FileId, file_id};
use crate::error::{Error, ErrorKind, Outcome, Result};

/// What must be the same after a read as it was when its connection was made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// No program has it open: the file.
    File { bytes: u64, modified: Option<SystemTime>, id: Option<FileId> },
    /// The index of another program's log.
    Index(Option<FileId>),
}

impl Seen {
    fn of(path: &Path) -> Result<Self> {
        let index = beside(path, "-shm");
        if size(&index) > 0 {
            return Ok(Self::Index(file_id(&index)));
        }
        if size(&beside(path, "-wal")) > 0 {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the database has a log (`-wal`) that no program has open, which must be taken into it first; open it once with the program that it belongs to",
            )
            .with_layer(NAME));
        }
        let file = std::fs::metadata(path).map_err(|error| {
            Error::io("the database file cannot be reached", error).with_layer(NAME)
        })?;
        Ok(Self::File { bytes: file.len(), modified: file.modified().ok(), id: file_id(path) })
    }

    pub(super) fn holds(&self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|now| now == *self)
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// A connection, and what must be the same after each read. `wal`: whether there is a write-ahead log.
pub(super) fn connect(path: &Path, wal: bool) -> Result<(Connection, Option<Seen>)> {
    let seen = if wal { Some(Seen::of(path)?) } else { None };
    let how = match seen {
        None => "",
        Some(Seen::File { .. }) => "&immutable=1",
        Some(Seen::Index(_)) => "&readonly_shm=1",
    };
    let name: String = path
        .to_string_lossy()
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02x}"),
        })
        .collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db =
        Connection::open_with_flags(format!("file:{name}?mode=ro{how}"), flags).map_err(opening)?;
    Ok((db, seen))
}

/// A read that was overtaken by a program that began to write.
pub(super) fn overtaken() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "another program opened the database to write in the middle of the read; read again",
    )
    .with_outcome(Outcome::Nothing)
    .with_layer(NAME)
}
