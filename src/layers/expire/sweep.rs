//! Removes expired entries.

use std::sync::{Arc, Weak};

use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::header;
use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::store::Store;
use crate::types::units::Span;
use crate::types::{Batch, Condition, Entry, Op, Scan, Value};

/// Entries that are deleted at a time.
const CHUNK: usize = 64;

/// What a sweep works with, in addition to the store.
pub(super) struct Sweeper {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) accept_plain: bool,
}

impl Sweeper {
    /// Reads the next page of the scan, moves the scan behind it, and deletes what has expired.
    /// Returns how many entries, and `None` at the end.
    pub(super) async fn step<S: Store>(
        &self,
        store: &Arc<S>,
        scan: &mut Scan,
    ) -> Result<Option<u64>> {
        let Some(page) = store.scan(scan.clone()).next().await.transpose()? else {
            return Ok(None);
        };
        let now = self.clock.now();
        if let Some(last) = page.entries.last() {
            scan.resume_after(&last.key);
        }
        let expired: Vec<Entry> = page
            .entries
            .into_iter()
            .filter(|entry| self.decode(&entry.value).is_some_and(|value| value.is_expired(now)))
            .collect();
        let mut deleted = 0;
        let at_once = store.profile().guarantees.batch_ops().unwrap_or(CHUNK).min(CHUNK);
        for entries in expired.chunks(at_once) {
            if delete(&**store, entries).await? {
                deleted += entries.len() as u64;
            } else if entries.len() > 1 {
                // One of them was written meanwhile; the others have still expired.
                for entry in entries.chunks(1) {
                    deleted += u64::from(delete(&**store, entry).await?);
                }
            }
        }
        Ok(Some(deleted))
    }

    /// A damaged entry is left for a reader to report.
    fn decode(&self, value: &Value) -> Option<Value> {
        header::decode(value.bytes.clone(), self.accept_plain).ok()
    }
}

/// Deletes the entries if all of them are still as they were read, and says whether it did.
async fn delete<S: Store>(store: &S, entries: &[Entry]) -> Result<bool> {
    let deletes = entries.iter().map(|entry| Op::Delete(entry.key.clone()));
    let unchanged =
        entries.iter().map(|entry| Condition::Equals(entry.key.clone(), entry.value.clone()));
    let batch = deletes.collect::<Batch>().with_conditions(unchanged.collect());
    match store.write(batch).await {
        // No task waits for durability: a delete that is lost is made again.
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

/// The task that sweeps every so often.
pub(super) struct Worker {
    stop: watch::Sender<()>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(super) fn spawn<S: Store>(
        runtime: &Handle,
        store: Weak<S>,
        sweeper: Arc<Sweeper>,
        every: Span,
    ) -> Self {
        let (stop, stopped) = watch::channel(());
        let task = runtime.spawn(run(store, sweeper, every, stopped));
        Self { stop, task: Mutex::new(Some(task)) }
    }

    /// Ends the task and waits for the page that it is at.
    pub(super) async fn stop(&self) {
        self.stop.send_replace(());
        let mut task = self.task.lock().await;
        if let Some(running) = task.as_mut()
            && let Err(error) = running.await
        {
            tracing::error!(%error, "the sweeper of expired entries failed");
        }
        *task = None;
    }
}

/// Sweeps until it is told to stop, or the store, which it does not keep alive, is gone.
async fn run<S: Store>(
    store: Weak<S>,
    sweeper: Arc<Sweeper>,
    every: Span,
    mut stopped: watch::Receiver<()>,
) {
    loop {
        tokio::select! {
            biased;
            // An error means that the sender, and with it the layer, is gone.
            _ = stopped.changed() => return,
            () = sweeper.clock.sleep(every.0) => {}
        }
        let (mut scan, mut deleted) = (Scan::all(), 0);
        loop {
            let Some(store) = store.upgrade() else { return };
            match sweeper.step(&store, &mut scan).await {
                Ok(Some(more)) => deleted += more,
                Ok(None) => {
                    tracing::debug!(deleted, "swept expired entries");
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "sweeping expired entries failed; it is tried again in {every}");
                    break;
                }
            }
            drop(store);
            if stopped.has_changed().unwrap_or(true) {
                return;
            }
            // Pages from memory are there at once; others want the thread as well.
            tokio::task::yield_now().await;
        }
    }
}
