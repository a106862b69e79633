//! Taking a batch: its conditions, its place in the sequence, its record, and its acknowledgement.

use std::sync::Arc;

use bytes::Bytes;

use super::config::{Ack, NAME};
use super::counters::Cause;
use super::run::Given;
use super::shared::{Log, Shared};
use super::state::{Found, Verdict};
use crate::error::{Error, Outcome, Result};
use crate::journal::batch;
use crate::types::{Batch, Commit, Condition, Op, RESERVED_PREFIX};
use crate::write_group::complete;

/// What the store below may refuse, and only once it is flushed.
pub(super) fn check_reserved(key: &[u8]) -> Result<()> {
    if key.starts_with(RESERVED_PREFIX) {
        let message = "keys that begin with \\0tierstack/ are kept for tierstack; use another key";
        return Err(Error::invalid(message).with_layer(NAME).with_key(key));
    }
    Ok(())
}

/// A batch that has its place.
#[must_use]
struct Taken {
    /// `None`: it writes nothing.
    sequence: Option<u64>,
    ack: Ack,
    unsettled: Option<Unsettled>,
}

/// A batch whose writer may go away before it is on the disk. It becomes visible nevertheless.
struct Unsettled {
    shared: Arc<Shared>,
    sequence: u64,
    settled: bool,
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if !self.settled {
            let (shared, sequence) = (Arc::clone(&self.shared), self.sequence);
            self.shared.runtime.spawn(async move { shared.durable(sequence).await.ok() });
        }
    }
}

/// What was read below for conditions, and is watched meanwhile.
struct Seen<'a> {
    shared: &'a Shared,
    watch: u64,
    values: Found,
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().unwatch(self.watch);
    }
}

impl Shared {
    pub(super) async fn write(self: &Arc<Self>, batch: &Batch) -> Result<Commit> {
        let taken = self.take(batch).await?;
        self.settle(taken).await
    }

    /// A batch that has nothing to wait for. `None`: it has, and nothing was done.
    pub(super) fn at_once(self: &Arc<Self>, batch: &Batch) -> Option<Result<Commit>> {
        if self.log.is_some() || batch.is_conditional() || batch.is_empty() {
            return None;
        }
        // Where others wait for it, it is theirs.
        let _section = self.section.try_lock().ok()?;
        if let Err(error) = self.check_open().and_then(|()| self.admit(batch)) {
            return Some(Err(error));
        }
        let ack = self.ack_for(batch);
        let given = Given::new(batch, 0);
        let mut state = self.state.lock();
        if let Err(error) = state.check_open() {
            return Some(Err(error));
        }
        if ack != Ack::Memory || !state.has_room(given.bytes) {
            return None;
        }
        let sequence = state.give(given);
        self.publish(&mut state, sequence);
        drop(state);
        Some(Ok(self.acknowledged(sequence, ack)))
    }

    fn ack_for(&self, batch: &Batch) -> Ack {
        let below = self.profile.below.as_deref().unwrap_or(&self.profile);
        self.config.ack_for(batch.requested_durability(), below)
    }

