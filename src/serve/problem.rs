//! Errors as `application/problem+json` (RFC 9457).

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::{Error, ErrorKind};

/// What a request failed with. One pointer wide.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    detail: String,
    kind: Option<ErrorKind>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem of the request, in words.
    pub(in crate::serve) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let headers = HeaderMap::new();
        Self(Box::new(Inner { status, detail: detail.into(), kind: None, headers }))
    }

    /// What an operation failed with.
    pub(in crate::serve) fn of(error: &Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Closed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut problem = Self::new(status, error.message().to_owned());
        problem.0.kind = Some(error.kind());
        problem
    }

    pub(in crate::serve) fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    pub(in crate::serve) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Seconds after which it may work.
    pub(in crate::serve) fn retry_after(self, seconds: u32) -> Self {
        self.with_header(RETRY_AFTER, seconds.into())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::of(&error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Inner { status, detail, kind, headers } = *self.0;
        let body = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": detail,
            "kind": kind.map(ErrorKind::as_str),
        });
        let mut response = (status, headers, body.to_string()).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}
