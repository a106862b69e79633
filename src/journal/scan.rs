//! Reads the records of a segment one after the other, and trusts none of its bytes.

use std::io;

use bytes::Bytes;

use super::disk::DiskFile;
use super::format::{Head, Kind, RECORD_HEADER, Salt};

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// What a record is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Its payload, which is checked.
    Payload,
    /// To pass it: its header is checked.
    Header,
}

/// A record that is what was written.
pub(super) struct Scanned {
    pub(super) at: u64,
    pub(super) head: Head,
    /// Empty where the header alone was wanted.
    pub(super) payload: Bytes,
}

/// A place in a segment, at the begin of a record.
pub(super) struct Scanner<'a> {
    window: Window<'a>,
    salt: Salt,
    at: u64,
    /// The sequence that the next record has.
    next: u64,
}

impl<'a> Scanner<'a> {
    /// Reads records from that place on, the first of which has the sequence `next`.
    pub(super) fn new(file: &'a dyn DiskFile, salt: Salt, at: u64, next: u64) -> io::Result<Self> {
        Ok(Self { window: Window::new(file)?, salt, at, next })
    }

    /// Where the next record begins.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The sequence of the next record.
    pub(super) fn next_sequence(&self) -> u64 {
        self.next
    }

    /// The header of the next record. `None`: there is no record of this segment here.
    pub(super) fn peek(&mut self) -> io::Result<Option<Head>> {
        let behind =
            self.window.end.checked_sub(self.at).and_then(|n| n.checked_sub(RECORD_HEADER));
        let Some(behind) = behind else { return Ok(None) };
        let bytes = self.window.get(self.at, RECORD_HEADER as usize)?;
        let head = bytes.first_chunk().and_then(|bytes| Head::decode(&self.salt, bytes));
        Ok(head.filter(|head| {
            head.sequence == self.next && head.group <= self.at && u64::from(head.length) <= behind
        }))
    }

    /// The next record. `None`: there is none here that is whole, and the scanner stays where it is.
    pub(super) fn next(&mut self, want: Want) -> io::Result<Option<Scanned>> {
        let Some(head) = self.peek()? else { return Ok(None) };
        let (at, length) = (self.at, head.length as usize);
        let mut payload = Bytes::new();
        if want == Want::Payload {
            payload = self.window.copy(at + RECORD_HEADER, length)?;
            if payload.len() != length || crc32fast::hash(&payload) != head.checksum {
                return Ok(None);
            }
        }
        self.at += RECORD_HEADER + length as u64;
        self.next += u64::from(head.kind == Kind::Data);
        Ok(Some(Scanned { at, head, payload }))
    }

    /// Whether any byte from the next record on was written.
    pub(super) fn is_written(&mut self) -> io::Result<bool> {
        let mut at = self.at;
        while at < self.window.end {
            let bytes = self.window.get(at, CHUNK)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            at += bytes.len().max(1) as u64;
        }
        Ok(false)
    }

    /// Looks behind a record that is not whole for one that was written when it was on the disk already, and gives
    /// the place of that.
    pub(super) fn find_later(&mut self) -> io::Result<Option<u64>> {
        const HEADER: usize = RECORD_HEADER as usize;
        let Self { window, salt, at: damaged, .. } = self;
        let mut from = *damaged + 1;
        while from + RECORD_HEADER <= window.end {
            let bytes = window.get(from, CHUNK)?;
            let places = bytes.windows(HEADER);
            let searched = places.len().max(1) as u64;
            // Most of what lies there is room that was never written.
            if bytes.iter().any(|byte| *byte != 0) {
                for (at, bytes) in (from..).zip(places) {
                    let Some(bytes) = bytes.first_chunk::<HEADER>() else { continue };
                    // The checksum is looked at last, as that takes the longest.
                    let later = Head::fields(bytes.get(4..).unwrap_or_default())
                        .is_some_and(|head| *damaged < head.group && head.group <= at);
                    if later && Head::decode(salt, bytes).is_some() {
                        return Ok(Some(at));
                    }
                }
            }
            from += searched;
        }
        Ok(None)
    }
}

/// A part of a file in memory.
struct Window<'a> {
    file: &'a dyn DiskFile,
    end: u64,
    from: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        Ok(Self { file, end: file.bytes()?, from: 0, bytes: Vec::new() })
    }

    /// What is held of that place on, if it is so much.
    fn held(&self, at: u64, length: usize) -> Option<&[u8]> {
        let offset = usize::try_from(at.checked_sub(self.from)?).ok()?;
        self.bytes.get(offset..)?.get(..length)
    }

    /// At most so many bytes, fewer where the file ends. At most a chunk.
    fn get(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let length = length.min(usize::try_from(self.end.saturating_sub(at)).unwrap_or(CHUNK));
        if self.held(at, length).is_none() {
            let chunk = CHUNK.min(usize::try_from(self.end.saturating_sub(at)).unwrap_or(CHUNK));
            self.bytes.resize(chunk, 0);
            let read = self.file.read_at(&mut self.bytes, at)?;
            self.bytes.truncate(read);
            self.from = at;
        }
        let held = self.held(at, length.min(self.bytes.len()));
        Ok(held.unwrap_or_default())
    }

    /// Bytes of the file in memory of their own.
    fn copy(&mut self, at: u64, length: usize) -> io::Result<Bytes> {
        if length <= CHUNK {
            return Ok(Bytes::copy_from_slice(self.get(at, length)?));
        }
        let mut bytes = vec![0; length];
        let read = self.file.read_at(&mut bytes, at)?;
        bytes.truncate(read);
        Ok(bytes.into())
    }
}
