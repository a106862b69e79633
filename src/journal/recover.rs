//! Opens what a process left behind: takes what was written wholly, forgives a torn end, refuses a hole.
//!
//! Records at the end that no later one says to be on the disk were perhaps never synced, or the sync failed. They
//! are written again, at the begin of a new segment. The old one ends where that begins, whatever lies there.

use std::io;

use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::format::{self, Head, Header, Kind, RECORD_HEADER, SEGMENT_HEADER, Salt, Wrong};
use super::positions::Positions;
use super::scan::{Scanner, Want};
use super::segment::{Entry, Open, Plan, Refused, failed};
use super::state::Segment;
use crate::error::{Error, Result};

/// What was found, and the segment that is written to from here on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) id: u128,
    /// Oldest first, with the one that is written to.
    pub(super) segments: Vec<Segment>,
    pub(super) next: u64,
    pub(super) positions: Positions,
    pub(super) open: Open,
    /// Whether a record at the end was not whole. It was never acknowledged as durable.
    pub(super) torn: bool,
}

/// The end of the newest segment.
struct Tail {
    /// Up to here all is known to be on the disk.
    confirmed: u64,
    /// The sequence of the first record behind that, and where each of them is.
    first: u64,
    records: Vec<(u64, Head)>,
    positions: Positions,
    torn: bool,
}

/// Opens the journal of a folder, or begins one.
pub(super) fn recover(disk: &dyn Disk, capacity: u64) -> Result<Recovered> {
    let names = disk.names().map_err(|error| failed(disk, "", "listing", error))?;
    let found = headers(disk, &names)?;
    let recovered = match found.split_last() {
        Some((last, older)) => resume(disk, capacity, older, last)?,
        None => begin(disk, capacity)?,
    };
    // What never became a segment. The one that was made now is none of them any more.
    for name in names.iter().filter(|name| format::is_staged(name)) {
        match disk.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(disk, name, "removing", error));
            }
            _ => {}
        }
    }
    Ok(recovered)
}

fn resume(disk: &dyn Disk, capacity: u64, older: &[Header], last: &Header) -> Result<Recovered> {
    let name = format::name(last.number);
    let file = disk.open(&name).map_err(|error| failed(disk, &name, "opening", error))?;
    let tail = tail(disk, &name, &*file, last)?;
    let mut segments = check(disk, older, last, &tail.positions)?;
    segments.push(Segment { bytes: tail.confirmed, ..Segment::of(last) });

    let staged = tail.records.iter().map(|(_, head)| RECORD_HEADER + u64::from(head.length)).sum();
    let number = last
        .number
        .checked_add(1)
        .ok_or_else(|| damaged(disk, &name, 0, "has the last number there is"))?;
    let mut plan = Plan {
        id: last.id,
        number,
        first: tail.first,
        positions: &tail.positions,
        capacity,
        room: 0,
    };
    let records = || tail.records.iter().map(|(at, head)| copy(disk, &name, &*file, *at, head));
    let open = match Open::create(disk, &plan, staged, records()) {
        // What is there can be drained, also while the disk is full.
        Err(Refused::Full(_)) => {
            plan.capacity = 0;
            Open::create(disk, &plan, staged, records())
        }
        made => made,
    };
    let open = open.map_err(|(Refused::Full(error) | Refused::Failed(error))| error)?;
    let (id, next) = (last.id, tail.first + tail.records.len() as u64);
    segments.push(Segment { number, seed: open.seed, first: tail.first, bytes: open.end });
    clear(disk, &name, &*file, tail.confirmed)?;
    Ok(Recovered { id, segments, next, positions: tail.positions, open, torn: tail.torn })
}

