//! The load of a key: which read it is for, and how it ends.

use std::sync::Arc;

use bytes::Bytes;

use super::coherence::{InFlight, LoadEnd, Outcome, Ticket, Turn};
use super::counters::Fate;
use super::lookup::Old;
use super::policy::{CoarseTime, is_outage};
use super::state::Shared;
use crate::error::Error;
use crate::types::Value;

/// Which read a key is loaded or waited for, and with that, what counts the read. Each is counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A reader. It is counted when it joins a load, or by the end of the load that began for it.
    Read,
    /// A reader that has an old value. It is counted when it is answered, as either value may be the answer.
    ReadWithOld,
    /// Readers that were counted before, and need another load.
    Counted,
    /// No reader.
    Refresh,
}

impl Purpose {
    pub(super) const fn of_reader(old: Option<&Old>) -> Self {
        if old.is_some() { Self::ReadWithOld } else { Self::Read }
    }
}

/// The load of a key, to be ended. However it ends, waiting readers are told: by `Drop`, as a panic and
/// the end of the runtime come without notice.
pub(super) struct Load<S> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) key: Bytes,
    in_flight: Option<InFlight>,
    ticket: Ticket,
    purpose: Purpose,
    /// What the engine has counted it with.
    bytes: u64,
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
    pub(super) fn wanted(mut self) -> Option<Self> {
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

    pub(super) const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Whether what is kept of the key is an answer. That is what a refresh replaces.
    pub(super) fn may_be_kept(&self) -> bool {
        self.purpose != Purpose::Refresh
    }

    /// Tells the waiting readers what the disk held. Gives the load that waited for this one.
    pub(super) fn end_on_disk(mut self, value: Value) -> Option<Self> {
        if self.purpose == Purpose::Read {
            self.shared.counters.disk.increment(1);
        }
        self.tell(LoadEnd::Alone(Ok(Some(value)))).then_some(self)
    }

    /// Keeps the outcome and tells the waiting readers. Gives the load that waited for this one.
    pub(super) fn end(mut self, outcome: Outcome, many: bool, asked: CoarseTime) -> Option<Self> {
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
            (Purpose::Read, fate) => counts.asked(fate.unwrap_or(Fate::Dropped)),
            (Purpose::Refresh, Some(fate)) => counts.refreshed(fate),
            (Purpose::Refresh, None) => counts.refresh_failed.increment(1),
            (Purpose::ReadWithOld | Purpose::Counted, _) => {}
        }
    }

    /// Tells the waiting readers. Whether another load waited for the end of this one, which this is now.
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