    /// All of them take their places before the first is waited for, so that one sync serves them.
    pub(super) async fn write_group(self: &Arc<Self>, group: &[Batch]) -> Vec<Result<Commit>> {
        let (mut taken, mut refused) = (Vec::with_capacity(group.len()), None);
        for batch in group {
            match self.take(batch).await {
                Ok(one) => taken.push(one),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let mut answers: Vec<Result<Commit>> = Vec::with_capacity(group.len());
        for one in taken {
            // What is behind one that failed has its place too, so what becomes of it is unknown as well.
            let failed = answers.last().and_then(|answer| answer.as_ref().err().cloned());
            answers.push(match failed {
                Some(error) => Err(error),
                None => self.settle(one).await,
            });
        }
        if let (Some(error), true) = (refused, answers.iter().all(Result::is_ok)) {
            answers.push(Err(error));
        }
        complete(answers, group.len())
    }

    /// Refuses what the store below would refuse, as far as its profile tells.
    fn admit(&self, batch: &Batch) -> Result<()> {
        let guarantees = &self.profile.guarantees;
        guarantees.check_batch(batch)?;
        let keys = batch.ops().iter().map(Op::key);
        let mut keys = keys.chain(batch.conditions().iter().map(Condition::key));
        keys.try_for_each(|key| check_reserved(key))?;
        let not_text =
            |op: &&Op| op.value().is_some_and(|value| std::str::from_utf8(&value.bytes).is_err());
        match batch.ops().iter().find(not_text).filter(|_| guarantees.limits.text_values) {
            Some(op) => Err(Error::invalid(
                "the store below takes only values that are UTF-8, and this one is not",
            )
            .with_key(op.key())),
            None => Ok(()),
        }
    }

    async fn take(self: &Arc<Self>, batch: &Batch) -> Result<Taken> {
        self.check_open()?;
        self.admit(batch)?;
        let ack = self.ack_for(batch);
        let record = match &self.log {
            Some(_) if !batch.is_empty() => batch::encode(batch)?,
            _ => Bytes::new(),
        };
        let given = Given::new(batch, record.len() as u64);
        loop {
            let seen = self.look_below(batch.conditions()).await?;
            let section = self.turn(given.bytes).await?;
            let read = seen.as_ref().map(|seen| (seen.watch, &seen.values));
            let now = self.clock.now();
            let verdict = self.state.lock().verdict(&self.overlay, batch.conditions(), read, now);
            let after = match verdict {
                Verdict::Met(after) => after,
                Verdict::Stale => continue,
                Verdict::Unmet(condition, after) => {
                    drop(section);
                    // A batch that is lost with a crash has refused nothing.
                    self.known(after).await?;
                    return Err(condition.unmet());
                }
            };
            if batch.is_empty() {
                drop(section);
                self.known(after).await?;
                return Ok(Taken { sequence: None, ack, unsettled: None });
            }
            return self.place(given, record, ack).await;
        }
    }

    /// Waits until a batch is on the disk on which an answer relies.
    async fn known(&self, sequence: Option<u64>) -> Result<()> {
        match sequence {
            Some(sequence) => {
                let known = self.durable(sequence).await;
                known.map_err(|error| error.with_outcome(Outcome::Nothing))
            }
            None => Ok(()),
        }
    }

    /// Appends the record, and gives the batch its place: in one step for every reader, as nothing is awaited in between.
    /// A future that is dropped while it waits has appended nothing. The caller is in the section.
    async fn place(self: &Arc<Self>, given: Given, record: Bytes, ack: Ack) -> Result<Taken> {
        let appended = match &self.log {
            Some(log) => Some(self.append(log, record).await?),
            None => None,
        };
        let sequence = {
            let mut state = self.state.lock();
            if let Some(appended) = appended.filter(|appended| *appended != state.next) {
                let error = Error::internal(format!(
                    "the journal gave the sequence {appended} where {} was next",
                    state.next
                ));
                self.counters.failed(Cause::Internal);
                return Err(state.fail(error));
            }
            state.give(given)
        };
        let logged = self.log.is_some();
        if ack == Ack::Memory || !logged {
            self.publish(&mut self.state.lock(), sequence);
        }
        let unsettled = (ack != Ack::Memory && logged).then(|| Unsettled {
            shared: Arc::clone(self),
            sequence,
            settled: false,
        });
        Ok(Taken { sequence: Some(sequence), ack, unsettled })
    }

    /// Reads what the store below decides about.
    async fn look_below(&self, conditions: &[Condition]) -> Result<Option<Seen<'_>>> {
        if conditions.is_empty() {
            return Ok(None);
        }
        let watched = self.state.lock().watch(&self.overlay, conditions);
        let Some((watch, keys)) = watched else { return Ok(None) };
        let mut seen = Seen { shared: self, watch, values: Vec::new() };
        let found = self.below.get_many(&keys).await;
        let found = found.map_err(|error| error.with_outcome(Outcome::Nothing))?;
        seen.values = keys.into_iter().zip(found).collect();
        Ok(Some(seen))
    }

    async fn settle(self: &Arc<Self>, taken: Taken) -> Result<Commit> {
        let Taken { sequence, ack, unsettled } = taken;
        let Some(sequence) = sequence else { return Ok(Commit::done()) };
        if let Some(mut unsettled) = unsettled {
            let durable = self.durable(sequence).await;
            unsettled.settled = true;
            durable?;
        }
        if ack == Ack::Through {
            let flushed = self.flushed(sequence, false).await;
            flushed.map_err(|error| error.with_outcome(Outcome::Unknown))?;
            self.counters.acknowledged(ack);
            return Ok(Commit::at(sequence));
        }
        Ok(self.acknowledged(sequence, ack))
    }

    /// Before the store below has it.
    fn acknowledged(self: &Arc<Self>, sequence: u64, ack: Ack) -> Commit {
        self.counters.acknowledged(ack);
        let shared = Arc::clone(self);
        Commit::at(sequence).durable_after(async move { shared.flushed(sequence, false).await })
    }

    /// Waits until a batch is on the disk. It is visible then.
    pub(super) async fn durable(&self, sequence: u64) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        match log.journal.durable(sequence).await {
            Ok(()) => {
                self.publish(&mut self.state.lock(), sequence);
                Ok(())
            }
            Err(error) => {
                self.journal_failed(log, &error);
                Err(error.with_outcome(Outcome::Unknown).with_layer(NAME))
            }
        }
    }

    /// What was on the disk before is visible; what is behind it is not, and may be there when the journal is opened again.
    pub(super) fn journal_failed(&self, log: &Log, error: &Error) {
        // Nothing is written any more, so this does not change.
        let mut state = self.state.lock();
        self.publish(&mut state, log.journal.usage().durable.saturating_sub(1));
        state.drop_given();
        drop(state);
        self.counters.failed(Cause::Journal);
        self.fail(error.clone());
    }
}
