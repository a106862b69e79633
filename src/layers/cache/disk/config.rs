//! The settings of the tier.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::types::units::ByteSize;

/// Settings of a cache's second level on disk. See the [module docs](crate::layers::cache).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The folder: empty, or one that was used for this before. It is made if it is missing. One process at
    /// a time can use it, and one cache.
    pub path: PathBuf,
    /// Bytes that it may take on the disk, at least 16MiB. Its index takes 30 to 60 bytes of memory for each
    /// entry, beside the capacity of the cache.
    pub capacity: ByteSize,
    /// Whether what is there when the store is closed is served when it is opened again. Default false: it
    /// begins empty. With `true`, writes that others make meanwhile are not seen before `ttl`.
    #[serde(default)]
    pub warm: bool,
}

/// Less holds too little to be worth a folder.
const MIN_CAPACITY: u64 = 16 << 20;

impl DiskConfig {
    pub(in super::super) fn check(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("disk.path is empty; name a folder"));
        }
        if self.capacity.0 < MIN_CAPACITY {
            return Err(Error::config(format!(
                "disk.capacity is {}; it must be at least {}",
                self.capacity,
                ByteSize(MIN_CAPACITY)
            )));
        }
        Ok(())
    }
}
