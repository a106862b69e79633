//! Layers: what wraps a store, and where in a stack it may be.
//!
//! A layer is a [`tower_layer::Layer`], so `tower::ServiceBuilder` stacks ours too. What a layer needs
//! (a key ring, a bucket) is opened when the layer value is made; wrapping is then pure.

mod common;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
pub use tower_layer::Layer;

#[cfg(feature = "config")]
pub(crate) use self::common::Slot;
pub use self::common::{Claim, Common};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::store::Store;
use crate::telemetry::Labels;
use crate::types::units::{ByteSize, Secret, SecretText, check_path};
use crate::types::{Profile, Scan};

/// Where a layer may be. Zones are declared from the outside in; within a stack they may not go
/// back, except that [`Zone::Guard`] is anywhere.
///
/// ```
/// use tierstack::layers::cache::CacheConfig;
/// use tierstack::layers::timeout::TimeoutConfig;
/// use tierstack::{LayerConfig, Zone};
///
/// assert!(CacheConfig::ZONE < Zone::Compress, "a cache is outside");
/// assert_eq!(TimeoutConfig::ZONE, Zone::Guard);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Zone {
    /// Keeps answers in memory: outside compress and encrypt, which it then spares.
    Cache,
    /// Makes values smaller: outside encrypt, as ciphertext does not compress.
    Compress,
    /// Seals values.
    Encrypt,
    /// Gives entries an expiry.
    Expire,
    /// Acknowledges writes before the store below has them.
    WriteBack,
    /// Records what the backend holds: next to the backend.
    Backup,
    /// Watches, limits or narrows operations: anywhere.
    Guard,
}

/// A layer that a stack can be built from at run time. Every [`Layer`] over `Arc<dyn Store>` is one.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::layers::prefix::PrefixLayer;
/// use tierstack::layers::read_only::ReadOnlyLayer;
/// use tierstack::{StackLayer, Store};
///
/// let layers: [Arc<dyn StackLayer>; 2] =
///     [Arc::new(ReadOnlyLayer), Arc::new(PrefixLayer::new("orders/")?)];
/// let backend: Arc<dyn Store> = Arc::new(Memory::new());
/// let mut store = backend;
/// for layer in layers.iter().rev() {
///     store = layer.wrap(store).await?;
/// }
/// assert_eq!(store.profile().to_string(), "read_only(prefix(memory))");
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[async_trait]
pub trait StackLayer: Send + Sync + 'static {
    /// Starts the layer over a store, which it may read and write for this.
    ///
    /// # Errors
    /// What keeps the layer from starting over this store. Nothing of it runs then, and the caller closes
    /// the store below.
    async fn wrap(&self, below: Arc<dyn Store>) -> Result<Arc<dyn Store>>;

    /// What brings the values in the store below into the form that the layer would write now.
    /// `None`: the layer stores values as they are.
    fn rewriter(&self, below: Arc<dyn Store>) -> Option<Arc<dyn Rewrite>>;

    /// What changes how much the layer keeps in memory, once it has been [wrapped](Self::wrap) around a store.
    /// `None`: it keeps nothing there, or cannot change that.
    fn resizer(&self) -> Option<Arc<dyn Resize>>;
}

/// Changes how much a layer keeps in memory, while it runs.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::layers::cache::CacheConfig;
/// use tierstack::{Context, LayerConfig};
///
/// let cache = CacheConfig::default().open(&Context::default()).await?;
/// let store = cache.wrap(Arc::new(Memory::new())).await?;
/// cache.resizer().unwrap().resize("64MiB".parse().unwrap())?;
/// store.close().await?;
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub trait Resize: Send + Sync + 'static {
    /// From now on it keeps no more than that. What is over it goes before this returns.
    ///
    /// # Errors
    /// `Config` if it is out of range; `Unsupported` if it stays as the layer was made with.
    fn resize(&self, capacity: ByteSize) -> Result<()>;
}

