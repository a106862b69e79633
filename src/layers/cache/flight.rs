//! A load that is under way, as those see it who wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::sync::{AtomicU64, Mutex};
use crate::error::{Error, Result};
use crate::types::Value;

pub(super) type Outcome = Result<Option<Value>>;

/// How a load has ended.
#[derive(Clone, Debug)]
pub(super) enum Landed {
    /// With an answer, or an error that is the answer.
    Alone(Outcome),
    /// It was one of many that the store below was asked for at once, and the error may be about another.
    AmongMany(Error),
}

/// A load that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight(Arc<FlightState>);

#[derive(Debug, Default)]
struct FlightState {
    outcome: watch::Sender<Option<Landed>>,
    /// It has taken longer than who has an old value waits.
    slow: AtomicBool,
    /// Those who wait for it. It grows under the lock of the stripe only.
    waiting: AtomicU64,
    /// The load that begins when this one ends. Touched under the lock of the stripe only.
    next: Mutex<Option<Flight>>,
}

/// A load, and one who waits for it.
#[derive(Debug)]
pub(super) struct Seat(Flight);

impl Seat {
    pub(super) const fn flight(&self) -> &Flight {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::Release);
    }
}

impl Flight {
    /// Under the lock of the stripe, of a load that is on its list, or next to one that is.
    pub(super) fn seat(&self) -> Seat {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        Seat(self.clone())
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.0.waiting.load(Ordering::Acquire) > 0
    }

    pub(super) fn next(&self) -> Self {
        self.0.next.lock().get_or_insert_with(Self::default).clone()
    }

    pub(super) fn take_next(&self) -> Option<Self> {
        self.0.next.lock().take()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn land(&self, landed: Landed) {
        self.0.outcome.send_replace(Some(landed));
    }

    pub(super) fn has_landed(&self) -> bool {
        self.0.outcome.borrow().is_some()
    }

    pub(super) async fn landed(&self) -> Landed {
        let mut landing = self.0.outcome.subscribe();
        // The sender lives in `self`, so the channel stays open until there is an outcome.
        let landed = landing.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone());
        landed.unwrap_or_else(|| {
            Landed::Alone(Err(Error::internal("a load ended without an outcome")))
        })
    }

    pub(super) fn is_slow(&self) -> bool {
        self.0.slow.load(Ordering::Relaxed)
    }

    pub(super) fn has_been_slow(&self) {
        self.0.slow.store(true, Ordering::Relaxed);
    }
}
