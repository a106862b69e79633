//! Opening: what is in the folder, whether it can be read as it is, and with which options.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use ::rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Env,
    Options,
};

use super::config::{Compaction, Compression, RocksDbConfig};
use super::failure::failed;
use super::recorded::{Recorded, Section};
use crate::error::{Error, ErrorKind, Operation, Result};

/// Opens the database, with all its column families. Blocks.
pub(super) fn open(config: &RocksDbConfig) -> Result<DB> {
    let path = config.path.as_path();
    let at = |error: Error| {
        error.with_context(path.display()).with_operation(Operation::Open).with_layer("rocksdb")
    };
    let opened = match survey(path).map_err(at)? {
        Contents::Database => open_existing(config),
        Contents::Nothing if config.create => create(config),
        Contents::Nothing => Err(Error::config(
            "there is no database, and `create` is false; correct `path`, or set `create: true`",
        )),
        Contents::Headless => Err(Error::corruption(
            "there are files of a RocksDB database but no CURRENT file; restore it from a backup, or try RocksDB's `ldb repair` on a copy of the folder",
        )),
        Contents::Foreign(name) => Err(Error::config(format!(
            "this folder is not a RocksDB database and holds other files, such as '{name}'; name an empty or a new folder",
        ))),
    };
    opened.map_err(at)
}

/// What is in a folder.
#[derive(Debug, PartialEq, Eq)]
enum Contents {
    /// Nothing, or what a failed attempt to open leaves behind. The folder itself may be missing.
    Nothing,
    Database,
    /// Files of a database, but not the one that says which are current.
    Headless,
    Foreign(String),
}

