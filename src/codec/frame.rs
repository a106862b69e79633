//! What all frames share: they begin with four bytes of magic, and a byte of version and codec.
//!
//! The first byte of the magic occurs in no UTF-8 text. A binary value that is not a frame begins
//! with a magic once in 2³² times; `accept_plain` lives with that, and nothing else depends on it.

use crate::error::{Error, Result};

/// Bytes of the magic.
pub(super) const MAGIC_BYTES: usize = 4;

/// The version that is written. Readers refuse all others.
const VERSION: u8 = 1;

/// The fifth byte of a frame: version and codec, four bits each.
pub(super) const fn tag(codec: u8) -> u8 {
    VERSION << 4 | codec
}

/// Whether the bytes begin like a frame of that magic.
pub(super) fn has_magic(magic: [u8; MAGIC_BYTES], stored: &[u8]) -> bool {
    stored.starts_with(&magic)
}

/// Takes magic and tag off a frame: gives the codec, and what follows.
pub(super) fn split(magic: [u8; MAGIC_BYTES], stored: &[u8]) -> Result<(u8, &[u8])> {
    let rest = stored.strip_prefix(&magic).ok_or_else(not_a_frame)?;
    let (tag, rest) = rest.split_first().ok_or_else(truncated)?;
    match tag >> 4 {
        VERSION => Ok((tag & 0x0f, rest)),
        version => Err(Error::corruption(format!(
            "the frame is of format version {version}, and this build reads version {VERSION}: it was written by another version of tierstack, or is damaged"
        ))),
    }
}

fn not_a_frame() -> Error {
    Error::corruption(
        "the stored value is not a frame of this layer: it is damaged, or was written before the layer was added; for the latter, set `accept_plain: true` and run `tierstack rewrite`",
    )
}

pub(super) fn truncated() -> Error {
    Error::corruption("the frame is truncated")
}

/// Appends a number, seven bits a byte, the lowest first (LEB128).
#[cfg(feature = "compress")]
pub(super) fn put_varint(frame: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        frame.push(number as u8 | 0x80);
        number >>= 7;
    }
    frame.push(number as u8);
}

/// Takes a number of at most 32 bits off the front.
#[cfg(feature = "compress")]
pub(super) fn take_varint(mut bytes: &[u8]) -> Result<(u32, &[u8])> {
    let mut number = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = bytes.split_first().ok_or_else(truncated)?;
        bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let number = u32::try_from(number).map_err(|_| overlong())?;
            return Ok((number, bytes));
        }
    }
    Err(overlong())
}

#[cfg(feature = "compress")]
fn overlong() -> Error {
    Error::corruption("the length in the frame has more than 32 bits")
}

#[cfg(all(test, feature = "compress"))]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_lengths_come_back() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000, u32::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            bytes.push(9);
            assert_eq!(take_varint(&bytes).unwrap(), (number, &[9u8][..]));
        }
        assert!(take_varint(&[0xff, 0xff, 0xff, 0xff, 0x1f]).is_err(), "33 bits");
        assert!(take_varint(&[0x80, 0x80]).is_err(), "unfinished");
    }
}
