//! A scan of what a transaction reads from, with its own writes over it.

use std::collections::VecDeque;
use std::iter::Peekable;

use bytes::Bytes;
use futures_util::StreamExt;

use super::read_set::Seen;
use super::writes::Latest;
use crate::error::Result;
use crate::store::{Pages, Read};
use crate::types::{Entry, Order, Page, Scan, Value};

type Own<'a> = Peekable<Box<dyn Iterator<Item = (&'a Bytes, &'a Option<Value>)> + Send + 'a>>;

/// The entries of `base` and of the own writes, of which the latter hide the former. What `base` contributes is
/// noted in `seen`.
pub(super) fn merged<'a>(
    base: &'a dyn Read,
    own: &'a Latest,
    scan: Scan,
    seen: Option<&'a Seen>,
) -> Pages<'a> {
    // A range that ends before it starts is refused by the map, with a panic.
    if scan.is_empty() {
        return base.scan(scan);
    }
    let range = || own.range::<Bytes, _>((scan.from.as_ref(), scan.to.as_ref()));
    if seen.is_none() && range().next().is_none() {
        return base.scan(scan);
    }
    let entries: Box<dyn Iterator<Item = _> + Send> = match scan.order {
        Order::Forward => Box::new(range()),
        Order::Reverse => Box::new(range().rev()),
    };
    // Each delete may hide an entry; a put that hides one is one.
    let deletes = || range().filter(|(_, value)| value.is_none()).count() as u64;
    let limit = scan.limit.map(|limit| limit.saturating_add(deletes()));
    // What a commit relies on has values.
    let keys_only = scan.keys_only && seen.is_none();
    let pages = base.scan(Scan { limit, keys_only, ..scan.clone() });
    let merge =
        Merge { pages, own: entries.peekable(), scan, seen, ready: VecDeque::new(), ended: false };
    futures_util::stream::unfold(merge, |mut merge| async move {
        merge.next().await.map(|page| (page, merge))
    })
    .boxed()
}

struct Merge<'a> {
    pages: Pages<'a>,
    own: Own<'a>,
    /// What is left to give; the range is that of the whole scan.
    scan: Scan,
    seen: Option<&'a Seen>,
    /// Pages of which each is of one page of the base, and so of one moment.
    ready: VecDeque<Page>,
    ended: bool,
}

impl Merge<'_> {
    async fn next(&mut self) -> Option<Result<Page>> {
        loop {
            if let Some(page) = self.ready.pop_front() {
                return Some(Ok(page));
            }
            if self.ended || self.scan.limit == Some(0) {
                return None;
            }
            match self.pages.next().await {
                Some(Ok(page)) => self.merge(page),
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => {
                    self.ended = true;
                    self.rest();
                }
            }
        }
    }

    /// Makes pages of a page of the base, and of the own writes up to its end.
    fn merge(&mut self, base: Page) {
        let mut cut = Cut { scan: &mut self.scan, pages: &mut self.ready, bytes: None };
        for entry in base.entries {
            while let Some((key, value)) =
                self.own.next_if(|(key, _)| before(cut.order(), key, &entry.key))
            {
                cut.give_own(key, value.as_ref());
            }
            if let Some((key, value)) = self.own.next_if(|(key, _)| **key == entry.key) {
                cut.give_own(key, value.as_ref());
            } else if cut.scan.limit != Some(0) {
                if let Some(seen) = self.seen {
                    seen.note_entry(&entry);
                }
                cut.give(entry);
            }
        }
    }

    /// Makes pages of the own writes that are behind the last page of the base.
    fn rest(&mut self) {
        let mut cut = Cut { scan: &mut self.scan, pages: &mut self.ready, bytes: None };
        for (key, value) in self.own.by_ref() {
            cut.give_own(key, value.as_ref());
        }
    }
}

fn before(order: Order, key: &Bytes, other: &Bytes) -> bool {
    match order {
        Order::Forward => key < other,
        Order::Reverse => key > other,
    }
}

/// Cuts entries into pages of the size that was asked for.
struct Cut<'a> {
    scan: &'a mut Scan,
    pages: &'a mut VecDeque<Page>,
    /// Of the last page, as long as it may grow.
    bytes: Option<usize>,
}

impl Cut<'_> {
    const fn order(&self) -> Order {
        self.scan.order
    }

    fn give_own(&mut self, key: &Bytes, value: Option<&Value>) {
        if let Some(value) = value {
            self.give(Entry { key: key.clone(), value: value.clone() });
        }
    }

    fn give(&mut self, mut entry: Entry) {
        if self.scan.limit == Some(0) {
            return;
        }
        if self.scan.keys_only {
            entry.value = Value::default();
        }
        self.scan.consume(1);
        let size = entry.key.len() + entry.value.bytes.len();
        let bytes = self.bytes.unwrap_or(0) + size;
        let length = match (self.bytes, self.pages.back_mut()) {
            (Some(_), Some(page)) => {
                page.entries.push(entry);
                page.len()
            }
            _ => {
                self.pages.push_back(Page { entries: vec![entry] });
                1
            }
        };
        let full = length >= self.scan.page_entries || bytes >= self.scan.page_bytes;
        self.bytes = (!full).then_some(bytes);
    }
}
