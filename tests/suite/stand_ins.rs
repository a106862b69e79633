//! Layers and backends that do nothing but have settings, and a registry of them.

#![allow(dead_code, reason = "settings are read from a config and from nowhere else")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tierstack::backends::Memory;
use tierstack::config::Registry;
use tierstack::units::{ByteSize, Secret, Span};
use tierstack::{
    BackendConfig, Context, Durability, Error, LayerConfig, Place, Profile, Read, Recovery, Result,
    StackLayer, Store, Zone, forward,
};

pub fn registry() -> Registry {
    let mut registry = Registry::standard();
    registry.layer::<HoldConfig>().unwrap();
    registry.layer::<ShrinkConfig>().unwrap();
    registry.layer::<SealConfig>().unwrap();
    registry.layer::<RecordConfig>().unwrap();
    registry.layer::<WatchConfig>().unwrap();
    registry.layer::<LooseConfig>().unwrap();
    registry.layer::<BrokenConfig>().unwrap();
    registry.backend::<DiskConfig>().unwrap();
    registry
}

/// In the place of a cache.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldConfig {
    /// How much it holds.
    pub capacity: ByteSize,
    /// How long.
    pub ttl: Option<Span>,
}

/// In the place of `compress`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShrinkConfig {
    /// Which codec.
    pub codec: Codec,
    /// From 1 to 22.
    pub level: u8,
    /// Smaller values stay as they are.
    pub min_size: ByteSize,
}

impl Default for ShrinkConfig {
    fn default() -> Self {
        Self { codec: Codec::Zstd, level: 3, min_size: ByteSize(64) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    Zstd,
    Lz4,
}

/// In the place of `encrypt`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SealConfig {
    /// The keys.
    pub keys: Secret,
}

/// In the place of `backup`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordConfig {
    /// Where to.
    pub to: String,
    /// What is kept.
    #[serde(default)]
    pub keep: Keep,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    pub daily: u16,
    pub monthly: u16,
}

/// Anywhere.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    pub loud: bool,
}

/// Forgets to deny unknown fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LooseConfig {
    pub fine: bool,
}

/// Never opens.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BrokenConfig {}

/// A backend with a place.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The folder.
    pub path: PathBuf,
}

/// What happened to each disk, by its path.
pub static DISKS: Mutex<BTreeMap<PathBuf, Vec<&str>>> = Mutex::new(BTreeMap::new());

fn happened(path: &Path, what: &'static str) {
    DISKS.lock().unwrap().entry(path.to_owned()).or_default().push(what);
}

#[async_trait]
impl BackendConfig for DiskConfig {
    const NAME: &'static str = "disk";

    fn profile(&self) -> Result<Profile> {
        let memory = Memory::new().profile().guarantees;
        Ok(Profile::backend(Self::NAME, memory).changed(|guarantees| {
            guarantees.durability = Durability::PowerCut;
            guarantees.durability_after_flush = Durability::PowerCut;
            guarantees.expiry = false;
            guarantees.places =
                vec![Place { name: "disk".into(), what: "database".into(), sealed: false }];
        }))
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        happened(&context.resolve(&self.path), "opened");
        Ok(Arc::new(Same {
            inner: Arc::new(Memory::new()),
            profile: Some(BackendConfig::profile(self)?),
            config: Arc::new(WatchConfig::default()),
            disk: Some(context.resolve(&self.path)),
        }))
    }
}

macro_rules! layer {
    ($config:ty, $name:literal, $zone:ident, |$this:ident, $below:ident| $profile:expr, |$self:ident, $context:ident| $open:expr) => {
        #[async_trait]
        impl LayerConfig for $config {
            const NAME: &'static str = $name;
            const ZONE: Zone = Zone::$zone;

            fn profile(&self, $below: Profile) -> Result<Profile> {
                let $this = self;
                $profile
            }

            async fn open(&self, $context: &Context) -> Result<Arc<dyn StackLayer>> {
                let $self = self;
                $open?;
                Ok(Arc::new(SameLayer(Arc::new(self.clone()))))
            }
        }
    };
}

layer!(
    HoldConfig,
    "hold",
    Cache,
    |_this, below| Ok(Profile::layer("hold", below)),
    |_this, _context| Ok::<(), Error>(())
);
layer!(
    ShrinkConfig,
    "shrink",
    Compress,
    |this, below| {
        if !(1..=22).contains(&this.level) {
            return Err(
                Error::config(format!("{} is not from 1 to 22", this.level)).with_setting("level")
            );
        }
        Ok(Profile::layer("shrink", below).note("Values are smaller."))
    },
    |_this, _context| Ok::<(), Error>(())
);
layer!(
    SealConfig,
    "seal",
    Encrypt,
    |_this, below| {
        Ok(Profile::layer("seal", below).changed(|guarantees| {
            guarantees.places.iter_mut().for_each(|place| place.sealed = true)
        }))
    },
    |this, context| context.secret(&this.keys).await
);
layer!(
    RecordConfig,
    "record",
    Backup,
    |_this, below| {
        Ok(Profile::layer("record", below).changed(|guarantees| {
            guarantees.places.push(Place {
                name: "record".into(),
                what: "folder".into(),
                sealed: false,
            });
            guarantees.recovery = Some(Recovery { interval: None, window: None });
        }))
    },
    |_this, _context| Ok::<(), Error>(())
);
layer!(
    WatchConfig,
    "watch",
    Guard,
    |_this, below| Ok(Profile::layer("watch", below)),
    |_this, _context| Ok::<(), Error>(())
);
layer!(
    LooseConfig,
    "loose",
    Guard,
    |_this, below| Ok(Profile::layer("loose", below)),
    |_this, _context| Ok::<(), Error>(())
);
layer!(
    BrokenConfig,
    "broken",
    Guard,
    |_this, below| Ok(Profile::layer("broken", below)),
    |_this, _context| Err::<(), Error>(Error::unsupported("it never opens"))
);

struct SameLayer<C>(Arc<C>);

#[async_trait]
impl<C: LayerConfig> StackLayer for SameLayer<C> {
    async fn wrap(&self, below: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Same { inner: below, profile: None, config: Arc::clone(&self.0), disk: None }))
    }

    fn rewriter(&self, _: Arc<dyn Store>) -> Option<Arc<dyn tierstack::Rewrite>> {
        None
    }

    fn resizer(&self) -> Option<Arc<dyn tierstack::Resize>> {
        None
    }
}

/// Passes everything on.
struct Same<C> {
    inner: Arc<dyn Store>,
    profile: Option<Profile>,
    config: Arc<C>,
    disk: Option<PathBuf>,
}

#[deny(clippy::missing_trait_methods)]
impl<C: LayerConfig> Read for Same<C> {
    forward!(self => self.inner; get, get_many, scan);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<C: LayerConfig> Store for Same<C> {
    async fn close(&self) -> Result<()> {
        if let Some(path) = &self.disk {
            happened(path, "closed");
        }
        self.inner.close().await
    }

    fn profile(&self) -> Profile {
        match &self.profile {
            Some(profile) => profile.clone(),
            None => self.config.profile(self.inner.profile()).unwrap(),
        }
    }

    forward!(self => self.inner; write, write_group, ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, identity);
}
