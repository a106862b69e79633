//! The index as a file: written at a clean close, and consumed when the folder is opened again.

use std::io::{self, Read, Write};

use super::hash::HashKey;
use super::index::{Index, Location};
use super::log::Segment;
use super::timeline::{Stood, Tick};
use crate::clock::Timestamp;

const MAGIC: [u8; 4] = *b"tsci";
/// Version 1 had hashes without a secret: what it left is not taken over.
const VERSION: u8 = 2;
/// Bytes before the segments, of a segment, before the entries, of an entry, and at the end.
const HEAD: usize = 5 + 6 * 8;
const SEGMENT: usize = 16;
const COUNT: usize = 8;
const ENTRY: usize = 24;
const SUM: usize = 4;

/// What a close leaves to the next open.
pub(super) struct Saved {
    /// Of the stack whose entries these are.
    pub(super) owner: u64,
    pub(super) hash_key: HashKey,
    pub(super) stood: Stood,
    pub(super) segments: Vec<Segment>,
}

/// Bytes of the file.
pub(super) fn length(segments: usize, entries: usize) -> u64 {
    (HEAD + segments * SEGMENT + COUNT + entries * ENTRY + SUM) as u64
}

/// Keeps the checksum of what passes.
struct Summed<T> {
    inner: T,
    sum: crc32fast::Hasher,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        Self { inner, sum: crc32fast::Hasher::new() }
    }
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.inner.write_all(bytes)
    }

    fn put_all<const N: usize>(&mut self, numbers: [u64; N]) -> io::Result<()> {
        numbers.iter().try_for_each(|number| self.put(&number.to_be_bytes()))
    }
}

impl<R: Read> Summed<R> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.sum.update(&bytes);
        Ok(bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.take().map(u32::from_be_bytes)
    }
}

pub(super) fn encode(saved: &Saved, index: &Index, out: impl Write) -> io::Result<()> {
    let mut out = Summed::new(out);
    out.put(&MAGIC)?;
    out.put(&[VERSION])?;
    let Stood { tick, wall } = saved.stood;
    out.put_all(saved.hash_key.0)?;
    out.put_all([saved.owner, tick.0, wall.as_millis(), saved.segments.len() as u64])?;
    for segment in &saved.segments {
        out.put_all([segment.number, segment.bytes])?;
    }
    out.put_all([index.len() as u64])?;
    for (hash, location) in index.iter() {
        out.put_all([hash, location.segment])?;
        out.put(&location.offset.to_be_bytes())?;
        out.put(&location.length.to_be_bytes())?;
    }
    let sum = out.sum.finalize();
    out.inner.write_all(&sum.to_be_bytes())?;
    out.inner.flush()
}

/// `None`: it is damaged, or of another version.
pub(super) fn decode(from: impl Read) -> io::Result<Option<(Saved, Index)>> {
    match parse(from) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        parsed => parsed,
    }
}

fn parse(from: impl Read) -> io::Result<Option<(Saved, Index)>> {
    let mut from = Summed::new(from);
    if from.take()? != MAGIC || from.take()? != [VERSION] {
        return Ok(None);
    }
    let hash_key = HashKey([from.u64()?, from.u64()?]);
    let owner = from.u64()?;
    let stood = Stood { tick: Tick(from.u64()?), wall: Timestamp::from_millis(from.u64()?) };
    let mut segments = Vec::new();
    for _ in 0..from.u64()? {
        segments.push(Segment { number: from.u64()?, bytes: from.u64()? });
    }
    let mut index = Index::default();
    for _ in 0..from.u64()? {
        let (hash, segment) = (from.u64()?, from.u64()?);
        index.insert(hash, Location { segment, offset: from.u32()?, length: from.u32()? });
    }
    let sum = from.sum.clone().finalize();
    let mut end = Vec::new();
    from.inner.by_ref().take(SUM as u64 + 1).read_to_end(&mut end)?;
    let whole = end == sum.to_be_bytes();
    Ok(whole.then_some((Saved { owner, hash_key, stood, segments }, index)))
}
