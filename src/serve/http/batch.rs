//! `POST /v1/stores/NAME/batch`: one atomic batch, with conditions, an operation a line.
//!
//! A line of `export` is a put.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::path::Target;
use super::query::Query;
use super::request::{caller, guarantees, store};
use super::write::{sequence, wait};
use super::{body, lines};
use crate::clock::{Clock, Timestamp};
use crate::error::Operation;
use crate::jsonl::{self, Wrong};
use crate::serve::access::Right;
use crate::serve::problem::Problem;
use crate::serve::shared::Shared;
use crate::types::units::Span;
use crate::types::{Batch, Condition, Guarantees, Limits, Op, Value, check_key};

const FORM: &str = r#"{"key": "...", "value": "..."}, {"op": "delete", "key": "..."}, {"op": "absent", "key": "..."} or {"op": "equals", "key": "...", "value": "..."}"#;

/// What a line says.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verb {
    #[default]
    Put,
    Delete,
    /// The batch requires that there is no such key.
    Absent,
    /// The batch requires this value.
    Equals,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(default)]
    op: Verb,
    #[serde(default, deserialize_with = "lines::text")]
    key: Option<String>,
    #[serde(default, deserialize_with = "lines::text")]
    key64: Option<String>,
    #[serde(default, deserialize_with = "lines::text")]
    value: Option<String>,
    #[serde(default, deserialize_with = "lines::text")]
    value64: Option<String>,
    #[serde(default, deserialize_with = "lines::text")]
    ttl: Option<String>,
    #[serde(default, deserialize_with = "lines::text")]
    expires_at: Option<String>,
}

pub(super) async fn write(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let target = Target::of(request.uri().path())?;
    let store = Arc::clone(store(&shared, &request, &target, Right::Write)?);
    let query = Query::of(request.uri(), &["durable"])?;
    let durable = query.flag("durable")?;
    body::check_lines(request.headers())?;
    let (guarantees, limit) = (guarantees(&shared, &target)?, caller(&request)?.max_body());
    let body = body::read(request.into_body(), limit).await?;
    let batch = parse(&body, &*shared.clock, guarantees)?;
    let commit = store.write(batch).await;
    let commit = commit.map_err(|error| error.with_operation(Operation::Write))?;
    let place = sequence(&commit);
    if durable {
        wait(commit).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().extend(place);
    Ok(response)
}

/// The batch that lines describe.
fn parse(body: &[u8], clock: &dyn Clock, guarantees: &Guarantees) -> Result<Batch, Problem> {
    let mut batch = Batch::new();
    for (number, line) in lines::of_body(body) {
        let read = || -> Result<_, Wrong> {
            let record: Record = jsonl::object(line, FORM)?;
            Ok((record.op, record.read(clock)?))
        };
        let (verb, (key, value)) = read().map_err(|wrong| lines::wrong(number, wrong))?;
        check_key(&key)
            .and_then(|()| guarantees.limits.check(key.len(), value.bytes.len()))
            .map_err(|error| {
                let what = format!("line {number}: {}", error.message());
                over(&guarantees.limits, key.len(), value.bytes.len(), what).at(number, None)
            })?;
        match verb {
            Verb::Put => batch.push(Op::Put(key, value)),
            Verb::Delete => batch.push(Op::Delete(key)),
            Verb::Absent => batch = batch.require(Condition::Absent(key)),
            Verb::Equals => batch = batch.require(Condition::Equals(key, value)),
        }
    }
    Ok(batch)
}

/// A line whose entry the store does not take.
fn over(limits: &Limits, key: usize, value: usize, what: String) -> Problem {
    let too_large =
        |limit: u64, what| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what).with_limit(limit);
    match limits.value_bytes {
        _ if key > limits.key_bytes => too_large(limits.key_bytes as u64, what),
        Some(limit) if value as u64 > limit => too_large(limit, what),
        _ => Problem::bad_request(what),
    }
}

impl Record {
    /// The key, and the value of an operation that has one.
    fn read(self, clock: &dyn Clock) -> Result<(bytes::Bytes, Value), Wrong> {
        let wrong = |what: String| Wrong { column: None, what };
        let key = jsonl::bytes("key", self.key, self.key64)?;
        if matches!(self.op, Verb::Delete | Verb::Absent) {
            let more = self.value.is_some() || self.value64.is_some();
            if more || self.ttl.is_some() || self.expires_at.is_some() {
                return Err(wrong("this operation takes a key and nothing else".to_owned()));
            }
            return Ok((key, Value::default()));
        }
        let bytes = jsonl::bytes("value", self.value, self.value64)?;
        let expires_at: Option<Timestamp> = match (self.ttl, self.expires_at) {
            (Some(_), Some(_)) => {
                return Err(wrong("both ttl and expires_at are given; write one".to_owned()));
            }
            (Some(_), None) if self.op == Verb::Equals => {
                return Err(wrong(
                    "a value that is required has an expires_at, and no ttl".to_owned(),
                ));
            }
            (Some(ttl), None) => {
                let span: Span = ttl.parse().map_err(|what| wrong(format!("ttl: {what}")))?;
                Some(clock.now() + span.0)
            }
            (None, Some(at)) => {
                Some(at.parse().map_err(|what| wrong(format!("expires_at: {what}")))?)
            }
            (None, None) => None,
        };
        Ok((key, Value { bytes, expires_at }))
    }
}
