//! The upkeep of the index that scans need.
//!
//! The index is a sorted set of the entries' keys, all of the same score, which Redis orders bytewise. The
//! empty member, which is no key, says that it is complete: without it the index is built when the store is
//! opened. Building adds what is there, and may be given up and begun again at any time.
//!
//! What other programs write is not in it. So the mark has a score of its own, below that of the keys: it says how
//! many keys the database had in addition to those of the index. If there are more, the index is behind, and is brought up to
//! date. Keys that other programs removed, and entries that expired, make up for keys that they added: the mark
//! proves nothing, and a scan of everything looks at every key of the database first.

use std::sync::Arc;

use redis::{Cmd, Pipeline, Value as Answer};

use super::Shared;
use super::config::Foreign;
use super::connection::{Link, Live, within};
use super::error::{failed, late, odd, said};
use super::router::{Call, answer, load_scripts};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::types::Limits;
use crate::types::units::counted;

/// Keys that a script looks at in one go: it keeps everybody else waiting meanwhile.
pub(super) const STEP: usize = 1024;

/// Keys that no entry can have.
#[derive(Default)]
pub(super) struct Foreigners {
    pub(super) other: i64,
    pub(super) long: i64,
    pub(super) empty: i64,
    pub(super) example: Option<Vec<u8>>,
}

impl Foreigners {
    fn add(&mut self, more: Self) {
        self.other += more.other;
        self.long += more.long;
        self.empty += more.empty;
        self.example = self.example.take().or(more.example);
    }

    /// In words. `None`: there are none.
    fn in_words(&self) -> Option<String> {
        let keys = |count: i64, what: &str| match count {
            0 => None,
            _ => Some(format!("{} of {what}", counted(count, "key", "keys"))),
        };
        let long = format!("more than {} bytes", Limits::MAX_KEY_BYTES);
        let parts = [
            keys(self.other, "another type than a string"),
            keys(self.long, &long),
            (self.empty > 0).then(|| "the empty key".to_owned()),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// Looks at every key of the database: the index then has each of them that is an entry. Refuses a database with
/// keys that are none, unless it was told to pass them by.
pub(super) async fn look(shared: &Shared, operation: Operation) -> Result<()> {
    build(shared, operation).await?;
    check(shared, fill(shared, operation).await?)
}

/// The same in one command, where one step sees every key and the index is complete.
pub(super) fn look_at_once(shared: &Shared, index: &[u8]) -> Cmd {
    fill_step(shared, index, b"0", true)
}

/// Whether it saw every key.
pub(super) fn looked_at_once(shared: &Shared, answer: Answer) -> Result<Looked> {
    // Of what is wrong with the index, the whole way tells more.
    if matches!(answer, Answer::ServerError(_)) {
        return Ok(Looked::Nothing);
    }
    let Step { next, foreigners } = stepped(Operation::Scan, answer)?;
    match &*next {
        b"0" => check(shared, foreigners).map(|()| Looked::All),
        b"" => Ok(Looked::Nothing),
        _ => Ok(Looked::Part),
    }
}

/// What a look in one command came to.
pub(super) enum Looked {
    All,
    /// There are more keys than one step sees.
    Part,
    Nothing,
}

pub(super) fn check(shared: &Shared, foreigners: Foreigners) -> Result<()> {
    match foreigners.in_words() {
        Some(words) if shared.foreign == Foreign::Refuse => {
            let error = said(
                ErrorKind::Unsupported,
                format!(
                    "the database holds {words}, which no entry can have, so a scan of everything would not be whole; scan a part, or set `foreign: skip`"
                ),
            );
            Err(error.with_name(foreigners.example.unwrap_or_default()))
        }
        _ => Ok(()),
    }
}

/// Makes the index complete, if it is not.
pub(super) async fn build(shared: &Shared, operation: Operation) -> Result<()> {
    if is_complete(shared, operation).await? {
        return Ok(());
    }
    if !shared.may_create {
        return Err(said(
            ErrorKind::Unsupported,
            "the index that scans need is gone, and a command that only reads makes none; run it again",
        ));
    }
    complete(shared, operation).await
}

/// Whether the index is there and complete.
pub(super) async fn is_complete(shared: &Shared, operation: Operation) -> Result<bool> {
    let Some(index) = &shared.place.index else { return Ok(true) };
    // Routed, so that the line afterwards leads to the node that has the index by now.
    let call = Call {
        slot: shared.place.slot(b""),
        commands: vec![redis::cmd("ZSCORE").arg(&**index).arg("").take()],
        repeatable: true,
        waits: false,
        whole: true,
    };
    let mark = shared.servers.call(operation, &call).await?.into_iter().next();
    match answer(operation, mark.ok_or_else(|| odd(operation))?) {
        Ok(answer) => Ok(!matches!(answer, Answer::Nil)),
        // Another type.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(said(
            ErrorKind::Config,
            "the key `tierstack:index`, in which the index is kept, holds something else; rename that",
        )),
        Err(error) => Err(error),
    }
}

/// Brings an index that is behind up to date. What is gone is taken out first, so that it makes up for nothing.
pub(super) async fn renew(shared: &Shared, operation: Operation) -> Result<()> {
    build(shared, operation).await?;
    sweep(shared, operation).await?;
    complete(shared, operation).await
}

async fn complete(shared: &Shared, operation: Operation) -> Result<()> {
    let Some(line) = Line::to(shared, operation).await? else { return Ok(()) };
    line.fill().await?;
    line.mark().await
}

async fn fill(shared: &Shared, operation: Operation) -> Result<Foreigners> {
    match Line::to(shared, operation).await? {
        Some(line) => line.fill().await,
        None => Ok(Foreigners::default()),
    }
}

/// One connection to the server of the index. A cursor of `SCAN` says nothing to another server, nor to one that
/// was restarted.
pub(super) struct Line<'a> {
    shared: &'a Shared,
    index: &'a [u8],
    operation: Operation,
    link: Arc<Link>,
    live: Live,
}

