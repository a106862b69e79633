//! Scans: names from a listing whose order is checked, values fetched concurrently. Keys only are the
//! listing, and no request more.
//!
//! Forwards, one listing goes through the whole scan, at most one page of it in memory. Backwards there is
//! no listing, so the range is listed once, keeping the last names and a few marks; from the marks, what
//! lies before them is listed again, a stretch at a time.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::entries::{CONCURRENCY, Entries};
use super::names::{place, without_place};
use super::probe::unordered;
use super::service::Listed;
use crate::error::{Error, Operation, Result};
use crate::store::Pages;
use crate::types::{Entry, Order, Page, Scan, Value};

/// Entries of a page, at most.
const PAGE_ENTRIES: usize = 1024;
/// Bytes of a page, at most, as far as the listing tells, but for its last value.
const PAGE_BYTES: usize = 16 << 20;
/// Names that a reverse scan keeps.
const KEPT: usize = 4096;
/// Marks that a reverse scan keeps of its way.
const MARKS: usize = 1024;

/// An object that is an entry of the scan.
struct ScannedObject {
    key: Bytes,
    name: String,
    /// The name that was listed before it.
    after: Option<String>,
    size: Option<u64>,
}

impl Entries {
    pub(crate) fn scan(&self, scan: Scan) -> Pages<'_> {
        let walk = Walk { entries: self, scan, ahead: VecDeque::new(), failed: None, way: None };
        let pages = futures_util::stream::try_unfold(walk, |mut walk| async move {
            let entries = walk.entries;
            let page =
                walk.next_page().await.map_err(|error| entries.told(error, Operation::Scan))?;
            Ok(page.map(|page| (page, walk)))
        });
        pages.boxed()
    }
}

struct Walk<'a> {
    entries: &'a Entries,
    scan: Scan,
    /// Names that were listed and not yet read.
    ahead: VecDeque<ScannedObject>,
    /// What the listing failed with behind the names that are ahead.
    failed: Option<Error>,
    way: Option<Way<'a>>,
}

enum Way<'a> {
    Forward(Listing<'a>),
    Reverse(Reverse),
}

impl<'a> Walk<'a> {
    async fn next_page(&mut self) -> Result<Option<Page>> {
        self.entries.check_open()?;
        if !self.entries.guarantees().ordered_scans {
            return Err(Error::unsupported(
                "the service lists no names, or in no order, so there are no scans",
            ));
        }
        if self.scan.is_empty() {
            return Ok(None);
        }
        loop {
            let lot = self.next_lot().await?;
            if lot.is_empty() {
                return Ok(None);
            }
            let page = if self.scan.keys_only { keys(lot) } else { self.read(lot).await? };
            // Everything of the lot was removed since it was listed.
            if !page.is_empty() {
                self.scan.consume(page.len());
                return Ok(Some(page));
            }
        }
    }

    /// The names of about a page.
    async fn next_lot(&mut self) -> Result<Vec<ScannedObject>> {
        let entries = self.scan.next_page_entries().min(PAGE_ENTRIES);
        let most = self.scan.page_bytes.min(PAGE_BYTES) as u64;
        // Where the listing tells no sizes, as many as are fetched at a time.
        let unknown = most / CONCURRENCY as u64 + 1;
        let (mut lot, mut bytes) = (Vec::new(), 0);
        while lot.len() < entries && (lot.is_empty() || bytes < most) {
            let found = match self.next_name().await {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) if lot.is_empty() => return Err(error),
                // What lies before is given first: a reader may go on behind.
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            };
            let value = if self.scan.keys_only { 0 } else { found.size.unwrap_or(unknown) };
            bytes += found.key.len() as u64 + value;
            lot.push(found);
        }
        Ok(lot)
    }

    async fn next_name(&mut self) -> Result<Option<ScannedObject>> {
        if let Some(found) = self.ahead.pop_front() {
            return Ok(Some(found));
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let way = self.way.get_or_insert_with(|| match self.scan.order {
            Order::Forward => Way::Forward(Listing::new(self.entries, &self.scan)),
            Order::Reverse => Way::Reverse(Reverse::default()),
        });
        match way {
            Way::Forward(listing) => listing.next().await,
            Way::Reverse(reverse) => {
                self.ahead = reverse.stretch(self.entries, &self.scan).await?;
                Ok(self.ahead.pop_front())
            }
        }
    }

    /// Fetches the values of a page. What does not fit, as values have grown, waits for the next; so does
    /// one that cannot be read, behind others.
    async fn read(&mut self, lot: Vec<ScannedObject>) -> Result<Page> {
        let entries = self.entries;
        let fetch = |found| fetch(entries, found).boxed();
        let values: Vec<_> = lot.iter().map(fetch).collect();
        let mut values = futures_util::stream::iter(values).buffered(CONCURRENCY);
        let (mut page, mut bytes, mut read) = (Page::default(), 0, 0);
        while let Some(value) = values.next().await {
            let Some(found) = lot.get(read) else { break };
            match value {
                Ok(Some(value)) => {
                    bytes += found.key.len() + value.len();
                    page.entries.push(Entry { key: found.key.clone(), value: Value::new(value) });
                }
                Ok(None) => {}
                Err(_) if !page.is_empty() => break,
                Err(error) => return Err(error),
            }
            read += 1;
            if bytes >= self.scan.page_bytes && !page.is_empty() {
                break;
            }
        }
        drop(values);
        for found in lot.into_iter().skip(read).rev() {
            self.ahead.push_front(found);
        }
        Ok(page)
    }
}

