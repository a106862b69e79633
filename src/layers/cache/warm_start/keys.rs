//! The keys of a warm start: read when the cache is opened, and written when it is closed.

use std::path::PathBuf;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::super::config::WarmStartConfig;
use super::super::memory::Engine;
use super::file;
use crate::error::{ErrorKind, Result};
use crate::layer::Context;
use crate::telemetry::{Counter, Labels, names};

/// What is to be loaded, and what is written at the close.
#[derive(Debug)]
pub(in crate::layers::cache) struct WarmStart {
    pub(super) config: WarmStartConfig,
    path: PathBuf,
    /// Not loaded yet.
    pub(super) keys: Mutex<Vec<Bytes>>,
    pub(super) task: Mutex<Option<JoinHandle<()>>>,
    pub(super) loaded: Counter,
}

pub(in crate::layers::cache) fn loaded(labels: &Labels) -> Counter {
    labels.counter(names::CACHE_WARM_START_KEYS, &[])
}

impl WarmStart {
    /// Reads the keys. A damaged file is logged, counted, and none.
    ///
    /// # Errors
    /// `Config` if the file is that of somebody else, or cannot be read.
    pub(in crate::layers::cache) fn open(
        config: &WarmStartConfig,
        context: &Context,
    ) -> Result<Self> {
        let path = context.resolve(&config.path);
        // A link stays, and what it leads to is written.
        let path = path.canonicalize().unwrap_or(path);
        let keys = file::read(&path).or_else(|error| {
            if error.kind() != ErrorKind::Corruption {
                return Err(error);
            }
            context.labels.count_error(&error);
            tracing::warn!("the keys for the warm start of a cache are damaged; it starts cold");
            Ok(Vec::new())
        })?;
        Ok(Self {
            config: config.clone(),
            path,
            keys: Mutex::new(keys),
            task: Mutex::default(),
            loaded: loaded(&context.labels),
        })
    }

    /// Takes the next keys.
    pub(super) fn take(&self, most: usize) -> Vec<Bytes> {
        let mut keys = self.keys.lock();
        let most = most.min(keys.len());
        keys.drain(..most).collect()
    }

    /// Ends the loads.
    pub(in crate::layers::cache) async fn stop(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
            // An error says that it was ended.
            let _ = task.await;
        }
    }

    /// Writes the keys that are in memory, and those that were not loaded yet.
    pub(in crate::layers::cache) async fn save(&self, engine: &Engine) {
        let mut keys = engine.keys(file::MOST_BYTES, file::length);
        let mut bytes: usize = keys.iter().map(|key| file::length(key)).sum();
        keys.extend(std::mem::take(&mut *self.keys.lock()).into_iter().take_while(|key| {
            bytes += file::length(key);
            bytes <= file::MOST_BYTES
        }));
        let path = self.path.clone();
        let write = move || file::write(&path, &keys);
        let written = match Handle::try_current() {
            Ok(runtime) => match runtime.spawn_blocking(write).await {
                Ok(written) => written,
                Err(lost) => Err(std::io::Error::other(lost)),
            },
            Err(_) => write(),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the keys for the next warm start of a cache could not be written");
        }
    }
}
