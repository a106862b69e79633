//! What `write_back` has acknowledged, before something else is written below it.

use super::OpenOptions;
use super::check::Checked;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::layer::LayerConfig as _;
use crate::layers::write_back::{WriteBackConfig, inspect};
use crate::types::units::counted;

impl Checked {
    /// Refuses to restore below a journal that holds writes: what was restored would be overwritten by them.
    pub(super) async fn refuse_waiting(&self, options: &OpenOptions) -> Result<()> {
        let config = self.layer_config::<WriteBackConfig>().and_then(|config| config.path.as_ref());
        let context = self.layer_context(WriteBackConfig::NAME, options);
        let Some((path, context)) = config.zip(context) else { return Ok(()) };
        let path = context.resolve(path);
        if options.over_journal || !Journal::is_in(&path)? {
            return Ok(());
        }
        let waiting = inspect(&path).await?.batches.len();
        if waiting == 0 {
            return Ok(());
        }
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
