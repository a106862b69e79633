//! The settings: their ranges, and what they guarantee.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layer::{BackendConfig, Context};
use crate::types::units::{ByteSize, Span};
use crate::types::{
    Conditions, Counting, Durability, Freshness, Guarantees, Limits, Place, check_path_of,
};

/// How RocksDB compresses blocks. See [`RocksDbConfig`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all: right below a `compress` or `encrypt` layer, whose values do not shrink again.
    None,
    /// Snappy: fast, for databases that older tools must read.
    Snappy,
    /// LZ4: costs next to nothing, so it is the default of a new database.
    Lz4,
    /// Zstandard: the smallest files, at several times the CPU time of LZ4.
    Zstd,
}

/// Whether RocksDB compacts by itself. See [`RocksDbConfig`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Compaction {
    /// In the background, as needed.
    Auto,
    /// Only when `compact` is called. Reads and space use get worse until then, and writes stall
    /// once enough files have piled up.
    Off,
}

/// A folder for tables. See [`RocksDbConfig::db_paths`].
///
/// ```
/// use tierstack::backends::RocksDbConfig;
/// use tierstack::backends::rocksdb::TableFolder;
/// use tierstack::units::ByteSize;
///
/// let folder = |path: &str, size| TableFolder { path: path.into(), size: ByteSize(size) };
/// let db_paths = vec![folder("/fast/orders", 100 << 30), folder("/large/orders", 4 << 40)];
/// let config = RocksDbConfig { db_paths, ..RocksDbConfig::new("/fast/orders") };
/// # assert_eq!(config.db_paths.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TableFolder {
    /// The folder. A relative path is meant from the folder of the config file.
    pub path: PathBuf,
    /// How large its tables should become at most. What is more goes to the next folder; the last one takes the rest.
    pub size: ByteSize,
}

/// Settings of the RocksDB backend.
///
/// A setting that is left out keeps what the database has; a new database gets the default that is
/// named here. `path` alone is a good configuration.
///
/// ```
/// use tierstack::backends::RocksDbConfig;
/// use tierstack::backends::rocksdb::{Compaction, Compression};
/// use tierstack::{BackendConfig, Durability};
///
/// let config = RocksDbConfig {
///     sync: false,
///     compression: Some(Compression::Zstd),
///     compaction: Some(Compaction::Off),
///     ..RocksDbConfig::new("./data/orders")
/// };
/// let guarantees = config.profile()?.guarantees;
/// assert_eq!(guarantees.durability, Durability::ProcessCrash);
/// assert_eq!(guarantees.durability_after_flush, Durability::PowerCut);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RocksDbConfig {
    /// The folder of the database. A relative path is meant from the folder of the config file.
    pub path: PathBuf,
    /// The column family that is this store. Default: `default`. The others stay as they are.
    #[serde(default = "default_family")]
    pub column_family: String,
    /// Whether a missing database or column family is made. Default: true.
    #[serde(default = "yes")]
    pub create: bool,
    /// Whether a database that another version of RocksDB wrote may be changed in ways that this version may
    /// not understand: its OPTIONS file is then that of RocksDB 11.8, and column families may be added. Default: false.
    #[serde(default)]
    pub upgrade: bool,
    /// Whether the database is only read, as it is when it is opened. Default: false. Nothing in its folder is written, made
    /// or locked: a folder without rights to write will do. Another program may have it open; what that writes later is not
    /// seen.
    #[serde(default)]
    pub read_only: bool,
    /// The time to live with which its owner opens the database (RocksDB's `DBWithTTL`), from 0s, with which entries stay, to 10000d.
    /// Default: the database has none. Entries then end so long after they were written, those that are written here too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// The folder of the log, where it is not that of the database (RocksDB's `wal_dir`). It must be where the
    /// database's own OPTIONS file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_dir: Option<PathBuf>,
    /// The folders of the tables, where they are not in that of the database alone (RocksDB's `db_paths`): as the
    /// program that owns the database names them, in its order, as RocksDB does not record them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub db_paths: Vec<TableFolder>,
    /// Whether a write is acknowledged when it is on the disk. Default: true. Concurrent writes
    /// share one fsync. With false a write is acknowledged when the operating system has it: faster by
    /// far, and lost by a power cut (not by a crash of the process) unless `flush` was called.
    #[serde(default = "yes")]
    pub sync: bool,
    /// Memory for blocks that were read, shared by all column families; from 1MiB to 1TiB. Default:
    /// 256MiB, also for an existing database, as RocksDB does not record it. What is in it is answered
    /// without the disk and without a thread.
    #[serde(default = "default_block_cache")]
    pub block_cache_size: ByteSize,
    /// Whether the disk is read on the thread of the caller while it answers within 50 µs, as it does from the
    /// system's memory. Default: true. With false a thread reads it, which takes up to ten times as long: for a disk that
    /// may stop answering, such as one of the network, below a runtime of few threads.
    #[serde(default = "yes")]
    pub inline_reads: bool,
    /// Size of a memtable, from 64KiB to 64GiB. New database: 64MiB. Larger ones make fewer, larger
    /// files, cost memory, and make opening after a crash longer.
    #[serde(default)]
    pub write_buffer_size: Option<ByteSize>,
    /// Memtables at most, from 2 to 64. New database: 2. More of them absorb longer bursts of writes.
    #[serde(default)]
    pub write_buffers: Option<u32>,
    /// Bits of bloom filter for each key, from 0 to 32; 0 is none. New database: 10, with which 1 in 100
    /// lookups of a missing key reads a block in vain. Takes effect on files written from then on.
    #[serde(default)]
    pub bloom_bits: Option<u32>,
    /// How blocks are compressed. New database: `lz4`. Takes effect on files written from then on.
    /// Values of a `compress` layer do not need it.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// Threads for flushes and compactions, from 1 to 256. New database: one for each processor, at
    /// least 2 and at most 8.
    #[serde(default)]
    pub background_jobs: Option<u32>,
    /// Whether compaction runs by itself. New database: `auto`.
    #[serde(default)]
    pub compaction: Option<Compaction>,
}

