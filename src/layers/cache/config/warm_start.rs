//! The settings of the warm start.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::types::check_path_of;
use crate::types::units::Span;

/// Settings of the warm start of a cache. See the [module docs](crate::layers::cache).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WarmStartConfig {
    /// The file for the keys, written at a close: keys alone, in plain, at most 16MiB.
    pub path: PathBuf,
    /// Keys that are loaded in a second, at most. Default 1000.
    #[serde(default = "default_rate")]
    pub rate: u32,
    /// For how long, at most. Default 1m.
    #[serde(default = "default_within")]
    pub within: Span,
}

const fn default_rate() -> u32 {
    1000
}

const fn default_within() -> Span {
    Span(Duration::from_secs(60))
}

impl WarmStartConfig {
    pub(in crate::layers::cache) fn check(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("warm_start.path is empty; name a file")
                .with_setting("warm_start.path"));
        }
        check_path_of("warm_start.path", &self.path)?;
        for (name, is_zero) in [("rate", self.rate == 0), ("within", self.within.0.is_zero())] {
            if is_zero {
                let message = format!("warm_start.{name} is 0; it must be more, or be left out");
                return Err(Error::config(message).with_setting(format!("warm_start.{name}")));
            }
        }
        Ok(())
    }
}
