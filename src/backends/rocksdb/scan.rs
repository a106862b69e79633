//! Scans: a page at a time, each with an iterator of its own.
//!
//! An iterator holds files and memtables back for as long as it lives, so none is kept between pages;
//! making one and seeking costs a few microseconds for a page of a thousand entries. The first page is
//! small. It comes from memory if it is there, and otherwise fills the block cache, so that a short scan
//! that is repeated needs no thread. The others leave the cache alone and are read in threads, each begun
//! when the one before it is handed out, so that the disk works while the caller does; an idle scan
//! occupies no thread.

use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;

use super::blocking::spawn;
use super::engine::Engine;
use super::error::{failed, is_incomplete};
use super::read_source::View;
use super::read_tier::Tier;
use super::ttl::Stamps;
use super::wide_columns;
use crate::clock::Timestamp;
use crate::error::{Error, Operation, Result};
use crate::store::Pages;
use crate::types::{Entry, Order, Page, Scan, Value, check_key};

/// What the first page holds at most: it is built on the caller's thread, in about 20 µs.
const FIRST_ENTRIES: usize = 256;
const FIRST_BYTES: usize = 64 << 10;

/// A value from this size on has bytes of its own; smaller ones share those of their page.
const OWN_BYTES: usize = 16 << 10;

type Ahead = Pin<Box<dyn Future<Output = Result<Run>> + Send>>;

enum Step {
    /// The first page, from memory.
    First,
    /// The first page, or what memory lacks of it, from the disk into the cache.
    Fill,
    Disk,
    Ahead(Ahead),
    Done,
}

pub(super) fn pages<'a, V: View>(
    view: impl Fn() -> Result<Arc<V>> + Send + Sync + 'a,
    scan: Scan,
) -> Pages<'a> {
    let view = Arc::new(view);
    let step = if scan.is_empty() { Step::Done } else { Step::First };
    unfold((step, scan), move |(mut step, mut scan)| {
        let view = Arc::clone(&view);
        async move {
            loop {
                let ahead_next = matches!(step, Step::Disk | Step::Ahead(_));
                let read = match step {
                    Step::Done => return None,
                    Step::First => {
                        view().and_then(|view| read(&*view, &small(&scan), From::Memory))
                    }
                    Step::Fill => in_thread(begin(view(), small(&scan), From::DiskIntoCache)).await,
                    Step::Disk => in_thread(begin(view(), scan.clone(), From::Disk)).await,
                    Step::Ahead(ahead) => ahead.await,
                };
                let run = match read {
                    Ok(run) => run,
                    Err(error) => return Some((Err(error), (Step::Done, scan))),
                };
                scan.consume(run.page.len());
                if let Some(last) = run.page.entries.last() {
                    scan.resume_after(&last.key);
                }
                step = if run.end == End::Range || scan.is_empty() {
                    Step::Done
                } else if run.end == End::Cold {
                    Step::Fill
                } else if ahead_next {
                    // Without a runtime, or after a close, the next poll says so.
                    begin(view(), scan.clone(), From::Disk).map_or(Step::Disk, Step::Ahead)
                } else {
                    Step::Disk
                };
                if !run.page.is_empty() {
                    return Some((Ok(run.page), (step, scan)));
                }
            }
        }
    })
    .boxed()
}

/// Begins to read a page in a thread.
fn begin<V: View>(view: Result<Arc<V>>, scan: Scan, from: From) -> Result<Ahead> {
    let view = view?;
    Ok(Box::pin(spawn(move || read(&*view, &scan, from))?))
}

async fn in_thread(begun: Result<Ahead>) -> Result<Run> {
    begun?.await
}

/// The first page of a scan.
fn small(scan: &Scan) -> Scan {
    let mut scan = scan.clone();
    scan.page_entries = scan.page_entries.min(FIRST_ENTRIES);
    scan.page_bytes = scan.page_bytes.min(FIRST_BYTES);
    scan
}

/// Where a page is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Memory,
    DiskIntoCache,
    Disk,
}

/// Why a page ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing is behind it.
    Range,
    /// It has reached its size.
    Full,
    /// The next block is not in memory.
    Cold,
}

/// A page, possibly empty, and why it ends.
struct Run {
    page: Page,
    end: End,
}

