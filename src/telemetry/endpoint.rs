//! The server of [`listen`](super::listen()): one request for each connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::text;
use crate::clock::SystemClock;

/// Connections at once; more wait until one of them ends.
const CONNECTIONS: usize = 32;
/// The longest that a connection is open: a client that sends or reads slowly keeps its place no longer.
const LONGEST: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted, as where the process has too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// The most that a request may have.
const MOST_BYTES: usize = 16 << 10;

pub(super) async fn serve(listener: TcpListener) {
    let clock = SystemClock::shared();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            clock.sleep(PAUSE).await;
            continue;
        };
        let clock = Arc::clone(&clock);
        tokio::spawn(async move {
            let mut server = http1::Builder::new();
            server.keep_alive(false).max_buf_size(MOST_BYTES);
            let connection = server.serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::select! {
                // An error is the client's: it sent no HTTP, or left.
                _ = connection => {}
                () = clock.sleep(LONGEST) => {}
            }
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics" | "/") => {
            // Concurrently with the tasks, which a large text would hold up.
            match tokio::task::spawn_blocking(text::render).await {
                Ok(text) => (StatusCode::OK, text),
                Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "writing the text failed\n".into()),
            }
        }
        (_, "/metrics" | "/") => {
            (StatusCode::METHOD_NOT_ALLOWED, "metrics are read with GET\n".to_owned())
        }
        _ => (StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(text::CONTENT_TYPE));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}
