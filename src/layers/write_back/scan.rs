//! Pages of a scan: what is dirty over a page of the store below.
//!
//! A page is of one moment. What is dirty is frozen first, then the page below is read; a flush that began in between could show
//! one part of a batch from below, and hide the other under what was frozen. So none begins in between, where something in the range is
//! dirty. Where nothing is, the store below answers alone: all that was acknowledged before is there.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use tokio::task::JoinHandle;

use super::overlay::{Dirty, Frozen};
use super::shared::Shared;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::{Pages, Read};
use crate::types::{Entry, Order, Page, Scan, Value};

/// What is left of a scan.
pub(super) enum Rest {
    Behind(Scan),
    Nothing,
}

/// The next page that is not empty, and what is left behind it.
pub(super) async fn page(
    dirty: &Frozen,
    below: &dyn Read,
    mut scan: Scan,
    now: Timestamp,
) -> Result<Option<(Page, Rest)>> {
    while !scan.is_empty() {
        let (entries, ended) = read_below(below, &scan).await?;
        let merged = Merge { scan: &scan, now, ended }.page(dirty, entries);
        let (page, last) = merged;
        scan.consume(page.len());
        let rest = match last {
            Some(last) if scan.limit != Some(0) => {
                scan.resume_after(last);
                true
            }
            _ => false,
        };
        match (page.is_empty(), rest) {
            (false, true) => return Ok(Some((page, Rest::Behind(scan)))),
            (false, false) => return Ok(Some((page, Rest::Nothing))),
            (true, false) => return Ok(None),
            // All of it is hidden: the next one may have more.
            (true, true) => {}
        }
    }
    Ok(None)
}

/// The first page below, and whether there is nothing behind it.
async fn read_below(below: &dyn Read, scan: &Scan) -> Result<(Vec<Entry>, bool)> {
    let most = scan.next_page_entries();
    let asked = Scan { limit: Some(most as u64), ..scan.clone() };
    let mut pages = below.scan(asked);
    let Some(page) = pages.try_next().await? else { return Ok((Vec::new(), true)) };
    // A page that is full says nothing of what is behind it.
    let short = page.len() < most && page.bytes() < scan.page_bytes;
    let ended = short && pages.try_next().await?.is_none();
    Ok((page.entries, ended))
}

struct Merge<'a> {
    scan: &'a Scan,
    now: Timestamp,
    /// Nothing is below behind the entries.
    ended: bool,
}

impl Merge<'_> {
    /// A page, and the last key that it covers. `None`: it covers the rest of the range.
    fn page(&self, dirty: &Frozen, below: Vec<Entry>) -> (Page, Option<bytes::Bytes>) {
        let covered = below.last().map(|last| last.key.clone()).filter(|_| !self.ended);
        let within = |key: &[u8]| match (&covered, self.scan.order) {
            (None, _) => true,
            (Some(last), Order::Forward) => key <= &**last,
            (Some(last), Order::Reverse) => key >= &**last,
        };
        let mut dirty = dirty.within(self.scan).take_while(|(key, _)| within(key)).peekable();
        let mut below = below.into_iter().peekable();
        let (most, mut bytes, mut page) = (self.scan.next_page_entries(), 0, Page::default());
        let mut last = None;
        while page.is_empty() || page.len() < most && bytes < self.scan.page_bytes {
            let from_below = match (below.peek(), dirty.peek()) {
                (None, None) => return (page, covered),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(entry), Some((key, _))) => match self.scan.order {
                    Order::Forward => entry.key < **key,
                    Order::Reverse => entry.key > **key,
                },
            };
            let entry = if from_below {
                below.next()
            } else {
                dirty.next().and_then(|(key, newest)| {
                    // The same key below is hidden.
                    below.next_if(|entry| entry.key == *key);
                    last = Some(key.clone());
                    self.entry(key, newest)
                })
            };
            if let Some(entry) = entry {
                bytes += entry.key.len() + entry.value.bytes.len();
                last = Some(entry.key.clone());
                page.entries.push(entry);
            }
        }
        match (below.peek(), dirty.peek()) {
            (None, None) => (page, covered),
            _ => (page, last),
        }
    }

    fn entry(&self, key: &bytes::Bytes, newest: &Dirty) -> Option<Entry> {
        let value = newest.found(|| self.now)?;
        let value = if self.scan.keys_only { Value::default() } else { value.clone() };
        Some(Entry { key: key.clone(), value })
    }
}

/// A task that ends when no task waits for it any more.
pub(super) struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    pub(super) fn spawn(shared: &Shared, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(shared.runtime.spawn(work))
    }

    pub(super) async fn done(mut self) -> Result<T> {
        let done = (&mut self.0).await;
        done.map_err(|error| {
            Error::internal("a task of the write-back ended early").with_source(error)
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a scan of the store as it is now has come to.
enum Live<'a> {
    Behind(Scan),
    /// Nothing was dirty in the rest of the range, so what was acknowledged before is all below.
    Below(Pages<'a>),
}

/// A scan of the store as it is now.
pub(super) fn live(shared: &Arc<Shared>, scan: Scan) -> Pages<'_> {
    futures_util::stream::try_unfold(Some(Live::Behind(scan)), move |live| async move {
        shared.check_open()?;
        let mut pages = match live {
            None => return Ok(None),
            Some(Live::Below(pages)) => pages,
            Some(Live::Behind(scan)) => {
                if shared.overlay.with(|dirty| dirty.touches(&scan)) {
                    let next = live_page(shared, scan).await?;
                    return Ok(next.map(|(page, rest)| match rest {
                        Rest::Behind(scan) => (page, Some(Live::Behind(scan))),
                        Rest::Nothing => (page, None),
                    }));
                }
                shared.below.scan(scan)
            }
        };
        Ok(pages.try_next().await?.map(|page| (page, Some(Live::Below(pages)))))
    })
    .boxed()
}

/// In a task of its own: a caller that stops polling must not hold up the flushes.
async fn live_page(shared: &Arc<Shared>, scan: Scan) -> Result<Option<(Page, Rest)>> {
    let own = Arc::clone(shared);
    let work = async move {
        let _together = own.gate.read().await;
        let dirty = own.overlay.freeze();
        page(&dirty, &*own.below, scan, own.clock.now()).await
    };
    Task::spawn(shared, work).done().await?
}
