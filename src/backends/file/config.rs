//! The settings: their ranges, and what they guarantee.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::entry_files::MAX_VALUE_BYTES;
use super::names::Names;
use crate::error::{Error, Result};
use crate::layer::BackendConfig;
use crate::types::{
    Conditions, Counting, Durability, Freshness, Guarantees, Limits, Place, check_path_of,
};

/// What happens to that which is in the folder and is no entry: a symbolic link, a device, a file whose name
/// stands for no key. See [`FileConfig`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Foreign {
    /// Whatever meets it fails with `Unsupported`, so that a copy or a backup does not leave out silently
    /// what somebody takes for an entry.
    #[default]
    Refuse,
    /// It is left alone, and reads and scans pass it by.
    Skip,
}

/// Settings of the file backend. `path` alone is a good configuration.
///
/// ```
/// use tierstack::backends::FileConfig;
/// use tierstack::backends::file::{Foreign, Names};
/// use tierstack::{BackendConfig, Durability};
///
/// let config = FileConfig {
///     sync: false,
///     names: Some(Names::Portable),
///     fan_out: Some(vec![2, 2]),
///     foreign: Foreign::Skip,
///     ..FileConfig::new("./data/documents")
/// };
/// let guarantees = config.profile()?.guarantees;
/// assert!(guarantees.atomic_batches && guarantees.ordered_scans);
/// assert_eq!(guarantees.durability, Durability::ProcessCrash);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The folder. A relative path is meant from the folder of the config file.
    pub path: PathBuf,
    /// Whether a missing folder is made. Default: true.
    #[serde(default = "yes")]
    pub create: bool,
    /// Whether the folder is only read: then nothing in it is written, made or locked, so that it may be one that this
    /// process cannot write to, or one that its owner has open. Default: false.
    #[serde(default)]
    pub read_only: bool,
    /// Whether a write is acknowledged when it is on the disk. Default: true. With false a write is
    /// acknowledged when the operating system has it: faster by far, and a power cut (not a crash of the
    /// process) can lose it, or halve a batch, unless `flush` was called.
    #[serde(default = "yes")]
    pub sync: bool,
    /// How keys become names. Left out: as the folder has it; `portable` for a new one, and `plain` for one
    /// that has files already, which are then read as they are. It is recorded in the folder, and opening
    /// with another one is refused.
    #[serde(default)]
    pub names: Option<Names>,
    /// Folders for many keys: how many bytes of a key name each level, at most 8 levels of 1 to 64 bytes.
    /// `[2, 2]` puts what begins with `abcd` into `ab%+/cd%+`. Left out: as the folder has it; none for a
    /// new one. Keeps the order of scans, and so does nothing for keys that all begin alike: give the
    /// length of that beginning as the first level. Recorded in the folder; only for new ones.
    #[serde(default)]
    pub fan_out: Option<Vec<u16>>,
    /// What happens to that which is no entry, such as a symbolic link. Default: `refuse`.
    #[serde(default)]
    pub foreign: Foreign,
}

const fn yes() -> bool {
    true
}

const LEVELS: usize = 8;
const WIDTH: u16 = 64;

impl FileConfig {
    /// The defaults, with the folder at that path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            create: true,
            read_only: false,
            sync: true,
            names: None,
            fan_out: None,
            foreign: Foreign::Refuse,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("`path` is empty; name the folder that holds the entries"));
        }
        check_path_of("path", &self.path)?;
        let fan_out = self.fan_out.as_deref().unwrap_or_default();
        if fan_out.len() > LEVELS || fan_out.iter().any(|width| !(1..=WIDTH).contains(width)) {
            return Err(Error::config(format!(
                "`fan_out` must be at most {LEVELS} levels of 1 to {WIDTH} bytes, such as [2, 2]"
            )));
        }
        if !cfg!(target_os = "linux") && !self.sync {
            return Err(Error::config(
                "`sync: false` needs Linux, as `flush` could not sync everything elsewhere; leave it at true",
            ));
        }
        Ok(())
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
            verbatim: true,
            freshness: Freshness::Immediate,
            change_feed: None,
            ordered_scans: true,
            // Its owner's batches are seen file by file.
            atomic_pages: writable,
            snapshots: false,
            expiry: false,
            ingest: writable,
            counts: Counting::No,
            writable,
            places: vec![Place { name: Self::NAME.into(), what: "folder".into(), sealed: false }],
            recovery: None,
            limits: Limits { value_bytes: Some(MAX_VALUE_BYTES), ..Limits::default() },
        }
    }
}
