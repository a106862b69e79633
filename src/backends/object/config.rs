//! The settings: what they guarantee, and the client they make.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::object_store::ObjectStore;
use ::object_store::memory::InMemory;
use serde::Deserialize;

use super::client::Client;
use crate::error::{Error, Result};
use crate::layer::{BackendConfig, Context};
use crate::objects::{
    Connection, Location, MAX_VALUE_BYTES, Names, Naming, Opening, Options, READS_NO_CONDITIONS,
    Shown, StoreGuarantees, check_durability,
};
use crate::types::units::Span;
use crate::types::{Conditions, Durability, Identity};

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
/// let guarantees = config.profile()?.guarantees;
/// assert!(guarantees.ordered_scans && !guarantees.atomic_batches);
/// assert!(guarantees.conditions >= tierstack::Conditions::Absence);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
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
    /// Whether nothing is written, made or tried out: for credentials that may only read. Default: false. Without the right
    /// to list, set `scans: false` too.
    #[serde(default)]
    pub read_only: bool,
    /// Whether a batch can depend on its key being absent. Default: false. Tried out when the store is
    /// opened, which writes a few small objects and removes them.
    #[serde(default)]
    pub conditional_writes: bool,
    /// Whether a batch can depend on the value of its key too, which `tierstack rewrite` and the sweeper of the
    /// `expire` layer need. Default: false. For S3 and Google Cloud Storage; tried out likewise.
    #[serde(default)]
    pub conditional_values: bool,
    /// Whether a put keeps what an object has in addition to its content: content type, encoding, language and
    /// disposition, cache control, user metadata, class of storage. Default: true, for buckets; each put is then
    /// preceded by a look at the object. False where tierstack alone writes.
    #[serde(default = "yes")]
    pub keep_attributes: bool,
    /// What an acknowledged write survives. Default: `power_cut` for a bucket. `machine_loss` says that the
    /// service keeps what it acknowledged on more than one machine, as Amazon S3, Google Cloud Storage and
    /// Azure do, and a server of your own may not. A folder has `process_crash`, as removals are not synced.
    #[serde(default)]
    pub durability: Option<Durability>,
    /// The deadline of one request: a get, a put, a part of 8 MiB, a page of a listing. Default: 30s. What
    /// fails for a moment is repeated within the same span, so an operation on a service that is gone fails
    /// within twice as long.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

impl fmt::Debug for ObjectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectConfig")
            .field("url", &Shown(&self.url))
            .field("options", &self.options)
            .field("names", &self.names)
            .field("scans", &self.scans)
            .field("read_only", &self.read_only)
            .field("conditional_writes", &self.conditional_writes)
            .field("conditional_values", &self.conditional_values)
            .field("keep_attributes", &self.keep_attributes)
            .field("durability", &self.durability)
            .field("timeout", &self.timeout)
            .finish()
    }
}

