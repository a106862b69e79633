//! Loads: one per key at a time, each in a task of its own as soon as it waits, for one key or for many at once.

use std::future::{Future, poll_fn};
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::Shared;
use super::coherence::{Ticket, Turn};
use super::counters::Fate;
use super::freshness::{CoarseTime, is_outage};
use super::levels::find_on_disk;
use super::single_flight::{InFlight, LoadEnd, Outcome};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{Read, Store};
use crate::types::Value;

/// For whom a key is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A reader whose read is counted by what becomes of the load.
    Reader,
    /// Readers who are counted otherwise.
    Counted,
    /// Nobody waits for it.
    Refresh,
}

/// The load of a key, to be ended. However it ends, those who wait are told: by `Drop`, as a panic and
/// the end of the runtime come without a word.
pub(super) struct Load<S> {
    shared: Arc<Shared<S>>,
    key: Bytes,
    in_flight: Option<InFlight>,
    ticket: Ticket,
    purpose: Purpose,
    /// What the engine has counted it with.
    bytes: u64,
}

/// Begins loads in the task of their reader, who does not wait for another task to begin them, and leaves them to one
/// of their own where they have to wait. Is ready at once.
pub(super) fn begin<S: Store>(
    runtime: &Handle,
    mut loads: Vec<Load<S>>,
) -> impl Future<Output = ()> + Send {
    poll_fn(move |context| {
        // The reader may be polled outside of it.
        let _inside = runtime.enter();
        let mut loads = Box::pin(run_loads(take(&mut loads)));
        // A panic is an error of the load, here as in a task.
        let polled = catch_unwind(AssertUnwindSafe(|| loads.as_mut().poll(context)));
        if matches!(polled, Ok(Poll::Pending)) {
            runtime.spawn(loads);
        }
        Poll::Ready(())
    })
}

/// The task of loads that the store below is asked for at once. It goes on to those that waited for their
/// end.
pub(super) async fn run_loads<S: Read>(mut loads: Vec<Load<S>>) {
    while let Some(shared) = loads.first().map(|load| Arc::clone(&load.shared)) {
        let began = shared.clock.monotonic();
        loads = find_on_disk(&shared, loads).await;
        if loads.is_empty() {
            return;
        }
        let spent = shared.clock.monotonic().saturating_sub(began);
        let (asked, began) = (shared.now(), shared.clock.monotonic());
        // What comes after the deadline is thrown away with its future.
        let outcome = ask(&shared, &mut loads, spent).await;
        if loads.is_empty() {
            return;
        }
        shared.counters.load_duration.record(shared.clock.monotonic().saturating_sub(began));
        let many = loads.len() > 1;
        let outcomes: Vec<Outcome> = match outcome {
            Ok(values) => values.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); loads.len()],
        };
        let ended = loads.into_iter().zip(outcomes);
        loads = ended.filter_map(|(load, outcome)| load.end(outcome, many, asked)).collect();
    }
}

/// Asks the store below, within the deadline and the cap. Ends the loads that nobody waits for when their turn comes.
#[tracing::instrument(name = "load", level = "debug", skip_all, fields(layer = shared.name, keys = loads.len()))]
async fn ask<S: Read>(
    shared: &Shared<S>,
    loads: &mut Vec<Load<S>>,
    spent: Duration,
) -> Result<Vec<Option<Value>>> {
    let load = async {
        // The semaphore is never closed.
        let _permit = shared.loads.acquire().await;
        *loads = take(loads).into_iter().filter_map(Load::wanted).collect();
        match &loads[..] {
            [] => Ok(Vec::new()),
            [one] => shared.inner.get(&one.key).await.map(|value| vec![value]),
            many => {
                let keys: Vec<Bytes> = many.iter().map(|load| load.key.clone()).collect();
                whole(&keys, shared.inner.get_many(&keys).await)
            }
        }
    };
    let limit = shared.load_timeout;
    tokio::select! {
        outcome = load => outcome,
        () = shared.clock.sleep(limit.saturating_sub(spent)) => {
            let message = format!("the store below took longer than load_timeout ({limit:?})");
            let operation = if loads.len() > 1 { Operation::GetMany } else { Operation::Get };
            Err(Error::new(ErrorKind::Timeout, message).with_operation(operation))
        }
    }
}

