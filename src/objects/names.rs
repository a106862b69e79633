//! Keys as names of objects.
//!
//! A name is text in segments between `/`, none of them empty, `.` or `..`. Keys are any bytes. The
//! escape keeps the order: names sort bytewise as their keys do.
//!
//! - Bytes from `&` to `}` stand for themselves: letters, digits and most signs.
//! - A byte below is `%` and two hex digits, and sorts before them: `%20` is a space.
//! - A byte above is `~` and two hex digits, and sorts behind them: `~C3~A9` is é.
//! - A `/` whose segment would be empty or end with a dot, as `.` and `..` do, is written `.~~/`. That
//!   sorts behind whatever begins with the next `.`, and before `0`, as `/` itself does. Azure takes dots
//!   off the end of a segment, so that `a.` would be the same object as `a`.
//! - A backslash, which Azure takes for a `/`, is written `[~~`, likewise behind `[` and before `]`.
//! - A last segment that is empty or ends with a dot has a bare `%` behind it, which sorts before `%00`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How keys become names of objects.
///
/// ```
/// use tierstack::BackendConfig;
/// use tierstack::backends::ObjectConfig;
/// use tierstack::backends::object::Names;
///
/// let config = ObjectConfig { names: Names::Plain, ..ObjectConfig::new("s3://acme/photos") };
/// assert_eq!(config.profile()?.guarantees.limits.key_bytes, 1024 - "photos/".len());
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Names {
    /// Any key. Bytes that a name had better not have are escaped, so that the order of keys is kept.
    /// Ordinary names (`users/1`) stand for themselves. An object whose name no key has, such as one
    /// with a space or an é as it is, or a dot at the end of a segment, makes a scan fail rather than being
    /// passed over.
    #[default]
    Escaped,
    /// The name is the key, as it is. A key that cannot be a name is refused by reads as by writes: one that
    /// is not UTF-8 or has a `.` or `..` segment; outside S3 and Google Cloud Storage also one with control
    /// characters, a backslash (which some services take for a `/`) or an empty segment; on Azure, whose names
    /// are not kept as they are, also one with a dot at the end of a segment or more than 200 segments.
    Plain,
}

/// How keys become names in one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Escaped, in order.
    Ordered,
    /// Escaped, without folders and upper-case letters: where names lie in folders, or have no case.
    Flat,
    /// As they are.
    Plain,
    /// As they are, in Azure, which takes dots off the end of a segment and has no more than 254 of them.
    PlainAzure,
    /// As they are, where a name is any text, and a `/` a letter like others.
    #[cfg_attr(not(feature = "object"), allow(dead_code, reason = "of `object` alone"))]
    PlainText,
}

/// Objects that only try out what the service can do. No key has a name that begins so.
pub(crate) const PROBE: &str = ".~~tierstack-probe-";

const HEX: &[u8; 16] = b"0123456789ABCDEF";
/// Names that services take.
const MAX_NAME_BYTES: usize = 1024;

impl Naming {
    /// The longest key whose name surely fits.
    pub(crate) const fn key_bytes(self, name_bytes: usize) -> usize {
        match self {
            // A key of slashes: `.~~/` for each, and a `%`.
            Self::Ordered => name_bytes.saturating_sub(1) / 4,
            Self::Flat => name_bytes.saturating_sub(1) / 3,
            Self::Plain | Self::PlainAzure | Self::PlainText => name_bytes,
        }
    }

    /// A key that needs no escape, as most do.
    fn as_it_is(self, key: &[u8]) -> Option<&str> {
        let mut before = b'/';
        for byte in key {
            let ends = *byte == b'/' && matches!(before, b'/' | b'.');
            if ends || !self.is_literal(*byte) || *byte == b'\\' {
                return None;
            }
            before = *byte;
        }
        let ends = matches!(before, b'/' | b'.');
        if ends { None } else { std::str::from_utf8(key).ok() }
    }

