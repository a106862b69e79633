//! What a journal is told, and what it tells of itself.

use super::state::{OnFull, Shape};
use crate::error::{Error, Result};
use crate::types::units::ByteSize;

/// How large a journal becomes, and what happens then. See [`OnFull`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of the records that are kept, at least 1 MiB. The files take up to an eighth more.
    pub max_bytes: ByteSize,
    /// What an append does when there is no room.
    pub on_full: OnFull,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_bytes: ByteSize(1 << 30), on_full: OnFull::default() }
    }
}

impl Settings {
    pub(super) fn shape(&self) -> Result<Shape> {
        let budget = self.max_bytes.0;
        if budget < 1 << 20 {
            return Err(Error::config(format!(
                "the journal is to hold {} at most, and needs at least 1 MiB",
                self.max_bytes
            )));
        }
        let segment = (budget / 8).min(64 << 20);
        Ok(Shape { budget, segment, waiting: 8 << 20, on_full: self.on_full })
    }
}

/// What a journal holds. See [`Record`](super::Record) for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes of the records that are kept, with what waits to be written.
    pub bytes: u64,
    /// Files.
    pub segments: usize,
    /// The first sequence that a reader may need.
    pub first: u64,
    /// The first sequence that is not known to be on the disk.
    pub durable: u64,
    /// The sequence of the next record.
    pub next: u64,
    /// The readers, and the sequence that each of them needs next.
    pub readers: Vec<(String, u64)>,
}
