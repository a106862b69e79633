//! The key of a row: its columns, and the SQL that compares and writes them.
//!
//! A key travels as `bytea`: the bytes of a column that is `bytea`, otherwise the text of the column, and of several
//! columns a JSON array of their texts. The server makes values of the columns' types from it.

use std::borrow::Cow;

use bytes::Bytes;

use super::columns::Keys;
use super::config::PostgresConfig;
use super::own_table::quoted;
use crate::error::{Error, Result};
use crate::keys::row::{Form, Kind, NO_MARKS, RowKey};
use crate::store::Change;
use crate::types::{Batch, Condition, Op, RESERVED_PREFIX, Scope};

/// A column of the key.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: String,
    /// As `format_type` writes it.
    pub(super) kind: String,
    /// Its collation as it is in SQL, if its type has one.
    pub(super) collation: Option<String>,
    /// Whether texts sort by their bytes in it.
    pub(super) bytewise: bool,
    /// The characters of a text, or the digits behind the second, that the type has room for.
    pub(super) limit: Option<usize>,
}

impl Part {
    /// `None`: no such type is taken.
    pub(super) fn known(&self) -> Option<Kind> {
        match self.kind.as_str() {
            "text" | "character varying" => Some(Kind::Text),
            "uuid" => Some(Kind::Uuid),
            "smallint" => Some(Kind::Integer(16)),
            "integer" => Some(Kind::Integer(32)),
            "bigint" => Some(Kind::Integer(64)),
            "timestamp with time zone" | "timestamp without time zone" => Some(Kind::Time),
            _ => None,
        }
    }

    /// The text of a column, the same whatever the session's settings are.
    fn text(&self, of: &str) -> String {
        let column = format!("{of}{}", quoted(&self.name));
        let utc = match self.kind.as_str() {
            "timestamp with time zone" => format!("({column} AT TIME ZONE 'UTC')"),
            "timestamp without time zone" => column,
            _ => return format!("{column}::text"),
        };
        // What has no such text, such as `infinity` or a time before Christ, becomes an odd one, which is refused.
        format!(
            "to_char({utc}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') || CASE WHEN {utc} < '0001-01-01' THEN ' BC' ELSE '' END"
        )
    }

    /// The server cuts spaces off, and rounds times, to make them fit: that is another row.
    fn check(&self, text: &str) -> Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        let name = quoted(&self.name);
        match self.known() {
            Some(Kind::Text) if text.chars().nth(limit).is_some() => Err(Error::invalid(format!(
                "the column {name} of the key takes {limit} characters at most"
            ))),
            Some(Kind::Time) if digits(text) > limit => Err(Error::invalid(format!(
                "the column {name} of the key takes times with {limit} digits behind the second"
            ))),
            _ => Ok(()),
        }
    }

    fn cast(&self, text: &str) -> String {
        match self.kind.as_str() {
            "timestamp without time zone" => {
                format!("(({text})::timestamptz AT TIME ZONE 'UTC')")
            }
            "text" | "character varying" => format!("({text})"),
            kind => format!("({text})::{kind}"),
        }
    }

    /// A text to be compared with the column, under the column's collation: what `convert_from` gives has that of the
    /// encoding's name, `C`, for which the index of the column may be none.
    fn collated(&self, text: String) -> String {
        match &self.collation {
            Some(own) => format!("{text} COLLATE {own}"),
            None => text,
        }
    }

    /// As it is compared by the index that has the order of keys.
    fn ordered(&self, text: String) -> String {
        match &self.collation {
            Some(_) if !self.bytewise => format!("{text} COLLATE \"C\""),
            _ => self.collated(text),
        }
    }

    fn order(&self, of: &str) -> String {
        let name = format!("{of}{}", quoted(&self.name));
        if self.bytewise { name } else { self.ordered(name) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) parts: Vec<Part>,
    keys: Keys,
    /// `None`: the one column is `bytea`.
    row: Option<RowKey>,
}

