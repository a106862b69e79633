//! What the journal knows in memory: what waits to be written, what is on the disk, and which readers need it. No I/O.

use std::collections::VecDeque;

use super::format::{Header, SEGMENT_HEADER};
use super::positions::Positions;
use super::segment::{Entry, RESERVE};
use crate::error::{Error, ErrorKind, Outcome, Result};

/// What an append does when there is no room: the budget is used up, or the disk is full.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::ErrorKind;
/// use tierstack::journal::{Journal, OnFull, Settings};
/// use tierstack::units::ByteSize;
///
/// let folder = tempfile::tempdir().unwrap();
/// let settings = Settings { max_bytes: ByteSize(1 << 20), on_full: OnFull::Refuse };
/// let journal = Journal::open(folder.path(), settings).await?;
/// let refused = loop {
///     if let Err(error) = journal.append(vec![7; 100_000]).await {
///         break error;
///     }
/// };
/// assert_eq!(refused.kind(), ErrorKind::Capacity);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// It waits until readers have released enough.
    #[default]
    Block,
    /// It fails with [`Capacity`](ErrorKind::Capacity), and nothing is written.
    Refuse,
}

/// Sizes, and what to do at their limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Bytes of all records that are kept.
    pub(super) budget: u64,
    /// Bytes of a segment. One record may need a larger one.
    pub(super) segment: u64,
    /// Bytes that may wait in memory to be written.
    pub(super) waiting: u64,
    pub(super) on_full: OnFull,
}

/// The largest record.
pub(super) const MAX_RECORD: u64 = 1 << 30;

/// A file, from its first record to where the next one begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) seed: u64,
    pub(super) first: u64,
    /// Without room that is not used.
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn of(header: &Header) -> Self {
        let Header { number, seed, first, .. } = *header;
        Self { number, seed, first, bytes: SEGMENT_HEADER }
    }
}

/// What came of an append.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// It has this sequence, and will be written.
    Taken(u64),
    /// There is no room yet.
    Wait,
}

/// What is to be done next.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// A group, with the sequence of its first record.
    pub(super) entries: Vec<Entry>,
    pub(super) first: u64,
    /// To be written with it.
    pub(super) positions: Option<Positions>,
    /// Numbers of segments that nobody needs any more.
    pub(super) remove: Vec<u64>,
    /// A segment is wanted, with room for so much.
    pub(super) rotate: Option<u64>,
    pub(super) close: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) shape: Shape,
    /// Oldest first. The last one is written to.
    pub(super) segments: VecDeque<Segment>,
    /// Bytes of all segments, and of what waits.
    pub(super) held: u64,
    /// Bytes that the last segment has room for, in addition to what waits.
    pub(super) room: u64,
    /// And those that it keeps for positions.
    pub(super) reserve: u64,
    pub(super) pending: Vec<Entry>,
    pub(super) pending_bytes: u64,
    /// The sequence of the next record.
    pub(super) next: u64,
    /// The sequence of the first record that is not known to be on the disk.
    pub(super) durable: u64,
    pub(super) positions: Positions,
    /// Those on the disk.
    pub(super) saved: Positions,
    /// A caller waits for them to be there.
    pub(super) save: bool,
    pub(super) rotate: Option<u64>,
    /// Why the segment that was wanted last is not there.
    pub(super) full: Option<Error>,
    pub(super) failed: Option<Error>,
    /// Appends that wait for room.
    pub(super) waiting: usize,
    pub(super) closing: bool,
}

impl State {
    /// Takes a record, if there is room. `again`: the caller has waited for it.
    pub(super) fn offer(&mut self, entry: &Entry, again: bool) -> Result<Offer> {
        self.check_open()?;
        self.check_size(entry)?;
        if self.rotate.is_some() {
            return Ok(Offer::Wait);
        }
        let bytes = entry.bytes();
        let full = self.full.take();
        if self.held + bytes > self.shape.budget {
            let passed = self.positions.released() >= self.next;
            if passed && self.written_to() {
                // What fills the budget is needed by nobody, and goes once it is not written to any more.
                self.rotate = Some(bytes);
                return Ok(Offer::Wait);
            }
            return match self.shape.on_full {
                OnFull::Block => Ok(Offer::Wait),
                OnFull::Refuse => Err(self.budget_used_up()),
            };
        }
        if !self.pending.is_empty() && self.pending_bytes + bytes > self.shape.waiting {
            return Ok(Offer::Wait);
        }
        if bytes > self.room {
            return match (full, self.shape.on_full) {
                (Some(full), OnFull::Refuse) if again => Err(full.with_outcome(Outcome::Nothing)),
                _ => {
                    self.rotate = Some(bytes);
                    Ok(Offer::Wait)
                }
            };
        }
        let sequence = self.next;
        self.next += 1;
        self.room -= bytes;
        self.held += bytes;
        self.pending_bytes += bytes;
        self.pending.push(entry.clone());
        Ok(Offer::Taken(sequence))
    }

