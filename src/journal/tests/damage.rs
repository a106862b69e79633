//! Any bytes as a segment, and any change of a valid one: what was written up to some record, or a clear error.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::faulty::{End, Fault, Faulty};
use super::rng::Rng;
use crate::error::{ErrorKind, Result};
use crate::journal::core::{Core, Step};
use crate::journal::format::{self, RECORD_HEADER, SEGMENT_HEADER};
use crate::journal::reader::read_from;
use crate::journal::segment::{Entry, RESERVE};
use crate::journal::state::{Offer, OnFull, Shape};

const SHAPE: Shape =
    Shape { budget: 1 << 20, segment: RESERVE + 400, waiting: 1 << 20, on_full: OnFull::Refuse };

fn open(disk: &Faulty) -> Result<Core> {
    Core::open(Arc::new(disk.clone()), SHAPE)
}

/// In segments of several groups.
fn written(groups: u64, closed: bool) -> Faulty {
    written_in(SHAPE, groups, closed)
}

fn append(core: &Core, record: Bytes) {
    let entry = Entry::data(record);
    while core.offer(&entry, false).unwrap() == Offer::Wait {
        core.step();
    }
}

fn record(number: u64) -> Bytes {
    number.to_be_bytes().repeat(1 + number as usize % 7).into()
}

/// Groups of three records each, and of one of them the positions of a reader.
fn written_in(shape: Shape, groups: u64, closed: bool) -> Faulty {
    let disk = Faulty::new(groups);
    let core = Core::open(Arc::new(disk.clone()), shape).unwrap();
    for group in 0..groups {
        for number in 3 * group..3 * group + 3 {
            append(&core, record(number + 1));
        }
        if group == 1 {
            core.with(|state| {
                state.save = true;
                state.positions.add("r", 1).unwrap();
            });
        }
        core.step();
    }
    if closed {
        core.with(|state| state.closing = true);
        while core.step() != Step::Ended {}
    }
    disk.restart(End::Kill);
    disk
}

/// Opens what is there: a prefix of what was written, or damage. Gives how many records there are.
fn prefix(disk: &Faulty, all: u64) -> Result<u64, String> {
    let before = disk.files();
    let core = match open(disk) {
        Ok(core) => core,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error:?}");
            assert!(error.to_string().contains("disk/journal-"), "{error}");
            assert_eq!(disk.files(), before, "nothing is changed where something is wrong");
            return Err(error.to_string());
        }
    };
    let records = read_from(&core, 1).unwrap();
    for (number, found) in (1..).zip(&records) {
        assert_eq!((found.sequence, &found.bytes), (number, &record(number)));
    }
    let found = records.len() as u64;
    assert!(found <= all);
    // It goes on behind that, and what was dropped does not come back.
    append(&core, record(found + 1));
    core.step();
    drop(core);
    let records = read_from(&open(disk).unwrap(), 1).unwrap();
    assert_eq!(records.len() as u64, found + 1);
    Ok(found)
}

fn names(disk: &Faulty) -> Vec<String> {
    disk.files().into_keys().collect()
}

/// Where the records of a segment begin.
fn places(bytes: &[u8]) -> Vec<usize> {
    let mut at = SEGMENT_HEADER as usize;
    let mut places = Vec::new();
    while let Some(length) = bytes.get(at + 5..at + 9).filter(|_| bytes[at + 4] != 0) {
        places.push(at);
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        at += RECORD_HEADER as usize + length;
    }
    places
}

#[test]
fn every_byte_of_a_closed_journal_counts() {
    let files = written(9, true).files();
    let (last, end) =
        files.last_key_value().map(|(name, bytes)| (name.clone(), bytes.len())).unwrap();
    let closing = *places(&files[&last]).last().unwrap();
    assert!(files.len() > 2, "{} segments", files.len());
    let (mut refused, mut forgiven) = (0, 0);
    for (name, bytes) in &files {
        // Room that is not used follows in none of them.
        for at in 0..bytes.len() {
            let disk = Faulty::new(1);
            for (other, bytes) in &files {
                let mut bytes = bytes.clone();
                if other == name {
                    bytes[at] ^= 1 << (at % 8);
                }
                disk.put(other, &bytes);
            }
            match prefix(&disk, 27) {
                Err(said) => {
                    assert!(
                        said.contains(name.as_str()) && said.contains("byte")
                            || said.contains("version"),
                        "{said}"
                    );
                    refused += 1;
                }
                Ok(found) => {
                    assert_eq!(found, 27, "byte {at} of {name}");
                    // The record with which it was closed says nothing that is needed.
                    assert!(
                        *name == last && (closing..end).contains(&at),
                        "byte {at} of {name} is not looked at"
                    );
                    forgiven += 1;
                }
            }
        }
    }
    assert!(refused > 1_000 && forgiven == end - closing, "{refused} and {forgiven}");
}

