//! What `write_back` has acknowledged, while something else is written below it.

use std::sync::Arc;

use async_trait::async_trait;

use super::OpenOptions;
use super::check::Checked;
use crate::error::{Error, ErrorKind, Result};
use crate::forward;
use crate::journal::Journal;
use crate::layer::LayerConfig as _;
use crate::layers::write_back::{WriteBackConfig, hold};
use crate::store::{Read, Store};
use crate::types::units::counted;

impl Checked {
    /// Refuses to restore below a journal that holds writes: what was restored would be overwritten by them. Gives the journal, which no
    /// other opening can have before it is closed: or one could write meanwhile. `None`: there is none.
    pub(super) async fn hold_journal(&self, options: &OpenOptions) -> Result<Option<Journal>> {
        let config = self.layer_config::<WriteBackConfig>().and_then(|config| config.path.as_ref());
        let context = self.layer_context(WriteBackConfig::NAME, options);
        let Some((path, context)) = config.zip(context) else { return Ok(None) };
        let path = context.resolve(path);
        if !Journal::is_in(&path)? {
            return Ok(None);
        }
        let (journal, waiting) = hold(&path).await?;
        if waiting == 0 || options.over_journal {
            return Ok(Some(journal));
        }
        journal.close().await?;
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "the journal of write_back in {} holds {} that this store does not have, and they would be written over what is restored; \
                 write them first with `tierstack journal drain`, take them out with `tierstack journal skip`, or say that they are to be \
                 written over it: `--over-journal`, in a program `OpenOptions::over_journal`",
                path.display(),
                counted(waiting, "batch", "batches")
            ),
        ))
    }
}

/// A store that is restored into, with the journal above it, which is held until the store is closed.
pub(super) struct Holding {
    pub(super) store: Arc<dyn Store>,
    pub(super) journal: Journal,
}

#[deny(clippy::missing_trait_methods)]
impl Read for Holding {
    forward!(self => self.store; get, get_many, scan);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Holding {
    async fn close(&self) -> Result<()> {
        let closed = self.store.close().await;
        closed.and(self.journal.close().await)
    }

    forward!(self => self.store; write, write_group, ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, profile, identity);
}
