//! A scan that goes on behind what cannot be read.

use std::collections::VecDeque;
use std::io::Write;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use tierstack::{Error, ErrorKind, Order, Page, Pages, Read, Result, Retry, Scan};

use crate::entry_in_words;
use crate::output;

/// What a walk does about an entry that cannot be read.
pub(crate) struct Skips {
    /// Whether entries are skipped; otherwise the first ends the walk.
    asked: bool,
    tell: Box<dyn Fn(&Error) + Send + Sync>,
    count: AtomicU64,
}

impl Skips {
    /// As the user asked. What is skipped is named on standard error.
    pub(crate) fn asked(asked: bool) -> Self {
        Self::told(asked, tell)
    }

    /// Tells what is skipped.
    pub(crate) fn told(asked: bool, tell: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        Self { asked, tell: Box::new(tell), count: AtomicU64::new(0) }
    }

    /// Entries that were skipped so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The last line about them.
    pub(crate) fn sum_up(&self) {
        if self.count() > 0 {
            let skipped = output::entries(self.count());
            let _ = writeln!(std::io::stderr(), "skipped {skipped} that cannot be read");
        }
    }
}

/// Says on standard error what is skipped, and why.
pub(crate) fn tell(error: &Error) {
    let entry = entry_in_words::entry(error).unwrap_or_default();
    let entry = if error.name().is_some() { format!("the entry {entry}") } else { entry };
    // A closed standard error leaves no caller to tell.
    let _ = writeln!(std::io::stderr(), "skipped {entry}: {}", error.message());
}

/// Whether the entry is at fault, and not the way to it: what comes back later is not skipped.
pub(crate) fn is_of_entry(error: &Error) -> bool {
    let kind = matches!(
        error.kind(),
        ErrorKind::Corruption
            | ErrorKind::InvalidInput
            | ErrorKind::Unsupported
            | ErrorKind::Access
            | ErrorKind::Capacity
            | ErrorKind::Config
    );
    kind && error.retry() == Retry::Never
}

/// The pages of a scan without what cannot be read.
///
/// An error that names its entry may come before entries that are in front of it in the order. So the range
/// in front of it is read again, without it, and then the one behind it.
pub(crate) fn pages<'a>(source: &'a dyn Read, scan: Scan, skips: &'a Skips) -> Pages<'a> {
    let state = Walk { source, skips, ranges: VecDeque::from([scan]), current: None };
    stream::unfold(state, |mut walk| async move {
        let page = walk.next().await.transpose()?;
        if page.is_err() {
            walk.ranges.clear();
        }
        Some((page, walk))
    })
    .boxed()
}

struct Walk<'a> {
    source: &'a dyn Read,
    skips: &'a Skips,
    /// What is still to be read, in order. The first is the one that is being read.
    ranges: VecDeque<Scan>,
    current: Option<Pages<'a>>,
}

impl Walk<'_> {
    async fn next(&mut self) -> Result<Option<Page>> {
        while let Some(range) = self.ranges.front_mut() {
            let source = self.source;
            let current = self.current.get_or_insert_with(|| source.scan(range.clone()));
            match current.next().await {
                Some(Ok(page)) => {
                    if let Some(last) = page.entries.last() {
                        range.resume_after(last.key.clone());
                    }
                    // All of them count on the same limit.
                    self.ranges.iter_mut().for_each(|range| range.consume(page.len()));
                    return Ok(Some(page));
                }
                Some(Err(error)) => {
                    let bad = error.key().filter(|key| range.contains(key));
                    let Some(bad) = bad.filter(|_| self.skips.asked && is_of_entry(&error)) else {
                        return Err(error);
                    };
                    self.skips.count.fetch_add(1, Ordering::Relaxed);
                    (self.skips.tell)(&error);
                    let bad = Bytes::copy_from_slice(bad);
                    let mut before = range.clone();
                    match range.order {
                        Order::Forward => before.to = Bound::Excluded(bad.clone()),
                        Order::Reverse => before.from = Bound::Excluded(bad.clone()),
                    }
                    range.resume_after(bad);
                    self.ranges.push_front(before);
                }
                None => {
                    self.ranges.pop_front();
                }
            }
            self.current = None;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_util::TryStreamExt;
    use tierstack::backends::Memory;
    use tierstack::{Reply, StoreExt, Value};

    use super::*;

    /// Fails at some of its entries, with all that its page would hold.
    struct Damaged {
        store: Memory,
        bad: BTreeSet<&'static str>,
        kind: ErrorKind,
    }

    impl Damaged {
        fn check(&self, page: Page) -> Result<Page> {
            let bad = |key: &[u8]| self.bad.iter().any(|bad| bad.as_bytes() == key);
            // As a layer that decodes many at a time: not the first of them in the order.
            match page.entries.iter().rev().find(|entry| bad(&entry.key)) {
                Some(entry) => Err(Error::new(self.kind, "damaged").with_key(&entry.key)),
                None => Ok(page),
            }
        }
    }

    impl Read for Damaged {
        fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
            self.store.get(key)
        }

        fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
            self.store.get_many(keys)
        }

        fn scan(&self, scan: Scan) -> Pages<'_> {
            self.store.scan(scan).map(|page| self.check(page?)).boxed()
        }
    }

    const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    async fn damaged(bad: impl IntoIterator<Item = &'static str>, kind: ErrorKind) -> Damaged {
        let store = Memory::new();
        for key in KEYS {
            store.put(key, key).await.unwrap();
        }
        Damaged { store, bad: bad.into_iter().collect(), kind }
    }

    async fn walked(source: &Damaged, scan: Scan, skips: &Skips) -> Result<Vec<Bytes>> {
        let pages: Vec<Page> = pages(source, scan, skips).try_collect().await?;
        Ok(pages.into_iter().flat_map(|page| page.entries).map(|entry| entry.key).collect())
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_left_out_and_nothing_else() {
        for bad in [vec![], vec!["a"], vec!["h"], vec!["b", "c", "f"], KEYS.to_vec()] {
            let source = damaged(bad.clone(), ErrorKind::Corruption).await;
            let good: Vec<_> = KEYS.into_iter().filter(|key| !bad.contains(key)).collect();
            for per_page in [1, 3, 100] {
                let skips = Skips::told(true, |_| ());
                let scan = Scan::all().page_entries(per_page);
                assert_eq!(walked(&source, scan.clone(), &skips).await.unwrap(), good);
                assert_eq!(skips.count(), bad.len() as u64);
                let mut back = walked(&source, scan.clone().reverse(), &skips).await.unwrap();
                back.reverse();
                assert_eq!(back, good);
                let some =
                    walked(&source, scan.limit(2), &Skips::told(true, |_| ())).await.unwrap();
                assert_eq!(some, good[..good.len().min(2)]);
            }
        }
    }

    #[tokio::test]
    async fn an_error_ends_it_unless_it_was_asked_for_and_is_of_an_entry() {
        let source = damaged(["c"], ErrorKind::Corruption).await;
        assert!(walked(&source, Scan::all(), &Skips::told(false, |_| ())).await.is_err());
        for kind in [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Closed] {
            let source = damaged(["c"], kind).await;
            let error = walked(&source, Scan::all(), &Skips::told(true, |_| ())).await.unwrap_err();
            assert_eq!(error.kind(), kind);
        }
    }
}