#[async_trait]
impl<L> StackLayer for L
where
    L: Layer<Arc<dyn Store>> + Send + Sync + 'static,
    L::Service: Store,
{
    async fn wrap(&self, below: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.layer(below)))
    }

    fn rewriter(&self, _below: Arc<dyn Store>) -> Option<Arc<dyn Rewrite>> {
        None
    }

    fn resizer(&self) -> Option<Arc<dyn Resize>> {
        None
    }
}

/// Brings stored values into the form that a layer would write now: after a layer was added with
/// `accept_plain`, after a change of codec or key. Values, expiries and what a reader sees stay.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::layers::compress::{CompressConfig, CompressLayer};
/// use tierstack::telemetry::Labels;
/// use tierstack::{Rewrite, Scan, Store, StoreExt};
///
/// let below: Arc<dyn Store> = Arc::new(Memory::new());
/// below.put("k", "from before the layer was added").await?;
///
/// let config = CompressConfig { accept_plain: true, ..CompressConfig::default() };
/// let layer = CompressLayer::new(&config, &Labels::default())?;
/// let rewriter = layer.rewriter(below);
/// let report = rewriter.rewrite(Scan::all(), &mut |_| ()).await?;
/// assert_eq!((report.examined, report.rewritten, report.damaged), (1, 1, 0));
/// let again = rewriter.rewrite(Scan::all(), &mut |_| ()).await?;
/// assert_eq!((again.examined, again.rewritten), (1, 0));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[async_trait]
pub trait Rewrite: Send + Sync + 'static {
    /// The layer.
    fn name(&self) -> &str;

    /// Goes over the entries of a scan, and tells the progress after each page.
    ///
    /// To pace it, give the scan a limit, and go on with [`Scan::resume_after`]`(last_key)`; to resume
    /// after a failure, likewise.
    ///
    /// - **Concurrency**: safe concurrently with every read and write, those of other processes included: an entry that
    ///   was changed since it was read stays as it is.
    /// - **Durability**: as of a write below; [`Store::flush`] afterwards makes sure.
    /// - **Dropped future**, and after an error: what was rewritten stays.
    ///
    /// # Errors
    /// `Unsupported` over a store that cannot compare values; as reading and writing the store below. A
    /// damaged entry is counted and left as it is.
    async fn rewrite(
        &self,
        scan: Scan,
        progress: &mut (dyn for<'r> FnMut(&'r RewriteReport) + Send),
    ) -> Result<RewriteReport>;
}

/// How far a [`Rewrite`] came. See [`Rewrite`] for an example.
#[derive(Clone, Default)]
pub struct RewriteReport {
    /// Entries looked at.
    pub examined: u64,
    /// Entries written again.
    pub rewritten: u64,
    /// Entries that could not be decoded, left as they are.
    pub damaged: u64,
    /// Entries that another writer changed meanwhile, left as that writer left them. They are in the form
    /// that the writer's settings have.
    pub changed: u64,
    /// The first of the damaged entries' errors.
    pub first_damage: Option<Error>,
    /// The last key of the last whole page.
    pub last_key: Option<Bytes>,
}

/// Prints no key.
impl fmt::Debug for RewriteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RewriteReport")
            .field("examined", &self.examined)
            .field("rewritten", &self.rewritten)
            .field("damaged", &self.damaged)
            .field("changed", &self.changed)
            .field("first_damage", &self.first_damage)
            .finish_non_exhaustive()
    }
}

