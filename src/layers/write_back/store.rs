//! The operations.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::commit::check_reserved;
use super::config::NAME;
use super::overlay::Dirty;
use super::scan::{Task, live};
use super::shared::Shared;
use super::view::{View, many};
use crate::error::{Error, Result};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::units::{ByteSize, Span, counted};
use crate::types::{
    Batch, Commit, Identity, Inspection, Presence, Profile, Scan, Scope, Usage, Value,
};

/// A store whose writes are acknowledged before the store below has them. See the [module docs](super).
pub struct WriteBack {
    pub(super) shared: Arc<Shared>,
    pub(super) flusher: Mutex<Option<JoinHandle<()>>>,
    /// One `close` at a time. Whether one has come to its end.
    pub(super) closing: tokio::sync::Mutex<bool>,
}

impl WriteBack {
    /// Waits until the store below has all that is visible now.
    async fn drain(&self) -> Result<()> {
        let visible = {
            let state = self.shared.state.lock();
            if let Some(error) =
                state.failed().filter(|_| self.shared.progress.borrow().stopped.is_some())
            {
                return Err(error.clone());
            }
            state.visible
        };
        self.shared.flushed(visible, false).await
    }

    /// Takes nothing any more, and brings what it has to the store below, as far as that takes it in time.
    async fn end(&self) -> Result<()> {
        let shared = &self.shared;
        shared.progress.send_modify(|progress| progress.closing = true);
        shared.state.lock().closing = true;
        shared.room.notify_waiters();
        // A batch that is in the section has its place, or fails.
        let last = {
            let _section = shared.section.lock().await;
            shared.state.lock().last_given()
        };
        let mut drained = match last {
            Some(last) => shared.durable(last).await,
            None => Ok(()),
        };
        let visible = {
            let state = shared.state.lock();
            // Nothing was written, and what an earlier process left is not this one's to bring below.
            if state.rests { state.flushed } else { state.visible }
        };
        shared.hurry.notify_one();
        let flushed = tokio::select! {
            biased;
            flushed = shared.flushed(visible, true) => flushed,
            () = shared.clock.sleep(shared.config.max_wait.0) => {
                let last = shared.progress.borrow().last.clone();
                Err(last.unwrap_or_else(|| Error::new(crate::error::ErrorKind::Timeout, "the store below is too slow")))
            }
        };
        if let Err(error) = flushed {
            drained = Err(self.left(error));
        }
        if let (Ok(()), Some(failed)) = (&drained, shared.state.lock().failed()) {
            drained = Err(failed.clone());
        }
        drained
    }

    /// What the store below does not have.
    fn left(&self, error: Error) -> Error {
        let entries = self.shared.overlay.entries();
        let bytes = ByteSize(self.shared.state.lock().dirty);
        let kept = match self.shared.log {
            Some(_) => "they are in the journal, and are written when the stack is opened again",
            None => "they are lost, as there is no journal",
        };
        error.with_context(format!(
            "closed before the store below had everything: {} of {bytes} are left; {kept}",
            counted(entries, "entry", "entries")
        ))
    }
}

