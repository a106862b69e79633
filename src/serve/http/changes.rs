//! `GET /v1/stores/NAME/changes`: what others change, as server-sent events.
//!
//! Each stream is a subscription of its own ([`Store::changes`](crate::Store::changes)), and ends with the
//! connection, with the store, or when the server begins to drain. A client that comes back has missed what was
//! reported meanwhile.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;

use super::headers::stream_headers;
use super::lines::Key;
use super::path::Target;
use super::query::Query;
use super::request::store;
use crate::serve::access::Right;
use crate::serve::problem::Problem;
use crate::serve::shared::{Phase, Shared};
use crate::store::{Change, Changes};

/// A silent stream says that often that it is alive, so that what is between keeps it open.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) async fn changes(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let target = Target::of(request.uri().path())?;
    let store = store(&shared, &request, &target, Right::Read)?;
    let query = Query::of(request.uri(), &["prefix"])?;
    let prefix = query.bytes("prefix").unwrap_or_default().to_vec();
    let changes = store.changes().await?;
    let events = events(changes, prefix, shared).map(Ok::<Bytes, std::convert::Infallible>);
    Ok((stream_headers("text/event-stream"), Body::from_stream(events)).into_response())
}

/// The events of the changes of keys with that prefix.
fn events(changes: Changes, prefix: Vec<u8>, shared: Arc<Shared>) -> impl Stream<Item = Bytes> {
    let begin = stream::iter([Bytes::from_static(b": subscribed\n\n")]);
    let events = stream::unfold(Some((changes, prefix, shared)), |state| async move {
        let (mut changes, prefix, shared) = state?;
        match next(&mut changes, &prefix, &shared).await {
            Some(event) => Some((event, Some((changes, prefix, shared)))),
            None => Some((Bytes::from_static(b"event: end\ndata: {}\n\n"), None)),
        }
    });
    begin.chain(events)
}

/// The next event, or a sign of life. `None`: there will be no more.
async fn next(changes: &mut Changes, prefix: &[u8], shared: &Shared) -> Option<Bytes> {
    let mut silent = shared.clock.sleep(HEARTBEAT);
    loop {
        let change = tokio::select! {
            biased;
            () = shared.reached(Phase::Draining) => return None,
            change = changes.next() => change?,
            () = &mut silent => return Some(Bytes::from_static(b": alive\n\n")),
        };
        if let Some(event) = event(change, prefix) {
            return Some(event);
        }
    }
}

#[derive(Serialize)]
struct Keys<'a> {
    keys: Vec<Key<'a>>,
}

#[derive(Serialize)]
struct Prefix<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix64: Option<String>,
}

/// The event of a change, if it is of a key with that prefix.
fn event(change: Change, prefix: &[u8]) -> Option<Bytes> {
    match change {
        Change::Keys(keys) => {
            let keys: Vec<_> = keys
                .iter()
                .filter(|key| key.starts_with(prefix))
                .map(|key| Key::new(key))
                .collect();
            (!keys.is_empty()).then(|| named("keys", &Keys { keys }))
        }
        Change::Prefix(of) if of.starts_with(prefix) || prefix.starts_with(&of) => {
            let (prefix, prefix64) = crate::jsonl::text_or_base64(&of);
            Some(named("prefix", &Prefix { prefix, prefix64 }))
        }
        Change::Prefix(_) => None,
        Change::All => Some(Bytes::from_static(b"event: all\ndata: {}\n\n")),
        Change::Lost => Some(Bytes::from_static(b"event: lost\ndata: {}\n\n")),
    }
}

fn named(name: &str, data: &impl Serialize) -> Bytes {
    // Texts only, and JSON has no line breaks outside of them.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}
