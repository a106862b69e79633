//! Reading a source of connections: how the store and its snapshots read.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use rusqlite::Connection;

use super::error::{NAME, is_busy};
use super::pool::{Base, Source};
use super::rows::{self, Miss};
use crate::error::{Error, Operation, Result};
use crate::reply::Reply;
use crate::store::{Pages, Read};
use crate::types::{Page, Scan, Value, check_key};

/// Keys that one call looks up on the caller's thread at most, in about 50 µs.
const INLINE_KEYS: usize = 16;

pub(super) struct Reader<S>(pub(super) Arc<S>);

impl<S: Source> Reader<S> {
    fn base(&self) -> &Base {
        self.0.base()
    }

    fn check(&self, key: &[u8]) -> Result<()> {
        check_key(key)?;
        // What a restore looks for in every store is in no row.
        let own = &self.base().layout.key;
        if own.is_mark(key) { Ok(()) } else { own.check(key) }
    }

    /// The answer, unless it may take long or a lock is in the way.
    fn at_once<T>(
        &self,
        operation: Operation,
        parts: usize,
        work: impl FnOnce(&Connection) -> Result<T, Miss>,
    ) -> Option<Result<T>> {
        if !self.base().pace.is_fast() {
            return None;
        }
        match self.0.at_once(|db| self.base().timed(parts, || work(db)))? {
            Err(Miss::Engine(error)) if is_busy(&error) => None,
            done => Some(done.map_err(|miss| miss.during(operation))),
        }
    }

    async fn in_thread<T: Send + 'static>(
        &self,
        operation: Operation,
        parts: usize,
        work: impl FnOnce(&Connection, &S) -> Result<T, Miss> + Send + 'static,
    ) -> Result<T> {
        let source = Arc::clone(&self.0);
        let work = move |db: &Connection| {
            let done = source.base().timed(parts, || work(db, &source));
            done.map_err(|miss| miss.during(operation))
        };
        Arc::clone(&self.0).in_thread(work).await
    }

    fn alive(&self, value: Option<Value>) -> Option<Value> {
        // The clock is read only for an entry that can expire.
        value.filter(|value| value.expires_at.is_none() || !value.is_expired(self.0.now()))
    }

    async fn page(&self, scan: Scan) -> Result<(Page, bool)> {
        let parts = scan.next_page_entries();
        self.in_thread(Operation::Scan, parts, move |db, source| {
            rows::page(db, &source.base().layout, &scan, || source.now())
        })
        .await
    }
}

impl<S: Source> Reader<S> {
    pub(super) async fn count(&self, prefix: &[u8]) -> Result<u64> {
        let scan = Scan::prefix(prefix);
        let work = move |db: &Connection, source: &S| {
            rows::count(db, &source.base().layout, &scan, source.now())
        };
        // As slow as the table is large: it tells nothing about other reads.
        self.in_thread(Operation::Usage, usize::MAX, work).await
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Source> Read for Reader<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        if let Err(error) = self.check(key).and_then(|()| self.base().check_open()) {
            return Reply::Now(Err(error));
        }
        let now = self.at_once(Operation::Get, 1, |db| rows::get(db, &self.base().layout, key));
        match now {
            Some(value) => Reply::Now(value.map(|value| self.alive(value))),
            None => Reply::later(async move {
                let wanted = Bytes::copy_from_slice(key);
                let work = move |db: &Connection, source: &S| {
                    rows::get(db, &source.base().layout, &wanted)
                };
                let value = self.in_thread(Operation::Get, 1, work).await;
                value.map(|value| self.alive(value))
            }),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let checked = keys.iter().try_for_each(|key| self.check(key));
        if let Err(error) = checked.and_then(|()| self.base().check_open()) {
            return Reply::Now(Err(error));
        }
        let alive =
            |values: Vec<_>| values.into_iter().map(|value| self.alive(value)).collect::<Vec<_>>();
        if keys.len() <= INLINE_KEYS {
            let work = |db: &Connection| rows::get_many(db, &self.base().layout, keys);
            if let Some(values) = self.at_once(Operation::GetMany, keys.len(), work) {
                return Reply::Now(values.map(alive));
            }
        }
        Reply::later(async move {
            let (wanted, parts) = (keys.to_vec(), keys.len());
            let work = move |db: &Connection, source: &S| {
                rows::get_many(db, &source.base().layout, &wanted)
            };
            self.in_thread(Operation::GetMany, parts, work).await.map(alive)
        })
    }

    /// Each page is a query of its own, so that an idle scan holds neither a connection nor the log.
    fn scan(&self, scan: Scan) -> Pages<'_> {
        if let Some(why) = &self.base().layout.no_scans {
            let error =
                Error::unsupported(why.clone()).with_operation(Operation::Scan).with_layer(NAME);
            return futures_util::stream::once(std::future::ready(Err(error))).boxed();
        }
        unfold((scan, true), move |(mut scan, more)| async move {
            if !more || scan.is_empty() {
                return None;
            }
            match self.page(scan.clone()).await {
                Ok((page, more)) => {
                    scan.resume_after(page.entries.last()?.key.clone());
                    scan.consume(page.len());
                    Some((Ok(page), (scan, more)))
                }
                Err(error) => Some((Err(error), (scan, false))),
            }
        })
        .boxed()
    }
}
