//! Opening: connections, and what must hold before the first operation.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{RwLockReadGuard, RwLockWriteGuard};
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::config::{Journal, SqliteConfig};
use super::error::{NAME, failed, moved, opening, refused};
use super::shared_database::{Database, FileId, file_id};
use super::statements::Layout;
use super::untouched::{self, Seen};
use super::verify::Found;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::filesystem::{self, make_folder};
use crate::spelling::nearest_beside;
use crate::types::Identity;

/// Pages that each connection keeps: 8 MiB.
const CACHE_KIB: i32 = 8 << 10;
/// The log is cut back to this once it is empty.
const LOG_BYTES: i64 = 64 << 20;
/// Statements that each connection keeps: of scans alone there are 18.
const STATEMENTS: usize = 32;

/// Where the database is, and how its connections are opened.
pub(super) struct Site {
    /// As in the settings, absolute.
    path: PathBuf,
    /// Where symbolic links lead: SQLite puts its log next to that. The same until the file is opened.
    real: PathBuf,
    read_only: bool,
    busy_timeout: Duration,
    /// With a rollback journal.
    readers_wait: bool,
    /// Which file was opened.
    file: Option<FileId>,
    pub(super) database: Arc<Database>,
}

/// A connection that only reads.
pub(super) struct Reading {
    pub(super) db: Connection,
    /// What must hold after each read.
    seen: Option<Seen>,
}

/// What opening has found out.
pub(super) struct Opened {
    pub(super) site: Site,
    pub(super) db: Connection,
    pub(super) found: Found,
    /// Whether the database is in WAL mode.
    pub(super) wal: bool,
}

impl Site {
    /// Absolute, as SQLite takes a path that begins with `file:` for a URI.
    pub(super) fn new(config: &SqliteConfig) -> Result<Self> {
        let path = std::path::absolute(&config.path)
            .map_err(|error| Error::io("the path of the database is wrong", error))?;
        Ok(Self {
            real: path.clone(),
            path,
            read_only: config.read_only,
            busy_timeout: config.busy_timeout.0,
            readers_wait: false,
            file: None,
            database: Arc::default(),
        })
    }