fn survey(path: &Path) -> Result<Contents> {
    let names = match names(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Nothing),
        Err(error) => return Err(Error::io("the folder cannot be read", error)),
    };
    if names.contains("CURRENT") {
        return Ok(Contents::Database);
    }
    if names.iter().any(|name| name.starts_with("MANIFEST-") || is_table(name)) {
        return Ok(Contents::Headless);
    }
    // `lost+found` stands at the root of a file system that is the database's own.
    let left_over = |name: &str| {
        matches!(name, "LOCK" | "LOG" | "IDENTITY" | "lost+found")
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

fn create(config: &RocksDbConfig) -> Result<DB> {
    create_folder(&config.path)?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(config.background_jobs.map_or_else(processors, to_int));
    // Without this, a thousand of RocksDB's own logs are kept.
    options.set_keep_log_file_num(10);
    keep_promises(&mut options);
    let cache = cache(config);
    // The database is made with the default column family even if it is not the one that is used.
    let families: BTreeSet<&str> =
        [::rocksdb::DEFAULT_COLUMN_FAMILY_NAME, &config.column_family].into();
    let families = families
        .into_iter()
        .map(|name| ColumnFamilyDescriptor::new(name, new_family(config, &cache)));
    DB::open_cf_descriptors(&options, &config.path, families).map_err(refused)
}

/// Makes the folder so that a power cut cannot take it, and the database in it, away again.
fn create_folder(path: &Path) -> Result<()> {
    let failed = |error| Error::io("the folder cannot be made", error);
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(path).map_err(failed)?;
    if cfg!(unix) {
        for parent in missing.into_iter().filter_map(Path::parent) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
    }
    Ok(())
}

fn open_existing(config: &RocksDbConfig) -> Result<DB> {
    let path = config.path.as_path();
    let listed = DB::list_cf(&Options::default(), path).map_err(refused)?;
    let cache = cache(config);
    let (mut options, families) = match Recorded::latest(path)? {
        Some(recorded) => {
            accept(&recorded, &listed, config)?;
            load(config, &recorded, &listed, &cache)?
        }
        // A crash while the database was made, before anything was written to it.
        None if !has_data(path)? => {
            let new = |name: &String| ColumnFamilyDescriptor::new(name, new_family(config, &cache));
            (Options::default(), listed.iter().map(new).collect())
        }
        None => {
            return Err(Error::unsupported(
                "there is no OPTIONS file, so it cannot be told whether this is a RocksDB database, and how its values are to be read; open it once with the program that wrote it",
            ));
        }
    };
    let missing = !listed.contains(&config.column_family);
    if missing && !config.create {
        return Err(Error::config(format!(
            "there is no column family '{}', and `create` is false; there are: {}",
            config.column_family,
            listed.join(", ")
        )));
    }
    options.create_if_missing(false);
    options.set_error_if_exists(false);
    keep_promises(&mut options);
    let db = DB::open_cf_descriptors(&options, path, families).map_err(refused)?;
    if missing {
        db.create_cf(&config.column_family, &new_family(config, &cache)).map_err(refused)?;
    }
    Ok(db)
}

/// Refuses a database that would be misread or damaged without the program that wrote it.
fn accept(recorded: &Recorded, listed: &[String], config: &RocksDbConfig) -> Result<()> {
    if let Some(log) = recorded.log_elsewhere(&config.path) {
        return Err(Error::unsupported(format!(
            "its log is in another folder, {log}, which may be that of the database that this is a copy of. The database was left as it is; if its own folder holds all of its log, empty `wal_dir` in its latest OPTIONS file"
        )));
    }
    for name in listed {
        if let Some(why) = recorded.objection(name, *name == config.column_family) {
            return Err(Error::unsupported(format!(
                "the column family '{name}' {why}. The database was left as it is; only the program that wrote it can open it"
            )));
        }
    }
    Ok(())
}

/// The options that the database was last opened with, changed where the settings say so, over our
/// block cache.
///
/// RocksDB loads options from a file only, and does not give those of a column family away to be
/// changed, so the file is changed, in a folder of its own.
fn load(
    config: &RocksDbConfig,
    recorded: &Recorded,
    listed: &[String],
    cache: &Cache,
) -> Result<(Options, Vec<ColumnFamilyDescriptor>)> {
    let unwritable = |error| Error::io("writing to the folder for temporary files", error);
    let folder = tempfile::tempdir().map_err(unwritable)?;
    let text = recorded.with(&changes(config, recorded));
    fs::write(folder.path().join("OPTIONS-000001"), text).map_err(unwritable)?;
    let loaded =
        Env::new().and_then(|env| Options::load_latest(folder.path(), env, false, cache.clone()));
    let (options, mut families) = loaded.map_err(|error| {
        Error::unsupported(format!(
            "RocksDB 11.8 cannot read the OPTIONS file, which RocksDB {} wrote; if that is newer, use a newer tierstack, or bring the database to an older format with the program that wrote it",
            recorded.version()
        ))
        .with_source(error)
    })?;
    families.retain(|family| listed.iter().any(|name| name == family.name()));
    Ok((options, families))
}

/// What the settings name, in the terms of the OPTIONS file.
fn changes(config: &RocksDbConfig, recorded: &Recorded) -> Vec<(Section, &'static str, String)> {
    let family = Section::Family(config.column_family.clone());
    let table = Section::Table(config.column_family.clone());
    let mut changes = recorded.lost_filters();
    // Keys must get neither into messages nor into RocksDB's own log.
    changes.push((Section::Database, "allow_data_in_errors", "false".into()));
    // Where it is named, it is this folder: `accept` has seen to that.
    changes.push((Section::Database, "wal_dir", String::new()));
    if let Some(jobs) = config.background_jobs {
        changes.push((Section::Database, "max_background_jobs", jobs.to_string()));
    }
    if let Some(size) = config.write_buffer_size {
        changes.push((family.clone(), "write_buffer_size", size.0.to_string()));
    }
    if let Some(buffers) = config.write_buffers {
        changes.push((family.clone(), "max_write_buffer_number", buffers.to_string()));
    }
    if let Some(compression) = config.compression {
        let name = match compression {
            Compression::None => "kNoCompression",
            Compression::Snappy => "kSnappyCompression",
            Compression::Lz4 => "kLZ4Compression",
            Compression::Zstd => "kZSTD",
        };
        changes.push((family.clone(), "compression", name.into()));
        // Where it is set, it wins over `compression`.
        changes.push((family.clone(), "compression_per_level", String::new()));
    }
    if let Some(compaction) = config.compaction {
        let off = compaction == Compaction::Off;
        changes.push((family, "disable_auto_compactions", off.to_string()));
    }
    if let Some(bits) = config.bloom_bits {
        changes.retain(|(section, ..)| *section != table);
        let policy = if bits == 0 { "nullptr".into() } else { format!("bloomfilter:{bits}:false") };
        changes.push((table, "filter_policy", policy));
    }
    changes
}

/// What the profile promises must not depend on what another program has chosen.
fn keep_promises(options: &mut Options) {
    // A write that was acknowledged is with the operating system at least.
    options.set_manual_wal_flush(false);
    // A batch is seen wholly or not at all, also by a snapshot.
    options.set_unordered_write(false);
    // RocksDB's default ends at the first damage in its log as if it were the end of the log, opens, and
    // deletes what follows. An incomplete last record, as after a crash, is still no damage.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // Deleting files that a dropped iterator has held back is left to the background.
    options.set_avoid_unnecessary_blocking_io(true);
}

fn new_family(config: &RocksDbConfig, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    match config.bloom_bits.unwrap_or(10) {
        0 => {}
        bits => table.set_bloom_filter(f64::from(bits), false),
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(match config.compression.unwrap_or(Compression::Lz4) {
        Compression::None => DBCompressionType::None,
        Compression::Snappy => DBCompressionType::Snappy,
        Compression::Lz4 => DBCompressionType::Lz4,
        Compression::Zstd => DBCompressionType::Zstd,
    });
    if let Some(size) = config.write_buffer_size {
        options.set_write_buffer_size(size.as_usize());
    }
    if let Some(buffers) = config.write_buffers {
        options.set_max_write_buffer_number(to_int(buffers));
    }
    options.set_disable_auto_compactions(config.compaction == Some(Compaction::Off));
    options
}

/// How tables are written that the open database is to take in: as it writes its own, as far as the
/// settings or its OPTIONS file say so in words that we have.
pub(super) fn table_options(config: &RocksDbConfig) -> Result<Options> {
    let recorded = Recorded::latest(&config.path)?;
    let compression =
        recorded.and_then(|recorded| match recorded.compression(&config.column_family)? {
            "kNoCompression" => Some(Compression::None),
            "kSnappyCompression" => Some(Compression::Snappy),
            "kLZ4Compression" => Some(Compression::Lz4),
            "kZSTD" => Some(Compression::Zstd),
            _ => None,
        });
    // A block cache of its own would be one too many; a table that is written needs none.
    let none = Cache::new_lru_cache(0);
    let compression = config.compression.or(compression);
    Ok(new_family(&RocksDbConfig { compression, ..config.clone() }, &none))
}

/// A column family that was opened is in the handle's list.
pub(super) fn lost() -> Error {
    Error::internal("RocksDB opened the column family but does not know it")
}

fn cache(config: &RocksDbConfig) -> Cache {
    Cache::new_lru_cache(config.block_cache_size.as_usize())
}

fn to_int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn processors() -> i32 {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    i32::try_from(processors.clamp(2, 8)).unwrap_or(8)
}

/// Whether anything was ever written: a table, or a log that is not empty.
fn has_data(path: &Path) -> Result<bool> {
    let unreadable = |error| Error::io("the folder cannot be read", error);
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_table(&name)
            || (name.ends_with(".log") && entry.metadata().map_err(unreadable)?.len() > 0)
        {
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
