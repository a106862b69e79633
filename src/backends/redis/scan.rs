//! Scans, and the upkeep of the index that they need.
//!
//! The index is a sorted set of the entries' keys, all of the same score, which Redis orders bytewise. The
//! empty member, which is no key, says that it is complete: without it the index is built when the store is
//! opened. Building adds what is there, and may be given up and begun again at any time.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use redis::{Cmd, Value as Answer};

use super::Shared;
use super::command::page;
use super::failure::{odd, said};
use super::link::Link;
use super::servers::Call;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::Pages;
use crate::types::{Order, Page, Scan};

/// Keys that a script looks at in one go: it keeps everybody else waiting meanwhile.
const STEP: usize = 1024;
/// How often a scan builds an index that was removed.
const BUILDS: usize = 3;

pub(super) fn pages(shared: &Shared, scan: Scan) -> Pages<'_> {
    let done = scan.is_empty();
    unfold((scan, done), move |(mut scan, done)| async move {
        if done {
            return None;
        }
        loop {
            match next(shared, &scan).await {
                Err(error) => return Some((Err(error), (scan, true))),
                Ok(run) => {
                    scan.resume_after(run.last);
                    scan.consume(run.entries.len());
                    let done = run.ended || scan.is_empty();
                    if !run.entries.is_empty() {
                        return Some((Ok(Page { entries: run.entries }), (scan, done)));
                    }
                    if done {
                        return None;
                    }
                }
            }
        }
    })
    .boxed()
}

async fn next(shared: &Shared, scan: &Scan) -> Result<super::command::Run> {
    shared.servers.open()?;
    let Some(index) = &shared.place.index else {
        return Err(Error::unsupported(
            "Redis keeps keys in no order; set `index: true` for an index that scans can use",
        ));
    };
    let from = border(&scan.from, b"-");
    let to = border(&scan.to, b"+");
    let (command, first, last) = match scan.order {
        Order::Forward => ("ZRANGEBYLEX", from, to),
        Order::Reverse => ("ZREVRANGEBYLEX", to, from),
    };
    let command = redis::cmd("EVALSHA")
        .arg(&shared.place.page)
        .arg(1)
        .arg(&**index)
        .arg(&*shared.place.prefix)
        .arg(first)
        .arg(last)
        .arg(command)
        .arg(scan.next_page_entries().min(STEP))
        .arg(scan.page_bytes)
        .take();
    let call = Call {
        slot: shared.place.slot(b""),
        commands: vec![command],
        repeatable: true,
        waits: false,
        whole: true,
    };
    for _ in 0..BUILDS {
        if let Some(run) = page(shared.servers.call(Operation::Scan, &call).await?)? {
            return Ok(run);
        }
        build(shared, Operation::Scan).await?;
    }
    Err(said(
        ErrorKind::Unavailable,
        "somebody removes the key `tierstack:index`, in which the index is kept, again and again",
    )
    .with_operation(Operation::Scan))
}

fn border(bound: &Bound<Bytes>, open: &[u8]) -> Vec<u8> {
    match bound {
        Bound::Included(key) => [b"[", &**key].concat(),
        Bound::Excluded(key) => [b"(", &**key].concat(),
        Bound::Unbounded => open.to_vec(),
    }
}

/// Takes what is gone out of the index.
pub(super) async fn sweep(shared: &Shared) -> Result<()> {
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
        let answers = shared.servers.call(Operation::Compact, &call).await?;
        match answers.into_iter().next() {
            Some(Answer::BulkString(last)) => from = [b"(", &*last].concat(),
            Some(Answer::Nil) => return Ok(()),
            Some(Answer::ServerError(error)) => {
                return Err(super::failure::refused(Operation::Compact, &error));
            }
            _ => return Err(odd(Operation::Compact)),
        }
    }
}

/// Makes the index complete, if it is not.
pub(super) async fn build(shared: &Shared, operation: Operation) -> Result<()> {
    let Some(index) = &shared.place.index else { return Ok(()) };
    // All entries and their index are on one server.
    let owner = shared.servers.owner(shared.place.slot(b"")).await;
    let link = &owner.map_err(|error| error.with_operation(operation))?;
    let ask = async |command: Cmd| -> Result<Answer> {
        let answers = shared.servers.ask(operation, link, &[command]).await?;
        answers.into_iter().next().ok_or_else(|| odd(operation))
    };
    match ask(redis::cmd("TYPE").arg(&**index).take()).await? {
        Answer::SimpleString(kind) if kind == "zset" || kind == "none" => {}
        _ => {
            return Err(said(
                ErrorKind::Config,
                "the key `tierstack:index`, in which the index is kept, holds something else; rename that",
            ));
        }
    }
    if ask(redis::cmd("ZSCORE").arg(&**index).arg("").take()).await? != Answer::Nil {
        return Ok(());
    }
    let mut cursor = b"0".to_vec();
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("COUNT").arg(STEP).arg("TYPE").arg("string");
        if !shared.place.prefix.is_empty() {
            scan.arg("MATCH").arg(pattern(&shared.place.prefix));
        }
        let Answer::Array(parts) = ask(scan).await? else { return Err(odd(operation)) };
        let mut parts = parts.into_iter();
        let (Some(Answer::BulkString(next)), Some(Answer::Array(keys))) =
            (parts.next(), parts.next())
        else {
            return Err(odd(operation));
        };
        let mut add = redis::cmd("ZADD");
        add.arg(&**index);
        let mut some = false;
        for key in keys {
            let Answer::BulkString(key) = key else { return Err(odd(operation)) };
            if let Some(key) = key.strip_prefix(&*shared.place.prefix)
                && !key.is_empty()
            {
                some = true;
                add.arg(0).arg(key);
            }
        }
        if some {
            ask(add).await?;
        }
        if next == b"0" {
            break;
        }
        cursor = next;
    }
    ask(redis::cmd("ZADD").arg(&**index).arg(0).arg("").take()).await.map(drop)
}

/// A pattern that matches what begins with the prefix.
fn pattern(prefix: &[u8]) -> Vec<u8> {
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
