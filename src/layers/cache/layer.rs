//! The layer: it makes a cache over each store that it wraps.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::change_feed::ChangeFeed;
use super::coherence::{Coherence, Epochs, Mode};
use super::config::{CacheConfig, OnWrite};
use super::counters::{Counters, Invalidations};
use super::inspect::name;
use super::memory::Engine;
use super::policy::Times;
use super::state::{Cache, Shared};
use super::unclaimed_disk::{UnclaimedDisk, write_evicted};
use super::warm_start::WarmStart;
use crate::error::Result;
use crate::layer::{Context, Layer};
use crate::store::Store;

/// Keeps what is read from the stores it wraps, each in a cache of its own. See the [module docs](crate::layers::cache).
#[derive(Clone, Debug)]
pub struct CacheLayer {
    pub(super) config: CacheConfig,
    pub(super) context: Context,
    pub(super) disk: UnclaimedDisk,
    pub(super) warm: Option<Arc<WarmStart>>,
}

impl CacheLayer {
    /// A layer with these settings. With a disk or a warm start it waits for the disk. The first store that it
    /// wraps gets the disk.
    ///
    /// # Errors
    /// `Config` if a setting is out of range, or a folder or file is somebody else's; `Conflict` if the folder is
    /// in use; otherwise as the file system says.
    pub fn new(config: &CacheConfig, context: &Context) -> Result<Self> {
        config.check()?;
        let mut config = config.clone();
        if !context.may_create {
            // Nothing is made for those that only read: they do without what is not there.
            config.disk = config.disk.filter(|disk| context.resolve(&disk.path).exists());
            // The keys that a service kept are not replaced by the few that one command reads.
            config.warm_start = None;
        }
        let config = &config;
        let warm = config.warm_start.as_ref().map(|warm| WarmStart::open(warm, context));
        Ok(Self {
            disk: UnclaimedDisk::open(config, context)?,
            warm: warm.transpose()?.map(Arc::new),
            config: config.clone(),
            context: context.clone(),
        })
    }
}

impl<S: Store> Layer<S> for CacheLayer {
    type Service = Cache<S>;

    fn layer(&self, inner: S) -> Cache<S> {
        let (config, labels, clock) = (&self.config, &self.context.labels, &self.context.clock);
        let below = inner.profile().guarantees;
        let reported = below.change_feed.is_some();
        let epochs = Epochs::new(if reported { Mode::Disconnected } else { Mode::Keeping });
        let disk = self.disk.take(config, &self.context, &inner);
        let evicted = disk.as_ref().map(|disk| write_evicted(disk, config));
        let cache = Cache(Arc::new(Shared {
            inner,
            engine: Engine::telling(config.policy, config.capacity.0, labels, evicted),
            disk,
            warm: self.warm.clone(),
            coherence: Coherence::new(
                Arc::clone(clock),
                config.capacity.0,
                config.load_timeout.0,
                epochs,
            ),
            change_feed: reported.then(|| ChangeFeed::new(&self.context)),
            loads: Arc::new(Semaphore::new(config.max_loads)),
            load_timeout: config.load_timeout.0,
            times: Times::new(config, self.context.seed),
            keeps_written: config.on_write == OnWrite::Keep && below.verbatim,
            config: config.clone(),
            clock: Arc::clone(clock),
            counters: Counters::new(labels),
            invalidations: Invalidations::new(labels),
            name: name(labels),
        }));
        cache.start_warm();
        cache
    }
}
