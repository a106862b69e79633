//! The settings that decide where entries are cut into chunks.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::types::Limits;

/// Where entries are cut into chunks: fixed when a repository is created, as later bases would share
/// nothing with those before. See [`RepositoryOptions`](super::RepositoryOptions) for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunking {
    /// A run has at least this many entries.
    pub min_entries: u32,
    /// After that, one key in this many ends a run.
    pub average_entries: u32,
    /// A run has at most this many entries.
    pub max_entries: u32,
    /// A run ends with the key with which its keys reach this many bytes.
    pub key_bytes: u32,
    /// A value longer than this is kept in pieces of its own.
    pub inline_bytes: u32,
    /// Bytes of a piece.
    pub piece_bytes: u32,
}

/// No chunk is larger than this before compression, whatever a repository's settings say.
const MAX_CHUNK: u64 = 64 << 20;

impl Default for Chunking {
    fn default() -> Self {
        Self {
            min_entries: 16,
            average_entries: 64,
            max_entries: 256,
            key_bytes: 256 << 10,
            inline_bytes: 16 << 10,
            piece_bytes: 1 << 20,
        }
    }
}

impl Chunking {
    /// # Errors
    /// `InvalidInput` that says what is allowed.
    pub(super) fn check(&self) -> Result<()> {
        let ordered = 1 <= self.min_entries
            && self.min_entries <= self.average_entries
            && self.average_entries <= self.max_entries;
        if !ordered || self.piece_bytes == 0 || self.largest_chunk() > MAX_CHUNK {
            return Err(Error::invalid(
                "chunking needs 1 <= min_entries <= average_entries <= max_entries, pieces of at \
                 least 1 byte, and no chunk that can grow over 64 MiB",
            ));
        }
        Ok(())
    }

    /// What a chunk can grow to before compression: every length that is read is checked against it.
    pub(super) fn largest_chunk(&self) -> u64 {
        // In addition to its key and value, an entry takes at most 21 bytes.
        let keys = u64::from(self.key_bytes) + Limits::MAX_KEY_BYTES as u64;
        let entry = u64::from(self.inline_bytes) + 21;
        let run = keys.saturating_add(u64::from(self.max_entries).saturating_mul(entry));
        run.max(u64::from(self.piece_bytes))
    }
}
