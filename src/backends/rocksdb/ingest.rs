//! Sorted runs as tables of their own, which RocksDB takes in as they are: not by way of its log and its
//! memory, and not to be compacted again where nothing overlaps them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ::rocksdb::{Options, SstFileWriter};

use super::config::RocksDbConfig;
use super::engine::Engine;
use super::error::failed;
use super::options::table_options;
use super::read_tier::Tier;
use super::ttl::Stamps;
use crate::error::{Error, Operation, Result};
use crate::types::{Batch, Op};

/// A table is made of so many bytes of keys and values. Two lots are in memory at a time: one is
/// collected while the other is written.
pub(super) const LOT_BYTES: usize = 32 << 20;
/// Less than this goes the way of a batch: a table of its own would cost more than it saves.
const TABLE_BYTES: usize = 4 << 20;

/// Inside the database's folder, so that a table is moved and not copied.
const FOLDER: &str = "tierstack-ingest";

/// Makes tables.
pub(super) struct Tables {
    folder: PathBuf,
    options: Options,
}

/// Stores over one database make their tables in the same folder.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Removes what a crash has left of an earlier run, of a database that was just opened. Blocks.
pub(super) fn clear(config: &RocksDbConfig) {
    match fs::remove_dir_all(config.path.join(FOLDER)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "what is left of an interrupted bulk load cannot be removed");
        }
        _ => {}
    }
}

impl Tables {
    /// For the column family. Blocks.
    pub(super) fn of(config: &RocksDbConfig) -> Result<Self> {
        Ok(Self { folder: config.path.join(FOLDER), options: table_options(config)? })
    }

    /// Puts sorted entries, all of them or none. Blocks.
    pub(super) fn take_in(&self, engine: &Engine, lot: &Batch, sync: bool) -> Result<()> {
        if lot.bytes() < TABLE_BYTES {
            return engine.write(lot, sync);
        }
        engine.check_replaced(lot, Tier::Disk)?;
        fs::create_dir_all(&self.folder)
            .map_err(|error| Error::io("the folder for tables cannot be made", error))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let table = Temporary(self.folder.join(format!("{number}.sst")));
        self.write(&table.0, lot, engine.stamps())
            .map_err(|error| failed(Operation::Ingest, error))?;
        engine.ingest(&table.0)
    }

    /// The file is synced when it is finished.
    fn write(
        &self,
        path: &Path,
        lot: &Batch,
        stamps: Option<&Stamps>,
    ) -> Result<(), ::rocksdb::Error> {
        let mut writer = SstFileWriter::create(&self.options);
        writer.open(path)?;
        for op in lot.ops() {
            if let Op::Put(key, value) = op {
                match stamps {
                    Some(stamps) => writer.put(key, stamps.stamped(&value.bytes))?,
                    None => writer.put(key, &value.bytes)?,
                }
            }
        }
        writer.finish()
    }

    /// Leaves nothing in the folder of the database.
    pub(super) fn remove_folder(&self) {
        // It is not there, or holds a table that is being written: then opening removes it.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A file that is gone in the end, unless RocksDB has moved it away before.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
