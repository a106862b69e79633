//! Text in one of three formats to one tree, before any of it is typed.
//!
//! The parsers differ in what they let pass; the tree does not: a name that occurs twice in a map, a
//! number that is not finite, and a tag are refused in all of them. No message of a parser quotes the
//! text around the mistake, since that text may be a secret.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// The format of a config file.
///
/// ```
/// use std::path::Path;
/// use tierstack::config::Format;
///
/// assert_eq!(Format::of(Path::new("tierstack.yml"))?, Format::Yaml);
/// assert_eq!(Format::of(Path::new("/etc/tierstack.TOML"))?, Format::Toml);
/// assert!(Format::of(Path::new("tierstack.ini")).is_err());
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.yaml`, `.yml`: YAML 1.2, so that `no` and `on` are text and only `true` is true.
    Yaml,
    /// `.toml`: TOML 1.1.
    Toml,
    /// `.json`: JSON.
    Json,
}

impl Format {
    /// The format that the file's extension names.
    ///
    /// # Errors
    /// `Config` that names the extensions that are known.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("yaml" | "yml") => Ok(Self::Yaml),
            Some("toml") => Ok(Self::Toml),
            Some("json") => Ok(Self::Json),
            _ => Err(Error::config(format!(
                "{}: a config file ends in .yaml, .yml, .toml or .json",
                path.display()
            ))),
        }
    }
}

/// Where in a text, and what is wrong there.
pub(super) struct SyntaxError {
    /// Line and column, from 1.
    pub(super) at: Option<(usize, usize)>,
    pub(super) message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => {
                write!(f, "line {line}, column {column}: {}", self.message)
            }
            None => f.write_str(&self.message),
        }
    }
}

/// The tree of a text.
pub(super) fn parse(text: &str, format: Format) -> Result<Value, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Yaml => yaml(text),
        Format::Toml => toml(text),
        Format::Json => json(text),
    }
}

fn yaml(text: &str) -> Result<Value, SyntaxError> {
    use serde_saphyr::options::MergeKeyPolicy;

    // What one alias can multiply, another multiplies again: a file of a kilobyte must not become a
    // tree of gigabytes. These bounds are far above what a config needs.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_documents: 1,
            max_nodes: 50_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 16,
        },
        merge_keys: MergeKeyPolicy::Merge,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        Node.deserialize(deserializer)
    })
    .map_err(|error| {
        let at = error.location().map(|at| (at.line() as usize, at.column() as usize));
        let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let message = message.split(" at line ").next().unwrap_or_default();
        let message = match at.and_then(|(line, _)| why_not_plain(text, line)) {
            Some(why) => why,
            None => unquote(message, text),
        };
        SyntaxError { at, message }
    })
}

/// What most likely is wrong with a line that the parser stumbles over, and what it does not say.
fn why_not_plain(text: &str, line: usize) -> Option<String> {
    let this = text.lines().nth(line.checked_sub(1)?)?;
    if this.starts_with("---") && text.lines().take(line - 1).any(|line| !is_blank(line)) {
        return Some(
            "a second document begins here, and a config is one; take out the `---`, or put what follows into a file of its own"
                .to_owned(),
        );
    }
    // The start of a value, behind the name, the dash of an item, or what opens a list in one line.
    let values = this.match_indices([':', '-', '[', '{', ',']).filter_map(|(at, before)| {
        let rest = this.get(at + 1..)?;
        let begins = rest.starts_with(' ') || !matches!(before, ":" | "-");
        begins.then(|| rest.trim_start().chars())
    });
    let mut marks = values.filter_map(|mut value| {
        let mark = value.next()?;
        // An anchor or an alias has a name.
        let named = value.next().is_some_and(char::is_alphanumeric);
        (matches!(mark, '@' | '`' | '%') || matches!(mark, '*' | '&') && !named).then_some(mark)
    });
    let mark = marks.next()?;
    Some(format!(
        "a value that begins with '{mark}' means something else to YAML; put it in quotes, such as \"{mark}...\""
    ))
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

fn toml(text: &str) -> Result<Value, SyntaxError> {
    let at_of = |error: &toml::de::Error| error.span().map(|span| position(text, span.start));
    let deserializer = toml::Deserializer::parse(text)
        .map_err(|error| SyntaxError { at: at_of(&error), message: one_line(error.message()) })?;
    Node.deserialize(deserializer)
        .map_err(|error| SyntaxError { at: at_of(&error), message: one_line(error.message()) })
}

fn json(text: &str) -> Result<Value, SyntaxError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Node.deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            let text = error.to_string();
            let message = match text.rsplit_once(" at line ").map_or(&*text, |(message, _)| message)
            {
                escape if escape.contains("hex escape") => {
                    "a `\\u` escape is half of a surrogate pair, which is no character"
                }
                message => message,
            };
            SyntaxError { at: Some((error.line(), error.column())), message: message.to_owned() }
        })
}

/// Line and column, from 1, of a byte of a text.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// The message without what it quotes of the text: a secret that begins with `!`, `*` or `&` is a tag, an
/// alias or an anchor to the parser, which names it.
fn unquote(message: &str, text: &str) -> String {
    let words = message.split_whitespace().map(|word| {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        if bare.len() > 2 && text.contains(bare) {
            word.replace(bare, "…")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every whole number up to here is one that a floating-point number holds exactly: 2^53.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// The name under which `toml` hands out a date, as a map of one entry.
const TOML_DATE: &str = "$__toml_private_datetime";

/// Builds the tree from whatever a parser finds.
struct Node;

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true, false, a list or a map")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // To a schema `3.0` is the whole number 3, and to a setting too.
        if value.fract() == 0.0 && value.abs() <= WHOLE {
            return Ok((value as i64).into());
        }
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Self)?;
            if name == TOML_DATE {
                return Ok(value);
            }
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("'{name}' occurs twice in the same map")));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}
