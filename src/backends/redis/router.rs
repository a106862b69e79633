//! Which server a command goes to, and what is tried again.
//!
//! A read is repeated once when the connection was lost meanwhile. A write is repeated only if the server
//! refused it, or it never left: otherwise it may have taken effect, and somebody else may have written
//! since. That is the reason for a router of our own in addition to the client's, which repeats writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, Value};

use super::cluster::Cluster;
use super::connection::{Link, Live, within};
use super::error::{failed, late, odd, refused};
use super::script;
use crate::clock::Clock;
use crate::error::{Error, Operation, Result};

/// How often a command is sent at most.
const TRIES: usize = 6;
/// Between tries while a slot moves.
const PAUSE: Duration = Duration::from_millis(20);

/// Commands for one slot, sent in one go, and what they are.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) slot: u16,
    pub(super) commands: Vec<Cmd>,
    /// Whether doing it twice is the same as once, also when others write in between.
    pub(super) repeatable: bool,
    /// Whether it waits for replicas, and so has a connection that others do not share.
    pub(super) waits: bool,
    /// Whether the node must have the slot as a whole. What only moves there now would seem to be gone.
    pub(super) whole: bool,
}

pub(super) struct Servers {
    pub(super) kind: Kind,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timeout: Duration,
    pub(super) closed: AtomicBool,
}

pub(super) enum Kind {
    One(Arc<Link>),
    Cluster(Cluster),
}

/// The connection in use, to be retired if the deadline passes.
type InUse = Mutex<Vec<(Arc<Link>, Live)>>;

/// What became of one try.
enum Tried {
    Done(Vec<Value>),
    /// No connection: nothing was sent.
    NotSent(Error),
    /// The connection was lost: the outcome is unknown.
    Broken(Error),
    /// The server did nothing of it.
    Refused(Refusal, Error),
}

#[derive(Clone, PartialEq, Eq)]
enum Refusal {
    Moved(String),
    Ask(String),
    TryAgain,
    NoScript,
    /// The node does not serve the slot, at least now.
    NotHere,
    /// It is a replica.
    NotPrimary,
}

impl Servers {
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    /// Sends the commands of a call to the server of its slot, within the deadline.
    pub(super) async fn call(&self, operation: Operation, call: &Call) -> Result<Vec<Value>> {
        self.check_open()?;
        let using = InUse::default();
        let routed = self.route(operation, call, &using);
        match within(&*self.clock, self.timeout, routed).await {
            // Finding the server of a slot is part of it.
            Some(result) => result.map_err(|error| error.with_operation(operation)),
            None => Err(self.late(operation, &using)),
        }
    }

