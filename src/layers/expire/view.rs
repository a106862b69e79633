//! Reading entries with a header: of a store now, and of a snapshot at its moment.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;

use super::header;
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::reply::Reply;
use crate::store::{Pages, Read};
use crate::types::{Page, Scan, Value};

/// What is there and has not expired.
pub(super) struct View<S> {
    pub(super) inner: S,
    pub(super) now: Now,
    pub(super) accept_plain: bool,
}

/// Which moment entries are compared with.
pub(super) enum Now {
    Ticking(Arc<dyn Clock>),
    Frozen(Timestamp),
}

impl Now {
    fn read(&self) -> Timestamp {
        match self {
            Self::Ticking(clock) => clock.now(),
            Self::Frozen(at) => *at,
        }
    }
}

impl<S> View<S> {
    /// The value of an entry below, unless it has expired.
    pub(super) fn live(&self, key: &[u8], below: Value) -> Result<Option<Value>> {
        let mut value = header::decode(below.bytes, self.accept_plain)
            .map_err(|error| error.with_layer(header::LAYER).with_key(key))?;
        // An entry from before this layer may have a deadline that the store below keeps.
        value.expires_at = value.expires_at.into_iter().chain(below.expires_at).min();
        // The clock is read only for an entry that can expire.
        let expired = value.expires_at.is_some() && value.is_expired(self.now.read());
        Ok((!expired).then_some(value))
    }

    fn live_page(&self, page: Page, limit: Option<u64>) -> Result<Page> {
        let mut live = Page { entries: Vec::with_capacity(page.len()) };
        for mut entry in page.entries {
            if limit.is_some_and(|limit| live.len() as u64 == limit) {
                break;
            }
            if let Some(value) = self.live(&entry.key, entry.value)? {
                entry.value = value;
                live.entries.push(entry);
            }
        }
        Ok(live)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for View<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.inner.get(key).and_then(move |value| match value {
            Some(value) => self.live(key, value),
            None => Ok(None),
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        self.inner.get_many(keys).and_then(move |values| {
            let live = |(key, value): (&Bytes, Option<Value>)| match value {
                Some(value) => self.live(key, value),
                None => Ok(None),
            };
            keys.iter().zip(values).map(live).collect()
        })
    }

    fn scan(&self, mut scan: Scan) -> Pages<'_> {
        // The store below counts expired entries as well, so it gets no limit: the scan ends when
        // enough live ones have been seen.
        scan.page_entries = scan.next_page_entries();
        let limit = scan.limit.take();
        // The deadlines are in the values.
        let keys_only = std::mem::take(&mut scan.keys_only);
        let pages = (limit != Some(0)).then(|| self.inner.scan(scan));
        futures_util::stream::unfold((pages, limit), move |(pages, mut limit)| async move {
            let mut pages = pages?;
            loop {
                let page = pages.next().await?.and_then(|page| self.live_page(page, limit));
                let page = page.map(|page| if keys_only { page.without_values() } else { page });
                match page {
                    Ok(page) if page.is_empty() => {}
                    Ok(page) => {
                        limit = limit.map(|limit| limit.saturating_sub(page.len() as u64));
                        let pages = (limit != Some(0)).then_some(pages);
                        return Some((Ok(page), (pages, limit)));
                    }
                    Err(error) => return Some((Err(error), (None, limit))),
                }
            }
        })
        .boxed()
    }
}
