//! How long an entry is served, and when it is loaded again: decisions about moments, without a clock.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::quality::FixedState;

use super::super::coherence::Epoch;
use super::super::config::CacheConfig;
use super::coarse_time::CoarseTime;
use super::entry::{Answer, Cached, Extra};
use crate::error::{Error, ErrorKind};
use crate::types::Value;
use crate::types::units::Span;

/// What may be done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers::cache) enum Age {
    /// It is the answer. `due`: it should be loaded again.
    Fresh {
        due: bool,
    },
    /// Past its ttl, it is the answer still. `due`: it should be loaded again.
    Stale {
        due: bool,
    },
    /// It is the answer if a load fails.
    Late,
    Expired,
    /// Nobody read it for too long.
    Idle,
}

/// The settings that are about time.
#[derive(Debug)]
pub(in crate::layers::cache) struct Times {
    ttl: Option<Duration>,
    negative_ttl: Option<Duration>,
    error_ttl: Option<Duration>,
    idle: Option<Duration>,
    jitter: f64,
    dice: FixedState,
    thrown: AtomicU64,
    /// How long before the end of its ttl a value is refreshed.
    ahead: Option<Duration>,
    stale_while_refresh: Duration,
    stale_if_error: Duration,
    retry_after_error: Duration,
    /// How long a reader that has an old value waits for a load.
    pub(in crate::layers::cache) patience: Option<Duration>,
}

/// Whether an error speaks of the store below being unwell, and not of the question, the entry or the
/// settings.
pub(in crate::layers::cache) fn is_outage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Capacity)
}

impl Times {
    pub(in crate::layers::cache) fn new(config: &CacheConfig, seed: u64) -> Self {
        let span = |span: Option<Span>| span.map(|span| span.0);
        let ahead = config.ttl.zip(config.refresh_ahead);
        Self {
            ttl: span(config.ttl),
            negative_ttl: span(config.negative_ttl),
            error_ttl: span(config.error_ttl),
            idle: span(config.idle),
            jitter: config.jitter.as_f64(),
            dice: FixedState::with_seed(seed),
            thrown: AtomicU64::new(0),
            ahead: ahead.map(|(ttl, part)| shortened(ttl.0, part.as_f64())),
            stale_while_refresh: span(config.stale_while_refresh).unwrap_or_default(),
            stale_if_error: span(config.stale_if_error).unwrap_or_default(),
            retry_after_error: config.retry_after_error.0,
            patience: span(config.soft_timeout),
        }
    }

    /// The entry that holds an answer, from a load that began at `asked`. `None`: it is not kept.
    ///
    /// Its ttl counts from the question: what the store below found may be as old as that.
    pub(in crate::layers::cache) fn entry(
        &self,
        value: Option<&Value>,
        asked: CoarseTime,
        now: impl FnOnce() -> CoarseTime,
        epoch: Epoch,
    ) -> Option<Cached> {
        let ttl = if value.is_some() { self.ttl } else { Some(self.negative_ttl?) };
        let until = ttl.map_or(CoarseTime::NEVER, |ttl| asked.after(self.jittered(ttl)));
        let answer = value.cloned().map_or(Answer::Missing, Answer::Value);
        let extra = self.idle.map(|_| Extra::new(now(), CoarseTime::LONG_AGO));
        Some(Cached { answer, until, epoch, extra })
    }

    /// The entry that holds a value that was kept elsewhere, with the end of its ttl.
    pub(in crate::layers::cache) fn found(
        &self,
        value: Value,
        until: CoarseTime,
        now: CoarseTime,
        epoch: Epoch,
    ) -> Cached {
        let extra = self.idle.map(|_| Extra::new(now, CoarseTime::LONG_AGO));
        Cached { answer: Answer::Value(value), until, epoch, extra }
    }

