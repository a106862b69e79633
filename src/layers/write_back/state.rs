//! What is on its way to the store below, without I/O and without waiting.
//!
//! A batch gets its sequence ([`State::give`]), becomes visible in the order of the sequence ([`State::publish`]), is part of a run, and leaves
//! once the store below has the run ([`State::complete`]).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::overlay::Overlay;
use super::run::{Given, Run};
use crate::clock::Timestamp;
use crate::error::{Error, Outcome, Result};
use crate::types::{Batch, Condition, Op, Value};

/// How much there may be of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) flush_after: Duration,
    pub(super) flush_bytes: u64,
    pub(super) max_dirty: u64,
    /// Operations of a run.
    pub(super) ops: usize,
    /// Bytes of records in the journal, from which on they are flushed so that it can release them.
    pub(super) logged: u64,
}

/// When the next run is to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    In(Duration),
    /// There is nothing to flush, or nothing is flushed any more.
    Never,
}

/// What became of conditions. With the sequence of the last batch that decided about it and is not known to be on the disk yet.
#[derive(Debug)]
pub(super) enum Verdict {
    Met(Option<u64>),
    /// The first that does not hold.
    Unmet(Condition, Option<u64>),
    /// What was read below may be old.
    Stale,
}

/// Keys with what was read of them below.
pub(super) type Found = Vec<(Bytes, Option<Value>)>;

/// A conditional write that has read keys below, and may not rely on that any more once one of them was flushed.
#[derive(Debug)]
struct Watch {
    keys: Vec<Bytes>,
    flushed: bool,
}

#[derive(Debug)]
pub(super) struct State {
    bounds: Bounds,
    /// Batches that are not visible yet.
    given: VecDeque<Given>,
    /// Oldest first. All but the last take nothing any more.
    runs: VecDeque<Run>,
    /// The first of the runs is being flushed.
    under_way: bool,
    /// The sequence of the next batch.
    pub(super) next: u64,
    /// The sequence of the last batch that readers see.
    pub(super) visible: u64,
    /// The sequence of the last batch that the store below has.
    pub(super) flushed: u64,
    /// Bytes of batches and runs.
    pub(super) dirty: u64,
    logged: u64,
    /// Operations that a later one replaced, since it was last asked.
    pub(super) coalesced: u64,
    /// Up to here it is to be flushed as soon as possible.
    demand: u64,
    /// Writers that wait for room.
    pub(super) waiting: usize,
    watches: HashMap<u64, Watch>,
    watched: u64,
    /// Why nothing is acknowledged any more.
    failed: Option<Error>,
    pub(super) closing: bool,
    /// What was replayed is read only: nothing is flushed before the first write, or before somebody asks for it.
    pub(super) rests: bool,
}

impl State {
    /// Of a store whose next batch has this sequence.
    pub(super) fn new(bounds: Bounds, next: u64) -> Self {
        let before = next.saturating_sub(1);
        Self {
            bounds,
            given: VecDeque::new(),
            runs: VecDeque::new(),
            under_way: false,
            next,
            visible: before,
            flushed: before,
            dirty: 0,
            logged: 0,
            coalesced: 0,
            demand: 0,
            waiting: 0,
            watches: HashMap::new(),
            watched: 0,
            failed: None,
            closing: false,
            rests: false,
        }
    }