    /// The file and what of it is the store. A file that is copied is another one, and so is one that takes
    /// the place of another; its time of birth tells them apart where the system uses a number again.
    pub(super) fn identity(&self, layout: &Layout) -> Option<Identity> {
        let parts = filesystem::identity(&std::fs::metadata(&self.real).ok()?)?;
        let parts = parts.iter().cloned().chain(layout.names());
        let parts: Vec<String> = parts.collect();
        Some(Identity::new(NAME, &parts.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// Refuses to go on once the path leads to another file, as after a backup was copied over an open
    /// database: SQLite would go on writing to the old one, which nobody will ever open again.
    pub(super) fn check_unmoved(&self) -> Result<()> {
        if self.file.is_some() && file_id(&self.path) != self.file { Err(moved()) } else { Ok(()) }
    }

    /// A connection that waits for locks; with what must hold after each read where nothing may be touched.
    fn connect(&self, create: bool) -> Result<(Connection, Option<Seen>)> {
        let (db, seen) = if self.read_only {
            untouched::connect(&self.real, self.database.has_log(&self.real)?)?
        } else {
            let mut access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            access.set(OpenFlags::SQLITE_OPEN_CREATE, create);
            (Connection::open_with_flags(&self.real, access).map_err(cannot_open)?, None)
        };
        self.prepare(&db).map_err(|error| match &seen {
            Some(seen) if !seen.holds(&self.real) => untouched::overtaken(),
            _ => cannot_open(error),
        })?;
        Ok((db, seen))
    }

    fn prepare(&self, db: &Connection) -> Result<(), rusqlite::Error> {
        db.busy_timeout(self.busy_timeout)?;
        db.set_prepared_statement_cache_capacity(STATEMENTS);
        // `trusted_schema`: triggers and views of a file of others get no dangerous functions.
        // `cell_size_check`: damage is found where it is, not where it leads to.
        db.execute_batch(&format!(
            "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON;
             PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON; PRAGMA cache_size = -{CACHE_KIB};"
        ))
    }

    /// A connection that writes nothing, and waits for locks only while it is
    /// [told to](Self::patient). Not a read-only one, which could not recover a log that a
    /// crash has left.
    pub(super) fn reader(&self) -> Result<Reading> {
        self.check_unmoved()?;
        let (db, seen) = self.connect(false)?;
        let ready = db.execute_batch("PRAGMA query_only = ON");
        ready.and_then(|()| db.busy_timeout(Duration::ZERO)).map_err(opening)?;
        Ok(Reading { db, seen })
    }

    /// Whether what a connection reads, and has read, is what is there.
    pub(super) fn is_current(&self, reading: &Reading) -> bool {
        reading.seen.as_ref().is_none_or(|seen| seen.holds(&self.real))
    }

    /// Does what may wait for locks of other programs.
    pub(super) fn patient<T>(&self, db: &Connection, work: impl FnOnce(&Connection) -> T) -> T {
        // Setting it can fail for a timeout out of range only.
        let _ = db.busy_timeout(self.busy_timeout);
        let done = work(db);
        let _ = db.busy_timeout(Duration::ZERO);
        done
    }

    /// The turn of a reader. Blocks.
    pub(super) fn reading(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.readers_wait.then(|| self.database.turns.read())
    }

    /// Like [`reading`](Self::reading), where it need not wait. `None`: it would.
    pub(super) fn try_reading(&self) -> Option<Option<RwLockReadGuard<'_, ()>>> {
        match self.readers_wait {
            true => self.database.turns.try_read().map(Some),
            false => Some(None),
        }
    }

    /// The turn of the writer. Blocks.
    pub(super) fn writing(&self) -> RwLockWriteGuard<'_, ()> {
        self.database.turns.write()
    }

    /// Like [`writing`](Self::writing), where it need not wait.
    pub(super) fn try_writing(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        self.database.turns.try_write()
    }

    pub(super) fn log(&self) -> PathBuf {
        let mut name = self.real.clone().into_os_string();
        name.push("-wal");
        name.into()
    }

    /// Bytes of the database and its log. Only asks for their sizes: to open and close the file here
    /// would release the locks that SQLite holds in this process.
    pub(super) fn bytes(&self) -> Result<u64> {
        let size = |path: &Path| match std::fs::metadata(path) {
            Ok(file) => Ok(file.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => {
                Err(Error::io("the size of the database cannot be read", error).with_layer(NAME))
            }
        };
        Ok(size(&self.real)? + size(&self.log())?)
    }
}

/// Opens or makes the database, and checks that it can do what the settings guarantee. Blocks.
pub(super) fn open(config: &SqliteConfig, layout: &mut Layout) -> Result<Opened> {
    let mut site = Site::new(config)?;
    let create = config.create && !config.read_only;
    prepare(&site.path, create)?;
    let follow = |path: &Path| {
        std::fs::canonicalize(path)
            .map_err(|error| Error::io("the path of the database cannot be resolved", error))
    };
    if config.read_only {
        site.real = follow(&site.path)?;
        site.database = Database::of(file_id(&site.path));
    }
    let (db, seen) = site.connect(create)?;
    if !config.read_only && db.is_readonly("main").map_err(opening)? {
        return Err(Error::new(
            ErrorKind::Access,
            "the database file is not writable for this process; make it so, or set `read_only: true`",
        )
        .with_operation(Operation::Open)
        .with_layer(NAME));
    }
    site.real = follow(&site.path)?;
    site.file = file_id(&site.path);
    site.database = Database::of(site.file);
    let turn = site.writing();
    let (found, wal) = site.patient(&db, |db| {
        if !create && !layout.exists(db)? {
            return Err(layout.missing(db)?);
        }
        let wal = match config.read_only {
            true => check_journal(config, site.database.has_log(&site.real)?, false)?,
            false => journal(db, config, create)?,
        };
        synchronous(db, config, wal)?;
        if create {
            make(db, layout)?;
        }
        Ok::<_, Error>((layout.adapt(config, db)?, wal))
    })?;
    drop(turn);
    if seen.is_some_and(|seen| !seen.holds(&site.real)) {
        return Err(untouched::overtaken().with_operation(Operation::Open));
    }
    site.readers_wait = !wal;
    if config.check_on_open {
        let _turn = site.reading();
        site.patient(&db, |db| check(db, "quick_check", Operation::Open))?;
    }
    Ok(Opened { site, db, found, wal })
}

fn prepare(path: &Path, create: bool) -> Result<()> {
    let cannot = |error| Error::io("the database file cannot be reached", error).with_layer(NAME);
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(refused("`path` is not a file; name the database file, not its folder")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !create {
                return Err(missing(path));
            }
            path.parent().map_or(Ok(()), make_folder).map_err(cannot)
        }
        Err(error) => Err(cannot(error)),
    }
}

fn missing(path: &Path) -> Error {
    let near = nearest_beside(path).map(|name| format!("; did you mean '{name}'?"));
    refused(format!(
        "there is no database at `path`, and none is to be made here (`create: false`, `read_only: true`, or a command that only reads){}",
        near.unwrap_or_default()
    ))
}

fn cannot_open(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen) => Error::new(
            ErrorKind::Access,
            "the database file, or its folder, cannot be opened by this process; where it may only be read, set `read_only: true`",
        )
        .with_operation(Operation::Open)
        .with_layer(NAME)
        .with_source(error),
        _ => opening(error),
    }
}

