//! The manifest of a base: what is known about it, and the list of its chunks.

use bytes::Bytes;

use super::chunking::Chunking;
use super::format::{self, BaseInfo, Cursor, Hash, Kind, check_id, push_number};
use crate::error::{Error, Result};
use crate::types::Limits;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) base: BaseInfo,
    pub(super) packs: Vec<Pack>,
    /// In key order; the pieces of a run's large values follow the run.
    pub(super) chunks: Vec<Chunk>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pack {
    pub(super) id: Hash,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) hash: Hash,
    /// Its place in `packs`.
    pub(super) pack: u32,
    /// Where its frame begins in the pack.
    pub(super) offset: u64,
    /// Bytes of its frame.
    pub(super) stored_bytes: u32,
    /// Bytes before compression.
    pub(super) plain_bytes: u32,
    /// `None`: a piece of a large value.
    pub(super) run: Option<Run>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) entries: u32,
    pub(super) first_key: Bytes,
}

const PIECE: u8 = 0;
const RUN: u8 = 1;
/// No chunk takes less in the list: kind, hash, four numbers.
const LEAST_CHUNK: usize = 37;
const LEAST_PACK: usize = 33;

impl Manifest {
    pub(super) fn encode(&self) -> Result<Bytes> {
        let mut tail = Vec::new();
        push_number(&mut tail, self.packs.len() as u64);
        for pack in &self.packs {
            tail.extend_from_slice(&pack.id.0);
            push_number(&mut tail, pack.bytes);
        }
        push_number(&mut tail, self.chunks.len() as u64);
        for chunk in &self.chunks {
            tail.push(if chunk.run.is_some() { RUN } else { PIECE });
            tail.extend_from_slice(&chunk.hash.0);
            push_number(&mut tail, u64::from(chunk.pack));
            push_number(&mut tail, chunk.offset);
            push_number(&mut tail, u64::from(chunk.stored_bytes));
            push_number(&mut tail, u64::from(chunk.plain_bytes));
            if let Some(run) = &chunk.run {
                push_number(&mut tail, u64::from(run.entries));
                push_number(&mut tail, run.first_key.len() as u64);
                tail.extend_from_slice(&run.first_key);
            }
        }
        format::encode(Kind::Base, &self.base, &tail)
    }

    /// Reads a manifest and checks that it agrees with itself.
    pub(super) fn decode(bytes: &Bytes, chunking: &Chunking) -> Result<Self> {
        let (base, tail): (BaseInfo, _) = format::decode(Kind::Base, bytes)?;
        check_id(&base.id)?;
        check_id(&base.lineage)?;
        let mut cursor = Cursor(tail);
        let packs = read_packs(&mut cursor)?;
        let chunks = read_chunks(&mut cursor, &packs, chunking)?;
        if !cursor.0.is_empty() {
            return Err(Error::corruption("something follows the list of chunks"));
        }
        check_order(&base, &chunks)?;
        Ok(Self { base, packs, chunks })
    }
}

fn read_packs(cursor: &mut Cursor) -> Result<Vec<Pack>> {
    let count = cursor.length()?;
    let mut packs = Vec::with_capacity(count.min(cursor.0.len() / LEAST_PACK));
    for _ in 0..count {
        packs.push(Pack { id: cursor.hash()?, bytes: cursor.number()? });
    }
    Ok(packs)
}

fn read_chunks(cursor: &mut Cursor, packs: &[Pack], chunking: &Chunking) -> Result<Vec<Chunk>> {
    let small = |number: u64| {
        u32::try_from(number).map_err(|_| Error::corruption("a number of a chunk is too large"))
    };
    let count = cursor.length()?;
    let mut chunks = Vec::with_capacity(count.min(cursor.0.len() / LEAST_CHUNK));
    for _ in 0..count {
        let kind = cursor.byte()?;
        let mut chunk = Chunk {
            hash: cursor.hash()?,
            pack: small(cursor.number()?)?,
            offset: cursor.number()?,
            stored_bytes: small(cursor.number()?)?,
            plain_bytes: small(cursor.number()?)?,
            run: None,
        };
        chunk.run = match kind {
            PIECE => None,
            RUN => {
                let entries = small(cursor.number()?)?;
                let length = cursor.length()?;
                Some(Run { entries, first_key: cursor.take(length)? })
            }
            _ => {
                return Err(Error::corruption(
                    "a chunk has a kind that this version does not know",
                ));
            }
        };
        let pack = packs
            .get(chunk.pack as usize)
            .ok_or_else(|| Error::corruption("a chunk stands in a pack that is not listed"))?;
        let end = chunk.offset.checked_add(u64::from(chunk.stored_bytes));
        if end.is_none_or(|end| end > pack.bytes) {
            return Err(Error::corruption("a chunk ends behind its pack"));
        }
        if u64::from(chunk.plain_bytes) > chunking.largest_chunk() {
            return Err(Error::corruption("a chunk is larger than this repository allows"));
        }
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn check_order(base: &BaseInfo, chunks: &[Chunk]) -> Result<()> {
    if chunks.first().is_some_and(|chunk| chunk.run.is_none()) {
        return Err(Error::corruption("the list of chunks begins with a piece"));
    }
    let runs: Vec<&Run> = chunks.iter().filter_map(|chunk| chunk.run.as_ref()).collect();
    let ordered = runs.windows(2).all(|pair| match pair {
        [a, b] => a.first_key < b.first_key,
        _ => true,
    });
    let valid =
        |run: &&Run| run.entries > 0 && (1..=Limits::MAX_KEY_BYTES).contains(&run.first_key.len());
    let entries = runs.iter().map(|run| u64::from(run.entries)).sum::<u64>();
    if !ordered || !runs.iter().all(valid) || entries != base.entries {
        return Err(Error::corruption("the list of chunks contradicts itself"));
    }
    Ok(())
}