    /// Whether writes are taken.
    pub(super) fn check_open(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone().with_outcome(Outcome::Nothing)),
            None if self.closing => Err(Error::closed().with_outcome(Outcome::Nothing)),
            None => Ok(()),
        }
    }

    pub(super) fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Nothing is acknowledged from now on. The first reason stays.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        self.failed.get_or_insert(error).clone()
    }

    /// A batch that is larger than the bound finds room where nothing else is dirty.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.dirty == 0 || self.dirty + bytes <= self.bounds.max_dirty
    }

    /// Takes a batch as the next of the sequence.
    pub(super) fn give(&mut self, mut given: Given) -> u64 {
        given.sequence = self.next;
        self.next += 1;
        self.dirty += given.bytes;
        self.logged += given.logged;
        self.given.push_back(given);
        self.next - 1
    }

    /// Batches become visible, up to this one. Says whether that changes when something is due.
    pub(super) fn publish(&mut self, overlay: &Overlay, up_to: u64, now: Duration) -> bool {
        if self.visible >= up_to {
            return false;
        }
        let rested = std::mem::take(&mut self.rests);
        let (idle, pressed) = (self.runs.is_empty() || rested, self.pressed());
        overlay.change(|map| {
            while self.given.front().is_some_and(|given| given.sequence <= up_to) {
                let Some(given) = self.given.pop_front() else { break };
                for op in &given.ops {
                    map.put(op.key(), op.value().cloned(), given.sequence, now);
                }
                self.visible = given.sequence;
                self.add(given, now);
            }
        });
        idle && !self.runs.is_empty() || !pressed && self.pressed()
    }

    /// Makes it part of the last run, or of a new one.
    fn add(&mut self, given: Given, now: Duration) {
        let (bytes, ops) = (self.bounds.flush_bytes, self.bounds.ops);
        let open = self.runs.len() > usize::from(self.under_way);
        let last = self.runs.back_mut().filter(|run| open && run.takes(&given, bytes, ops));
        self.dirty -= given.bytes;
        let run = match last {
            Some(run) => {
                self.dirty -= run.bytes;
                run
            }
            None => {
                self.runs.push_back(Run::new(now, &given));
                // It was pushed right now.
                let Some(run) = self.runs.back_mut() else { return };
                run
            }
        };
        self.coalesced += run.add(given);
        self.dirty += run.bytes;
    }

    /// What is not visible yet never becomes so: the journal does not have it.
    pub(super) fn drop_given(&mut self) {
        for given in self.given.drain(..) {
            self.dirty -= given.bytes;
            self.logged -= given.logged;
        }
    }

    pub(super) fn last_given(&self) -> Option<u64> {
        self.given.back().map(|given| given.sequence)
    }

    /// The store below is to have it soon, up to this batch.
    pub(super) fn demand(&mut self, up_to: u64) {
        self.rests = false;
        self.demand = self.demand.max(up_to);
    }

    pub(super) fn due(&self, now: Duration) -> Due {
        let Some(first) = self.runs.front().filter(|_| !self.rests) else { return Due::Never };
        let left = (first.since + self.bounds.flush_after).saturating_sub(now);
        if self.pressed() || left.is_zero() { Due::Now } else { Due::In(left) }
    }

    /// Whether the first run is due, whatever the time.
    fn pressed(&self) -> bool {
        let due = |first: &Run| {
            self.waiting > 0
                || self.under_way
                || self.runs.len() > 1
                || self.demand > self.flushed
                || first.bytes >= self.bounds.flush_bytes
                || self.logged >= self.bounds.logged
        };
        self.runs.front().is_some_and(due)
    }

    /// The first run, which takes nothing any more, with the sequence of its last batch.
    pub(super) fn begin(&mut self, now: Timestamp) -> Option<(Batch, u64)> {
        let first = self.runs.front()?;
        self.under_way = true;
        Some((first.batch(now), first.last))
    }

    /// Whether the first run has an operation of the key that the store below does not have.
    pub(super) fn is_left(&self, key: &[u8]) -> bool {
        self.runs.front().is_some_and(|first| first.has(key))
    }

    /// The store below has these operations of the first run.
    pub(super) fn landed(&mut self, overlay: &Overlay, keys: &[Bytes]) {
        let Some(first) = self.runs.front_mut() else { return };
        self.watches.values_mut().for_each(|watch| {
            watch.flushed |= watch.keys.iter().any(|key| keys.contains(key));
        });
        let before = first.bytes;
        overlay.change(|map| {
            for key in keys {
                let Some(sequence) = first.take(key) else { continue };
                map.flushed(key, sequence);
            }
        });
        self.dirty -= before - first.bytes;
    }

    /// The store below has the first run. An entry stays that was written again since.
    pub(super) fn complete(&mut self, overlay: &Overlay) -> Option<u64> {
        let run = self.runs.pop_front()?;
        self.under_way = false;
        self.watches.values_mut().for_each(|watch| {
            watch.flushed |= watch.keys.iter().any(|key| run.has(key));
        });
        overlay.change(|map| {
            for (key, sequence) in run.keys() {
                map.flushed(key, sequence);
            }
        });
        self.dirty -= run.bytes;
        self.logged -= run.logged;
        self.flushed = run.last;
        Some(run.last)
    }

    /// When the oldest write that waits became visible, on the monotonic clock.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.runs.front().map(|run| run.since)
    }

    /// Of these keys those about which the store below decides. From now on it is noticed when one of them is flushed.
    pub(super) fn watch(
        &mut self,
        overlay: &Overlay,
        conditions: &[Condition],
    ) -> Option<(u64, Vec<Bytes>)> {
        let mut keys: Vec<Bytes> = conditions.iter().map(|one| one.key().clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.given_op(key).is_none() && overlay.look(key, |_| ()).is_none());
        if keys.is_empty() {
            return None;
        }
        self.watched += 1;
        self.watches.insert(self.watched, Watch { keys: keys.clone(), flushed: false });
        Some((self.watched, keys))
    }

    pub(super) fn unwatch(&mut self, watch: u64) {
        self.watches.remove(&watch);
    }

    fn given_op(&self, key: &[u8]) -> Option<(&Op, u64)> {
        let mut newest = self.given.iter().rev();
        newest.find_map(|given| {
            let op = given.ops.iter().find(|op| op.key() == key)?;
            Some((op, given.sequence))
        })
    }

    /// Whether conditions hold, of what was given, over what is visible, over what was read below.
    pub(super) fn verdict(
        &self,
        overlay: &Overlay,
        conditions: &[Condition],
        read: Option<(u64, &Found)>,
        now: Timestamp,
    ) -> Verdict {
        let live = |value: Option<&Value>| value.filter(|value| !value.is_expired(now)).cloned();
        let mut after = None;
        for condition in conditions {
            let key = condition.key();
            let found = if let Some((op, sequence)) = self.given_op(key) {
                after = after.max(Some(sequence));
                live(op.value())
            } else if let Some(value) = overlay.look(key, |dirty| live(dirty.value.as_ref())) {
                value
            } else {
                let known = read.filter(|(watch, _)| {
                    self.watches.get(watch).is_some_and(|watch| !watch.flushed)
                });
                let value =
                    known.and_then(|(_, values)| values.iter().find(|(read, _)| read == key));
                match value {
                    Some((_, value)) => live(value.as_ref()),
                    None => return Verdict::Stale,
                }
            };
            if !condition.holds(found.as_ref()) {
                return Verdict::Unmet(condition.clone(), after);
            }
        }
        Verdict::Met(after)
    }
}