    /// The name of a key.
    ///
    /// # Errors
    /// `InvalidInput` if it cannot have one.
    pub(crate) fn of(self, key: &[u8]) -> Result<Cow<'_, str>> {
        let (is_name, rule): (fn(&str) -> bool, _) = match self {
            Self::Ordered | Self::Flat => {
                return Ok(match self.as_it_is(key) {
                    Some(name) => Cow::Borrowed(name),
                    None => Cow::Owned(self.escape(key)),
                });
            }
            Self::Plain => (
                is_name,
                "UTF-8 without control characters and backslashes, and without empty, `.` and `..` segments between `/`",
            ),
            Self::PlainAzure => (
                is_name_in_azure,
                "UTF-8 without control characters and backslashes, without empty segments between `/` and without dots at their ends, and of at most 200 of them",
            ),
            Self::PlainText => (is_text_name, "UTF-8 without `.` and `..` segments between `/`"),
        };
        std::str::from_utf8(key).ok().filter(|key| is_name(key)).map(Cow::Borrowed).ok_or_else(|| {
            Error::invalid(format!(
                "the key cannot be a name here: with `names: plain` it must be {rule}; `names: escaped` takes any key"
            ))
            .with_key(key)
        })
    }

    /// The key of a name. `None`: no key has this name. With plain names every name has a key, also one that
    /// cannot be [asked for](Self::of).
    pub(crate) fn key(self, name: &str) -> Option<Vec<u8>> {
        match self {
            Self::Ordered | Self::Flat => {
                let key = unescape(name)?;
                // Each key has one name: what decodes to it by another way is not its name.
                (!key.is_empty() && self.escape(&key) == name).then_some(key)
            }
            Self::Plain | Self::PlainAzure | Self::PlainText => Some(name.as_bytes().to_vec()),
        }
    }

    fn is_literal(self, byte: u8) -> bool {
        match self {
            Self::Flat => {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.,=+@()'".contains(&byte)
            }
            _ => (b'&'..=b'}').contains(&byte),
        }
    }

    fn escape(self, key: &[u8]) -> String {
        let mut name = String::with_capacity(key.len() + 8);
        let mut segment = 0;
        for byte in key {
            if *byte == b'/' && self == Self::Ordered {
                if ends_badly(name.get(segment..)) {
                    name.push_str(".~~");
                }
                name.push('/');
                segment = name.len();
            } else if *byte == b'\\' && self == Self::Ordered {
                name.push_str("[~~");
            } else if self.is_literal(*byte) {
                name.push(char::from(*byte));
            } else {
                name.push(if *byte <= b'}' { '%' } else { '~' });
                for nibble in [byte >> 4, byte & 15] {
                    name.push(HEX.get(usize::from(nibble)).copied().map_or('0', char::from));
                }
            }
        }
        // Windows and Azure drop a dot at the end of a name.
        if ends_badly(name.get(segment..)) {
            name.push('%');
        }
        name
    }

    /// What lies between the names of all smaller keys and those of all larger ones.
    pub(crate) fn bound(self, key: &[u8]) -> Vec<u8> {
        match self {
            Self::Ordered | Self::Flat => match split_place(key) {
                Some((_, name)) => name.to_vec(),
                None => self.escape(key).into_bytes(),
            },
            Self::Plain | Self::PlainAzure | Self::PlainText => key.to_vec(),
        }
    }

    /// A name behind which every name of a key from `key` on lies, and few others. `None`: every name.
    pub(crate) fn before(self, key: &[u8]) -> Option<String> {
        let key = without_place(key);
        if key.is_empty() {
            return None;
        }
        let mut name = match self {
            Self::Ordered | Self::Flat => self.escape(key),
            // A bound need not be a key, so this is the part of it that can be a name.
            Self::Plain | Self::PlainAzure | Self::PlainText => {
                let valid =
                    std::str::from_utf8(key).map_or_else(|error| error.valid_up_to(), str::len);
                String::from_utf8_lossy(key.get(..valid)?).into_owned()
            }
        };
        let shortened = name.len() > MAX_NAME_BYTES - 200;
        while name.len() > MAX_NAME_BYTES - 200 || !(name.is_empty() || is_name(&name)) {
            name.pop();
        }
        let last = name.pop()?;
        // The character before the last one, and then what sorts behind nearly everything.
        if !shortened && last > ' ' && last.is_ascii() {
            name.push(char::from(last as u8 - 1));
            name.push_str("~~~~");
        }
        while !(name.is_empty() || is_name(&name)) {
            name.pop();
        }
        (!name.is_empty()).then_some(name)
    }
}

/// What follows a key, and before a name of no key, in the key that stands for the place of this name.
const PLACE: &[u8] = b"\0\0a name of no key\0\0";

/// A key for the place of a name that no key has, behind this key: a scan up to it, and one from it on, leave the
/// name out and nothing else.
pub(crate) fn place(key: &[u8], name: &str) -> Vec<u8> {
    [key, PLACE, name.as_bytes()].concat()
}

/// The key behind which a place is, or the key itself.
pub(crate) fn without_place(key: &[u8]) -> &[u8] {
    split_place(key).map_or(key, |(key, _)| key)
}

