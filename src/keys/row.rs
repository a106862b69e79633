//! A key that is columns of a table: between the bytes of the key and the texts of the columns.
//!
//! Each column has one text for each of its values, so two keys never name the same row. What is not that text is no
//! key, and refused.

use bytes::Bytes;

use super::{Part, Time, Uuid, pack, unpack};
use crate::error::{Error, Result};

/// How a row's key becomes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As a person types it; several columns with a `/` between them.
    Text,
    /// As a tuple, which sorts as the columns do.
    Tuple,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each backend has some of them")]
pub(crate) enum Kind {
    /// Text without NUL.
    Text,
    /// Bytes, as their hexadecimal digits in lower case.
    Bytes,
    Uuid,
    /// A signed integer of that many bits, 64 at most.
    Integer(u32),
    /// A moment in microseconds, from the year 1 to 9999.
    Time,
}

/// The first and the last moment, in microseconds since 1970. The last is that of `jiff`, of a whole second.
const FIRST_TIME: i64 = -62_135_596_800_000_000;
const LAST_TIME: i64 = 253_402_207_200_000_000;

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Text => "a text in UTF-8, without NUL".to_owned(),
            Self::Bytes => "bytes in hexadecimal digits of lower case, such as 00ff".to_owned(),
            Self::Uuid => {
                "a UUID such as 67e55044-10b1-426f-9247-bb680e5fe0c8, in lower case".to_owned()
            }
            Self::Integer(bits) => format!("an integer of {bits} bits such as 42"),
            Self::Time => {
                "a time in UTC such as 2026-01-31T12:00:00.000000Z, from the year 1 to 9999"
                    .to_owned()
            }
        }
    }

    /// Its values but for those of a text or of bytes, in their order: their number, less one.
    fn last(self) -> u128 {
        match self {
            Self::Text | Self::Bytes => 0,
            Self::Uuid => u128::MAX,
            Self::Integer(bits) => (1 << bits) - 1,
            Self::Time => LAST_TIME.abs_diff(FIRST_TIME).into(),
        }
    }

    /// The value at that place of the order.
    fn nth(self, at: u128) -> String {
        match self {
            Self::Text | Self::Bytes => String::new(),
            Self::Uuid => Uuid::from_u128(at).to_string(),
            Self::Integer(bits) => (at.cast_signed() - (1 << (bits - 1))).to_string(),
            Self::Time => {
                let micros = i64::try_from(at.cast_signed() + i128::from(FIRST_TIME));
                written(
                    jiff::Timestamp::from_microsecond(micros.unwrap_or(LAST_TIME))
                        .unwrap_or_default(),
                )
            }
        }
    }

    /// The text of a value, if that is one.
    fn check(self, text: &str) -> Option<()> {
        let same = match self {
            Self::Text => !text.contains('\0'),
            Self::Bytes => unhex(text).is_some(),
            Self::Uuid => text.parse::<Uuid>().ok()?.to_string() == text,
            Self::Integer(bits) => {
                let number: i64 = text.parse().ok()?;
                let most = i64::MAX >> (64 - bits);
                (-most - 1..=most).contains(&number) && number.to_string() == text
            }
            Self::Time => {
                let time: jiff::Timestamp = text.parse().ok()?;
                (FIRST_TIME..=LAST_TIME).contains(&time.as_microsecond()) && written(time) == text
            }
        };
        same.then_some(())
    }

    fn of_part(self, part: &Part) -> Option<String> {
        let text = match (self, part) {
            (Self::Text, Part::Text(text)) => text.clone(),
            (Self::Bytes, Part::Bytes(bytes)) => hex(bytes),
            (Self::Uuid, Part::Uuid(uuid)) => uuid.to_string(),
            (Self::Integer(_), Part::Integer(number)) => number.to_string(),
            (Self::Time, Part::Time(time)) if time.as_nanos() % 1000 == 0 => written(time.0),
            _ => return None,
        };
        self.check(&text).map(|()| text)
    }

    /// The bytes of a text that was checked.
    fn packed(self, text: &str) -> Result<Bytes> {
        let malformed = || Error::invalid(format!("the key's part must be {}", self.name()));
        match self {
            Self::Text => pack(&text),
            Self::Bytes => pack(&Part::Bytes(unhex(text).ok_or_else(malformed)?.into())),
            Self::Uuid => pack(&text.parse::<Uuid>().map_err(|_| malformed())?),
            Self::Integer(_) => pack(&text.parse::<i64>().map_err(|_| malformed())?),
            Self::Time => pack(&text.parse::<Time>().map_err(|_| malformed())?),
        }
    }

    fn first(self) -> String {
        self.nth(0)
    }

    fn after(self, form: Form, text: &str) -> Option<String> {
        match self {
            Self::Text => Some(format!("{text}\u{1}")),
            Self::Bytes => Some(format!("{text}00")),
            _ => {
                let before = form.bytes(self, text).ok()?;
                self.first_of(form, |bytes| bytes > before)
            }
        }
    }

    /// The smallest value whose bytes do not sort before the bound, unless the bound begins with them.
    fn at_least(self, form: Form, bound: &[u8]) -> Option<String> {
        if self == Self::Bytes {
            return match (form, bound) {
                (Form::Text, _) => hex_at_least(bound),
                (Form::Tuple, []) => Some(String::new()),
                // What an encoding of bytes begins with is the least of those that begin so.
                (Form::Tuple, [BYTES, rest @ ..]) => Some(hex(&unescaped(rest))),
                (Form::Tuple, [first, ..]) => (*first < BYTES).then(String::new),
            };
        }
        if self == Self::Text {
            return match (form, bound) {
                (Form::Text, _) => text_at_least(bound),
                (Form::Tuple, []) => Some(String::new()),
                (Form::Tuple, [TEXT, rest @ ..]) => {
                    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
                    text_at_least(rest.get(..end)?)
                }
                (Form::Tuple, [first, ..]) => (*first < TEXT).then(String::new),
            };
        }
        self.first_of(form, |bytes| bytes[..] >= *bound || bound.starts_with(&bytes))
    }

    /// The first value whose bytes, as those of all behind it, are so.
    fn first_of(self, form: Form, so: impl Fn(Bytes) -> bool) -> Option<String> {
        let reaches = |at: u128| form.bytes(self, &self.nth(at)).is_ok_and(&so);
        let (mut low, mut high) = (0, self.last());
        if !reaches(high) {
            return None;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if reaches(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Some(self.nth(low))
    }
}

/// What bytes and a text in a tuple begin with.
const BYTES: u8 = 0x01;
const TEXT: u8 = 0x02;

/// Bytes as hexadecimal digits, which sort as they do.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None`: they are no such digits.
pub(crate) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    rest.is_empty().then_some(())?;
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// The bytes that are encoded in a tuple up to their end, or to the end of what is there.
fn unescaped(encoded: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), encoded);
    loop {
        rest = match rest {
            [0, 0xff, rest @ ..] => {
                bytes.push(0);
                rest
            }
            [] | [0, ..] => return bytes,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

/// The smallest pairs of hexadecimal digits that do not sort before those bytes.
fn hex_at_least(bound: &[u8]) -> Option<String> {
    let (pairs, rest) = bound.as_chunks::<2>();
    let pair = |pair: &[u8; 2]| unhex(std::str::from_utf8(pair).ok()?)?.pop();
    let mut bytes: Vec<u8> = pairs.iter().map_while(pair).collect();
    let rest =
        pairs.get(bytes.len()).map_or(rest, |_| bound.get(bytes.len() * 2..).unwrap_or(rest));
    if rest.is_empty() {
        return Some(hex(&bytes));
    }
    if let Some(next) = (0..=u8::MAX).find(|byte| hex(&[*byte]).as_bytes() >= rest) {
        bytes.push(next);
        return Some(hex(&bytes));
    }
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            return Some(hex(&bytes));
        }
    }
    None
}

