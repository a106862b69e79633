//! Entries as they are kept in memory: a small one is a single allocation.
//!
//! ```text
//! flags: u8 │ length of the key: u16 │ epoch: u48 │ [until: u48] │ [expires_at: u48] │ key │ value
//! ```
//!
//! The allocation is a [`Bytes`] over an array: the array and the count of its holders lie together, and a value is
//! handed out as a part of it. Arrays come in [classes](class) of sizes, as their length is a part of their type.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::clock::Timestamp;
use crate::layers::cache::coherence::Epoch;
use crate::layers::cache::policy::CoarseTime;
use crate::layers::cache::policy::{Answer, Cached};
use crate::types::Value;

/// It has a value, and the other numbers.
const VALUE: u8 = 1;
const UNTIL: u8 = 2;
const EXPIRES: u8 = 4;

/// Flags and the length of the key.
const HEAD: usize = 3;
/// Of each number: 48 bits.
const NUMBER: usize = 6;

/// Flags, the length of the key, and three numbers.
const MOST_HEAD: usize = HEAD + 3 * NUMBER;

/// Longer entries have their value in the allocation that it came in.
const LONGEST: usize = 1024 + 64;

/// What an allocator takes for each of its pieces, in addition to what was asked for: a word, and rounding up.
const PIECE: u64 = 16;
/// The count of holders before an array, and what the allocator takes.
const PACKED: u64 = 8 + PIECE;
/// The pieces of an entry that is not packed: its own, that of its key, and the two of its value.
const BOXED: u64 = 16 + size_of::<Boxed>() as u64 + 24 + 4 * PIECE;

/// An entry with its key.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Packed(Bytes),
    /// What is large, failed, idles or has been held.
    Boxed(Arc<Boxed>),
}

#[derive(Debug)]
pub(super) struct Boxed {
    key: Box<[u8]>,
    cached: Cached,
}

/// No entry.
impl Default for Kept {
    fn default() -> Self {
        Self::Packed(Bytes::new())
    }
}

impl Kept {
    pub(super) fn new(key: &[u8], cached: Cached) -> Self {
        match pack(key, &cached) {
            Some(packed) => Self::Packed(packed),
            None => Self::Boxed(Arc::new(Boxed { key: key.into(), cached })),
        }
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Packed(packed) => split(packed).map_or(&[], |(_, key)| key),
            Self::Boxed(boxed) => &boxed.key,
        }
    }

    #[inline]
    pub(super) fn cached(&self) -> Cached {
        match self {
            Self::Packed(packed) => unpack(packed),
            Self::Boxed(boxed) => boxed.cached.clone(),
        }
    }

    /// Bytes of its allocations.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Packed(packed) => PACKED + class(packed.len()) as u64,
            Self::Boxed(boxed) => boxed_bytes(&boxed.key, &boxed.cached),
        }
    }
}

/// What the allocations of an entry take once it is kept.
pub(super) fn bytes(key: &[u8], cached: &Cached) -> u64 {
    match packed_length(key, cached) {
        Some(length) => PACKED + class(length) as u64,
        None => boxed_bytes(key, cached),
    }
}

fn boxed_bytes(key: &[u8], cached: &Cached) -> u64 {
    BOXED + key.len() as u64 + cached.bytes()
}

/// The number of bytes of the array for that many.
const fn class(length: usize) -> usize {
    // By constants: a division would cost more than all else here.
    if length <= 512 { length.next_multiple_of(16) } else { length.next_multiple_of(64) }
}

/// The numbers that an entry has in addition to its epoch.
fn numbers(cached: &Cached) -> (Option<u64>, Option<u64>) {
    let until = (cached.until != CoarseTime::NEVER).then_some(cached.until.0);
    let expires = cached.value().and_then(|value| value.expires_at);
    (until, expires.map(Timestamp::as_millis))
}

