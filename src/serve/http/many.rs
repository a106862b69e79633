//! `POST /v1/stores/NAME/get`: the values of many keys, as lines.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::body;
use super::lines::{self, Key, Lines, Stop};
use super::path::Target;
use super::query::Query;
use super::request::{caller, refused, store};
use crate::jsonl;
use crate::serve::access::Right;
use crate::serve::problem::Problem;
use crate::serve::shared::Shared;
use crate::store::Store;

/// Keys whose values are in memory at a time.
const AT_ONCE: usize = 64;
/// Bytes of keys that one request may ask for.
const MAX_BODY: u64 = 8 << 20;

const FORM: &str = r#"{"key": "..."}, or {"key64": "..."} with base64"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default, deserialize_with = "lines::text")]
    key: Option<String>,
    #[serde(default, deserialize_with = "lines::text")]
    key64: Option<String>,
}

/// The line of a key without a value.
#[derive(Serialize)]
struct Missing<'a> {
    #[serde(flatten)]
    key: Key<'a>,
    missing: bool,
}

/// The last line.
#[derive(Serialize)]
struct End {
    end: bool,
    found: u64,
    missing: u64,
}

pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let target = Target::of(request.uri().path())?;
    let store = Arc::clone(store(&shared, &request, &target, Right::Read)?);
    Query::of(request.uri(), &[])?;
    body::check_lines(request.headers())?;
    let caller = caller(&request)?.clone();
    let limit = caller.max_body().min(MAX_BODY);
    let body = body::read(request.into_body(), limit).await?;
    let keys = lines::of_body(&body).map(|(number, line)| key(number, line));
    let keys: Vec<Bytes> = keys.collect::<Result<_, _>>()?;
    lines::answer(&caller, |mut lines| async move {
        let written = write(&*store, &keys, &mut lines).await;
        (lines, written)
    })
    .await
}

fn key(number: u64, line: &[u8]) -> Result<Bytes, Problem> {
    let read = || {
        let Asked { key, key64 } = jsonl::object(line, FORM)?;
        jsonl::bytes("key", key, key64)
    };
    read().map_err(|wrong| lines::wrong(number, wrong))
}

async fn write(store: &dyn Store, keys: &[Bytes], lines: &mut Lines) -> Result<(), Stop> {
    let mut end = End { end: true, found: 0, missing: 0 };
    for keys in keys.chunks(AT_ONCE) {
        let values = store.get_many(keys).await.map_err(|error| {
            let longest = keys.iter().map(Bytes::len).max().unwrap_or_default();
            let problem = refused(&error, store, longest, 0);
            // The keys are in the body, and not in the path.
            Stop::Failed(match problem.status() {
                StatusCode::URI_TOO_LONG => {
                    problem.with_status(StatusCode::PAYLOAD_TOO_LARGE).with_kind("too_large")
                }
                _ => problem,
            })
        })?;
        let found = values.iter().flatten();
        let _held = lines.hold(found.map(|value| (&[][..], &*value.bytes)))?;
        for (key, value) in keys.iter().zip(&values) {
            match value {
                Some(value) => {
                    end.found += 1;
                    lines.entry(key, Some(value)).await?;
                }
                None => {
                    end.missing += 1;
                    lines.line(&Missing { key: Key::new(key), missing: true }).await?;
                }
            }
        }
    }
    lines.line(&end).await
}
