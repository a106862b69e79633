//! Ctrl-C: the first asks for an orderly end, the last ends at once.

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::failure::{Failure, Outcome};

/// How often somebody asked the command to stop.
#[derive(Clone)]
pub(crate) struct Shutdown {
    asked: watch::Receiver<u32>,
    /// Whether the command has come to listen. Before that it has opened nothing, and may hang in a read of its
    /// config.
    heard: Arc<AtomicBool>,
}

impl Shutdown {
    /// Listens to ctrl-C and, on Unix, to the request to terminate. The last of so many ends at once.
    pub(crate) fn listen(last: u32) -> Self {
        let (tell, asked) = watch::channel(0);
        let stop = Self { asked, heard: Arc::default() };
        let heard = Arc::clone(&stop.heard);
        // Before anything else, so that no signal finds the process unprepared.
        let mut signals = Signals::new();
        tokio::spawn(async move {
            for asked in 1..=last {
                if !signals.next().await {
                    return std::future::pending().await;
                }
                if asked == last {
                    std::process::exit(130);
                }
                if !heard.load(Ordering::Acquire) {
                    let stopped =
                        Failure::stopped("nothing was opened yet, and nothing was written");
                    let _ = write!(std::io::stderr(), "{stopped}");
                    std::process::exit(1);
                }
                let next = if asked + 1 == last { "ends at once" } else { "is faster" };
                // A closed standard error leaves no caller to tell.
                let _ = writeln!(std::io::stderr(), "shutting down gracefully; once more {next}");
                // Without a receiver the command is over.
                let _ = tell.send(asked);
            }
        });
        stop
    }

    /// From now on a task that waits is told of a request.
    pub(crate) fn hear(&self) {
        self.heard.store(true, Ordering::Release);
    }

    /// Whether it was asked for.
    pub(crate) fn requested(&self) -> bool {
        self.hear();
        *self.asked.borrow() > 0
    }

    /// Returns once it is asked for.
    pub(crate) async fn wait(&self) {
        self.asked(1).await;
    }

    /// Returns once it is asked for a second time.
    #[cfg(feature = "serve")]
    pub(crate) async fn hurry(&self) {
        self.asked(2).await;
    }

    async fn asked(&self, times: u32) {
        self.hear();
        let mut stop = self.asked.clone();
        if stop.wait_for(|asked| *asked >= times).await.is_err() {
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

/// The signals that ask for the end. Between two of them none is lost.
struct Signals {
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
    #[cfg(unix)]
    interrupt: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self {
            terminate: signal(SignalKind::terminate()).ok(),
            interrupt: signal(SignalKind::interrupt()).ok(),
        }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Self {}
    }

    /// Returns once a signal arrived; `false` if signals cannot be received.
    #[cfg(unix)]
    async fn next(&mut self) -> bool {
        match (&mut self.terminate, &mut self.interrupt) {
            (Some(terminate), Some(interrupt)) => tokio::select! {
                got = terminate.recv() => got.is_some(),
                got = interrupt.recv() => got.is_some(),
            },
            (Some(one), None) | (None, Some(one)) => one.recv().await.is_some(),
            (None, None) => false,
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> bool {
        tokio::signal::ctrl_c().await.is_ok()
    }
}
