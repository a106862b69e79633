//! Bulk reads: what is missing is asked for at once, and loaded by nobody else meanwhile.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::future::join_all;

use super::coherence::Ticket;
use super::load::Purpose;
use super::lookup::{Lookup, Old};
use super::policy::{CoarseTime, is_outage};
use super::question::{AskedMany, Question, ask_many};
use super::read::runtime;
use super::run_loads::begin;
use super::state::{Cache, Shared};
use crate::error::{Error, Result};
use crate::reply::Reply;
use crate::store::Store;
use crate::types::Value;

/// Answers in the order of the keys. `None` where there is none yet.
type Answers = Vec<Option<Option<Value>>>;

impl<S: Store> Cache<S> {
    pub(super) fn read_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let shared = &*self.0;
        if keys.is_empty() {
            // A question without keys is passed on as it is.
            return shared.inner.get_many(keys);
        }
        let mut answers = Answers::with_capacity(keys.len());
        let (mut missing, mut olds) = (Vec::new(), Vec::new());
        for key in keys {
            let (answer, old) = match shared.lookup(key) {
                Lookup::Answer(answer) => (Some(answer), None),
                Lookup::Old(old) if old.is_served() => (Some(self.renew(key, old)), None),
                Lookup::Old(old) => (None, Some(old)),
                Lookup::Nothing => (None, None),
            };
            match answer {
                Some(Ok(answer)) => answers.push(Some(answer)),
                Some(Err(error)) => return Reply::Now(Err(error)),
                None => {
                    answers.push(None);
                    missing.push(key.clone());
                    olds.push(old);
                }
            }
        }
        if missing.is_empty() {
            return Reply::Now(Ok(filled(answers, Vec::new())));
        }
        self.ensure_subscribed();
        match ask_many(&self.0, &missing) {
            AskedMany::Now { found, tickets, asked } => {
                let found = shared.settle_many(&missing, &olds, found, &tickets, asked);
                Reply::Now(found.map(|found| filled(answers, found)))
            }
            AskedMany::Later(question) => self.load_many(missing, olds, answers, question),
        }
    }

    fn load_many(
        &self,
        missing: Vec<Bytes>,
        olds: Vec<Option<Old>>,
        answers: Answers,
        mut question: Option<Question>,
    ) -> Reply<'_, Vec<Option<Value>>> {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Reply::Now(Err(error)),
        };
        Reply::later(async move {
            let mut found = Ok(Vec::with_capacity(missing.len()));
            // The others are asked all the same, so that each is counted.
            let mut add = |outcome| match (outcome, &mut found) {
                (Ok(value), Ok(values)) => values.push(value),
                (_, Err(_)) => {}
                (Err(error), _) => found = Err(error),
            };
            let mut rest: VecDeque<_> = missing.iter().zip(olds).collect();
            while !rest.is_empty() {
                let (mut begun, mut waiters) = (Vec::new(), Vec::new());
                while let Some((key, old)) = rest.pop_front() {
                    let purpose = Purpose::of_reader(old.as_ref());
                    match self.join_or_begin(key, old, purpose, &mut begun) {
                        Ok(waiter) => waiters.push((key, waiter)),
                        Err(old) if waiters.is_empty() => add(self.0.refuse(old, purpose)),
                        Err(old) => {
                            // When these have ended there is room for more.
                            rest.push_front((key, old));
                            break;
                        }
                    }
                }
                if !begun.is_empty() {
                    begin(&runtime, begun, question.take()).await;
                }
                join_all(waiters.iter().map(|(_, waiter)| waiter.wait(&self.0))).await;
                for (key, waiter) in waiters {
                    add(self.finish(key, waiter).await);
                }
            }
            found.map(|found| filled(answers, found))
        })
    }
}

impl<S: Store> Shared<S> {
    /// What a bulk read gets for which the store below was asked at once.
    fn settle_many(
        &self,
        keys: &[Bytes],
        olds: &[Option<Old>],
        found: Result<Vec<Option<Value>>>,
        tickets: &[Ticket],
        asked: CoarseTime,
    ) -> Result<Vec<Option<Value>>> {
        let error = match found {
            Ok(found) => {
                let outcomes = found.into_iter().map(Ok);
                let taken =
                    keys.iter().zip(outcomes).zip(tickets).map(|((key, outcome), ticket)| {
                        let fate = self.take(key, &outcome, asked, *ticket);
                        self.counters.asked(fate);
                        outcome
                    });
                return taken.collect();
            }
            Err(error) => error,
        };
        // Which key another error is about, nobody knows.
        if keys.len() == 1 || is_outage(&error) {
            for (key, ticket) in keys.iter().zip(tickets) {
                self.take(key, &Err(error.clone()), asked, *ticket);
            }
        }
        self.instead_of(error, olds)
    }

    /// The old values where there is one for each key, or the error.
    fn instead_of(&self, error: Error, olds: &[Option<Old>]) -> Result<Vec<Option<Value>>> {
        let values: Option<Vec<_>> = olds
            .iter()
            .map(|old| old.as_ref().and_then(|old| old.instead_of(&error, self)).map(Some))
            .collect();
        let result = if values.is_some() { &self.counters.stale } else { &self.counters.miss };
        result.add([olds.len() as u64]);
        values.ok_or(error)
    }
}

/// The answers, with what was missing, in its order.
fn filled(answers: Answers, found: Vec<Option<Value>>) -> Vec<Option<Value>> {
    let mut found = found.into_iter();
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| found.next().flatten())).collect()
}