fn read<V: View>(view: &V, scan: &Scan, from: From) -> Result<Run> {
    let tier = if from == From::Memory { Tier::Memory } else { Tier::Disk };
    let mut options = view.scan_options(tier);
    options.fill_cache(from == From::DiskIntoCache);
    let (lower, upper) = bounds(scan);
    if let Some(lower) = lower {
        options.set_iterate_lower_bound(lower);
    }
    if let Some(upper) = upper {
        options.set_iterate_upper_bound(upper);
    }
    let engine = view.engine();
    let mut iterator = engine.db().raw_iterator_cf_opt(engine.family(), options);
    match scan.order {
        Order::Forward => iterator.seek_to_first(),
        Order::Reverse => iterator.seek_to_last(),
    }
    let mut building = Building { keys_only: scan.keys_only, ..Building::default() };
    let entries = scan.next_page_entries();
    let mut looked_at = 0;
    while let Some((key, value)) = iterator.item() {
        // What has ended is in no page, but takes time.
        looked_at += 1;
        if from == From::Memory && looked_at > FIRST_ENTRIES {
            return Ok(Run { page: building.finish(), end: End::Cold });
        }
        building.push(key, value, engine.stamps())?;
        if building.entries.len() >= entries || building.bytes >= scan.page_bytes {
            return Ok(Run { page: building.finish(), end: End::Full });
        }
        match scan.order {
            Order::Forward => iterator.next(),
            Order::Reverse => iterator.prev(),
        }
    }
    let end = match iterator.status() {
        Ok(()) => End::Range,
        Err(error) if from == From::Memory && is_incomplete(&error) => End::Cold,
        Err(error) => return Err(failed(Operation::Scan, error)),
    };
    Ok(Run { page: building.finish(), end })
}

/// The smallest key, and the smallest that is behind the largest.
fn bounds(scan: &Scan) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let lower = match &scan.from {
        Bound::Included(key) => Some(key.to_vec()),
        Bound::Excluded(key) => Some(successor(key)),
        Bound::Unbounded => None,
    };
    let upper = match &scan.to {
        Bound::Included(key) => Some(successor(key)),
        Bound::Excluded(key) => Some(key.to_vec()),
        Bound::Unbounded => None,
    };
    (lower, upper)
}

/// The next key in bytewise order.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// A page under construction. Keys and small values lie in one buffer, which saves two allocations an
/// entry; an entry that a caller keeps holds at most that buffer.
#[derive(Default)]
struct Building {
    keys_only: bool,
    buffer: Vec<u8>,
    entries: Vec<Held>,
    bytes: usize,
}

struct Held {
    key: usize,
    value: HeldValue,
    expires_at: Option<Timestamp>,
}

enum HeldValue {
    InBuffer(usize),
    Own(Bytes),
}

impl Building {
    fn push(&mut self, key: &[u8], value: &[u8], stamps: Option<&Stamps>) -> Result<()> {
        check_key(key).map_err(|_| {
            Error::unsupported(format!(
                "the database holds a key of {} bytes, but keys here are 1 to 65536 bytes; remove it with the program that wrote it, or scan a range without it",
                key.len()
            ))
            .with_operation(Operation::Scan)
            .with_layer("rocksdb")
        })?;
        if wide_columns::is_shown_as(value) {
            return Err(wide_columns::refused().with_operation(Operation::Scan).with_key(key));
        }
        let (value, expires_at) = match stamps {
            None => (value, None),
            Some(stamps) => match stamps.split(value) {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(error) => return Err(error.with_operation(Operation::Scan).with_key(key)),
            },
        };
        // The iterator has read the value; it is not copied.
        let value = if self.keys_only { &[] } else { value };
        self.bytes += key.len() + value.len();
        self.buffer.extend_from_slice(key);
        let held = if value.len() < OWN_BYTES {
            self.buffer.extend_from_slice(value);
            HeldValue::InBuffer(value.len())
        } else {
            HeldValue::Own(Bytes::copy_from_slice(value))
        };
        self.entries.push(Held { key: key.len(), value: held, expires_at });
        Ok(())
    }

    fn finish(self) -> Page {
        let mut rest = Bytes::from(self.buffer);
        let entries = self.entries.into_iter().map(|held| {
            let key = rest.split_to(held.key);
            let bytes = match held.value {
                HeldValue::InBuffer(length) => rest.split_to(length),
                HeldValue::Own(bytes) => bytes,
            };
            Entry { key, value: Value { bytes, expires_at: held.expires_at } }
        });
        Page { entries: entries.collect() }
    }
}

/// Keys that are counted by one iterator, which holds files back.
const COUNTED: u64 = if cfg!(test) { 10 } else { 100_000 };

impl Engine {
    /// Counts the next keys that begin with a prefix. Gives the key that is to be counted first behind them.
    pub(super) fn count(&self, from: Vec<u8>, prefix: &[u8]) -> Result<(u64, Option<Vec<u8>>)> {
        let mut options = self.scan_options(Tier::Disk);
        options.fill_cache(false);
        let mut entries = self.db().raw_iterator_cf_opt(self.family(), options);
        entries.seek(from);
        let mut counted = 0;
        while let Some((key, value)) = entries.item().filter(|(key, _)| key.starts_with(prefix)) {
            if counted == COUNTED {
                return Ok((counted, Some(key.to_vec())));
            }
            let there = match self.stamps() {
                Some(stamps) => stamps.split(value)?.is_some(),
                None => true,
            };
            counted += u64::from(there);
            entries.next();
        }
        entries.status().map_err(|error| failed(Operation::Usage, error))?;
        Ok((counted, None))
    }
}
