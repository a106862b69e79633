//! What can be read: the newest state of the database, or a snapshot.

use std::sync::Arc;

use ::rocksdb::{DBPinnableSlice, ReadOptions, Snapshot};
use bytes::Bytes;

use super::engine::Engine;
use super::read_tier::{Tier, Tiers, read_options};
use super::wide_columns;
use crate::error::Result;
use crate::types::Value;

/// One moment of the database.
pub(super) struct Frozen<'a> {
    tiers: Tiers,
    snapshot: Snapshot<'a>,
}

self_cell::self_cell! {
    /// A snapshot, with the database that it borrows.
    pub(super) struct Moment {
        owner: Arc<Engine>,
        #[covariant]
        dependent: Frozen,
    }
}

/// What can be read: the newest state, or a moment.
pub(super) trait View: Send + Sync + 'static {
    fn engine(&self) -> &Engine;
    fn tiers(&self) -> &Tiers;
    fn snapshot(&self) -> Option<&Snapshot<'_>>;

    fn get(&self, key: &[u8], tier: Tier) -> Result<Option<Value>, ::rocksdb::Error> {
        let found = self.engine().db().get_pinned_cf_opt(
            self.engine().family(),
            key,
            self.tiers().of(tier),
        )?;
        Ok(found.map(|pinned| owned(&pinned)))
    }

    /// One answer for each key, in their order. Blocks: RocksDB ignores the memory tier here.
    fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<Value>, ::rocksdb::Error>> {
        let found = self.engine().db().batched_multi_get_cf_opt(
            self.engine().family(),
            keys,
            false,
            self.tiers().of(Tier::Disk),
        );
        found
            .into_iter()
            .map(|result| result.map(|found| found.map(|pinned| owned(&pinned))))
            .collect()
    }

    /// Whether the entry of a key, whose value was found to be empty, is an entity.
    fn is_entity(&self, key: &[u8], tier: Tier) -> Result<bool, ::rocksdb::Error> {
        let (engine, options) = (self.engine(), self.scan_options(tier));
        let mut entries = engine.db().raw_iterator_cf_opt(engine.family(), options);
        entries.seek(key);
        entries.status()?;
        Ok(entries.item().is_some_and(|(at, value)| at == key && wide_columns::is_shown_as(value)))
    }

    /// Options of a scan.
    fn scan_options(&self, tier: Tier) -> ReadOptions {
        let mut options = read_options(tier, self.snapshot());
        // The order of all keys, whatever prefix extractor the database has.
        options.set_total_order_seek(true);
        options.set_background_purge_on_iterator_cleanup(true);
        options
    }
}

fn owned(pinned: &DBPinnableSlice<'_>) -> Value {
    Value::new(Bytes::copy_from_slice(pinned))
}

impl View for Engine {
    fn engine(&self) -> &Engine {
        self
    }

    fn tiers(&self) -> &Tiers {
        Self::tiers(self)
    }

    fn snapshot(&self) -> Option<&Snapshot<'_>> {
        None
    }
}

impl View for Moment {
    fn engine(&self) -> &Engine {
        self.borrow_owner()
    }

    fn tiers(&self) -> &Tiers {
        &self.borrow_dependent().tiers
    }

    fn snapshot(&self) -> Option<&Snapshot<'_>> {
        Some(&self.borrow_dependent().snapshot)
    }
}

impl Moment {
    pub(super) fn of(engine: Arc<Engine>) -> Self {
        Self::new(engine, |engine| {
            let snapshot = engine.db().snapshot();
            Frozen { tiers: Tiers::new(Some(&snapshot)), snapshot }
        })
    }
}
