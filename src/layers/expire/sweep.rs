//! Removes expired entries.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::header;
use super::locks::KeyLocks;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::types::units::Span;
use crate::types::{Op, Scan, Value};

/// Keys that are locked and deleted at a time.
const CHUNK: usize = 64;

/// What a sweep works with, beside the store.
pub(super) struct Sweeper {
    pub(super) locks: KeyLocks,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) accept_plain: bool,
}

impl Sweeper {
    /// Reads the next page of the scan, moves the scan behind it, and deletes what has expired.
    /// Returns how many entries, and `None` at the end.
    pub(super) async fn step<S: Store>(
        self: &Arc<Self>,
        store: &Arc<S>,
        scan: &mut Scan,
    ) -> Result<Option<u64>> {
        let Some(page) = store.scan(scan.clone()).next().await.transpose()? else {
            return Ok(None);
        };
        let now = self.clock.now();
        if let Some(last) = page.entries.last() {
            scan.resume_after(last.key.clone());
        }
        let expired: Vec<Bytes> = page
            .entries
            .into_iter()
            .filter(|entry| self.decode(&entry.value).is_some_and(|value| value.is_expired(now)))
            .map(|entry| entry.key)
            .collect();
        let mut deleted = 0;
        for keys in expired.chunks(CHUNK) {
            let (sweeper, store, keys) = (Arc::clone(self), Arc::clone(store), keys.to_vec());
            // A task of its own: a delete that was begun keeps its locks when its caller is dropped, or
            // it could arrive after the keys were written anew.
            let runtime = Handle::try_current().map_err(|error| {
                Error::unsupported("sweeping needs a tokio runtime").with_source(error)
            })?;
            deleted += runtime
                .spawn(async move { sweeper.delete_expired(&*store, &keys).await })
                .await
                .map_err(|error| Error::internal("sweeping ended early").with_source(error))??;
        }
        Ok(Some(deleted))
    }

    /// Deletes those of the keys that have expired and that nobody is writing. What was read before
    /// may have been overwritten since, so it is read again under the lock.
    pub(super) async fn delete_expired<S: Store>(&self, store: &S, keys: &[Bytes]) -> Result<u64> {
        let (keys, _alone) = self.locks.try_alone(keys);
        let values = store.get_many(&keys).await?;
        let now = self.clock.now();
        let expired = keys.into_iter().zip(values).filter(|(_, value)| {
            let value = value.as_ref().and_then(|value| self.decode(value));
            value.is_some_and(|value| value.is_expired(now))
        });
        let deletes: Vec<Op> = expired.map(|(key, _)| Op::Delete(key)).collect();
        let at_once = store.profile().guarantees.batch_ops().unwrap_or(CHUNK);
        for deletes in deletes.chunks(at_once) {
            // Writers wait for the locks meanwhile, so nobody waits for durability: a delete that is
            // lost is made again.
            let _acknowledged = store.write(deletes.iter().cloned().collect()).await?;
        }
        Ok(deletes.len() as u64)
    }

    /// A damaged entry is left for whoever reads it.
    fn decode(&self, value: &Value) -> Option<Value> {
        header::decode(value.bytes.clone(), self.accept_plain).ok()
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
