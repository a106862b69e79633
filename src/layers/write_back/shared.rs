//! What the parts of the layer have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, RwLock, watch};

use super::config::{NAME, WriteBackConfig};
use super::counters::Counters;
use super::overlay::Overlay;
use super::state::State;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};
use crate::journal::{Journal, Reader};
use crate::store::Store;
use crate::types::{Durability, Profile};

/// How far the flushes have come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// The sequence of the last batch that the store below has.
    pub(super) flushed: u64,
    /// Attempts that failed.
    pub(super) failures: u64,
    /// The error of the last attempt, if it failed.
    pub(super) last: Option<Error>,
    /// Why nothing is flushed any more.
    pub(super) stopped: Option<Error>,
    /// Writes are not taken any more.
    pub(super) closing: bool,
}

/// The journal, and how far the store below is in it.
pub(super) struct Log {
    pub(super) journal: Journal,
    pub(super) reader: tokio::sync::Mutex<Reader>,
}

pub(super) struct Shared {
    pub(super) config: WriteBackConfig,
    pub(super) below: Arc<dyn Store>,
    /// Of this layer.
    pub(super) profile: Profile,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: Handle,
    pub(super) log: Option<Log>,
    /// Locked before the overlay, never the other way round.
    pub(super) state: Mutex<State>,
    pub(super) overlay: Overlay,
    /// Batches take their places in the order in which they arrive here.
    pub(super) section: tokio::sync::Mutex<()>,
    /// Held shared while the overlay and the store below are looked at as of one moment, and alone when a flush begins. Only by
    /// tasks that run by themselves, so that no caller can hold it up.
    pub(super) gate: RwLock<()>,
    /// Something may be due.
    pub(super) wake: Notify,
    /// The pause after a failed attempt is over.
    pub(super) hurry: Notify,
    /// There may be room.
    pub(super) room: Notify,
    pub(super) progress: watch::Sender<Progress>,
    closed: AtomicBool,
    pub(super) counters: Counters,
}

/// What [`Shared`] is made of.
pub(super) struct Parts {
    pub(super) config: WriteBackConfig,
    pub(super) below: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: Handle,
    pub(super) log: Option<Log>,
    pub(super) state: State,
    pub(super) overlay: Overlay,
    pub(super) counters: Counters,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { config, below, clock, runtime, log, state, overlay, counters } = parts;
        let progress = Progress { flushed: state.flushed, ..Progress::default() };
        Self {
            profile: config.profile_over(below.profile()),
            config,
            below,
            clock,
            runtime,
            log,
            state: Mutex::new(state),
            overlay,
            section: tokio::sync::Mutex::new(()),
            gate: RwLock::new(()),
            wake: Notify::new(),
            hurry: Notify::new(),
            room: Notify::new(),
            progress: watch::Sender::new(progress),
            closed: AtomicBool::new(false),
            counters,
        }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed().with_layer(NAME));
        }
        Ok(())
    }

    /// Nothing is answered or flushed any more.
    pub(super) fn end(&self) {
        self.closed.store(true, Ordering::Release);
        self.stand_still();
    }

    /// Nothing is flushed any more. Callers that wait for a flush are told.
    pub(super) fn stand_still(&self) {
        self.progress.send_modify(|progress| {
            progress.stopped.get_or_insert_with(Error::closed);
        });
    }

    /// Batches become visible, up to this one.
    pub(super) fn publish(&self, state: &mut State, up_to: u64) {
        let before = state.oldest();
        if state.publish(&self.overlay, up_to, self.clock.coarse()) {
            self.wake.notify_one();
        }
        self.measure(state, before);
    }

    /// Shows what is on its way. `before`: since when the oldest write waited that was shown.
    pub(super) fn measure(&self, state: &mut State, before: Option<Duration>) {
        self.counters.dirty(state.dirty, self.overlay.entries());
        self.counters.coalesced(std::mem::take(&mut state.coalesced));
        if state.oldest() != before {
            let waited = state.oldest().map(|since| self.clock.monotonic().saturating_sub(since));
            self.counters.oldest(waited.map(|waited| earlier(self.clock.now(), waited)));
        }
    }

    /// Nothing is acknowledged any more. Callers that wait are told.
    pub(super) fn fail(&self, error: Error) -> Error {
        let first = self.state.lock().fail(error.with_layer(NAME));
        self.room.notify_waiters();
        first
    }

    /// Whether what was written below must be flushed there before the journal can release it.
    pub(super) fn must_sync(&self) -> bool {
        let below = self.profile.below.as_deref().map(|below| &below.guarantees);
        self.log.is_some()
            && below.is_some_and(|below| {
                below.durability < below.durability_after_flush.min(Durability::PowerCut)
            })
    }

    /// Waits until the store below has a batch. `patient`: also past attempts that fail.
    pub(super) async fn flushed(&self, sequence: u64, patient: bool) -> Result<()> {
        let mut progress = self.progress.subscribe();
        let before = progress.borrow().failures;
        if progress.borrow().flushed < sequence {
            self.state.lock().demand(sequence);
            self.wake.notify_one();
            if !patient {
                self.hurry.notify_one();
            }
        }
        let done = progress.wait_for(|progress| {
            progress.flushed >= sequence
                || progress.stopped.is_some()
                || !patient && progress.failures > before && progress.last.is_some()
        });
        let last = done.await.map_err(|_| Error::internal("the flusher is gone"))?;
        match (&last.stopped, &last.last) {
            _ if last.flushed >= sequence => Ok(()),
            (Some(error), _) | (None, Some(error)) => Err(error.clone()),
            (None, None) => Err(Error::internal("a flush ended without an answer")),
        }
    }
}

fn earlier(now: Timestamp, waited: Duration) -> Timestamp {
    let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(waited))
}
