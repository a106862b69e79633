//! Running loads: in the task of their reader, and in one of their own as soon as they wait.

use std::future::{Future, poll_fn};
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::coherence::Outcome;
use super::disk::DiskHit;
use super::load::Load;
use super::policy::CoarseTime;
use super::question::{Question, whole};
use super::state::Shared;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{Read, Store};
use crate::types::Value;

/// Begins loads in the task of their reader, which does not wait for another task to begin them, and leaves them to one
/// of their own where they have to wait. Is ready at once.
pub(super) fn begin<S: Store>(
    runtime: &Handle,
    loads: Vec<Load<S>>,
    question: Option<Question>,
) -> impl Future<Output = ()> + Send {
    let mut unstarted = Some((loads, question));
    poll_fn(move |context| {
        let Some((loads, question)) = unstarted.take() else { return Poll::Ready(()) };
        // The reader may be polled outside of it.
        let _inside = runtime.enter();
        let mut loads = Box::pin(run_loads(loads, question));
        // A panic is an error of the load, here as in a task.
        let polled = catch_unwind(AssertUnwindSafe(|| loads.as_mut().poll(context)));
        if matches!(polled, Ok(Poll::Pending)) {
            runtime.spawn(loads);
        }
        Poll::Ready(())
    })
}

/// The task of loads that the store below is asked for at once. It goes on to those that waited for their
/// end. `question`: what was asked for them already.
pub(super) async fn run_loads<S: Read>(mut loads: Vec<Load<S>>, mut question: Option<Question>) {
    while let Some(shared) = loads.first().map(|load| Arc::clone(&load.shared)) {
        let began = shared.clock.monotonic();
        loads = find_on_disk(&shared, loads).await;
        if loads.is_empty() {
            return;
        }
        let spent = shared.clock.monotonic().saturating_sub(began);
        let began = shared.clock.monotonic();
        // What comes after the deadline is thrown away with its future.
        let (asked, outcome) = ask(&shared, &mut loads, question.take(), spent).await;
        if loads.is_empty() {
            return;
        }
        shared.counters.load_duration.record(shared.clock.monotonic().saturating_sub(began));
        let many = loads.len() > 1;
        let outcomes: Vec<Outcome> = match outcome {
            Ok(values) => values.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); loads.len()],
        };
        let ended = loads.into_iter().zip(outcomes);
        loads = ended.filter_map(|(load, outcome)| load.end(outcome, many, asked)).collect();
    }
}

/// Asks the store below, within the deadline and the cap. Ends the loads that no task waits for when their turn comes.
#[tracing::instrument(name = "load", level = "debug", skip_all, fields(layer = shared.name, keys = loads.len()))]
async fn ask<S: Read>(
    shared: &Shared<S>,
    loads: &mut Vec<Load<S>>,
    question: Option<Question>,
    spent: Duration,
) -> (CoarseTime, Result<Vec<Option<Value>>>) {
    let limit = shared.load_timeout;
    let now = shared.now();
    let mut asked = now;
    let load = async {
        // The semaphore is never closed.
        let _permit = shared.loads.acquire().await;
        *loads = take(loads).into_iter().filter_map(Load::wanted).collect();
        let tickets = || loads.iter().map(Load::ticket);
        let is_usable =
            |question: &Question| question.is_of(tickets()) && now.since(question.asked()) < limit;
        if let Some(question) = question.filter(is_usable) {
            asked = question.asked();
            return question.answer().await;
        }
        match &loads[..] {
            [] => Ok(Vec::new()),
            [one] => shared.inner.get(&one.key).await.map(|value| vec![value]),
            many => {
                let keys: Vec<Bytes> = many.iter().map(|load| load.key.clone()).collect();
                whole(keys.len(), shared.inner.get_many(&keys).await)
            }
        }
    };
    let outcome = tokio::select! {
        outcome = load => outcome,
        () = shared.clock.sleep(limit.saturating_sub(spent)) => {
            let message = format!("the store below took longer than load_timeout ({limit:?})");
            let operation = if loads.len() > 1 { Operation::GetMany } else { Operation::Get };
            Err(Error::new(ErrorKind::Timeout, message).with_operation(operation))
        }
    };
    (asked, outcome)
}

/// Ends the loads whose answer is on the disk. Gives the others, and those that waited for one that ended.
async fn find_on_disk<S>(shared: &Shared<S>, loads: Vec<Load<S>>) -> Vec<Load<S>> {
    let Some(disk) = &shared.disk else { return loads };
    let sought = loads.iter().filter(|load| load.may_be_kept());
    let keys: Vec<Bytes> = sought.map(|load| load.key.clone()).collect();
    // Before the look, so that what is forgotten later is ordered behind what is found.
    let epoch = shared.coherence.epochs.now();
    let mut found = disk.level().get_many(&keys, shared.patience_with_disk()).await.into_iter();
    let rest = loads.into_iter().filter_map(|load| {
        let copy = if load.may_be_kept() { found.next().flatten() } else { None };
        let served = |copy: &DiskHit| shared.coherence.epochs.serve(epoch, copy.began, &load.key);
        match copy.filter(served) {
            Some(copy) => {
                shared.promote(&load.key, &copy, load.ticket());
                load.end_on_disk(copy.value)
            }
            None => Some(load),
        }
    });
    rest.collect()
}
