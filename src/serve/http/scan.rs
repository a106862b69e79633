//! `GET /v1/stores/NAME/kv`: the entries of a range, as lines.

use std::ops::Bound;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::lines::{self, Lines, Stop};
use super::path::Target;
use super::query::Query;
use super::request::{caller, store};
use crate::jsonl::text_or_base64;
use crate::serve::access::Right;
use crate::serve::problem::Problem;
use crate::serve::shared::Shared;
use crate::store::Store;
use crate::types::{Order, Scan};

const PARAMETERS: &[&str] = &["prefix", "from", "to", "after", "reverse", "limit", "keys"];

pub(super) async fn scan(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let target = Target::of(request.uri().path())?;
    let store = Arc::clone(store(&shared, &request, &target, Right::Read)?);
    let scan = range(&Query::of(request.uri(), PARAMETERS)?)?;
    lines::answer(caller(&request)?, |mut lines| async move {
        let written = write(&*store, scan, &mut lines).await;
        (lines, written)
    })
    .await
}

/// The last line.
#[derive(Serialize)]
struct End<'a> {
    end: bool,
    entries: u64,
    /// With what the next scan goes on. Left out where nothing follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after64: Option<String>,
}

/// Writes the entries of a scan, and the last line.
async fn write(store: &dyn Store, mut scan: Scan, lines: &mut Lines) -> Result<(), Stop> {
    let (limit, with_values) = (scan.limit.unwrap_or(u64::MAX), !scan.keys_only);
    // One more tells whether more follows.
    scan.limit = scan.limit.map(|limit| limit.saturating_add(1));
    let (mut entries, mut last, mut more) = (0, Bytes::new(), false);
    let mut pages = if scan.is_empty() { stream::empty().boxed() } else { store.scan(scan) };
    while let Some(page) = pages.try_next().await? {
        let _held = lines.hold(page.entries.iter().map(|e| (&*e.key, &*e.value.bytes)))?;
        let room = usize::try_from(limit - entries).unwrap_or(usize::MAX);
        let taken = page.entries.get(..room).unwrap_or(&page.entries);
        for entry in taken {
            lines.entry(&entry.key, with_values.then_some(&entry.value)).await?;
        }
        entries += taken.len() as u64;
        more = taken.len() < page.len();
        if let Some(entry) = taken.last() {
            last = Bytes::copy_from_slice(&entry.key);
        }
        lines.hand_on(0).await?;
    }
    let (after, after64) = if more { text_or_base64(&last) } else { (None, None) };
    lines.line(&End { end: true, entries, after, after64 }).await
}

/// Which entries a request asks for.
fn range(query: &Query<'_>) -> Result<Scan, Problem> {
    let own = Bytes::copy_from_slice;
    let (prefix, from, to) = (query.bytes("prefix"), query.bytes("from"), query.key("to")?);
    let mut scan = match (prefix, from, to) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            return Err(Problem::bad_request(
                "`prefix` is given with `from` or `to`; give a prefix, or the ends of a range",
            ));
        }
        (Some(prefix), None, None) => Scan::prefix(prefix),
        (None, from, to) => Scan {
            from: from.map_or(Bound::Unbounded, |from| Bound::Included(own(from))),
            to: to.map_or(Bound::Unbounded, |to| Bound::Excluded(own(to))),
            ..Scan::all()
        },
    };
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        return Err(Problem::bad_request("`from` is after `to`; no key lies between them"));
    }
    if query.flag("reverse")? {
        scan = scan.reverse();
    }
    scan.limit = query.parsed("limit")?;
    if scan.limit == Some(0) {
        return Err(Problem::bad_request("the parameter `limit` is 0; it is at least 1"));
    }
    scan.keys_only = query.flag("keys")?;
    if let Some(after) = query.key("after")? {
        go_on(&mut scan, after);
    }
    Ok(scan)
}

/// Goes on behind a key, and never begins before the range did.
fn go_on(scan: &mut Scan, after: &[u8]) {
    let is_before = match (scan.order, &scan.from, &scan.to) {
        (Order::Forward, Bound::Included(from), _) => after < &**from,
        (Order::Reverse, _, Bound::Excluded(to)) => after >= &**to,
        _ => false,
    };
    if !is_before {
        scan.resume_after(after);
    }
}
