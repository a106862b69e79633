//! The time to live of RocksDB (`DBWithTTL`): each value ends in the second in which it was written, and compactions of
//! its owner remove it once its time is over.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::rocksdb::{DB, Env, Options};

use super::error::failed;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::types::Value;

/// How values of a database with a time to live are read and written.
pub(super) struct Stamps {
    clock: Arc<dyn Clock>,
    /// Zero: entries stay.
    ttl: Duration,
}

/// Bytes of the stamp: seconds since 1970, little-endian.
const BYTES: usize = 4;
/// RocksDB takes an earlier stamp, before May 2013, for no stamp.
const FIRST: u32 = 1_368_146_402;

impl Stamps {
    pub(super) fn new(clock: Arc<dyn Clock>, ttl: Duration) -> Self {
        Self { clock, ttl }
    }

    /// The value of what is stored, and when it ends. `None`: it has ended.
    pub(super) fn split<'a>(
        &self,
        stored: &'a [u8],
    ) -> Result<Option<(&'a [u8], Option<Timestamp>)>> {
        let (value, stamp) = stored.split_last_chunk::<BYTES>().ok_or_else(unstamped)?;
        let written = u32::from_le_bytes(*stamp);
        if written < FIRST {
            return Err(unstamped());
        }
        if self.ttl.is_zero() {
            return Ok(Some((value, None)));
        }
        // RocksDB keeps it through the second in which its time is over.
        let ends = Duration::from_secs(u64::from(written) + 1).saturating_add(self.ttl);
        let ends = Timestamp::from_millis(u64::try_from(ends.as_millis()).unwrap_or(u64::MAX));
        Ok((self.clock.now() < ends).then_some((value, Some(ends))))
    }

    /// Like [`split`](Self::split), of a value that was read.
    pub(super) fn read(&self, stored: &Value) -> Result<Option<Value>> {
        let entry = self.split(&stored.bytes)?;
        let cut = |(value, expires_at): (&[u8], _)| Value {
            bytes: stored.bytes.slice(..value.len()),
            expires_at,
        };
        Ok(entry.map(cut))
    }

    /// What is stored of a value that is written now.
    pub(super) fn stamped(&self, value: &[u8]) -> Vec<u8> {
        let seconds = u32::try_from(self.clock.now().as_millis() / 1000).unwrap_or(u32::MAX);
        [value, &seconds.to_le_bytes()].concat()
    }
}

fn unstamped() -> Error {
    Error::new(
        ErrorKind::Corruption,
        "the database was written with a time to live, but this value does not end in the time at which it was written; see with its owner's program whether something else has written to it",
    )
    .with_layer("rocksdb")
}

/// Makes RocksDB know what it records of a time to live: it does once any database was opened with one.
pub(super) fn make_known() -> Result<()> {
    static KNOWN: OnceLock<std::result::Result<(), ::rocksdb::Error>> = OnceLock::new();
    let open = || {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_env(&Env::mem_env()?);
        DB::open_with_ttl(&options, "/ttl", Duration::from_secs(1)).map(drop)
    };
    KNOWN.get_or_init(open).clone().map_err(|error| failed(Operation::Open, error))
}
