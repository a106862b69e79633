//! The backend as its settings say it: what it guarantees, what it claims, and opening it.

use std::sync::Arc;

use async_trait::async_trait;

use super::FileStore;
use super::config::FileConfig;
use crate::error::Result;
use crate::layer::{BackendConfig, Claim, Context};
use crate::store::Store;
use crate::types::Profile;

#[async_trait]
impl BackendConfig for FileConfig {
    const NAME: &'static str = "file";

    fn profile(&self) -> Result<Profile> {
        self.check().map_err(|error| error.with_layer(Self::NAME))?;
        let profile = Profile::backend(Self::NAME, self.guarantees()).note(
            "Other programs may change files: their changes are seen at once, are not atomic with each other, and are not seen by conditional writes that run at the same moment.",
        );
        if self.read_only {
            return Ok(profile.note(
                "`read_only`: nothing in the folder is written, made or locked. A batch that its owner is writing, or did not finish, is seen file by file.",
            ));
        }
        Ok(if self.sync {
            profile
        } else {
            profile.note(
                "`sync` is false: a write is acknowledged before it is on the disk, and a power cut can cost what was written since the last `flush` or leave a batch half done. `flush` makes all of them survive one.",
            )
        })
    }

    fn claims(&self, context: &Context) -> Vec<Claim> {
        if self.read_only {
            return Vec::new();
        }
        vec![Claim::new("the folder", &context.resolve(&self.path)).whole()]
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        let path = context.resolve(&self.path);
        let config = Self { path, ..self.clone() };
        Ok(Arc::new(FileStore::open_for(config, context.may_create).await?))
    }
}
