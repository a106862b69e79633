//! A server in this process, asked over real sockets. Its clock is moved by hand.

mod admission;
mod counters;
mod drain;
mod http2;
mod limits;
mod reload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::routing::{get, post};
use futures_util::stream;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::access::{Caller, Right};
use super::limited_body::BodyError;
use super::shared::Shared;
use super::{Server, Stores};
use crate::backends::Memory;
use crate::clock::ManualClock;
use crate::config::{Config, Format};
use crate::store::Store;

/// A server, what moves its clock, and what its slow handlers wait for.
struct Place {
    folder: TempDir,
    clock: ManualClock,
    /// Answers of `/test/wait` begin once this is told.
    go: Arc<Notify>,
    /// How many requests have reached `/test/wait`.
    waiting: Arc<Notify>,
}

/// What the tests of the frame ask for, in place of data.
fn routes(go: &Arc<Notify>, waiting: &Arc<Notify>) -> Router<Arc<Shared>> {
    let (go, waiting) = (Arc::clone(go), Arc::clone(waiting));
    let wait = async move || {
        waiting.notify_one();
        go.notified().await;
        "waited"
    };
    let endless = async || {
        let piece = Bytes::from(vec![b'x'; 64 << 10]);
        Body::from_stream(stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone())))
    };
    let rights = async |Extension(caller): Extension<Caller>| {
        let right = |store| caller.right(store).map_or("none", Right::as_str);
        format!("{} {} {}", caller.name().unwrap_or("nobody"), right("orders"), right("archive"))
    };
    let length = async |body: Body| match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => Ok(bytes.len().to_string()),
        Err(error) => Err(BodyError::problem_of(&error)),
    };
    let write = async |State(shared): State<Arc<Shared>>, Extension(caller): Extension<Caller>| {
        caller.store(&shared, "orders", Right::Write).map(|_| "may write")
    };
    Router::new()
        .route("/test/wait", get(wait))
        .route("/test/write", get(write))
        .route("/test/endless", get(endless))
        .route("/test/rights", get(rights))
        .route("/test/length", post(length))
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: ManualClock::new(),
            go: Arc::new(Notify::new()),
            waiting: Arc::new(Notify::new()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The section with these listeners.
    fn config(&self, listeners: &str) -> crate::config::ServeConfig {
        let text = format!(
            "{{ stores: {{ orders: {{ backend: memory }}, archive: {{ backend: memory }} }}, default: orders, serve: {{ listeners: [ {listeners} ] }} }}"
        );
        Config::parse(&text, Format::Yaml, self.path("tierstack.yaml")).unwrap().serve.unwrap()
    }

    /// Listens, with stores that are not open yet.
    async fn listen(&self, listeners: &str) -> crate::Result<Server> {
        let clock = Arc::new(self.clock.clone());
        let routes = routes(&self.go, &self.waiting);
        Server::listen_with(&self.config(listeners), self.folder.path(), clock, &routes).await
    }

    /// Serves two empty stores.
    async fn serve(&self, listeners: &str) -> (Server, SocketAddr) {
        let server = self.listen(listeners).await.unwrap();
        server.open(stores());
        let address = server.addresses().next().flatten();
        (server, address.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap()))
    }

    /// Lets time pass, for what waits by then.
    async fn pass(&self, span: Duration) {
        settle().await;
        self.clock.advance(span);
        settle().await;
    }
}

fn stores() -> Stores {
    let store = || -> Arc<dyn Store> { Arc::new(Memory::new()) };
    Stores::new([("orders", store()), ("archive", store())])
}

/// Until everything that is under way waits: for the clock, or for the other side.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// A problem as RFC 9457 has it, with that status and these words.
    fn refused(self, status: u16, words: &str) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        assert!(self.body.contains(words), "{}", self.body);
        self
    }

    fn ok(self) -> String {
        assert_eq!(self.status, 200, "{}\n{}", self.head, self.body);
        self.body
    }
}

/// Sends bytes as they are, and reads an answer.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: impl AsRef<[u8]>) -> Answer {
    // It may answer, and close, before it has read everything.
    let _ = stream.write_all(bytes.as_ref()).await;
    read(&mut stream).await
}

/// Reads an answer: to its length, or to the end.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if length.is_some_and(|length| body.len() >= length.parse().unwrap()) {
                break;
            }
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// One request over a connection of its own. `more` are lines of the head.
async fn ask(address: SocketAddr, line: &str, more: &[&str]) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    say(stream, request(address, line, more)).await
}

fn request(address: SocketAddr, line: &str, more: &[&str]) -> String {
    let more: String = more.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{line} HTTP/1.1\r\nhost: {address}\r\n{more}\r\n")
}

/// Whether the other side has closed the connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 1024];
    let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut bytes)).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

/// Waits until the other side has closed the connection.
async fn until_closed(stream: &mut TcpStream) {
    let mut bytes = [0; 64 << 10];
    while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
}
