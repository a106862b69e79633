//! Answers that say what went wrong, as `application/problem+json` (RFC 9457).
//!
//! `docs/http.md` has the table of kinds and statuses. Neither a key nor a value is in a problem: an entry is
//! named by its fingerprint.

use std::borrow::Cow;

use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};

use super::counters::Refusal;
use crate::error::{Error, ErrorKind, Operation, Outcome, Retry};

const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong. One pointer wide.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    headers: HeaderMap,
    refusal: Option<Refusal>,
    told: Told,
}

/// The body.
#[derive(Clone, Debug, Serialize)]
struct Told {
    /// Written as `urn:tierstack:problem:KIND`.
    #[serde(rename = "type", serialize_with = "urn")]
    urn: &'static str,
    title: &'static str,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    detail: Cow<'static, str>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<&'static str>,
    /// Of a write: whether anything of it happened, or can still happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    /// What is allowed at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    /// Where the body is wrong, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

impl Problem {
    /// A problem of the request, in words.
    pub(in crate::serve) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let told = Told {
            urn: kind(status),
            title: status.canonical_reason().unwrap_or("Error"),
            status,
            detail: detail.into(),
            kind: kind(status),
            op: None,
            layer: None,
            retry: None,
            outcome: None,
            fingerprint: None,
            limit: None,
            line: None,
            column: None,
        };
        Self(Box::new(Inner { headers: HeaderMap::new(), refusal: None, told }))
    }

    /// What an operation failed with.
    pub(in crate::serve) fn of(error: &Error) -> Self {
        let problem = Self::new(status(error), error.message().to_owned());
        let mut problem = problem.with_kind(error.kind().as_str());
        let told = &mut problem.0.told;
        told.op = error.operation().map(Operation::as_str);
        told.layer = error.layer().map(str::to_owned);
        told.retry = Some(retry(error.retry()));
        let writes = matches!(error.operation(), Some(Operation::Write | Operation::Ingest));
        told.outcome = writes.then(|| match error.outcome() {
            Outcome::Nothing => "nothing",
            Outcome::Unknown => "unknown",
        });
        told.fingerprint = error.key_fingerprint().map(|key| format!("{key:016x}"));
        match error.retry() {
            Retry::Later => problem.retry_after(1),
            Retry::Never | Retry::GaveUp => problem,
        }
    }

    /// A request that cannot be understood, or means nothing.
    pub(in crate::serve) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The same problem under another status.
    pub(in crate::serve) fn with_status(mut self, status: StatusCode) -> Self {
        let told = &mut self.0.told;
        told.title = status.canonical_reason().unwrap_or("Error");
        told.status = status;
        self
    }

    /// The same problem as one of that kind.
    pub(in crate::serve) fn with_kind(mut self, kind: &'static str) -> Self {
        (self.0.told.urn, self.0.told.kind) = (kind, kind);
        self
    }

    /// Seconds after which it may work.
    pub(in crate::serve) fn retry_after(mut self, seconds: u32) -> Self {
        self.0.told.retry = Some(retry(Retry::Later));
        self.with_header(RETRY_AFTER, seconds.into())
    }

    /// A header of the answer.
    pub(in crate::serve) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The request is turned away, and that is counted.
    pub(in crate::serve) fn turned_away(mut self, why: Refusal) -> Self {
        self.0.refusal = Some(why);
        self
    }

    /// The limit that was passed.
    pub(in crate::serve) fn with_limit(mut self, limit: u64) -> Self {
        self.0.told.limit = Some(limit);
        self
    }

    /// The place in the body, from 1.
    pub(in crate::serve) fn at(mut self, line: u64, column: Option<usize>) -> Self {
        (self.0.told.line, self.0.told.column) = (Some(line), column);
        self
    }

    /// The status of the answer.
    pub(in crate::serve) fn status(&self) -> StatusCode {
        self.0.told.status
    }

    /// The bytes of an answer after which a connection ends, for where nothing else speaks HTTP.
    pub(in crate::serve) fn last_answer(&self) -> Vec<u8> {
        let Told { status, title, .. } = self.0.told;
        let body = json(self);
        let mut answer = format!(
            "HTTP/1.1 {} {title}\r\nconnection: close\r\n{CONTENT_TYPE}: {MEDIA_TYPE}\r\n{CONTENT_LENGTH}: {}\r\n",
            status.as_u16(),
            body.len()
        )
        .into_bytes();
        for (name, value) in &self.0.headers {
            answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        answer.extend_from_slice(b"\r\n");
        answer.extend(body);
        answer
    }

    /// The last line of a stream that began well: `{"error":{...}}`.
    pub(in crate::serve) fn to_line(&self) -> Vec<u8> {
        let mut line = json(&std::collections::BTreeMap::from([("error", self)]));
        line.push(b'\n');
        line
    }
}

/// The body.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.told.serialize(serializer)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::of(&error)
    }
}

/// The one table from errors to statuses.
fn status(error: &Error) -> StatusCode {
    match error.kind() {
        ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        ErrorKind::Access => StatusCode::FORBIDDEN,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        // There is no room for more, or not at this moment.
        ErrorKind::Capacity if error.retry() == Retry::Never => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Capacity => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable | ErrorKind::Aborted | ErrorKind::Closed => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Corruption | ErrorKind::Config | ErrorKind::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// The kind of a problem that no operation of a store met.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => ErrorKind::InvalidInput.as_str(),
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => ErrorKind::Access.as_str(),
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::REQUEST_TIMEOUT => "request_timeout",
        StatusCode::CONFLICT => ErrorKind::Conflict.as_str(),
        StatusCode::PRECONDITION_FAILED => "precondition_failed",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::URI_TOO_LONG => "too_long",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "media_type",
        StatusCode::RANGE_NOT_SATISFIABLE => "range",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "header_too_large",
        StatusCode::NOT_IMPLEMENTED => ErrorKind::Unsupported.as_str(),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            ErrorKind::Unavailable.as_str()
        }
        status if status.is_client_error() => ErrorKind::InvalidInput.as_str(),
        _ => ErrorKind::Internal.as_str(),
    }
}

const fn retry(class: Retry) -> &'static str {
    match class {
        Retry::Never => "never",
        Retry::Later => "later",
        Retry::GaveUp => "gave_up",
    }
}

fn number<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

fn urn<S: Serializer>(kind: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("urn:tierstack:problem:{kind}"))
}

fn json(told: &impl Serialize) -> Vec<u8> {
    // Texts and numbers only: there is nothing that cannot be written.
    serde_json::to_vec(told).unwrap_or_default()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json(&self);
        let mut response = (self.0.told.status, self.0.headers, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(why) = self.0.refusal {
            response.extensions_mut().insert(why);
        }
        response
    }
}
