//! Warm start: the keys that were kept when the store was closed are loaded again, in the background.
//!
//! Loads of their own are what they are: nothing is served that the store below was not asked for. Reads do
//! not wait for them.

mod file;

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::engine::Engine;
use super::{Cache, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::Context;
use crate::store::{Read as _, Store};
use crate::telemetry::{Counter, Labels, names};
use crate::types::check_path_of;
use crate::types::units::Span;

/// Settings of the warm start of a cache. See the [module docs](crate::layers::cache).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WarmStartConfig {
    /// The file for the keys, written at a close: keys alone, in plain, at most 16MiB.
    pub path: PathBuf,
    /// Keys that are loaded in a second, at most. Default 1000.
    #[serde(default = "default_rate")]
    pub rate: u32,
    /// For how long, at most. Default 1m.
    #[serde(default = "default_within")]
    pub within: Span,
}

const fn default_rate() -> u32 {
    1000
}

const fn default_within() -> Span {
    Span(Duration::from_secs(60))
}

impl WarmStartConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("warm_start.path is empty; name a file"));
        }
        check_path_of("warm_start.path", &self.path)?;
        for (name, is_zero) in [("rate", self.rate == 0), ("within", self.within.0.is_zero())] {
            if is_zero {
                let message = format!("warm_start.{name} is 0; it must be more, or be left out");
                return Err(Error::config(message));
            }
        }
        Ok(())
    }
}

/// Keys that are loaded at once.
const MOST_AT_ONCE: u32 = 256;

/// What it fills of the memory.
const MOST_USED: f64 = 0.9;

/// What is to be loaded, and what is written at the close.
#[derive(Debug)]
pub(super) struct WarmStart {
    config: WarmStartConfig,
    path: PathBuf,
    /// Not loaded yet.
    keys: Mutex<Vec<Bytes>>,
    task: Mutex<Option<JoinHandle<()>>>,
    loaded: Counter,
}

pub(super) fn loaded(labels: &Labels) -> Counter {
    labels.counter(names::CACHE_WARM_START_KEYS, &[])
}

impl WarmStart {
    /// Reads the keys. A damaged file is logged, counted, and none.
    ///
    /// # Errors
    /// `Config` if the file is that of somebody else, or cannot be read.
    pub(super) fn open(config: &WarmStartConfig, context: &Context) -> Result<Self> {
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
    fn take(&self, most: usize) -> Vec<Bytes> {
        let mut keys = self.keys.lock();
        let most = most.min(keys.len());
        keys.drain(..most).collect()
    }

    /// Ends the loads.
    pub(super) async fn stop(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
            // An error says that it was ended.
            let _ = task.await;
        }
    }

    /// Writes the keys that are in memory, and those that were not loaded yet.
    pub(super) async fn save(&self, engine: &Engine) {
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

impl<S: Store> Cache<S> {
    /// Starts to load the keys, if there are any.
    pub(super) fn start_warm(&self) {
        let Some(warm) = self.0.warm.as_ref().filter(|warm| !warm.keys.lock().is_empty()) else {
            return;
        };
        match Handle::try_current() {
            Ok(runtime) => {
                let task = runtime.spawn(load(Arc::downgrade(&self.0)));
                *warm.task.lock() = Some(task);
            }
            Err(_) => tracing::warn!("a warm start needs a tokio runtime; the cache starts cold"),
        }
    }
}

/// Loads until there are no more keys, the time is over, or the memory is used. Does not keep the cache alive.
async fn load<S: Store>(shared: Weak<Shared<S>>) {
    let Some((clock, config)) = shared
        .upgrade()
        .and_then(|shared| Some((Arc::clone(&shared.clock), shared.warm.as_ref()?.config.clone())))
    else {
        return;
    };
    let at_once = config.rate.div_ceil(10).min(MOST_AT_ONCE);
    let pause = Duration::from_secs(1) * at_once / config.rate;
    let began = clock.monotonic();
    let mut used = 0.0;
    while clock.monotonic().saturating_sub(began) < config.within.0 && used < MOST_USED {
        match load_some(&shared, at_once as usize).await {
            Ok(Some(more)) => {
                used += more;
                clock.sleep(pause).await;
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(?error, "the warm start of a cache ends, as a load failed");
                return;
            }
        }
    }
}

/// What part of the capacity it has filled. `None`: there is no more to load.
async fn load_some<S: Store>(shared: &Weak<Shared<S>>, most: usize) -> Result<Option<f64>> {
    let Some(cache) = shared.upgrade().map(Cache) else { return Ok(None) };
    let Some(warm) = &cache.0.warm else { return Ok(None) };
    cache.ensure_subscribed();
    // Before foreign changes are announced nothing would be kept.
    if !cache.0.coherence.epochs.now().keeps() {
        return Ok(Some(0.0));
    }
    let keys = warm.take(most);
    let values = cache.get_many(&keys).await?;
    warm.loaded.increment(keys.len() as u64);
    let found = keys.iter().zip(&values).filter_map(|(key, value)| Some((key, value.as_ref()?)));
    let part = cache.0.engine.part_of(found);
    Ok((!warm.keys.lock().is_empty()).then_some(part))
}