    /// Never longer than it was.
    fn jittered(&self, ttl: Duration) -> Duration {
        if self.jitter == 0.0 {
            return ttl;
        }
        let throw = self.dice.hash_one(self.thrown.fetch_add(1, Ordering::Relaxed));
        // 53 bits: every one of them fits a double.
        let part = (throw >> 11) as f64 / (1u64 << 53) as f64;
        shortened(ttl, self.jitter * part)
    }

    /// Whether entries stay after their ttl, or are loaded again before it ends: then a load may find an older
    /// answer than its own.
    pub(in crate::layers::cache) fn overlap(&self) -> bool {
        self.ahead.is_some() || self.longest_stale() > Duration::ZERO
    }

    /// Whether a load that failed leaves something behind.
    pub(in crate::layers::cache) fn minds_errors(&self) -> bool {
        self.overlap() || self.error_ttl.is_some()
    }

    fn longest_stale(&self) -> Duration {
        self.stale_while_refresh.max(self.stale_if_error)
    }

    /// From when on the value is not served in any case.
    pub(in crate::layers::cache) fn end(&self, cached: &Cached) -> CoarseTime {
        cached.until.after(self.longest_stale())
    }

    /// What may be done with an entry. Only what depends on time costs a look at the clock.
    pub(in crate::layers::cache) fn age(
        &self,
        cached: &Cached,
        now: impl FnOnce() -> CoarseTime,
    ) -> Age {
        if cached.until == CoarseTime::NEVER && self.idle.is_none() {
            return Age::Fresh { due: false };
        }
        let now = now();
        if let (Some(idle), Some(extra)) = (self.idle, &cached.extra) {
            if extra.read().after(idle) <= now {
                return Age::Idle;
            }
            extra.touch(now);
        }
        self.age_at(cached, now)
    }

    fn age_at(&self, cached: &Cached, now: CoarseTime) -> Age {
        let (until, is_value) = (cached.until, cached.value().is_some());
        let held = cached.extra.as_ref().is_some_and(|extra| now < extra.held_until);
        if now < until || until == CoarseTime::NEVER {
            let due = is_value && self.ahead.is_some_and(|ahead| until.before(ahead) <= now);
            Age::Fresh { due: due && !held }
        } else if !is_value {
            Age::Expired
        } else if now < until.after(self.stale_while_refresh) {
            Age::Stale { due: !held }
        } else if now < until.after(self.stale_if_error) {
            if held { Age::Stale { due: false } } else { Age::Late }
        } else {
            Age::Expired
        }
    }

    /// What is kept after a load failed, in place of what is kept now; `None`: what is there stays.
    ///
    /// The ends of an entry stay where they were, however often this happens.
    pub(in crate::layers::cache) fn after_failure(
        &self,
        kept: Option<Cached>,
        error: &Error,
        now: CoarseTime,
        epoch: Epoch,
    ) -> Option<Cached> {
        let retry = now.after(self.retry_after_error);
        let age = kept.as_ref().map_or(Age::Expired, |kept| self.age_at(kept, now));
        let held_until = match (kept.as_ref(), age) {
            (Some(_), Age::Fresh { .. } | Age::Stale { .. } | Age::Late) if is_outage(error) => {
                retry
            }
            // It does not speak for serving the value any longer than it would have been.
            (Some(kept), Age::Fresh { .. } | Age::Stale { .. }) => {
                retry.min(kept.until.after(self.stale_while_refresh))
            }
            _ => {
                let until = now.after(self.error_ttl?);
                let extra = self.idle.map(|_| Extra::new(now, CoarseTime::LONG_AGO));
                return Some(Cached { answer: Answer::Failed(error.clone()), until, epoch, extra });
            }
        };
        kept.map(|kept| {
            let read = kept.extra.as_ref().map_or(now, |extra| extra.read());
            Cached { extra: Some(Extra::new(read, held_until)), ..kept }
        })
    }
}

/// Less that part of it. The longest spans lose no precision that matters.
fn shortened(span: Duration, part: f64) -> Duration {
    span.saturating_sub(Duration::try_from_secs_f64(span.as_secs_f64() * part).unwrap_or(span))
}
