//! Questions to the store below: each is asked once, before it is known whether its answer has to be waited for.
//!
//! The future of a question owns what it is about. It is polled in place as far as the reply of the store below. An
//! answer is there then; else the same future is waited for, by the task of a load.

use std::future::{Future, poll_fn};
use std::mem::take;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::coherence::{Outcome, Ticket};
use super::counters::Fate;
use super::policy::CoarseTime;
use super::state::Shared;
use crate::error::{Error, Operation, Result};
use crate::reply::Reply;
use crate::store::Store;
use crate::types::Value;

type Later<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A question that the store below does not answer at once. What it replied was not polled yet.
pub(super) struct Question {
    /// Of its keys, from before it was asked.
    tickets: Vec<Ticket>,
    asked: CoarseTime,
    reply: Pending,
}

enum Pending {
    One(Later<Option<Value>>),
    Many(Later<Vec<Option<Value>>>),
}

/// What a question about a key has led to.
pub(super) enum Asked {
    Now(Outcome, Fate),
    /// It has to be waited for. `None`: a load of the key is under way, which has asked.
    Later(Option<Question>),
}

/// What a question about many keys has led to.
pub(super) enum AskedMany {
    Now {
        found: Result<Vec<Option<Value>>>,
        tickets: Vec<Ticket>,
        asked: CoarseTime,
    },
    /// They have to be waited for. `None`: a load of one of the keys is under way, which has asked.
    Later(Option<Question>),
}

impl Question {
    pub(super) const fn asked(&self) -> CoarseTime {
        self.asked
    }

    /// Whether it is the question of these loads, and nothing has concerned their keys between it and them.
    pub(super) fn is_of(&self, loads: impl Iterator<Item = Ticket>) -> bool {
        loads.eq(self.tickets.iter().copied())
    }

    /// Waits for the values of its keys, in their order.
    pub(super) async fn answer(self) -> Result<Vec<Option<Value>>> {
        match self.reply {
            Pending::One(value) => value.await.map(|value| vec![value]),
            Pending::Many(values) => whole(self.tickets.len(), values.await),
        }
    }
}

/// Asks the store below for a key, and keeps what it answers at once.
pub(super) fn ask<S: Store>(shared: &Arc<Shared<S>>, key: &[u8]) -> Asked {
    let asked = shared.now();
    let (ticket, is_loading) = shared.coherence.ticket_and_load(key);
    let outcome = if is_loading {
        // What was not there when the load began may be by now.
        match shared.inner.get(key) {
            Reply::Now(outcome) => outcome,
            Reply::Later(_) => return Asked::Later(None),
        }
    } else {
        let (below, owned) = (Arc::clone(shared), Bytes::copy_from_slice(key));
        match begin(async move { until_answered(below.inner.get(&owned)).await }) {
            Ok(outcome) => outcome,
            Err(value) => {
                let reply = Pending::One(value);
                return Asked::Later(Some(Question { tickets: vec![ticket], asked, reply }));
            }
        }
    };
    let fate = shared.take(key, &outcome, asked, ticket);
    Asked::Now(outcome, fate)
}

/// Asks the store below for many keys. Keeps nothing.
pub(super) fn ask_many<S: Store>(shared: &Arc<Shared<S>>, keys: &[Bytes]) -> AskedMany {
    let asked = shared.now();
    let (tickets, loading): (Vec<_>, Vec<_>) =
        keys.iter().map(|key| shared.coherence.ticket_and_load(key)).unzip();
    let found = if loading.contains(&true) {
        match shared.inner.get_many(keys) {
            Reply::Now(found) => found,
            Reply::Later(_) => return AskedMany::Later(None),
        }
    } else {
        let (below, owned) = (Arc::clone(shared), keys.to_vec());
        match begin(async move { until_answered(below.inner.get_many(&owned)).await }) {
            Ok(found) => found,
            Err(values) => {
                let reply = Pending::Many(values);
                return AskedMany::Later(Some(Question { tickets, asked, reply }));
            }
        }
    };
    AskedMany::Now { found: whole(keys.len(), found), tickets, asked }
}

/// Polls a question for the first time. `Err`: it has to be waited for.
fn begin<T: 'static>(
    question: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<Result<T>, Later<T>> {
    let mut question: Later<T> = Box::pin(question);
    // It stops in front of what would wake anybody.
    match question.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Ok(outcome),
        Poll::Pending => Err(question),
    }
}

/// What a reply says. One that has to be waited for is left alone at the first poll: a reader may be dropped before it
/// waits, and a task has another waker.
async fn until_answered<T: Send>(reply: Reply<'_, T>) -> Result<T> {
    match reply {
        Reply::Now(outcome) => outcome,
        Reply::Later(outcome) => {
            let mut first = true;
            poll_fn(|_| if take(&mut first) { Poll::Pending } else { Poll::Ready(()) }).await;
            outcome.await
        }
    }
}

/// A store that forgets a key in its answer must not make it look missing.
pub(super) fn whole(
    keys: usize,
    outcome: Result<Vec<Option<Value>>>,
) -> Result<Vec<Option<Value>>> {
    outcome.and_then(|values| {
        if values.len() == keys {
            return Ok(values);
        }
        let message = format!("asked for {keys} keys, the store below answered {}", values.len());
        Err(Error::internal(message).with_operation(Operation::GetMany))
    })
}