#[test]
fn a_cut_anywhere_in_the_last_group_is_forgiven_and_before_it_refused() {
    let files = written_in(Shape { segment: RESERVE + 1_000, ..SHAPE }, 4, false).files();
    assert_eq!(files.len(), 1);
    let (name, bytes) = files.first_key_value().unwrap();
    let places = places(bytes);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // Positions, and three groups of three with positions in one, before the last three.
    let last_group = places[11];
    let (mut refused, mut forgiven) = (0, 0);
    for at in SEGMENT_HEADER as usize..end {
        // A sector that was never written.
        let disk = Faulty::new(1);
        let mut torn = bytes.clone();
        torn[at..end.min(at + 8)].fill(0);
        disk.put(name, &torn);
        match prefix(&disk, 12) {
            Ok(found) => {
                assert!(torn == *bytes || (9..12).contains(&found), "{found} records");
                assert!(torn == *bytes || at >= last_group, "byte {at} was acknowledged");
                forgiven += 1;
            }
            Err(said) => {
                assert!(at < last_group, "byte {at}: {said}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100 && forgiven > 50, "{refused} and {forgiven}");
}

#[test]
fn a_missing_segment_is_named() {
    let count = names(&written(12, true)).len();
    assert!(count > 3);
    // Without the last one nobody can know.
    for at in 0..count - 1 {
        let disk = written(12, true);
        let gone = names(&disk)[at].clone();
        disk.delete(&gone);
        let said = prefix(&disk, 36).unwrap_err();
        assert!(said.contains("are missing") && said.contains(&names(&disk)[at]), "{said}");
    }
}

#[test]
fn segments_of_another_journal_or_name_are_refused() {
    let (disk, other) = (written(12, true), written(13, true));
    let strange = other.files().into_iter().nth(1).unwrap();
    disk.put(&strange.0, &strange.1);
    assert!(prefix(&disk, 36).unwrap_err().contains("another journal"));

    let disk = written(12, true);
    let (name, bytes) = disk.files().pop_last().unwrap();
    disk.delete(&name);
    disk.put(&format::name(77), &bytes);
    assert!(prefix(&disk, 36).unwrap_err().contains("another number"));
}

#[test]
fn no_change_of_the_files_gives_a_record_that_was_not_written() {
    let mut rng = Rng(7);
    let mut outcomes = BTreeMap::new();
    for round in 0..3_000 {
        let (groups, closed) = (2 + rng.below(9), rng.percent(50));
        let disk = written(groups, closed);
        let files = disk.files();
        for _ in 0..1 + rng.below(3) {
            let (name, mut bytes) = files
                .iter()
                .nth(rng.below(files.len() as u64) as usize)
                .map(|(name, bytes)| (name.clone(), bytes.clone()))
                .unwrap();
            let at = rng.below(bytes.len() as u64) as usize;
            let length = (1 + rng.below(200) as usize).min(bytes.len() - at);
            match rng.below(6) {
                0 => bytes[at..at + length].fill(0),
                1 => bytes[at..at + length].iter_mut().for_each(|byte| *byte = rng.next() as u8),
                2 => bytes.truncate(at),
                3 => {
                    let to = rng.below((bytes.len() - length) as u64 + 1) as usize;
                    bytes.copy_within(at..at + length, to);
                }
                // From another segment, as a disk does that uses its blocks again.
                4 => {
                    let other = files.values().nth(rng.below(files.len() as u64) as usize).unwrap();
                    let length = length.min(other.len().saturating_sub(at));
                    let at = at.min(other.len());
                    bytes[at..at + length].copy_from_slice(&other[at..at + length]);
                }
                _ => drop(bytes.drain(at..at + length)),
            }
            disk.put(&name, &bytes);
        }
        let outcome = match prefix(&disk, 3 * groups) {
            Err(_) => "refused",
            Ok(found) if found == 3 * groups => "whole",
            Ok(_) => "shorter",
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
        assert!(round < 2_999 || outcomes.len() == 3, "{outcomes:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_segment_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..400), valid in any::<bool>()) {
        if valid {
            let header = format::Header { id: 1, seed: 2, number: 1, first: 1, staged: 57 };
            bytes.splice(0..0, header.encode());
        }
        let disk = Faulty::new(1);
        disk.put(&format::name(1), &bytes);
        prop_assert!(prefix(&disk, 0).is_err());
    }
}

#[test]
fn a_failed_open_can_be_tried_again() {
    for fault in [Fault::Io, Fault::Full, Fault::Crash] {
        let mut failed = 0;
        for call in 0.. {
            let disk = written(5, false);
            disk.plan(call, fault);
            let opened = open(&disk);
            let fired = disk.fired().is_some();
            failed += u64::from(opened.is_err());
            drop(opened);
            disk.restart(if call % 2 == 0 { End::Kill } else { End::PowerCut });
            assert_eq!(read_from(&open(&disk).unwrap(), 1).unwrap().len(), 15);
            if !fired {
                break;
            }
        }
        assert!(failed > 10, "{fault:?}: {failed}");
    }
}

#[test]
fn a_record_in_the_place_of_another_is_none() {
    let disk = Faulty::new(1);
    let core = open(&disk).unwrap();
    for record in ["one", "two", "six"] {
        append(&core, record.into());
    }
    core.step();
    drop(core);
    let files = disk.files();
    let (name, bytes) = files.first_key_value().unwrap();
    let places = places(bytes);
    let length = RECORD_HEADER as usize + 3;
    for (from, to) in [(3, 1), (2, 1), (3, 2), (1, 2), (1, 3)] {
        let mut bytes = bytes.clone();
        bytes.copy_within(places[from]..places[from] + length, places[to]);
        let disk = Faulty::new(1);
        disk.put(name, &bytes);
        // They are one group, so what is behind may never have been written.
        let core = open(&disk).unwrap();
        assert_eq!(read_from(&core, 1).unwrap().len(), to - 1, "{from} to {to}");
    }
}

#[test]
fn what_was_written_anew_is_acknowledged_and_every_byte_of_it_counts() {
    let disk = written_in(Shape { segment: RESERVE + 1_000, ..SHAPE }, 1, false);
    drop(open(&disk).unwrap());
    let files = disk.files();
    let (name, bytes) = files.last_key_value().unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert_eq!(places(bytes).len(), 4, "positions, and three records");
    for at in 0..end {
        let disk = Faulty::new(1);
        for (other, bytes) in &files {
            disk.put(other, bytes);
        }
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        disk.put(name, &bytes);
        prefix(&disk, 3).unwrap_err();
    }
}
