//! Scans over the index.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;

use super::Shared;
use super::command::{Paged, Run, page};
use super::error::{odd, said};
use super::index::{self, Looked, STEP};
use super::router::Call;
use super::unindexed_scan::Keys;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::Pages;
use crate::types::{Order, Page, Scan};

/// How often a scan builds an index that was removed.
const BUILDS: usize = 3;

pub(super) fn pages(shared: &Shared, scan: Scan) -> Pages<'_> {
    let state = State { done: scan.is_empty(), begun: false, scan, keys: None };
    unfold(state, move |mut state| async move {
        if state.done {
            return None;
        }
        loop {
            match next(shared, &mut state).await {
                Err(error) => {
                    state.done = true;
                    return Some((Err(error.with_operation(Operation::Scan)), state));
                }
                Ok(run) => {
                    state.begun = true;
                    state.scan.resume_after(run.last);
                    state.scan.consume(run.entries.len());
                    state.done = run.ended || state.scan.is_empty();
                    if !run.entries.is_empty() {
                        return Some((Ok(Page { entries: run.entries }), state));
                    }
                    if state.done {
                        return None;
                    }
                }
            }
        }
    })
    .boxed()
}

struct State {
    scan: Scan,
    begun: bool,
    done: bool,
    /// Where there is no index.
    keys: Option<Keys>,
}

async fn next(shared: &Shared, state: &mut State) -> Result<Run> {
    shared.servers.check_open()?;
    let Some(index) = &shared.place.index else { return sorted(shared, state).await };
    // A scan of everything gives everything, whatever other programs wrote; a range trusts the index, unless
    // the database has more keys than that knows of.
    let whole = is_whole(&state.scan);
    if !shared.may_create && !state.begun && !index::is_complete(shared, Operation::Scan).await? {
        state.keys = Some(Keys::of(shared, &state.scan, whole).await?);
    }
    if let Some(keys) = &mut state.keys {
        return keys.page(shared, &state.scan).await;
    }
    if whole && !state.begun {
        if let Some(run) = all_at_once(shared, index, &state.scan).await? {
            return Ok(run);
        }
        index::look(shared, Operation::Scan).await?;
    }
    let mut look = !whole && !state.begun && shared.place.prefix.is_empty();
    for _ in 0..BUILDS {
        let call = page_call(shared, index, &state.scan, look);
        match page(shared.servers.call(Operation::Scan, &call).await?, state.scan.keys_only)? {
            Paged::Run(run) => return Ok(run),
            Paged::Incomplete => index::build(shared, Operation::Scan).await?,
            // Once: where others write all the time, it would never end.
            Paged::Behind => {
                index::renew(shared, Operation::Scan).await?;
                look = false;
            }
        }
    }
    Err(said(
        ErrorKind::Unavailable,
        "another program removes the key `tierstack:index`, in which the index is kept, again and again",
    ))
}

/// A page of a scan without an index.
async fn sorted(shared: &Shared, state: &mut State) -> Result<Run> {
    if !shared.sorts {
        return Err(Error::unsupported(
            "Redis keeps keys in no order; set `index: true` for an index that scans can use, or `scan: sorted`, with which each scan asks for every key and sorts them here",
        ));
    }
    let keys = match &mut state.keys {
        Some(keys) => keys,
        none => none.insert(Keys::of(shared, &state.scan, is_whole(&state.scan)).await?),
    };
    keys.page(shared, &state.scan).await
}

/// The look at every key and the first page in one round trip. `None`: the database is too large for that, or its
/// index is not complete.
async fn all_at_once(shared: &Shared, index: &[u8], scan: &Scan) -> Result<Option<Run>> {
    if shared.is_large.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let mut call = page_call(shared, index, scan, false);
    call.commands.insert(0, index::look_at_once(shared, index));
    let mut answers = shared.servers.call(Operation::Scan, &call).await?.into_iter();
    let looked = answers.next().ok_or_else(|| odd(Operation::Scan))?;
    match index::looked_at_once(shared, looked)? {
        Looked::All => match page(answers.collect(), scan.keys_only)? {
            Paged::Run(run) => Ok(Some(run)),
            Paged::Incomplete | Paged::Behind => Ok(None),
        },
        // So that the next scan reads no page in vain.
        Looked::Part => {
            shared.is_large.store(true, Ordering::Relaxed);
            Ok(None)
        }
        Looked::Nothing => Ok(None),
    }
}

fn is_whole(scan: &Scan) -> bool {
    let open = |bound: &Bound<Bytes>| match bound {
        Bound::Included(key) | Bound::Excluded(key) => key.is_empty(),
        Bound::Unbounded => true,
    };
    open(&scan.from) && matches!(scan.to, Bound::Unbounded) && scan.limit.is_none()
}

fn page_call(shared: &Shared, index: &[u8], scan: &Scan, look: bool) -> Call {
    let from = border(&scan.from, b"-");
    let to = border(&scan.to, b"+");
    let (command, first, last) = match scan.order {
        Order::Forward => ("ZRANGEBYLEX", from, to),
        Order::Reverse => ("ZREVRANGEBYLEX", to, from),
    };
    let command = redis::cmd("EVALSHA")
        .arg(&shared.place.page)
        .arg(1)
        .arg(index)
        .arg(&*shared.place.prefix)
        .arg(first)
        .arg(last)
        .arg(command)
        .arg(scan.next_page_entries().min(STEP))
        .arg(scan.page_bytes)
        .arg(if look { "x" } else { "" })
        .arg(if scan.keys_only { "k" } else { "" })
        .take();
    Call {
        slot: shared.place.slot(b""),
        commands: vec![command],
        repeatable: true,
        waits: false,
        whole: true,
    }
}

fn border(bound: &Bound<Bytes>, open: &[u8]) -> Vec<u8> {
    match bound {
        Bound::Included(key) => [b"[", &**key].concat(),
        Bound::Excluded(key) => [b"(", &**key].concat(),
        Bound::Unbounded => open.to_vec(),
    }
}