/// The digits behind the second of a time as a key has it, `2026-01-31T12:00:00.000000Z`, up to the last that is not 0.
fn digits(time: &str) -> usize {
    let fraction = time.split_once('.').map_or("", |(_, fraction)| fraction);
    fraction.trim_end_matches('Z').trim_end_matches('0').len()
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn several(mut items: Vec<String>) -> String {
    match (items.len(), items.pop()) {
        (1, Some(one)) => one,
        (_, last) => format!("({})", list(items.into_iter().chain(last))),
    }
}

impl Key {
    /// `None`: a column is of a type that is not taken.
    pub(super) fn new(keys: Keys, parts: Vec<Part>) -> Option<Self> {
        let form = match keys {
            Keys::Bytea => return Some(Self { parts, keys, row: None }),
            Keys::Text => Form::Text,
            Keys::Tuple => Form::Tuple,
        };
        let kinds = parts.iter().map(Part::known).collect::<Option<Vec<_>>>()?;
        Some(Self { parts, keys, row: Some(RowKey::new(form, kinds)) })
    }

    /// Whether an index on the columns can have the order of keys.
    pub(super) fn is_ordered(&self) -> bool {
        self.row.as_ref().is_none_or(RowKey::is_ordered)
    }

    /// The names of the columns.
    pub(super) fn columns(&self) -> String {
        list(self.parts.iter().map(|part| quoted(&part.name)))
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.name == name)
    }

    /// The columns as the index has them that gives the order of keys.
    pub(super) fn order(&self, of: &str) -> Vec<String> {
        self.parts.iter().map(|part| part.order(of)).collect()
    }

    /// Whether binary `COPY` takes a key as it travels.
    pub(super) fn is_plain(&self) -> bool {
        match (self.keys, &self.parts[..]) {
            (Keys::Bytea, _) => true,
            (Keys::Text, [one]) => one.known() == Some(Kind::Text),
            _ => false,
        }
    }

    /// The columns of a key that was sent.
    pub(super) fn of_sent(&self, sent: &str) -> Vec<String> {
        let text = format!("convert_from({sent}, 'UTF8')");
        match (&self.row, &self.parts[..]) {
            (None, _) => vec![sent.to_owned()],
            (_, [one]) => vec![one.cast(&text)],
            (_, parts) => {
                let cast = |(at, part): (usize, &Part)| part.cast(&format!("{text}::json->>{at}"));
                parts.iter().enumerate().map(cast).collect()
            }
        }
    }

    /// The key of columns, as it travels.
    pub(super) fn sent(&self, of: &str) -> String {
        match (&self.row, &self.parts[..]) {
            (None, parts) => list(parts.iter().map(|part| format!("{of}{}", quoted(&part.name)))),
            (_, [one]) => format!("convert_to({}, 'UTF8')", one.text(of)),
            (_, parts) => {
                let texts = list(parts.iter().map(|part| part.text(of)));
                format!("convert_to(json_build_array({texts})::text, 'UTF8')")
            }
        }
    }

    /// Whether the row has the key that was sent.
    pub(super) fn equals(&self, of: &str, sent: &str) -> String {
        let sent = self.of_sent(sent);
        let same = self.parts.iter().zip(sent);
        let same = same
            .map(|(part, sent)| format!("{of}{} = {}", quoted(&part.name), part.collated(sent)));
        same.collect::<Vec<_>>().join(" AND ")
    }

    /// Whether the row has one of the keys that were sent.
    pub(super) fn any(&self, sent: &str) -> String {
        let columns = several(self.parts.iter().map(|part| quoted(&part.name)).collect());
        if self.row.is_none() {
            return format!("{columns} = ANY({sent})");
        }
        let keys = format!(
            "SELECT {} FROM unnest({sent}::bytea[]) AS wanted (k)",
            list(self.parts.iter().zip(self.of_sent("k")).map(|(part, k)| part.collated(k)))
        );
        match self.parts.len() {
            1 => format!("{columns} = ANY(ARRAY({keys}))"),
            _ => format!("{columns} IN ({keys})"),
        }
    }

    /// Compares with a bound.
    pub(super) fn compares(&self, how: &str, sent: &str) -> String {
        let bound = self.parts.iter().zip(self.of_sent(sent)).map(|(part, k)| part.ordered(k));
        format!("{} {how} {}", several(self.order("")), several(bound.collect()))
    }

    /// The key of an entry as it travels.
    pub(super) fn to_sent<'a>(&self, key: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        let Some(row) = &self.row else { return Ok(Cow::Borrowed(key)) };
        let refused = |error: Error| {
            if key.starts_with(RESERVED_PREFIX) {
                return Error::unsupported(NO_MARKS);
            }
            error.with_key(key)
        };
        let columns = row.columns(key).map_err(refused)?;
        for (part, text) in self.parts.iter().zip(&columns) {
            part.check(text).map_err(|error| error.with_key(key))?;
        }
        Ok(match &columns[..] {
            [one] if one.as_bytes() == key => Cow::Borrowed(key),
            columns => Cow::Owned(joined(columns)),
        })
    }

    /// The key of an entry from what came from the server.
    pub(super) fn received(&self, sent: &[u8]) -> Result<Bytes> {
        let odd = || {
            Error::unsupported(
                "the table holds a key that cannot be one here, such as a time that is `infinity`; remove it, or scan a range without it",
            )
        };
        match (&self.row, &self.parts[..]) {
            (None, _) => Ok(Bytes::copy_from_slice(sent)),
            (Some(row), [_]) => {
                let text = String::from_utf8(sent.to_vec()).map_err(|_| odd())?;
                row.key(&[text]).map_err(|_| odd())
            }
            (Some(row), _) => {
                let texts: Vec<String> = serde_json::from_slice(sent).map_err(|_| odd())?;
                row.key(&texts).map_err(|_| odd())
            }
        }
    }

    /// What is sent of a bound: the first key that does not sort before it. `None`: all do.
    pub(super) fn bound<'a>(&self, bound: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let Some(row) = &self.row else { return Some(Cow::Borrowed(bound)) };
        row.at_least(bound).map(|columns| Cow::Owned(joined(&columns)))
    }

    /// The batch with its keys as they travel.
    pub(super) fn batch<'a>(&self, batch: &'a Batch) -> Result<Cow<'a, Batch>> {
        if self.row.is_none() {
            return Ok(Cow::Borrowed(batch));
        }
        let sent = |key: &Bytes| -> Result<Bytes> {
            Ok(match self.to_sent(key)? {
                Cow::Borrowed(_) => key.clone(),
                Cow::Owned(sent) => sent.into(),
            })
        };
        let ops = batch.ops().iter().map(|op| {
            let key = sent(op.key())?;
            Ok(match op.value() {
                Some(value) => Op::Put(key, value.clone()),
                None => Op::Delete(key),
            })
        });
        let mut other: Batch = ops.collect::<Result<_>>()?;
        for condition in batch.conditions() {
            let key = sent(condition.key())?;
            other = other.require(match condition.value() {
                Some(value) => Condition::equals(key, value.clone()),
                None => Condition::absent(key),
            });
        }
        Ok(Cow::Owned(other))
    }

    /// The error of a batch that has its keys as they travel.
    pub(super) fn error(&self, error: Error) -> Error {
        if self.row.is_none() {
            return error;
        }
        error.map_key(|sent| self.received(&sent).unwrap_or(sent))
    }
}