    /// Like [`call`](Self::call) for several, in one round trip to each server, at the same time.
    pub(super) async fn call_all(
        &self,
        operation: Operation,
        calls: &[Call],
    ) -> Result<Vec<Result<Vec<Value>>>> {
        self.check_open()?;
        let using = InUse::default();
        let all = async {
            let mut groups: Vec<(Arc<Link>, Vec<usize>)> = Vec::new();
            for (at, call) in calls.iter().enumerate() {
                let link = self.owner(call.slot).await?;
                match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &link)) {
                    Some((_, group)) => group.push(at),
                    None => groups.push((link, vec![at])),
                }
            }
            let sent = groups.iter().map(|(link, group)| {
                let calls: Vec<&Call> = group.iter().filter_map(|at| calls.get(*at)).collect();
                self.group(operation, link, calls, &using)
            });
            let answers = join_all(sent).await.into_iter().flatten();
            let mut answers: Vec<_> =
                groups.into_iter().flat_map(|(_, group)| group).zip(answers).collect();
            answers.sort_by_key(|(at, _)| *at);
            Ok(answers.into_iter().map(|(_, answer)| answer).collect())
        };
        match within(&*self.clock, self.timeout, all).await {
            Some(result) => result.map_err(|error: Error| error.with_operation(operation)),
            None => Err(self.late(operation, &using)),
        }
    }

    /// Calls for the same server. What it refuses of them is sent again by itself.
    async fn group(
        &self,
        operation: Operation,
        link: &Arc<Link>,
        calls: Vec<&Call>,
        using: &InUse,
    ) -> Vec<Result<Vec<Value>>> {
        let commands = calls.iter().flat_map(|call| &call.commands);
        let waits = calls.iter().any(|call| call.waits);
        let through = if waits { link.waiting() } else { Arc::clone(link) };
        match self.attempt(operation, &through, commands, false, using).await {
            Tried::Done(values) => {
                let mut values = values.into_iter();
                let mut answers = Vec::with_capacity(calls.len());
                for call in calls {
                    let answer: Vec<Value> = values.by_ref().take(call.commands.len()).collect();
                    answers.push(match refusal(&answer, operation) {
                        None => Ok(answer),
                        Some(_) => self.route(operation, call, using).await,
                    });
                }
                answers
            }
            Tried::Broken(error) => {
                self.suspect();
                let mut answers = Vec::with_capacity(calls.len());
                for call in calls {
                    answers.push(match call.repeatable {
                        true => self.route(operation, call, using).await,
                        false => Err(error.clone()),
                    });
                }
                answers
            }
            Tried::NotSent(error) => {
                if let Kind::Cluster(cluster) = &self.kind
                    && cluster.refresh(Some(link)).await.is_ok()
                {
                    let mut answers = Vec::with_capacity(calls.len());
                    for call in calls {
                        let moved = matches!(self.owner(call.slot).await, Ok(owner) if !Arc::ptr_eq(&owner, link));
                        answers.push(match moved {
                            true => self.route(operation, call, using).await,
                            false => Err(error.clone()),
                        });
                    }
                    return answers;
                }
                calls.iter().map(|_| Err(error.clone())).collect()
            }
            Tried::Refused(_, error) => calls.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn route(&self, operation: Operation, call: &Call, using: &InUse) -> Result<Vec<Value>> {
        let mut link = self.owner(call.slot).await?;
        let mut asking = false;
        let mut broken = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let last = tries == TRIES;
            let through = if call.waits { link.waiting() } else { Arc::clone(&link) };
            let tried = self.attempt(operation, &through, &call.commands, asking, using).await;
            asking = false;
            let tried = match tried {
                Tried::Done(values) => match refusal(&values, operation) {
                    None => return Ok(values),
                    Some((refusal, error)) => Tried::Refused(refusal, error),
                },
                other => other,
            };
            let demoted = matches!(tried, Tried::Refused(Refusal::NotPrimary, _));
            match (tried, &self.kind) {
                (Tried::Broken(error), _) => {
                    self.suspect();
                    if !call.repeatable || broken || last {
                        return Err(error);
                    }
                    broken = true;
                    link = self.owner(call.slot).await?;
                }
                (Tried::Refused(Refusal::NoScript, error), _) => {
                    if last {
                        return Err(error);
                    }
                    // The server was restarted, or its scripts were flushed.
                    load_scripts(operation, &link).await?;
                }
                (Tried::Refused(Refusal::Moved(to), error), Kind::Cluster(cluster)) => {
                    if last {
                        return Err(error);
                    }
                    cluster.suspect();
                    link = cluster.link_to(&to, &link);
                }
                (Tried::Refused(Refusal::Ask(to), error), Kind::Cluster(cluster)) => {
                    if last || call.whole {
                        return Err(error);
                    }
                    link = cluster.link_to(&to, &link);
                    asking = true;
                }
                (Tried::Refused(Refusal::TryAgain, error), _) => {
                    if last {
                        return Err(error);
                    }
                    self.clock.sleep(PAUSE).await;
                }
                (
                    Tried::NotSent(error)
                    | Tried::Refused(Refusal::NotHere | Refusal::NotPrimary, error),
                    Kind::Cluster(cluster),
                ) => {
                    // Another node may have taken over.
                    if last || cluster.refresh(Some(&link)).await.is_err() {
                        return Err(error);
                    }
                    let owner = self.owner(call.slot).await?;
                    if Arc::ptr_eq(&owner, &link) {
                        return Err(error);
                    }
                    link = owner;
                }
                (Tried::NotSent(error) | Tried::Refused(_, error), Kind::One(_)) => {
                    // The address may lead to the primary by now, this connection never does.
                    if demoted && let Some((through, live)) = using.lock().last() {
                        through.leave(live);
                    }
                    return Err(error);
                }
                (Tried::Done(_), _) => return Err(odd(operation)),
            }
        }
    }

    async fn attempt(
        &self,
        operation: Operation,
        link: &Arc<Link>,
        commands: impl IntoIterator<Item = &Cmd>,
        asking: bool,
        using: &InUse,
    ) -> Tried {
        let mut live = match link.live().await {
            Ok(live) => live,
            Err(error) => return Tried::NotSent(error.with_operation(operation)),
        };
        using.lock().push((Arc::clone(link), live.clone()));
        let mut pipeline = Pipeline::new();
        if asking {
            pipeline.add_command(redis::cmd("ASKING"));
        }
        for command in commands {
            pipeline.add_command(command.clone());
        }
        match live.send(&pipeline).await {
            Ok(mut values) => {
                if asking && !values.is_empty() {
                    values.remove(0);
                }
                Tried::Done(values)
            }
            Err(error) => {
                link.retire(&live);
                Tried::Broken(failed(operation, error))
            }
        }
    }

    /// The server of a slot.
    pub(super) async fn owner(&self, slot: u16) -> Result<Arc<Link>> {
        match &self.kind {
            Kind::One(link) => Ok(Arc::clone(link)),
            Kind::Cluster(cluster) => cluster.owner(slot).await,
        }
    }

    /// Every server that holds entries, as far as known.
    pub(super) async fn all(&self, operation: Operation) -> Result<Vec<Arc<Link>>> {
        match &self.kind {
            Kind::One(link) => Ok(vec![Arc::clone(link)]),
            Kind::Cluster(cluster) => {
                cluster.primaries().await.map_err(|error| error.with_operation(operation))
            }
        }
    }

    /// Sends commands to one server. The first refusal fails.
    pub(super) async fn ask(
        &self,
        operation: Operation,
        link: &Arc<Link>,
        commands: &[Cmd],
    ) -> Result<Vec<Value>> {
        let answers = self.answers(operation, link, commands).await?;
        answers.into_iter().map(|value| answer(operation, value)).collect()
    }

    /// Like [`ask`](Self::ask), with refusals among the answers.
    pub(super) async fn answers(
        &self,
        operation: Operation,
        link: &Arc<Link>,
        commands: &[Cmd],
    ) -> Result<Vec<Value>> {
        let using = InUse::default();
        let attempt = self.attempt(operation, link, commands, false, &using);
        match within(&*self.clock, self.timeout, attempt).await {
            Some(Tried::Done(values)) => Ok(values),
            Some(Tried::NotSent(error) | Tried::Broken(error) | Tried::Refused(_, error)) => {
                Err(error)
            }
            None => Err(self.late(operation, &using)),
        }
    }

    fn late(&self, operation: Operation, using: &InUse) -> Error {
        for (link, live) in using.lock().drain(..) {
            link.retire(&live);
        }
        self.suspect();
        late(operation)
    }

    /// The slots are looked up again before the next call.
    fn suspect(&self) {
        if let Kind::Cluster(cluster) = &self.kind {
            cluster.suspect();
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        match &self.kind {
            Kind::One(link) => link.close(),
            Kind::Cluster(cluster) => cluster.close(),
        }
    }
}

/// The first error among the answers that means that nothing was done.
fn refusal(values: &[Value], operation: Operation) -> Option<(Refusal, Error)> {
    let error = values.iter().find_map(|value| match value {
        Value::ServerError(error) => Some(error),
        _ => None,
    })?;
    let target = || {
        let target = error.details()?.split_ascii_whitespace().nth(1)?;
        Some(target.to_owned())
    };
    let refusal = match error.code() {
        "MOVED" => Refusal::Moved(target()?),
        "ASK" => Refusal::Ask(target()?),
        "TRYAGAIN" => Refusal::TryAgain,
        "NOSCRIPT" => Refusal::NoScript,
        "CLUSTERDOWN" | "LOADING" => Refusal::NotHere,
        "READONLY" | "MASTERDOWN" => Refusal::NotPrimary,
        _ => return None,
    };
    Some((refusal, refused(operation, error)))
}

/// An answer, unless it is an error.
pub(super) fn answer(operation: Operation, value: Value) -> Result<Value> {
    match value {
        Value::ServerError(error) => Err(refused(operation, &error)),
        value => Ok(value),
    }
}

pub(super) async fn load_scripts(operation: Operation, link: &Link) -> Result<()> {
    let mut live = link.live().await?;
    let mut pipeline = Pipeline::new();
    for text in script::ALL {
        pipeline.add_command(redis::cmd("SCRIPT").arg("LOAD").arg(*text).take());
    }
    let loaded = live.send(&pipeline).await.map_err(|error| failed(operation, error))?;
    loaded.into_iter().try_for_each(|value| answer(operation, value).map(drop))
}
