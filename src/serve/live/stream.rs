//! `/v1/live`: the facts once a second, as events.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::super::access::Caller;
use super::super::live_watchers::STREAMS;
use super::super::problem::Problem;
use super::super::shared::{Phase, Shared};
use super::facts::{FRESH, check_reader, monitor, visible};
use crate::status::{Facts, Watch};

/// A line is sent at least this often, so that each side notices when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream ends after this, and the page asks again: with a token that may have been revoked.
const LONGEST: Duration = Duration::from_secs(600);

/// One caller's stream.
struct Stream {
    shared: Arc<Shared>,
    caller: Caller,
    watch: Watch,
    begun: Duration,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn live(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let monitor = monitor(&shared)?.clone();
    check_reader(&caller, &shared)?;
    let Some(permit) = shared.watched.stream() else {
        let detail = format!(
            "{STREAMS} streams are open, which is the most; ask for /v1/status every few seconds"
        );
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(3));
    };
    let begun = shared.clock.monotonic();
    let stream = Stream { watch: monitor.watch(), shared, caller, begun, _permit: permit };
    let events = stream::unfold(Some(stream), async |stream| stream?.next().await);
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        // A proxy that collects the answer would show nothing.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((FRESH, headers, Body::from_stream(events)).into_response())
}

impl Stream {
    /// The next event, and what goes on after it.
    async fn next(mut self) -> Option<(Result<Bytes, axum::Error>, Option<Self>)> {
        let clock = Arc::clone(&self.shared.clock);
        let is_over = clock.monotonic().saturating_sub(self.begun) > LONGEST;
        let event = tokio::select! {
            biased;
            () = self.shared.reached(Phase::Draining) => None,
            () = std::future::ready(()), if is_over => None,
            facts = self.watch.next() => Some(event(&visible(facts, &self.caller, &self.shared))),
            () = clock.sleep(HEARTBEAT) => Some(Bytes::from_static(b":\n\n")),
        };
        match event {
            Some(event) => Some((Ok(event), Some(self))),
            None => Some((Ok(Bytes::from_static(b"event: end\ndata: {}\n\n")), None)),
        }
    }
}

/// JSON has no line breaks, which would end the event.
fn event(facts: &Facts) -> Bytes {
    match serde_json::to_string(facts) {
        Ok(json) => format!("event: facts\ndata: {json}\n\n").into(),
        Err(error) => {
            tracing::warn!(%error, "the facts cannot be written");
            Bytes::from_static(b":\n\n")
        }
    }
}
