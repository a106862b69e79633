//! Work that waits for the disk, in threads of the runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Result};

/// Runs what blocks in a thread of the runtime. Dropped before a thread has begun it, it is never done;
/// once begun it runs to its end.
pub(super) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let runtime = Handle::try_current().map_err(|error| {
        Error::unsupported("what needs the disk runs in a thread of a tokio runtime, and there is none; call it from within one").with_source(error)
    })?;
    Offloaded(runtime.spawn_blocking(work)).await
}

/// A write that was given up must not wait in a queue while later ones pass it: so dropping calls off.
struct Offloaded<T>(JoinHandle<Result<T>>);

impl<T> Future for Offloaded<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.0).poll(context).map(|joined| {
            joined.unwrap_or_else(|error| {
                Err(if error.is_cancelled() {
                    Error::new(ErrorKind::Closed, "the runtime is shutting down").with_source(error)
                } else {
                    Error::internal("a thread panicked").with_source(error)
                })
            })
        })
    }
}

impl<T> Drop for Offloaded<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
