//! Single flight: a load that is under way, shared by its task and by the readers that wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::sync::{AtomicU64, Mutex};
use crate::error::{Error, Result};
use crate::types::Value;

pub(in crate::layers::cache) type Outcome = Result<Option<Value>>;

/// How a load has ended.
#[derive(Clone, Debug)]
pub(in crate::layers::cache) enum LoadEnd {
    /// With an answer, or an error that is the answer.
    Alone(Outcome),
    /// It was one of many that the store below was asked for at once, and the error may be about another.
    AmongMany(Error),
}

/// A load that is under way.
#[derive(Clone, Debug, Default)]
pub(in crate::layers::cache) struct InFlight(Arc<InFlightState>);

#[derive(Debug, Default)]
struct InFlightState {
    outcome: watch::Sender<Option<LoadEnd>>,
    /// It has taken longer than a reader that has an old value waits.
    slow: AtomicBool,
    /// Readers that wait for it. It grows under the lock of the stripe only.
    waiting: AtomicU64,
    /// The load that begins when this one ends. Touched under the lock of the stripe only.
    next: Mutex<Option<InFlight>>,
}

/// Counts one reader that waits for the load.
#[derive(Debug)]
pub(in crate::layers::cache) struct WaitGuard(InFlight);

impl WaitGuard {
    pub(in crate::layers::cache) const fn in_flight(&self) -> &InFlight {
        &self.0
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::Release);
    }
}

impl InFlight {
    /// Under the lock of the stripe, of a load that is on its list, or next to one that is.
    pub(in crate::layers::cache) fn guard(&self) -> WaitGuard {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        WaitGuard(self.clone())
    }

    pub(in crate::layers::cache) fn is_awaited(&self) -> bool {
        self.0.waiting.load(Ordering::Acquire) > 0
    }

    pub(in crate::layers::cache) fn next(&self) -> Self {
        self.0.next.lock().get_or_insert_with(Self::default).clone()
    }

    pub(in crate::layers::cache) fn take_next(&self) -> Option<Self> {
        self.0.next.lock().take()
    }

    pub(in crate::layers::cache) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(in crate::layers::cache) fn tell(&self, ended: LoadEnd) {
        self.0.outcome.send_replace(Some(ended));
    }

    pub(in crate::layers::cache) fn has_ended(&self) -> bool {
        self.0.outcome.borrow().is_some()
    }

    pub(in crate::layers::cache) async fn ended(&self) -> LoadEnd {
        let mut outcome = self.0.outcome.subscribe();
        // The sender lives in `self`, so the channel stays open until there is an outcome.
        let ended = outcome.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        ended.unwrap_or_else(|| {
            LoadEnd::Alone(Err(Error::internal("a load ended without an outcome")))
        })
    }

    pub(in crate::layers::cache) fn is_slow(&self) -> bool {
        self.0.slow.load(Ordering::Relaxed)
    }

    pub(in crate::layers::cache) fn mark_slow(&self) {
        self.0.slow.store(true, Ordering::Relaxed);
    }
}
