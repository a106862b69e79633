//! Reading a base: ranges of packs, chunks, entries. Everything is checked on the way.
//!
//! What is in memory at a time is bounded twice, in the bytes that are stored and in what they become:
//! a chunk of 100 bytes can be a MiB of zeros, and a list can name it a thousand times.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};

use super::chunk::{RunEntry, RunReader, RunValue, decode_frame};
use super::content_digest::Digest;
use super::documents::{Hash, pack_path};
use super::manifest::{Chunk, Manifest};
use super::repository::Repository;
use crate::error::{Error, Result};
use crate::types::{Entry, Value, check_key};

/// Neighbouring chunks are read together up to this size.
const SPAN_BYTES: u64 = 8 << 20;
/// Requests under way at a time.
const READERS: usize = 4;
/// Neighbouring chunks are decoded together up to this size before compression, and this many.
const LOT_BYTES: u64 = 2 << 20;
const LOT_CHUNKS: usize = 1024;
/// Lots that are decoded at a time.
const DECODERS: usize = 4;

/// Chunks that are side by side in one pack, in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    pack: u32,
    bytes: Range<u64>,
    chunks: Range<usize>,
}

/// A chunk's place in the list, and what is in it.
pub(super) type Read = (usize, Result<Bytes>);

/// The chunks of a part of the list, in its order. A damaged chunk is an error in its place, and the
/// stream goes on behind it.
pub(super) fn chunks(
    repository: &Repository,
    manifest: &Arc<Manifest>,
    part: Range<usize>,
) -> BoxStream<'static, Read> {
    let (repository, key) = (repository.clone(), repository.doc.key);
    let (list, manifest) = (Arc::clone(manifest), Arc::clone(manifest));
    let mut next = part.start;
    let spans = std::iter::from_fn(move || {
        let span = span(&list.chunks, next..part.end)?;
        next = span.chunks.end;
        Some(span)
    });
    futures_util::stream::iter(spans)
        .map(move |span| fetch(repository.clone(), Arc::clone(&manifest), span))
        .buffered(READERS)
        .flat_map(|fetched| futures_util::stream::iter(lots(fetched)))
        .map(move |lot| decode(lot, key))
        .buffered(DECODERS)
        .flat_map(futures_util::stream::iter)
        .boxed()
}

/// The first span of a part of the list.
fn span(list: &[Chunk], part: Range<usize>) -> Option<Span> {
    let mut chunks = list.iter().enumerate().take(part.end).skip(part.start);
    let (at, Chunk { place, .. }) = chunks.next()?;
    let end = place.offset + u64::from(place.stored_bytes);
    let mut span = Span { pack: place.pack, bytes: place.offset..end, chunks: at..at + 1 };
    for (at, Chunk { place, .. }) in chunks {
        let end = place.offset + u64::from(place.stored_bytes);
        let beside = place.pack == span.pack && place.offset == span.bytes.end;
        if !beside || end - span.bytes.start > SPAN_BYTES {
            break;
        }
        (span.bytes.end, span.chunks.end) = (end, at + 1);
    }
    Some(span)
}

/// What was read of a span, and the chunks of it that are meant.
#[derive(Clone)]
struct Fetched {
    manifest: Arc<Manifest>,
    span: Span,
    bytes: Result<Bytes>,
    chunks: Range<usize>,
}

async fn fetch(repository: Repository, manifest: Arc<Manifest>, span: Span) -> Fetched {
    let bytes = match manifest.packs.get(span.pack as usize) {
        Some(pack) => repository.objects.get_range(&pack_path(&pack.id), span.bytes.clone()).await,
        None => Err(Error::internal("a chunk's pack is not listed")),
    };
    let chunks = span.chunks.clone();
    Fetched { manifest, span, bytes, chunks }
}

/// Cuts what was read into lots.
fn lots(fetched: Fetched) -> impl Iterator<Item = Fetched> {
    let mut next = fetched.chunks.start;
    std::iter::from_fn(move || {
        let (mut end, mut bytes) = (next, 0);
        while end < fetched.chunks.end {
            let chunk = fetched.manifest.chunks.get(end)?;
            bytes += u64::from(chunk.place.plain_bytes);
            if end > next && (bytes > LOT_BYTES || end - next >= LOT_CHUNKS) {
                break;
            }
            end += 1;
        }
        let chunks = next..end;
        next = end;
        (!chunks.is_empty()).then(|| Fetched { chunks, ..fetched.clone() })
    })
}

