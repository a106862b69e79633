//! What a store can do wrong when it is asked for keys only.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::broken::{Broken, Bug};
use crate::forward;
use crate::store::{Pages, Read};
use crate::types::{Entry, Page, Scan, Value};

/// What the memory is asked for in place of a scan of keys only.
pub(super) fn ask(bug: Bug, scan: &mut Scan) {
    match bug {
        // These are distorted below.
        Bug::KeysComeWithValues | Bug::KeysComeWithDeadlines | Bug::KeysOfEmptyValuesAreLeftOut => {
            scan.keys_only = false;
        }
        Bug::KeysGoOnBehindTheirPage => {
            (scan.page_entries, scan.page_bytes) = (usize::MAX, usize::MAX);
        }
        _ => {}
    }
}

/// What becomes of its pages.
pub(super) fn answer<'a>(bug: Bug, store: &'a Broken, asked: &Scan, pages: Pages<'a>) -> Pages<'a> {
    match bug {
        Bug::KeysComeWithDeadlines => pages
            .map_ok(|mut page| {
                page.entries.iter_mut().for_each(|entry| entry.value.bytes.clear());
                page
            })
            .boxed(),
        Bug::KeysOfEmptyValuesAreLeftOut => pages
            .map_ok(|mut page| {
                page.entries.retain(|entry| !entry.value.bytes.is_empty());
                page.without_values()
            })
            .try_filter(|page| std::future::ready(!page.is_empty()))
            .boxed(),
        Bug::KeysOfExpiredEntriesAppear => {
            let before = store.before.lock().clone().into_iter();
            let expired = before.filter(|(key, value)| {
                let now = crate::clock::Clock::now(&store.clock);
                asked.contains(key) && value.as_ref().is_some_and(|value| value.is_expired(now))
            });
            let entries = expired.map(|(key, _)| Entry { key, value: Value::default() });
            let more: Vec<_> = entries.map(|entry| Ok(Page { entries: vec![entry] })).collect();
            pages.chain(stream::iter(more)).boxed()
        }
        _ => pages,
    }
}

/// A snapshot that asks the store for keys.
pub(super) struct ListsNow<R, S> {
    pub(super) frozen: R,
    pub(super) store: S,
}

impl<R: Read, S: Read> Read for ListsNow<R, S> {
    fn scan(&self, scan: Scan) -> Pages<'_> {
        if scan.keys_only { self.store.scan(scan) } else { self.frozen.scan(scan) }
    }

    forward!(self => self.frozen; get, get_many);
}