/// Snapshots and commits outlive the store: what they hold keeps neither the folder of the journal nor a caller that waits.
impl Drop for WriteBack {
    fn drop(&mut self) {
        self.shared.stand_still();
        if let Some(log) = &self.shared.log {
            // Its first poll lets the journal write what it has, and give up the folder.
            let _ = log.journal.close().now_or_never();
        }
        if let Some(flusher) = self.flusher.lock().take() {
            flusher.abort();
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for WriteBack {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        let shared = &*self.shared;
        if let Err(error) = shared.check_open().and_then(|()| check_reserved(key)) {
            return Reply::Now(Err(error));
        }
        match shared.overlay.look(key, |dirty| dirty.found(|| shared.clock.now()).cloned()) {
            Some(found) => Reply::ready(found),
            None => shared.below.get(key),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let shared = &*self.shared;
        let reserved = || keys.iter().try_for_each(|key| check_reserved(key));
        if let Err(error) = shared.check_open().and_then(|()| reserved()) {
            return Reply::Now(Err(error));
        }
        if !keys.iter().any(|key| shared.overlay.may_have(key)) {
            return shared.below.get_many(keys);
        }
        let found = |dirty: &Dirty| dirty.found(|| shared.clock.now()).cloned();
        let found =
            shared.overlay.with(|map| keys.iter().map(|key| map.get(key).map(found)).collect());
        many(&*shared.below, keys, found)
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        live(&self.shared, scan)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for WriteBack {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        // A task that only writes lets the others of its thread run.
        tokio::task::coop::consume_budget().await;
        match self.shared.at_once(&batch) {
            Some(done) => done,
            // Apart, as it is large.
            None => Box::pin(self.shared.write(&batch)).await,
        }
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        self.shared.write_group(&group).await
    }

    /// Past the journal, a run could be replaced by what a replay brings below again, and by a flush that is under way.
    async fn ingest(&self, _: Pages<'_>) -> Result<u64> {
        self.shared.check_open()?;
        Err(Error::unsupported(
            "write_back takes batches only; load the run in batches, as `StoreExt::load` does",
        )
        .with_layer(NAME))
    }

    /// A change of a key that is dirty is reported too: it was there, and what is dirty will replace it.
    async fn changes(&self) -> Result<Changes> {
        self.shared.check_open()?;
        self.shared.below.changes().await
    }

    /// What is dirty is newer than anything that is kept below, and stays.
    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.shared.check_open()?;
        self.shared.below.invalidate(scope).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let shared = &*self.shared;
        shared.check_open()?;
        check_reserved(key)?;
        let place = if shared.log.is_some() { "journal" } else { "memory" };
        let now = shared.clock.monotonic();
        let seen = shared.overlay.look(key, |dirty| {
            let inspection = Inspection::of_entry(NAME, place, dirty.value.as_ref());
            let presence = match dirty.value {
                Some(_) => Presence::Entry,
                None => Presence::Absence,
            };
            let age = Some(Span(now.saturating_sub(dirty.since)));
            let sequence = Some(dirty.sequence);
            Inspection { presence, age, dirty: Some(true), sequence, ..inspection }
        });
        let clean = || Inspection { dirty: Some(false), ..Inspection::none(NAME, place) };
        let is_dirty = seen.is_some();
        let mut inspections = vec![seen.unwrap_or_else(clean)];
        match shared.below.inspect(key).await {
            Ok(mut below) => inspections.append(&mut below),
            // What is dirty is known, as it is to a read; of the places below nothing is said.
            Err(_) if is_dirty => {}
            Err(error) => return Err(error),
        }
        Ok(inspections)
    }

    /// In a task of its own: a caller that stops polling must not hold up the flushes.
    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.shared.check_open()?;
        let own = Arc::clone(&self.shared);
        let work = async move {
            let together = own.gate.read().await;
            // Read first: what a reader saw expire before this call must not come back in the view.
            let now = own.clock.now();
            let dirty = own.overlay.freeze();
            let below = own.below.snapshot().await?;
            drop(together);
            Ok::<Arc<dyn Read>, Error>(Arc::new(View {
                shared: Arc::clone(&own),
                dirty,
                below,
                now,
            }))
        };
        Task::spawn(&self.shared, work).done().await?
    }

    async fn flush(&self) -> Result<()> {
        self.shared.check_open()?;
        self.drain().await?;
        let flushed = self.shared.below.flush().await;
        match self.shared.state.lock().failed() {
            Some(error) => Err(error.clone()),
            None => flushed,
        }
    }

    /// What is dirty goes below first, so that what it deletes and replaces is reclaimed.
    async fn compact(&self) -> Result<()> {
        self.shared.check_open()?;
        self.drain().await?;
        self.shared.below.compact().await
    }

    async fn usage(&self) -> Result<Usage> {
        self.shared.check_open()?;
        let usage = self.shared.below.usage().await?;
        let dirty = self.shared.state.lock().dirty;
        let journal = self.shared.log.as_ref().map(|log| log.journal.usage().bytes);
        let add = |known: Option<u64>, more: u64| {
            if more == 0 { known } else { Some(known.unwrap_or(0) + more) }
        };
        Ok(Usage {
            // A guess, as nobody knows which of the dirty ones are below too.
            entries: usage.entries.map(|below| below.max(self.shared.overlay.entries() as u64)),
            memory_bytes: add(usage.memory_bytes, dirty),
            stored_bytes: match (usage.stored_bytes, journal) {
                (Some(known), Some(journal)) => Some(known + journal),
                (known, _) => known,
            },
        })
    }

    /// What is dirty goes below first, where it is counted. What only reads brings nothing there, and counts nothing.
    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.shared.check_open()?;
        if self.shared.state.lock().rests && !self.shared.overlay.is_empty() {
            return Ok(None);
        }
        self.drain().await?;
        self.shared.below.count(prefix).await
    }

    async fn close(&self) -> Result<()> {
        let mut closed = self.closing.lock().await;
        if *closed {
            return Ok(());
        }
        let ended = self.end().await;
        self.shared.end();
        let flusher = self.flusher.lock().take();
        if let Some(flusher) = flusher {
            flusher.abort();
            // An error means that it was ended, as was asked.
            let _ = flusher.await;
        }
        let journal = match &self.shared.log {
            Some(log) => log.journal.close().await,
            None => Ok(()),
        };
        let below = self.shared.below.close().await;
        *closed = true;
        ended.and(journal.map_err(|error| error.with_layer(NAME))).and(below)
    }

    fn profile(&self) -> Profile {
        self.shared.profile.clone()
    }

    fn identity(&self) -> Option<Identity> {
        self.shared.below.identity()
    }
}
