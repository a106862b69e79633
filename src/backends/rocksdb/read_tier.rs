//! The two tiers in which the database is read: memory, which never waits, and disk.

use ::rocksdb::{ReadOptions, ReadTier, Snapshot};

/// Options of reads. Making them costs about as much as a hit, so they are made once.
pub(super) struct Tiers {
    memory: ReadOptions,
    disk: ReadOptions,
}

/// How far down a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// Memtables and the block cache. What is not there is `Incomplete`.
    Memory,
    /// All of it. Blocks.
    Disk,
}

impl Tiers {
    pub(super) fn new(snapshot: Option<&Snapshot<'_>>) -> Self {
        let options = |tier| read_options(tier, snapshot);
        Self { memory: options(Tier::Memory), disk: options(Tier::Disk) }
    }

    pub(super) fn of(&self, tier: Tier) -> &ReadOptions {
        match tier {
            Tier::Memory => &self.memory,
            Tier::Disk => &self.disk,
        }
    }
}

pub(super) fn read_options(tier: Tier, snapshot: Option<&Snapshot<'_>>) -> ReadOptions {
    let mut options = ReadOptions::default();
    if tier == Tier::Memory {
        options.set_read_tier(ReadTier::BlockCache);
    }
    if let Some(snapshot) = snapshot {
        options.set_snapshot(snapshot);
    }
    options
}
