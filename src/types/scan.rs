//! Ranges of keys, and pages of entries.

use std::fmt;
use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

use super::limits::check_key;
use super::value::{Entry, Value};
use crate::error::{Error, Result};

/// The direction of a scan.
///
/// ```
/// use tierstack::{Order, Scan};
///
/// let newest = Scan { order: Order::Reverse, limit: Some(1), ..Scan::prefix("log/") };
/// assert_eq!(newest, Scan::prefix("log/").reverse().limit(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the smallest key to the largest, bytewise.
    #[default]
    Forward,
    /// From the largest key to the smallest, bytewise.
    Reverse,
}

/// Which entries to read, in which order, and how many at a time.
///
/// ```
/// use tierstack::Scan;
///
/// let scan = Scan::prefix("user:").reverse().limit(10);
/// assert!(scan.contains(b"user:1"));
/// assert!(!scan.contains(b"user;"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Scan {
    /// The smallest key.
    pub from: Bound<Bytes>,
    /// The largest key.
    pub to: Bound<Bytes>,
    /// The direction.
    pub order: Order,
    /// At most this many entries. `None`: all of them.
    pub limit: Option<u64>,
    /// At most this many entries in a page. A page may be shorter.
    pub page_entries: usize,
    /// A page ends after the entry with which its keys and values reach this many bytes.
    pub page_bytes: usize,
    /// The entries have empty values without an expiry, and `page_bytes` counts keys. A store then reads no value that
    /// it can leave unread, so a value that is damaged fails nothing. [`ReadExt::keys`](crate::ReadExt::keys)
    /// gives the keys alone.
    pub keys_only: bool,
}

/// 1,024 entries: enough to spread the cost of a page over its entries.
const PAGE_ENTRIES: usize = 1024;
/// 1 MiB: bounds the memory that a scan holds.
const PAGE_BYTES: usize = 1 << 20;

impl Scan {
    /// Every entry.
    #[must_use]
    pub fn all() -> Self {
        Self {
            from: Bound::Unbounded,
            to: Bound::Unbounded,
            order: Order::Forward,
            limit: None,
            page_entries: PAGE_ENTRIES,
            page_bytes: PAGE_BYTES,
            keys_only: false,
        }
    }

    /// The entries whose keys lie in the range.
    #[must_use]
    pub fn range<K: AsRef<[u8]>>(range: impl RangeBounds<K>) -> Self {
        let own = |bound: Bound<&K>| bound.map(|key| Bytes::copy_from_slice(key.as_ref()));
        Self { from: own(range.start_bound()), to: own(range.end_bound()), ..Self::all() }
    }

    /// The entries whose keys begin with the prefix. An empty prefix is every entry.
    #[must_use]
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        let prefix = prefix.as_ref();
        Self {
            from: Bound::Included(Bytes::copy_from_slice(prefix)),
            to: prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded),
            ..Self::all()
        }
    }

    /// From the largest key to the smallest.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.order = Order::Reverse;
        self
    }

    /// At most that many entries.
    #[must_use]
    pub fn limit(mut self, entries: u64) -> Self {
        self.limit = Some(entries);
        self
    }

    /// At most that many entries in a page; at least 1.
    #[must_use]
    pub fn page_entries(mut self, entries: usize) -> Self {
        self.page_entries = entries.max(1);
        self
    }

    /// A page ends once its keys and values reach that many bytes.
    #[must_use]
    pub fn page_bytes(mut self, bytes: usize) -> Self {
        self.page_bytes = bytes;
        self
    }

    /// Keys without their values. See [`keys_only`](Self#structfield.keys_only).
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use tierstack::backends::Memory;
    /// use tierstack::{ReadExt, Scan, StoreExt, Value};
    ///
    /// let store = Memory::new();
    /// store.put("k", "v").await?;
    /// let entries = store.collect(Scan::all().keys_only()).await?;
    /// assert_eq!(entries[0].key, "k");
    /// assert_eq!(entries[0].value, Value::default());
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// Whether the key lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let above = match &self.from {
            Bound::Included(from) => key >= from.as_ref(),
            Bound::Excluded(from) => key > from.as_ref(),
            Bound::Unbounded => true,
        };
        above
            && match &self.to {
                Bound::Included(to) => key <= to.as_ref(),
                Bound::Excluded(to) => key < to.as_ref(),
                Bound::Unbounded => true,
            }
    }

    /// The smallest key of the range, and the smallest behind its largest. `None`: there is no such bound.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn half_open(&self) -> [Option<Vec<u8>>; 2] {
        // The next key in bytewise order.
        let successor = |key: &[u8]| [key, &[0]].concat();
        let from = match &self.from {
            Bound::Included(key) if key.is_empty() => None,
            Bound::Included(key) => Some(key.to_vec()),
            Bound::Excluded(key) => Some(successor(key)),
            Bound::Unbounded => None,
        };
        let to = match &self.to {
            Bound::Included(key) => Some(successor(key)),
            Bound::Excluded(key) => Some(key.to_vec()),
            Bound::Unbounded => None,
        };
        [from, to]
    }

    /// Whether no key can lie in the range, or the limit is zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        if self.limit == Some(0) {
            return true;
        }
        match (&self.from, &self.to) {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (
                Bound::Included(from) | Bound::Excluded(from),
                Bound::Included(to) | Bound::Excluded(to),
            ) => from >= to,
            _ => false,
        }
    }

    /// Moves the start behind a key that was already read, in the direction of the scan: how a scan
    /// resumes after a page, or after a failure. The key is copied, so that the scan does not keep the page
    /// that it is of.
    pub fn resume_after(&mut self, key: impl AsRef<[u8]>) {
        let key = Bytes::copy_from_slice(key.as_ref());
        match self.order {
            Order::Forward => self.from = Bound::Excluded(key),
            Order::Reverse => self.to = Bound::Excluded(key),
        }
    }

    /// Takes that many entries off the limit.
    pub fn consume(&mut self, entries: usize) {
        if let Some(limit) = &mut self.limit {
            *limit = limit.saturating_sub(entries as u64);
        }
    }

    /// How many entries the next page may hold.
    #[must_use]
    pub fn next_page_entries(&self) -> usize {
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        self.page_entries.max(1).min(limit)
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan")
            .field("order", &self.order)
            .field("limit", &self.limit)
            .field("keys_only", &self.keys_only)
            .finish_non_exhaustive()
    }
}

