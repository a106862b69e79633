//! The body of a request, up to a limit.

use axum::body::{Body, HttpBody};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::serve::counters::Refusal;
use crate::serve::limited_body::BodyError;
use crate::serve::problem::Problem;

/// What the routes that take lines take.
pub(super) const LINES: &str = "application/x-ndjson";

/// Room that is made before anything has come.
const FIRST: u64 = 64 << 10;

/// Reads a body. One that is too large is read no further than to where that is known, which is before its first
/// byte when it says its length.
pub(super) async fn read(mut body: Body, limit: u64) -> Result<Bytes, Problem> {
    let announced = body.size_hint().lower();
    if announced > limit {
        return Err(too_large(limit));
    }
    // Of its own: what comes from the connection are parts of larger buffers.
    let mut bytes = Vec::with_capacity(announced.min(FIRST) as usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::problem_of(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if (bytes.len() + data.len()) as u64 > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(data);
    }
    bytes.shrink_to_fit();
    Ok(bytes.into())
}

fn too_large(limit: u64) -> Problem {
    let detail = format!("the body is over the limit of {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).with_limit(limit).turned_away(Refusal::Body)
}

/// Refuses a body that is not as it is: nothing is unpacked.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body has a Content-Encoding; send it as it is",
            ))
        }
        _ => Ok(()),
    }
}

/// Refuses a body that is not said to be lines of JSON. What a form of a foreign page could send is none.
pub(super) fn check_lines(headers: &HeaderMap) -> Result<(), Problem> {
    check_encoding(headers)?;
    let given = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = given.split(|byte| *byte == b';').next().unwrap_or_default();
    if essence.trim_ascii().eq_ignore_ascii_case(LINES.as_bytes()) {
        return Ok(());
    }
    let detail = format!("this route takes one JSON object a line: set `Content-Type: {LINES}`");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
        .with_header(HeaderName::from_static("accept-post"), HeaderValue::from_static(LINES)))
}
