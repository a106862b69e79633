//! The backend as its settings say it: what it guarantees, what it claims, and opening it.

use std::sync::Arc;

use async_trait::async_trait;

use super::RocksDb;
use super::config::{Compaction, RocksDbConfig};
use crate::error::Result;
use crate::layer::{BackendConfig, Claim, Context};
use crate::store::Store;
use crate::types::Profile;
use crate::types::units::Span;

#[async_trait]
impl BackendConfig for RocksDbConfig {
    const NAME: &'static str = "rocksdb";
    const OWN: &'static [&'static str] = &[
        "column_family",
        "sync",
        "inline_reads",
        "ttl",
        "write_buffer_size",
        "write_buffers",
        "bloom_bits",
        "compression",
        "compaction",
    ];

    fn part(&self) -> String {
        self.column_family.clone()
    }

    fn profile(&self) -> Result<Profile> {
        self.check().map_err(|error| error.with_layer(Self::NAME))?;
        let mut profile = Profile::backend(Self::NAME, self.guarantees());
        if self.read_only {
            profile = profile.note(
                "`read_only`: read as it was when it was opened, without touching its folder. What its owner writes meanwhile is not seen.",
            );
        } else if !self.sync {
            profile = profile.note(
                "`sync` is false: a write is acknowledged before it is on the disk, and a power cut can cost what was written since the last `flush`. `flush` makes all of them survive one.",
            );
        }
        if let Some(ttl) = self.ttl.filter(|Span(ttl)| !ttl.is_zero()) {
            profile = profile.note(format!(
                "`ttl`: an entry ends {ttl} after it was last written, here or by the owner of the database, and compactions remove it."
            ));
        }
        if self.compaction == Some(Compaction::Off) {
            profile = profile.note(
                "`compaction` is off: space is reclaimed only by `compact`, and writes stall once too many files have piled up.",
            );
        }
        Ok(profile)
    }

    fn claims(&self, context: &Context) -> Vec<Claim> {
        let config = self.resolved(context);
        if config.read_only {
            return Vec::new();
        }
        let mut claims = vec![Claim::new("the database", &config.path)];
        claims
            .extend(config.wal_dir.iter().map(|path| Claim::new("the log of the database", path)));
        let tables = config.db_paths.iter().filter(|place| place.path != config.path);
        claims.extend(tables.map(|place| Claim::new("tables of the database", &place.path)));
        claims
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(RocksDb::open_with(self.resolved(context), context).await?))
    }
}
