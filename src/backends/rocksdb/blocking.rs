//! Work that blocks, in a thread of the runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};

use crate::error::{Error, ErrorKind, Result};

/// Runs what blocks in a thread of the runtime. Once begun it runs to its end.
pub(super) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn(work)?.await
}

/// Like [`offload`], begun at once.
pub(super) fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<Offloaded<T>> {
    let runtime = Handle::try_current().map_err(|error| {
        Error::unsupported("what needs the disk runs in a thread of a tokio runtime, and there is none; call it from within one").with_source(error)
    })?;
    Ok(Offloaded { task: runtime.spawn_blocking(work), call_off: true })
}

/// Work of a thread that somebody waits for. Dropped before a thread has begun it, it is never done:
/// a write that was given up must not wait in a queue while later ones pass it.
pub(super) struct Offloaded<T> {
    task: JoinHandle<Result<T>>,
    call_off: bool,
}

impl<T> Offloaded<T> {
    /// The same work, done also if no task waits for it any more.
    pub(super) fn in_any_case(mut self) -> Self {
        self.call_off = false;
        self
    }
}

impl<T> Future for Offloaded<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let joined = Pin::new(&mut self.task).poll(context);
        joined.map(|joined| joined.unwrap_or_else(|error| Err(ended(error))))
    }
}

impl<T> Drop for Offloaded<T> {
    fn drop(&mut self) {
        if self.call_off {
            self.task.abort();
        }
    }
}

fn ended(error: JoinError) -> Error {
    if error.is_cancelled() {
        Error::new(ErrorKind::Closed, "the runtime is shutting down").with_source(error)
    } else {
        Error::internal("a thread panicked").with_source(error)
    }
}
