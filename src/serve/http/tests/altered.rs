//! A store in memory that guarantees something else, and counts the pages that were read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::backends::Memory;
use crate::error::{Error, ErrorKind, Result};
use crate::forward;
use crate::reply::Reply;
use crate::store::{Change, Changes, Pages, Read, Store};
use crate::types::{Batch, Commit, Guarantees, Profile, Scan, Value};

#[derive(Clone)]
pub(super) struct Altered {
    pub(super) memory: Arc<Memory>,
    guarantees: Arc<dyn Fn(&mut Guarantees) + Send + Sync>,
    /// Pages of scans so far.
    pub(super) pages: Arc<AtomicUsize>,
    /// What is reported to a subscriber.
    changes: Arc<Mutex<Option<mpsc::UnboundedReceiver<Change>>>>,
    /// When a write is durable, or that it never will be.
    kept: Option<watch::Receiver<Option<bool>>>,
}

impl Altered {
    pub(super) fn new(guarantees: impl Fn(&mut Guarantees) + Send + Sync + 'static) -> Self {
        Self {
            memory: Arc::new(Memory::new()),
            guarantees: Arc::new(guarantees),
            pages: Arc::default(),
            changes: Arc::default(),
            kept: None,
        }
    }

    /// One whose writes are kept, or lost, when that is sent here.
    pub(super) fn kept_later() -> (Self, watch::Sender<Option<bool>>) {
        let (send, kept) = watch::channel(None);
        (Self { kept: Some(kept), ..Self::new(|_| ()) }, send)
    }

    /// One that reports what is sent here.
    pub(super) fn announcing() -> (Self, mpsc::UnboundedSender<Change>) {
        let (send, receive) = mpsc::unbounded_channel();
        let store = Self::new(|_| ());
        *store.changes.lock() = Some(receive);
        (store, send)
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for Altered {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.memory.get(key)
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        self.memory.get_many(keys)
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        if !self.profile().guarantees.ordered_scans {
            let error = Error::unsupported("this store has no order of keys");
            return futures_util::stream::iter([Err(error)]).boxed();
        }
        let count = |_: &_| {
            self.pages.fetch_add(1, Ordering::Relaxed);
        };
        self.memory.scan(scan).inspect(count).boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Altered {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.profile().guarantees.check_batch(&batch)?;
        let commit = self.memory.write(batch).await?;
        let Some(mut kept) = self.kept.clone() else { return Ok(commit) };
        Ok(Commit::at(7).durable_after(async move {
            match kept.wait_for(Option::is_some).await.ok().and_then(|kept| *kept) {
                Some(true) => Ok(()),
                _ => Err(Error::new(ErrorKind::Unavailable, "the disk is gone")),
            }
        }))
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        crate::write_group::write_in_order(self, group).await
    }

    async fn changes(&self) -> Result<Changes> {
        let changes = self.changes.lock().take();
        let changes = changes.ok_or_else(|| Error::unsupported("there is no change feed here"))?;
        let next = |mut changes: mpsc::UnboundedReceiver<Change>| async {
            Some((changes.recv().await?, changes))
        };
        Ok(futures_util::stream::unfold(changes, next).boxed())
    }

    fn profile(&self) -> Profile {
        self.memory.profile().changed(|guarantees| (self.guarantees)(guarantees))
    }

    forward!(self => self.memory; ingest, invalidate, inspect, snapshot, flush, compact, usage, count, close, identity);
}
