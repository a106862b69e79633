//! The tasks of the socket: one that accepts, one for each connection.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use super::socket::{self, SocketFile};
use super::wire::{Answer, Ask, MAX_LINE, PATIENCE, Request};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::status::{Monitor, Subject};
use crate::store::Store;

/// Any process that can open it may ask: those of its owner.
const MODE: u32 = 0o600;
/// Connections at a time.
const MOST: usize = 32;

/// The pause after a connection could not be accepted: there may be too many files open.
const PAUSE: Duration = Duration::from_millis(100);

/// What is asked for.
pub(super) struct Served {
    pub(super) stores: BTreeMap<String, Arc<dyn Store>>,
    monitor: Monitor,
}

impl Served {
    pub(super) fn new(
        stores: BTreeMap<String, Arc<dyn Store>>,
        subjects: impl IntoIterator<Item = Subject>,
    ) -> Self {
        Self { stores, monitor: Monitor::new(SystemClock::shared(), subjects) }
    }
}

/// Accepts until it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    task: JoinHandle<()>,
    _file: SocketFile,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    pub(super) fn new(path: &Path, served: Served) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::unsupported(
                "the control socket is served by tasks of a tokio runtime, and there is none here",
            )
            .with_source(error)
        })?;
        let (listener, file) =
            socket::bind(path, MODE).map_err(|error| error.with_context("control"))?;
        let listener = UnixListener::from_std(listener)
            .map_err(|error| Error::io("control: the socket cannot be served", error))?;
        let task = runtime.spawn(accept(listener, Arc::new(served)));
        Ok(Self { task, _file: file })
    }
}

async fn accept(listener: UnixListener, served: Arc<Served>) {
    // Dropped with this task, which ends them.
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((mut stream, _)) if connections.len() >= MOST => {
                let busy = Error::new(ErrorKind::Capacity, "too many connections; try again later");
                // As far as it goes without waiting: a new connection has room for this.
                if let Ok(line) = Answer::of(Err(busy)).into_line() {
                    let _ = stream.try_write(&line);
                }
                drop(stream.shutdown().await);
            }
            Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&served)))),
            Err(error) => {
                tracing::warn!(%error, "a connection to the control socket is not accepted");
                SystemClock.sleep(PAUSE).await;
            }
        }
    }
}

/// Answers a connection until it ends, rests too long, or says too much at once.
async fn serve(stream: UnixStream, served: Arc<Served>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE + 1);
        let mut read = std::pin::pin!(read);
        let Some(Ok(1..)) = in_time(read.read_until(b'\n', &mut line)).await else { return };
        let whole = line.last() == Some(&b'\n');
        let too_long = line.len() as u64 > MAX_LINE;
        if !whole && !too_long {
            // The other side has left within a line.
            return;
        }
        let answer = if too_long {
            Err(Error::invalid(format!("the line is longer than {MAX_LINE} bytes")))
        } else {
            answer(&line, &served).await
        };
        let Ok(answer) = Answer::of(answer).into_line() else { return };
        let written = in_time(writer.write_all(&answer)).await;
        if too_long || !matches!(written, Some(Ok(()))) {
            return;
        }
    }
}

async fn answer(line: &[u8], served: &Served) -> Result<Answer> {
    let Request { store: name, ask } = Request::parse(line)?;
    let store = || {
        served.stores.get(&name).ok_or_else(|| {
            let names: Vec<_> = served.stores.keys().map(String::as_str).collect();
            Error::config(format!(
                "this process does not serve such a store; it serves {}",
                names.join(", ")
            ))
        })
    };
    let asked = async {
        match ask {
            Ask::Invalidate(scope) => {
                store()?.invalidate(scope).await.map(|()| Answer::Invalidated)
            }
            Ask::Inspect(key) => store()?.inspect(&key).await.map(Answer::Inspections),
            Ask::Status => Ok(Answer::Status(Box::new(served.monitor.once().await))),
        }
    };
    in_time(asked).await.unwrap_or_else(|| {
        let message = format!("the store gave no answer within {PATIENCE:?}");
        Err(Error::new(ErrorKind::Timeout, message))
    })
}

async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = SystemClock.sleep(PATIENCE) => None,
    }
}
