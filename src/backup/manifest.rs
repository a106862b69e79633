//! The manifest of a base: what is known about it, and the list of its chunks.

use bytes::Bytes;

use super::chunk::FRAME_HEADER;
use super::chunking_settings::Chunking;
use super::documents::{self, BaseInfo, Cursor, Hash, Kind, check_id, push_number};
use crate::error::{Error, Result};
use crate::types::Limits;

/// A manifest that was read.
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
    pub(super) place: ChunkLocation,
    /// `None`: a piece of a large value.
    pub(super) run: Option<Run>,
}

/// Where a chunk is, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkLocation {
    /// Its pack, by its place in the list of packs.
    pub(super) pack: u32,
    /// Where its frame begins in the pack.
    pub(super) offset: u64,
    /// Bytes of its frame.
    pub(super) stored_bytes: u32,
    /// Bytes before compression.
    pub(super) plain_bytes: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) entries: u32,
    /// What its first key begins with: see [`boundary`]. In version 1 the whole key.
    pub(super) boundary: Bytes,
}

const PIECE: u8 = 0;
const RUN: u8 = 1;
/// No chunk takes less in the list: kind, hash, four numbers.
const LEAST_CHUNK: usize = 37;
const LEAST_PACK: usize = 33;
/// A boundary is cut off here: keys can be 64 KiB long, and there is a boundary for every few of them.
const LONGEST_BOUNDARY: usize = 128;

/// What the first key of a run begins with, as far as it takes to tell it from the key before. It is a
/// copy: a key may be a part of the page with which it was read.
pub(super) fn boundary(before: &[u8], first: &[u8]) -> Bytes {
    let common = before.iter().zip(first).take_while(|(a, b)| a == b).count();
    let length = first.len().min(common + 1).min(LONGEST_BOUNDARY);
    Bytes::copy_from_slice(first.get(..length).unwrap_or(first))
}

/// The lists of a base that is being taken, the chunks as they will be in the manifest: that takes
/// half of the memory that [`Chunk`]s would.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) packs: Vec<Pack>,
    count: u64,
    chunks: Vec<u8>,
    /// Pieces whose run is not yet there.
    pieces: Vec<u8>,
}

impl Lists {
    /// Adds a chunk; a piece comes before the run that it belongs to.
    pub(super) fn push(&mut self, hash: &Hash, place: ChunkLocation, run: Option<&Run>) {
        self.count += 1;
        let out = if run.is_some() { &mut self.chunks } else { &mut self.pieces };
        out.push(if run.is_some() { RUN } else { PIECE });
        out.extend_from_slice(&hash.0);
        push_number(out, u64::from(place.pack));
        push_number(out, place.offset);
        push_number(out, u64::from(place.stored_bytes));
        push_number(out, u64::from(place.plain_bytes));
        if let Some(run) = run {
            push_number(out, u64::from(run.entries));
            push_number(out, run.boundary.len() as u64);
            out.extend_from_slice(&run.boundary);
            self.chunks.append(&mut self.pieces);
        }
    }

    /// The manifest.
    pub(super) fn encode(&self, base: &BaseInfo) -> Result<Bytes> {
        let mut packs = Vec::new();
        push_number(&mut packs, self.packs.len() as u64);
        for pack in &self.packs {
            packs.extend_from_slice(&pack.id.0);
            push_number(&mut packs, pack.bytes);
        }
        push_number(&mut packs, self.count);
        documents::encode(Kind::Base, base, &[&packs, &self.chunks])
    }
}

impl Manifest {
    /// Reads a manifest and checks that it agrees with itself.
    pub(super) fn decode(bytes: &Bytes, chunking: &Chunking) -> Result<Self> {
        let (base, tail): (BaseInfo, _) = documents::decode(Kind::Base, bytes)?;
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
        let hash = cursor.hash()?;
        let place = ChunkLocation {
            pack: small(cursor.number()?)?,
            offset: cursor.number()?,
            stored_bytes: small(cursor.number()?)?,
            plain_bytes: small(cursor.number()?)?,
        };
        let run = match kind {
            PIECE => None,
            RUN => {
                let entries = small(cursor.number()?)?;
                let length = cursor.length()?;
                Some(Run { entries, boundary: cursor.take(length)? })
            }
            _ => {
                return Err(Error::corruption(
                    "a chunk has a kind that this version does not know",
                ));
            }
        };
        let pack = packs
            .get(place.pack as usize)
            .ok_or_else(|| Error::corruption("a chunk is in a pack that is not listed"))?;
        let end = place.offset.checked_add(u64::from(place.stored_bytes));
        if end.is_none_or(|end| end > pack.bytes) {
            return Err(Error::corruption("a chunk ends behind its pack"));
        }
        let largest = chunking.largest_chunk();
        if u64::from(place.plain_bytes) > largest
            || u64::from(place.stored_bytes) > largest + FRAME_HEADER as u64
        {
            return Err(Error::corruption("a chunk is larger than this repository allows"));
        }
        chunks.push(Chunk { hash, place, run });
    }
    Ok(chunks)
}

fn check_order(base: &BaseInfo, chunks: &[Chunk]) -> Result<()> {
    if chunks.first().is_some_and(|chunk| chunk.run.is_none()) {
        return Err(Error::corruption("the list of chunks begins with a piece"));
    }
    let (mut before, mut entries) = (None::<&Bytes>, 0u64);
    for run in chunks.iter().filter_map(|chunk| chunk.run.as_ref()) {
        let valid = run.entries > 0 && (1..=Limits::MAX_KEY_BYTES).contains(&run.boundary.len());
        // Equal where two were cut off.
        if !valid || before.is_some_and(|before| *before > run.boundary) {
            return Err(Error::corruption("the list of chunks contradicts itself"));
        }
        entries = entries.saturating_add(u64::from(run.entries));
        before = Some(&run.boundary);
    }
    if entries != base.entries {
        return Err(Error::corruption("the list of chunks has not as many entries as the base"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_boundary_is_short_and_tells_the_keys_apart() {
        for (before, first, expected) in [
            ("", "user:1", "u"),
            ("user:1999", "user:2000", "user:2"),
            ("user", "user:1", "user:"),
            ("order:9", "user:1", "u"),
        ] {
            assert_eq!(boundary(before.as_bytes(), first.as_bytes()), expected);
        }
        let long = "k".repeat(60_000);
        assert_eq!(boundary(long.as_bytes(), format!("{long}+").as_bytes()), long[..128]);
    }

    proptest! {
        #[test]
        fn boundaries_are_in_the_order_of_the_keys(
            keys in prop::collection::btree_set(prop::collection::vec(0u8..3, 1..200), 2..20),
        ) {
            let keys: Vec<_> = keys.into_iter().collect();
            let mut last = boundary(b"", &keys[0]);
            for pair in keys.windows(2) {
                let next = boundary(&pair[0], &pair[1]);
                prop_assert!(pair[1].starts_with(&next) && last <= next);
                prop_assert!(next.len() == 128 || next.as_ref() > pair[0].as_slice());
                last = next;
            }
        }
    }
}
