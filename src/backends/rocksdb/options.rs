//! The options that a database is opened with: those that it recorded, changed where the settings or our
//! guarantees say so; and what is left behind of them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use ::rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBPath, DBRecoveryMode,
    Env, Options,
};

use super::config::{Compaction, Compression, RocksDbConfig};
use super::error::failed;
use super::options_file::{Change, Recorded, Section};
use crate::error::{Error, Operation, Result};

/// The options that the database was last opened with, changed where the settings say so, over our
/// block cache.
///
/// RocksDB loads options from a file only, and does not give those of a column family away to be
/// changed, so the file is changed, in a folder of its own.
pub(super) fn load(
    families: &[&RocksDbConfig],
    recorded: &Recorded,
    listed: &[String],
    cache: &Cache,
) -> Result<(Options, Vec<ColumnFamilyDescriptor>)> {
    let unwritable = |error| Error::io("writing to the folder for temporary files", error);
    let folder = tempfile::tempdir().map_err(unwritable)?;
    let text = recorded.with(&changes(families, recorded));
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

/// Leaves the recorded options behind, and what the settings name, in place of the file that RocksDB has
/// just written: its words are those of RocksDB 11.8, and a program with an older one, that loads its options from
/// the file, could not open its database any more.
pub(super) fn put_back(
    path: &Path,
    families: &[&RocksDbConfig],
    recorded: &Recorded,
) -> Result<()> {
    let Some(newest) = Recorded::newest(path)? else { return Ok(()) };
    if newest == recorded.path() {
        return Ok(());
    }
    // RocksDB removes a file of this name when it opens the database.
    let temporary = newest.with_extension("dbtmp");
    replace(&temporary, &newest, &recorded.with(&all_named(families)))
        .map_err(|error| Error::io("RocksDB's OPTIONS file cannot be put back", error))
}

fn replace(temporary: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// How tables are written that the open database is to take in: as it writes its own.
pub(super) fn table_options(config: &RocksDbConfig) -> Result<Options> {
    let Some(recorded) = Recorded::latest(&config.path)? else {
        // A block cache of its own would be one too many; a table that is written needs none.
        return Ok(new_family(config, &Cache::new_lru_cache(0)));
    };
    let text = recorded.tables(&config.column_family, &changes(&[config], &recorded));
    Options::default().get_options_from_string(text).map_err(|error| failed(Operation::Open, error))
}

/// What is changed of the recorded options.
fn changes(families: &[&RocksDbConfig], recorded: &Recorded) -> Vec<Change> {
    let named = all_named(families);
    let mut changes = recorded.lost_filters();
    changes.retain(|(section, key, _)| {
        !named.iter().any(|(at, changed, _)| at == section && changed == key)
    });
    changes.extend(named);
    let guarantees = [
        // Keys must get neither into messages nor into RocksDB's own log.
        ("allow_data_in_errors", "false"),
        // Where it is another folder, `place` names it.
        ("wal_dir", ""),
        // With these, what is damaged or not there is passed over, and then deleted.
        ("best_efforts_recovery", "false"),
        ("paranoid_checks", "true"),
    ];
    let guarantees = guarantees.map(|(key, value)| (Section::Database, key, value.to_owned()));
    changes.extend(guarantees);
    changes
}

/// What the settings of all column families name. What is of the database is in each of them.
fn all_named(families: &[&RocksDbConfig]) -> Vec<Change> {
    let mut all = Vec::new();
    for change in families.iter().flat_map(|config| named(config)) {
        if !all.contains(&change) {
            all.push(change);
        }
    }
    all
}

/// What the settings name, in the terms of the OPTIONS file.
fn named(config: &RocksDbConfig) -> Vec<Change> {
    let family = || Section::Family(config.column_family.clone());
    let mut changes = Vec::new();
    if let Some(jobs) = config.background_jobs {
        changes.push((Section::Database, "max_background_jobs", jobs.to_string()));
    }
    if let Some(size) = config.write_buffer_size {
        changes.push((family(), "write_buffer_size", size.0.to_string()));
    }
    if let Some(buffers) = config.write_buffers {
        changes.push((family(), "max_write_buffer_number", buffers.to_string()));
    }
    if let Some(compression) = config.compression {
        let name = match compression {
            Compression::None => "kNoCompression",
            Compression::Snappy => "kSnappyCompression",
            Compression::Lz4 => "kLZ4Compression",
            Compression::Zstd => "kZSTD",
        };
        changes.push((family(), "compression", name.into()));
        // Where it is set, it wins over `compression`.
        changes.push((family(), "compression_per_level", String::new()));
    }
    if let Some(compaction) = config.compaction {
        let off = compaction == Compaction::Off;
        changes.push((family(), "disable_auto_compactions", off.to_string()));
    }
    if let Some(bits) = config.bloom_bits {
        let policy = if bits == 0 { "nullptr".into() } else { format!("bloomfilter:{bits}:false") };
        changes.push((Section::Table(config.column_family.clone()), "filter_policy", policy));
    }
    changes
}

/// What the profile guarantees must not depend on what another program has chosen.
pub(super) fn keep_guarantees(options: &mut Options) {
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

/// What is to hold where nothing is written.
pub(super) fn keep_reading(options: &mut Options) {
    // A table that the owner removes can still be read once it is open.
    options.set_max_open_files(-1);
}

pub(super) fn new_family(config: &RocksDbConfig, cache: &Cache) -> Options {
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

/// Names the folders in which the files of the database are, next to its own.
pub(super) fn place(options: &mut Options, config: &RocksDbConfig) -> Result<()> {
    if let Some(folder) = &config.wal_dir {
        options.set_wal_dir(folder);
    }
    if !config.db_paths.is_empty() {
        let places = config.db_paths.iter().map(|place| DBPath::new(&place.path, place.size.0));
        let places = places.collect::<Result<Vec<_>, _>>();
        options.set_db_paths(&places.map_err(|error| failed(Operation::Open, error))?);
    }
    Ok(())
}

pub(super) fn new_database(config: &RocksDbConfig) -> Result<Options> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(config.background_jobs.map_or_else(processors, to_int));
    // Without this, a thousand of RocksDB's own logs are kept.
    options.set_keep_log_file_num(10);
    keep_guarantees(&mut options);
    place(&mut options, config)?;
    Ok(options)
}

pub(super) fn cache(config: &RocksDbConfig) -> Cache {
    Cache::new_lru_cache(config.block_cache_size.as_usize())
}

fn to_int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn processors() -> i32 {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    i32::try_from(processors.clamp(2, 8)).unwrap_or(8)
}
