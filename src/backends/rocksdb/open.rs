//! Opening: what is in the folder, and whether it can be read as it is, and left so that its owner can.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::rocksdb::{Cache, ColumnFamilyDescriptor, DB, Options};

use super::config::RocksDbConfig;
use super::engine::Database;
use super::error::failed;
use super::folder_lock::Opened;
use super::options::{
    cache, keep_guarantees, keep_reading, load, new_database, new_family, place, put_back,
};
use super::options_file::Recorded;
use super::{ingest, ttl, wide_columns};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::filesystem::make_folder;
use crate::layer::BackendConfig;
use crate::types::Identity;
use crate::types::units::Span;

/// Opens the database, with all its column families. Blocks.
///
/// `others`: the settings of other stores over it, of which those of their column families are used.
pub(super) fn open(config: &RocksDbConfig, others: &[RocksDbConfig]) -> Result<Arc<Database>> {
    let path = config.path.as_path();
    let at = |error| located(path, error);
    let cache = cache(config);
    let others = others.iter().filter(|other| other.column_family != config.column_family);
    let families: Vec<_> = std::iter::once(config).chain(others).collect();
    // What tierstack made holds no entities.
    let looks = !config.read_only && (config.upgrade || is_of_others(path));
    let opened = match survey(path).map_err(at)? {
        Contents::Database if config.read_only => {
            open_to_read(config, &families, &cache).map(Opened::unlocked)
        }
        Contents::Database => Opened::with(path, || open_existing(config, &families, &cache)),
        Contents::Nothing if config.create && config.ttl.is_some() => Err(Error::config(
            "there is no database, and none with a time to live is made here (`ttl`); make it with the program that is to own it, or leave `ttl` out and add the layer `expire`",
        )),
        Contents::Nothing if config.create => make_folder(path)
            .map_err(|error| Error::io("the folder cannot be made", error))
            .and_then(|()| empty_folders(config))
            .and_then(|()| Opened::with(path, || create(config, &cache))),
        Contents::Nothing => Err(Error::config(format!(
            "there is no database, and {NONE_IS_MADE}; correct `path`{}",
            beside(path)
        ))),
        Contents::Headless => Err(Error::config(
            "this folder holds tables of RocksDB but no CURRENT file, so it is no whole database: a part of one whose tables lie in several folders, or a copy that is not complete; name the folder with the CURRENT file in `path`, and those of the tables in `db_paths`",
        )),
        Contents::LevelDb => Err(Error::unsupported(
            "this looks like a database of LevelDB. RocksDB would take it over, and LevelDB could not open it any more, so it was left as it is; read its entries with a program for LevelDB, and load them with `tierstack import`",
        )),
        Contents::Foreign(name) => Err(Error::config(format!(
            "this folder is not a RocksDB database and holds other files, such as '{name}'; name an empty or a new folder",
        ))),
    };
    let opened = opened.map_err(at)?;
    if !config.read_only {
        ingest::clear(config);
    }
    Ok(Database::new(opened, cache, &config.column_family, looks))
}

fn located(path: &Path, error: Error) -> Error {
    error.with_context(path.display()).with_operation(Operation::Open).with_layer("rocksdb")
}

/// Makes sure of a column family of a database that is open for others, as opening it would. Blocks.
pub(super) fn join(database: &Database, config: &RocksDbConfig) -> Result<()> {
    let (path, name) = (config.path.as_path(), &config.column_family);
    if *name == database.first {
        return Ok(());
    }
    let check = || {
        let recorded = Recorded::latest(path)?;
        if database.db().cf_handle(name).is_none() {
            let listed = DB::list_cf(&Options::default(), path).map_err(refused)?;
            may_add(config, &listed, recorded.as_ref())?;
            let options = new_family(config, &database.cache);
            return database.db().create_cf(name, &options).map_err(refused);
        }
        if let Some(recorded) = &recorded {
            accept(recorded, std::slice::from_ref(name), config)?;
        }
        wide_columns::refuse(database.db(), config)
    };
    check().map_err(|error| located(path, error))
}

