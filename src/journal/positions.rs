//! Where the readers are. A segment lives until the last of them has passed it.

use std::collections::BTreeMap;

use super::format::{take, take_u64};
use crate::error::{Error, ErrorKind, Result};

/// So many of them, and names so long, fit into the room that each segment keeps for a record of positions.
pub(super) const MAX_READERS: usize = 16;
pub(super) const MAX_NAME: usize = 100;

/// The positions of all readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Positions {
    /// What lies before may be gone.
    released: u64,
    /// The sequence that each of them needs next.
    readers: BTreeMap<String, u64>,
}

impl Positions {
    /// Of a journal that begins at that sequence.
    pub(super) fn new(first: u64) -> Self {
        Self { released: first, readers: BTreeMap::new() }
    }

    /// The first sequence that must be there. Without a reader nothing is released.
    pub(super) fn released(&self) -> u64 {
        self.released
    }

    pub(super) fn of(&self, reader: &str) -> Option<u64> {
        self.readers.get(reader).copied()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, u64)> {
        self.readers.iter().map(|(name, next)| (name.as_str(), *next))
    }

    /// Adds a reader, at the earliest where the journal begins. Gives where it is.
    pub(super) fn add(&mut self, reader: &str, next: u64) -> Result<u64> {
        if reader.is_empty() || reader.len() > MAX_NAME {
            return Err(Error::invalid(format!(
                "the name of a reader of the journal has {} bytes; 1 to {MAX_NAME} are allowed",
                reader.len()
            )));
        }
        if self.readers.len() >= MAX_READERS {
            return Err(Error::new(
                ErrorKind::Capacity,
                format!(
                    "the journal has {MAX_READERS} readers already, and takes no more; forget one"
                ),
            ));
        }
        let next = next.max(self.released);
        self.readers.insert(reader.to_owned(), next);
        Ok(next)
    }

    /// A reader never goes back.
    pub(super) fn advance(&mut self, reader: &str, next: u64) -> Result<()> {
        let position = self.readers.get_mut(reader).ok_or_else(forgotten)?;
        *position = next.max(*position);
        self.release();
        Ok(())
    }

    pub(super) fn forget(&mut self, reader: &str) {
        self.readers.remove(reader);
        self.release();
    }

    fn release(&mut self) {
        if let Some(least) = self.readers.values().min() {
            self.released = self.released.max(*least);
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.released.to_be_bytes().to_vec();
        bytes.push(self.readers.len() as u8);
        for (name, next) in &self.readers {
            bytes.push(name.len() as u8);
            bytes.extend(name.as_bytes());
            bytes.extend(next.to_be_bytes());
        }
        bytes
    }

    /// `None`: they are no positions.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut positions = Self::new(take_u64(&mut bytes)?);
        let [count] = take(&mut bytes)?;
        for _ in 0..count {
            let [length] = take(&mut bytes)?;
            let (name, rest) = bytes.split_at_checked(length.into())?;
            bytes = rest;
            let name = std::str::from_utf8(name).ok()?.to_owned();
            positions.readers.insert(name, take_u64(&mut bytes)?);
        }
        (bytes.is_empty() && positions.readers.len() == usize::from(count)).then_some(positions)
    }
}

pub(super) fn forgotten() -> Error {
    Error::invalid("the journal has forgotten this reader; add it again, then bring it up to date")
}