fn begin(disk: &dyn Disk, capacity: u64) -> Result<Recovered> {
    let draw = || {
        disk.draw().map(u128::from).map_err(|error| failed(disk, "", "drawing a number for", error))
    };
    let (id, positions) = (draw()? << 64 | draw()?, Positions::new(1));
    let plan = Plan { id, number: 1, first: 1, positions: &positions, capacity, room: 0 };
    let open = Open::create(disk, &plan, 0, [])
        .map_err(|(Refused::Full(error) | Refused::Failed(error))| error)?;
    let segments = vec![Segment { number: 1, seed: open.seed, first: 1, bytes: open.end }];
    Ok(Recovered { id, segments, next: 1, positions, open, torn: false })
}

/// The headers of all segments, in their order.
fn headers(disk: &dyn Disk, names: &[String]) -> Result<Vec<Header>> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| format::number(name)).collect();
    numbers.sort_unstable();
    let found: Vec<Header> =
        numbers.into_iter().map(|number| header(disk, number)).collect::<Result<_>>()?;
    for (one, next) in found.iter().zip(found.iter().skip(1)) {
        let name = format::name(next.number);
        if one.id != next.id {
            return Err(damaged(
                disk,
                &name,
                0,
                "is of another journal than the segment before it",
            ));
        }
        if one.first > next.first {
            return Err(damaged(disk, &name, 0, "begins before the segment before it"));
        }
    }
    Ok(found)
}

fn header(disk: &dyn Disk, number: u64) -> Result<Header> {
    let name = format::name(number);
    let reading = |error| failed(disk, &name, "reading", error);
    let mut bytes = [0; SEGMENT_HEADER as usize];
    let read = disk.open(&name).and_then(|file| file.read_at(&mut bytes, 0)).map_err(reading)?;
    let header = Header::decode(bytes.get(..read).unwrap_or_default());
    let wrong = |why| damaged(disk, &name, 0, why);
    match header {
        Ok(header) if header.number != number => {
            Err(wrong("is the segment of another number; its name was changed"))
        }
        Ok(header) if header.first == 0 || header.staged < SEGMENT_HEADER => {
            Err(wrong("has a header that no version of tierstack writes"))
        }
        Ok(header) => Ok(header),
        Err(Wrong::Magic) => Err(wrong("is no segment of a journal")),
        Err(Wrong::Version(version)) => Err(Error::corruption(format!(
            "{} is of format version {version}, and this build reads version 1: it was written by another version of tierstack, or is damaged",
            disk.place(&name)
        ))),
        Err(Wrong::Checksum) => Err(wrong("has a damaged header")),
    }
}

/// Reads the newest segment to the end of what is whole.
fn tail(disk: &dyn Disk, name: &str, file: &dyn DiskFile, header: &Header) -> Result<Tail> {
    let reading = |error| failed(disk, name, "reading", error);
    let salt = Salt::new(header.seed);
    let mut scanner = Scanner::new(file, salt, SEGMENT_HEADER, header.first).map_err(reading)?;
    let (mut confirmed, mut first) = (header.staged, header.first);
    let (mut records, mut positions) = (Vec::new(), None);
    while let Some(record) = scanner.next(Want::Payload).map_err(reading)? {
        if record.head.group > confirmed {
            confirmed = record.head.group;
            first = scanner.next_sequence() - u64::from(record.head.kind == Kind::Data);
            records.clear();
        }
        match record.head.kind {
            Kind::Data if record.at < confirmed => first = scanner.next_sequence(),
            Kind::Data => records.push((record.at, record.head)),
            Kind::Positions => {
                let found = Positions::decode(&record.payload);
                positions = Some(found.ok_or_else(|| {
                    damaged(
                        disk,
                        name,
                        record.at,
                        "has positions of readers that no version of tierstack writes",
                    )
                })?);
            }
        }
    }
    let end = scanner.at();
    if end < confirmed {
        return Err(hole(disk, name, end, "it was on the disk before the segment had its name"));
    }
    if let Some(later) = scanner.find_later().map_err(reading)? {
        let why = format!("the record at byte {later} was written after it was on the disk");
        return Err(hole(disk, name, end, &why));
    }
    let torn = scanner.is_written().map_err(reading)?;
    let positions = positions
        .ok_or_else(|| damaged(disk, name, SEGMENT_HEADER, "does not say where its readers are"))?;
    Ok(Tail { confirmed, first, records, positions, torn })
}

