//! Ctrl-C: the first asks for an orderly end, the second ends at once.

use std::future::Future;
use std::io::Write;

use tokio::sync::watch;

use crate::failure::{Failure, Outcome};

/// Whether somebody asked the command to stop.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens to ctrl-C and, on Unix, to the request to terminate.
    pub(crate) fn listen() -> Self {
        let (tell, stop) = watch::channel(false);
        tokio::spawn(async move {
            if !next_signal().await {
                return std::future::pending().await;
            }
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "stopping in good order; once more ends at once");
            // Without a receiver the command is over.
            let _ = tell.send(true);
            if next_signal().await {
                std::process::exit(130);
            }
        });
        Self(stop)
    }

    /// Whether it was asked for.
    pub(crate) fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is asked for.
    pub(crate) async fn wait(&self) {
        let mut stop = self.0.clone();
        if stop.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The result of the work, or that it was stopped; then the work is dropped.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            biased;
            () = self.wait() => Err(Failure::stopped("what was under way may or may not have happened")),
            done = work => done,
        }
    }
}

/// Returns once a signal arrived; `false` if signals cannot be received.
#[cfg(unix)]
async fn next_signal() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return tokio::signal::ctrl_c().await.is_ok();
    };
    tokio::select! {
        _ = terminate.recv() => true,
        result = tokio::signal::ctrl_c() => result.is_ok(),
    }
}

/// Returns once a signal arrived; `false` if signals cannot be received.
#[cfg(not(unix))]
async fn next_signal() -> bool {
    tokio::signal::ctrl_c().await.is_ok()
}
