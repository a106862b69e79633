//! From a config to a checked, running stack.
//!
//! The only module that knows every layer and backend.

mod all;
mod check;
pub(crate) mod guarantees;
mod late;
mod lease;
mod open;
mod part;
mod render;
mod reserved;
mod shared;
#[cfg(test)]
mod tests;
mod usage;
mod waiting;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

pub use self::all::{Stacks, StoreErrors};
pub use self::check::Checked;
#[cfg(all(feature = "file", unix))]
use crate::backends::FileConfig;
use crate::backends::MemoryConfig;
#[cfg(feature = "object")]
use crate::backends::ObjectConfig;
#[cfg(feature = "opendal")]
use crate::backends::OpenDalConfig;
#[cfg(feature = "postgres")]
use crate::backends::PostgresConfig;
#[cfg(feature = "redis")]
use crate::backends::RedisConfig;
#[cfg(feature = "rocksdb")]
use crate::backends::RocksDbConfig;
#[cfg(feature = "sqlite")]
use crate::backends::SqliteConfig;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Registry};
use crate::error::{Error, Result};
use crate::layer::{Context, Layer, Resize, Rewrite};
#[cfg(feature = "backup")]
use crate::layers::backup::BackupConfig;
#[cfg(feature = "cache")]
use crate::layers::cache::CacheConfig;
#[cfg(feature = "compress")]
use crate::layers::compress::CompressConfig;
#[cfg(feature = "encrypt")]
use crate::layers::encrypt::EncryptConfig;
use crate::layers::expire::ExpireConfig;
use crate::layers::limit::LimitConfig;
use crate::layers::metrics::{MetricsConfig, MetricsLayer};
use crate::layers::prefix::PrefixConfig;
use crate::layers::read_only::ReadOnlyConfig;
use crate::layers::retry::RetryConfig;
use crate::layers::timeout::TimeoutConfig;
use crate::layers::write_back::WriteBackConfig;
use crate::store::Store;
use crate::types::units::ByteSize;

impl Registry {
    /// The layers and backends of this crate that are compiled in.
    #[must_use]
    pub fn standard() -> Self {
        let mut registry = Self::new();
        #[cfg(all(feature = "file", unix))]
        registry.put_backend::<FileConfig>();
        registry.put_backend::<MemoryConfig>();
        #[cfg(feature = "object")]
        registry.put_backend::<ObjectConfig>();
        #[cfg(feature = "opendal")]
        registry.put_backend::<OpenDalConfig>();
        #[cfg(feature = "postgres")]
        registry.put_backend::<PostgresConfig>();
        #[cfg(feature = "redis")]
        registry.put_backend::<RedisConfig>();
        #[cfg(feature = "rocksdb")]
        registry.put_backend::<RocksDbConfig>();
        #[cfg(feature = "sqlite")]
        registry.put_backend::<SqliteConfig>();
        #[cfg(feature = "cache")]
        registry.put_layer::<CacheConfig>();
        #[cfg(feature = "compress")]
        registry.put_layer::<CompressConfig>();
        #[cfg(feature = "encrypt")]
        registry.put_layer::<EncryptConfig>();
        #[cfg(feature = "backup")]
        registry.put_layer::<BackupConfig>();
        registry.put_layer::<ExpireConfig>();
        registry.put_layer::<WriteBackConfig>();
        registry.put_layer::<RetryConfig>();
        registry.put_layer::<TimeoutConfig>();
        registry.put_layer::<LimitConfig>();
        registry.put_layer::<ReadOnlyConfig>();
        registry.put_layer::<PrefixConfig>();
        registry.put_layer::<MetricsConfig>();
        registry
    }
}

/// What a stack is opened with, in addition to its config. By default, the system's clock and a seed from the
/// operating system; what is missing may be made, and no schedule runs.
///
/// ```
/// # use tierstack::OpenOptions;
/// assert!(OpenOptions::service().background && !OpenOptions::default().background);
/// assert!(!OpenOptions::reading().may_create);
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where jitter comes from.
    pub seed: u64,
    /// Whether what is missing may be made, where the config allows it. See [`Context::may_create`].
    pub may_create: bool,
    /// Whether schedules and other work that changes data run while the stack is open. See
    /// [`Context::background`]. Where they do, the store is also asked how much it holds, for the metrics.
    pub background: bool,
    /// Whether a stack whose `write_back` says `open: later` is opened also while the store below is away: it takes writes into its
    /// journal, and answers for those, until the store comes. With `may_create` only.
    pub late: bool,
    /// Whether a restore may go below a journal of `write_back` that holds writes: they are written over what was restored, once
    /// the stack is opened. See [`Checked::open_stored`].
    pub over_journal: bool,
}

impl OpenOptions {
    /// For what stays open and is in charge of the store, such as a service: schedules run.
    #[must_use]
    pub fn service() -> Self {
        Self { background: true, ..Self::default() }
    }

    /// For what only reads: what is missing is an error, and is not made. The store below must be there.
    #[must_use]
    pub fn reading() -> Self {
        Self { may_create: false, late: false, ..Self::default() }
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        // Without randomness from the system, jitter is the same in each process, and still jitter.
        let seed = getrandom::u64().unwrap_or_default();
        Self {
            clock: SystemClock::shared(),
            seed,
            may_create: true,
            background: false,
            late: true,
            over_journal: false,
        }
    }
}

