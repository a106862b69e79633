//! Sealed frames: [XAES-256-GCM](https://c2sp.org/XAES-256-GCM), whose nonces of 24 bytes may be drawn
//! at random for as many values as a store can hold.

use bytes::{Bytes, BytesMut};
use xaes_256_gcm::aead::AeadInOut;

use super::frame::{self, MAGIC_BYTES};
use super::key_ring::{KeyId, KeyRing, draw};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::types::Value;

const MAGIC: [u8; MAGIC_BYTES] = *b"\xf5tsE";
/// Codec of a frame sealed with XAES-256-GCM.
const XAES: u8 = 1;
/// The same, with the deadline of the entry behind the key id.
const XAES_UNTIL: u8 = 2;
/// Magic, tag, key id: what is authenticated together with the entry's key, and the deadline if there is one.
const HEADER: usize = MAGIC_BYTES + 1 + 4;
/// Milliseconds since 1970, big-endian.
const DEADLINE: usize = 8;
const NONCE: usize = 24;
const SUM: usize = 16;

impl KeyRing {
    /// What a frame adds to a value.
    pub const OVERHEAD: usize = HEADER + NONCE + SUM;
    /// What a frame adds to a value with a deadline.
    pub const OVERHEAD_WITH_DEADLINE: usize = Self::OVERHEAD + DEADLINE;

    /// The value as a frame, sealed with the first key of the ring and a fresh nonce, bound to the key
    /// of its entry, and to its deadline if it has one.
    ///
    /// # Errors
    /// `InvalidInput` for a value over 64 GiB; `Unavailable` if the operating system has no random
    /// numbers.
    pub fn seal(&self, key: &[u8], value: &Value) -> Result<Bytes> {
        let active = self.active()?;
        let mut nonce = [0; NONCE];
        draw(&mut nonce)?;
        let mut frame = Vec::with_capacity(value.bytes.len() + Self::OVERHEAD_WITH_DEADLINE);
        frame.extend_from_slice(&MAGIC);
        frame.push(frame::tag(if value.expires_at.is_some() { XAES_UNTIL } else { XAES }));
        frame.extend_from_slice(&active.id.0);
        if let Some(deadline) = value.expires_at {
            frame.extend_from_slice(&deadline.as_millis().to_be_bytes());
        }
        let header = frame.len();
        let bound = [&frame, key].concat();
        frame.extend_from_slice(&nonce);
        frame.extend_from_slice(&value.bytes);
        let text = frame.get_mut(header + NONCE..).unwrap_or_default();
        let sum = active
            .cipher
            .encrypt_inout_detached(&nonce.into(), &bound, text.into())
            .map_err(|_| Error::invalid("a value of over 64 GiB cannot be sealed"))?;
        frame.extend_from_slice(&sum);
        Ok(frame.into())
    }

    /// The value in a frame that was sealed under this key with any key of the ring, with the deadline that
    /// it was sealed with. Decrypts in place if nobody else holds the frame's memory.
    ///
    /// # Errors
    /// `Corruption` if the frame is damaged, truncated, of another entry, of another format or none, or
    /// sealed under a key that the ring does not hold; the message then names the key's id.
    pub fn open(&self, key: &[u8], stored: Bytes) -> Result<Value> {
        let Parts { id, deadline, nonce, sum } = parts(&stored)?;
        let header = HEADER + if deadline.is_some() { DEADLINE } else { 0 };
        let Some(holder) = self.find(id) else {
            return Err(Error::corruption(format!(
                "the value is sealed under key id {id}, which the key ring does not hold (it holds {}): add that key to the ring, or else the frame is damaged",
                self.list()
            )));
        };
        let bound = [stored.get(..header).unwrap_or_default(), key].concat();
        let mut frame = stored.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
        let end = frame.len() - SUM;
        let text = frame.get_mut(header + NONCE..end).unwrap_or_default();
        holder
            .cipher
            .decrypt_inout_detached(&nonce.into(), &bound, text.into(), &sum.into())
            .map_err(|_| {
                Error::corruption(format!(
                    "the frame sealed under key id {id} does not open: it is damaged, or was moved here from another key of the store"
                ))
            })?;
        Ok(Value { bytes: frame.freeze().slice(header + NONCE..end), expires_at: deadline })
    }

    /// Whether the bytes begin like a frame.
    #[must_use]
    pub fn is_frame(stored: &[u8]) -> bool {
        frame::has_magic(MAGIC, stored)
    }

    /// Whether the frame is sealed with the first key of the ring. Reads the header only.
    #[must_use]
    pub fn is_current(&self, stored: &[u8]) -> bool {
        parts(stored).is_ok_and(|parts| self.active().is_ok_and(|active| active.id == parts.id))
    }

    /// Whether the frame is sealed under a key that the ring does not hold. Reads the header only.
    #[must_use]
    pub fn is_foreign(&self, stored: &[u8]) -> bool {
        parts(stored).is_ok_and(|parts| self.find(parts.id).is_none())
    }
}

/// A frame in its parts, not yet opened.
struct Parts {
    id: KeyId,
    deadline: Option<Timestamp>,
    nonce: [u8; NONCE],
    sum: [u8; SUM],
}