    pub(super) fn check_open(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone().with_outcome(Outcome::Nothing)),
            None if self.closing => Err(Error::closed().with_outcome(Outcome::Nothing)),
            None => Ok(()),
        }
    }

    fn check_size(&self, entry: &Entry) -> Result<()> {
        // Next to it there is a segment with nothing in it.
        let most = MAX_RECORD.min(self.shape.budget.saturating_sub(2 * RESERVE));
        let bytes = entry.payload.len() as u64;
        if bytes <= most {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the record has {bytes} bytes, and the journal takes records of at most {most}; write smaller batches, or give the journal more than {} bytes",
            self.shape.budget
        )))
    }

    fn budget_used_up(&self) -> Error {
        let message = format!(
            "the journal holds {} of at most {} bytes, which its readers have not released yet; try again when they have, or give it more",
            self.held, self.shape.budget
        );
        Error::new(ErrorKind::Capacity, message).with_outcome(Outcome::Nothing)
    }

    /// Whether the last segment has a record that was appended.
    fn written_to(&self) -> bool {
        self.segments.back().is_some_and(|last| last.first < self.next)
    }

    /// Segments that nobody needs, where the positions are these.
    fn removable(&self, positions: &Positions) -> impl Iterator<Item = &Segment> {
        let released = positions.released();
        let nexts = self.segments.iter().skip(1);
        let pairs = self.segments.iter().zip(nexts);
        pairs
            .filter(move |(one, next)| next.first <= released || next.first == one.first)
            .map(|(one, _)| one)
    }

    pub(super) fn has_work(&self) -> bool {
        if self.failed.is_some() {
            return self.closing;
        }
        self.closing
            || !self.pending.is_empty()
            || self.rotate.is_some()
            || self.wants_save()
            || self.removable(&self.saved).next().is_some()
    }

    /// Whether it is worth a write of its own that the positions are on the disk.
    fn wants_save(&self) -> bool {
        self.positions != self.saved
            && (self.save
                || self.removable(&self.positions).count() > self.removable(&self.saved).count())
    }

    /// Whether those that a caller waited for are on the disk.
    pub(super) fn save_is_done(&self) -> bool {
        !self.save || self.positions == self.saved
    }

    /// What is to be done next. What waited is taken.
    pub(super) fn take(&mut self) -> Work {
        if self.failed.is_some() {
            return Work { close: self.closing, ..Work::default() };
        }
        let positions = self.take_positions();
        let entries = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        Work {
            first: self.next - entries.len() as u64,
            entries,
            positions,
            remove: self.removable(&self.saved).map(|segment| segment.number).collect(),
            rotate: self.rotate.filter(|_| !self.closing),
            close: self.closing,
        }
    }

    /// Those that are to be written now, if there is room for them.
    fn take_positions(&mut self) -> Option<Positions> {
        let needed = self.wants_save() || self.closing;
        if !needed && (self.positions == self.saved || self.pending.is_empty()) {
            return None;
        }
        let bytes = Entry::positions(&self.positions).bytes();
        if self.room >= bytes {
            self.room -= bytes;
        } else if needed && self.reserve >= bytes {
            self.reserve -= bytes;
        } else {
            // A new segment begins with them.
            self.rotate = self.rotate.or(needed.then_some(0));
            return None;
        }
        self.held += bytes;
        Some(self.positions.clone())
    }

    /// A group is on the disk, and it ends there.
    pub(super) fn wrote(&mut self, next: u64, end: u64, saved: Option<Positions>) {
        self.durable = next;
        if let Some(last) = self.segments.back_mut() {
            // It was counted when it was taken.
            last.bytes = end;
        }
        if let Some(saved) = saved {
            self.save &= saved != self.positions;
            self.saved = saved;
        }
    }

    pub(super) fn removed(&mut self, number: u64) {
        if let Some(at) = self.segments.iter().position(|segment| segment.number == number)
            && let Some(segment) = self.segments.remove(at)
        {
            self.held -= segment.bytes;
        }
    }

    /// A new segment is written to. While it was made nothing was taken.
    pub(super) fn rotated(&mut self, segment: Segment, room: u64, saved: Positions) {
        self.held += segment.bytes;
        self.segments.push_back(segment);
        (self.room, self.reserve) = (room, RESERVE);
        self.rotate = None;
        self.save &= saved != self.positions;
        self.saved = saved;
        self.full = None;
    }
}