async fn decode(lot: Fetched, key: Hash) -> Vec<Read> {
    let chunks = lot.chunks.clone();
    let decode = move || lot.chunks.clone().map(|at| (at, decode_chunk(&lot, at, &key))).collect();
    let decoded: Result<Vec<Read>, _> = tokio::task::spawn_blocking(decode).await;
    decoded.unwrap_or_else(|error| {
        let error = Error::internal("a task ended early").with_source(error);
        chunks.map(|at| (at, Err(error.clone()))).collect()
    })
}

fn decode_chunk(lot: &Fetched, at: usize, key: &Hash) -> Result<Bytes> {
    let bytes = lot.bytes.as_ref().map_err(Error::clone)?;
    let chunk = lot.manifest.chunks.get(at);
    let Chunk { hash, place, .. } =
        chunk.ok_or_else(|| Error::internal("a chunk is not listed"))?;
    let from = usize::try_from(place.offset - lot.span.bytes.start).unwrap_or(usize::MAX);
    let end = from.saturating_add(place.stored_bytes as usize);
    let decoded = if end > bytes.len() {
        Err(Error::corruption("the pack ends too early"))
    } else {
        decode_frame(bytes.slice(from..end), hash, place.plain_bytes, key)
    };
    decoded.map_err(|error| {
        let pack = lot.manifest.packs.get(place.pack as usize).map(|pack| pack_path(&pack.id));
        error.with_context(format!("chunk {at} in {}", pack.unwrap_or_default()))
    })
}

/// The entries of consecutive chunks, checked against the manifest and each other.
pub(super) struct Entries<S> {
    chunks: S,
    manifest: Arc<Manifest>,
    run: RunReader,
    /// The run's place in the list, how many of its entries are left, and whether none was read.
    at: usize,
    left: u32,
    first: bool,
    last_key: Bytes,
}

impl<S: Stream<Item = Read> + Unpin> Entries<S> {
    pub(super) fn new(chunks: S, manifest: &Arc<Manifest>) -> Self {
        let (manifest, run) = (Arc::clone(manifest), RunReader::new(Bytes::new()));
        Self { chunks, manifest, run, at: 0, left: 0, first: false, last_key: Bytes::new() }
    }