/// `None`: it is not packed.
fn packed_length(key: &[u8], cached: &Cached) -> Option<usize> {
    let value = match &cached.answer {
        Answer::Value(value) => value.bytes.len(),
        Answer::Missing => 0,
        Answer::Failed(_) => return None,
    };
    let (until, expires) = numbers(cached);
    let fits = |number: u64| number >> (8 * NUMBER) == 0;
    let all_fit = fits(cached.epoch.number()) && until.is_none_or(fits) && expires.is_none_or(fits);
    let count = 1 + usize::from(until.is_some()) + usize::from(expires.is_some());
    let length = (HEAD + NUMBER * count).saturating_add(key.len()).saturating_add(value);
    (cached.extra.is_none() && all_fit && length <= LONGEST).then_some(length)
}

fn pack(key: &[u8], cached: &Cached) -> Option<Bytes> {
    let length = packed_length(key, cached)?;
    let (until, expires) = numbers(cached);
    let value = cached.value();
    let flag = |set, flag| if set { flag } else { 0 };
    let flags = flag(value.is_some(), VALUE)
        | flag(until.is_some(), UNTIL)
        | flag(expires.is_some(), EXPIRES);
    let [low, high] = u16::try_from(key.len()).ok()?.to_le_bytes();
    let mut head = [0; MOST_HEAD];
    head[..HEAD].copy_from_slice(&[flags, low, high]);
    let mut end = HEAD;
    for number in [Some(cached.epoch.number()), until, expires].into_iter().flatten() {
        let [a, b, c, d, e, f, ..] = number.to_le_bytes();
        head.get_mut(end..end + NUMBER)?.copy_from_slice(&[a, b, c, d, e, f]);
        end += NUMBER;
    }
    let value = value.map_or(&[][..], |value| &value.bytes);
    Some(in_class(length, [head.get(..end)?, key, value]))
}

/// The parts one behind the other in an array of their class.
fn in_class(length: usize, parts: [&[u8]; 3]) -> Bytes {
    macro_rules! classes {
        ($($class:literal)*) => {
            match class(length) {
                $($class => joined::<$class>(length, parts),)*
                // There is no other class.
                _ => Bytes::from(parts.concat()),
            }
        };
    }
    classes!(
        16 32 48 64 80 96 112 128 144 160 176 192 208 224 240 256 272 288 304 320 336 352 368 384 400 416 432 448 464
        480 496 512 576 640 704 768 832 896 960 1024 1088
    )
}

fn joined<const CLASS: usize>(length: usize, parts: [&[u8]; 3]) -> Bytes {
    let mut array = [0; CLASS];
    let mut rest: &mut [u8] = &mut array;
    for part in parts {
        let Some((here, behind)) = rest.split_at_mut_checked(part.len()) else { break };
        here.copy_from_slice(part);
        rest = behind;
    }
    let mut bytes = Bytes::from_owner(array);
    bytes.truncate(length);
    bytes
}

/// What lies before the key, and the key.
#[inline]
fn split(packed: &[u8]) -> Option<(&[u8], &[u8])> {
    let [flags, low, high, ..] = packed else { return None };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let numbers = 1 + usize::from(flags & UNTIL != 0) + usize::from(flags & EXPIRES != 0);
    let (head, rest) = packed.split_at_checked(HEAD + NUMBER * numbers)?;
    Some((head, rest.get(..length)?))
}

