//! Parts of a value (RFC 9110, section 14).
//!
//! One range of bytes is served. What the standard lets a server ignore is ignored, and the answer is the whole
//! value: another unit, several ranges, and a header that is malformed.

use std::ops::Range;

/// What of a value is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    Part(Range<usize>),
    /// A range that lies behind the end.
    Nothing,
}

pub(super) fn wanted(header: &[u8], length: usize) -> Wanted {
    match range(header) {
        None => Wanted::Whole,
        Some((Some(first), last)) if first < length as u64 => {
            let end = last.map_or(length as u64, |last| last.saturating_add(1).min(length as u64));
            // Both are at most the length.
            Wanted::Part(first as usize..end as usize)
        }
        // The standard lets it be satisfied, and has no words for a part of nothing.
        Some((None, Some(1..))) if length == 0 => Wanted::Whole,
        Some((None, Some(suffix @ 1..))) => {
            let suffix = usize::try_from(suffix).unwrap_or(usize::MAX);
            Wanted::Part(length.saturating_sub(suffix)..length)
        }
        Some(_) => Wanted::Nothing,
    }
}

/// First and last byte, or the length of the end.
fn range(header: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let text = std::str::from_utf8(header).ok()?.trim();
    let (unit, range) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    match (first, last) {
        (None, None) => None,
        (Some(first), Some(last)) if first > last => None,
        range => Some(range),
    }
}

/// Digits, or nothing. What is too large to count lies behind every end.
fn number(text: &str) -> Option<Option<u64>> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_served() {
        for (header, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-9", 0..10),
            ("bytes=3-", 3..10),
            ("bytes=-3", 7..10),
            ("Bytes=9-99", 9..10),
            ("bytes=-99", 0..10),
            ("bytes=8-99999999999999999999999", 8..10),
            ("bytes=-99999999999999999999999", 0..10),
        ] {
            assert_eq!(wanted(header.as_bytes(), 10), Wanted::Part(part), "{header}");
        }
    }

    #[test]
    fn a_range_behind_the_end_is_none() {
        for header in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(wanted(header.as_bytes(), 10), Wanted::Nothing, "{header}");
        }
        assert_eq!(wanted(b"bytes=0-", 0), Wanted::Nothing);
        assert_eq!(wanted(b"bytes=-5", 0), Wanted::Whole);
    }

    #[test]
    fn what_is_malformed_or_not_offered_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-3",
            "bytes=1-2,4-5",
            "lines=1-2",
            "bytes=1 - 2",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=0x1-2",
            "bytes:1-2",
        ] {
            assert_eq!(wanted(header.as_bytes(), 10), Wanted::Whole, "{header}");
        }
        assert_eq!(wanted(b"bytes=1-\xff", 10), Wanted::Whole);
    }
}