fn parts(stored: &[u8]) -> Result<Parts> {
    let (codec, rest) = frame::split(MAGIC, stored)?;
    if !matches!(codec, XAES | XAES_UNTIL) {
        return Err(Error::corruption(format!(
            "algorithm {codec} of the frame is unknown to this build"
        )));
    }
    let (id, rest) = rest.split_first_chunk::<4>().ok_or_else(frame::truncated)?;
    let (deadline, rest) = if codec == XAES_UNTIL {
        let (deadline, rest) = rest.split_first_chunk::<DEADLINE>().ok_or_else(frame::truncated)?;
        (Some(Timestamp::from_millis(u64::from_be_bytes(*deadline))), rest)
    } else {
        (None, rest)
    };
    let (nonce, rest) = rest.split_first_chunk::<NONCE>().ok_or_else(frame::truncated)?;
    let (_, sum) = rest.split_last_chunk::<SUM>().ok_or_else(frame::truncated)?;
    Ok(Parts { id: KeyId(*id), deadline, nonce: *nonce, sum: *sum })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xaes_256_gcm::Xaes256Gcm;
    use xaes_256_gcm::aead::KeyInit;

    use super::*;
    use crate::ErrorKind;

    fn ring() -> KeyRing {
        KeyRing::parse(KeyRing::generate().unwrap().expose()).unwrap()
    }

    #[track_caller]
    fn corruption(result: Result<Value>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        error.to_string()
    }

    /// The second vector of the specification: the cipher is the one that is named.
    #[test]
    fn the_cipher_is_xaes_256_gcm() {
        let mut text = *b"XAES-256-GCM";
        let sum = Xaes256Gcm::new(&[3; 32].into())
            .encrypt_inout_detached(
                b"ABCDEFGHIJKLMNOPQRSTUVWX".into(),
                b"c2sp.org/XAES-256-GCM",
                text.as_mut_slice().into(),
            )
            .unwrap();
        let hex: String = text.iter().chain(&sum).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d");
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_corruption() {
        let ring = ring();
        let until = |bytes: &'static str| Value::from(bytes).expiring_at(Timestamp::from_millis(7));
        let values = ["", "a", "a value of several blocks of the cipher"];
        for value in values.map(Value::from).into_iter().chain(values.map(until)) {
            let frame = ring.seal(b"key", &value).unwrap();
            let deadline = if value.expires_at.is_some() { DEADLINE } else { 0 };
            assert_eq!(frame.len(), value.bytes.len() + KeyRing::OVERHEAD + deadline);
            for at in 0..frame.len() {
                for bit in 0..8 {
                    let mut bad = frame.to_vec();
                    bad[at] ^= 1 << bit;
                    corruption(ring.open(b"key", bad.into()));
                }
                corruption(ring.open(b"key", frame.slice(..at)));
            }
            let mut long = frame.to_vec();
            long.push(0);
            corruption(ring.open(b"key", long.into()));
            assert_eq!(ring.open(b"key", frame).unwrap(), value);
        }
    }

    #[test]
    fn values_cannot_be_swapped_between_keys() {
        let ring = ring();
        let seal = |key: &'static str| ring.seal(key.as_bytes(), &Value::from(key)).unwrap();
        let (a, b) = (seal("a"), seal("b"));
        assert!(corruption(ring.open(b"a", b)).contains("another key of the store"));
        corruption(ring.open(b"ab", a.clone()));
        corruption(ring.open(b"", a));
    }

    #[test]
    fn a_wrong_ring_is_told_by_the_ids() {
        let (writer, reader) = (ring(), ring());
        let message = corruption(reader.open(b"k", writer.seal(b"k", &"v".into()).unwrap()));
        for id in writer.ids().chain(reader.ids()) {
            assert!(message.contains(&id.to_string()), "{message}");
        }
    }

    #[test]
    fn the_same_value_never_looks_the_same() {
        let ring = ring();
        let seal = || ring.seal(b"k", &"v".into()).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn after_a_rotation_old_values_open_and_new_ones_are_under_the_new_key() {
        let [old, new] = [(); 2].map(|()| KeyRing::generate().unwrap());
        let before = KeyRing::parse(old.expose()).unwrap();
        let frame = before.seal(b"k", &"v".into()).unwrap();
        assert!(before.is_current(&frame));
        let after = KeyRing::parse(&format!("{},{}", new.expose(), old.expose())).unwrap();
        assert_eq!(after.open(b"k", frame.clone()).unwrap(), "v".into());
        assert!(!after.is_current(&frame));
        let moved = after.seal(b"k", &"v".into()).unwrap();
        assert!(after.is_current(&moved));
        corruption(before.open(b"k", moved));
    }

    proptest! {
        #[test]
        fn any_value_comes_back_whether_the_frame_is_shared_or_not(
            key: Vec<u8>, value: Vec<u8>, deadline: Option<u64>,
        ) {
            let ring = ring();
            let value = Value { bytes: value.into(), expires_at: deadline.map(Timestamp::from_millis) };
            let frame = ring.seal(&key, &value).unwrap();
            let shared = frame.clone();
            prop_assert_eq!(&ring.open(&key, frame).unwrap(), &value);
            prop_assert_eq!(&ring.open(&key, shared).unwrap(), &value, "the first did not write here");
        }

        #[test]
        fn no_bytes_make_it_panic(stored: Vec<u8>) {
            let ring = ring();
            prop_assert!(ring.open(b"k", stored.clone().into()).is_err());
            for codec in [XAES, XAES_UNTIL] {
                let framed = [&MAGIC[..], &[frame::tag(codec)], &stored].concat();
                prop_assert!(ring.open(b"k", framed.into()).is_err());
            }
        }
    }
}
