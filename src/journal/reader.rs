//! Readers: each at its own position, through records that are on the disk.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::core::Core;
use super::format::{self, Kind, RECORD_HEADER, SEGMENT_HEADER, Salt};
use super::positions::forgotten;
use super::scan::{Scanner, Want};
use super::segment::failed;
use super::state::Segment;
use crate::error::{Error, Result};

/// A record, as it was appended.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::Batch;
/// use tierstack::journal::{Journal, Settings, batch};
///
/// let folder = tempfile::tempdir().unwrap();
/// let journal = Journal::open(folder.path(), Settings::default()).await?;
/// let mut reader = journal.reader("mirror", 0).await?;
/// let written = Batch::new().put("user:1", "Ada");
/// let sequence = journal.append(batch::encode(&written)?).await?;
/// journal.durable(sequence).await?;
/// assert_eq!((journal.usage().durable, journal.usage().next), (2, 2));
///
/// let records = reader.read(1 << 20).await?;
/// assert_eq!(batch::decode(records[0].bytes.clone())?, written);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place among all records: each has the next number.
    pub sequence: u64,
    /// What was appended.
    pub bytes: Bytes,
}

/// Prints the length, never the bytes.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({}, {} bytes)", self.sequence, self.bytes.len())
    }
}

/// Reads a [`Journal`](super::Journal) in its order, and holds what it has not released.
/// See [`Journal`](super::Journal) for an example.
///
/// Dropping it changes nothing: the journal knows it by its name, also after the next open.
#[derive(Debug)]
pub struct Reader {
    core: Arc<Core>,
    name: String,
    cursor: Cursor,
}

/// The next record, and where it is, if that is known.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    next: u64,
    place: Option<(u64, u64)>,
}

impl Reader {
    pub(super) fn new(core: Arc<Core>, name: String, next: u64) -> Self {
        Self { core, name, cursor: Cursor { next, place: None } }
    }

    /// The name by which the journal knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sequence of the record that [`read`](Self::read) gives next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.cursor.next
    }

    /// The next records that are on the disk: about so many bytes, and at least one record if there is one. Empty:
    /// there is none yet; [`Journal::durable`](super::Journal::durable) waits for one.
    ///
    /// Dropping the future leaves the reader where it was.
    ///
    /// # Errors
    /// [`Corruption`](crate::ErrorKind::Corruption) where a record is not what was written, with the file and the
    /// place.
    pub async fn read(&mut self, bytes: usize) -> Result<Vec<Record>> {
        #[cfg(test)]
        if self.core.stepped.load(std::sync::atomic::Ordering::Relaxed) {
            return self.read_here(bytes);
        }
        let runtime = Handle::try_current().map_err(|error| {
            Error::unsupported("a journal is read in a thread of a tokio runtime, and there is none; call it from within one").with_source(error)
        })?;
        let (core, cursor) = (Arc::clone(&self.core), self.cursor);
        let read = runtime.spawn_blocking(move || page(&core, cursor, bytes)).await;
        let (records, cursor) = read.map_err(|error| {
            Error::internal("reading the journal ended early").with_source(error)
        })??;
        self.cursor = cursor;
        Ok(records)
    }

    #[cfg(test)]
    pub(super) fn read_here(&mut self, bytes: usize) -> Result<Vec<Record>> {
        let (records, cursor) = page(&self.core, self.cursor, bytes)?;
        self.cursor = cursor;
        Ok(records)
    }

    /// Goes to a record that it has not released.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where it is released, or was not appended yet.
    pub fn seek(&mut self, sequence: u64) -> Result<()> {
        let (from, to) = self.core.with(|state| (state.positions.of(&self.name), state.next));
        let from = from.ok_or_else(forgotten)?;
        if !(from..=to).contains(&sequence) {
            return Err(Error::invalid(format!(
                "the reader '{}' of the journal can go to the records {from} to {to}, and was told to go to {sequence}",
                self.name
            )));
        }
        self.cursor = Cursor { next: sequence, place: None };
        Ok(())
    }

    /// Says that it needs no record up to this one any more.
    ///
    /// The position is kept on the disk with a later group, at the latest when a segment can be removed or the
    /// journal is closed. So after a crash a reader may find itself at an earlier one, and then reads records again.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the record is not on the disk yet, or the reader
    /// was [forgotten](super::Journal::forget).
    pub fn release(&self, sequence: u64) -> Result<()> {
        self.core.advance(&self.name, sequence.saturating_add(1))
    }
}

/// All that is on the disk from a record on.
#[cfg(test)]
pub(super) fn read_from(core: &Core, next: u64) -> Result<Vec<Record>> {
    Ok(page(core, Cursor { next, place: None }, usize::MAX)?.0)
}

/// Reads in this thread.
fn page(core: &Core, mut cursor: Cursor, bytes: usize) -> Result<(Vec<Record>, Cursor)> {
    let mut records = Vec::new();
    let mut left = bytes;
    while let Some((segment, until)) = locate(core, cursor.next)? {
        let name = format::name(segment.number);
        let reading = |error: io::Error| failed(&*core.disk, &name, "reading", error);
        let file = core.disk.open(&name).map_err(reading)?;
        let known = cursor.place.filter(|(number, _)| *number == segment.number);
        let (at, next) = known.map_or((SEGMENT_HEADER, segment.first), |(_, at)| (at, cursor.next));
        let mut scanner =
            Scanner::new(&*file, Salt::new(segment.seed), at, next).map_err(reading)?;
        while scanner.next_sequence() < until {
            let wanted = scanner.next_sequence() >= cursor.next;
            if let (true, Some(head)) = (wanted, scanner.peek().map_err(reading)?) {
                let length = head.length as usize + RECORD_HEADER as usize;
                if head.kind == Kind::Data && !records.is_empty() && length > left {
                    return Ok((records, cursor));
                }
                left = left.saturating_sub(length);
            }
            let sequence = scanner.next_sequence();
            let want = if wanted { Want::Payload } else { Want::Header };
            let record = scanner.next(want).map_err(reading)?.ok_or_else(|| {
                Error::corruption(format!(
                    "{}, byte {}: the record {sequence} is damaged, and was on the disk",
                    core.disk.place(&name),
                    scanner.at()
                ))
            })?;
            if wanted {
                if record.head.kind == Kind::Data {
                    records.push(Record { sequence, bytes: record.payload });
                }
                cursor = Cursor {
                    next: scanner.next_sequence(),
                    place: Some((segment.number, scanner.at())),
                };
            }
        }
    }
    Ok((records, cursor))
}

/// The segment of a record, and the first record that it does not have, or that is not on the disk. `None`: the
/// record is not on the disk.
fn locate(core: &Core, sequence: u64) -> Result<Option<(Segment, u64)>> {
    core.with(|state| {
        if sequence >= state.durable {
            return Ok(None);
        }
        let behind = state.segments.partition_point(|segment| segment.first <= sequence);
        let segment = behind.checked_sub(1).and_then(|at| state.segments.get(at));
        let segment = *segment.ok_or_else(|| {
            Error::invalid(format!(
                "the record {sequence} of the journal was released, and is gone"
            ))
        })?;
        let until =
            state.segments.get(behind).map_or(state.durable, |next| next.first.min(state.durable));
        Ok(Some((segment, until)))
    })
}
