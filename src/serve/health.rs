//! Whether the process lives, and whether it is ready.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::problem::Problem;
use super::shared::{Phase, Shared};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
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
