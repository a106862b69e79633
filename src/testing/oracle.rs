//! What a scan must give, worked out the slow and obvious way.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::types::{Entry, Order, Page, Scan, Value};

/// What the tests know a store to hold.
pub(super) type Known = BTreeMap<Bytes, Value>;

/// The entries that a scan of these must give.
pub(super) fn scanned(known: &Known, scan: &Scan) -> Vec<Entry> {
    let mut entries: Vec<Entry> = known
        .iter()
        .filter(|(key, _)| scan.contains(key))
        .map(|(key, value)| Entry {
            key: key.clone(),
            value: if scan.keys_only { Value::default() } else { value.clone() },
        })
        .collect();
    if scan.order == Order::Reverse {
        entries.reverse();
    }
    let limit = scan.limit.and_then(|limit| usize::try_from(limit).ok());
    entries.truncate(limit.unwrap_or(usize::MAX));
    entries
}

/// Checks pages against the entries that they must hold, and against the bounds of a page.
pub(super) fn compare(scan: &Scan, pages: Vec<Page>, want: &[Entry]) -> Result<(), String> {
    for page in &pages {
        let last = page.entries.last().ok_or("a page is empty")?;
        if page.len() > scan.page_entries.max(1) {
            return Err(format!("a page has {} entries, over {}", page.len(), scan.page_entries));
        }
        let before_last = page.bytes() - last.key.len() - last.value.bytes.len();
        if page.len() > 1 && before_last >= scan.page_bytes {
            return Err(format!(
                "a page of {} bytes goes on after {before_last}, over {}",
                page.bytes(),
                scan.page_bytes
            ));
        }
    }
    let got: Vec<Entry> = pages.into_iter().flat_map(|page| page.entries).collect();
    if got == want {
        return Ok(());
    }
    let at = got.iter().zip(want).position(|(got, want)| got != want);
    let at = at.unwrap_or(got.len().min(want.len()));
    Err(format!(
        "{} entries instead of {}; at {at} it gives {}, and must give {}",
        got.len(),
        want.len(),
        show_entry(got.get(at)),
        show_entry(want.get(at))
    ))
}

/// The range of a scan and how it reads it, as text.
pub(super) fn show_scan(scan: &Scan) -> String {
    format!(
        "{}from {} to {}, {:?}, limit {:?}, pages of {} entries and {} bytes",
        if scan.keys_only { "of keys only " } else { "" },
        show_bound(&scan.from),
        show_bound(&scan.to),
        scan.order,
        scan.limit,
        scan.page_entries,
        scan.page_bytes
    )
}

/// A key of a test, as text.
pub(super) fn show(key: &[u8]) -> String {
    let start: Vec<u8> = key.iter().copied().take(40).collect();
    let more = if key.len() > 40 { format!("... of {} bytes", key.len()) } else { String::new() };
    format!("'{}'{more}", start.escape_ascii())
}

pub(super) fn show_bytes(value: Option<&Bytes>) -> String {
    value.map_or_else(|| "missing".to_owned(), |bytes| show(bytes))
}

pub(super) fn show_value(value: Option<&Value>) -> String {
    let at = value.and_then(|value| value.expires_at);
    let until = at.map_or_else(String::new, |at| format!(" until {at}"));
    format!("{}{until}", show_bytes(value.map(|value| &value.bytes)))
}

fn show_entry(entry: Option<&Entry>) -> String {
    entry.map_or_else(
        || "nothing more".to_owned(),
        |entry| format!("{} = {}", show(&entry.key), show_value(Some(&entry.value))),
    )
}

fn show_bound(bound: &std::ops::Bound<Bytes>) -> String {
    match bound {
        std::ops::Bound::Included(key) => format!("{} (included)", show(key)),
        std::ops::Bound::Excluded(key) => format!("{} (excluded)", show(key)),
        std::ops::Bound::Unbounded => "the end".to_owned(),
    }
}
