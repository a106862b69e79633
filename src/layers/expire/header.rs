//! The header that carries an entry's deadline: `docs/formats/expire.md`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::types::Value;

/// The layer that writes it.
pub(super) const LAYER: &str = "expire";

/// No text in UTF-8 begins like this.
const MAGIC: [u8; 4] = *b"\xf5tse";
const VERSION: u8 = 1;
/// The flag of an entry that expires.
const EXPIRES: u8 = 1;
/// Where the checksum is.
const CHECKSUM: usize = 14;
/// Bytes of the header.
pub(super) const LENGTH: usize = 18;

/// The value behind a header that says when it expires.
pub(super) fn encode(value: &Value) -> Bytes {
    let mut frame = BytesMut::with_capacity(LENGTH + value.bytes.len());
    frame.put_slice(&MAGIC);
    frame.put_u8(VERSION);
    frame.put_u8(if value.expires_at.is_some() { EXPIRES } else { 0 });
    frame.put_u64(value.expires_at.map_or(0, Timestamp::as_millis));
    let checksum = checksum(frame.get(MAGIC.len()..).unwrap_or_default(), &value.bytes);
    frame.put_u32(checksum);
    frame.put_slice(&value.bytes);
    frame.freeze()
}

/// The value without its header. Copies nothing.
///
/// # Errors
/// `Corruption` for a damaged header or value, and for one without a header unless they are accepted.
pub(super) fn decode(frame: Bytes, accept_plain: bool) -> Result<Value> {
    if frame.starts_with(&MAGIC) {
        return open(&frame).map_err(|what| {
            Error::corruption(format!("{what}; restore the entry from a backup, or write it again"))
        });
    }
    // One flipped bit in the magic must not make a value of what is a header. Where plain values are accepted,
    // a few bytes that a header could begin with are one: a byte f5 is as likely as any other.
    let cut = !accept_plain && !frame.is_empty() && MAGIC.starts_with(&frame);
    if cut || sound(&frame) {
        return Err(Error::corruption(
            "the header of the entry is damaged; restore the entry from a backup, or write it again",
        ));
    }
    if accept_plain {
        return Ok(Value::new(frame));
    }
    Err(Error::corruption(
        "the entry has no header of the layer `expire`; \
         if it was written before the layer was added, set `accept_plain: true`",
    ))
}

fn open(frame: &Bytes) -> Result<Value, &'static str> {
    let Some(header) = frame.first_chunk::<LENGTH>() else {
        return Err("the entry ends within its header");
    };
    let [_, _, _, _, version, flags, expires @ .., _, _, _, _] = header;
    if *version != VERSION {
        return Err("the header of the entry is of a version that this program does not know");
    }
    if !sound(frame) {
        return Err("the checksum of the entry differs");
    }
    let expires = u64::from_be_bytes(*expires);
    let expires_at = match (flags, expires) {
        (0, 0) => None,
        (&EXPIRES, at) => Some(Timestamp::from_millis(at)),
        _ => return Err("the header of the entry has flags that this program does not know"),
    };
    Ok(Value { bytes: frame.slice(LENGTH..), expires_at })
}

/// Whether the checksum is that of the frame, whatever is in place of the magic.
fn sound(frame: &[u8]) -> bool {
    let fields = MAGIC.len()..CHECKSUM;
    match (frame.get(fields), frame.get(CHECKSUM..LENGTH), frame.get(LENGTH..)) {
        (Some(fields), Some(stored), Some(value)) => {
            checksum(fields, value).to_be_bytes() == stored
        }
        _ => false,
    }
}

/// CRC-32 of the magic, the fields behind it, and the value.
fn checksum(fields: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&MAGIC);
    hasher.update(fields);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed() -> (Value, Bytes) {
        let value = Value::new("payload").expiring_at(Timestamp::from_millis(1_700_000_000_123));
        let frame = encode(&value);
        (value, frame)
    }

    #[test]
    fn the_format_is_as_documented() {
        let (_, frame) = framed();
        let hex = frame.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        assert!(include_str!("../../../docs/formats/expire.md").contains(&hex), "{hex}");
    }

    #[test]
    fn values_come_back() {
        let at = Timestamp::from_millis;
        for expires_at in [None, Some(at(0)), Some(at(1)), Some(at(u64::MAX))] {
            for bytes in ["", "v", "\u{f5}tse"] {
                let value = Value { bytes: bytes.into(), expires_at };
                assert_eq!(decode(encode(&value), false).unwrap(), value);
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (_, frame) = framed();
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut damaged = frame.to_vec();
                damaged[at] ^= 1 << bit;
                for accept_plain in [false, true] {
                    let error = decode(damaged.clone().into(), accept_plain).unwrap_err();
                    assert_eq!(error.kind(), crate::ErrorKind::Corruption, "byte {at} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let (_, frame) = framed();
        for length in 0..frame.len() {
            let cut = decode(frame.slice(..length), false);
            assert!(cut.is_err(), "{length} bytes");
            // So few bytes are a plain value as well.
            let cut = decode(frame.slice(..length), true);
            assert_eq!(cut.is_err(), length >= MAGIC.len(), "{length} bytes");
        }
    }

    #[test]
    fn a_plain_value_is_taken_as_it_is_or_refused_with_the_setting() {
        let begins_alike: [&[u8]; 4] = [b"\xf5", b"\xf5t", b"\xf5ts", b"\xf5tsC of another layer"];
        for plain in begins_alike.into_iter().map(Bytes::from_static) {
            assert_eq!(decode(plain.clone(), true).unwrap(), Value::new(plain));
        }
        for plain in ["", "x", "a plain value that is longer than the header"] {
            assert_eq!(decode(plain.into(), true).unwrap(), Value::from(plain));
            let error = decode(plain.into(), false).unwrap_err();
            assert!(error.to_string().contains("accept_plain"), "{error}");
        }
    }
}