/// Reads all segments but the newest, each of which must go up to the next one. Those that nobody needs any more
/// were perhaps removed already, in any order.
fn check(
    disk: &dyn Disk,
    older: &[Header],
    last: &Header,
    positions: &Positions,
) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let nexts = older.iter().skip(1).chain([last]);
    let mut expected = None;
    for (header, next) in older.iter().zip(nexts) {
        if next.first <= positions.released() {
            segments.push(Segment { bytes: 0, ..Segment::of(header) });
            continue;
        }
        let name = format::name(header.number);
        let file = disk.open(&name).map_err(|error| failed(disk, &name, "opening", error))?;
        let reading = |error| failed(disk, &name, "reading", error);
        expected.get_or_insert(header.first);
        let salt = Salt::new(header.seed);
        let mut scanner =
            Scanner::new(&*file, salt, SEGMENT_HEADER, header.first).map_err(reading)?;
        while scanner.next_sequence() < next.first
            && scanner.next(Want::Payload).map_err(reading)?.is_some()
        {}
        if scanner.next_sequence() != next.first {
            let (at, found) = (scanner.at(), scanner.next_sequence());
            // An intact end, and nothing behind it: the file between the two is gone.
            let gone =
                next.number != header.number + 1 && !scanner.is_written().map_err(reading)?;
            return Err(if gone {
                missing(disk, found, next)
            } else {
                hole(
                    disk,
                    &name,
                    at,
                    &format!("{} begins with record {}", format::name(next.number), next.first),
                )
            });
        }
        segments.push(Segment { bytes: scanner.at(), ..Segment::of(header) });
    }
    let begins = expected.unwrap_or(last.first);
    if begins > positions.released() {
        let next = older.iter().find(|header| header.first == begins).unwrap_or(last);
        return Err(missing(disk, positions.released(), next));
    }
    Ok(segments)
}

fn copy(disk: &dyn Disk, name: &str, file: &dyn DiskFile, at: u64, head: &Head) -> Result<Entry> {
    let mut payload = vec![0; head.length as usize];
    let read = file
        .read_at(&mut payload, at + RECORD_HEADER)
        .map_err(|error| failed(disk, name, "reading", error))?;
    let entry = Entry::data(Bytes::from(payload));
    if read != entry.payload.len() || entry.checksum != head.checksum {
        return Err(damaged(
            disk,
            name,
            at,
            "has changed while it was read; another program writes to it",
        ));
    }
    Ok(entry)
}

/// Gives back the room behind the end of the segment that was the newest.
fn clear(disk: &dyn Disk, name: &str, file: &dyn DiskFile, end: u64) -> Result<()> {
    let there = file.bytes().map_err(|error| failed(disk, name, "reading", error))?;
    if there > end {
        file.cut(end).map_err(|error| failed(disk, name, "cutting", error))?;
    }
    Ok(())
}

fn damaged(disk: &dyn Disk, name: &str, at: u64, why: &str) -> Error {
    Error::corruption(format!("{}, byte {at}: {why}", disk.place(name)))
}

fn hole(disk: &dyn Disk, name: &str, at: u64, why: &str) -> Error {
    Error::corruption(format!(
        "{}, byte {at}: the record there is damaged, and is not the end of the journal, as {why}. Nothing was changed. Restore the file, or move the folder of the journal away and accept that its records are lost",
        disk.place(name)
    ))
}

fn missing(disk: &dyn Disk, from: u64, next: &Header) -> Error {
    Error::corruption(format!(
        "the records {from} to {} of the journal are missing: the file before {} is gone. Nothing was changed. Restore it, or move the folder of the journal away and accept that its records are lost",
        next.first - 1,
        disk.place(&format::name(next.number))
    ))
}
