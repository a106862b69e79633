//! What each place of a store has of a key. The key is in the body: addresses get into logs.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use serde::{Deserialize, Serialize};

use super::super::access::{Caller, Right};
use super::super::problem::Problem;
use super::super::shared::Shared;
use super::facts::json;
use crate::clock::Timestamp;
use crate::types::Inspection;

/// Which key: one of both.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    key: Option<String>,
    key64: Option<String>,
}

#[derive(Serialize)]
struct Inspected {
    /// As the times of the inspections: milliseconds since 1970.
    now: Timestamp,
    /// What stands for the key in logs, where the store is that of a config.
    fingerprint: Option<String>,
    inspections: Vec<Inspection>,
}

pub(super) async fn inspect(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let store = caller.store(&shared, &name, Right::Admin)?;
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let key = key(&body)?;
    let inspections = store.inspect(&key).await?;
    let now = shared.clock.now();
    let fingerprint = shared.stack(&name).map(|stack| format!("{:016x}", stack.fingerprint(&key)));
    json(&Inspected { now, fingerprint, inspections })
}

/// No message quotes the body, which may hold a key.
pub(super) fn key(body: &[u8]) -> Result<Vec<u8>, Problem> {
    const FORM: &str =
        "write {\"key\": \"...\"}, or {\"key64\": \"...\"} where the key is not text";
    let wrong = |what: &str| Problem::new(StatusCode::BAD_REQUEST, format!("{what}; {FORM}"));
    let question: Question = serde_json::from_slice(body)
        .map_err(|error| wrong(&format!("the body is no question (column {})", error.column())))?;
    match question {
        Question { key: Some(text), key64: None } => Ok(text.into_bytes()),
        Question { key: None, key64: Some(base64) } => STANDARD_PAD_INDIFFERENT
            .decode(base64)
            .map_err(|_| wrong("`key64` is not base64, which has A-Z, a-z, 0-9, + and /")),
        Question { key: Some(_), key64: Some(_) } => Err(wrong("there are two keys")),
        Question { key: None, key64: None } => Err(wrong("there is no key")),
    }
}
