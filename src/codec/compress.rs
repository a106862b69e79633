//! Compressed frames.

use std::fmt;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::frame::{self, MAGIC_BYTES};
use crate::error::{Error, Result};

const MAGIC: [u8; MAGIC_BYTES] = *b"\xf5tsC";
/// Codec of a frame whose payload is the value itself.
const STORED: u8 = 0;
const CRC: usize = 4;
/// Idle contexts that are kept, each about 1 MiB at the default level. More are made in a rush.
const IDLE_CONTEXTS: usize = 16;

/// How values are made smaller. See [`Compressor`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Zstandard: dense, and fast to read.
    #[default]
    Zstd,
    /// LZ4: less dense, several times as fast to write.
    Lz4,
}

impl Codec {
    const fn id(self) -> u8 {
        match self {
            Self::Zstd => 1,
            Self::Lz4 => 2,
        }
    }
}

/// Makes values into frames, and frames of any codec into values.
///
/// ```
/// use tierstack::codec::{Codec, Compressor};
///
/// let compressor = Compressor::new(Codec::Zstd, 3, 64)?;
/// let value = "the same again, ".repeat(100);
/// let frame = compressor.encode(value.as_bytes())?;
/// assert!(frame.len() < value.len() / 10);
/// assert_eq!(compressor.decode(frame)?, value);
/// # Ok::<(), tierstack::Error>(())
/// ```
pub struct Compressor {
    codec: Codec,
    level: i32,
    min_size: usize,
    max_value: usize,
    encoders: Pool<zstd::bulk::Compressor<'static>>,
    decoders: Pool<zstd::bulk::Decompressor<'static>>,
}

impl Compressor {
    /// The largest value: 1 GiB.
    pub const MAX_VALUE_BYTES: usize = 1 << 30;
    /// What a frame adds to a value that does not shrink, at most.
    pub const MAX_OVERHEAD: usize = MAGIC_BYTES + 1 + 5 + CRC;
    /// The levels of zstd that are offered: the denser ones need much memory.
    pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

    /// A compressor for values of at least `min_size` bytes. LZ4 ignores the level.
    ///
    /// # Errors
    /// `Config` for a level outside 1 to 19.
    pub fn new(codec: Codec, level: i32, min_size: usize) -> Result<Self> {
        if codec == Codec::Zstd && !Self::LEVELS.contains(&level) {
            return Err(Error::config(format!(
                "level {level} is outside {} to {}",
                Self::LEVELS.start(),
                Self::LEVELS.end()
            ))
            .with_setting("level"));
        }
        let (encoders, decoders) = (Pool::default(), Pool::default());
        Ok(Self { codec, level, min_size, max_value: Self::MAX_VALUE_BYTES, encoders, decoders })
    }

    /// The same compressor for values of at most that many bytes, when it writes and when it reads.
    #[must_use]
    pub fn with_max_value(mut self, bytes: usize) -> Self {
        self.max_value = bytes.min(Self::MAX_VALUE_BYTES);
        self
    }

    /// The largest value, in bytes.
    #[must_use]
    pub fn max_value(&self) -> usize {
        self.max_value
    }

    /// How many bytes the value of a frame has, as the frame says; the length of what is no frame. Cheap, and
    /// not checked.
    #[must_use]
    pub fn claimed(stored: &[u8]) -> usize {
        Frame::parse(stored).map_or(stored.len(), |frame| frame.length)
    }

    /// The value as a frame: compressed where that saves a sixteenth or more, else as it is.
    ///
    /// # Errors
    /// `InvalidInput` for a value over the [largest](Self::max_value).
    pub fn encode(&self, value: &[u8]) -> Result<Bytes> {
        if value.len() > self.max_value {
            return Err(Error::invalid(format!(
                "a value of {} bytes is over the limit of {} bytes of compression",
                value.len(),
                self.max_value
            )));
        }
        if value.len() >= self.min_size {
            let frame = match self.codec {
                Codec::Zstd => self.zstd(value)?,
                Codec::Lz4 => lz4(value)?,
            };
            if let Some(frame) = frame {
                return Ok(finish(frame));
            }
        }
        let mut frame = begin(STORED, value.len(), value.len());
        frame.extend_from_slice(value);
        Ok(finish(frame))
    }