    /// The next entry. `None`: that was all.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        let Some(entry) = self.head().await? else { return Ok(None) };
        let bytes = match entry.value {
            RunValue::Inline(bytes) => bytes,
            RunValue::Pieces(length) => {
                // Only what is listed is allocated, whatever length is claimed.
                let most = usize::try_from(length).unwrap_or(usize::MAX).min(self.listed_pieces());
                let mut value = Vec::with_capacity(most);
                self.pieces(length, |piece| value.extend_from_slice(piece)).await?;
                value.into()
            }
        };
        let value = Value { bytes, expires_at: entry.expires_at };
        Ok(Some(Entry { key: entry.key, value }))
    }

    /// Adds the next entry to a digest, and gives the bytes of its key and value. A large value is never
    /// whole in memory.
    pub(super) async fn digest(&mut self, digest: &mut Digest) -> Result<Option<u64>> {
        let Some(entry) = self.head().await? else { return Ok(None) };
        let length = match &entry.value {
            RunValue::Inline(bytes) => bytes.len() as u64,
            RunValue::Pieces(length) => *length,
        };
        digest.begin(&entry.key, length);
        match &entry.value {
            RunValue::Inline(bytes) => digest.value(bytes),
            RunValue::Pieces(length) => self.pieces(*length, |piece| digest.value(piece)).await?,
        }
        digest.end(entry.expires_at);
        Ok(Some(entry.key.len() as u64 + length))
    }

    /// The next entry, as it is in its run.
    async fn head(&mut self) -> Result<Option<RunEntry>> {
        let of = |at| move |error: Error| error.with_context(format!("chunk {at}"));
        let entry = loop {
            if let Some(entry) = self.run.next().map_err(of(self.at))? {
                break entry;
            }
            if self.left > 0 {
                return Err(self.not_as_listed());
            }
            if !self.next_run().await? {
                return Ok(None);
            }
        };
        self.left = self.left.checked_sub(1).ok_or_else(|| self.not_as_listed())?;
        check_key(&entry.key).map_err(|error| {
            of(self.at)(Error::corruption("an entry's key is invalid").with_source(error))
        })?;
        if std::mem::take(&mut self.first) && !entry.key.starts_with(self.boundary()) {
            return Err(self.not_as_listed());
        }
        if entry.key <= self.last_key {
            return Err(of(self.at)(Error::corruption("the entries are not in key order")));
        }
        let base = &self.manifest.base;
        let value_bytes = match &entry.value {
            RunValue::Inline(bytes) => bytes.len() as u64,
            RunValue::Pieces(length) => *length,
        };
        if entry.key.len() as u64 > base.longest_key || value_bytes > base.longest_value {
            return Err(of(self.at)(Error::corruption("an entry is longer than the base says")));
        }
        self.last_key.clone_from(&entry.key);
        Ok(Some(entry))
    }

    async fn next_run(&mut self) -> Result<bool> {
        let Some((at, plain)) = self.chunks.next().await else { return Ok(false) };
        let plain = plain?;
        let about = self.manifest.chunks.get(at).and_then(|chunk| chunk.run.as_ref());
        let about = about.ok_or_else(|| {
            Error::corruption(format!("chunk {at} is a piece, and no value is left that it is of"))
        })?;
        (self.left, self.at, self.first) = (about.entries, at, true);
        self.run = RunReader::new(plain);
        Ok(true)
    }

    fn boundary(&self) -> &[u8] {
        let run = self.manifest.chunks.get(self.at).and_then(|chunk| chunk.run.as_ref());
        run.map_or(b"", |run| &run.boundary)
    }

    fn not_as_listed(&self) -> Error {
        Error::corruption(format!("chunk {} does not hold what the manifest says", self.at))
    }

    /// Bytes of the pieces that are listed behind the run.
    fn listed_pieces(&self) -> usize {
        let behind = self.manifest.chunks.iter().skip(self.at + 1);
        let pieces = behind.take_while(|chunk| chunk.run.is_none());
        pieces.map(|piece| piece.place.plain_bytes as usize).sum()
    }

    /// Reads a value that is kept in pieces.
    async fn pieces(&mut self, length: u64, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut read = 0u64;
        while read < length {
            let Some((at, plain)) = self.chunks.next().await else {
                return Err(Error::corruption("the pieces of a value are missing"));
            };
            if self.manifest.chunks.get(at).is_none_or(|chunk| chunk.run.is_some()) {
                return Err(Error::corruption(format!("chunk {at} is where a piece must be")));
            }
            let plain = plain?;
            // An empty piece would let a list without an end pass for a value.
            read += plain.len() as u64;
            if plain.is_empty() || read > length {
                return Err(Error::corruption(format!("chunk {at} is no piece of its value")));
            }
            take(&plain);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::ChunkLocation;

    fn chunk(pack: u32, offset: u64, stored_bytes: u32) -> Chunk {
        let place = ChunkLocation { pack, offset, stored_bytes, plain_bytes: 1 };
        Chunk { hash: Hash([0; 32]), place, run: None }
    }

    #[test]
    fn neighbours_are_read_together_up_to_a_size() {
        let list = [
            chunk(0, 8, 10),
            chunk(0, 18, 5),
            chunk(1, 23, 5),
            chunk(0, 23, 9 << 20),
            chunk(0, (9 << 20) + 23, 1),
        ];
        let (mut found, mut next) = (Vec::new(), 0);
        while let Some(span) = span(&list, next..5) {
            next = span.chunks.end;
            found.push((span.pack, span.bytes.start, span.chunks));
        }
        assert_eq!(found, [(0, 8, 0..2), (1, 23, 2..3), (0, 23, 3..4), (0, (9 << 20) + 23, 4..5)]);
        assert_eq!(span(&list, 1..2).unwrap().chunks, 1..2);
        assert_eq!(span(&list, 0..0), None);
    }
}
