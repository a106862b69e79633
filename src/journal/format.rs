//! The bytes of a segment, as `docs/formats/journal.md` draws them.

use crc32fast::Hasher;

const MAGIC: [u8; 4] = *b"tsjs";
/// The version that is written. Readers refuse all others.
const VERSION: u8 = 1;

/// Bytes of the header of a segment.
pub(super) const SEGMENT_HEADER: u64 = 57;
/// Bytes before the payload of a record.
pub(super) const RECORD_HEADER: u64 = 29;

const PREFIX: &str = "journal-";
const STAGED: &str = ".new";

/// The name of a segment's file.
pub(super) fn name(number: u64) -> String {
    format!("{PREFIX}{number:016x}")
}

/// Its name until it is complete.
pub(super) fn staged_name(number: u64) -> String {
    format!("{}{STAGED}", name(number))
}

/// The number of the segment, if it is the name of one.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|number| self::name(*number) == name)
}

pub(super) fn is_staged(name: &str) -> bool {
    name.strip_suffix(STAGED).and_then(number).is_some()
}

/// The begin of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Of the journal: drawn once, the same in all its segments.
    pub(super) id: u128,
    /// Drawn for each segment: no record of another file is one of this.
    pub(super) seed: u64,
    /// The place of the file among the others.
    pub(super) number: u64,
    /// The sequence of its first record.
    pub(super) first: u64,
    /// So many bytes were on the disk before the file had its name.
    pub(super) staged: u64,
}

/// Why bytes are no header of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Magic,
    Version(u8),
    Checksum,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER as usize);
        bytes.extend(MAGIC);
        bytes.push(VERSION);
        bytes.extend(self.id.to_be_bytes());
        for number in [self.seed, self.number, self.first, self.staged] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(Wrong::Magic)?;
        let [version] = take(&mut rest).ok_or(Wrong::Checksum)?;
        if version != VERSION {
            return Err(Wrong::Version(version));
        }
        let header = Self::fields(&mut rest).ok_or(Wrong::Checksum)?;
        if header.encode() == bytes { Ok(header) } else { Err(Wrong::Checksum) }
    }

    fn fields(rest: &mut &[u8]) -> Option<Self> {
        let id = u128::from_be_bytes(take(rest)?);
        let [seed, number, first, staged] =
            [take_u64(rest)?, take_u64(rest)?, take_u64(rest)?, take_u64(rest)?];
        Some(Self { id, seed, number, first, staged })
    }
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What was appended.
    Data,
    /// Where the readers are.
    Positions,
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) length: u32,
    /// Of [`Kind::Positions`] that of the next one that was appended.
    pub(super) sequence: u64,
    /// Where in the file the group of this record begins: all before it was on the disk before this was written.
    pub(super) group: u64,
    /// Of the payload.
    pub(super) checksum: u32,
}

/// What makes a record one of its segment.
#[derive(Clone, Debug)]
pub(super) struct Salt(Hasher);

impl Salt {
    pub(super) fn new(seed: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&seed.to_be_bytes());
        Self(hasher)
    }

    fn checksum(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(bytes);
        hasher.finalize()
    }
}

impl Head {
    pub(super) fn encode(&self, salt: &Salt) -> [u8; RECORD_HEADER as usize] {
        let mut fields = [0; RECORD_HEADER as usize - 4];
        let parts: [&[u8]; 5] = [
            &[match self.kind {
                Kind::Data => 1,
                Kind::Positions => 2,
            }],
            &self.length.to_be_bytes(),
            &self.sequence.to_be_bytes(),
            &self.group.to_be_bytes(),
            &self.checksum.to_be_bytes(),
        ];
        copy(&mut fields, parts.into_iter().flatten());
        let checksum = salt.checksum(&fields).to_be_bytes();
        let mut bytes = [0; RECORD_HEADER as usize];
        copy(&mut bytes, checksum.iter().chain(&fields));
        bytes
    }

    /// `None`: they are not the header of a record of this segment.
    pub(super) fn decode(salt: &Salt, bytes: &[u8; RECORD_HEADER as usize]) -> Option<Self> {
        let mut rest = bytes.as_slice();
        let checksum = u32::from_be_bytes(take(&mut rest)?);
        let head = Self::fields(rest)?;
        (salt.checksum(rest) == checksum).then_some(head)
    }

    /// Without a look at the checksum.
    pub(super) fn fields(mut rest: &[u8]) -> Option<Self> {
        let rest = &mut rest;
        let kind = match take(rest)? {
            [1] => Kind::Data,
            [2] => Kind::Positions,
            _ => return None,
        };
        Some(Self {
            kind,
            length: u32::from_be_bytes(take(rest)?),
            sequence: take_u64(rest)?,
            group: take_u64(rest)?,
            checksum: u32::from_be_bytes(take(rest)?),
        })
    }
}

fn copy<'a>(to: &mut [u8], from: impl Iterator<Item = &'a u8>) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_be_bytes)
}