/// The smallest key that is larger than every key with this prefix. `None`: there is no such key,
/// as the prefix is empty or all 0xff.
#[must_use]
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end.into())
}

/// A run of entries of a scan, in the order of the scan. Never empty.
/// See [`Pages`](crate::Pages) for an example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Page {
    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys with empty values, as a scan of keys only gives them.
    ///
    /// ```
    /// use tierstack::{Entry, Page, Value};
    ///
    /// let page = Page { entries: vec![Entry { key: "k".into(), value: "v".into() }] };
    /// assert_eq!(page.without_values().entries[0].value, Value::default());
    /// ```
    #[must_use]
    pub fn without_values(mut self) -> Self {
        self.entries.iter_mut().for_each(|entry| entry.value = Value::default());
        self
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.key.len() + entry.value.bytes.len()).sum()
    }
}

/// Checks that the pages of a run are in strictly ascending key order, and their keys valid.
///
/// ```
/// use tierstack::{Entry, ErrorKind, Page, RunOrder};
///
/// let page = |key: &'static str| {
///     Page { entries: vec![Entry { key: key.into(), value: "v".into() }] }
/// };
/// let mut order = RunOrder::default();
/// order.check(&page("a"))?;
/// order.check(&page("b"))?;
/// assert_eq!(order.check(&page("b")).unwrap_err().kind(), ErrorKind::InvalidInput);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Default)]
pub struct RunOrder {
    last: Bytes,
}

impl RunOrder {
    /// Checks the next page.
    ///
    /// # Errors
    /// `InvalidInput` for a key that is not behind the one before it, or not a key.
    pub fn check(&mut self, page: &Page) -> Result<()> {
        let mut last: &[u8] = &self.last;
        for Entry { key, .. } in &page.entries {
            check_key(key)?;
            if **key <= *last {
                return Err(Error::invalid(
                    "a run must be in strictly ascending key order, without repeated keys",
                )
                .with_key(key));
            }
            last = key;
        }
        // Copied, as it outlives its page.
        self.last = Bytes::copy_from_slice(last);
        Ok(())
    }
}

/// Prints no key.
impl fmt::Debug for RunOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunOrder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    #[test]
    fn bounds_are_half_open() {
        let bounds_of = |scan: Scan| scan.half_open().map(Option::<Vec<u8>>::unwrap_or_default);
        assert_eq!(bounds_of(Scan::all()), [b"".to_vec(), b"".to_vec()]);
        assert_eq!(bounds_of(Scan::prefix("a")), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(bounds_of(Scan::range("a"..="b")), [b"a".to_vec(), b"b\0".to_vec()]);
        let open = (Bound::Excluded("a"), Bound::Excluded("b"));
        assert_eq!(bounds_of(Scan::range::<&str>(open)), [b"a\0".to_vec(), b"b".to_vec()]);
    }

    #[test]
    fn the_end_of_a_prefix_skips_trailing_0xff() {
        assert_eq!(prefix_end(b"a"), Some(Bytes::from("b")));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(Bytes::from("b")));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn an_empty_range_is_known_as_one() {
        assert!(Scan::range("b".."a").is_empty());
        assert!(Scan::range("a".."a").is_empty());
        assert!(!Scan::range("a"..="a").is_empty());
        assert!(Scan::all().limit(0).is_empty());
        assert!(!Scan::all().is_empty());
        let open = (Bound::Excluded("a"), Bound::Included("a"));
        assert!(Scan::range::<&str>(open).is_empty());
    }

    #[test]
    fn a_scan_resumes_in_its_own_direction() {
        let mut forward = Scan::all();
        forward.resume_after(Bytes::from("m"));
        assert!(!forward.contains(b"m") && forward.contains(b"n") && !forward.contains(b"a"));
        let mut reverse = Scan::all().reverse();
        reverse.resume_after(Bytes::from("m"));
        assert!(!reverse.contains(b"m") && !reverse.contains(b"n") && reverse.contains(b"a"));
    }

    #[test]
    fn what_is_kept_of_a_page_does_not_keep_the_page() {
        let buffer = Bytes::from(vec![b'k'; 1000]);
        let key = buffer.slice(..3);
        let (mut scan, mut order) = (Scan::all(), RunOrder::default());
        scan.resume_after(&key);
        let page = Page { entries: vec![Entry { key, value: Value::default() }] };
        order.check(&page).unwrap();
        assert!(!buffer.is_unique());
        drop(page);
        assert!(buffer.is_unique());
        assert!(!scan.contains(b"kkk") && scan.contains(b"kkkk"));
    }
}
