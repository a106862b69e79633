//! The settings of the second level.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::types::units::ByteSize;
use crate::types::{Durability, Guarantees, Identity, check_path_of};

/// Settings of a cache's second level on disk. See the [module docs](crate::layers::cache).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The folder: empty, or one that was used for this before. It is made if it is missing. One process at
    /// a time can use it, and one cache.
    pub path: PathBuf,
    /// Bytes that it may take on the disk, from 16MiB to 64TiB.
    pub capacity: ByteSize,
    /// Memory that its index may take, in addition to the capacity of the cache: 30 to 60 bytes for each entry. Default: as
    /// much as the capacity of the cache; at least 64KiB, at most 64TiB. With more, small entries fill more of the disk.
    #[serde(default)]
    pub index_memory: Option<ByteSize>,
    /// Whether what is there when the store is closed is served when it is opened again. Default false: it
    /// begins empty. With `true`, writes that others make meanwhile are not seen before `ttl`.
    #[serde(default)]
    pub warm: bool,
}

/// Less holds too little to be worth a folder, and more no machine has.
const MIN_CAPACITY: u64 = 16 << 20;
const MAX_CAPACITY: u64 = 64 << 40;
const MIN_INDEX: u64 = 64 << 10;

impl DiskConfig {
    pub(in crate::layers::cache) fn check(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(
                Error::config("disk.path is empty; name a folder").with_setting("disk.path")
            );
        }
        check_path_of("disk.path", &self.path)?;
        let index = self.index_memory.unwrap_or(ByteSize(MIN_INDEX));
        for (name, size, least) in
            [("capacity", self.capacity, MIN_CAPACITY), ("index_memory", index, MIN_INDEX)]
        {
            if !(least..=MAX_CAPACITY).contains(&size.0) {
                return Err(Error::config(format!(
                    "disk.{name} is {size}; it must be from {} to {}",
                    ByteSize(least),
                    ByteSize(MAX_CAPACITY)
                ))
                .with_setting(format!("disk.{name}")));
            }
        }
        Ok(())
    }

    /// Refuses what would serve entries after a restart that the store below does not vouch for.
    pub(in crate::layers::cache) fn check_below(&self, below: &Guarantees) -> Result<()> {
        if !self.warm {
            return Ok(());
        }
        if below.change_feed.is_some() {
            return Err(Error::config(
                "disk.warm is set over a store with a change feed: changes are missed while the cache is closed, and old answers would be served; leave `warm` out",
            )
            .with_setting("disk.warm"));
        }
        if below.durability_after_flush < Durability::PowerCut {
            return Err(Error::config(format!(
                "disk.warm is set over a store in which a write survives {} even after a flush: the disk would remember what the store has lost; leave `warm` out",
                below.durability_after_flush
            ))
            .with_setting("disk.warm"));
        }
        Ok(())
    }

    /// Refuses to serve after a restart what may be of another store.
    pub(in crate::layers::cache) fn check_identity(&self, below: Option<&Identity>) -> Result<()> {
        if self.warm && below.is_none() {
            return Err(Error::config(
                "disk.warm is set over a store that cannot tell which data it holds, so what is in the folder may be of other data, and that would go unnoticed; leave `warm` out",
            )
            .with_setting("disk.warm"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::settings::CacheConfig;
    use super::*;
    use crate::backends::MemoryConfig;
    use crate::error::ErrorKind;
    use crate::layer::{BackendConfig, LayerConfig as _};
    use crate::types::{Freshness, Profile};

    fn config(warm: bool) -> CacheConfig {
        let capacity = ByteSize(16 << 20);
        let disk = DiskConfig { path: "cache".into(), capacity, index_memory: None, warm };
        CacheConfig {
            disk: Some(disk),
            ttl: Some("10m".parse().unwrap()),
            ..CacheConfig::default()
        }
    }

    fn below(change: impl FnOnce(&mut Guarantees)) -> Profile {
        MemoryConfig::default().profile().unwrap().changed(|guarantees| {
            guarantees.durability_after_flush = Durability::PowerCut;
            change(guarantees);
        })
    }

    #[test]
    fn the_folder_is_a_place_and_a_plain_one() {
        let guarantees = config(false).profile(below(|_| ())).unwrap().guarantees;
        assert_eq!(guarantees.places.len(), 1);
        assert!(!guarantees.places[0].sealed && guarantees.places[0].what == "disk cache");
        assert_eq!(guarantees.freshness, Freshness::Exclusive);
    }

    #[test]
    fn while_the_store_is_closed_nobody_is_alone_with_it() {
        let guarantees = config(true).profile(below(|_| ())).unwrap();
        assert_eq!(guarantees.guarantees.freshness, Freshness::Within(Duration::from_secs(600)));
        assert!(guarantees.notes.iter().any(|note| note.contains("a restore")));
        let for_ever = CacheConfig { ttl: None, ..config(true) };
        let guarantees = for_ever.profile(below(|_| ())).unwrap();
        assert_eq!(guarantees.guarantees.freshness, Freshness::Unbounded);
    }

    #[test]
    fn warm_needs_a_store_that_remembers_and_has_nothing_to_report() {
        let change_feed = below(|guarantees| guarantees.change_feed = Some(Duration::from_secs(1)));
        let forgets =
            below(|guarantees| guarantees.durability_after_flush = Durability::ProcessCrash);
        for (below, why) in [(change_feed, "change feed"), (forgets, "has lost")] {
            let error = config(true).profile(below.clone()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(why), "{error}");
            config(false).profile(below).unwrap();
        }
    }

    #[test]
    fn warm_needs_a_store_that_names_its_data() {
        let (cold, warm) = (config(false).disk.unwrap(), config(true).disk.unwrap());
        let error = warm.check_identity(None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("cannot tell which data it holds"), "{error}");
        warm.check_identity(Some(&Identity::new("file", &["1"]))).unwrap();
        cold.check_identity(None).unwrap();
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let good = || config(false).disk.unwrap();
        let small = DiskConfig { capacity: ByteSize(1 << 20), ..good() };
        let large = DiskConfig { capacity: ByteSize(1000 << 40), ..good() };
        let index = DiskConfig { index_memory: Some(ByteSize(1 << 10)), ..good() };
        let nowhere = DiskConfig { path: PathBuf::new(), ..good() };
        for (disk, what) in [
            (small, "disk.capacity is 1MiB; it must be from 16MiB to 64TiB"),
            (large, "disk.capacity is 1000TiB; it must be from 16MiB to 64TiB"),
            (index, "disk.index_memory is 1KiB; it must be from 64KiB to 64TiB"),
            (nowhere, "disk.path"),
        ] {
            let error = disk.check().unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
