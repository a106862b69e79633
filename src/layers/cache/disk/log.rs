//! The log: records are appended to the newest segment, and the oldest one goes when there is no more room.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::folder::Folder;
use super::index::Location;
use super::record::{self, Copy};

/// A file with its place in the order, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) bytes: u64,
}

/// How the capacity is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Bytes of all files.
    pub(super) capacity: u64,
    /// Bytes of a segment, and of the largest record.
    pub(super) segment: u64,
    /// Bytes of what may wait to be written. Mostly they are shared with the memory.
    pub(super) waiting: u64,
    /// Records in the index.
    pub(super) entries: u64,
}

const WAITING: u64 = 32 << 20;

/// What a record takes of memory in the index, at most: it grows by doubling.
const INDEX_BYTES: u64 = 60;
/// Into how many segments the disk, or the index, is cut.
const PARTS: u64 = 64;

impl Shape {
    /// `index_memory`: bytes that the index may take.
    pub(super) fn new(capacity: u64, index_memory: u64) -> Self {
        // An offset has 32 bits. What the small files take is left out.
        let segment = (capacity / PARTS).clamp(1 << 20, 1 << 30);
        let entries = (index_memory / INDEX_BYTES).max(1);
        Self { capacity: capacity - (4 << 10), segment, waiting: WAITING, entries }
    }
}

pub(super) struct Log {
    folder: Arc<Folder>,
    shape: Shape,
    /// Oldest first. The last one is appended to, if it is open.
    segments: VecDeque<Segment>,
    open: Option<File>,
    /// Records in that.
    records: u64,
    next: u64,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Log {
    /// Takes over segments, oldest first, and removes every other one.
    pub(super) fn new(folder: Arc<Folder>, shape: Shape, kept: Vec<Segment>) -> io::Result<Self> {
        let there = folder.segments()?;
        let next = there.last().map_or(Some(0), |last| last.checked_add(1));
        let next = next.ok_or(io::ErrorKind::InvalidData)?;
        for number in there {
            if !kept.iter().any(|segment| segment.number == number) {
                folder.remove_segment(number)?;
            }
        }
        let bytes = kept.iter().map(|segment| segment.bytes).sum();
        let segments = kept.into();
        let (open, records, buffer) = (None, 0, Vec::new());
        Ok(Self { folder, shape, segments, open, records, next, bytes, buffer })
    }

    pub(super) fn next_segment(&self) -> u64 {
        self.next
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn segments(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.segments.iter().copied()
    }

    /// Appends a record of at most a segment. `forget` is told of each segment before it is removed.
    pub(super) fn append(
        &mut self,
        key: &[u8],
        copy: &Copy,
        forget: impl FnMut(u64),
    ) -> io::Result<Location> {
        let length = record::length(key, &copy.value);
        // Segments go as a whole, so none has too many of the records that the index takes.
        let fits = self.open.is_some()
            && self.records <= self.shape.entries / PARTS
            && self.segments.back().is_some_and(|last| last.bytes + length <= self.shape.segment);
        if !fits {
            self.roll(forget)?;
        }
        let (Some(file), Some(segment)) = (&mut self.open, self.segments.back_mut()) else {
            return Err(io::Error::other("a segment was made, and is not there"));
        };
        self.buffer.clear();
        record::encode(&mut self.buffer, segment.number, key, copy);
        self.folder.append(file, &self.buffer)?;
        let offset = segment.bytes as u32;
        segment.bytes += length;
        self.records += 1;
        self.bytes += length;
        // One large value must not keep its memory for ever.
        self.buffer.shrink_to(1 << 20);
        Ok(Location { segment: segment.number, offset, length: length as u32 })
    }

    fn roll(&mut self, forget: impl FnMut(u64)) -> io::Result<()> {
        self.open = None;
        self.make_room(self.shape.segment, forget)?;
        let number = self.next;
        self.open = Some(self.folder.create_segment(number)?);
        self.records = 0;
        self.next += 1;
        self.segments.push_back(Segment { number, bytes: 0 });
        Ok(())
    }

    /// Removes the oldest segments until there is room for that much.
    pub(super) fn make_room(&mut self, bytes: u64, mut forget: impl FnMut(u64)) -> io::Result<()> {
        while self.bytes + bytes > self.shape.capacity && self.remove_oldest(&mut forget)? {}
        Ok(())
    }

    /// Whether there was one.
    pub(super) fn remove_oldest(&mut self, mut forget: impl FnMut(u64)) -> io::Result<bool> {
        let Some(oldest) = self.segments.pop_front() else { return Ok(false) };
        if self.segments.is_empty() {
            self.open = None;
        }
        forget(oldest.number);
        self.folder.remove_segment(oldest.number)?;
        self.bytes -= oldest.bytes;
        Ok(true)
    }

    /// Removes them all.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.open = None;
        self.make_room(u64::MAX - self.bytes, |_| ())
    }
}