impl<'a> Line<'a> {
    /// `None`: there is no index.
    async fn to(shared: &'a Shared, operation: Operation) -> Result<Option<Self>> {
        let Some(index) = &shared.place.index else { return Ok(None) };
        // All entries and their index are on one server.
        let link = shared.servers.owner(shared.place.slot(b""));
        Self::through(shared, index, operation, link).await.map(Some)
    }

    /// To a server that is yet to be found.
    pub(super) async fn through(
        shared: &'a Shared,
        index: &'a [u8],
        operation: Operation,
        link: impl Future<Output = Result<Arc<Link>>>,
    ) -> Result<Self> {
        let connecting = async {
            let link = link.await?;
            let live = link.live().await?;
            Ok(Self { shared, index, operation, link, live })
        };
        let servers = &shared.servers;
        let line = within(&*servers.clock, servers.timeout, connecting).await;
        let line = line.unwrap_or_else(|| Err(late(operation)));
        line.map_err(|error: Error| error.with_operation(operation))
    }

    async fn ask(&self, command: Cmd) -> Result<Answer> {
        match self.send(&command).await? {
            Answer::ServerError(error) if error.code() == "NOSCRIPT" => {
                load_scripts(self.operation, &self.link).await?;
                answer(self.operation, self.send(&command).await?)
            }
            value => answer(self.operation, value),
        }
    }

    async fn send(&self, command: &Cmd) -> Result<Answer> {
        let answers = self.send_all(std::iter::once(command.clone())).await?;
        answers.into_iter().next().ok_or_else(|| odd(self.operation))
    }

    /// Sends commands in one go, and gives the answer to each.
    pub(super) async fn send_all(
        &self,
        commands: impl Iterator<Item = Cmd> + Send,
    ) -> Result<Vec<Answer>> {
        let mut pipeline = Pipeline::new();
        commands.for_each(|command| {
            pipeline.add_command(command);
        });
        let (servers, mut live) = (&self.shared.servers, self.live.clone());
        servers.check_open()?;
        let answered = within(&*servers.clock, servers.timeout, live.send(&pipeline)).await;
        let lost = |error| {
            self.link.retire(&self.live);
            error
        };
        let answers = answered.ok_or_else(|| lost(late(self.operation)))?;
        answers.map_err(|error| lost(failed(self.operation, error)))
    }

    /// Adds what is there.
    async fn fill(&self) -> Result<Foreigners> {
        let mut found = Foreigners::default();
        let mut cursor = b"0".to_vec();
        loop {
            let answer = self.ask(fill_step(self.shared, self.index, &cursor, false)).await?;
            let Step { next, foreigners } = stepped(self.operation, answer)?;
            found.add(foreigners);
            if next == b"0" {
                return Ok(found);
            }
            cursor = next;
        }
    }

    /// Looks at the keys that begin so.
    async fn list(&self, prefix: &[u8], mut take: Option<Take<'_>>) -> Result<Found> {
        let place = &self.shared.place;
        let (whole, own) = ([&*place.prefix, prefix].concat(), place.prefix.len().to_string());
        let more = [&*own, if take.is_some() { "k" } else { "" }];
        let (mut found, mut cursor) = (Found::default(), b"0".to_vec());
        loop {
            let answer = self.ask(step(&place.list, self.index, &whole, &cursor, &more)).await?;
            let Answer::Array(mut parts) = answer else { return Err(odd(self.operation)) };
            match (parts.pop(), &mut take) {
                (Some(Answer::Int(entries)), None) => found.entries += entries.unsigned_abs(),
                (Some(Answer::Array(keys)), Some(take)) => {
                    for key in keys {
                        let Answer::BulkString(key) = key else { return Err(odd(self.operation)) };
                        take(&key)?;
                    }
                }
                _ => return Err(odd(self.operation)),
            }
            let Step { next, foreigners } = stepped(self.operation, Answer::Array(parts))?;
            found.foreigners.add(foreigners);
            if next == b"0" {
                return Ok(found);
            }
            cursor = next;
        }
    }

    async fn mark(&self) -> Result<()> {
        self.ask(script(&self.shared.place.mark, self.index)).await.map(drop)
    }
}