    fn zstd(&self, value: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut frame = begin(Codec::Zstd.id(), value.len(), worthwhile(value));
        let header = frame.len();
        let mut encoder =
            self.encoders.take(|| zstd::bulk::Compressor::new(self.level)).map_err(engine)?;
        let mut tail = std::io::Cursor::new(&mut frame);
        tail.set_position(header as u64);
        let size = encoder.compress_to_buffer(value, &mut tail);
        // Each compression starts from an empty state, also after one that failed.
        self.encoders.give(encoder);
        // It fails if there is too little room for the output, which is when it does not pay.
        let Ok(size) = size else { return Ok(None) };
        Ok((size <= worthwhile(value)).then_some(frame))
    }

    /// The value in a frame, whatever codec it was written with. A value that was stored as it is
    /// shares the memory of its frame.
    ///
    /// # Errors
    /// `Corruption` if the frame is damaged, truncated, of another format, or none.
    pub fn decode(&self, stored: Bytes) -> Result<Bytes> {
        let frame = Frame::parse(&stored)?;
        frame.check(&stored)?;
        if frame.length > self.max_value {
            return Err(Error::corruption(format!(
                "the frame claims {} bytes, over the limit of {} bytes of compression; if such values were written, raise `max_value`",
                frame.length, self.max_value
            )));
        }
        let Frame { codec, length, payload } = frame;
        let value = match codec {
            STORED => {
                let end = stored.len() - CRC;
                (payload.len() == length).then(|| stored.slice(end - length..end))
            }
            1 => self.unzstd(payload, length)?,
            2 => unlz4(payload, length)?,
            other => {
                return Err(Error::corruption(format!(
                    "codec {other} of the frame is unknown to this build"
                )));
            }
        };
        value.ok_or_else(|| {
            Error::corruption(format!("the frame does not hold the {length} bytes that it claims"))
        })
    }

    fn unzstd(&self, payload: &[u8], length: usize) -> Result<Option<Bytes>> {
        // A block of 128 KiB takes at least 4 bytes.
        plausible(length, payload.len().saturating_mul(1 << 15))?;
        let mut value = Vec::with_capacity(length);
        let mut decoder = self.decoders.take(zstd::bulk::Decompressor::new).map_err(engine)?;
        decoder.decompress_to_buffer(payload, &mut value).map_err(|error| {
            Error::corruption("the payload is not what zstd wrote").with_source(error)
        })?;
        self.decoders.give(decoder);
        Ok((value.len() == length).then(|| value.into()))
    }

    /// Whether the bytes begin like a frame.
    #[must_use]
    pub fn is_frame(stored: &[u8]) -> bool {
        frame::has_magic(MAGIC, stored)
    }

    /// Whether [`encode`](Self::encode) is known to write the value with this codec again. Reads the
    /// header only, which does not hold the level.
    #[must_use]
    pub fn is_current(&self, stored: &[u8]) -> bool {
        Frame::parse(stored).is_ok_and(|frame| match frame.codec {
            STORED => frame.length < self.min_size,
            codec => codec == self.codec.id(),
        })
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor")
            .field("codec", &self.codec)
            .field("level", &self.level)
            .field("min_size", &self.min_size)
            .finish_non_exhaustive()
    }
}

/// A frame in its parts, not yet checked.
struct Frame<'a> {
    codec: u8,
    length: usize,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn parse(stored: &'a [u8]) -> Result<Self> {
        let (codec, rest) = frame::split(MAGIC, stored)?;
        let (length, rest) = frame::take_varint(rest)?;
        let (payload, _) = rest.split_last_chunk::<CRC>().ok_or_else(frame::truncated)?;
        Ok(Self { codec, length: length as usize, payload })
    }

    /// The checksum first: nothing is allocated or decoded for a damaged frame.
    fn check(&self, stored: &[u8]) -> Result<()> {
        let (summed, sum) = stored.split_last_chunk::<CRC>().ok_or_else(frame::truncated)?;
        if *sum != checksum(summed) {
            return Err(Error::corruption("the checksum of the frame differs: it is damaged"));
        }
        plausible(self.length, Compressor::MAX_VALUE_BYTES)
    }
}

/// An attacker can write any length with a checksum that fits.
fn plausible(length: usize, limit: usize) -> Result<()> {
    if length > limit {
        return Err(Error::corruption(format!(
            "the frame claims {length} bytes, and its payload can hold at most {limit}"
        )));
    }
    Ok(())
}

/// The largest payload for which compression pays: reading it back costs time.
fn worthwhile(value: &[u8]) -> usize {
    value.len() - value.len().div_ceil(16)
}

