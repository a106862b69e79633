//! What a request names: its caller, and the store.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;

use super::path::Target;
use crate::error::{Error, ErrorKind};
use crate::serve::access::{Caller, Right};
use crate::serve::problem::Problem;
use crate::serve::shared::Shared;
use crate::store::Store;
use crate::types::Guarantees;

/// The caller of a request.
pub(super) fn caller(request: &Request) -> Result<&Caller, Problem> {
    let caller = request.extensions().get();
    caller.ok_or_else(|| Problem::of(&Error::internal("a request came in without a caller")))
}

/// The store of a request, for what needs that right.
pub(super) fn store<'a>(
    shared: &'a Shared,
    request: &Request,
    target: &Target<'_>,
    right: Right,
) -> Result<&'a Arc<dyn Store>, Problem> {
    caller(request)?.store(shared, &target.store, right)
}

/// What the store of a request guarantees, once it is known to be open.
pub(super) fn guarantees<'a>(
    shared: &'a Shared,
    target: &Target<'_>,
) -> Result<&'a Guarantees, Problem> {
    let guarantees = shared.guarantees(&target.store);
    guarantees.ok_or_else(|| Problem::of(&Error::internal("an open store guarantees nothing")))
}

/// What a store says about an entry. A key or a value that is over its limits has a status of its own.
pub(super) fn refused(error: &Error, store: &dyn Store, key: usize, value: usize) -> Problem {
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
