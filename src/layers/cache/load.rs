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
use super::counts::Fate;
use super::flight::{Flight, Landed, Outcome};
use super::freshness::{Moment, is_outage};
use super::levels::find_on_disk;
use super::stripes::{Ticket, Turn};
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
pub(super) struct Landing<S> {
    shared: Arc<Shared<S>>,
    key: Bytes,
    flight: Option<Flight>,
    ticket: Ticket,
    purpose: Purpose,
    /// What the engine has counted it with.
    bytes: u64,
}

/// Begins loads in the task of their reader, who does not wait for another task to begin them, and leaves them to one
/// of their own where they have to wait. Is ready at once.
pub(super) fn begin<S: Store>(
    runtime: &Handle,
    mut landings: Vec<Landing<S>>,
) -> impl Future<Output = ()> + Send {
    poll_fn(move |context| {
        // The reader may be polled outside of it.
        let _inside = runtime.enter();
        let mut loads = Box::pin(fly(take(&mut landings)));
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
pub(super) async fn fly<S: Read>(mut landings: Vec<Landing<S>>) {
    while let Some(shared) = landings.first().map(|landing| Arc::clone(&landing.shared)) {
        let began = shared.clock.monotonic();
        landings = find_on_disk(&shared, landings).await;
        if landings.is_empty() {
            return;
        }
        let spent = shared.clock.monotonic().saturating_sub(began);
        let (asked, began) = (shared.now(), shared.clock.monotonic());
        // What comes after the deadline is thrown away with its future.
        let outcome = ask(&shared, &mut landings, spent).await;
        if landings.is_empty() {
            return;
        }
        shared.counts.load_duration.record(shared.clock.monotonic().saturating_sub(began));
        let many = landings.len() > 1;
        let outcomes: Vec<Outcome> = match outcome {
            Ok(values) => values.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); landings.len()],
        };
        let ended = landings.into_iter().zip(outcomes);
        landings =
            ended.filter_map(|(landing, outcome)| landing.end(outcome, many, asked)).collect();
    }
}

/// Asks the store below, within the deadline and the cap. Ends the loads that nobody waits for when their turn comes.
#[tracing::instrument(name = "load", level = "debug", skip_all, fields(layer = shared.name, keys = landings.len()))]
async fn ask<S: Read>(
    shared: &Shared<S>,
    landings: &mut Vec<Landing<S>>,
    spent: Duration,
) -> Result<Vec<Option<Value>>> {
    let load = async {
        // The semaphore is never closed.
        let _permit = shared.loads.acquire().await;
        *landings = take(landings).into_iter().filter_map(Landing::wanted).collect();
        match &landings[..] {
            [] => Ok(Vec::new()),
            [one] => shared.inner.get(&one.key).await.map(|value| vec![value]),
            many => {
                let keys: Vec<Bytes> = many.iter().map(|landing| landing.key.clone()).collect();
                whole(&keys, shared.inner.get_many(&keys).await)
            }
        }
    };
    let limit = shared.load_timeout;
    tokio::select! {
        outcome = load => outcome,
        () = shared.clock.sleep(limit.saturating_sub(spent)) => {
            let message = format!("the store below took longer than load_timeout ({limit:?})");
            let operation = if landings.len() > 1 { Operation::GetMany } else { Operation::Get };
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

impl<S> Landing<S> {
    pub(super) fn new(
        shared: &Arc<Shared<S>>,
        key: &[u8],
        (flight, ticket, bytes): (Flight, Ticket, u64),
        purpose: Purpose,
    ) -> Self {
        let (shared, key) = (Arc::clone(shared), Bytes::copy_from_slice(key));
        Self { shared, key, flight: Some(flight), ticket, purpose, bytes }
    }

    /// The load, or the one that waited for its end, if anybody waits for it: its reader may have left while it waited
    /// for its turn.
    fn wanted(mut self) -> Option<Self> {
        while self.purpose != Purpose::Refresh {
            match self.shared.stripes.turn(&self.key, self.flight.as_ref()?) {
                Turn::Wanted => break,
                Turn::Next(flight, ticket) => {
                    self.count(None);
                    (self.flight, self.ticket, self.purpose) =
                        (Some(flight), ticket, Purpose::Counted);
                }
                Turn::Over => {
                    self.count(None);
                    self.flight = None;
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
            self.shared.counts.disk.increment(1);
        }
        self.land(Landed::Alone(Ok(Some(value)))).then_some(self)
    }

    /// Keeps the outcome and tells those who wait. Gives the load that waited for this one.
    fn end(mut self, outcome: Outcome, many: bool, asked: Moment) -> Option<Self> {
        match outcome {
            // Which key it is about, nobody knows.
            Err(error) if many && !is_outage(&error) => {
                self.count(None);
                self.land(Landed::AmongMany(error))
            }
            outcome => {
                let fate = self.shared.take(&self.key, &outcome, asked, self.ticket);
                self.count(outcome.is_ok().then_some(fate));
                self.land(Landed::Alone(outcome))
            }
        }
        .then_some(self)
    }

    /// `None`: it failed.
    fn count(&self, fate: Option<Fate>) {
        let counts = &self.shared.counts;
        match (self.purpose, fate) {
            (Purpose::Reader, fate) => counts.asked(fate.unwrap_or(Fate::Dropped)),
            (Purpose::Refresh, Some(fate)) => counts.refreshed(fate),
            (Purpose::Refresh, None) => counts.refresh_failed.increment(1),
            (Purpose::Counted, _) => {}
        }
    }

    /// Tells those who wait. Whether another load waited for the end of this one, which this is now.
    fn land(&mut self, landed: Landed) -> bool {
        let Some(flight) = self.flight.take() else { return false };
        let next = self.shared.stripes.land(&self.key, &flight);
        flight.land(landed);
        let Some((flight, ticket)) = next else { return false };
        (self.flight, self.ticket, self.purpose) = (Some(flight), ticket, Purpose::Counted);
        true
    }
}

impl<S> Drop for Landing<S> {
    fn drop(&mut self) {
        if self.flight.is_some() {
            self.count(None);
        }
        let lost = "the task of a load panicked, or the runtime was shut down";
        while self.land(Landed::Alone(Err(Error::internal(lost)))) {}
        self.shared.engine.end_load(self.bytes);
    }
}
