//! Sizes, durations, addresses and secrets as people write them in a config file.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use super::fraction::Fraction;
pub use super::path::check_path;
pub use super::url::Url;

/// A number of bytes, written as `256MiB`, `10MB`, `512B` or a plain number of bytes.
///
/// ```
/// use tierstack::units::ByteSize;
///
/// assert_eq!("256MiB".parse(), Ok(ByteSize(256 << 20)));
/// assert_eq!("1.5 kB".parse(), Ok(ByteSize(1500)));
/// assert!("256 megs".parse::<ByteSize>().is_err());
/// assert_eq!(ByteSize(256 << 20).to_string(), "256MiB");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Binary units first, so that printing finds the exact one. With each the digits that a number of it may have: as
/// many as always fit.
const UNITS: [(&str, u64, usize); 9] = [
    ("TiB", 1 << 40, 7),
    ("GiB", 1 << 30, 10),
    ("MiB", 1 << 20, 13),
    ("KiB", 1 << 10, 16),
    ("TB", 1_000_000_000_000, 7),
    ("GB", 1_000_000_000, 10),
    ("MB", 1_000_000, 13),
    ("KB", 1_000, 16),
    ("B", 1, 19),
];

impl ByteSize {
    /// The number, as the machine counts memory.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not a size; write a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 256MiB"
            )
        };
        let trimmed = text.trim_matches(' ');
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, name) = trimmed.split_at(end);
        let name = match name.trim_start_matches(' ') {
            "" => "B",
            name => name,
        };
        let unit = UNITS.iter().find(|(unit, ..)| unit.eq_ignore_ascii_case(name));
        let (_, unit, most) = unit.ok_or_else(wrong)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        if !(1..=*most).contains(&whole.len()) || part.is_empty() || part.contains('.') {
            return Err(wrong());
        }
        let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(*unit));
        // Exact as far as it matters: a part of a unit.
        let part = format!("0.{part}").parse::<f64>().map(|part| (part * *unit as f64) as u64);
        let bytes = whole.zip(part.ok()).and_then(|(whole, part)| whole.checked_add(part));
        bytes.map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact =
            UNITS.iter().find(|(_, size, _)| self.0 >= *size && self.0.is_multiple_of(*size));
        match exact {
            Some((unit, size, _)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A duration, written as `500ms`, `30s`, `10m`, `1h 30m` or `7d`.
///
/// ```
/// use std::time::Duration;
/// use tierstack::units::Span;
///
/// assert_eq!("10m".parse(), Ok(Span(Duration::from_secs(600))));
/// assert!("10".parse::<Span>().is_err(), "a unit is required");
/// assert_eq!(Span(Duration::from_secs(90)).to_string(), "1m 30s");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// What `humantime` knows, but for `M`: to it that is a month, and `10M` is more likely meant as ten minutes.
const TIMES: [&str; 28] = [
    "nsec", "ns", "usec", "us", "msec", "ms", "seconds", "second", "sec", "s", "minutes", "minute",
    "min", "m", "hours", "hour", "hr", "h", "days", "day", "d", "weeks", "week", "w", "months",
    "month", "years", "year",
];
/// Digits that a number of a duration may have.
const TIME_DIGITS: usize = 10;

/// Whether a text is numbers with units, as the schema says.
fn is_span(mut text: &str) -> bool {
    loop {
        text = text.trim_start_matches(' ');
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        if !(1..=TIME_DIGITS).contains(&(text.len() - rest.len())) {
            return false;
        }
        let unit = rest.trim_start_matches(' ');
        text = unit.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let unit = unit.strip_suffix(text).unwrap_or_default();
        if !TIMES.contains(&unit) {
            return false;
        }
        if text.trim_matches(' ').is_empty() {
            return true;
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(span) if is_span(text) => Ok(Self(span)),
            _ => Err(format!(
                "'{text}' is not a duration; write a number with ms, s, m, h or d, such as 10m"
            )),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// What a config file may hold in place of text, to be told apart in messages.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Integer(u64),
    Text(String),
    Other(serde::de::IgnoredAny),
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Integer(bytes) => Ok(Self(bytes)),
            Scalar::Text(text) => text.parse().map_err(D::Error::custom),
            Scalar::Other(_) => Err(D::Error::invalid_type(
                Unexpected::Other("something else"),
                &"a size such as 256MiB",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => text.parse().map_err(D::Error::custom),
            Scalar::Integer(number) => Err(D::Error::custom(format!(
                "'{number}' has no unit; write a number with ms, s, m, h or d, such as {number}s"
            ))),
            Scalar::Other(_) => Err(D::Error::invalid_type(
                Unexpected::Other("something else"),
                &"a duration such as 10m",
            )),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a secret comes from: `{ env: NAME }` or `{ file: PATH }`. Never the secret itself.
///
/// ```
/// use tierstack::units::Secret;
///
/// let secret = Secret::File("keys.txt".into());
/// assert!(matches!(secret, Secret::File(_)));
/// assert_eq!(format!("{:?}", tierstack::units::SecretText::from("hunter2".to_owned())), "<redacted>");
/// ```
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// The value of an environment variable.
    Env(#[cfg_attr(feature = "config", schemars(regex(pattern = r"^[A-Za-z0-9_.-]+$")))] String),
    /// The content of a file, without white space at its ends: UTF-8, or UTF-16 with a byte-order mark.
    File(std::path::PathBuf),
}

impl Secret {
    /// Reads the secret. A file may never answer, such as a pipe that nobody writes into: dropping the future gives
    /// it up.
    ///
    /// # Errors
    /// `Config` that names the variable or the file, and never its content.
    pub async fn load(&self) -> crate::Result<SecretText> {
        let secret = self.clone();
        match self {
            Self::Env(_) => self.read(),
            Self::File(_) => super::secret_file::apart(move || secret.read()).await,
        }
    }

    /// As [`load`](Self::load), for a thread that may block.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn read(&self) -> crate::Result<SecretText> {
        let missing = |what: String| crate::Error::config(what);
        self.check().map_err(|why| missing(format!("a secret: {why}")))?;
        let (name, text) = match self {
            Self::Env(name) => {
                let text = std::env::var(name).map_err(|error| {
                    let name = printable(name);
                    missing(match error {
                        std::env::VarError::NotPresent => format!(
                            "the secret is expected in the environment variable {name}, which is not set"
                        ),
                        std::env::VarError::NotUnicode(_) => {
                            format!("the environment variable {name} is not text")
                        }
                    })
                })?;
                (printable(name), text)
            }
            Self::File(path) => return super::secret_file::read(path),
        };
        let text = SecretText(text);
        match super::secret_file::trimmed(text.expose()) {
            "" => Err(missing(format!(
                "the environment variable {name} is empty; it must hold the secret"
            ))),
            text => Ok(SecretText(text.to_owned())),
        }
    }

    /// Somebody may have written the secret itself in the place of the name.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        match self {
            Self::Env(name) if !is_name(name) => Err(
                "what follows `env:` is not the name of an environment variable; write a name, such as ORDERS_SECRET"
                    .to_owned(),
            ),
            Self::Env(_) => Ok(()),
            Self::File(path) => super::path::check_path(path).map_err(|why| format!("`file` {why}")),
        }
    }
}

/// The name of a variable, where it is one by its looks. It may also be a secret that is in its place.
fn printable(name: &str) -> &str {
    let by_its_looks = name.len() <= 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if by_its_looks { name } else { "that `env:` names" }
}

/// Prints no secret that is in the place of a name.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) if printable(name) != name => f.write_str("Env(<redacted>)"),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// By hand: the derived one quotes what it does not understand, and that is where a secret is that
/// somebody wrote into the config. Nothing within is typed either, as the path of an error would quote
/// a name.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = match Form::deserialize(deserializer)? {
            Form::Map(map) => map,
            Form::Other(_) => BTreeMap::new(),
        };
        let mut entries = found.into_iter();
        let secret = match (entries.next(), entries.next()) {
            (Some((place, Scalar::Text(name))), None) if place == "env" => Self::Env(name),
            (Some((place, Scalar::Text(path))), None) if place == "file" => Self::File(path.into()),
            _ => {
                return Err(D::Error::custom(
                    "a secret must not be in the config; say where it is: { env: NAME } or { file: PATH }",
                ));
            }
        };
        secret.check().map_err(D::Error::custom)?;
        Ok(secret)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Map(BTreeMap<String, Scalar>),
    Other(serde::de::IgnoredAny),
}

/// A secret that was read. Prints as `<redacted>`. See [`Secret`] for an example.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "encrypt", derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop))]
pub struct SecretText(String);

impl SecretText {
    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// `1 entry`, `12 entries`
pub(crate) fn counted(number: impl TryInto<u64>, one: &str, many: &str) -> String {
    // Only a `u128` could be more.
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(feature = "config")]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{ByteSize, Span, TIME_DIGITS, TIMES, UNITS};

    impl JsonSchema for ByteSize {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            "ByteSize".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            // A letter of either case.
            let letter =
                |c: char| format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase());
            let number = |digits| format!(r"[0-9]{{1,{digits}}}(\.[0-9]+)?");
            let mut forms = vec![number(19)];
            forms.extend(UNITS.iter().map(|(unit, _, digits)| {
                format!("{} *{}", number(*digits), unit.chars().map(letter).collect::<String>())
            }));
            json_schema!({
                "type": ["string", "integer"],
                "minimum": 0,
                "maximum": u64::MAX,
                "pattern": format!("^ *({}) *$", forms.join("|")),
                "examples": ["256MiB", "10MB", 4096],
            })
        }
    }

    impl JsonSchema for Span {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            "Span".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "type": "string",
                "pattern": format!("^ *([0-9]{{1,{TIME_DIGITS}}} *({}) *)+$", TIMES.join("|")),
                "examples": ["500ms", "30s", "10m", "7d"],
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_counted_in_the_singular() {
        for (number, text) in [(0_u64, "0 entries"), (1, "1 entry"), (2, "2 entries")] {
            assert_eq!(counted(number, "entry", "entries"), text);
        }
    }

    #[test]
    fn a_size_without_a_known_unit_is_refused_with_the_allowed_ones() {
        let error = "12 parsecs".parse::<ByteSize>().unwrap_err();
        assert!(error.contains("12 parsecs") && error.contains("MiB"), "{error}");
        assert!("99999999TiB".parse::<ByteSize>().is_err(), "too large to count");
        assert!("-1".parse::<ByteSize>().is_err());
        assert!("".parse::<ByteSize>().is_err());
    }

    #[test]
    fn months_are_not_mistaken_for_minutes() {
        for text in ["10M", "1h 10M", "10 M"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        let long = Span(Duration::from_secs(400 * 86_400));
        assert_eq!(long.to_string().parse(), Ok(long), "what is printed can be read");
    }

    #[cfg(feature = "config")]
    #[test]
    fn a_secret_in_the_config_is_refused_and_not_printed() {
        for text in [
            r#""hunter2""#,
            r#"{"hunter2": "hunter2"}"#,
            r#"{"env": "A", "file": "hunter2"}"#,
            r#"{"env": null}"#,
            r#"["hunter2"]"#,
            "{}",
        ] {
            let error = serde_json::from_str::<Secret>(text).unwrap_err().to_string();
            assert!(error.contains("{ env: NAME }") && !error.contains("hunter2"), "{error}");
        }
        for (text, why) in [
            (r#"{"env": "ts1:hunter2"}"#, "not the name"),
            (r#"{"env": ""}"#, "not the name"),
            (r#"{"file": "~/keys"}"#, "begins with `~`"),
        ] {
            let error = serde_json::from_str::<Secret>(text).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
        let secret: Secret = serde_json::from_str(r#"{"env": "KEYS"}"#).unwrap();
        assert_eq!(secret, Secret::Env("KEYS".to_owned()));
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#"{"env":"KEYS"}"#);
    }

    #[test]
    fn a_missing_secret_names_its_place() {
        let error = Secret::Env("TIERSTACK_NO_SUCH_VARIABLE".to_owned()).read().unwrap_err();
        assert!(error.to_string().contains("TIERSTACK_NO_SUCH_VARIABLE"), "{error}");
        let error = Secret::Env("hunter2".to_owned());
        let printed = format!("{error:?} {}", error.read().unwrap_err());
        assert!(!printed.contains("hunter2") && printed.contains("not set"), "{printed}");
        let error = Secret::File("no/such/file".into()).read().unwrap_err();
        assert!(error.to_string().contains("no/such/file"), "{error}");
    }
}
