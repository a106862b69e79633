//! Loads: one per key at a time, each a task of its own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinError;

use super::stripes::{Lookup, Ticket};
use super::{Cache, Shared};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::reply::Reply;
use crate::store::Read;
use crate::types::Value;

type Outcome = Result<Option<Value>>;

/// A load that is under way: whoever waits for it holds a copy.
#[derive(Clone, Debug)]
pub(super) struct Flight(Arc<watch::Sender<Option<Outcome>>>);

impl Flight {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    fn land(&self, outcome: Outcome) {
        self.0.send_replace(Some(outcome));
    }

    async fn wait(self) -> Outcome {
        let mut landing = self.0.subscribe();
        // The sender lives in `self`, so the channel stays open until there is an outcome.
        match landing.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(None)),
            Err(_) => Err(Error::internal("a load ended without an outcome")),
        }
    }
}

/// What became of a task that did not return.
pub(super) fn lost(error: &JoinError, what: &str) -> Error {
    if error.is_panic() {
        Error::internal(format!("the task of a {what} panicked"))
    } else {
        Error::new(ErrorKind::Closed, format!("the runtime was shut down during a {what}"))
    }
}

impl<S: Read> Cache<S> {
    /// Joins the load of the key that is under way, or starts one.
    pub(super) fn load(&self, key: &[u8]) -> Reply<'static, Option<Value>> {
        let Ok(runtime) = Handle::try_current() else {
            let error = "a load is a task of its own, and there is no tokio runtime here to run it";
            return Reply::Now(Err(Error::unsupported(error)));
        };
        let flight = match self.0.stripes.join_or_lead(key) {
            Lookup::Join(flight) => {
                self.0.coalesced.increment(1);
                flight
            }
            Lookup::Lead(flight, ticket) => {
                self.0.miss.increment(1);
                let landing = Landing {
                    shared: Arc::clone(&self.0),
                    key: Bytes::copy_from_slice(key),
                    ticket,
                    flight: flight.clone(),
                    outcome: None,
                };
                runtime.spawn(landing.fly());
                flight
            }
        };
        Reply::later(flight.wait())
    }
}

/// The task of a load. However it ends, those who wait are told: by `Drop`, as a panic and the end
/// of the runtime come without a word.
struct Landing<S> {
    shared: Arc<Shared<S>>,
    key: Bytes,
    ticket: Ticket,
    flight: Flight,
    outcome: Option<Outcome>,
}

impl<S: Read> Landing<S> {
    async fn fly(mut self) {
        let load = async {
            // The semaphore is never closed.
            let _permit = self.shared.loads.acquire().await;
            self.shared.inner.get(&self.key).await
        };
        let outcome = tokio::select! {
            outcome = load => outcome,
            () = self.shared.clock.sleep(self.shared.load_timeout) => Err(Error::new(
                ErrorKind::Timeout,
                format!("the store below took longer than load_timeout ({:?})", self.shared.load_timeout),
            )
            .with_operation(Operation::Get)),
        };
        // What comes after the deadline is thrown away with its future.
        if let Ok(value) = &outcome {
            self.shared.install(&self.key, value.as_ref(), self.ticket);
        }
        self.outcome = Some(outcome);
    }
}

impl<S> Drop for Landing<S> {
    fn drop(&mut self) {
        self.shared.stripes.land(&self.key, self.ticket);
        let outcome = self.outcome.take().unwrap_or_else(|| {
            Err(Error::internal("the task of a load panicked, or the runtime was shut down"))
        });
        self.flight.land(outcome);
    }
}
