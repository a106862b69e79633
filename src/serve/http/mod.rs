//! The data over HTTP: everything below `/v1/stores`, and what describes it.
//!
//! `docs/http.md` is the page for those that call it; `openapi.json` is served. Handlers use the contract and nothing
//! else. What a caller may do is asked of [`Caller`], and what went wrong is a [`Problem`].

mod batch;
mod body;
mod changes;
mod info;
mod lines;
mod many;
mod path;
mod query;
mod range;
mod scan;
mod tag;
#[cfg(test)]
mod tests;
mod value;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::routing::{MethodRouter, get, post};

use self::path::Target;
use super::access::{Caller, Right};
use super::problem::Problem;
use super::shared::Shared;
use crate::error::{Error, ErrorKind};
use crate::store::Store;
use crate::types::Guarantees;

/// The routes, without state.
pub(in crate::serve) fn routes() -> Router<Arc<Shared>> {
    table().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

/// Each path, and what answers there. `openapi.json` has the same.
fn table() -> [(&'static str, MethodRouter<Arc<Shared>>); 8] {
    let value = || get(value::get).put(write::put).delete(write::delete);
    [
        ("/v1/info", get(info::info)),
        ("/v1/openapi.json", get(info::openapi)),
        ("/v1/stores/{store}/kv", get(scan::scan)),
        // The empty key, which the store refuses.
        ("/v1/stores/{store}/kv/", value()),
        ("/v1/stores/{store}/kv/{*key}", value()),
        ("/v1/stores/{store}/get", post(many::get)),
        ("/v1/stores/{store}/batch", post(batch::write)),
        ("/v1/stores/{store}/changes", get(changes::changes)),
    ]
}

/// The caller of a request.
fn caller(request: &Request) -> Result<&Caller, Problem> {
    let caller = request.extensions().get();
    caller.ok_or_else(|| Problem::of(&Error::internal("a request came in without a caller")))
}

/// The store of a request, for what needs that right.
fn store<'a>(
    shared: &'a Shared,
    request: &Request,
    target: &Target<'_>,
    right: Right,
) -> Result<&'a Arc<dyn Store>, Problem> {
    caller(request)?.store(shared, &target.store, right)
}

/// What the store of a request guarantees, once it is known to be open.
fn guarantees<'a>(shared: &'a Shared, target: &Target<'_>) -> Result<&'a Guarantees, Problem> {
    let guarantees = shared.guarantees(&target.store);
    guarantees.ok_or_else(|| Problem::of(&Error::internal("an open store guarantees nothing")))
}

/// What a store says about an entry. A key or a value that is over its limits has a status of its own.
fn refused(error: &Error, store: &dyn Store, key: usize, value: usize) -> Problem {
    if error.kind() != ErrorKind::InvalidInput {
        return Problem::of(error);
    }
    let limits = store.profile().guarantees.limits;
    let (status, kind, limit) = match limits.value_bytes {
        _ if key > limits.key_bytes => {
            (StatusCode::URI_TOO_LONG, "too_long", limits.key_bytes as u64)
        }
        Some(limit) if value as u64 > limit => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", limit),
        _ => return Problem::of(error),
    };
    Problem::of(error).with_status(status).with_kind(kind).with_limit(limit)
}

/// A value, or what holds values, is shown by no browser as a page of this server.
const SEALED: [(HeaderName, HeaderValue); 2] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
];

/// Headers of a stream of that type, of which no part is kept on the way.
fn stream_headers(media_type: &'static str) -> [(HeaderName, HeaderValue); 4] {
    let [sniff, policy] = SEALED;
    [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        sniff,
        policy,
    ]
}