fn default_family() -> String {
    ::rocksdb::DEFAULT_COLUMN_FAMILY_NAME.to_owned()
}

const fn yes() -> bool {
    true
}

const fn default_block_cache() -> ByteSize {
    ByteSize(256 << 20)
}

const TTL: RangeInclusive<Span> = Span(Duration::ZERO)..=Span(Duration::from_secs(864_000_000));
const BLOCK_CACHE: RangeInclusive<ByteSize> = ByteSize(1 << 20)..=ByteSize(1 << 40);
/// RocksDB moves a size outside this range into it silently.
const WRITE_BUFFER: RangeInclusive<ByteSize> = ByteSize(64 << 10)..=ByteSize(64 << 30);
const WRITE_BUFFERS: RangeInclusive<u32> = 2..=64;
const BLOOM_BITS: RangeInclusive<u32> = 0..=32;
const BACKGROUND_JOBS: RangeInclusive<u32> = 1..=256;

/// A write batch holds the length of a value in 32 bits; a quarter is left for key and headers.
const MAX_VALUE_BYTES: u64 = 3 << 30;

impl RocksDbConfig {
    /// The defaults, with the database at that path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            column_family: default_family(),
            create: true,
            upgrade: false,
            read_only: false,
            ttl: None,
            wal_dir: None,
            db_paths: Vec::new(),
            sync: true,
            block_cache_size: default_block_cache(),
            inline_reads: true,
            write_buffer_size: None,
            write_buffers: None,
            bloom_bits: None,
            compression: None,
            background_jobs: None,
            compaction: None,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("`path` is empty; name the folder of the database"));
        }
        check_path_of("path", &self.path)?;
        self.wal_dir.iter().try_for_each(|path| check_path_of("wal_dir", path))?;
        self.db_paths.iter().try_for_each(|place| check_path_of("db_paths", &place.path))?;
        let mut folders = self.wal_dir.as_deref().into_iter().chain(self.table_folders());
        if folders.any(|folder| folder.as_os_str().as_encoded_bytes().contains(&0)) {
            return Err(Error::config("a path holds a NUL, which no path of this system has"));
        }
        if self.column_family.is_empty() || self.column_family.contains('\0') {
            return Err(Error::config(
                "`column_family` must have at least one character and no NUL; leave it out for `default`",
            ));
        }
        within("ttl", self.ttl, &TTL)?;
        within("block_cache_size", Some(self.block_cache_size), &BLOCK_CACHE)?;
        within("write_buffer_size", self.write_buffer_size, &WRITE_BUFFER)?;
        within("write_buffers", self.write_buffers, &WRITE_BUFFERS)?;
        within("bloom_bits", self.bloom_bits, &BLOOM_BITS)?;
        within("background_jobs", self.background_jobs, &BACKGROUND_JOBS)
    }

    /// The folder of the log.
    pub(super) fn log_folder(&self) -> &Path {
        self.wal_dir.as_ref().unwrap_or(&self.path)
    }

    /// The folders in which tables are.
    pub(super) fn table_folders(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.path)
            .chain(self.db_paths.iter().map(|place| &place.path))
            .map(PathBuf::as_path)
    }

    /// The same settings, with paths that no folder of a config is needed for.
    pub(super) fn resolved(&self, context: &Context) -> Self {
        let mut config = self.clone();
        config.path = context.resolve(&self.path);
        config.wal_dir = self.wal_dir.as_ref().map(|path| context.resolve(path));
        config.db_paths.iter_mut().for_each(|place| place.path = context.resolve(&place.path));
        config.create = self.create && context.may_create;
        config
    }

    pub(super) fn guarantees(&self) -> Guarantees {
        let writable = !self.read_only;
        Guarantees {
            durability: if self.sync { Durability::PowerCut } else { Durability::ProcessCrash },
            durability_on_request: if self.sync {
                Durability::PowerCut
            } else {
                Durability::ProcessCrash
            },
            durability_after_flush: Durability::PowerCut,
            atomic_batches: true,
            conditions: if writable { Conditions::Value } else { Conditions::None },
            // A deadline is added.
            verbatim: self.ttl.is_none_or(|Span(ttl)| ttl.is_zero()),
            freshness: if writable { Freshness::Exclusive } else { Freshness::Unbounded },
            change_feed: None,
            ordered_scans: true,
            atomic_pages: true,
            snapshots: true,
            expiry: false,
            ingest: writable,
            counts: Counting::Estimated,
            writable,
            places: vec![Place { name: Self::NAME.into(), what: "database".into(), sealed: false }],
            recovery: None,
            limits: Limits { value_bytes: Some(MAX_VALUE_BYTES), ..Limits::default() },
        }
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: Option<T>,
    range: &RangeInclusive<T>,
) -> Result<()> {
    match value {
        Some(value) if !range.contains(&value) => Err(Error::config(format!(
            "`{name}` is {value}, but must be from {} to {}",
            range.start(),
            range.end()
        ))),
        _ => Ok(()),
    }
}
