//! The proof of a restore: the target is read back and compared with the base.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::content_digest::Digest;
use super::documents::Hash;
use super::manifest::{Manifest, Run};
use super::read::{Entries, chunks};
use super::repository::Repository;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::types::units::counted;
use crate::types::{Entry, RESERVED_PREFIX, Scan};

/// The chunks that can hold keys with a prefix. A boundary says what the first key of a run begins with, so
/// where it is shorter than the prefix, it may be that the run begins before the prefix or within it.
pub(super) fn chunks_with(manifest: &Manifest, prefix: &[u8]) -> Range<usize> {
    let (mut start, mut end) = (0, manifest.chunks.len());
    for (at, chunk) in manifest.chunks.iter().enumerate() {
        let Some(Run { boundary, .. }) = &chunk.run else { continue };
        if boundary.as_ref() < prefix && !prefix.starts_with(boundary) {
            start = at;
        } else if boundary.as_ref() > prefix && !boundary.starts_with(prefix) {
            end = at;
            break;
        }
    }
    start..end
}

/// What the target must hold.
pub(super) struct Witness {
    digest: Digest,
    count: u64,
}

impl Witness {
    pub(super) fn new(key: &Hash) -> Self {
        Self { digest: Digest::new(key), count: 0 }
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        self.digest.add(entry);
        self.count += 1;
    }

    pub(super) fn finish(&self) -> (Hash, u64) {
        (self.digest.finish(), self.count)
    }
}

/// Reads base and target side by side, and gives the first key at which they differ. An entry that has
/// expired since it was written may be gone, and no other: how many there are tells nothing about which.
async fn first_difference(
    repository: &Repository,
    manifest: &Arc<Manifest>,
    target: &dyn Store,
    prefix: &[u8],
) -> Result<Option<Bytes>> {
    let part = chunks_with(manifest, prefix);
    let mut base = Entries::new(chunks(repository, manifest, part), manifest);
    let may_be_gone = |entry: &Entry| {
        let expired = |at| at <= repository.clock.now();
        !entry.key.starts_with(prefix) || entry.value.expires_at.is_some_and(expired)
    };
    let mut pages = target.scan(Scan::all());
    while let Some(page) = pages.try_next().await? {
        for found in page.entries {
            while !found.key.starts_with(RESERVED_PREFIX) {
                match base.next().await? {
                    Some(entry) if entry == found => break,
                    Some(entry) if may_be_gone(&entry) => {}
                    Some(entry) => return Ok(Some(entry.key.min(found.key))),
                    None => return Ok(Some(found.key)),
                }
            }
        }
    }
    while let Some(entry) = base.next().await? {
        if !may_be_gone(&entry) {
            return Ok(Some(entry.key));
        }
    }
    Ok(None)
}

pub(super) async fn prove(
    repository: &Repository,
    manifest: &Arc<Manifest>,
    target: &dyn Store,
    prefix: &[u8],
    expected: &Witness,
) -> Result<()> {
    let mut found = Witness::new(&repository.doc.key);
    let mut pages = target.scan(Scan::all());
    while let Some(page) = pages.try_next().await? {
        let own = |entry: &&Entry| !entry.key.starts_with(RESERVED_PREFIX);
        page.entries.iter().filter(own).for_each(|entry| found.add(entry));
    }
    if found.finish() == expected.finish() {
        return Ok(());
    }
    match first_difference(repository, manifest, target, prefix).await? {
        // Some have expired meanwhile.
        None => Ok(()),
        Some(key) => Err(Error::corruption(format!(
            "the target was read back and differs from the base: it holds {}, the base {}, and this key is \
             the first that differs",
            counted(found.count, "entry", "entries"),
            expected.count
        ))
        .with_key(&key)),
    }
}
