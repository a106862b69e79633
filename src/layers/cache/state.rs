//! A cache, and what its readers, its writers and its tasks share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::change_feed::ChangeFeed;
use super::coherence::Coherence;
use super::config::{CacheConfig, check_capacity};
use super::counters::{Counters, Invalidations};
use super::disk::Disk;
use super::memory::Engine;
use super::policy::Times;
use super::warm_start::WarmStart;
use crate::clock::Clock;
use crate::error::Result;
use crate::types::units::ByteSize;

/// See the [module docs](crate::layers::cache).
#[derive(Debug)]
pub struct Cache<S>(pub(super) Arc<Shared<S>>);

impl<S> Clone for Cache<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Cache<S> {
    /// Changes the memory that the entries and loads may use. What is over it is evicted before this
    /// returns, in time that grows with what is evicted; readers and writers go on meanwhile.
    ///
    /// ```
    /// use tierstack::Layer;
    /// use tierstack::backends::Memory;
    /// use tierstack::layers::cache::{CacheConfig, CacheLayer};
    ///
    /// let layer = CacheLayer::new(&CacheConfig::default(), &tierstack::Context::default())?;
    /// let cache = layer.layer(Memory::new());
    /// cache.set_capacity("64MiB".parse()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Config` if it is out of range; `Unsupported` with another policy than `s3_fifo`.
    pub fn set_capacity(&self, capacity: ByteSize) -> Result<()> {
        check_capacity(capacity)?;
        self.0.engine.set_capacity(capacity.0)
    }
}

#[derive(Debug)]
pub(super) struct Shared<S> {
    pub(super) inner: S,
    pub(super) engine: Engine,
    pub(super) disk: Option<Disk>,
    pub(super) warm: Option<Arc<WarmStart>>,
    pub(super) coherence: Coherence,
    /// Where the store below reports what others change.
    pub(super) change_feed: Option<ChangeFeed>,
    pub(super) loads: Arc<Semaphore>,
    pub(super) load_timeout: Duration,
    pub(super) times: Times,
    /// Whether what is written is kept.
    pub(super) keeps_written: bool,
    pub(super) config: CacheConfig,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Counters,
    pub(super) invalidations: Invalidations,
    pub(super) name: String,
}