#[inline]
fn unpack(packed: &Bytes) -> Cached {
    let (head, key) = split(packed).unwrap_or_default();
    let flags = head.first().copied().unwrap_or_default();
    let number = |at: usize| match head.get(HEAD + NUMBER * at..HEAD + NUMBER * (at + 1)) {
        Some(&[a, b, c, d, e, f]) => u64::from_le_bytes([a, b, c, d, e, f, 0, 0]),
        _ => 0,
    };
    let has_until = flags & UNTIL != 0;
    let until = if has_until { CoarseTime(number(1)) } else { CoarseTime::NEVER };
    let answer = if flags & VALUE != 0 {
        let expires_at = (flags & EXPIRES != 0)
            .then(|| Timestamp::from_millis(number(1 + usize::from(has_until))));
        let mut bytes = packed.clone();
        bytes.advance(head.len() + key.len());
        Answer::Value(Value { bytes, expires_at })
    } else {
        Answer::Missing
    };
    Cached { answer, until, epoch: Epoch::of_number(number(0)), extra: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::layers::cache::policy::CoarseTime;
    use crate::layers::cache::policy::Extra;

    fn same(one: &Cached, other: &Cached) -> bool {
        let answers = match (&one.answer, &other.answer) {
            (Answer::Value(one), Answer::Value(other)) => one == other,
            (Answer::Missing, Answer::Missing) => true,
            (Answer::Failed(one), Answer::Failed(other)) => one.kind() == other.kind(),
            _ => false,
        };
        answers && (one.until, one.epoch) == (other.until, other.epoch)
    }

    /// Each kind of entry, with a value of that many bytes.
    fn entries(bytes: usize) -> Vec<Cached> {
        let value = Value::from(vec![7; bytes]);
        let mut all = Vec::new();
        for number in [0, 1, (1 << 48) - 1, 1 << 48, u64::MAX] {
            let expiring = value.clone().expiring_at(Timestamp::from_millis(number));
            let answers = [Answer::Value(value.clone()), Answer::Value(expiring), Answer::Missing];
            for answer in answers {
                for until in [CoarseTime::NEVER, CoarseTime(0), CoarseTime(number)] {
                    let epoch = Epoch::of_number(number);
                    all.push(Cached { answer: answer.clone(), until, epoch, extra: None });
                }
            }
        }
        all
    }

    #[test]
    fn what_is_kept_comes_back_whatever_its_size() {
        for bytes in (0..600).chain([1000, 1023, 1024, 1060, 1087, 1088, 5000, 100_000]) {
            for key in [0, 1, 16, 300] {
                let key = vec![b'k'; key];
                for cached in entries(bytes) {
                    let kept = Kept::new(&key, cached.clone());
                    assert_eq!(kept.key(), key);
                    assert!(same(&kept.cached(), &cached), "{cached:?}");
                    assert!(kept.cached().is(&kept.cached()), "the same entry twice");
                    assert_eq!(kept.bytes(), super::bytes(&key, &cached));
                    if let Kept::Packed(packed) = &kept {
                        assert!(packed.len() <= LONGEST);
                    }
                }
            }
        }
    }

    #[test]
    fn small_entries_are_packed_and_long_keys_failures_and_idle_ones_are_not() {
        let epoch = Epoch::FIRST;
        let value = |bytes: usize| Answer::Value(vec![7; bytes].into());
        let plain = |answer| Cached { answer, until: CoarseTime::NEVER, epoch, extra: None };
        let packed = |key: usize, cached: Cached| {
            matches!(Kept::new(&vec![0; key], cached), Kept::Packed(_))
        };
        assert!(packed(16, plain(value(32))) && packed(16, plain(Answer::Missing)));
        assert!(packed(16, plain(value(1024))) && !packed(16, plain(value(1100))));
        assert!(!packed(65_536, plain(value(0))) && packed(1000, plain(value(0))));
        assert!(!packed(1, plain(Answer::Failed(Error::internal("no")))));
        let extra = Some(Extra::new(CoarseTime(1), CoarseTime(1)));
        assert!(!packed(1, Cached { extra, ..plain(value(1)) }));
    }

    #[test]
    fn a_value_outlives_its_entry() {
        let cached = Cached {
            answer: Answer::Value("value".into()),
            until: CoarseTime::NEVER,
            epoch: Epoch::FIRST,
            extra: None,
        };
        let kept = Kept::new(b"key", cached);
        let value = kept.cached();
        drop(kept);
        assert_eq!(value.value().unwrap().bytes, "value");
    }

    /// An entry is counted with what it takes; `tests/cache_memory.rs` measures that.
    #[test]
    fn an_entry_of_32_bytes_has_a_handle_and_one_small_allocation() {
        assert_eq!(size_of::<Kept>(), size_of::<Bytes>());
        let cached = Cached {
            answer: Answer::Value(vec![7; 32].into()),
            until: CoarseTime(1 << 40),
            epoch: Epoch::FIRST,
            extra: None,
        };
        assert_eq!(Kept::new(&[7; 16], cached).bytes(), 64 + 24);
    }
}