fn split_place(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = key.windows(PLACE.len()).position(|window| window == PLACE)?;
    Some((key.get(..at)?, key.get(at + PLACE.len()..)?))
}

fn ends_badly(segment: Option<&str>) -> bool {
    segment.is_some_and(|segment| segment.is_empty() || segment.ends_with('.'))
}

/// What every service takes as a name.
fn is_name(text: &str) -> bool {
    !text.starts_with(PROBE)
        && !text.chars().any(|c| c.is_control() || c == '\\')
        && text.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

/// Clients take `.` and `..` out of a URL, also escaped ones.
fn is_text_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(PROBE)
        && text.split('/').all(|segment| !matches!(segment, "." | ".."))
}

/// Some of the 254 segments are for the path of the store.
fn is_name_in_azure(text: &str) -> bool {
    is_name(text)
        && text.split('/').all(|segment| !segment.ends_with('.'))
        && text.split('/').count() <= 200
}

fn unescape(name: &str) -> Option<Vec<u8>> {
    let name = name.as_bytes();
    let mut rest = match name.strip_suffix(b"%") {
        Some(rest) => rest,
        None => name,
    };
    let mut key = Vec::with_capacity(rest.len());
    while let Some((first, more)) = rest.split_first() {
        rest = match (first, more) {
            (b'~', [b'~', more @ ..]) => match (key.pop()?, more) {
                (b'.', [b'/', more @ ..]) => {
                    key.push(b'/');
                    more
                }
                (b'[', more) => {
                    key.push(b'\\');
                    more
                }
                _ => return None,
            },
            (b'%' | b'~', [high, low, more @ ..]) => {
                key.push(digit(*high)? << 4 | digit(*low)?);
                more
            }
            (b'%' | b'~', _) => return None,
            (byte, more) => {
                key.push(*byte);
                more
            }
        };
    }
    Some(key)
}