/// A running stack: layers over a backend. It derefs to the outermost [`Store`]; its owner
/// [closes](Store::close) it.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::config::{Config, Format, Registry};
/// use tierstack::{OpenOptions, Read, Stack, Store, StoreExt};
///
/// let text = "stores: { main: { backend: memory } }";
/// let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
/// let stack =
///     Stack::open(&config, Some("main"), &Registry::standard(), &OpenOptions::default()).await?;
/// stack.put("k", "v").await?;
/// assert_eq!(stack.get(b"k").await?, Some("v".into()));
/// stack.close().await?;
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub struct Stack {
    store: Arc<dyn Store>,
    /// Outermost first.
    rewriters: Vec<Arc<dyn Rewrite>>,
    /// By the place of the layer in the config.
    resizers: BTreeMap<usize, Arc<dyn Resize>>,
    checked: Arc<Checked>,
    /// For fingerprints of keys.
    salt: u64,
    _usage: Option<usage::Watch>,
}

impl Stack {
    /// Checks a store of a config, the default one if none is named: names, settings, order, and what
    /// the stack guarantees. Opens nothing, so another process may be running it.
    ///
    /// # Errors
    /// `Config` that names the file, the path in it, what is wrong and what is allowed.
    pub fn check(config: &Config, store: Option<&str>, registry: &Registry) -> Result<Checked> {
        Checked::new(config, store, registry)
    }

    /// Checks every store of a config, and that they can be open at the same time.
    ///
    /// # Errors
    /// Like [`check`](Self::check), for the first store that is wrong; `Config` if two of them use the same
    /// files, which one alone can have.
    pub fn check_all(config: &Config, registry: &Registry) -> Result<Vec<Checked>> {
        all::check_together(config, config.stores.keys().map(String::as_str), registry)
    }

    /// Checks and opens a store: what the layers need, then the backend. If something fails, nothing
    /// stays open.
    ///
    /// # Errors
    /// Like [`check`](Self::check), and what a backend or layer can fail with, with its path in the file.
    pub async fn open(
        config: &Config,
        store: Option<&str>,
        registry: &Registry,
        options: &OpenOptions,
    ) -> Result<Self> {
        Self::check(config, store, registry)?.open(options).await
    }

    /// Checks a store and opens what is below one of its layers: the store whose bytes a `backup`
    /// records, without the layers that encode what a user reads.
    ///
    /// # Errors
    /// Like [`open`](Self::open); `Config` if the store has no such layer.
    pub async fn open_below(
        config: &Config,
        store: Option<&str>,
        layer: &str,
        registry: &Registry,
        options: &OpenOptions,
    ) -> Result<Self> {
        Self::check(config, store, registry)?.open_below(layer, options).await
    }

    fn new(
        store: Arc<dyn Store>,
        rewriters: Vec<Arc<dyn Rewrite>>,
        resizers: BTreeMap<usize, Arc<dyn Resize>>,
        checked: Arc<Checked>,
        salt: u64,
        usage: Option<usage::Watch>,
    ) -> Self {
        Self { store, rewriters, resizers, checked, salt, _usage: usage }
    }

    /// What stands for a key in the [errors](crate::Error::key_fingerprint) of this stack, and so in logs: the
    /// same in every process that opens the store under its name. It is not reversed, but a guess of the
    /// key can be confirmed by whatever knows the name of the store.
    #[must_use]
    pub fn fingerprint(&self, key: &[u8]) -> u64 {
        crate::hash::fingerprint(self.salt, key)
    }

    /// What brings stored values into the form that the layers would write now, outermost first: run in
    /// this order, what an outer one writes again is in the form of the inner ones already.
    #[must_use]
    pub fn rewriters(&self) -> &[Arc<dyn Rewrite>] {
        &self.rewriters
    }

    /// Changes how much the layer at that place of the config, from 0, keeps in memory: the capacity of a cache. What is over it goes
    /// before this returns.
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use tierstack::config::{Config, Format, Registry};
    /// use tierstack::{OpenOptions, Stack, Store};
    ///
    /// let text = "stores: { main: { layers: [cache: { capacity: 1GiB }], backend: memory } }";
    /// let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
    /// let stack = Stack::open(&config, None, &Registry::standard(), &OpenOptions::default()).await?;
    /// stack.resize(0, "64MiB".parse().unwrap())?;
    /// stack.close().await?;
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `Unsupported` if there is no layer that keeps anything, or it stays as it was made with; `Config` if the capacity is out
    /// of range.
    pub fn resize(&self, layer: usize, capacity: ByteSize) -> Result<()> {
        match self.resizers.get(&layer) {
            Some(resizer) => resizer.resize(capacity),
            None => Err(Error::unsupported("no layer that keeps values in memory is there")),
        }
    }

    /// The outermost store, to share.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// The name of the store in the config.
    #[must_use]
    pub fn name(&self) -> &str {
        self.checked.store()
    }

    /// What was checked before it was opened: settings, guarantees, trade-offs.
    #[must_use]
    pub fn checked(&self) -> &Checked {
        &self.checked
    }
}

impl Deref for Stack {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stack({}: {})", self.name(), self.store.profile())
    }
}

/// Puts instrumentation on a boundary. Every store of a stack passes through here: the backend, and
/// each layer over it.
fn instrument(store: Arc<dyn Store>, context: &Context, salt: u64) -> Arc<dyn Store> {
    let layer = MetricsLayer::new(context.labels.clone()).with_clock(Arc::clone(&context.clock));
    Arc::new(layer.with_salt(salt).layer(store))
}
