//! A batch as the bytes of a record, drawn in `docs/formats/journal.md`.

use bytes::{Buf as _, Bytes};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::types::{Batch, Op, Value};

/// The version that is written. Readers refuse all others.
const VERSION: u8 = 1;

const REWRITE: u8 = 1;

const PUT: u8 = 1;
const PUT_EXPIRING: u8 = 2;
const DELETE: u8 = 3;

/// The operations of a batch, and whether it is a [rewrite](Batch::rewriting). What it requires and what durability
/// it asks for are matters of its acknowledgement, and are not kept.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where a key or a value has 4 GiB or more.
pub fn encode(batch: &Batch) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(2 + batch.bytes() + 17 * batch.len());
    bytes.push(VERSION);
    bytes.push(if batch.is_rewrite() { REWRITE } else { 0 });
    for op in batch.ops() {
        let value = op.value();
        let expires_at = value.and_then(|value| value.expires_at);
        bytes.push(match (value, expires_at) {
            (None, _) => DELETE,
            (Some(_), None) => PUT,
            (Some(_), Some(_)) => PUT_EXPIRING,
        });
        if let Some(at) = expires_at {
            bytes.extend(at.as_millis().to_be_bytes());
        }
        put(&mut bytes, op.key())?;
        if let Some(value) = value {
            put(&mut bytes, &value.bytes)?;
        }
    }
    Ok(bytes.into())
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) -> Result<()> {
    let length = u32::try_from(part.len()).map_err(|_| {
        Error::invalid("a key or a value of 4 GiB or more does not fit into a journal")
    })?;
    bytes.extend(length.to_be_bytes());
    bytes.extend(part);
    Ok(())
}

/// The batch of a record. Its keys and values share the record's memory.
///
/// # Errors
/// [`Corruption`](crate::ErrorKind::Corruption) where the bytes are not those of a batch.
pub fn decode(mut bytes: Bytes) -> Result<Batch> {
    let version = bytes.try_get_u8().map_err(|_| not_a_batch())?;
    if version != VERSION {
        return Err(Error::corruption(format!(
            "a batch in the journal is of format version {version}, and this build reads version {VERSION}: it was written by another version of tierstack"
        )));
    }
    let flags = bytes.try_get_u8().map_err(|_| not_a_batch())?;
    let mut batch = match flags {
        0 => Batch::new(),
        REWRITE => Batch::new().rewriting(),
        _ => return Err(not_a_batch()),
    };
    while bytes.has_remaining() {
        batch.push(operation(&mut bytes).ok_or_else(not_a_batch)?);
    }
    Ok(batch)
}

fn operation(bytes: &mut Bytes) -> Option<Op> {
    let kind = bytes.try_get_u8().ok()?;
    let expires_at = match kind {
        PUT_EXPIRING => Some(Timestamp::from_millis(bytes.try_get_u64().ok()?)),
        PUT | DELETE => None,
        _ => return None,
    };
    let key = take(bytes)?;
    if kind == DELETE {
        return Some(Op::Delete(key));
    }
    Some(Op::Put(key, Value { bytes: take(bytes)?, expires_at }))
}

fn take(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u32().ok()? as usize;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

fn not_a_batch() -> Error {
    Error::corruption(
        "a record of the journal is not a batch; the journal is one of another use, or was written by another version of tierstack",
    )
}