/// Brings the database into its journal mode, or checks it. Says whether it is WAL.
fn journal(db: &Connection, config: &SqliteConfig, create: bool) -> Result<bool> {
    let text = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0));
    let tables: i64 = db
        .query_row("SELECT count(*) FROM main.sqlite_schema", [], |row| row.get(0))
        .map_err(cannot_open)?;
    let fresh = create && tables == 0;
    if fresh {
        // Only possible before the first table: pages can then be given back bit by bit.
        db.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(opening)?;
    }
    let mut wal = text("PRAGMA journal_mode").map_err(opening)? == "wal";
    let wanted = config.journal == Some(Journal::Wal) || config.journal.is_none() && fresh;
    if wanted && !wal && !config.read_only {
        wal = text("PRAGMA journal_mode = WAL").map_err(opening)? == "wal";
    }
    check_journal(config, wal, fresh)
}

fn check_journal(config: &SqliteConfig, wal: bool, fresh: bool) -> Result<bool> {
    match (config.journal, wal) {
        (None | Some(Journal::Wal), false) if config.read_only => Err(refused(
            "the database is not in WAL mode, and with `read_only: true` it is not changed to it; set `journal: rollback` to read it as it is, without snapshots",
        )),
        (Some(Journal::Rollback), true) => Err(refused(
            "the database is in WAL mode, but `journal` is rollback; leave `journal` out",
        )),
        (None, false) if !fresh => Err(refused(
            "the database is not in WAL mode; set `journal: wal` to change that, for every program that uses it, or `journal: rollback` to use it as it is, without snapshots",
        )),
        (None | Some(Journal::Wal), false) => Err(refused(
            "SQLite cannot use a write-ahead log here, most often because the file is on a network; set `journal: rollback`, or move it to a local disk",
        )),
        _ => Ok(wal),
    }
}

fn synchronous(db: &Connection, config: &SqliteConfig, wal: bool) -> Result<()> {
    let level = match (wal, config.sync) {
        (true, true) => "FULL",
        (true, false) => "NORMAL",
        // The folder as well, without which a power cut can bring back the journal of a commit.
        (false, _) => "EXTRA",
    };
    // The writer empties the log itself, in its thread.
    db.execute_batch(&format!("PRAGMA synchronous = {level}")).map_err(opening)?;
    for pragma in ["wal_autocheckpoint = 0".to_owned(), format!("journal_size_limit = {LOG_BYTES}")]
    {
        db.query_row(&format!("PRAGMA {pragma}"), [], |_| Ok(())).map_err(opening)?;
    }
    Ok(())
}

fn make(db: &Connection, layout: &Layout) -> Result<()> {
    if layout.exists(db)? {
        return Ok(());
    }
    let transaction =
        Transaction::new_unchecked(db, TransactionBehavior::Immediate).map_err(opening)?;
    // Somebody else may have been faster.
    if !layout.exists(db)? {
        let sql = layout.create.as_deref().ok_or_else(|| {
            refused("there is no such table, and with `keys: tuple`, or with several columns of a key, none is made, as their types are not known; make it first")
        })?;
        transaction.execute_batch(sql).map_err(|error| {
            opening(error).with_context("making the table, as `create` is true")
        })?;
    }
    transaction.commit().map_err(opening)
}

/// Reads the whole database and says what is wrong with it. SQLite's words name pages, tables and
/// row numbers, no contents.
pub(super) fn check(db: &Connection, how: &str, operation: Operation) -> Result<()> {
    let wrong = |error| failed(operation, error);
    let mut statement = db.prepare(&format!("PRAGMA {how}(100)")).map_err(wrong)?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0)).map_err(wrong)?;
    let lines = lines.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    match lines.split_first() {
        Some((first, rest)) if first != "ok" => Err(Error::corruption(format!(
            "the database is damaged: {first}{}; restore it from a backup, or try `.recover` of the `sqlite3` shell on a copy",
            if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) }
        ))
        .with_operation(operation)
        .with_layer(NAME)),
        _ => Ok(()),
    }
}