/// As `json_build_array` writes it, of texts.
fn joined(columns: &[String]) -> Vec<u8> {
    match columns {
        [one] => one.clone().into_bytes(),
        several => {
            let texts =
                several.iter().map(|text| serde_json::Value::from(text.as_str()).to_string());
            format!("[{}]", list(texts)).into_bytes()
        }
    }
}

/// The key of a row as triggers tell it. The types are not known where they are printed: of a time, and of
/// what else has another text than is read here, nothing is recognised, so everything is taken for changed.
pub(super) fn told(settings: &PostgresConfig) -> Key {
    let parts = settings.columns.key.names().iter().map(|name| Part {
        name: name.clone(),
        kind: String::new(),
        collation: None,
        bytewise: true,
        limit: None,
    });
    let row = (settings.keys != Keys::Bytea).then(|| RowKey::new(Form::Text, Vec::new()));
    Key { parts: parts.collect(), keys: settings.keys, row }
}

/// Keys in notifications.
#[derive(Clone)]
pub(super) struct Spoken {
    /// As in the SQL of the triggers.
    pub(super) sql: Key,
    key: Key,
    /// Whether the key of every entry travels as it is, and so does a prefix.
    same: bool,
}

impl Spoken {
    pub(super) fn new(settings: &PostgresConfig, key: Key) -> Self {
        let same = match settings.keys {
            Keys::Bytea => true,
            Keys::Text => key.parts.len() == 1,
            Keys::Tuple => false,
        };
        Self { sql: told(settings), key, same }
    }