const fn yes() -> bool {
    true
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
/// Of a file of others, with the folders that it is in.
const FILE_PATH_BYTES: usize = 4096;

/// What is behind the URL.
pub(super) enum Target {
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
            read_only: false,
            conditional_writes: false,
            conditional_values: false,
            keep_attributes: true,
            durability: None,
            timeout: default_timeout(),
        }
    }

    pub(super) fn target(&self) -> Result<Target> {
        if self.url.trim_end_matches('/') == "memory:" {
            return Ok(Target::Memory);
        }
        let location: Location =
            self.url.parse().map_err(|what| Error::config(format!("`url`: {what}")))?;
        location.check()?;
        Ok(Target::At(location))
    }

    pub(super) async fn opening(&self, context: &Context) -> Result<Opening> {
        Ok(Opening {
            naming: self.naming()?,
            name_bytes: self.guarantees()?.name_bytes,
            profile: self.profile()?,
            identity: self.identity(context).await?,
            folder: self.folder(context)?,
            may_create: context.may_create && !self.read_only,
        })
    }

    fn folder(&self, context: &Context) -> Result<Option<PathBuf>> {
        Ok(match self.target()? {
            Target::At(location) => match location.within(&context.folder) {
                Location::Folder(path) => Some(path),
                Location::Bucket { .. } => None,
            },
            Target::Memory => None,
        })
    }

    /// Where it is, and how keys are named there.
    async fn identity(&self, context: &Context) -> Result<Option<Identity>> {
        let names = format!("{:?}", self.naming()?);
        let place = match self.target()? {
            Target::Memory => {
                let number = getrandom::u64().map_err(|error| {
                    Error::internal("no randomness for an identity").with_source(error)
                })?;
                vec!["memory".to_owned(), format!("{number:016x}")]
            }
            Target::At(location) => {
                let options = crate::objects::read_options(&self.options, context).await?;
                location.within(&context.folder).parts(&options)
            }
        };
        let parts: Vec<_> = place.iter().map(String::as_str).chain([&*names]).collect();
        Ok(Some(Identity::new(Self::NAME, &parts)))
    }

    fn naming(&self) -> Result<Naming> {
        Ok(match (self.names, self.target()?) {
            (Names::Plain, Target::At(Location::Bucket { scheme, bucket, .. })) => match scheme {
                "az" => Naming::PlainAzure,
                // Signed by other rules.
                _ if bucket.ends_with("--x-s3") => Naming::Plain,
                _ => Naming::PlainText,
            },
            (Names::Plain, _) => Naming::Plain,
            (Names::Escaped, Target::At(Location::Folder(_))) => Naming::Flat,
            (Names::Escaped, _) => Naming::Ordered,
        })
    }

    pub(super) fn guarantees(&self) -> Result<StoreGuarantees> {
        use Durability::{MachineLoss, Nothing, PowerCut, ProcessCrash};
        crate::objects::check_options(&self.options)?;
        if self.timeout.0.is_zero() {
            return Err(Error::config("`timeout` must be longer than 0s"));
        }
        if self.read_only && (self.conditional_writes || self.conditional_values) {
            return Err(Error::config(READS_NO_CONDITIONS));
        }
        let compares = |location: &Location| match location {
            Location::Bucket { scheme, bucket, .. } => {
                *scheme != "az" && !bucket.ends_with("--x-s3")
            }
            Location::Folder(_) => false,
        };
        if self.conditional_values
            && !matches!(self.target()?, Target::At(location) if compares(&location))
        {
            return Err(Error::config(
                "`conditional_values`: only S3 and Google Cloud Storage remove an object on a condition; leave the setting out",
            ));
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
        Ok(StoreGuarantees {
            durability: check_durability(self.durability, durability, most)?,
            conditions: match (self.conditional_values, self.conditional_writes) {
                (true, _) => Conditions::Value,
                (false, true) => Conditions::Absence,
                (false, false) => Conditions::None,
            },
            scans: self.scans.unwrap_or(place != Some("folder")),
            key_bytes,
            name_bytes: if place == Some("folder") { FILE_PATH_BYTES } else { name_bytes },
            value_bytes: MAX_VALUE_BYTES,
            place,
            private: place.is_none(),
            writable: !self.read_only,
        })
    }

    pub(super) async fn client(&self, context: &Context) -> Result<Client> {
        let (repeating, once) = self.connect(context).await?;
        let is_bucket = matches!(self.target()?, Target::At(Location::Bucket { .. }));
        Ok(Client::new(repeating, once, self.keep_attributes && is_bucket))
    }

    /// A client, and one that repeats nothing.
    async fn connect(
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
            foreign: true,
            sync: false,
            options,
        };
        let create = context.may_create && !self.read_only;
        let repeating = location.objects(create, &connection)?;
        let once = location.objects(create, &Connection { retries: 0, ..connection })?;
        Ok((repeating, once))
    }
}
