//! Stacks for the tests, opened from a config in a folder of their own.

use std::sync::Arc;

use tempfile::{TempDir, tempdir};
use tierstack::codec::KeyRing;
use tierstack::config::{Config, Format, Registry};
use tierstack::{ManualClock, OpenOptions, Stack};

/// Every layer once, as a config names it, in an order in which all may stand together.
pub(crate) const LAYERS: &[&str] = &[
    "metrics: {}",
    "retry: {}",
    "timeout: {}",
    "limit: { operations: 4 }",
    "prefix: { prefix: 'tenant/' }",
    "cache: { capacity: 1MiB, ttl: 1m, negative_ttl: 5s }",
    "compress: { codec: zstd, min_size: 0 }",
    "encrypt: { keys: { file: keys } }",
    "expire: { sweep_every: 1m }",
    "backup: { to: backups }",
];

/// The backends that can be opened without a server. RocksDB with little memory, so that it makes
/// files.
pub(crate) const BACKENDS: &[&str] =
    &["memory: {}", "rocksdb: { path: data, sync: false, write_buffer_size: 64KiB }"];

/// A running stack with the folder where its files are.
pub(crate) struct Opened {
    pub(crate) stack: Stack,
    pub(crate) folder: Arc<TempDir>,
}

/// Opens a stack of these layers, outermost first.
pub(crate) async fn open(layers: &[&str], backend: &str, clock: &ManualClock) -> Opened {
    let folder = Arc::new(tempdir().unwrap());
    std::fs::write(folder.path().join("keys"), KeyRing::generate().unwrap().expose()).unwrap();
    let stack = reopen(&folder, layers, backend, clock).await.unwrap();
    Opened { stack, folder }
}

/// Opens a stack in a folder that one was opened in before.
pub(crate) async fn reopen(
    folder: &TempDir,
    layers: &[&str],
    backend: &str,
    clock: &ManualClock,
) -> tierstack::Result<Stack> {
    let layers: Vec<_> = layers.iter().map(|layer| format!("{{ {layer} }}")).collect();
    let text = format!(
        "stores: {{ main: {{ layers: [{}], backend: {{ {backend} }} }} }}",
        layers.join(", ")
    );
    let config = Config::parse(&text, Format::Yaml, folder.path().join("tierstack.yaml"))?;
    let options = OpenOptions { clock: Arc::new(clock.clone()), seed: 1 };
    Stack::open(&config, None, &Registry::standard(), &options).await
}
