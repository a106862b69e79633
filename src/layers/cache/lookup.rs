//! What is kept: looking it up, and keeping what a load found.

use super::Shared;
use super::cached::Cached;
use super::freshness::Moment;
use super::stripes::Ticket;
use crate::types::Value;

/// What a reader finds.
pub(super) enum Found {
    /// The answer; `None` if it is kept that there is no such key.
    Fresh(Option<Value>),
    /// The store below has to be asked.
    Nothing,
}

impl<S> Shared<S> {
    /// Looks the key up, and counts what it finds.
    pub(super) fn lookup(&self, key: &[u8]) -> Found {
        let era = self.stripes.eras.now();
        let Some(cached) = self.engine.get(key).filter(|cached| cached.era == era) else {
            return Found::Nothing;
        };
        if self.is_expired(&cached) {
            self.engine.remove_expired(key, &cached);
            return Found::Nothing;
        }
        let result = if cached.value.is_some() { &self.hit } else { &self.negative };
        result.increment(1);
        Found::Fresh(cached.value)
    }

    fn is_expired(&self, cached: &Cached) -> bool {
        if cached.until.has_come(|| self.now()) {
            return true;
        }
        // An expiry is a moment of the wall clock, which may be set while the other clocks go on.
        let expires = cached.value.as_ref().filter(|value| value.expires_at.is_some());
        expires.is_some_and(|value| value.is_expired(self.clock.now()))
    }

    /// Now, on the coarse clock.
    pub(super) fn now(&self) -> Moment {
        Moment::now(&*self.clock)
    }

    /// Keeps what a load found that began at `asked`, unless a write came between.
    pub(super) fn install(&self, key: &[u8], value: Option<&Value>, asked: Moment, ticket: Ticket) {
        let Some(until) = self.times.until(value.is_some(), asked) else { return };
        let cached = Cached { value: value.cloned(), until, era: ticket.era };
        if !self.engine.fits(key, &cached) {
            return;
        }
        self.stripes.if_unchanged(ticket, || self.engine.insert(key, cached));
        self.engine.settle();
    }

    /// Forgets everything that is kept.
    pub(super) fn forget(&self) {
        self.stripes.eras.renew();
        self.engine.clear();
    }
}
