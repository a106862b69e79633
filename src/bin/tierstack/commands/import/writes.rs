//! The writes under way, and what they have come to.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use tierstack::{Error, Store};

use super::source::Lot;
use crate::progress::Progress;

/// Writes under way at a time to a store that takes one operation each, of this many bytes together.
pub(super) const WRITERS: usize = 32;
const BYTES_AT_ONCE: usize = 32 << 20;

/// What was imported.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Imported {
    pub(super) entries: u64,
    /// Bytes of keys and values.
    pub(super) bytes: u64,
    /// The last line whose entry is in the store.
    pub(super) last_line: u64,
}

impl Imported {
    pub(super) fn add(&mut self, part: Part, progress: &Progress) {
        self.entries += part.keys.len() as u64;
        self.bytes += part.bytes as u64;
        self.last_line = part.line;
        progress.set(part.end, None);
    }
}

/// A lot without its entries.
pub(super) struct Part {
    pub(super) keys: Vec<Bytes>,
    pub(super) bytes: usize,
    pub(super) line: u64,
    pub(super) end: u64,
}

/// The writes under way: one where the store takes batches, many where it takes one operation each.
/// They end in the order of their lines, so that what has ended is all there is up to its line.
pub(super) struct Writes<'a> {
    store: &'a Arc<dyn Store>,
    most: usize,
    under_way: FuturesOrdered<BoxFuture<'a, Result<Part, Error>>>,
    keys: HashSet<Bytes>,
    bytes: usize,
    failed: bool,
}

impl<'a> Writes<'a> {
    pub(super) fn new(store: &'a Arc<dyn Store>) -> Self {
        let most = if store.profile().guarantees.atomic_batches { 1 } else { WRITERS };
        let (under_way, keys) = (FuturesOrdered::new(), HashSet::new());
        Self { store, most, under_way, keys, bytes: 0, failed: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.is_empty() || (self.under_way.len() < self.most && self.bytes < BYTES_AT_ONCE)
    }

    /// Whether a key of the lot is being written.
    pub(super) fn meets(&self, lot: &Lot) -> bool {
        lot.batch.ops().iter().any(|op| self.keys.contains(op.key()))
    }

    pub(super) fn begin(&mut self, lot: Lot) {
        let keys: Vec<Bytes> = lot.batch.ops().iter().map(|op| op.key().clone()).collect();
        let part = Part { keys, bytes: lot.batch.bytes(), line: lot.line, end: lot.end };
        self.bytes += part.bytes;
        self.keys.extend(part.keys.iter().cloned());
        let store = self.store;
        let write = async move {
            if !lot.batch.is_empty() {
                // The flush at the end covers what a write-back holds.
                let _ = store.write(lot.batch).await?;
            }
            Ok(part)
        };
        self.under_way.push_back(write.boxed());
    }

    /// The next lines that are in the store. After a failure none is said to be.
    pub(super) async fn next(&mut self) -> Option<Result<Part, Error>> {
        let written = self.under_way.next().await?;
        match &written {
            Ok(part) => {
                self.bytes -= part.bytes;
                part.keys.iter().for_each(|key| {
                    self.keys.remove(key);
                });
            }
            Err(_) => self.failed = true,
        }
        Some(written)
    }

    /// Waits for all of them, also after a failure: none must arrive after the lines were imported again.
    pub(super) async fn drain(
        &mut self,
        imported: &mut Imported,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut first = Ok(());
        while let Some(written) = { self.next().await } {
            match written {
                Ok(part) if !self.failed => imported.add(part, progress),
                Ok(_) => {}
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }
}
