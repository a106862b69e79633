//! The settings: what they promise, and the client they make.

use std::sync::Arc;
use std::time::Duration;

use ::object_store::ObjectStore;
use ::object_store::memory::InMemory;
use async_trait::async_trait;
use serde::Deserialize;

use super::Object;
use crate::error::{Error, Result};
use crate::layer::{BackendConfig, Context};
use crate::objects::{
    Connection, Location, MAX_VALUE_BYTES, Names, Naming, Options, Promises, check_durability,
};
use crate::store::Store;
use crate::types::units::Span;
use crate::types::{Durability, Profile};

/// Settings of the backend `object`.
///
/// ```
/// use tierstack::backends::ObjectConfig;
/// use tierstack::{BackendConfig, Durability};
///
/// let config = ObjectConfig {
///     durability: Some(Durability::MachineLoss),
///     conditional_writes: true,
///     ..ObjectConfig::new("s3://acme/orders")
/// };
/// let promised = config.profile()?.guarantees;
/// assert!(promised.ordered_scans && promised.conditional_writes && !promised.atomic_batches);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ObjectConfig {
    /// `s3://bucket/path`, `gs://bucket/path`, `az://container/path` (feature `cloud`), `file:///path` or a
    /// folder, which is made if it is not there, or `memory://`.
    pub url: String,
    /// Options of the service by `object_store`'s names for them, such as `endpoint`, `region`, `allow_http`,
    /// `access_key_id`. They come before those of the environment (`AWS_...`, `GOOGLE_...`, `AZURE_...`).
    /// Default: none.
    #[serde(default)]
    pub options: Options,
    /// How keys become names. Default: `escaped`. `plain` for a bucket with names beyond plain ASCII.
    #[serde(default)]
    pub names: Names,
    /// Whether scans are offered. Default: true, and false for a folder. False for a service that does not
    /// list in order, such as an S3 directory bucket.
    #[serde(default)]
    pub scans: Option<bool>,
    /// Whether a batch can depend on its key being absent. Default: false. Tried out when the store is
    /// opened, which writes a few small objects and removes them.
    #[serde(default)]
    pub conditional_writes: bool,
    /// What an acknowledged write survives. Default: `power_cut` for a bucket. `machine_loss` says that the
    /// service keeps what it acknowledged on more than one machine, as Amazon S3, Google Cloud Storage and
    /// Azure do, and a server of your own may not. A folder has `process_crash`, as removals are not synced.
    #[serde(default)]
    pub durability: Option<Durability>,
    /// The deadline of one request: a get, a put, a part of 8 MiB, a page of a listing. Default: 30s. What
    /// fails in passing is repeated within the same span, so an operation on a service that is gone fails
    /// within twice as long.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

const fn default_timeout() -> Span {
    Span(Duration::from_secs(30))
}

const RETRIES: usize = 10;
/// What S3, Google Cloud Storage and Azure take.
const NAME_BYTES: usize = 1024;
/// Segments that a name may have in Azure.
const AZURE_SEGMENTS: usize = 254;
/// Of the 255 of most file systems, some are for the name under which a file is written first.
const FILE_NAME_BYTES: usize = 240;

/// What is behind the URL.
enum Target {
    Memory,
    At(Location),
}

