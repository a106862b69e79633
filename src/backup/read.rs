//! Reading a base: ranges of packs, chunks, entries. Everything is checked on the way.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};

use super::chunk::{RunEntry, RunValue, decode_frame, read_run};
use super::format::{Hash, pack_path};
use super::manifest::{Chunk, Manifest};
use super::repository::Repository;
use crate::error::{Error, Result};
use crate::types::{Entry, Value, check_key};

/// Neighbouring chunks are read together up to this size.
const SPAN_BYTES: u64 = 8 << 20;
/// Requests under way at a time.
const READERS: usize = 4;

/// Chunks that stand side by side in one pack, in the order of the list.
#[derive(Debug, PartialEq, Eq)]
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
    let (repository, manifest) = (repository.clone(), Arc::clone(manifest));
    futures_util::stream::iter(spans(&manifest.chunks, part))
        .map(move |span| read_span(repository.clone(), Arc::clone(&manifest), span))
        .buffered(READERS)
        .flat_map(futures_util::stream::iter)
        .boxed()
}

fn spans(list: &[Chunk], part: Range<usize>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (at, chunk) in list.iter().enumerate().take(part.end).skip(part.start) {
        let end = chunk.offset + u64::from(chunk.stored_bytes);
        match spans.last_mut() {
            Some(span)
                if span.pack == chunk.pack
                    && span.bytes.end == chunk.offset
                    && end - span.bytes.start <= SPAN_BYTES =>
            {
                span.bytes.end = end;
                span.chunks.end = at + 1;
            }
            _ => {
                spans.push(Span { pack: chunk.pack, bytes: chunk.offset..end, chunks: at..at + 1 })
            }
        }
    }
    spans
}

async fn read_span(repository: Repository, manifest: Arc<Manifest>, span: Span) -> Vec<Read> {
    let pack = manifest.packs.get(span.pack as usize).map(|pack| pack_path(&pack.id));
    let Some(path) = pack else {
        let error = Error::internal("a chunk's pack is not listed");
        return span.chunks.map(|at| (at, Err(error.clone()))).collect();
    };
    let read = repository.objects.get_range(&path, span.bytes.clone()).await;
    let key = repository.doc.key;
    let decode = move || -> Vec<Read> {
        let chunk_of = |at: usize| -> Result<Bytes> {
            let bytes = read.as_ref().map_err(Error::clone)?;
            let listed = manifest.chunks.get(at);
            let chunk = listed.ok_or_else(|| Error::internal("a chunk is not listed"))?;
            decode_chunk(bytes, chunk, span.bytes.start, &key)
                .map_err(|error| error.with_context(format!("chunk {at} in {path}")))
        };
        span.chunks.map(|at| (at, chunk_of(at))).collect()
    };
    let decoded = tokio::task::spawn_blocking(decode).await;
    decoded.unwrap_or_else(|error| {
        vec![(0, Err(Error::internal("a task ended early").with_source(error)))]
    })
}

fn decode_chunk(bytes: &Bytes, chunk: &Chunk, start: u64, key: &Hash) -> Result<Bytes> {
    let from = usize::try_from(chunk.offset - start).unwrap_or(usize::MAX);
    let end = from.saturating_add(chunk.stored_bytes as usize);
    if end > bytes.len() {
        return Err(Error::corruption("the pack ends too early"));
    }
    decode_frame(bytes.slice(from..end), &chunk.hash, chunk.plain_bytes, key)
}

/// The entries of consecutive chunks, checked against the manifest and each other.
pub(super) struct Entries<S> {
    chunks: S,
    manifest: Arc<Manifest>,
    run: VecDeque<RunEntry>,
    last_key: Bytes,
}

impl<S: Stream<Item = Read> + Unpin> Entries<S> {
    pub(super) fn new(chunks: S, manifest: &Arc<Manifest>) -> Self {
        let manifest = Arc::clone(manifest);
        Self { chunks, manifest, run: VecDeque::new(), last_key: Bytes::new() }
    }

    /// The next entry. `None`: that was all.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        if self.run.is_empty() && !self.next_run().await? {
            return Ok(None);
        }
        let Some(entry) = self.run.pop_front() else { return Ok(None) };
        check_key(&entry.key)
            .map_err(|error| Error::corruption("an entry's key is invalid").with_source(error))?;
        if entry.key <= self.last_key {
            return Err(Error::corruption("the entries are not in key order"));
        }
        self.last_key.clone_from(&entry.key);
        let bytes = match entry.value {
            RunValue::Inline(bytes) => bytes,
            RunValue::Pieces(length) => self.pieces(length).await?,
        };
        let value = Value { bytes, expires_at: entry.expires_at };
        Ok(Some(Entry { key: entry.key, value }))
    }

    async fn next_run(&mut self) -> Result<bool> {
        let Some((at, plain)) = self.chunks.next().await else { return Ok(false) };
        let plain = plain?;
        let about = self.manifest.chunks.get(at).and_then(|chunk| chunk.run.as_ref());
        let about = about.ok_or_else(|| {
            Error::corruption(format!("chunk {at} is a piece, and no value is left that it is of"))
        })?;
        let run = read_run(plain).map_err(|error| error.with_context(format!("chunk {at}")))?;
        let first = run.first().map(|entry| &entry.key);
        if run.len() as u64 != u64::from(about.entries) || first != Some(&about.first_key) {
            return Err(Error::corruption(format!("chunk {at} holds not what the manifest says")));
        }
        self.run = run.into();
        Ok(true)
    }

    /// A value that is kept in pieces. Only what was read is allocated, whatever length is claimed.
    async fn pieces(&mut self, length: u64) -> Result<Bytes> {
        let mut value = Vec::new();
        while (value.len() as u64) < length {
            let Some((at, plain)) = self.chunks.next().await else {
                return Err(Error::corruption("the pieces of a value are missing"));
            };
            if self.manifest.chunks.get(at).is_none_or(|chunk| chunk.run.is_some()) {
                return Err(Error::corruption(format!("chunk {at} stands where a piece must be")));
            }
            value.extend_from_slice(&plain?);
        }
        if value.len() as u64 != length {
            return Err(Error::corruption("the pieces of a value are longer than it"));
        }
        Ok(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(pack: u32, offset: u64, stored_bytes: u32) -> Chunk {
        Chunk { hash: Hash([0; 32]), pack, offset, stored_bytes, plain_bytes: 1, run: None }
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
        let found = spans(&list, 0..5);
        let parts: Vec<_> = found.iter().map(|span| (span.pack, span.chunks.clone())).collect();
        assert_eq!(parts, [(0, 0..2), (1, 2..3), (0, 3..4), (0, 4..5)]);
        assert_eq!(found[0].bytes, 8..23);
        assert_eq!(spans(&list, 1..2).len(), 1);
        assert!(spans(&list, 0..0).is_empty());
    }
}