/// A script, with the index as its key.
fn script(hash: &str, index: &[u8]) -> Cmd {
    redis::cmd("EVALSHA").arg(hash).arg(1).arg(index).take()
}

/// One step of adding what is there, from a cursor of `SCAN`.
fn fill_step(shared: &Shared, index: &[u8], cursor: &[u8], if_complete: bool) -> Cmd {
    let place = &shared.place;
    step(&place.fill, index, &place.prefix, cursor, &[if if_complete { "x" } else { "" }])
}

/// A script that makes one step of `SCAN`, from a cursor, over the keys that begin so.
fn step(hash: &str, index: &[u8], prefix: &[u8], cursor: &[u8], more: &[&str]) -> Cmd {
    let mut step = script(hash, index);
    step.arg(prefix).arg(cursor).arg(STEP).arg(more);
    if !prefix.is_empty() {
        step.arg(pattern(prefix));
    }
    step
}

/// What a step comes to.
struct Step {
    /// The cursor of the next one. `0`: there is none.
    next: Vec<u8>,
    foreigners: Foreigners,
}

fn stepped(operation: Operation, answer: Answer) -> Result<Step> {
    let Answer::Array(parts) = answer else { return Err(odd(operation)) };
    let [
        Answer::BulkString(next),
        Answer::Int(other),
        Answer::Int(long),
        Answer::Int(empty),
        example,
    ] = <[Answer; 5]>::try_from(parts).map_err(|_| odd(operation))?
    else {
        return Err(odd(operation));
    };
    let example = match example {
        Answer::BulkString(example) => Some(example),
        _ => None,
    };
    Ok(Step { next, foreigners: Foreigners { other, long, empty, example } })
}

/// Takes what is gone out of the index.
pub(super) async fn sweep(shared: &Shared, operation: Operation) -> Result<()> {
    let Some(index) = &shared.place.index else { return Ok(()) };
    let mut from = b"-".to_vec();
    loop {
        let command = redis::cmd("EVALSHA")
            .arg(&shared.place.sweep)
            .arg(1)
            .arg(&**index)
            .arg(&*shared.place.prefix)
            .arg(&from)
            .arg(STEP)
            .take();
        let call = Call {
            slot: shared.place.slot(b""),
            commands: vec![command],
            repeatable: true,
            waits: false,
            whole: true,
        };
        let answers = shared.servers.call(operation, &call).await?;
        match answers.into_iter().next() {
            Some(Answer::BulkString(last)) => from = [b"(", &*last].concat(),
            Some(Answer::Nil) => return Ok(()),
            Some(Answer::ServerError(error)) => {
                return Err(super::error::refused(operation, &error));
            }
            _ => return Err(odd(operation)),
        }
    }
}

/// A pattern that matches what begins with the prefix.
pub(super) fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if b"*?[]^-\\".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}

/// Takes a key.
type Take<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<()> + Send);

/// What a look at the keys has found.
#[derive(Default)]
pub(super) struct Found {
    /// Where they were only counted.
    pub(super) entries: u64,
    pub(super) foreigners: Foreigners,
}

/// Gives every key that an entry may have, in no order, some perhaps twice.
pub(super) async fn list(
    shared: &Shared,
    mut take: impl FnMut(&[u8]) -> Result<()> + Send,
) -> Result<Found> {
    match Line::to(shared, Operation::Scan).await? {
        Some(line) => line.list(b"", Some(&mut take)).await,
        None => Ok(Found::default()),
    }
}

/// How many entries begin so, as the server has them: what the index knows does not count. Fails where there are keys
/// that scans pass by. `None`: there is no index, and so no scan to compare it with.
pub(super) async fn count_keys(shared: &Shared, prefix: &[u8]) -> Result<Option<u64>> {
    let Some(line) = Line::to(shared, Operation::Usage).await? else { return Ok(None) };
    let Found { entries, foreigners } = line.list(prefix, None).await?;
    match foreigners.in_words() {
        None => Ok(Some(entries)),
        Some(words) => {
            let what =
                format!("the database holds {words}, which no entry can have and scans pass by");
            Err(said(ErrorKind::Unsupported, what)
                .with_name(foreigners.example.unwrap_or_default()))
        }
    }
}

/// How many entries a server has, roughly: keys of other types and expired ones may be among them.
pub(super) async fn count(shared: &Shared, link: &Arc<Link>) -> Result<u64> {
    let (command, own) = match &shared.place.index {
        None => (redis::cmd("DBSIZE"), 0),
        // The empty member is none.
        Some(index) => (redis::cmd("ZCARD").arg(&**index).take(), 1),
    };
    if own == 1 {
        let owner = shared.servers.owner(shared.place.slot(b"")).await;
        if !Arc::ptr_eq(link, &owner.map_err(|error| error.with_operation(Operation::Usage))?) {
            return Ok(0);
        }
    }
    match shared.servers.ask(Operation::Usage, link, &[command]).await?.first() {
        Some(Answer::Int(count)) => Ok(u64::try_from(*count - own).unwrap_or(0)),
        _ => Err(odd(Operation::Usage)),
    }
}
