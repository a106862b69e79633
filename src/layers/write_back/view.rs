//! A moment: what was dirty over a snapshot of the store below.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;

use super::overlay::{Dirty, Frozen};
use super::scan::{Rest, page};
use super::shared::Shared;
use crate::clock::Timestamp;
use crate::reply::Reply;
use crate::store::{Pages, Read};
use crate::types::{Scan, Value};

/// See [`Store::snapshot`](crate::Store::snapshot).
pub(super) struct View {
    pub(super) shared: Arc<Shared>,
    pub(super) dirty: Frozen,
    pub(super) below: Arc<dyn Read>,
    pub(super) now: Timestamp,
}

/// The values of several keys, each from what is dirty (`Some`), or else from below.
pub(super) fn many<'a>(
    below: &'a dyn Read,
    keys: &'a [Bytes],
    found: Vec<Option<Option<Value>>>,
) -> Reply<'a, Vec<Option<Value>>> {
    let clean: Vec<Bytes> = keys
        .iter()
        .zip(&found)
        .filter(|(_, found)| found.is_none())
        .map(|(key, _)| key.clone())
        .collect();
    if clean.len() == keys.len() {
        return below.get_many(keys);
    }
    if clean.is_empty() {
        return Reply::ready(found.into_iter().map(Option::flatten).collect());
    }
    Reply::later(async move {
        let mut below = below.get_many(&clean).await?.into_iter();
        Ok(found.into_iter().map(|found| found.or_else(|| below.next()).flatten()).collect())
    })
}

#[deny(clippy::missing_trait_methods)]
impl Read for View {
    /// Closed with the store, also where what is asked for is dirty: or one view would answer in part.
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        if let Err(closed) = self.shared.check_open() {
            return Reply::Now(Err(closed));
        }
        match self.dirty.get(key) {
            Some(dirty) => Reply::ready(dirty.found(|| self.now).cloned()),
            None => self.below.get(key),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        if let Err(closed) = self.shared.check_open() {
            return Reply::Now(Err(closed));
        }
        let found = |dirty: &Dirty| dirty.found(|| self.now).cloned();
        let found = keys.iter().map(|key| self.dirty.get(key).map(found)).collect();
        many(&*self.below, keys, found)
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        if let Err(closed) = self.shared.check_open() {
            return futures_util::stream::once(async { Err(closed) }).boxed();
        }
        if !self.dirty.touches(&scan) {
            return self.below.scan(scan);
        }
        futures_util::stream::try_unfold(Rest::Behind(scan), move |rest| async move {
            self.shared.check_open()?;
            let Rest::Behind(scan) = rest else { return Ok(None) };
            page(&self.dirty, &*self.below, scan, self.now).await
        })
        .boxed()
    }
}
