//! Reads: from what is kept, from what the store below answers at once, or from a load.

use tokio::runtime::Handle;

use super::counts::Fate;
use super::flight::{Landed, Outcome, Seat};
use super::load::{Landing, Purpose, begin, fly};
use super::lookup::{Found, Old};
use super::stripes::Lookup;
use super::{Cache, CacheConfig, Shared};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::layer::LayerConfig as _;
use crate::reply::Reply;
use crate::store::{Read, Store};
use crate::types::Value;

/// A reader who waits for a load.
pub(super) struct Boarded {
    seat: Seat,
    /// What may stand in for the answer of the load.
    old: Option<Old>,
    /// The load began for this reader.
    led: bool,
    /// The read is counted when it is answered.
    counts: bool,
}

impl<S: Store> Cache<S> {
    pub(super) fn read<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        match self.0.lookup(key) {
            Found::Answer(answer) => Reply::Now(answer),
            Found::Old(old) if old.is_served() => Reply::Now(self.renew(key, old)),
            Found::Old(old) => self.ask(key, Some(old)),
            Found::Nothing => self.ask(key, None),
        }
    }

    fn ask<'a>(&'a self, key: &'a [u8], old: Option<Old>) -> Reply<'a, Option<Value>> {
        self.attend();
        match self.0.ask_now(key) {
            Some((outcome, fate)) => Reply::Now(self.0.settle(outcome, fate, old)),
            None => self.load(key, old, false),
        }
    }

    /// Answers with what is kept, and sees to it that it is loaded anew.
    pub(super) fn renew(&self, key: &[u8], old: Old) -> Outcome {
        let shared = &self.0;
        if shared.stripes.is_quiet(key) {
            match shared.ask_now(key) {
                Some((outcome, fate)) => return shared.settle(outcome, fate, Some(old)),
                None => self.refresh(key),
            }
        }
        shared.serve(old)
    }

    fn refresh(&self, key: &[u8]) {
        let shared = &self.0;
        let Ok(runtime) = Handle::try_current() else { return };
        if let Some(load) = shared.stripes.lead_if_quiet(key, || shared.engine.begin_load(key)) {
            runtime.spawn(fly(vec![Landing::new(shared, key, load, Purpose::Refresh)]));
        }
    }

    /// Joins the load of the key that is under way, or starts one.
    fn load<'a>(
        &'a self,
        key: &'a [u8],
        old: Option<Old>,
        counted: bool,
    ) -> Reply<'a, Option<Value>> {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Reply::Now(Err(error)),
        };
        // Not before somebody waits: a cache further out may drop this, and ask again in a task of its own.
        Reply::later(async move {
            let mut begun = Vec::new();
            let boarded = match self.board(key, old, counted, &mut begun) {
                Ok(boarded) => boarded,
                Err(old) => return self.0.refuse(old, counted),
            };
            if !begun.is_empty() {
                begin(&runtime, begun).await;
            }
            boarded.wait(&self.0).await;
            self.disembark(key, boarded).await
        })
    }

    /// Joins the load of the key that is under way, or adds one to those that are to begin. Gives the old value back
    /// where there is no room for another load.
    pub(super) fn board(
        &self,
        key: &[u8],
        old: Option<Old>,
        counted: bool,
        begun: &mut Vec<Landing<S>>,
    ) -> Result<Boarded, Option<Old>> {
        let shared = &self.0;
        let counts = old.is_some() && !counted;
        let room = || shared.engine.begin_load(key);
        let (seat, led) = match shared.stripes.join_or_lead(key, room) {
            Lookup::Join(seat) => {
                shared.counts.coalesced.add([u64::from(!counts && !counted)]);
                (seat, false)
            }
            Lookup::Lead(seat, ticket, room) => {
                let purpose = if counts || counted { Purpose::Counted } else { Purpose::Reader };
                let load = (seat.flight().clone(), ticket, room);
                begun.push(Landing::new(shared, key, load, purpose));
                (seat, true)
            }
            Lookup::Full => return Err(old),
        };
        Ok(Boarded { seat, old, led, counts })
    }

    /// The answer, after the [wait](Boarded::wait).
    pub(super) async fn disembark(&self, key: &[u8], boarded: Boarded) -> Outcome {
        let Boarded { seat, old, led, counts } = boarded;
        let flight = seat.flight();
        let shared = &*self.0;
        let stale = |value| {
            shared.counts.stale.add([u64::from(counts)]);
            Ok(Some(value))
        };
        if !flight.has_landed()
            && let Some(value) = old.as_ref().and_then(|old| old.value(shared))
        {
            return stale(value);
        }
        let outcome = match flight.landed().await {
            Landed::Alone(outcome) => outcome,
            Landed::AmongMany(error) if led => Err(error),
            // Somebody else who asked again may have it by now.
            Landed::AmongMany(_) => match shared.fresh(key) {
                Some(value) => Ok(Some(value)),
                None => return self.load(key, old, !counts).await,
            },
        };
        if let (Err(error), Some(old)) = (&outcome, &old)
            && let Some(value) = old.instead_of(error, shared)
        {
            return stale(value);
        }
        let result = if led { &shared.counts.miss } else { &shared.counts.coalesced };
        result.add([u64::from(counts)]);
        // The store below had its answer before this reader came, perhaps.
        outcome.map(|value| value.filter(|value| !shared.is_expired(value)))
    }
}

impl<S: Read> Shared<S> {
    /// Asks the store below for what it answers at once. `None`: it has to be waited for.
    fn ask_now(&self, key: &[u8]) -> Option<(Outcome, Fate)> {
        let (asked, ticket) = (self.now(), self.stripes.ticket(key));
        // A task cannot borrow the key, so it asks again; a future that comes here was never polled.
        let Reply::Now(outcome) = self.inner.get(key) else { return None };
        let fate = self.take(key, &outcome, asked, ticket);
        Some((outcome, fate))
    }
}

impl<S> Shared<S> {
    /// What a reader gets where there is no room for another load.
    pub(super) fn refuse(&self, old: Option<Old>, counted: bool) -> Outcome {
        let message = "as many loads are under way as the cache has room for: the store below answers too slowly, or `capacity` is too small for so many reads at once";
        let error = Error::new(ErrorKind::Capacity, message)
            .with_layer(CacheConfig::NAME)
            .with_retry(Retry::Later);
        let value = old.and_then(|old| old.instead_of(&error, self));
        let result = if value.is_some() { &self.counts.stale } else { &self.counts.miss };
        result.add([u64::from(!counted)]);
        value.map(Some).ok_or(error)
    }

    /// What a reader gets for whom the store below was asked at once.
    fn settle(&self, outcome: Outcome, fate: Fate, old: Option<Old>) -> Outcome {
        if let (Err(error), Some(old)) = (&outcome, old)
            && old.instead_of(error, self).is_some()
        {
            return self.serve(old);
        }
        self.counts.asked(fate);
        outcome
    }
}

impl Boarded {
    /// Until the load has ended, or has taken longer than who has an old value waits.
    pub(super) async fn wait<S>(&self, shared: &Shared<S>) {
        match shared.times.patience.filter(|_| self.old.is_some()) {
            None => drop(self.seat.flight().landed().await),
            Some(_) if self.seat.flight().is_slow() => {}
            Some(limit) => tokio::select! {
                biased;
                _ = self.seat.flight().landed() => {}
                () = shared.clock.sleep(limit) => self.seat.flight().has_been_slow(),
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
