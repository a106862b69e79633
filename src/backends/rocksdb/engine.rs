//! The open database, and the stores' hold on it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::rocksdb::{BoundColumnFamily, Cache, DB, IngestExternalFileOptions, properties};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::error::{failed, lost};
use super::folder_lock::Opened;
use super::inline_policy::Pace;
use super::read_tier::Tiers;
use super::ttl::Stamps;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::types::Usage;

/// The handle of a column family belongs to the database that it was opened with.
type Family<'a> = Arc<BoundColumnFamily<'a>>;

self_cell::self_cell! {
    /// A database with the column family that is read and written.
    ///
    /// An `Arc` of it is held only by code that runs, or that runs by itself to its end in a thread;
    /// never by a future that a caller may leave alone, as closing waits for the last one.
    pub(super) struct Engine {
        owner: Hold,
        #[covariant]
        dependent: Family,
    }
}

/// An open database, which the stores over its column families have in common.
pub(super) struct Database {
    opened: Opened,
    tiers: Tiers,
    /// Whether an entity may be among the entries: a put looks at what it replaces.
    looks: bool,
    /// Shared by writes, except for one with conditions: nothing is written between its check and its write.
    writing: RwLock<()>,
    /// For column families that are made later.
    pub(super) cache: Cache,
    /// The column family that it was opened for.
    pub(super) first: String,
    /// Engines that have not been told to close, or [`CLOSING`].
    users: AtomicUsize,
}

/// The last engine was told to close: background work ends for good, so no other may begin to use the database.
const CLOSING: usize = usize::MAX;

impl Database {
    pub(super) fn new(opened: Opened, cache: Cache, first: &str, looks: bool) -> Arc<Self> {
        let (tiers, writing) = (Tiers::new(None), RwLock::new(()));
        let (first, users) = (first.to_owned(), AtomicUsize::new(0));
        Arc::new(Self { opened, tiers, looks, writing, cache, first, users })
    }

    pub(super) fn db(&self) -> &DB {
        self.opened.db()
    }

    fn enter(&self) -> Result<()> {
        // There is no number behind `CLOSING`.
        let one_more = |users: usize| users.checked_add(1);
        match self.users.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(
                ErrorKind::Conflict,
                "the last store that had the database open is just closing it; open this one again",
            )),
        }
    }

    /// Whether it was the last one.
    fn leave(&self) -> bool {
        let one_less = |users| Some(if users == 1 { CLOSING } else { users - 1 });
        self.users.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less) == Ok(1)
    }
}

/// An engine's hold on the database. The fields are dropped in this order.
pub(super) struct Hold {
    database: Arc<Database>,
    pace: Pace,
    stamps: Option<Stamps>,
    left: AtomicBool,
    /// Dropped when this engine, and with the last one the database, has let go of the folder.
    _gone: watch::Sender<()>,
}

impl Hold {
    /// Whether this is the last one, at the first call.
    fn leave(&self) -> bool {
        let first = !self.left.swap(true, Ordering::AcqRel);
        first && self.database.leave()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Engine {
    pub(super) fn over(
        database: Arc<Database>,
        family: &str,
        pace: Pace,
        stamps: Option<Stamps>,
        gone: watch::Sender<()>,
    ) -> Result<Self> {
        database.enter()?;
        let hold = Hold { database, pace, stamps, left: AtomicBool::new(false), _gone: gone };
        Self::try_new(hold, |hold| hold.database.db().cf_handle(family).ok_or_else(lost))
    }

    pub(super) fn db(&self) -> &DB {
        self.borrow_owner().database.db()
    }

    /// Says that this engine is to close. Whether no other has the database open.
    pub(super) fn leave(&self) -> bool {
        self.borrow_owner().leave()
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.borrow_owner().pace
    }

    /// Where values end in the time at which they were written.
    pub(super) fn stamps(&self) -> Option<&Stamps> {
        self.borrow_owner().stamps.as_ref()
    }

    pub(super) fn family(&self) -> &Family<'_> {
        self.borrow_dependent()
    }

    /// Whether an entity may be among the entries.
    pub(super) fn looks(&self) -> bool {
        self.borrow_owner().database.looks
    }

    pub(super) fn tiers(&self) -> &Tiers {
        &self.borrow_owner().database.tiers
    }

    /// Shared by writes, except for one with conditions.
    pub(super) fn writing(&self) -> &RwLock<()> {
        &self.borrow_owner().database.writing
    }

    /// Takes in a table: all of its entries or none. Blocks, and other writes with it while entries of the
    /// same keys are moved out of memory.
    pub(super) fn ingest(&self, table: &Path) -> Result<()> {
        let _shared = self.writing().read();
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db()
            .ingest_external_file_cf_opts(self.family(), &options, vec![table])
            .map_err(|error| failed(Operation::Ingest, error))
    }

    pub(super) fn number(&self, property: &properties::PropName) -> Option<u64> {
        self.db().property_int_value_cf(self.family(), property).ok().flatten()
    }

    pub(super) fn usage(&self) -> Usage {
        let sum = |properties: &[&properties::PropName]| {
            Some(properties.iter().filter_map(|property| self.number(property)).sum())
        };
        Usage {
            entries: self.number(properties::ESTIMATE_NUM_KEYS),
            memory_bytes: sum(&[
                properties::SIZE_ALL_MEM_TABLES,
                properties::BLOCK_CACHE_USAGE,
                properties::ESTIMATE_TABLE_READERS_MEM,
            ]),
            stored_bytes: sum(&[properties::TOTAL_SST_FILES_SIZE]),
        }
    }

    /// Makes a compaction that runs end soon, and stalled writes fail.
    pub(super) fn cancel_background_work(&self) {
        self.db().cancel_all_background_work(false);
    }
}
