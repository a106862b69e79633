//! Stacks for the tests, opened from a config in a folder of their own.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tempfile::{TempDir, tempdir};
use tierstack::codec::KeyRing;
use tierstack::config::{Config, Format, Registry};
use tierstack::testing::{FaultLayer, Faults};
use tierstack::{
    BackendConfig, Context, LayerConfig, ManualClock, OpenOptions, Profile, Result, Stack,
    StackLayer, Store, Zone,
};

/// Every layer once, as a config names it, in an order in which all may be together.
pub(crate) const LAYERS: &[&str] = &[
    "metrics: {}",
    "retry: {}",
    "timeout: {}",
    "limit: { operations: 4 }",
    "prefix: { prefix: 'tenant/' }",
    "cache: { capacity: 1MiB, ttl: 1m, negative_ttl: 5s, idle: 5m, jitter: 10%, refresh_ahead: 0.5, stale_while_refresh: 30s, stale_if_error: 5m, soft_timeout: 1s }",
    "compress: { codec: zstd, min_size: 0 }",
    "encrypt: { keys: { file: keys } }",
    "expire: { sweep_every: 1m }",
    "write_back: { path: journal, flush_bytes: 4KiB }",
    "backup: { to: backups }",
];

/// The backends that can be opened without a server. RocksDB with little memory, so that it makes
/// files.
pub(crate) const BACKENDS: &[&str] = &[
    "memory: {}",
    "rocksdb: { path: data, sync: false, write_buffer_size: 64KiB }",
    "sqlite: { path: data.db, sync: false }",
    "file: { path: data, sync: false }",
];

/// A running stack with the folder where its files are.
pub(crate) struct Opened {
    pub(crate) stack: Stack,
    pub(crate) folder: Arc<TempDir>,
}

/// Opens a stack of these layers, outermost first.
pub(crate) async fn open(layers: &[impl Display], backend: &str, clock: &ManualClock) -> Opened {
    let folder = Arc::new(tempdir().unwrap());
    std::fs::write(folder.path().join("keys"), KeyRing::generate().unwrap().expose()).unwrap();
    let stack = reopen(&folder, layers, backend, clock).await.unwrap();
    Opened { stack, folder }
}

/// Opens a stack of these layers over a store that is there already.
pub(crate) async fn open_over(
    store: Arc<dyn Store>,
    layers: &[impl Display],
    clock: &ManualClock,
) -> Opened {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    GIVEN.lock().unwrap().insert(id, store);
    open(layers, &format!("given: {{ id: {id} }}"), clock).await
}

/// Stores that a config cannot describe, by a number that it can.
static GIVEN: Mutex<BTreeMap<u64, Arc<dyn Store>>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A layer, as a config names it, that fails by that plan.
#[allow(dead_code, reason = "not every test that shares this module lets stores fail")]
pub(crate) fn failing(faults: &Faults) -> String {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    FAULTS.lock().unwrap().insert(id, faults.clone());
    format!("fault: {{ id: {id} }}")
}

static FAULTS: Mutex<BTreeMap<u64, Faults>> = Mutex::new(BTreeMap::new());

/// The layer `fault`: fails by a plan of the test.
#[derive(Deserialize, JsonSchema)]
struct FaultConfig {
    id: u64,
}

#[async_trait]
impl LayerConfig for FaultConfig {
    const NAME: &'static str = "fault";
    const ZONE: Zone = Zone::Guard;

    fn profile(&self, below: Profile) -> Result<Profile> {
        Ok(Profile::layer(Self::NAME, below))
    }

    async fn open(&self, _: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(FaultLayer(FAULTS.lock().unwrap()[&self.id].clone())))
    }
}

/// The backend `given`: a store that a test hands over.
#[derive(Deserialize, JsonSchema)]
struct GivenConfig {
    id: u64,
}

#[async_trait]
impl BackendConfig for GivenConfig {
    const NAME: &'static str = "given";

    fn profile(&self) -> Result<Profile> {
        Ok(GIVEN.lock().unwrap().get(&self.id).unwrap().profile())
    }

    async fn open(&self, _: &Context) -> Result<Arc<dyn Store>> {
        Ok(GIVEN.lock().unwrap().remove(&self.id).unwrap())
    }
}

/// Opens a stack in a folder that one was opened in before.
pub(crate) async fn reopen(
    folder: &TempDir,
    layers: &[impl Display],
    backend: &str,
    clock: &ManualClock,
) -> Result<Stack> {
    let layers: Vec<_> = layers.iter().map(|layer| format!("{{ {layer} }}")).collect();
    let text = format!(
        "stores: {{ main: {{ layers: [{}], backend: {{ {backend} }} }} }}",
        layers.join(", ")
    );
    let config = Config::parse(&text, Format::Yaml, folder.path().join("tierstack.yaml"))?;
    let options = OpenOptions { clock: Arc::new(clock.clone()), seed: 1, ..OpenOptions::service() };
    let mut registry = Registry::standard();
    registry.backend::<GivenConfig>()?.layer::<FaultConfig>()?;
    Stack::open(&config, None, &registry, &options).await
}

/// The layers that can be over a backend: `backup` needs snapshots.
pub(crate) fn layers_over(backend: &str) -> Vec<&'static str> {
    let snapshots = !backend.starts_with("file:");
    LAYERS.iter().copied().filter(|layer| snapshots || !layer.starts_with("backup:")).collect()
}
