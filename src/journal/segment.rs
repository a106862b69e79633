//! Makes segments and writes to them.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::format::{self, Head, Header, Kind, RECORD_HEADER, SEGMENT_HEADER, Salt};
use super::positions::Positions;
use crate::error::Error;

/// What each segment keeps free of data: positions are written there, so that what nobody needs any more can be
/// removed when the disk is full.
pub(super) const RESERVE: u64 = 4 << 10;
/// Records up to this size are gathered into one write.
const GATHERED: usize = 64 << 10;

/// A record that is to be written.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    kind: Kind,
    pub(super) payload: Bytes,
    pub(super) checksum: u32,
}

impl Entry {
    /// The length of the payload has 32 bits: callers ensure that.
    pub(super) fn data(payload: Bytes) -> Self {
        Self { kind: Kind::Data, checksum: crc32fast::hash(&payload), payload }
    }

    pub(super) fn positions(positions: &Positions) -> Self {
        let payload = Bytes::from(positions.encode());
        Self { kind: Kind::Positions, checksum: crc32fast::hash(&payload), payload }
    }

    /// In the file.
    pub(super) fn bytes(&self) -> u64 {
        RECORD_HEADER + self.payload.len() as u64
    }
}

/// Why there is no new segment.
#[derive(Debug)]
pub(super) enum Refused {
    /// The disk is full. Nothing has changed.
    Full(Error),
    /// The disk failed.
    Failed(Error),
}

/// What a segment is made of.
pub(super) struct Plan<'a> {
    pub(super) id: u128,
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) positions: &'a Positions,
    /// Bytes of the file, at least.
    pub(super) capacity: u64,
    /// Room for data behind what it begins with, at least.
    pub(super) room: u64,
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) number: u64,
    pub(super) seed: u64,
    file: Arc<dyn DiskFile>,
    salt: Salt,
    /// Bytes that are written.
    pub(super) end: u64,
    capacity: u64,
}

impl Open {
    /// Makes a segment that begins with the positions and these records. It has its name when all of it is on the
    /// disk, and not before.
    pub(super) fn create(
        disk: &dyn Disk,
        plan: &Plan<'_>,
        staged_bytes: u64,
        records: impl IntoIterator<Item = Result<Entry, Error>>,
    ) -> Result<Self, Refused> {
        let staged = format::staged_name(plan.number);
        let made = Self::stage(disk, plan, &staged, staged_bytes, records);
        let made = made.and_then(|open| match disk.rename(&staged, &format::name(plan.number)) {
            Ok(()) => Ok(open),
            Err(error) => Err(refused(disk, &staged, "naming", error)),
        });
        if made.is_err() {
            // An open removes it, if this fails.
            let _ = disk.remove(&staged);
        }
        let made = made?;
        match disk.sync_folder() {
            Ok(()) => Ok(made),
            Err(error) => Err(Refused::Failed(failed(disk, "", "syncing the folder of", error))),
        }
    }

    fn stage(
        disk: &dyn Disk,
        plan: &Plan<'_>,
        name: &str,
        staged_bytes: u64,
        records: impl IntoIterator<Item = Result<Entry, Error>>,
    ) -> Result<Self, Refused> {
        let positions = Entry::positions(plan.positions);
        let staged = SEGMENT_HEADER + positions.bytes() + staged_bytes;
        let capacity = plan.capacity.max(staged + plan.room + RESERVE);
        let refused = |doing| move |error| refused(disk, name, doing, error);
        let seed = disk.draw().map_err(refused("drawing a number for"))?;
        let file = disk.create(name, capacity).map_err(refused("making"))?;
        let (id, number, first) = (plan.id, plan.number, plan.first);
        let header = Header { id, seed, number, first, staged }.encode();
        file.write_at(&header, 0).map_err(refused("writing"))?;
        let salt = Salt::new(seed);
        let mut open = Self { number, seed, file, salt, end: SEGMENT_HEADER, capacity };
        let mut sequence = first;
        for entry in std::iter::once(Ok(positions)).chain(records) {
            let entry = entry.map_err(Refused::Failed)?;
            sequence = open.write(sequence, [&entry]).map_err(refused("writing"))?;
        }
        if open.end != staged {
            return Err(Refused::Failed(Error::internal(
                "a segment began with other bytes than it was to",
            )));
        }
        open.file.sync().map_err(refused("syncing"))?;
        Ok(open)
    }

    /// Room for data.
    pub(super) fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.end + RESERVE)
    }

    pub(super) fn name(&self) -> String {
        format::name(self.number)
    }

    /// Writes a group, and gives the sequence behind it. It is not yet on the disk.
    pub(super) fn write<'a>(
        &mut self,
        mut sequence: u64,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> io::Result<u64> {
        let group = self.end;
        let mut gathered = Vec::new();
        for Entry { kind, payload, checksum } in entries {
            let (kind, checksum, length) = (*kind, *checksum, payload.len() as u32);
            let head = Head { kind, length, sequence, group, checksum };
            gathered.extend(head.encode(&self.salt));
            sequence += u64::from(kind == Kind::Data);
            if payload.len() > GATHERED {
                self.put(&mut gathered)?;
                self.file.write_at(payload, self.end)?;
                self.end += payload.len() as u64;
            } else {
                gathered.extend_from_slice(payload);
                if gathered.len() > 16 * GATHERED {
                    self.put(&mut gathered)?;
                }
            }
        }
        self.put(&mut gathered)?;
        Ok(sequence)
    }

    fn put(&mut self, gathered: &mut Vec<u8>) -> io::Result<()> {
        if !gathered.is_empty() {
            self.file.write_at(gathered, self.end)?;
            self.end += gathered.len() as u64;
            gathered.clear();
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    /// Gives back the room that was not used.
    pub(super) fn cut(&self) -> io::Result<()> {
        self.file.cut(self.end)
    }
}

/// The file is new, and nothing depends on it: where the disk is full, nothing is lost.
fn refused(disk: &dyn Disk, name: &str, doing: &str, error: io::Error) -> Refused {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let place = disk.place(name);
    let made = Error::io(format!("{doing} {place} failed"), error);
    if full { Refused::Full(made) } else { Refused::Failed(made) }
}

/// A failure of a file or of the folder.
pub(super) fn failed(disk: &dyn Disk, name: &str, doing: &str, error: io::Error) -> Error {
    Error::io(format!("{doing} {} failed", disk.place(name)), error)
}
