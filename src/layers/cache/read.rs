//! Reads: from what is kept, from what the store below answers at once, or from a load.

use tokio::runtime::Handle;

use super::coherence::{Admission, LoadEnd, Outcome, WaitGuard};
use super::config::CacheConfig;
use super::counters::Fate;
use super::load::{Load, Purpose};
use super::lookup::{Lookup, Old};
use super::question::{self, Asked, Question};
use super::run_loads::{begin, run_loads};
use super::state::{Cache, Shared};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::layer::LayerConfig as _;
use crate::reply::Reply;
use crate::store::Store;
use crate::types::Value;

/// A reader that waits for a load.
pub(super) struct Waiter {
    guard: WaitGuard,
    /// What may replace the answer of the load.
    old: Option<Old>,
    /// The load began for this reader.
    led: bool,
    purpose: Purpose,
}

impl<S: Store> Cache<S> {
    pub(super) fn read<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        match self.0.lookup(key) {
            Lookup::Answer(answer) => Reply::Now(answer),
            Lookup::Old(old) if old.is_served() => Reply::Now(self.renew(key, old)),
            Lookup::Old(old) => self.ask(key, Some(old)),
            Lookup::Nothing => self.ask(key, None),
        }
    }

    fn ask<'a>(&'a self, key: &'a [u8], old: Option<Old>) -> Reply<'a, Option<Value>> {
        self.ensure_subscribed();
        match question::ask(&self.0, key) {
            Asked::Now(outcome, fate) => Reply::Now(self.0.settle(outcome, fate, old)),
            Asked::Later(question) => {
                let purpose = Purpose::of_reader(old.as_ref());
                self.load(key, old, purpose, question)
            }
        }
    }

    /// Answers with what is kept, and has it loaded again.
    pub(super) fn renew(&self, key: &[u8], old: Old) -> Outcome {
        let shared = &self.0;
        if shared.coherence.is_quiet(key) {
            match question::ask(shared, key) {
                Asked::Now(outcome, fate) => return shared.settle(outcome, fate, Some(old)),
                Asked::Later(question) => self.refresh(key, question),
            }
        }
        shared.serve(old)
    }

    fn refresh(&self, key: &[u8], question: Option<Question>) {
        let shared = &self.0;
        let Ok(runtime) = Handle::try_current() else { return };
        if let Some(load) = shared.coherence.lead_if_quiet(key, || shared.engine.begin_load(key)) {
            let load = Load::new(shared, key, load, Purpose::Refresh);
            runtime.spawn(run_loads(vec![load], question));
        }
    }

    /// Joins the load of the key that is under way, or starts one, with what was asked already.
    fn load<'a>(
        &'a self,
        key: &'a [u8],
        old: Option<Old>,
        purpose: Purpose,
        question: Option<Question>,
    ) -> Reply<'a, Option<Value>> {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Reply::Now(Err(error)),
        };
        // Nothing is registered before somebody waits: a reply may be dropped, or put aside.
        Reply::later(async move {
            let mut begun = Vec::new();
            let waiter = match self.join_or_begin(key, old, purpose, &mut begun) {
                Ok(waiter) => waiter,
                Err(old) => return self.0.refuse(old, purpose),
            };
            if !begun.is_empty() {
                begin(&runtime, begun, question).await;
            }
            waiter.wait(&self.0).await;
            self.finish(key, waiter).await
        })
    }

    /// Joins the load of the key that is under way, or adds one to those that are to begin. Gives the old value back
    /// where there is no room for another load.
    pub(super) fn join_or_begin(
        &self,
        key: &[u8],
        old: Option<Old>,
        purpose: Purpose,
        begun: &mut Vec<Load<S>>,
    ) -> Result<Waiter, Option<Old>> {
        let shared = &self.0;
        let room = || shared.engine.begin_load(key);
        let (guard, led) = match shared.coherence.join_or_lead(key, room) {
            Admission::Join(guard) => {
                shared.counters.coalesced.add([u64::from(purpose == Purpose::Read)]);
                (guard, false)
            }
            Admission::Lead(guard, ticket, room) => {
                let load = (guard.in_flight().clone(), ticket, room);
                begun.push(Load::new(shared, key, load, purpose));
                (guard, true)
            }
            Admission::Full => return Err(old),
        };
        Ok(Waiter { guard, old, led, purpose })
    }

    /// The answer, after the [wait](Waiter::wait).
    pub(super) async fn finish(&self, key: &[u8], waiter: Waiter) -> Outcome {
        let Waiter { guard, old, led, purpose } = waiter;
        let in_flight = guard.in_flight();
        let shared = &*self.0;
        let is_to_count = u64::from(purpose == Purpose::ReadWithOld);
        let stale = |value| {
            shared.counters.stale.add([is_to_count]);
            Ok(Some(value))
        };
        if !in_flight.has_ended()
            && let Some(value) = old.as_ref().and_then(|old| old.value(shared))
        {
            return stale(value);
        }
        let outcome = match in_flight.ended().await {
            LoadEnd::Alone(outcome) => outcome,
            LoadEnd::AmongMany(error) if led => Err(error),
            // Another reader that asked again may have it by now.
            LoadEnd::AmongMany(_) => match shared.fresh(key) {
                Some(value) => Ok(Some(value)),
                None => {
                    let counted = purpose != Purpose::ReadWithOld;
                    let again = if counted { Purpose::Counted } else { purpose };
                    return self.load(key, old, again, None).await;
                }
            },
        };
        if let (Err(error), Some(old)) = (&outcome, &old)
            && let Some(value) = old.instead_of(error, shared)
        {
            return stale(value);
        }
        let result = if led { &shared.counters.miss } else { &shared.counters.coalesced };
        result.add([is_to_count]);
        // The store below had its answer before this reader came, perhaps.
        outcome.map(|value| value.filter(|value| !shared.is_expired(value)))
    }
}