fn begin(codec: u8, length: usize, payload: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(Compressor::MAX_OVERHEAD + payload);
    frame.extend_from_slice(&MAGIC);
    frame.push(frame::tag(codec));
    // `encode` has checked the length against 1 GiB.
    frame::put_varint(&mut frame, length as u32);
    frame
}

/// Adds the checksum, and gives back the memory that the payload did not need: caches count it.
fn finish(mut frame: Vec<u8>) -> Bytes {
    let sum = checksum(&frame);
    frame.extend_from_slice(&sum);
    frame.shrink_to_fit();
    frame.into()
}

/// CRC-32 (IEEE).
fn checksum(bytes: &[u8]) -> [u8; CRC] {
    crc32fast::hash(bytes).to_le_bytes()
}

fn lz4(value: &[u8]) -> Result<Option<Vec<u8>>> {
    use lz4_flex::block::{compress_into, get_maximum_output_size};
    let room = get_maximum_output_size(value.len());
    let mut frame = begin(Codec::Lz4.id(), value.len(), room);
    let header = frame.len();
    frame.resize(header + room, 0);
    let tail = frame.get_mut(header..).unwrap_or_default();
    let size = compress_into(value, tail)
        .map_err(|error| Error::internal("lz4 refused a value").with_source(error))?;
    frame.truncate(header + size);
    Ok((size <= worthwhile(value)).then_some(frame))
}

/// Kept out of its caller: inlined there, LLVM makes the loop of lz4_flex half as fast.
#[inline(never)]
fn unlz4(payload: &[u8], length: usize) -> Result<Option<Bytes>> {
    // A byte of an LZ4 block extends a match by 255 bytes at most.
    plausible(length, payload.len().saturating_mul(255))?;
    let mut value = vec![0; length];
    let size = lz4_flex::block::decompress_into(payload, &mut value).map_err(|error| {
        Error::corruption("the payload is not what lz4 wrote").with_source(error)
    })?;
    Ok((size == length).then(|| value.into()))
}

fn engine(error: std::io::Error) -> Error {
    Error::new(crate::ErrorKind::Capacity, "zstd cannot set up a context").with_source(error)
}

/// Contexts of zstd, kept for the next caller, as they are costly to set up.
struct Pool<C>(Mutex<Vec<C>>);

impl<C> Pool<C> {
    fn take(&self, make: impl FnOnce() -> std::io::Result<C>) -> std::io::Result<C> {
        let idle = self.0.lock().pop();
        idle.map_or_else(make, Ok)
    }

    fn give(&self, context: C) {
        let mut idle = self.0.lock();
        if idle.len() < IDLE_CONTEXTS {
            idle.push(context);
        }
    }
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    fn zstd() -> Compressor {
        Compressor::new(Codec::Zstd, 3, 64).unwrap()
    }

    fn all() -> [Compressor; 3] {
        [zstd(), Compressor::new(Codec::Lz4, 3, 0).unwrap(), {
            Compressor::new(Codec::Zstd, 1, usize::MAX).unwrap()
        }]
    }

    fn text(len: usize) -> Vec<u8> {
        b"A line that occurs again. ".iter().copied().cycle().take(len).collect()
    }

    /// A frame with a checksum that fits, as an attacker would write it.
    fn forged(codec: u8, length: u32, payload: &[u8]) -> Bytes {
        let mut frame = begin(codec, length as usize, payload.len());
        frame.extend_from_slice(payload);
        finish(frame)
    }