/// What layers and backends are opened with, in addition to their settings.
///
/// ```
/// use std::path::Path;
/// use tierstack::Context;
/// use tierstack::telemetry::Labels;
///
/// let context = Context {
///     labels: Labels::new("orders", "encrypt"),
///     folder: "/etc/tierstack".into(),
///     ..Context::default()
/// };
/// assert_eq!(context.resolve(Path::new("keys.txt")), Path::new("/etc/tierstack/keys.txt"));
/// assert_eq!(context.resolve(Path::new("/run/keys")), Path::new("/run/keys"));
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// The stack and the layer, for metrics.
    pub labels: Labels,
    /// Where jitter comes from.
    pub seed: u64,
    /// The folder against which relative paths are resolved: that of the config file.
    pub folder: PathBuf,
    /// Tells what lies below the layer from what lies below another: the same number in another process means
    /// the same layers with the same settings over the same backend, as far as the config says. `None`: nobody
    /// knows, as the stack was not built from a config.
    pub below: Option<u64>,
    /// Whether a backend or layer may make what is missing, such as a database, a folder or a table, where its
    /// settings allow it. Without it, what is missing is an error, and nothing is made, whatever the settings
    /// say: for those that only read.
    pub may_create: bool,
    /// Whether work that changes data runs by itself while the stack is open: backups on a schedule, the
    /// removal of what has expired. For those that stay open, such as a service.
    pub background: bool,
    /// What the stores over the same shared backend have in common. `None`: the backend is of this store alone.
    pub common: Option<Common>,
}

impl Context {
    /// The path as the settings mean it.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Reads a secret; a relative path is resolved.
    ///
    /// # Errors
    /// `Config` that names the variable or the file, and never its content.
    pub async fn secret(&self, secret: &Secret) -> Result<SecretText> {
        match secret {
            Secret::File(path) if check_path(path).is_ok() => {
                Secret::File(self.resolve(path)).load().await
            }
            _ => secret.load().await,
        }
    }
}

/// The system's clock, no labels, a fixed seed, the current folder. What is missing may be made, and nothing
/// runs by itself.
impl Default for Context {
    fn default() -> Self {
        Self {
            clock: SystemClock::shared(),
            labels: Labels::default(),
            seed: 0,
            folder: PathBuf::new(),
            below: None,
            may_create: true,
            background: false,
            common: None,
        }
    }
}

/// The settings of a layer: what it guarantees, and how it is opened.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::layers::timeout::TimeoutConfig;
/// use tierstack::{Context, LayerConfig, Store};
///
/// let config = TimeoutConfig { after: "2s".parse().unwrap() };
/// let guarantees = config.profile(Memory::new().profile())?;
/// assert_eq!(guarantees.to_string(), "timeout(memory)");
///
/// let layer = config.open(&Context::default()).await?;
/// assert_eq!(layer.wrap(Arc::new(Memory::new())).await?.profile(), guarantees);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[async_trait]
pub trait LayerConfig: Send + Sync + 'static {
    /// The name, as in a config file.
    const NAME: &'static str;
    /// Where it may be.
    const ZONE: Zone;

    /// What the stack guarantees at this level, over what it guarantees below. Opens nothing, so that a
    /// stack can be checked while another process runs it.
    ///
    /// # Errors
    /// `Config` if the settings are out of range, or need what is not guaranteed below.
    fn profile(&self, below: Profile) -> Result<Profile>;

    /// What the layer has for itself while it is open, as far as the settings tell.
    fn claims(&self, _: &Context) -> Vec<Claim> {
        Vec::new()
    }

    /// Registers the series that the layer has of its own while it is open over a store of that profile, with the
    /// [labels](Context::labels) of the context, and lets go of them: `check` counts them so. None by default.
    fn register_metrics(&self, _: &Context, _: &Profile) {}

    /// Opens what the layer needs. What is opened is let go when it is dropped: this future, or what it
    /// gives, before it is [wrapped](StackLayer::wrap) around a store.
    ///
    /// # Errors
    /// `Config` as [`profile`](Self::profile), and what opening can fail with.
    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>>;
}