impl<S> Shared<S> {
    /// What a reader gets where there is no room for another load.
    pub(super) fn refuse(&self, old: Option<Old>, purpose: Purpose) -> Outcome {
        let message = "as many loads are under way as the cache has room for: the store below answers too slowly, or `capacity` is too small for so many reads at once";
        let error = Error::new(ErrorKind::Capacity, message)
            .with_layer(CacheConfig::NAME)
            .with_retry(Retry::Later);
        let value = old.and_then(|old| old.instead_of(&error, self));
        let result = if value.is_some() { &self.counters.stale } else { &self.counters.miss };
        result.add([u64::from(purpose != Purpose::Counted)]);
        value.map(Some).ok_or(error)
    }

    /// What a reader gets if the store below was asked at once.
    fn settle(&self, outcome: Outcome, fate: Fate, old: Option<Old>) -> Outcome {
        if let (Err(error), Some(old)) = (&outcome, old)
            && old.instead_of(error, self).is_some()
        {
            return self.serve(old);
        }
        self.counters.asked(fate);
        outcome
    }
}

impl Waiter {
    /// Until the load has ended, or has taken longer than a reader that has an old value waits.
    pub(super) async fn wait<S>(&self, shared: &Shared<S>) {
        match shared.times.patience.filter(|_| self.old.is_some()) {
            None => drop(self.guard.in_flight().ended().await),
            Some(_) if self.guard.in_flight().is_slow() => {}
            Some(limit) => tokio::select! {
                biased;
                _ = self.guard.in_flight().ended() => {}
                () = shared.clock.sleep(limit) => self.guard.in_flight().mark_slow(),
            },
        }
    }
}

pub(super) fn runtime() -> Result<Handle> {
    Handle::try_current().map_err(|error| {
        let message = "a load is a task of its own, and there is no tokio runtime here to run it";
        Error::unsupported(message).with_source(error)
    })
}
