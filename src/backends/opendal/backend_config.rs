//! The backend as its settings say it: what it guarantees, what it claims, and opening it.

use std::sync::Arc;

use async_trait::async_trait;

use super::OpenDal;
use super::config::OpenDalConfig;
use crate::error::Result;
use crate::layer::{BackendConfig, Claim, Context};
use crate::objects::{Names, Setting};
use crate::store::Store;
use crate::types::Profile;

#[async_trait]
impl BackendConfig for OpenDalConfig {
    const NAME: &'static str = "opendal";

    fn profile(&self) -> Result<Profile> {
        let guarantees = self.guarantees().map_err(|error| error.with_layer(Self::NAME))?;
        let mut profile = guarantees.profile(Self::NAME);
        if self.names == Names::Plain {
            profile = profile.note(
                "`names` is plain: a key that cannot be a name, such as one that is not UTF-8, is refused.",
            );
        }
        if self.service()?.in_place {
            profile = profile.note(
                "The service may show a file while it is written: other processes may read a part of a value.",
            );
        }
        match self.scheme.as_str() {
            "memcached" => {
                profile = profile.note("memcached drops entries when its memory is full.");
            }
            "webdav" => {
                profile = profile.note(
                    "Whether a WebDAV server keeps half a file of a broken connection is up to the server.",
                );
            }
            _ => {}
        }
        match self.scheme.as_str() {
            "azdls" | "azfile" | "dropbox" | "gdrive" | "onedrive" | "webhdfs" => {
                profile = profile.note("This service takes no empty values: they are refused.");
            }
            _ => {}
        }
        Ok(profile)
    }

    /// Of a folder alone: which user has which rights on a service, only the service knows.
    fn claims(&self, context: &Context) -> Vec<Claim> {
        let root = self.options.iter().find(|(name, _)| name.eq_ignore_ascii_case("root"));
        match (self.scheme.as_str(), root) {
            ("fs", Some((_, Setting::Text(root)))) => {
                vec![Claim::new("the folder", &context.resolve(root.as_ref())).whole().common()]
            }
            _ => Vec::new(),
        }
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(OpenDal::open(self, context).await?))
    }
}
