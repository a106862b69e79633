//! What is kept: looking it up, and keeping what a load found.

use super::coherence::{Outcome, Ticket};
use super::counters::Fate;
use super::policy::{Age, Answer, Cached, CoarseTime, is_outage};
use super::state::Shared;
use crate::error::Error;
use crate::types::Value;

/// What a reader finds.
pub(super) enum Lookup {
    /// The answer, which was counted.
    Answer(Outcome),
    /// A value that should be loaded again, or has to be.
    Old(Old),
    /// The store below has to be asked.
    Nothing,
}

/// A value that was found, and may replace that of a load.
pub(super) struct Old {
    value: Value,
    age: Age,
    /// From when on it may not.
    end: CoarseTime,
}

impl Old {
    /// Whether it is the answer, and what is loaded is for later readers.
    pub(super) fn is_served(&self) -> bool {
        self.age != Age::Late
    }

    /// The value, if it may be served still: a reader may have waited long for a load.
    pub(super) fn value<S>(&self, shared: &Shared<S>) -> Option<Value> {
        let over = shared.now() >= self.end || shared.is_expired(&self.value);
        (!over).then(|| self.value.clone())
    }

    /// The value, if it may be served in place of this error.
    pub(super) fn instead_of<S>(&self, error: &Error, shared: &Shared<S>) -> Option<Value> {
        if self.is_served() || is_outage(error) { self.value(shared) } else { None }
    }
}

impl<S> Shared<S> {
    /// Looks the key up, and counts the answer if there is one.
    // Inlined, and so is what it calls: an answer that passes through the return values of several functions is read
    // each time before the processor has written it, which made up a fifth of a hit.
    #[inline(always)]
    pub(super) fn lookup(&self, key: &[u8]) -> Lookup {
        let epoch = self.coherence.epochs.now();
        let is_old = |cached: &Cached| !self.coherence.epochs.serve(epoch, cached.epoch, key);
        // What is to be loaded again has to be seen as it is in the engine.
        let mut copied = false;
        let usable = |copy: &Cached| {
            copied = !is_old(copy) && self.age(copy) == (Age::Fresh { due: false });
            copied
        };
        let Some(cached) = self.engine.read(key, || self.coherence.version(key), usable) else {
            return Lookup::Nothing;
        };
        if !copied && is_old(&cached) {
            self.engine.remove_this(key, &cached);
            self.keep_on_disk(key, None);
            return Lookup::Nothing;
        }
        let age = if copied { Age::Fresh { due: false } } else { self.age(&cached) };
        match age {
            Age::Fresh { due: false } => {}
            Age::Stale { due: false } => self.counters.stale.add([1]),
            Age::Fresh { due: true } | Age::Stale { due: true } | Age::Late => {
                let end = self.times.end(&cached);
                return match cached.answer {
                    Answer::Value(value) => Lookup::Old(Old { value, age, end }),
                    // Of a value only there is more to say than that it is fresh, or not.
                    Answer::Missing | Answer::Failed(_) => Lookup::Nothing,
                };
            }
            Age::Expired | Age::Idle => {
                self.engine.remove_ended(key, &cached, age == Age::Idle);
                self.keep_on_disk(key, None);
                return Lookup::Nothing;
            }
        }
        Lookup::Answer(match cached.answer {
            Answer::Value(value) => {
                if age == (Age::Fresh { due: false }) {
                    self.counters.hit.add([1]);
                }
                Ok(Some(value))
            }
            Answer::Missing => {
                self.counters.negative.add([1]);
                Ok(None)
            }
            Answer::Failed(error) => {
                self.counters.error.increment(1);
                Err(error)
            }
        })
    }

    /// The value that is kept for the key and need not be loaded, without counting it.
    pub(super) fn fresh(&self, key: &[u8]) -> Option<Value> {
        let epoch = self.coherence.epochs.now();
        let cached = self.engine.get(key)?;
        let serves = self.coherence.epochs.serve(epoch, cached.epoch, key)
            && self.age(&cached) == (Age::Fresh { due: false });
        cached.value().filter(|_| serves).cloned()
    }

    fn age(&self, cached: &Cached) -> Age {
        if cached.value().is_some_and(|value| self.is_expired(value)) {
            return Age::Expired;
        }
        self.times.age(cached, || self.now())
    }

    /// An expiry is a moment of the wall clock, which may be set while the other clocks go on.
    pub(super) fn is_expired(&self, value: &Value) -> bool {
        value.expires_at.is_some() && value.is_expired(self.clock.now())
    }

    /// Now, on the coarse clock.
    pub(super) fn now(&self) -> CoarseTime {
        CoarseTime::now(&*self.clock)
    }

    /// Answers with a value that is loaded again for others.
    pub(super) fn serve(&self, old: Old) -> Outcome {
        let fresh = matches!(old.age, Age::Fresh { .. });
        let result = if fresh { &self.counters.hit } else { &self.counters.stale };
        result.add([1]);
        Ok(Some(old.value))
    }

    /// Keeps what a load found that began at `asked`, or that it failed, unless a write came between.
    pub(super) fn take(
        &self,
        key: &[u8],
        outcome: &Outcome,
        asked: CoarseTime,
        ticket: Ticket,
    ) -> Fate {
        if !ticket.epoch.keeps() {
            return Fate::Bypass;
        }
        match outcome {
            Ok(value) => self.install(key, value.as_ref(), asked, ticket),
            Err(error) => {
                self.install_failure(key, error, ticket);
                Fate::Dropped
            }
        }
    }

    fn install(
        &self,
        key: &[u8],
        value: Option<&Value>,
        asked: CoarseTime,
        ticket: Ticket,
    ) -> Fate {
        let entry = self.times.entry(value, asked, || self.now(), ticket.epoch);
        let refused = if entry.is_some() { Fate::Bypass } else { Fate::Dropped };
        let cached = match entry {
            Some(cached) if self.engine.fits(key, &cached) => cached,
            entry => {
                if self.times.overlap() || self.disk.is_some() {
                    // What is kept is older than this answer.
                    self.coherence.if_unchanged(ticket, key, || {
                        self.engine.remove(key);
                        self.keep_on_disk(key, entry.as_ref());
                    });
                }
                return refused;
            }
        };
        let mut fate = Fate::Dropped;
        self.coherence.if_unchanged(ticket, key, || {
            self.keep(key, cached);
            fate = Fate::Kept;
        });
        fate
    }

    fn install_failure(&self, key: &[u8], error: &Error, ticket: Ticket) {
        if !self.times.minds_errors() {
            return;
        }
        let now = self.now();
        self.coherence.if_unchanged(ticket, key, || {
            let epoch = self.coherence.epochs.now();
            let kept = self.engine.get(key);
            let kept = kept.filter(|kept| self.coherence.epochs.serve(epoch, kept.epoch, key));
            let kept =
                kept.filter(|kept| !kept.value().is_some_and(|value| self.is_expired(value)));
            if let Some(cached) = self.times.after_failure(kept, error, now, ticket.epoch) {
                self.engine.insert(key, cached);
            }
        });
    }

    /// Forgets everything that is kept.
    pub(super) fn forget(&self) {
        self.coherence.epochs.renew();
        self.clear();
    }
}
