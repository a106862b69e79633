//! A load that is under way, as those see it who wait for it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::types::Value;

pub(super) type Outcome = Result<Option<Value>>;

/// A load that is under way: whoever waits for it holds a copy.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight(Arc<FlightState>);

#[derive(Debug, Default)]
struct FlightState {
    outcome: watch::Sender<Option<Outcome>>,
    /// The load that begins when this one ends. Touched under the lock of the stripe only.
    next: Mutex<Option<Flight>>,
}

impl Flight {
    pub(super) fn next(&self) -> Self {
        self.0.next.lock().get_or_insert_with(Self::default).clone()
    }

    pub(super) fn take_next(&self) -> Option<Self> {
        self.0.next.lock().take()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn land(&self, outcome: Outcome) {
        self.0.outcome.send_replace(Some(outcome));
    }

    pub(super) async fn wait(self) -> Outcome {
        let mut landing = self.0.outcome.subscribe();
        // The sender lives in `self`, so the channel stays open until there is an outcome.
        match landing.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(None)),
            Err(_) => Err(Error::internal("a load ended without an outcome")),
        }
    }
}