/// Why what is missing stays so.
const NONE_IS_MADE: &str =
    "none is made (`create: false`, `read_only`, or a command that only reads)";

/// The databases in the same folder, for a path in which one name is wrong.
fn beside(path: &Path) -> String {
    let is_database = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        entry.path().join("CURRENT").exists().then_some(name)
    };
    let entries = parent_of(path).map(fs::read_dir).and_then(Result::ok);
    let mut names: Vec<_> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| is_database(entry.ok()?))
        .take(10)
        .collect();
    names.sort();
    if names.is_empty() {
        String::new()
    } else {
        format!(" (next to it there are: {})", names.join(", "))
    }
}

/// What is in a folder.
#[derive(Debug, PartialEq, Eq)]
enum Contents {
    /// Nothing, or what a failed attempt to open leaves behind. The folder itself may be missing.
    Nothing,
    Database,
    /// The ancestor of RocksDB, which knows neither `OPTIONS` nor `IDENTITY`.
    LevelDb,
    /// Files of a database, but not the one that says which are current.
    Headless,
    Foreign(String),
}

/// Every opening of a database begins another one.
const FIRST_MANIFEST: &str = "MANIFEST-000001";

fn survey(path: &Path) -> Result<Contents> {
    let names = match names(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Nothing),
        Err(error) => return Err(Error::io("the folder cannot be read", error)),
    };
    if names.contains("CURRENT") {
        let rocksdb = |name: &String| {
            name == "IDENTITY" || name.starts_with("OPTIONS-") || name.ends_with(".sst")
        };
        let known = names.iter().any(rocksdb);
        return Ok(if known { Contents::Database } else { Contents::LevelDb });
    }
    // The manifest comes before CURRENT, which names it: a crash between the two leaves the first one, of no tables and no log.
    let unborn = |name: &String| name == FIRST_MANIFEST && !names.iter().any(|name| is_log(name));
    if names.iter().any(|name| is_table(name) || name.starts_with("MANIFEST-") && !unborn(name)) {
        return Ok(Contents::Headless);
    }
    // `lost+found` is at the root of a file system that is the database's own.
    let left_over = |name: &str| {
        matches!(name, "LOCK" | "LOG" | "IDENTITY" | FIRST_MANIFEST | "lost+found")
            || name.starts_with("LOG.old.")
            || name.ends_with(".dbtmp")
    };
    Ok(match names.into_iter().find(|name| !left_over(name)) {
        Some(name) => Contents::Foreign(name),
        None => Contents::Nothing,
    })
}