fn digit(byte: u8) -> Option<u8> {
    HEX.iter().position(|digit| *digit == byte).and_then(|at| u8::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_keys_are_their_names() {
        for key in ["users/1", "a", "2024-01-02/file.json", "a:b=c"] {
            assert_eq!(Naming::Ordered.of(key.as_bytes()).unwrap(), key);
            assert_eq!(Naming::Ordered.key(key).unwrap(), key.as_bytes());
        }
    }

    #[test]
    fn awkward_keys_have_names_of_their_own() {
        for (key, name) in [
            ("/", ".~~/%"),
            ("a/", "a/%"),
            ("a//b", "a/.~~/b"),
            (".", ".%"),
            ("..", "..%"),
            ("./a", "..~~/a"),
            ("v1./a", "v1..~~/a"),
            ("a...", "a...%"),
            ("a/../b", "a/...~~/b"),
            ("a b", "a%20b"),
            ("%", "%25"),
            ("~", "~7E"),
            ("é", "~C3~A9"),
            ("a\\b", "a[~~b"),
        ] {
            assert_eq!(Naming::Ordered.of(key.as_bytes()).unwrap(), name);
        }
        assert_eq!(Naming::Flat.of(b"Users/1").unwrap(), "%55sers%2F1");
        assert_eq!(Naming::Flat.of(b"a.").unwrap(), "a.%");
    }

    #[test]
    fn what_is_no_name_of_a_key_is_known_as_such() {
        for name in [
            "a b", "é", "%2f", "%41", "a~~/b", ".~~/", "[~", "a\\b", "a%", "%", "~", "a/%2", "..",
            "a//b", "a.", "v1./a",
        ] {
            assert_eq!(Naming::Ordered.key(name), None, "{name}");
        }
        assert_eq!(Naming::Flat.key("Users"), None);
        for name in ["", "a//b", "../a", "/a", "a/", "a\nb", "a\\b", ".~~tierstack-probe-1"] {
            assert!(Naming::Plain.of(name.as_bytes()).is_err(), "{name}");
            assert!(Naming::PlainAzure.of(name.as_bytes()).is_err(), "{name}");
        }
        for name in ["", "../a", "a/.", ".~~tierstack-probe-1"] {
            assert!(Naming::PlainText.of(name.as_bytes()).is_err(), "{name}");
        }
        for name in ["a//b", "/a", "a/", "a\nb", "a\\b", " a ", "..."] {
            assert_eq!(Naming::PlainText.of(name.as_bytes()).unwrap(), name);
        }
        assert!(Naming::Plain.of(b"\xff").is_err());
        let deep = "a/".repeat(200) + "a";
        for key in ["a.", "v1./a", "...", &deep] {
            assert!(Naming::Plain.of(key.as_bytes()).is_ok(), "{key}");
            assert!(Naming::PlainAzure.of(key.as_bytes()).is_err(), "{key}");
        }
        assert_eq!(Naming::PlainAzure.of(b"a.b/c").unwrap(), "a.b/c");
    }

    /// All keys of up to five bytes, of those at which the rules change: names are in the order of their keys,
    /// no two are the same, each is safe wherever it is kept, and leads back to its key.
    #[test]
    fn every_short_key() {
        for alphabet in [&b"/.0%"[..], b"/.~\\[", b"/.&}A\x00", b"/. \xff\x7f"] {
            let mut keys: Vec<Vec<u8>> = vec![vec![]];
            for _ in 0..5 {
                let longer =
                    keys.iter().flat_map(|key| alphabet.iter().map(|b| [&key[..], &[*b]].concat()));
                keys = [vec![vec![]], longer.collect()].concat();
            }
            keys.sort();
            keys.dedup();
            assert_eq!(keys.remove(0), b"");
            let names: Vec<_> = keys.iter().map(|key| Naming::Ordered.of(key).unwrap()).collect();
            assert!(names.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
            for (key, name) in keys.iter().zip(&names) {
                assert_eq!(Naming::Ordered.key(name).as_ref(), Some(key));
                let safe = |c: char| ('%'..='~').contains(&c) && c != '\\';
                assert!(name.chars().all(safe) && name.len() <= 4 * key.len() + 1, "{name}");
                let segment = |segment: &str| !segment.is_empty() && !segment.ends_with('.');
                assert!(name.split('/').all(segment), "{name}");
                assert_eq!(name, &Naming::Ordered.escape(key));
                let flat = Naming::Flat.of(key).unwrap();
                assert_eq!(Naming::Flat.key(&flat).as_ref(), Some(key));
                assert!(!flat.ends_with('.') && flat.len() <= 3 * key.len() + 1, "{flat}");
            }
        }
    }

    /// Bytes at which the rules change, among others.
    fn keys() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => prop::sample::select(b"/.%&~}0aA[\\]\x00\x2d\x7e\x7f\x80\xff".to_vec()),
            1 => any::<u8>(),
        ];
        prop::collection::vec(byte, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn every_key_has_one_name_and_the_order_is_kept(a in keys(), b in keys()) {
            let (x, y) = (Naming::Ordered.of(&a).unwrap(), Naming::Ordered.of(&b).unwrap());
            prop_assert!(is_name(&x), "{x}");
            prop_assert!(x.len() <= 4 * a.len() + 1);
            prop_assert_eq!(Naming::Ordered.key(&x), Some(a.clone()));
            prop_assert_eq!(x.as_bytes().cmp(y.as_bytes()), a.cmp(&b), "{} {}", x, y);
        }

        #[test]
        fn flat_names_have_no_case_and_no_folders(a in keys(), b in keys()) {
            let (x, y) = (Naming::Flat.of(&a).unwrap(), Naming::Flat.of(&b).unwrap());
            prop_assert!(is_name(&x) && !x.contains('/') && !x.ends_with('.'), "{x}");
            prop_assert!(x.len() <= 3 * a.len() + 1);
            prop_assert_eq!(Naming::Flat.key(&x), Some(a.clone()));
            prop_assert_eq!(x.eq_ignore_ascii_case(&y), a == b);
        }

        #[test]
        fn nothing_of_a_range_lies_before_its_start(a in keys(), b in keys(), plain in any::<bool>()) {
            let naming = if plain { Naming::PlainText } else { Naming::Ordered };
            let (from, key) = if a <= b { (a, b) } else { (b, a) };
            if let (Some(before), Ok(name)) = (naming.before(&from), naming.of(&key)) {
                prop_assert!(is_name(&before), "{before}");
                prop_assert!(*before < *name, "{before} {name}");
            }
        }
    }

    #[test]
    fn the_start_of_a_range_leaves_out_what_is_far_before_it() {
        assert_eq!(Naming::Ordered.before(b"user:z").unwrap(), "user:y~~~~");
        assert_eq!(Naming::Ordered.before(&[b'k'; 5000]).unwrap().len(), 823);
        assert_eq!(Naming::Plain.before(b"\xff"), None);
        assert_eq!(Naming::Ordered.before(b""), None);
    }
}
