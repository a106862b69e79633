//! An entry as it is in a segment. Drawn in `docs/formats/cache-disk.md`.

use bytes::Bytes;

use super::super::coherence::Epoch;
use super::timeline::Tick;
use crate::clock::Timestamp;
use crate::types::Value;

const MAGIC: [u8; 4] = *b"tscr";
const VERSION: u8 = 1;
/// What the checksum covers begins behind it; what precedes it is compared as it is.
const COVERED: usize = 9;
const HEADER: usize = 50;
/// The flag of a value with an expiry.
const EXPIRES: u8 = 1;

/// What is kept of an entry in addition to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) value: Value,
    /// In which its load began. Epochs are numbered from the start when the folder is opened.
    pub(super) began: Epoch,
    /// From then on it is not served.
    pub(super) until: Tick,
}

/// Bytes of a record.
pub(super) fn length(key: &[u8], value: &Value) -> u64 {
    (HEADER + key.len() + value.bytes.len()) as u64
}

/// Appends a record. Keys and values have been found to be shorter than a segment.
pub(super) fn encode(into: &mut Vec<u8>, segment: u64, key: &[u8], copy: &Copy) {
    let start = into.len();
    into.extend_from_slice(&MAGIC);
    into.push(VERSION);
    into.extend_from_slice(&[0; 4]);
    into.push(if copy.value.expires_at.is_some() { EXPIRES } else { 0 });
    into.extend_from_slice(&(key.len() as u32).to_be_bytes());
    into.extend_from_slice(&(copy.value.bytes.len() as u32).to_be_bytes());
    let expires = copy.value.expires_at.map_or(0, Timestamp::as_millis);
    for number in [segment, copy.began.number(), copy.until.0, expires] {
        into.extend_from_slice(&number.to_be_bytes());
    }
    into.extend_from_slice(key);
    into.extend_from_slice(&copy.value.bytes);
    let Some((head, covered)) =
        into.get_mut(start..).and_then(|all| all.split_at_mut_checked(COVERED))
    else {
        return;
    };
    if let Some(place) = head.last_chunk_mut::<4>() {
        *place = crc32fast::hash(covered).to_be_bytes();
    }
}

/// Takes the numbers of a header off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

/// The key and the entry of a record that is whole, and was written to that segment.
pub(super) fn decode(record: &[u8], segment: u64) -> Option<(&[u8], Copy)> {
    let mut fields = Fields(record);
    if fields.take()? != MAGIC || fields.take()? != [VERSION] {
        return None;
    }
    if fields.u32()? != crc32fast::hash(fields.0) {
        return None;
    }
    let [flags] = fields.take()?;
    let (key, value) = (fields.u32()? as usize, fields.u32()? as usize);
    if fields.u64()? != segment {
        return None;
    }
    let began = Epoch::of_number(fields.u64()?);
    let until = Tick(fields.u64()?);
    let expires = fields.u64()?;
    let value_at = HEADER.checked_add(key)?;
    if record.len() != value_at.checked_add(value)? {
        return None;
    }
    let value = Value {
        // Not a part of the record: it may stay in memory, where it is counted as it is.
        bytes: Bytes::copy_from_slice(record.get(value_at..)?),
        expires_at: (flags & EXPIRES != 0).then_some(Timestamp::from_millis(expires)),
    };
    Some((record.get(HEADER..value_at)?, Copy { value, began, until }))
}
