//! Loads: one per key at a time, each a task of its own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::flight::{Flight, Outcome};
use super::stripes::{Lookup, Ticket};
use super::{Cache, Shared};
use crate::error::{Error, ErrorKind, Operation};
use crate::reply::Reply;
use crate::store::Read;
use crate::types::Value;

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
                let landing = Landing::new(&self.0, Bytes::copy_from_slice(key), flight.clone());
                runtime.spawn(landing.fly(ticket));
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
    flight: Option<Flight>,
}

impl<S: Read> Landing<S> {
    async fn fly(mut self, mut ticket: Ticket) {
        loop {
            let asked = self.shared.now();
            let outcome = self.ask().await;
            // What comes after the deadline is thrown away with its future.
            if let Ok(value) = &outcome {
                self.shared.install(&self.key, value.as_ref(), asked, ticket);
            }
            match self.land(outcome) {
                Some(next) => ticket = next,
                None => return,
            }
        }
    }

    /// Asks the store below, within the deadline and the cap.
    async fn ask(&self) -> Outcome {
        let load = async {
            // The semaphore is never closed.
            let _permit = self.shared.loads.acquire().await;
            self.shared.inner.get(&self.key).await
        };
        let limit = self.shared.load_timeout;
        tokio::select! {
            outcome = load => outcome,
            () = self.shared.clock.sleep(limit) => {
                let message = format!("the store below took longer than load_timeout ({limit:?})");
                Err(Error::new(ErrorKind::Timeout, message).with_operation(Operation::Get))
            }
        }
    }
}

impl<S> Landing<S> {
    fn new(shared: &Arc<Shared<S>>, key: Bytes, flight: Flight) -> Self {
        shared.engine.begin_load(&key);
        Self { shared: Arc::clone(shared), key, flight: Some(flight) }
    }

    /// Tells those who wait, and goes on to the load that waited for this one.
    fn land(&mut self, outcome: Outcome) -> Option<Ticket> {
        let flight = self.flight.take()?;
        let next = self.shared.stripes.land(&self.key, &flight);
        flight.land(outcome);
        let (flight, ticket) = next?;
        self.flight = Some(flight);
        Some(ticket)
    }
}

impl<S> Drop for Landing<S> {
    fn drop(&mut self) {
        let lost = "the task of a load panicked, or the runtime was shut down";
        while self.flight.is_some() {
            self.land(Err(Error::internal(lost)));
        }
        self.shared.engine.end_load(&self.key);
    }
}