/// The settings of a backend: what it guarantees, and how it is opened.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::MemoryConfig;
/// use tierstack::{BackendConfig, Context, Store};
///
/// let config = MemoryConfig::default();
/// let guarantees = config.profile()?;
/// assert!(guarantees.guarantees.snapshots);
/// assert_eq!(config.open(&Context::default()).await?.profile(), guarantees);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[async_trait]
pub trait BackendConfig: Send + Sync + 'static {
    /// The name, as in a config file.
    const NAME: &'static str;

    /// The settings that each store over one shared backend may have for itself: the one that names its
    /// [part](Self::part), and others that are of that part. None by default: stores share such a backend
    /// by prefixes.
    const OWN: &'static [&'static str] = &[];

    /// What the backend guarantees with these settings. Opens nothing.
    ///
    /// # Errors
    /// `Config` if the settings are out of range.
    fn profile(&self) -> Result<Profile>;

    /// The part of the backend that these settings open, such as a table: other parts hold other data.
    fn part(&self) -> String {
        String::new()
    }

    /// What the backend has for itself while it is open, as far as the settings tell.
    fn claims(&self, _: &Context) -> Vec<Claim> {
        Vec::new()
    }

    /// Opens the backend.
    ///
    /// # Errors
    /// `Config` as [`profile`](Self::profile), and what opening can fail with.
    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>>;
}

/// Checks the order of layers, outermost first. `trade_off` is told what a free but costly order costs.
///
/// # Errors
/// `Config` that names both layers and says why.
#[cfg(any(test, feature = "config"))]
pub(crate) fn check_order(
    layers: &[(&str, Zone)],
    mut trade_off: impl FnMut(String),
) -> Result<()> {
    for (at, (inner, zone)) in layers.iter().enumerate() {
        for (outer, above) in layers.iter().take(at) {
            let why = if (*outer, *inner) == ("timeout", "retry") {
                Some("its deadline would cut off the attempts of the retry")
            } else {
                conflict(*above, *zone)
            };
            if let Some(why) = why {
                return Err(Error::config(format!(
                    "'{outer}' is outside '{inner}', but {why}; put '{inner}' before '{outer}'"
                )));
            }
            if let Some(cost) = cost(outer, *above, inner, *zone) {
                trade_off(cost);
            }
        }
    }
    Ok(())
}

/// Why `outer` may not be outside `inner`.
#[cfg(any(test, feature = "config"))]
fn conflict(outer: Zone, inner: Zone) -> Option<&'static str> {
    use Zone::{Backup, Cache, Compress, Encrypt, Expire, Guard, WriteBack};
    match (outer, inner) {
        (Guard, _) | (_, Guard) => None,
        (Encrypt, Compress) => Some("sealed bytes do not compress"),
        (Backup, WriteBack) => Some(
            "a backup records what the backend holds, so writes still on their way to it would be missing",
        ),
        (Backup, Cache) => {
            Some("a backup is next to the backend and must not read through a cache")
        }
        (Backup, Compress | Encrypt | Expire) => Some(
            "a backup records what the backend holds, so that it restores without any layer and is sealed like the backend",
        ),
        (Expire, Compress | Encrypt) => Some(
            "the expiry of an entry is in a header that the store must read without decoding the value",
        ),
        (Expire | WriteBack, Cache) => {
            Some("a cache answers before the layers below it are asked, so it is outside them")
        }
        (WriteBack, Expire) => Some("what is written back must carry its expiry"),
        _ => None,
    }
}

/// What an order costs that is allowed.
#[cfg(any(test, feature = "config"))]
fn cost(outer_name: &str, outer: Zone, inner_name: &str, inner: Zone) -> Option<String> {
    match (outer, inner) {
        (Zone::Compress, Zone::Cache) => Some(format!(
            "'{inner_name}' is inside '{outer_name}': it holds more, as compressed bytes, and each hit pays for decoding."
        )),
        (Zone::Encrypt, Zone::Cache) => Some(format!(
            "'{inner_name}' is inside '{outer_name}': only sealed bytes are in its memory, and each hit pays for opening them."
        )),
        (Zone::WriteBack, Zone::Compress | Zone::Encrypt) => Some(format!(
            "'{outer_name}' is outside '{inner_name}': it acknowledges sooner, and its journal holds what '{inner_name}' has not yet encoded."
        )),
        _ => None,
    }
}
