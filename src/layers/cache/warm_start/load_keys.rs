//! The task that loads the keys.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use super::super::state::{Cache, Shared};
use crate::error::Result;
use crate::store::{Read as _, Store};

/// Keys that are loaded at once.
const MOST_AT_ONCE: u32 = 256;

/// What it fills of the memory.
const MOST_USED: f64 = 0.9;

impl<S: Store> Cache<S> {
    /// Starts to load the keys, if there are any.
    pub(in crate::layers::cache) fn start_warm(&self) {
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
    // Before foreign changes are reported nothing would be kept.
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
