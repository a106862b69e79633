//! A store's share in a backend that several stores use.
//!
//! Closing it ends this store alone: the backend is flushed, and closed with the last store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::ready;
use tokio::sync::watch;

use crate::config::Share;
use crate::error::{Error, Result};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::{Batch, Commit, Identity, Inspection, Profile, Scan, Scope, Usage, Value};
use crate::write_group::write_in_order;

/// A shared backend, as one store has it.
pub(super) struct Lease {
    share: Share,
    closed: Arc<AtomicBool>,
    /// Ends the change feed; separate from `closed`, which costs a read nothing.
    closing: watch::Sender<bool>,
    /// Whether others keep entries in the same part, so that its size is not that of this store.
    in_part: bool,
    profile: Profile,
}

impl Lease {
    pub(super) fn new(share: Share, in_part: bool, profile: Profile) -> Self {
        Self { share, closed: Arc::default(), closing: watch::Sender::new(false), in_part, profile }
    }

    fn open(&self) -> Result<&Arc<dyn Store>> {
        check(&self.closed)?;
        Ok(self.share.store())
    }
}

fn check(closed: &AtomicBool) -> Result<()> {
    if closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
}

/// The pages until the first error, which may be that the store was closed meanwhile.
fn until_closed<'a>(pages: Pages<'a>, closed: Arc<AtomicBool>) -> Pages<'a> {
    let checked = pages.map(move |page| check(&closed).and(page));
    checked
        .scan(false, |ended, page| {
            let next = (!*ended).then_some(page);
            *ended = matches!(next, Some(Err(_)));
            ready(next)
        })
        .boxed()
}

#[deny(clippy::missing_trait_methods)]
impl Read for Lease {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        match self.open() {
            Ok(store) => store.get(key),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        match self.open() {
            Ok(store) => store.get_many(keys),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        match self.open() {
            Ok(store) => until_closed(store.scan(scan), Arc::clone(&self.closed)),
            Err(error) => futures_util::stream::once(ready(Err(error))).boxed(),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Lease {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.open()?.write(batch).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        match self.open() {
            Ok(store) => store.write_group(group).await,
            // Each of them says so.
            Err(_) => write_in_order(self, group).await,
        }
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        self.open()?.ingest(run).await
    }

    async fn changes(&self) -> Result<Changes> {
        let changes = self.open()?.changes().await?;
        let mut closing = self.closing.subscribe();
        let closed = async move {
            // An error: the store is gone, and was closed by that.
            let _ = closing.wait_for(|closing| *closing).await;
        };
        Ok(changes.take_until(Box::pin(closed)).boxed())
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.open()?.invalidate(scope).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        self.open()?.inspect(key).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.open()?.snapshot().await
    }

    async fn flush(&self) -> Result<()> {
        self.open()?.flush().await
    }

    async fn compact(&self) -> Result<()> {
        self.open()?.compact().await
    }

    async fn usage(&self) -> Result<Usage> {
        let usage = self.open()?.usage().await?;
        Ok(if self.in_part { Usage::default() } else { usage })
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.open()?.count(prefix).await
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.closing.send_replace(true);
        self.share.close().await
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    fn identity(&self) -> Option<Identity> {
        self.share.store().identity()
    }
}
