//! The cache as a layer of a stack.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::change_feed::ChangeFeed;
use super::config::CacheConfig;
use super::counters::{Counters, Invalidations};
use super::layer::CacheLayer;
use super::state::Cache;
use super::{disk, memory, warm_start};
use crate::error::{Error, Result};
use crate::layer::{Claim, Context, Layer as _, LayerConfig, Resize, Rewrite, StackLayer, Zone};
use crate::store::Store;
use crate::types::Profile;
use crate::types::units::ByteSize;

#[async_trait]
impl LayerConfig for CacheConfig {
    const NAME: &'static str = "cache";
    const ZONE: Zone = Zone::Cache;

    fn profile(&self, below: Profile) -> Result<Profile> {
        self.check()?;
        if let Some(disk) = &self.disk {
            disk.check_below(&below.guarantees)?;
        }
        Ok(self.profile_over(below))
    }

    fn claims(&self, context: &Context) -> Vec<Claim> {
        let claim = |what, path| Claim::new(what, &context.resolve(path));
        let disk = self.disk.as_ref().map(|disk| claim("the folder", &disk.path).whole());
        let warm = self.warm_start.as_ref().map(|warm| claim("the file", &warm.path));
        disk.into_iter().chain(warm).collect()
    }

    fn register_metrics(&self, context: &Context, below: &Profile) {
        let labels = &context.labels;
        drop((Counters::new(labels), Invalidations::new(labels)));
        memory::register_counters(labels);
        if below.guarantees.change_feed.is_some() {
            drop(ChangeFeed::new(context));
        }
        if self.disk.is_some() {
            disk::register_counters(labels);
        }
        if self.warm_start.is_some() {
            drop(warm_start::loaded(labels));
        }
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        let (config, context) = (self.clone(), context.clone());
        let open = move || CacheLayer::new(&config, &context);
        let opened = match Handle::try_current() {
            // It waits for the disk.
            Ok(runtime) if self.disk.is_some() || self.warm_start.is_some() => {
                runtime.spawn_blocking(open).await.map_err(|error| {
                    Error::internal("opening the disk of a cache panicked").with_source(error)
                })?
            }
            _ => open(),
        };
        Ok(Arc::new(Opened { layer: opened?, cache: OnceLock::new() }))
    }
}

/// A layer that looks at the store before it wraps it.
struct Opened {
    layer: CacheLayer,
    cache: OnceLock<Arc<Cache<Arc<dyn Store>>>>,
}

#[async_trait]
impl StackLayer for Opened {
    async fn wrap(&self, below: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
        if let Some(disk) = &self.layer.config.disk {
            disk.check_identity(below.identity().as_ref())?;
        }
        let cache = Arc::new(self.layer.layer(below));
        // The first one, as a stack wraps a layer once.
        let _ = self.cache.set(Arc::clone(&cache));
        Ok(cache)
    }

    fn rewriter(&self, _below: Arc<dyn Store>) -> Option<Arc<dyn Rewrite>> {
        None
    }

    fn resizer(&self) -> Option<Arc<dyn Resize>> {
        let cache: Arc<dyn Resize> = Arc::<Cache<_>>::clone(self.cache.get()?);
        Some(cache)
    }
}

impl<S: Send + Sync + 'static> Resize for Cache<S> {
    fn resize(&self, capacity: ByteSize) -> Result<()> {
        self.set_capacity(capacity)
    }
}
