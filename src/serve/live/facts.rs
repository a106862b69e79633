//! The facts that a caller may see, and how they are answered.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::Error;
use crate::serve::access::Caller;
use crate::serve::counters::Refusal;
use crate::serve::problem::Problem;
use crate::serve::shared::{Phase, Shared, StoreState};
use crate::status::{Facts, Monitor, Subject};

/// What a response says of itself that is new each time.
pub(super) const FRESH: [(HeaderName, &str); 2] =
    [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];

pub(super) fn monitor(shared: &Shared) -> Result<&Monitor, Problem> {
    if shared.phase() == Phase::Opening {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the stores are being opened; try again in a moment",
        )
        .retry_after(1));
    }
    Ok(shared
        .watched
        .monitor(|| Monitor::since(shared.started, Arc::clone(&shared.clock), subjects(shared))))
}

fn subjects(shared: &Shared) -> Vec<Subject> {
    let subject = |name: &str| match (shared.stack(name), shared.find(name)) {
        (Some(stack), _) => Some(Subject::of(stack)),
        (None, StoreState::Open(store)) => Some(Subject::of_store(name, store)),
        (None, StoreState::Failed(error)) => Some(Subject::failed(name, error)),
        (None, StoreState::Opening | StoreState::None) => None,
    };
    shared.names().filter_map(subject).collect()
}

pub(super) fn json(answer: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(answer)
        .map_err(|error| Error::internal("an answer cannot be written").with_source(error))?;
    Ok((FRESH, [(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Refuses a caller that may read no store.
pub(super) fn check_reader(caller: &Caller, shared: &Shared) -> Result<(), Problem> {
    if caller.stores(shared).next().is_some() {
        return Ok(());
    }
    let detail =
        "this needs the right `read` to a store, and the token is good for none of this listener's";
    Err(Problem::new(StatusCode::FORBIDDEN, detail).turned_away(Refusal::Right))
}

/// What the caller may see.
pub(super) fn visible(mut facts: Facts, caller: &Caller, shared: &Shared) -> Facts {
    let names: Vec<_> = shared.names().collect();
    facts.listeners = shared.watched.listeners(&names);
    facts.only(|name| caller.right(name).is_some())
}