impl ObjectConfig {
    /// The defaults, with what is under that URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            options: Options::new(),
            names: Names::default(),
            scans: None,
            conditional_writes: false,
            durability: None,
            timeout: default_timeout(),
        }
    }

    fn target(&self) -> Result<Target> {
        if self.url.trim_end_matches('/') == "memory:" {
            return Ok(Target::Memory);
        }
        // Their words are not quoted.
        if self.url.contains("://") && self.url.contains(['?', '#', '@']) {
            return Err(Error::config(
                "`url` is only scheme, bucket and path; put credentials and the like into `options`",
            ));
        }
        let location: Location =
            self.url.parse().map_err(|what| Error::config(format!("`url`: {what}")))?;
        location.check()?;
        Ok(Target::At(location))
    }

    pub(super) fn naming(&self) -> Result<Naming> {
        Ok(match (self.names, self.target()?) {
            (Names::Plain, Target::At(Location::Bucket { scheme: "az", .. })) => Naming::PlainAzure,
            (Names::Plain, _) => Naming::Plain,
            (Names::Escaped, Target::At(Location::Folder(_))) => Naming::Flat,
            (Names::Escaped, _) => Naming::Ordered,
        })
    }

    pub(super) fn name_bytes(&self) -> Result<usize> {
        self.promises().map(|promises| promises.name_bytes)
    }

    fn promises(&self) -> Result<Promises> {
        use Durability::{MachineLoss, Nothing, PowerCut, ProcessCrash};
        crate::objects::check_options(&self.options)?;
        if self.timeout.0.is_zero() {
            return Err(Error::config("`timeout` must be longer than 0s"));
        }
        let (name_bytes, durability, most, place) = match self.target()? {
            Target::Memory => (NAME_BYTES, Nothing, Nothing, None),
            Target::At(Location::Folder(_)) => {
                if self.scans == Some(true) {
                    return Err(Error::config(
                        "`scans`: a folder lists in no order; leave the setting out, or use the backend `file`",
                    ));
                }
                (FILE_NAME_BYTES, ProcessCrash, ProcessCrash, Some("folder"))
            }
            Target::At(Location::Bucket { path, .. }) => {
                let prefix = if path.is_empty() { 0 } else { path.len() + 1 };
                (NAME_BYTES.saturating_sub(prefix), PowerCut, MachineLoss, Some("bucket"))
            }
        };
        let mut key_bytes = self.naming()?.key_bytes(name_bytes);
        if let (Names::Escaped, Target::At(Location::Bucket { scheme: "az", path, .. })) =
            (self.names, self.target()?)
        {
            // A key of slashes has a segment more.
            key_bytes = key_bytes.min(AZURE_SEGMENTS.saturating_sub(path.split('/').count() + 1));
        }
        if key_bytes == 0 {
            return Err(Error::config("`url`: the path leaves no room for keys; shorten it"));
        }
        Ok(Promises {
            durability: check_durability(self.durability, durability, most)?,
            conditional_writes: self.conditional_writes,
            scans: self.scans.unwrap_or(place != Some("folder")),
            key_bytes,
            name_bytes,
            value_bytes: MAX_VALUE_BYTES,
            place,
            private: place.is_none(),
        })
    }

    /// A client, and one that repeats nothing.
    pub(super) async fn connect(
        &self,
        context: &Context,
    ) -> Result<(Arc<dyn ObjectStore>, Arc<dyn ObjectStore>)> {
        let options = crate::objects::read_options(&self.options, context).await?;
        let location = match self.target()? {
            Target::Memory => {
                let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
                return Ok((Arc::clone(&memory), memory));
            }
            Target::At(location) => location.within(&context.folder),
        };
        let connection = Connection {
            timeout: self.timeout.0,
            retries: RETRIES,
            retry_for: self.timeout.0,
            sync: false,
            options,
        };
        let repeating = location.objects(true, &connection)?;
        let once = location.objects(true, &Connection { retries: 0, ..connection })?;
        Ok((repeating, once))
    }
}

#[async_trait]
impl BackendConfig for ObjectConfig {
    const NAME: &'static str = "object";

    fn profile(&self) -> Result<Profile> {
        let promises = self.promises().map_err(|error| error.with_layer(Self::NAME))?;
        let profile = promises.profile(Self::NAME);
        Ok(match self.names {
            Names::Escaped => profile,
            Names::Plain => profile.note(
                "`names` is plain: a key that cannot be the name of an object, such as one that is not UTF-8, is refused.",
            ),
        })
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Object::open(self, context).await?))
    }
}
