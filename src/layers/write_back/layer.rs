//! Opening the layer, and putting it around a store.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::config::{Opening, WriteBackConfig};
use super::counters::Counters;
use super::flush::Flusher;
use super::overlay::Overlay;
use super::replay;
use super::shared::{Log, Parts, Shared};
use super::state::{Bounds, State};
use super::store::WriteBack;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::layer::{Claim, Context, LayerConfig, Resize, Rewrite, StackLayer, Zone};
use crate::store::Store;
use crate::types::Profile;
use crate::types::units::ByteSize;

#[async_trait]
impl LayerConfig for WriteBackConfig {
    const NAME: &'static str = super::config::NAME;
    const ZONE: Zone = Zone::WriteBack;

    fn profile(&self, below: Profile) -> Result<Profile> {
        self.check()?;
        if !below.guarantees.writable {
            return Err(Error::config(
                "the store below is read-only, so nothing could be written back; leave this layer out",
            ));
        }
        Ok(self.profile_over(below))
    }

    fn claims(&self, context: &Context) -> Vec<Claim> {
        let claim = |path: &PathBuf| {
            Claim::new("the folder of the journal", &context.resolve(path)).whole()
        };
        self.path.iter().map(claim).collect()
    }

    fn register_metrics(&self, context: &Context, _: &Profile) {
        let _ = Counters::new(&context.labels);
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(WriteBackLayer::open(self, context).await?))
    }
}

/// Operations of a run, at most.
const RUN_OPS: usize = 16_384;

/// Puts a [`WriteBack`] around a store: one, as the journal is of one store. See the [module docs](super).
pub struct WriteBackLayer {
    config: WriteBackConfig,
    context: Context,
    runtime: Handle,
    /// Until the layer is put around a store.
    journal: Mutex<Option<(PathBuf, Journal)>>,
}

impl WriteBackLayer {
    /// Opens the journal.
    ///
    /// # Errors
    /// `Config` if a setting is out of range, or outside a tokio runtime; as [`Journal::open`].
    pub async fn open(config: &WriteBackConfig, context: &Context) -> Result<Self> {
        config.check()?;
        let runtime = Handle::try_current().map_err(|error| {
            Error::config("writing back needs a tokio runtime; open the layer in one")
                .with_source(error)
        })?;
        let journal = match &config.path {
            Some(path) => {
                let path = context.resolve(path);
                if !context.may_create && !Journal::is_in(&path)? {
                    return Err(replay::no_journal(&path));
                }
                let journal = replay::open_journal(&path, config).await?;
                Some((path, journal))
            }
            None => None,
        };
        let (config, context) = (config.clone(), context.clone());
        Ok(Self { config, context, runtime, journal: Mutex::new(journal) })
    }

    /// With a journal that is open.
    #[cfg(test)]
    pub(super) fn over(
        config: &WriteBackConfig,
        context: &Context,
        journal: (PathBuf, Journal),
    ) -> Self {
        let (config, context, runtime) = (config.clone(), context.clone(), Handle::current());
        Self { config, context, runtime, journal: Mutex::new(Some(journal)) }
    }

    /// The store, and the flusher, which is not started.
    pub(super) async fn pair(&self, below: Arc<dyn Store>) -> Result<(WriteBack, Flusher)> {
        let profile = below.profile();
        // The same that a stack refuses when it is checked.
        LayerConfig::profile(&self.config, profile.clone())?;
        let guarantees = profile.guarantees;
        // A store without atomic batches gets the operations of a run one by one, however many they are.
        let most = guarantees.limits.batch_ops.filter(|_| guarantees.atomic_batches);
        let bounds = Bounds {
            flush_after: self.config.flush_after.0,
            flush_bytes: self.config.flush_bytes.0,
            max_dirty: self.config.max_dirty.0,
            ops: most.unwrap_or(RUN_OPS).clamp(1, RUN_OPS),
            logged: self.config.journal_bytes().0 / 4,
        };
        let (clock, overlay) = (Arc::clone(&self.context.clock), Overlay::new(bounds.max_dirty));
        let taken = self.journal.lock().take();
        let (state, log) = match taken {
            Some((path, journal)) => {
                let (state, reader) = replay::replay(&journal, bounds, &overlay, &*clock).await?;
                replay::check_owner(&path, below.identity().as_ref(), overlay.entries())?;
                (state, Some(Log { journal, reader: tokio::sync::Mutex::new(reader) }))
            }
            None if self.config.path.is_some() => {
                return Err(Error::config(
                    "this layer is around a store already, and its journal is of that one; open another layer",
                ));
            }
            None => (State::new(bounds, 1), None),
        };
        let counters = Counters::new(&self.context.labels);
        let journal = log.as_ref().map_or(ByteSize(0), |_| self.config.journal_bytes());
        counters.bounds(self.config.max_dirty, journal);
        counters.replayed(state.visible - state.flushed);
        let shared = Arc::new(Shared::new(Parts {
            config: self.config.clone(),
            below,
            clock,
            runtime: self.runtime.clone(),
            log,
            state,
            overlay,
            counters,
        }));
        shared.measure(&mut shared.state.lock(), None);
        let flusher = Flusher::new(Arc::clone(&shared), self.context.seed);
        let closing = tokio::sync::Mutex::new(false);
        Ok((WriteBack { shared, flusher: Mutex::default(), closing }, flusher))
    }
}

#[async_trait]
impl StackLayer for WriteBackLayer {
    async fn wrap(&self, below: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
        let (store, flusher) = self.pair(below).await?;
        let visible = {
            let mut state = store.shared.state.lock();
            // For what only reads it is there, and what brings it below is another one's business. Before the flusher begins.
            state.rests = !self.context.may_create;
            state.visible
        };
        *store.flusher.lock() = Some(self.runtime.spawn(flusher.run()));
        match self.config.open {
            _ if !self.context.may_create => {}
            Opening::Wait => store.shared.flushed(visible, false).await?,
            // What an earlier process left does not wait for its turn.
            Opening::Later => {
                store.shared.state.lock().demand(visible);
                store.shared.wake.notify_one();
            }
        }
        Ok(Arc::new(store))
    }

    fn rewriter(&self, _below: Arc<dyn Store>) -> Option<Arc<dyn Rewrite>> {
        None
    }

    fn resizer(&self) -> Option<Arc<dyn Resize>> {
        None
    }
}

/// Prints no path.
impl std::fmt::Debug for WriteBackLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteBackLayer").field("ack", &self.config.ack).finish_non_exhaustive()
    }
}
