//! The flusher: one run after the other to the store below, each until it is there.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::counters::{Cause, Flushed};
use super::shared::Shared;
use super::state::Due;
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::types::{Batch, Op};

/// The first pause after a failed attempt; it doubles with each further one, up to the longest. Jitter adds up to as much again.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
/// Operations that are on their way at a time to a store below without atomic batches.
const AT_ONCE: usize = 16;

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There was nothing to flush.
    Idle,
    /// The store below has one run more.
    Flushed,
    /// It does not, and is to be asked again after that pause.
    Failed(Duration),
    /// It refuses the run for good.
    Stopped,
}

/// Flushes what is due.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    seed: u64,
    pauses: ExponentialBackoff,
}

impl Flusher {
    pub(super) fn new(shared: Arc<Shared>, seed: u64) -> Self {
        Self { shared, seed, pauses: pauses(seed) }
    }

    /// Flushes until it is dropped.
    pub(super) async fn run(mut self) {
        let _ended = Ended(Arc::clone(&self.shared));
        let shared = Arc::clone(&self.shared);
        loop {
            let due = {
                let state = shared.state.lock();
                if shared.progress.borrow().stopped.is_some() {
                    Due::Never
                } else {
                    state.due(shared.clock.monotonic())
                }
            };
            match due {
                Due::Now => {
                    if let Step::Failed(pause) = self.step().await {
                        tokio::select! {
                            biased;
                            () = shared.clock.sleep(pause) => {}
                            () = shared.hurry.notified() => {}
                        }
                    }
                }
                Due::In(left) => tokio::select! {
                    biased;
                    () = shared.clock.sleep(left) => {}
                    () = shared.wake.notified() => {}
                },
                Due::Never => shared.wake.notified().await,
            }
        }
    }

    /// Flushes the first run, whether it is due or not.
    pub(super) async fn step(&mut self) -> Step {
        let shared = Arc::clone(&self.shared);
        let begun = {
            // Whatever looks at the overlay and the store below as of one moment is done with both.
            let _alone = shared.gate.write().await;
            let now = shared.clock.now();
            shared.state.lock().begin(now)
        };
        let Some((batch, last)) = begun else { return Step::Idle };
        let (entries, begun) = (batch.len(), shared.clock.monotonic());
        let flushed = shared.flush_run(batch, last).await;
        let flushed = match (flushed, &shared.log) {
            (Err(error), Some(log))
                if !can_pass(&error) && shared.state.lock().failed().is_none() =>
            {
                shared.single_out(log, last).await.map_err(|(batch, error)| (Some(batch), error))
            }
            (flushed, _) => flushed.map_err(|error| (None, error)),
        };
        if let Some(log) = &shared.log {
            shared.counters.journal(log.journal.usage().bytes);
        }
        let (outcome, entries) = match &flushed {
            Ok(()) => (Flushed::Ok, entries),
            Err((_, error)) if can_pass(error) => (Flushed::Failed, 0),
            Err(_) => (Flushed::Refused, 0),
        };
        let took = shared.clock.monotonic().saturating_sub(begun);
        shared.counters.flushed(outcome, entries, took);
        match flushed {
            Ok(()) => {
                self.pauses = pauses(self.seed);
                shared.completed(last).await;
                Step::Flushed
            }
            Err((_, error)) if can_pass(&error) => {
                self.seed = self.seed.wrapping_add(1);
                let pause = self.pauses.next().unwrap_or(LONGEST);
                tracing::warn!(%error, ?pause, "writing back failed, and is tried again");
                shared.progress.send_modify(|progress| {
                    progress.failures += 1;
                    progress.last = Some(error);
                });
                Step::Failed(pause)
            }
            Err((batch, error)) => {
                shared.refused(last, batch, error);
                Step::Stopped
            }
        }
    }
}

fn pauses(seed: u64) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(PAUSE)
        .with_max_delay(LONGEST)
        .without_max_times()
        .with_jitter()
        .with_jitter_seed(seed)
        .build()
}

/// Whether the store below may take later what it does not take now. What it says of the batch itself stays so.
fn can_pass(error: &Error) -> bool {
    error.retry() != Retry::Never
        || matches!(
            error.kind(),
            ErrorKind::Unavailable
                | ErrorKind::Timeout
                | ErrorKind::Capacity
                | ErrorKind::Access
                | ErrorKind::Conflict
                | ErrorKind::Aborted
        )
}

/// No task waits for a flusher that has panicked.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.counters.failed(Cause::Internal);
            self.0.stop(Error::internal("the task that writes back panicked"));
        }
    }
}

impl Shared {
    /// Writes a run below, as durably as the store below can.
    async fn flush_run(&self, batch: Batch, last: u64) -> Result<()> {
        if let Some(log) = &self.log {
            // In the journal first: what it has not is never flushed, and so is never read again without being in it.
            if let Err(error) = log.journal.durable(last).await {
                self.journal_failed(log, &error);
            }
        }
        let atomic = self.profile.guarantees.atomic_batches || batch.len() <= 1;
        if batch.is_empty() {
            // All of it has landed before.
        } else if atomic {
            self.below.write(batch).await?.durable().await?;
        } else {
            self.flush_singly(batch).await?;
        }
        if self.must_sync() {
            self.below.flush().await?;
        }
        Ok(())
    }

    /// Each operation by itself, of different keys and so in any order: what is on its way hides them all. What has landed is
    /// not written again, so that it comes to an end where each attempt fails in part.
    async fn flush_singly(&self, batch: Batch) -> Result<()> {
        let write = |op: Op| async move {
            let key = op.key().clone();
            let written =
                async { self.below.write([op].into_iter().collect()).await?.durable().await };
            (key, written.await)
        };
        let mut writes = stream::iter(batch.into_ops()).map(write).buffer_unordered(AT_ONCE);
        let (mut landed, mut failed): (Vec<Bytes>, Result<()>) = (Vec::new(), Ok(()));
        while let Some((key, written)) = writes.next().await {
            match written {
                Ok(()) => landed.push(key),
                // One that refuses for good counts more than one that is to be tried again.
                Err(error) if failed.is_ok() || !can_pass(&error) => failed = Err(error),
                Err(_) => {}
            }
        }
        drop(writes);
        if failed.is_err() {
            self.state.lock().landed(&self.overlay, &landed);
        }
        failed
    }

    async fn completed(&self, last: u64) {
        {
            let mut state = self.state.lock();
            let before = state.oldest();
            let completed = state.complete(&self.overlay);
            debug_assert_eq!(completed, Some(last), "one flusher");
            self.measure(&mut state, before);
        }
        if let Some(log) = &self.log
            && let Err(error) = log.reader.lock().await.release(last)
        {
            // It is released when it is opened again.
            tracing::warn!(%error, "the journal keeps what was written back");
        }
        self.progress.send_modify(|progress| {
            progress.flushed = last;
            progress.last = None;
        });
        self.room.notify_waiters();
    }
}