/// A store that forgets a key in its answer must not make it look missing.
pub(super) fn whole(
    keys: &[Bytes],
    outcome: Result<Vec<Option<Value>>>,
) -> Result<Vec<Option<Value>>> {
    outcome.and_then(|values| {
        if values.len() == keys.len() {
            return Ok(values);
        }
        let message =
            format!("asked for {} keys, the store below answered {}", keys.len(), values.len());
        Err(Error::internal(message).with_operation(Operation::GetMany))
    })
}

impl<S> Load<S> {
    pub(super) fn new(
        shared: &Arc<Shared<S>>,
        key: &[u8],
        (in_flight, ticket, bytes): (InFlight, Ticket, u64),
        purpose: Purpose,
    ) -> Self {
        let (shared, key) = (Arc::clone(shared), Bytes::copy_from_slice(key));
        Self { shared, key, in_flight: Some(in_flight), ticket, purpose, bytes }
    }

    /// The load, or the one that waited for its end, if anybody waits for it: its reader may have left while it waited
    /// for its turn.
    fn wanted(mut self) -> Option<Self> {
        while self.purpose != Purpose::Refresh {
            match self.shared.coherence.turn(&self.key, self.in_flight.as_ref()?) {
                Turn::Wanted => break,
                Turn::Next(in_flight, ticket) => {
                    self.count(None);
                    (self.in_flight, self.ticket, self.purpose) =
                        (Some(in_flight), ticket, Purpose::Counted);
                }
                Turn::Over => {
                    self.count(None);
                    self.in_flight = None;
                    return None;
                }
            }
        }
        Some(self)
    }

    pub(super) const fn key(&self) -> &Bytes {
        &self.key
    }

    pub(super) const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Whether what is kept of the key is an answer. That is what a refresh replaces.
    pub(super) fn may_be_kept(&self) -> bool {
        self.purpose != Purpose::Refresh
    }

    /// Tells those who wait what the disk held. Gives the load that waited for this one.
    pub(super) fn end_on_disk(mut self, value: Value) -> Option<Self> {
        if self.purpose == Purpose::Reader {
            self.shared.counters.disk.increment(1);
        }
        self.tell(LoadEnd::Alone(Ok(Some(value)))).then_some(self)
    }

    /// Keeps the outcome and tells those who wait. Gives the load that waited for this one.
    fn end(mut self, outcome: Outcome, many: bool, asked: CoarseTime) -> Option<Self> {
        match outcome {
            // Which key it is about, nobody knows.
            Err(error) if many && !is_outage(&error) => {
                self.count(None);
                self.tell(LoadEnd::AmongMany(error))
            }
            outcome => {
                let fate = self.shared.take(&self.key, &outcome, asked, self.ticket);
                self.count(outcome.is_ok().then_some(fate));
                self.tell(LoadEnd::Alone(outcome))
            }
        }
        .then_some(self)
    }

    /// `None`: it failed.
    fn count(&self, fate: Option<Fate>) {
        let counts = &self.shared.counters;
        match (self.purpose, fate) {
            (Purpose::Reader, fate) => counts.asked(fate.unwrap_or(Fate::Dropped)),
            (Purpose::Refresh, Some(fate)) => counts.refreshed(fate),
            (Purpose::Refresh, None) => counts.refresh_failed.increment(1),
            (Purpose::Counted, _) => {}
        }
    }

    /// Tells those who wait. Whether another load waited for the end of this one, which this is now.
    fn tell(&mut self, ended: LoadEnd) -> bool {
        let Some(in_flight) = self.in_flight.take() else { return false };
        let next = self.shared.coherence.unregister(&self.key, &in_flight);
        in_flight.tell(ended);
        let Some((in_flight, ticket)) = next else { return false };
        (self.in_flight, self.ticket, self.purpose) = (Some(in_flight), ticket, Purpose::Counted);
        true
    }
}

impl<S> Drop for Load<S> {
    fn drop(&mut self) {
        if self.in_flight.is_some() {
            self.count(None);
        }
        let lost = "the task of a load panicked, or the runtime was shut down";
        while self.tell(LoadEnd::Alone(Err(Error::internal(lost)))) {}
        self.shared.engine.end_load(self.bytes);
    }
}
