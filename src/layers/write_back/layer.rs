//! Opening the layer, and putting it around a store.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::config::{Opening, WriteBackConfig};
use super::counters::{Cause, Counters};
use super::flush::Flusher;
use super::overlay::Overlay;
use super::replay;
use super::shared::{Log, Parts, Shared};
use super::state::{Bounds, State};
use super::store::WriteBack;
use crate::error::{Error, Result};
use crate::filesystem::free_bytes;
use crate::journal::Journal;
use crate::layer::{Claim, Context, LayerConfig, Resize, Rewrite, StackLayer, Zone};
use crate::store::Store;
#[cfg(feature = "config")]
use crate::types::Identity;
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
    /// Tells when the store is there. `None`: it is.
    arrival: Mutex<Option<Arrival>>,
}

/// The answer comes once a store that was away is there, or is refused for good.
type Arrival = oneshot::Receiver<Result<()>>;

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
        Ok(Self::new(config, context, runtime, journal))
    }

    fn new(
        config: &WriteBackConfig,
        context: &Context,
        runtime: Handle,
        journal: Option<(PathBuf, Journal)>,
    ) -> Self {
        let (config, context, journal) = (config.clone(), context.clone(), Mutex::new(journal));
        Self { config, context, runtime, journal, arrival: Mutex::default() }
    }

    /// With a journal that is open.
    #[cfg(test)]
    pub(super) fn over(
        config: &WriteBackConfig,
        context: &Context,
        journal: (PathBuf, Journal),
    ) -> Self {
        Self::new(config, context, Handle::current(), Some(journal))
    }

    /// Whether the layer can be open before the store below is there.
    #[cfg(feature = "config")]
    pub(crate) fn may_be_early(&self) -> bool {
        self.config.open == Opening::Later && self.config.path.is_some()
    }

    /// Gives the journal up, where the layer is around no store: once this returns, another opening can have it.
    #[cfg(feature = "config")]
    pub(crate) async fn let_go(&self) {
        let taken = self.journal.lock().take();
        if let Some((_, journal)) = taken {
            // Nothing was appended.
            let _ = journal.close().await;
        }
    }

    /// For which data the journal is, as it was written down when it was last open over a store: nothing where that could not
    /// tell. `None`: there is no journal, or it was never open over a store.
    #[cfg(feature = "config")]
    pub(crate) fn owner(&self) -> Result<Option<String>> {
        match &self.config.path {
            Some(path) => replay::owner(&self.context.resolve(path)),
            None => Ok(None),
        }
    }

    /// Refuses a store that the journal is not for, whether something waits there or not.
    #[cfg(feature = "config")]
    pub(crate) fn check_owner(&self, store: Option<&Identity>) -> Result<()> {
        match &self.config.path {
            Some(path) => replay::check_owner(&self.context.resolve(path), store, 1),
            None => Ok(()),
        }
    }

    /// The store that the layer is put around is not there yet, and [is checked](Self::check_owner) when it comes.
    #[cfg(feature = "config")]
    pub(crate) fn comes_later(&self, arrival: Arrival) {
        *self.arrival.lock() = Some(arrival);
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
                let replayed = async {
                    let replayed = replay::replay(&journal, bounds, &overlay, &*clock).await?;
                    if self.arrival.lock().is_none() {
                        let waiting = overlay.entries();
                        replay::check_owner(&path, below.identity().as_ref(), waiting)?;
                    }
                    Ok(replayed)
                };
                match replayed.await {
                    Ok((state, reader)) => {
                        (state, Some(Log { journal, reader: tokio::sync::Mutex::new(reader) }))
                    }
                    Err(error) => {
                        // The next opening can have it at once.
                        let _ = journal.close().await;
                        return Err(error);
                    }
                }
            }
            None if self.config.path.is_some() => {
                return Err(Error::config(
                    "this layer is around a store already, and its journal is of that one; open another layer",
                ));
            }
            None => (State::new(bounds, 1), None),
        };
        let mut state = state;
        // For what only reads it is there, and what brings it below is another one's business. Before there is a flusher.
        state.rests = !self.context.may_create;
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

/// How often the disk of the journal is looked at.
const LOOK: Duration = Duration::from_secs(30);

/// Shows what is free there, so that it is known before writers wait.
async fn watch_disk(shared: Arc<Shared>, folder: Option<PathBuf>) {
    let Some(folder) = folder else { return };
    loop {
        let looked = folder.clone();
        // A file system of another machine may not answer.
        let free = shared.runtime.spawn_blocking(move || free_bytes(&looked)).await;
        shared.counters.disk_free(free.ok().flatten());
        shared.clock.sleep(LOOK).await;
    }
}

/// Waits for a store that is away.
async fn arrives(shared: Weak<Shared>, arrival: Arrival) {
    // An error means that the stack was closed before.
    let Ok(arrived) = arrival.await else { return };
    let Some(shared) = shared.upgrade() else { return };
    match arrived {
        Ok(()) => {
            shared.counters.away(false);
            shared.hurry.notify_one();
        }
        Err(error) => {
            shared.counters.failed(Cause::Refused);
            shared.stop(error);
        }
    }
}

#[async_trait]
impl StackLayer for WriteBackLayer {
    async fn wrap(&self, below: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
        let (store, flusher) = self.pair(below).await?;
        let visible = store.shared.state.lock().visible;
        let disk = self.config.path.as_ref().map(|path| self.context.resolve(path));
        let watched = watch_disk(Arc::clone(&store.shared), disk);
        let work = async {
            tokio::join!(flusher.run(), watched);
        };
        *store.flusher.lock() = Some(self.runtime.spawn(work));
        if let Some(arrival) = self.arrival.lock().take() {
            store.shared.counters.away(true);
            self.runtime.spawn(arrives(Arc::downgrade(&store.shared), arrival));
        }
        match self.config.open {
            _ if !self.context.may_create => {}
            Opening::Wait => {
                if let Err(error) = store.shared.flushed(visible, false).await {
                    if let Some(log) = &store.shared.log {
                        let _ = log.journal.close().await;
                    }
                    return Err(error);
                }
            }
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
