//! The settings of the layer, and the repository that they name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backup::{Location, Repository, Schedule};
use crate::error::{Error, Result};
use crate::layer::Context;
use crate::objects::Shown;

/// Settings of the `backup` layer. See the [module docs](super).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BackupConfig {
    /// Where backups are kept: a folder, or `s3://bucket/path`, `gs://bucket/path`,
    /// `az://container/path` (with the feature `cloud`). A relative folder is taken from that of the
    /// config file. Credentials come from the environment. Required.
    pub to: String,
    /// When a base is taken, in UTC, while a service has the stack open (`OpenOptions::service`; no command
    /// of `tierstack` does): `hourly`, `daily`, `weekly`, or a cron
    /// expression such as `30 2 * * *`. More often loses less with the store, and reads all of it more
    /// often. Default: none; `tierstack backup run` takes one.
    #[serde(default)]
    pub base: Option<Schedule>,
}

impl BackupConfig {
    /// The repository that these settings name, which must exist: to list, verify and restore.
    ///
    /// # Errors
    /// Like [`Repository::open_at`].
    pub async fn repository(&self, context: &Context) -> Result<Repository> {
        Repository::open_at(&self.location(context)?, Arc::clone(&context.clock)).await
    }

    /// The repository that these settings name, created unless it exists: to take a base. Where nothing may
    /// be created, as [`repository`](Self::repository).
    ///
    /// # Errors
    /// Like [`Repository::create_or_open_at`].
    pub async fn create_repository(&self, context: &Context) -> Result<Repository> {
        if !context.may_create {
            return self.repository(context).await;
        }
        Repository::create_or_open_at(&self.location(context)?, Arc::clone(&context.clock)).await
    }

    pub(super) fn location(&self, context: &Context) -> Result<Location> {
        Ok(self.parse()?.within(&context.folder))
    }

    pub(super) fn parse(&self) -> Result<Location> {
        let location: Location =
            self.to.parse().map_err(|error: String| Error::config(error).with_setting("to"))?;
        location.check()?;
        Ok(location)
    }
}

impl fmt::Debug for BackupConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupConfig")
            .field("to", &Shown(&self.to))
            .field("base", &self.base)
            .finish()
    }
}