    /// An invalidation as it is told. A key that no row can have is left out.
    pub(super) fn told(&self, scope: &Scope) -> Scope {
        match scope {
            Scope::Keys(keys) => Scope::Keys(
                keys.iter()
                    .filter_map(|key| self.key.to_sent(key).ok())
                    .map(|sent| Bytes::copy_from_slice(&sent))
                    .collect(),
            ),
            Scope::Prefix(_) if !self.same => Scope::All,
            other => other.clone(),
        }
    }

    /// What was notified, by the keys of entries.
    pub(super) fn heard(&self, change: Change) -> Change {
        match change {
            Change::Keys(sent) => {
                let keys: Result<_> = sent.iter().map(|sent| self.key.received(sent)).collect();
                keys.map_or(Change::All, Change::Keys)
            }
            Change::Prefix(_) if !self.same => Change::All,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(keys: Keys, kinds: &[&str]) -> Key {
        let parts = kinds.iter().enumerate().map(|(at, kind)| Part {
            name: format!("c{at}"),
            kind: (*kind).to_owned(),
            collation: (*kind == "text").then(|| "\"de\"".to_owned()),
            bytewise: *kind != "text",
            limit: None,
        });
        Key::new(keys, parts.collect()).unwrap()
    }

    #[test]
    fn a_key_travels_as_it_is_told() {
        let one = key(Keys::Tuple, &["bigint"]);
        let packed = crate::keys::pack(&42).unwrap();
        assert_eq!(&one.to_sent(&packed).unwrap()[..], b"42");
        assert_eq!(one.received(b"42").unwrap(), packed);
        let two = key(Keys::Text, &["text", "integer"]);
        let sent = two.to_sent(b"a\"b/7").unwrap();
        assert_eq!(&sent[..], br#"["a\"b", "7"]"#);
        assert_eq!(two.received(&sent).unwrap(), "a\"b/7");
        assert!(two.to_sent(b"a").is_err() && two.received(b"[1]").is_err());
    }

    #[test]
    fn an_index_with_the_order_of_bytes_is_named() {
        let text = key(Keys::Text, &["text"]);
        assert_eq!(
            text.compares(">=", "$3"),
            r#""c0" COLLATE "C" >= (convert_from($3, 'UTF8')) COLLATE "C""#
        );
        let two = key(Keys::Tuple, &["uuid", "bigint"]);
        assert_eq!(
            two.compares("<", "$3"),
            r#"("c0", "c1") < ((convert_from($3, 'UTF8')::json->>0)::uuid, (convert_from($3, 'UTF8')::json->>1)::bigint)"#
        );
        assert!(two.is_ordered() && !key(Keys::Text, &["bigint"]).is_ordered());
        assert!(
            Key::new(
                Keys::Text,
                vec![Part {
                    name: "x".into(),
                    kind: "numeric".into(),
                    collation: None,
                    bytewise: true,
                    limit: None
                }]
            )
            .is_none()
        );
    }
}
