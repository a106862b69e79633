//! Whether the process lives, whether it is ready, and what it has counted.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::problem::Problem;
use super::shared::{Phase, Shared};
use crate::telemetry;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

async fn healthz() -> Response {
    uncached("ok\n".into_response())
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    uncached(match unready(&shared) {
        None => "ready\n".into_response(),
        Some(why) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).retry_after(1).into_response()
        }
    })
}

/// For every caller that the listener knows, whatever its rights: there is no key and no value in it.
async fn metrics() -> Response {
    // Concurrently with the tasks, which a large text would hold up.
    uncached(match tokio::task::spawn_blocking(telemetry::render).await {
        Ok(text) => ([(CONTENT_TYPE, telemetry::CONTENT_TYPE)], text).into_response(),
        Err(_) => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "writing the text failed; the log says why",
        )
        .into_response(),
    })
}

/// Why callers should ask elsewhere. The names of stores are for callers with a right to them.
fn unready(shared: &Shared) -> Option<String> {
    match shared.phase() {
        Phase::Opening => Some("the stores are being opened".to_owned()),
        Phase::Draining | Phase::Ended => Some("the process is about to end".to_owned()),
        Phase::Ready => {
            let (failed, all) = (shared.failed().count(), shared.names().count());
            (failed > 0).then(|| format!("{failed} of {all} stores could not be opened"))
        }
    }
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
