//! A proxy that speaks for its client, and that leads new connections elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Ended when it is dropped.
pub(super) struct Meddler {
    addr: String,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    server: Mutex<String>,
    lines: Mutex<Vec<Arc<Line>>>,
}

struct Line {
    up: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Whether the client asked for changes on it.
    tracks: std::sync::atomic::AtomicBool,
    /// Bytes of answers that the client did not ask for.
    swallow: AtomicUsize,
    pump: Mutex<Option<AbortHandle>>,
}

impl Meddler {
    pub(super) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared { server: Mutex::new(server), lines: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { addr, shared, accepting }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// New connections lead there.
    pub(super) fn lead_to(&self, server: String) {
        *self.shared.server.lock() = server;
    }

    /// Sends a command on the connections with changes, and keeps so many bytes of the answer back.
    pub(super) async fn say(&self, command: &str, answer: usize) {
        let lines = self.lines(true);
        assert!(!lines.is_empty(), "nobody listens");
        for line in lines {
            line.swallow.fetch_add(answer, Ordering::AcqRel);
            line.up.lock().await.write_all(command.as_bytes()).await.unwrap();
        }
    }

    /// Ends the other connections.
    pub(super) fn cut_reads(&self) {
        for line in self.lines(false) {
            if let Some(pump) = line.pump.lock().take() {
                pump.abort();
            }
        }
    }

    fn lines(&self, tracks: bool) -> Vec<Arc<Line>> {
        let lines = self.shared.lines.lock();
        let wanted = |line: &&Arc<Line>| line.tracks.load(Ordering::Acquire) == tracks;
        lines.iter().filter(wanted).cloned().collect()
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.accepting.abort();
        for line in self.shared.lines.lock().drain(..) {
            if let Some(pump) = line.pump.lock().take() {
                pump.abort();
            }
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = shared.server.lock().clone();
        let (mut from, up) = TcpStream::connect(server).await.unwrap().into_split();
        let (mut asks, mut back) = client.into_split();
        let line = Arc::new(Line {
            up: tokio::sync::Mutex::new(up),
            tracks: false.into(),
            swallow: AtomicUsize::new(0),
            pump: Mutex::default(),
        });
        shared.lines.lock().push(Arc::clone(&line));
        let own = Arc::clone(&line);
        let pump = tokio::spawn(async move {
            let asking = async {
                let mut bytes = vec![0; 64 << 10];
                while let Ok(count @ 1..) = asks.read(&mut bytes).await {
                    let text = String::from_utf8_lossy(&bytes[..count]);
                    // Opening tries it, and ends it at once.
                    if text.contains("BCAST") && !text.contains("OFF") {
                        own.tracks.store(true, Ordering::Release);
                    }
                    if own.up.lock().await.write_all(&bytes[..count]).await.is_err() {
                        return;
                    }
                }
            };
            let answering = async {
                let mut bytes = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from.read(&mut bytes).await {
                    let held = own.swallow.load(Ordering::Acquire).min(count);
                    own.swallow.fetch_sub(held, Ordering::AcqRel);
                    if back.write_all(&bytes[held..count]).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! { () = asking => {}, () = answering => {} }
        });
        *line.pump.lock() = Some(pump.abort_handle());
    }
}
