//! `GET` and `HEAD` of a value.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::headers::SEALED;
use super::path::Target;
use super::query::Query;
use super::range::{Wanted, wanted};
use super::request::{caller, refused, store};
use super::tag::{Preconditions, Tag, Verdict};
use crate::serve::access::Right;
use crate::serve::problem::Problem;
use crate::serve::shared::Shared;
use crate::types::Value;

/// The deadline of an entry, in RFC 3339.
pub(super) const EXPIRES_AT: HeaderName = HeaderName::from_static("tierstack-expires-at");

pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let target = Target::of(request.uri().path())?;
    let store = store(&shared, &request, &target, Right::Read)?;
    Query::of(request.uri(), &[])?;
    let conditions = Preconditions::of(request.headers())?;
    let key = target.key()?;
    let found = store.get(&key).await.map_err(|error| refused(&error, store, key.len(), 0))?;
    // Without a value there is nothing that a condition could be about.
    let Some(mut value) = found else {
        return Err(
            Problem::new(StatusCode::NOT_FOUND, "the key does not exist").with_kind("no_such_key")
        );
    };
    let tag = Tag::of(&value).await;
    match conditions.judge(Some(&tag)) {
        Verdict::Holds => {}
        Verdict::Changed => return Err(changed()),
        Verdict::Same => {
            return Ok((StatusCode::NOT_MODIFIED, validators(&value, tag)).into_response());
        }
    }
    let wanted = match request.headers().get(RANGE) {
        Some(range) if *request.method() == Method::GET && applies(request.headers(), &tag) => {
            wanted(range.as_bytes(), value.bytes.len())
        }
        _ => Wanted::Whole,
    };
    // A part of it holds all of it.
    value.bytes = caller(&request)?.share().keep(value.bytes)?;
    answer(value, tag, wanted)
}

/// Whether a range is asked for of just this value, or of whatever is there.
fn applies(headers: &HeaderMap, tag: &Tag) -> bool {
    headers.get(IF_RANGE).is_none_or(|wanted| tag.is(wanted.as_bytes()))
}

fn answer(value: Value, tag: Tag, wanted: Wanted) -> Result<Response, Problem> {
    let length = value.bytes.len();
    let mut headers = validators(&value, tag);
    let [sniff, policy] = SEALED;
    headers.extend([
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        sniff,
        policy,
    ]);
    let (status, bytes) = match wanted {
        Wanted::Whole => (StatusCode::OK, value.bytes),
        Wanted::Part(part) => {
            let last = part.end.saturating_sub(1);
            headers.insert(CONTENT_RANGE, text(format!("bytes {}-{last}/{length}", part.start)));
            (StatusCode::PARTIAL_CONTENT, value.bytes.slice(part))
        }
        Wanted::Nothing => {
            let detail = format!("the range lies behind the end of the value, of {length} bytes");
            return Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail)
                .with_header(CONTENT_RANGE, text(format!("bytes */{length}"))));
        }
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// What a cache on the way needs to ask again. It always asks.
fn validators(value: &Value, tag: Tag) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(ETAG, tag.header());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(at) = value.expires_at {
        headers.insert(EXPIRES_AT, text(at.to_string()));
    }
    headers
}

/// `If-Match` does not hold.
pub(super) fn changed() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "the value is not the one that If-Match requires, or there is none",
    )
}

/// Digits, signs and letters.
pub(super) fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
