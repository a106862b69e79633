//! Entity tags, and the conditions that requests put on them (RFC 9110, section 13).
//!
//! A tag names a value with its deadline: just what [`Condition::Equals`](crate::Condition) requires. So a write
//! `If-Match` loses no change, of the deadline neither, and `304` says that nothing has changed.
//! It is strong: equal tags mean equal bytes.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::serve::problem::Problem;
use crate::types::Value;

/// Bytes that are hashed before other requests have a turn.
const AT_ONCE: usize = 256 << 10;
/// Of 32 bytes of the hash. Nobody finds two values with one tag.
const HEX: usize = 32;

/// The tag of a value, in its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag(String);

impl Tag {
    pub(super) async fn of(value: &Value) -> Self {
        let mut hash = blake3::Hasher::new();
        let mut parts = value.bytes.chunks(AT_ONCE).peekable();
        while let Some(part) = parts.next() {
            hash.update(part);
            if parts.peek().is_some() {
                tokio::task::yield_now().await;
            }
        }
        // Behind the bytes, in the other order than a length: no value ends like another with a deadline.
        if let Some(at) = value.expires_at {
            hash.update(&(value.bytes.len() as u64).to_le_bytes());
            hash.update(&at.as_millis().to_le_bytes());
            hash.update(b"expires_at");
        }
        let hex = hash.finalize().to_hex();
        Self(format!("\"{}\"", hex.get(..HEX).unwrap_or(&hex)))
    }

    pub(super) fn header(self) -> HeaderValue {
        // Digits and quotes.
        HeaderValue::try_from(self.0).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }

    pub(super) fn is(&self, text: &[u8]) -> bool {
        self.0.as_bytes() == text
    }
}

/// Tags of a header, or `*`.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    /// Each in its quotes, and whether it is weak.
    These(Vec<(bool, Vec<u8>)>),
}

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let mut lines = headers.get_all(name).iter().peekable();
        if lines.peek().is_none() {
            return Ok(None);
        }
        let all: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
        let all = all.join(&b", "[..]);
        let tags = match all.trim_ascii() {
            b"*" => Some(Self::Any),
            list => parse(list).map(Self::These),
        };
        tags.map(Some).ok_or_else(|| {
            Problem::bad_request(format!(
                "the header {name} is neither `*` nor tags in double quotes, such as \"0123abcd\", with commas between them"
            ))
        })
    }

    /// Whether one of them is the tag of what is there. A weak one says too little for `strong`.
    fn hold(&self, current: Option<&Tag>, strong: bool) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::These(tags), Some(current)) => {
                tags.iter().any(|(weak, tag)| !(strong && *weak) && current.is(tag))
            }
        }
    }
}

fn parse(mut list: &[u8]) -> Option<Vec<(bool, Vec<u8>)>> {
    let mut tags = Vec::new();
    loop {
        list = list.trim_ascii_start();
        // RFC 9110 lets a list have empty elements.
        if let Some(rest) = list.strip_prefix(b",") {
            list = rest;
            continue;
        }
        if list.is_empty() {
            return (!tags.is_empty()).then_some(tags);
        }
        let weak = list.starts_with(b"W/");
        list = list.strip_prefix(b"W/").unwrap_or(list);
        let inner = list.strip_prefix(b"\"")?;
        let end = inner.iter().position(|byte| *byte == b'"')?;
        let (tag, rest) = list.split_at_checked(end + 2)?;
        let plain = tag.iter().all(|byte| *byte == b'!' || matches!(byte, 0x22..=0x7e | 0x80..));
        tags.push((weak, tag.to_vec()));
        list = rest.trim_ascii_start();
        if !plain || !(list.is_empty() || list.starts_with(b",")) {
            return None;
        }
    }
}

/// What a request requires of the present value.
///
/// Conditions on dates are ignored, as values have none.
#[derive(Debug)]
pub(super) struct Preconditions {
    matches: Option<Tags>,
    none_matches: Option<Tags>,
}

/// What the conditions say about the present value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    /// `If-Match` does not hold.
    Changed,
    /// `If-None-Match` does not hold.
    Same,
}

impl Preconditions {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let matches = Tags::of(headers, &IF_MATCH)?;
        Ok(Self { matches, none_matches: Tags::of(headers, &IF_NONE_MATCH)? })
    }

    /// Whether there is none.
    pub(super) const fn are_none(&self) -> bool {
        self.matches.is_none() && self.none_matches.is_none()
    }

    /// Whether all that is required is that there is no value.
    pub(super) const fn is_absence(&self) -> bool {
        self.matches.is_none() && matches!(self.none_matches, Some(Tags::Any))
    }

    /// In the order of RFC 9110, section 13.2.2.
    pub(super) fn judge(&self, current: Option<&Tag>) -> Verdict {
        if self.matches.as_ref().is_some_and(|tags| !tags.hold(current, true)) {
            return Verdict::Changed;
        }
        if self.none_matches.as_ref().is_some_and(|tags| tags.hold(current, false)) {
            return Verdict::Same;
        }
        Verdict::Holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[tokio::test]
    async fn a_tag_names_bytes_and_deadline() {
        let value = |bytes: &'static str| Value::from(bytes);
        let at = |bytes: &'static str, at| value(bytes).expiring_at(Timestamp::from_millis(at));
        let values = [value(""), value("a"), value("b"), at("a", 0), at("a", 1), at("", 1)];
        for (one, first) in values.iter().enumerate() {
            for (other, second) in values.iter().enumerate() {
                let equal = Tag::of(first).await == Tag::of(second).await;
                assert_eq!(equal, one == other, "{first:?} {second:?}");
            }
        }
        // Held for ever: clients keep it.
        assert_eq!(Tag::of(&value("Ada")).await.0, "\"19e8212d50431c948ebe57a828943bdf\"");
        // What is hashed in parts has the same tag.
        let large = Value::new(vec![7; 3 * AT_ONCE + 1]);
        let whole = blake3::hash(&large.bytes).to_hex();
        assert_eq!(Tag::of(&large).await.0, format!("\"{}\"", &whole[..HEX]));
    }

    #[test]
    fn a_list_of_tags_is_read_as_the_standard_says() {
        let read = |text: &str| parse(text.as_bytes());
        let tag = |weak, text: &str| (weak, text.as_bytes().to_vec());
        assert_eq!(read("\"a\""), Some(vec![tag(false, "\"a\"")]));
        let two = Some(vec![tag(true, "\"a,b\""), tag(false, "\"\"")]);
        assert_eq!(read("W/\"a,b\" ,, \"\" ,"), two);
        for wrong in
            ["", ",", "a", "\"a", "\"a\" \"b\"", "w/\"a\"", "\"a b\"", "*, \"a\"", "\"a\"x"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
