//! Names of objects as paths of `object_store`.
//!
//! Its `Path` has no empty segments, no `.` and `..` and no control characters: it takes `/` off the ends of a
//! name, and gives up the whole page of a listing at one of the others. So such segments are written in
//! hex, behind a mark.

use std::borrow::Cow;

/// Before a segment in hex: a character for private use, and how it is in a URL.
pub(super) const MARK: char = '\u{10FFFD}';
#[allow(dead_code, reason = "used by some features only")]
pub(super) const MARK_IN_URL: &str = "%F4%8F%BF%BD";

/// A name as a path that the client can hold. Each name has one of its own.
pub(crate) fn to_path(name: &str) -> Cow<'_, str> {
    let last = name.split('/').count() - 1;
    let odd = |at: usize, segment: &str| {
        matches!(segment, "" | "." | "..")
            || segment.contains(|c: char| c == MARK || c.is_ascii_control())
            // A space at an end of a text is taken off where XML is read.
            || at == 0 && segment.starts_with(' ')
            || at == last && segment.ends_with(' ')
    };
    if !name.split('/').enumerate().any(|(at, segment)| odd(at, segment)) {
        return Cow::Borrowed(name);
    }
    let segments = name.split('/').enumerate().map(|(at, segment)| {
        if !odd(at, segment) {
            return segment.to_owned();
        }
        let hex = segment.bytes().map(|byte| format!("{byte:02x}"));
        std::iter::once(MARK.to_string()).chain(hex).collect()
    });
    Cow::Owned(segments.collect::<Vec<String>>().join("/"))
}

/// The name that a path stands for. `None`: it stands for none.
pub(crate) fn to_name(path: String) -> Option<String> {
    if !path.contains(MARK) {
        return Some(path);
    }
    let segments = path.split('/').map(|segment| match segment.strip_prefix(MARK) {
        Some(hex) => String::from_utf8(unhex(hex)?).ok(),
        None => Some(segment.to_owned()),
    });
    Some(segments.collect::<Option<Vec<String>>>()?.join("/"))
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use object_store::path::Path;

    use super::*;

    pub(in super::super) const ODD: [&str; 14] = [
        "/lead",
        "x/",
        "a//b",
        "/",
        "//",
        "a/./b",
        "..",
        "tab\tx",
        "\u{1}",
        " x",
        "x ",
        "a/\n",
        "\u{10FFFD}",
        "a&b//<c>",
    ];

    #[test]
    fn every_name_is_a_path_and_leads_back() {
        for name in ODD {
            let path = Path::parse(to_path(name)).unwrap();
            assert_eq!(path.as_ref(), to_path(name), "nothing is taken off");
            assert_eq!(to_name(path.into()).as_deref(), Some(name));
        }
        for name in ["a", "a b/c", "é", "a\\b", "https:x", "..."] {
            assert!(matches!(to_path(name), Cow::Borrowed(_)), "{name}");
            assert_eq!(to_name(name.to_owned()).as_deref(), Some(name));
        }
        assert_eq!(to_name("\u{10FFFD}2".to_owned()), None);
    }
}