fn names(path: &Path) -> io::Result<BTreeSet<String>> {
    fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn is_table(name: &str) -> bool {
    name.ends_with(".sst") || name.ends_with(".ldb")
}

fn is_log(name: &str) -> bool {
    name.ends_with(".log")
}

fn create(config: &RocksDbConfig, cache: &Cache) -> Result<DB> {
    // The database is made with the default column family even if it is not the one that is used.
    let families: BTreeSet<&str> =
        [::rocksdb::DEFAULT_COLUMN_FAMILY_NAME, &config.column_family].into();
    let families = families
        .into_iter()
        .map(|name| ColumnFamilyDescriptor::new(name, new_family(config, cache)));
    DB::open_cf_descriptors(&new_database(config)?, &config.path, families).map_err(refused)
}

/// Makes the other folders of a new database. A log that is there is that of another one, and would be deleted.
fn empty_folders(config: &RocksDbConfig) -> Result<()> {
    let unmade = |error| Error::io("a folder of `wal_dir` or `db_paths` cannot be made", error);
    for folder in config.wal_dir.iter().chain(config.db_paths.iter().map(|place| &place.path)) {
        make_folder(folder).map_err(unmade)?;
        let names = names(folder).map_err(|error| Error::io("the folder cannot be read", error))?;
        if let Some(name) = names.iter().find(|name| is_table(name) || is_log(name)) {
            return Err(Error::config(format!(
                "the database is to be made with the folder {}, where files of another one are, such as '{name}'; name an empty or a new folder in `wal_dir` and `db_paths`",
                folder.display()
            )));
        }
    }
    Ok(())
}

/// The folder in which the path is.
fn parent_of(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// What a database is opened with.
struct Prepared {
    options: Options,
    families: Vec<ColumnFamilyDescriptor>,
    recorded: Option<Recorded>,
    /// The column family is not there, and may be made.
    missing: bool,
}

/// Looks whether the database can be opened as it is. Changes nothing.
fn prepare(config: &RocksDbConfig, families: &[&RocksDbConfig], cache: &Cache) -> Result<Prepared> {
    let path = config.path.as_path();
    let listed = DB::list_cf(&Options::default(), path).map_err(refused)?;
    let recorded = Recorded::latest(path)?;
    let missing = !listed.contains(&config.column_family);
    if missing {
        may_add(config, &listed, recorded.as_ref())?;
    }
    let mine = config;
    let (mut options, families) = match &recorded {
        Some(recorded) => {
            accept(recorded, &listed, config)?;
            if listed.iter().any(|name| recorded.has_ttl(name)) {
                ttl::make_known()?;
            }
            load(families, recorded, &listed, cache)?
        }
        // A crash while the database was made, before anything was written to it.
        None if config.ttl.is_none() && !has_data(path)? && !has_data(config.log_folder())? => {
            let new = |name: &String| {
                let config = families.iter().find(|family| family.column_family == *name);
                ColumnFamilyDescriptor::new(name, new_family(config.unwrap_or(&mine), cache))
            };
            (Options::default(), listed.iter().map(new).collect())
        }
        None => {
            return Err(Error::unsupported(
                "there is no OPTIONS file, so it cannot be told how its values are to be read; if this is a copy, copy that file too, otherwise open the database once with the program that wrote it",
            ));
        }
    };
    options.create_if_missing(false);
    options.set_error_if_exists(false);
    keep_guarantees(&mut options);
    place(&mut options, config)?;
    Ok(Prepared { options, families, recorded, missing })
}

fn open_existing(config: &RocksDbConfig, families: &[&RocksDbConfig], cache: &Cache) -> Result<DB> {
    let path = config.path.as_path();
    let prepared = prepare(config, families, cache)?;
    let missing = prepared.missing;
    let opened = DB::open_cf_descriptors(&prepared.options, path, prepared.families);
    let left = match &prepared.recorded {
        Some(recorded) if !missing && !config.upgrade => put_back(path, families, recorded),
        _ => Ok(()),
    };
    let db = opened.map_err(refused)?;
    left?;
    wide_columns::refuse(&db, config)?;
    if missing {
        db.create_cf(&config.column_family, &new_family(config, cache)).map_err(refused)?;
    }
    Ok(db)
}

/// Opens a database without writing, making or locking anything in its folder.
fn open_to_read(config: &RocksDbConfig, families: &[&RocksDbConfig], cache: &Cache) -> Result<DB> {
    let path = config.path.as_path();
    let Prepared { mut options, families, .. } = prepare(config, families, cache)?;
    keep_reading(&mut options);
    let db = DB::open_cf_descriptors_read_only(&options, path, families, false).map_err(refused)?;
    wide_columns::refuse(&db, config)?;
    Ok(db)
}

/// Whether a program with another version of RocksDB wrote the database. What cannot be read, opening refuses.
fn is_of_others(path: &Path) -> bool {
    matches!(Recorded::latest(path), Ok(Some(recorded)) if !recorded.is_ours())
}

/// Whether a column family may be added to the database.
fn may_add(config: &RocksDbConfig, listed: &[String], recorded: Option<&Recorded>) -> Result<()> {
    let (name, listed) = (&config.column_family, listed.join(", "));
    if !config.create {
        return Err(Error::config(format!(
            "there is no column family '{name}', and {NONE_IS_MADE}; there are: {listed}"
        )));
    }
    let default = ::rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
    if config.ttl.is_some() || recorded.is_some_and(|recorded| recorded.has_ttl(default)) {
        return Err(Error::config(format!(
            "there is no column family '{name}', and none is made in a database with a time to live; there are: {listed}"
        )));
    }
    match recorded {
        Some(recorded) if !recorded.is_ours() && !config.upgrade => Err(Error::config(format!(
            "there is no column family '{name}'; there are: {listed}. It is not made, as the database is that of a program with RocksDB {}, which may be unable to open it then; set `upgrade: true` if it may be changed",
            recorded.version()
        ))),
        _ => Ok(()),
    }
}

/// Refuses a database that would be misread or damaged without the program that wrote it.
fn accept(recorded: &Recorded, listed: &[String], config: &RocksDbConfig) -> Result<()> {
    if let Some(log) = recorded.log_elsewhere(&config.path, config.log_folder()) {
        let log = log.display();
        return Err(Error::unsupported(match &config.wal_dir {
            None => format!(
                "its log is in another folder, {log}, which may be that of the database that this is a copy of. The database was left as it is; if that log is its own, set `wal_dir` to that folder, and if its own folder holds all of its log, empty `wal_dir` in its latest OPTIONS file"
            ),
            Some(named) => format!(
                "its log is in {log}, and not in {}, which `wal_dir` names. The database was left as it is; set `wal_dir` to where the log is, or leave it out if that is the folder of the database",
                named.display()
            ),
        }));
    }
    accept_ttl(recorded, config)?;
    for name in listed {
        if let Some(why) = recorded.objection(name, *name == config.column_family) {
            return Err(Error::unsupported(format!(
                "the column family '{name}' {why}. The database was left as it is; only the program that wrote it can open it"
            )));
        }
    }
    Ok(())
}

/// Refuses a column family whose values are not written as the settings say.
fn accept_ttl(recorded: &Recorded, config: &RocksDbConfig) -> Result<()> {
    let (family, known) = (&config.column_family, recorded.ttl(&config.column_family));
    let known = known.map(|seconds| Span(Duration::from_secs(seconds)));
    let named = match (recorded.has_ttl(family), config.ttl) {
        (false, None) => return Ok(()),
        (false, Some(_)) => {
            return Err(Error::unsupported(format!(
                "the column family '{family}' was not written with a time to live; leave `ttl` out. The database was left as it is"
            )));
        }
        (true, Some(named)) if known.is_none_or(|known| known == named) => return Ok(()),
        (true, named) => named,
    };
    let known =
        known.map_or_else(|| "that of its owner".to_owned(), |known| format!("`ttl: {known}`"));
    Err(Error::unsupported(match named {
        None => format!(
            "the column family '{family}' was written with a time to live, so each value ends in the time at which it was written; set {known} to read it so. The database was left as it is"
        ),
        Some(named) => format!(
            "the column family '{family}' was last opened with another time to live than `ttl: {named}`; set {known}. The database was left as it is"
        ),
    }))
}

/// The identity that RocksDB gave the database when it was made, and its column family.
///
/// A copy of the folder has the same; the file that holds it is another one.
pub(super) fn identity(db: &DB, config: &RocksDbConfig) -> Option<Identity> {
    let id = String::from_utf8(db.get_db_identity().ok()?).ok()?;
    let file = file_number(&config.path.join("IDENTITY"))?;
    Some(Identity::new(RocksDbConfig::NAME, &[id.trim(), &file, &config.column_family]))
}

#[cfg(unix)]
fn file_number(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    Some(fs::metadata(path).ok()?.ino().to_string())
}

#[cfg(not(unix))]
fn file_number(path: &Path) -> Option<String> {
    Some(fs::canonicalize(path).ok()?.to_string_lossy().into_owned())
}

/// Whether anything was ever written: a table, or a log that is not empty.
fn has_data(path: &Path) -> Result<bool> {
    let unreadable = |error| Error::io("the folder cannot be read", error);
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_table(&name) || (is_log(&name) && entry.metadata().map_err(unreadable)?.len() > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The error of opening. A comparator that does not match is found by RocksDB itself as well.
fn refused(error: ::rocksdb::Error) -> Error {
    if error.kind() == ::rocksdb::ErrorKind::InvalidArgument {
        return Error::new(
            ErrorKind::Unsupported,
            "RocksDB cannot open this database with the options that it recorded; open it with the program that wrote it",
        )
        .with_source(error);
    }
    failed(Operation::Open, error)
}
