//! The live page at `/`, and what it shows: as a stream of events, once, and of one key.
//!
//! What is told is computed by [`status::Monitor`](crate::status::Monitor), once for all watchers. `docs/live.md` is
//! the description for a user.

mod facts;
mod inspect;
mod page;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};

use self::facts::{check_reader, json, monitor, visible};
use super::access::Caller;
use super::problem::Problem;
use super::shared::{Phase, Shared};

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

fn ending() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is ending")
}