fn written(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The smallest text without NUL that does not sort before those bytes.
fn text_at_least(bound: &[u8]) -> Option<String> {
    let valid = bound.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let valid = valid.split('\0').next().unwrap_or_default();
    let mut text = valid.to_owned();
    let mut rest = bound.get(valid.len()..)?.to_vec();
    while !rest.is_empty() {
        if let Some(next) = char_at_least(&rest) {
            text.push(next);
            return Some(text);
        }
        rest = format!("{}\0", text.pop()?).into_bytes();
    }
    Some(text)
}

/// The smallest character but NUL that does not sort before those bytes.
fn char_at_least(bound: &[u8]) -> Option<char> {
    let (mut low, mut high) = (1, u32::from(char::MAX) + 1);
    while low < high {
        let middle = low.midpoint(high);
        // A surrogate is no character; the one behind them is as good.
        let tried = char::from_u32(middle).unwrap_or('\u{e000}');
        if tried.encode_utf8(&mut [0; 4]).as_bytes() >= bound {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    (low..=low + 0x800).find_map(char::from_u32)
}

impl Form {
    fn bytes(self, kind: Kind, text: &str) -> Result<Bytes> {
        match self {
            Self::Text => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Self::Tuple => kind.packed(text),
        }
    }
}

/// Why no index can have the order of keys, and what would help.
pub(crate) const UNORDERED: &str = "keys as texts sort in another way than the column does, 10 before 9; with `keys: tuple` they sort as it does";

/// Why a restore cannot write into a table of rows.
pub(crate) const NO_MARKS: &str = "the table takes no keys of tierstack's own, under which a restore keeps its mark; restore into another store, and `copy` from there";

/// Whether scans are offered: why not, if not. `missing`: the index that would allow them.
///
/// # Errors
/// `Config`: they are to be, and cannot.
pub(crate) fn scans(wanted: bool, missing: Option<String>) -> Result<Option<String>> {
    match (missing, wanted) {
        (None, true) => Ok(None),
        (Some(why), true) => {
            Err(Error::config(format!("{why}; or do without scans, with `scans: false`")))
        }
        (why, false) => Ok(Some(format!(
            "`scans` is false, so entries are found by their keys alone; {}",
            why.map_or_else(
                || "leave it out".to_owned(),
                |why| format!("{why}; then leave `scans` out")
            )
        ))),
    }
}

/// The key of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowKey {
    form: Form,
    kinds: Vec<Kind>,
}

impl RowKey {
    pub(crate) fn new(form: Form, kinds: Vec<Kind>) -> Self {
        Self { form, kinds }
    }

    /// Whether the bytes of keys sort as the columns do, where texts sort by their bytes.
    pub(crate) fn is_ordered(&self) -> bool {
        self.form == Form::Tuple
            || matches!(&self.kinds[..], [kind] if !matches!(kind, Kind::Integer(_)))
    }

    fn malformed(&self) -> Error {
        let parts: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
        Error::invalid(match self.form {
            Form::Text => format!("the key must be {}", parts.join(", a `/`, and ")),
            Form::Tuple => {
                format!("the key must be a tuple (`tierstack::keys`) of {}", parts.join(", and "))
            }
        })
    }

    /// The texts of the columns.
    ///
    /// # Errors
    /// `InvalidInput`: no row can have that key.
    pub(crate) fn columns(&self, key: &[u8]) -> Result<Vec<String>> {
        let parts = match self.form {
            Form::Text => self.split(key),
            Form::Tuple => unpack::<Vec<Part>>(key).ok().and_then(|parts| {
                let columns = self.kinds.iter().zip(&parts).map(|(kind, part)| kind.of_part(part));
                let columns: Vec<_> = columns.collect::<Option<_>>()?;
                (columns.len() == parts.len()).then_some(columns)
            }),
        };
        let parts = parts.filter(|parts| parts.len() == self.kinds.len());
        parts.ok_or_else(|| self.malformed())
    }

    fn split(&self, key: &[u8]) -> Option<Vec<String>> {
        let text = std::str::from_utf8(key).ok()?;
        if let [kind] = self.kinds[..] {
            return kind.check(text).map(|()| vec![text.to_owned()]);
        }
        let parts = text.split('/').zip(&self.kinds).map(|(part, kind)| {
            let plain = part.replace("%2F", "/").replace("%25", "%");
            (escaped(&plain) == part).then_some(())?;
            kind.check(&plain).map(|()| plain)
        });
        (text.split('/').count() == self.kinds.len()).then(|| parts.collect()).flatten()
    }

    /// The key of those columns.
    ///
    /// # Errors
    /// `InvalidInput`: the texts are none of such columns.
    pub(crate) fn key(&self, columns: &[String]) -> Result<Bytes> {
        let fit = columns.iter().zip(&self.kinds).all(|(text, kind)| kind.check(text).is_some());
        if !fit || columns.len() != self.kinds.len() {
            return Err(self.malformed());
        }
        match (self.form, columns) {
            (Form::Text, [one]) => Ok(Bytes::copy_from_slice(one.as_bytes())),
            (Form::Text, several) => {
                let parts: Vec<_> = several.iter().map(|part| escaped(part)).collect();
                Ok(parts.join("/").into())
            }
            (Form::Tuple, columns) => {
                let mut key = Vec::new();
                for (kind, text) in self.kinds.iter().zip(columns) {
                    key.extend_from_slice(&kind.packed(text)?);
                }
                Ok(key.into())
            }
        }
    }

    /// The columns of the first row whose key does not sort before those bytes. `None`: all do.
    pub(crate) fn at_least(&self, bound: &[u8]) -> Option<Vec<String>> {
        at_least(self.form, &self.kinds, bound)
    }
}

fn at_least(form: Form, kinds: &[Kind], bound: &[u8]) -> Option<Vec<String>> {
    let Some((kind, behind)) = kinds.split_first() else { return bound.is_empty().then(Vec::new) };
    let mut part = kind.at_least(form, bound)?;
    let bytes = form.bytes(*kind, &part).ok()?;
    // The bytes of one text may begin those of another; but `text_at_least` has given one that does not sort before.
    if let Some(rest) = bound.strip_prefix(&bytes[..]) {
        if let Some(more) = at_least(form, behind, rest) {
            return Some([vec![part], more].concat());
        }
        part = kind.after(form, &part)?;
    }
    Some(std::iter::once(part).chain(behind.iter().map(|kind| kind.first())).collect())
}

/// A part of a text of several.
fn escaped(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop_oneof![
                Just('\u{1}'),
                Just('a'),
                Just('/'),
                Just('%'),
                Just('\u{7f}'),
                Just('é'),
                Just('\u{d7ff}'),
                Just('\u{e000}'),
                Just(char::MAX),
                any::<char>().prop_filter("NUL", |c| *c != '\0')
            ],
            0..6,
        )
        .prop_map(|chars| chars.into_iter().collect())
    }

    fn value(kind: Kind) -> BoxedStrategy<String> {
        let last = kind.last();
        match kind {
            Kind::Text => text().boxed(),
            Kind::Bytes => proptest::collection::vec(
                prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()],
                0..5,
            )
            .prop_map(|bytes| hex(&bytes))
            .boxed(),
            _ => prop_oneof![
                0..=last,
                Just(0),
                Just(last),
                Just(last / 2),
                last / 2 - 300..=last / 2 + 300
            ]
            .prop_map(move |at| kind.nth(at))
            .boxed(),
        }
    }

    fn kinds() -> impl Strategy<Value = Vec<Kind>> {
        let kind = proptest::sample::select(vec![
            Kind::Text,
            Kind::Bytes,
            Kind::Uuid,
            Kind::Integer(16),
            Kind::Integer(64),
            Kind::Time,
        ]);
        proptest::collection::vec(kind, 1..4)
    }

    fn row_key() -> impl Strategy<Value = RowKey> {
        (proptest::sample::select(vec![Form::Text, Form::Tuple]), kinds())
            .prop_map(|(form, kinds)| RowKey::new(form, kinds))
    }

    fn with_rows(rows: usize) -> impl Strategy<Value = (RowKey, Vec<Vec<String>>)> {
        row_key().prop_flat_map(move |key| {
            let row: Vec<_> = key.kinds.iter().map(|kind| value(*kind)).collect();
            (Just(key), proptest::collection::vec(row, rows))
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back((key, rows) in with_rows(1)) {
            let bytes = key.key(&rows[0]).unwrap();
            prop_assert_eq!(&key.columns(&bytes).unwrap(), &rows[0]);
        }

        #[test]
        fn no_two_keys_are_the_same_row((key, rows) in with_rows(1), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut other = key.key(&rows[0]).unwrap().to_vec();
            prop_assume!(!other.is_empty());
            let at = at.index(other.len());
            other[at] = byte;
            if let Ok(columns) = key.columns(&other) {
                prop_assert_eq!(&key.key(&columns).unwrap()[..], &other[..]);
            }
        }

        #[test]
        fn a_bound_parts_the_rows_as_it_parts_the_keys(
            (key, rows) in with_rows(2),
            cut in any::<prop::sample::Index>(),
            tail in proptest::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..3),
        ) {
            if !key.is_ordered() {
                return Ok(());
            }
            let row = key.key(&rows[0]).unwrap();
            let mut bound = key.key(&rows[1]).unwrap().to_vec();
            bound.truncate(cut.index(bound.len() + 1));
            bound.extend(tail);
            let first = key.at_least(&bound).map(|columns| key.key(&columns).unwrap());
            prop_assert!(first.as_ref().is_none_or(|first| first[..] >= bound[..]));
            prop_assert_eq!(row[..] >= bound[..], first.is_some_and(|first| row >= first));
        }
    }

    #[test]
    fn keys_as_a_person_types_them() {
        let of = |kinds: &[Kind], key: &str| {
            RowKey::new(Form::Text, kinds.to_vec()).columns(key.as_bytes())
        };
        let whole = Kind::Integer(64);
        assert_eq!(of(&[Kind::Text], "users/7").unwrap(), ["users/7"]);
        assert_eq!(of(&[Kind::Text, whole], "a%2Fb/7").unwrap(), ["a/b", "7"]);
        for other in ["042", "+42", " 42", "-0", "9223372036854775808", "x", ""] {
            assert!(of(&[whole], other).is_err(), "{other}");
        }
        assert!(of(&[Kind::Uuid], "67E55044-10b1-426f-9247-bb680e5fe0c8").is_err());
        assert!(of(&[Kind::Integer(16)], "32768").is_err());
        assert!(of(&[Kind::Time], "2026-01-31T12:00:00Z").is_err());
        assert!(of(&[Kind::Time], "2026-01-31T12:00:00.000000Z").is_ok());
        assert!(of(&[Kind::Text, whole], "a").is_err());
        assert!(of(&[Kind::Text, whole], "a/7/8").is_err());
    }
}
