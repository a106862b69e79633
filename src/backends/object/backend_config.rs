//! The backend as its settings say it: what it guarantees, what it claims, and opening it.

use std::sync::Arc;

use async_trait::async_trait;

use super::Object;
use super::config::{ObjectConfig, Target};
use crate::error::Result;
use crate::layer::{BackendConfig, Claim, Context};
use crate::objects::{Names, Setting};
use crate::store::Store;
use crate::types::Profile;

#[async_trait]
impl BackendConfig for ObjectConfig {
    const NAME: &'static str = "object";

    fn profile(&self) -> Result<Profile> {
        let guarantees = self.guarantees().map_err(|error| error.with_layer(Self::NAME))?;
        let profile = guarantees.profile(Self::NAME);
        Ok(match self.names {
            Names::Escaped => profile,
            Names::Plain => profile.note(
                "`names` is plain: a key that cannot be the name of an object, such as one that is not UTF-8, is refused.",
            ),
        })
    }

    fn claims(&self, context: &Context) -> Vec<Claim> {
        // What is no place is said when it is checked.
        let Ok(Target::At(location)) = self.target() else { return Vec::new() };
        let server = self.options.iter().find_map(|(name, value)| match value {
            Setting::Text(text) if name.to_ascii_lowercase().ends_with("endpoint") => Some(&**text),
            _ => None,
        });
        let location = location.within(&context.folder);
        vec![location.claim("the objects in", server.unwrap_or_default()).whole().common()]
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Object::open(self, context).await?))
    }
}
