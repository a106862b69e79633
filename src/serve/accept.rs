//! The tasks of a listener: one that accepts, one for each connection.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::http::StatusCode;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::bind::{Socket, Stream};
use super::connection_timeout::{HEAD, Requests, Timed};
use super::counters::{Open, Refusal};
use super::gate::Gate;
use super::problem::Problem;
use super::shared::Phase;

/// The largest head of a request.
const MAX_HEAD: usize = 16 << 10;
/// What a caller may send over HTTP/2 before it is read.
const WINDOW: u32 = 256 << 10;
/// Requests at a time over one connection of HTTP/2.
const STREAMS: u32 = 128;
/// The pause after a connection could not be accepted: there may be too many files open.
const PAUSE: Duration = Duration::from_millis(100);

static BUSY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections")
        .retry_after(1)
        .last_answer()
});

/// Accepts until the server drains, and returns once every connection has ended.
pub(super) async fn run(socket: Socket, gate: Arc<Gate>, folder: PathBuf) {
    let shared = Arc::clone(&gate.shared);
    let builder = Arc::new(builder());
    // Dropped with this task, which ends them.
    let mut connections = JoinSet::new();
    let mut draining = pin!(shared.reached(Phase::Draining));
    let mut following = pin!(gate.policy.follow_files(&folder, &*shared.clock));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut draining => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = &mut following => continue,
            accepted = socket.accept() => accepted,
        };
        let policy = gate.policy.load();
        match accepted {
            Ok(stream) if connections.len() >= policy.limits.connections as usize => {
                gate.counters.refused(Refusal::Connections);
                stream.turn_away(if policy.tls.is_some() { b"" } else { &BUSY });
            }
            Ok(stream) => {
                drop(connections.spawn(connect(stream, Arc::clone(&gate), Arc::clone(&builder))));
            }
            // The caller has left already.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "a connection is not accepted");
                shared.clock.sleep(PAUSE).await;
            }
        }
    }
    drop(socket);
    tokio::select! {
        biased;
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = shared.reached(Phase::Ended) => connections.shutdown().await,
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Heads that do not come are for `Timed`, which knows of idle connections too.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

type Builder = Arc<auto::Builder<TokioExecutor>>;

async fn connect(stream: Stream, gate: Arc<Gate>, builder: Builder) {
    let _counted = (gate.shared.connection(), Open::new(&gate.counters));
    let tls = gate.policy.load().tls.as_ref().map(|tls| Arc::clone(&tls.config));
    let Some(tls) = tls else {
        return converse(stream, gate, builder).await;
    };
    let accepted = tokio::select! {
        biased;
        accepted = TlsAcceptor::from(tls).accept(stream) => accepted,
        () = gate.shared.clock.sleep(HEAD) => return gate.counters.refused(Refusal::Slow),
        () = gate.shared.reached(Phase::Draining) => return,
    };
    match accepted {
        Ok(stream) => converse(stream, gate, builder).await,
        Err(error) => tracing::debug!(%error, "a caller cannot speak TLS with this server"),
    }
}

/// Answers requests until the connection ends.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    gate: Arc<Gate>,
    builder: Builder,
) {
    let (shared, counters) = (Arc::clone(&gate.shared), Arc::clone(&gate.counters));
    let requests = Requests::new(&shared.clock);
    let idle = gate.policy.load().limits.idle.0;
    let stream = TokioIo::new(Timed::new(stream, &requests, idle, &shared.clock));
    let of = Arc::clone(&requests);
    let service = service_fn(move |request| Arc::clone(&gate).answer(Arc::clone(&of), request));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = shared.reached(Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        if requests.were_too_slow() {
            counters.refused(Refusal::Slow);
        } else if is_malformed(&*error) {
            counters.refused(Refusal::Header);
        }
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Whether the head of a request could not be read, or is too large. What is wrong with one over HTTP/2 is not told.
fn is_malformed(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref().is_some_and(hyper::Error::is_parse)
}