    fn kind(result: Result<Bytes>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn small_values_cost_at_most_12_bytes() {
        for (len, overhead) in [(0, 10), (20, 10), (127, 10), (16_383, 11), (2_097_151, 12)] {
            let noise: Vec<u8> = (0..len as u32)
                .flat_map(|n| n.wrapping_mul(0x9e37_79b1).to_le_bytes())
                .step_by(3)
                .take(len)
                .collect();
            let frame =
                Compressor::new(Codec::Zstd, 3, usize::MAX).unwrap().encode(&noise).unwrap();
            assert_eq!(frame.len() - noise.len(), overhead, "{len}");
        }
    }

    #[test]
    fn a_frame_of_any_codec_is_read_by_any() {
        for writer in all() {
            let frame = writer.encode(&text(5000)).unwrap();
            for reader in all() {
                assert_eq!(reader.decode(frame.clone()).unwrap(), text(5000));
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored_and_read_without_a_copy() {
        let mut noise = vec![0; 4096];
        getrandom::fill(&mut noise).unwrap();
        for compressor in all() {
            let frame = compressor.encode(&noise).unwrap();
            assert_eq!(frame.len(), noise.len() + 11);
            let value = compressor.decode(frame.clone()).unwrap();
            assert_eq!(value, noise);
            let next = compressor.decode(compressor.encode(&text(4096)).unwrap()).unwrap();
            assert_eq!(next, text(4096), "the context that failed is in order");
            assert!(frame.as_ptr_range().contains(&value.as_ptr()), "shares its memory");
        }
    }

    #[test]
    fn a_frame_holds_no_more_memory_than_it_says() {
        let frame = zstd().encode(&text(65536)).unwrap();
        let buffer = Vec::from(frame.try_into_mut().unwrap());
        assert!(buffer.capacity() < buffer.len() + 64, "{} of {}", buffer.len(), buffer.capacity());
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_corruption() {
        for compressor in all() {
            for len in [0, 10, 100, 1000] {
                let frame = compressor.encode(&text(len)).unwrap();
                for at in 0..frame.len() {
                    for bit in 0..8 {
                        let mut bad = frame.to_vec();
                        bad[at] ^= 1 << bit;
                        let bad = compressor.decode(bad.into());
                        assert_eq!(kind(bad), Some(ErrorKind::Corruption), "byte {at} bit {bit}");
                    }
                    let short = compressor.decode(frame.slice(..at));
                    assert_eq!(kind(short), Some(ErrorKind::Corruption), "cut at {at}");
                }
                let mut long = frame.to_vec();
                long.push(0);
                assert_eq!(kind(compressor.decode(long.into())), Some(ErrorKind::Corruption));
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_before_anything_is_allocated() {
        for codec in 0..16 {
            for length in [1 << 20, 1 << 30, u32::MAX] {
                let bomb = zstd().decode(forged(codec, length, b"small"));
                assert_eq!(
                    kind(bomb),
                    Some(ErrorKind::Corruption),
                    "codec {codec}, {length} bytes"
                );
            }
        }
        // A length of 40 bits: 1 TiB.
        let head = [&MAGIC[..], &[frame::tag(1)], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x20]].concat();
        assert_eq!(kind(zstd().decode(finish(head))), Some(ErrorKind::Corruption));
    }

    #[test]
    fn a_payload_of_another_length_than_claimed_is_corruption() {
        let payload = zstd::bulk::compress(&text(1000), 3).unwrap();
        for length in [999, 1001] {
            let frame = forged(Codec::Zstd.id(), length, &payload);
            assert_eq!(kind(zstd().decode(frame)), Some(ErrorKind::Corruption));
        }
        let payload = lz4_flex::block::compress(&text(1000));
        for length in [999, 1001] {
            let frame = forged(Codec::Lz4.id(), length, &payload);
            assert_eq!(kind(zstd().decode(frame)), Some(ErrorKind::Corruption));
        }
        assert_eq!(zstd().decode(forged(2, 1000, &payload)).unwrap(), text(1000));
    }

    #[test]
    fn what_is_current_is_told_from_the_header() {
        let (zstd, lz4) = (zstd(), Compressor::new(Codec::Lz4, 3, 64).unwrap());
        let (dense, small) = (zstd.encode(&text(500)).unwrap(), zstd.encode(&text(9)).unwrap());
        assert!(zstd.is_current(&dense) && zstd.is_current(&small));
        assert!(!lz4.is_current(&dense) && lz4.is_current(&small));
        assert!(!zstd.is_current(b"plain") && !zstd.is_current(b""));
    }

    #[test]
    fn levels_outside_the_range_are_refused_with_the_range() {
        let error = Compressor::new(Codec::Zstd, 20, 0).unwrap_err().to_string();
        assert!(error.contains("20") && error.contains("1 to 19"), "{error}");
    }

    proptest! {
        #[test]
        fn any_value_comes_back(value: Vec<u8>, repeat in 1usize..50) {
            let value = value.repeat(repeat);
            for compressor in all() {
                let frame = compressor.encode(&value).unwrap();
                prop_assert!(frame.len() <= value.len() + Compressor::MAX_OVERHEAD);
                prop_assert_eq!(compressor.decode(frame).unwrap(), &value);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(codec in 0u8..16, length: u32, payload: Vec<u8>) {
            // Whatever comes out has the length that was claimed.
            if let Ok(value) = zstd().decode(forged(codec, length & 0x3ff, &payload)) {
                prop_assert_eq!(value.len(), (length & 0x3ff) as usize);
            }
            let _ = zstd().decode(payload.into());
        }
    }
}