/// The page of names that stand for themselves.
fn keys(lot: Vec<ScannedObject>) -> Page {
    let entry = |found: ScannedObject| Entry { key: found.key, value: Value::default() };
    Page { entries: lot.into_iter().map(entry).collect() }
}

async fn fetch(entries: &Entries, found: &ScannedObject) -> Result<Option<Bytes>> {
    let value = entries.fetch_listed(&found.key, &found.name, found.after.as_deref()).await;
    value.map_err(|error| error.with_key(&found.key).with_name(&found.name))
}

/// The names of a range, in their order.
struct Listing<'a> {
    entries: &'a Entries,
    scan: Scan,
    listing: BoxStream<'static, Result<Listed>>,
    last: Option<String>,
    /// The last key whose name was passed, or the start of the range.
    passed: Bytes,
    /// The range in names: those of others in it, which no key has, are not passed over.
    begins: Option<Vec<u8>>,
    ends: Option<Vec<u8>>,
}

impl<'a> Listing<'a> {
    fn new(entries: &'a Entries, scan: &Scan) -> Self {
        let (from, to) = (limit(&scan.from), limit(&scan.to));
        let before = from.and_then(|from| entries.naming.before(from));
        let bound = |key: Option<&Bytes>| key.map(|key| entries.naming.bound(key));
        // It is asked again after its end, by a page that found it not full.
        let listing = entries.objects.list(before.as_deref()).fuse().boxed();
        let (begins, ends) = (bound(from), bound(to));
        let passed =
            from.map(|from| Bytes::copy_from_slice(without_place(from))).unwrap_or_default();
        Self { entries, scan: scan.clone(), listing, last: None, passed, begins, ends }
    }

    async fn next(&mut self) -> Result<Option<ScannedObject>> {
        while let Some(listed) = self.listing.try_next().await? {
            let is_mark = listed.is_mark();
            let Listed { name, size } = listed;
            if self.last.as_ref().is_some_and(|last| name <= *last) {
                return Err(unordered());
            }
            let after = self.last.replace(name.clone());
            if is_mark {
                continue;
            }
            let Some(key) = self.entries.naming.key(&name) else {
                let name_bytes = name.as_bytes();
                let behind = self.ends.as_ref().is_some_and(|ends| name_bytes >= ends.as_slice());
                let before = self.begins.as_ref().is_some_and(|at| name_bytes <= at.as_slice());
                if before || behind {
                    continue;
                }
                return Err(foreign().with_key(&place(&self.passed, &name)).with_name(&name));
            };
            if self.scan.contains(&key) {
                self.passed = key.into();
                return Ok(Some(ScannedObject { key: self.passed.clone(), name, after, size }));
            }
            if limit(&self.scan.to).is_some_and(|to| key.as_slice() >= to.as_ref()) {
                return Ok(None);
            }
        }
        Ok(None)
    }
}

fn limit(bound: &Bound<Bytes>) -> Option<&Bytes> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}

fn foreign() -> Error {
    Error::config(
        "an object here has a name that no key has with `names: escaped`, such as one with a space or an é as it is, or with a `/` at its end; with `names: plain` every name is a key",
    )
}

/// How far a reverse scan has come.
#[derive(Default)]
struct Reverse {
    /// Keys at which stretches begin, ascending. `None`: not yet known.
    marks: Option<Vec<Bytes>>,
    /// The smallest key that was given.
    below: Option<Bytes>,
}

impl Reverse {
    /// The next names, in descending order. None: the scan is over.
    async fn stretch(&mut self, entries: &Entries, scan: &Scan) -> Result<VecDeque<ScannedObject>> {
        loop {
            let mut part = Scan { order: Order::Forward, limit: None, ..scan.clone() };
            if let Some(below) = &self.below {
                part.to = Bound::Excluded(below.clone());
            }
            if let Some(marks) = &mut self.marks {
                while marks
                    .last()
                    .is_some_and(|mark| self.below.as_ref().is_some_and(|below| mark >= below))
                {
                    marks.pop();
                }
                let Some(mark) = marks.last() else { return Ok(VecDeque::new()) };
                part.from = Bound::Included(mark.clone());
            }
            let (mut kept, mut marks) = (VecDeque::new(), Marks::default());
            let mut listing = Listing::new(entries, &part);
            while let Some(found) = listing.next().await? {
                marks.pass(&found.key);
                if kept.len() == KEPT {
                    kept.pop_back();
                }
                kept.push_front(found);
            }
            self.marks.get_or_insert(marks.keys);
            match (kept.back(), &mut self.marks) {
                (Some(smallest), _) => {
                    self.below = Some(smallest.key.clone());
                    return Ok(kept);
                }
                // All of the stretch was removed meanwhile.
                (None, Some(marks)) => self.below = marks.pop(),
                (None, None) => {}
            }
            if self.below.is_none() {
                return Ok(kept);
            }
        }
    }
}

/// A sample of the keys: every n-th one, where n grows with their number.
struct Marks {
    keys: Vec<Bytes>,
    every: u64,
    passed: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self { keys: Vec::new(), every: KEPT as u64, passed: 0 }
    }
}

impl Marks {
    fn pass(&mut self, key: &Bytes) {
        if self.passed.is_multiple_of(self.every) {
            if self.keys.len() == MARKS {
                let mut at = 0;
                self.keys.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.every *= 2;
            }
            self.keys.push(key.clone());
        }
        self.passed += 1;
    }
}
