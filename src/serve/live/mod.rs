//! The live page at `/`, and what it shows: as a stream of events, once, and of one key.
//!
//! What is told is computed by [`status::Monitor`](crate::status::Monitor), once for all watchers. `docs/live.md` is
//! the description for a user.

mod inspect;
mod page;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Serialize;

use super::access::Caller;
use super::meters::Refusal;
use super::problem::Problem;
use super::shared::{Found, Phase, Shared};
use crate::error::Error;
use crate::status::{Facts, Monitor, Subject};

/// What a response says of itself that is new each time.
const FRESH: [(HeaderName, &str); 2] =
    [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];

fn monitor(shared: &Shared) -> Result<&Monitor, Problem> {
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
        (None, Found::Open(store)) => Some(Subject::of_store(name, store)),
        (None, Found::Failed(error)) => Some(Subject::failed(name, error)),
        (None, Found::Opening | Found::None) => None,
    };
    shared.names().filter_map(subject).collect()
}

/// The routes, without state.
pub(in crate::serve) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(page::page))
        .route("/v1/live", get(stream::live))
        .route("/v1/status", get(status))
        .route("/v1/stores/{store}/inspect", post(inspect::inspect))
}

/// The facts once.
async fn status(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let monitor = monitor(&shared)?;
    check_reader(&caller, &shared)?;
    let facts = tokio::select! {
        facts = monitor.once() => facts,
        () = shared.reached(Phase::Draining) => return Err(ending()),
    };
    json(&visible(facts, &caller, &shared))
}

fn json(answer: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(answer)
        .map_err(|error| Error::internal("an answer cannot be written").with_source(error))?;
    Ok((FRESH, [(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Refuses a caller that may read no store.
fn check_reader(caller: &Caller, shared: &Shared) -> Result<(), Problem> {
    if caller.stores(shared).next().is_some() {
        return Ok(());
    }
    let detail =
        "this needs the right `read` to a store, and the token is good for none of this listener's";
    Err(Problem::new(StatusCode::FORBIDDEN, detail).turned_away(Refusal::Right))
}

/// What the caller may see.
fn visible(mut facts: Facts, caller: &Caller, shared: &Shared) -> Facts {
    let names: Vec<_> = shared.names().collect();
    facts.listeners = shared.watched.listeners(&names);
    facts.only(|name| caller.right(name).is_some())
}

fn ending() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is ending")
}
