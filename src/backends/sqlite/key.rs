//! The key of a row: its columns, the SQL that compares them, and their cells.
//!
//! Keys are always compared with an explicit `COLLATE BINARY`, as a column may have another order. It is next to the
//! parameter: next to a column, several columns would not be compared by an index.

use std::borrow::Cow;
use std::ops::Bound;

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Row, Statement};

use super::config::{Keys, SqliteConfig};
use super::error::{NAME, failed, kind, wrong_cell};
use crate::error::{Error, Operation, Result};
use crate::keys::row::{Form, Kind, RowKey, hex, unhex};
use crate::types::{RESERVED_PREFIX, Scan, check_key};

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) struct Key {
    keys: Keys,
    /// The columns, as in the settings.
    pub(super) names: Vec<String>,
    /// What they hold.
    kinds: Vec<Kind>,
    /// `None`: the key of an entry is the one cell, as it is.
    row: Option<RowKey>,
}

/// The cells of a key.
pub(super) type Cells<'a> = Vec<Cow<'a, [u8]>>;

/// A range, as it is compared with.
pub(super) struct Range<'a> {
    pub(super) from: Option<(&'static str, Cells<'a>)>,
    pub(super) to: Option<(&'static str, Cells<'a>)>,
}

impl Key {
    pub(super) fn new(config: &SqliteConfig) -> Self {
        Self {
            keys: config.keys,
            names: config.columns.key.names().to_vec(),
            kinds: Vec::new(),
            row: None,
        }
    }

    /// Says what the columns hold.
    pub(super) fn settle(&mut self, kinds: Vec<Kind>) {
        self.row = match (self.keys, &kinds[..]) {
            (Keys::Blob, _) | (Keys::Text, [Kind::Text]) => None,
            (Keys::Text, _) => Some(RowKey::new(Form::Text, kinds.clone())),
            (Keys::Tuple, _) => Some(RowKey::new(Form::Tuple, kinds.clone())),
        };
        self.kinds = kinds;
    }

    /// Whether the columns hold that, as when the store was opened.
    pub(super) fn is_of(&self, kinds: &[Kind]) -> bool {
        self.kinds == kinds
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.row.as_ref().is_none_or(RowKey::is_ordered)
    }

    /// How many columns.
    pub(super) fn width(&self) -> usize {
        self.names.len()
    }

    fn columns(&self) -> impl Iterator<Item = String> {
        self.names.iter().map(|name| format!("t.{}", quoted(name)))
    }

    /// As it is read.
    pub(super) fn list(&self) -> String {
        self.columns().collect::<Vec<_>>().join(", ")
    }

    /// As it is sorted by.
    pub(super) fn order(&self, order: &str) -> String {
        let columns = self.columns().map(|column| format!("{column} COLLATE BINARY {order}"));
        columns.collect::<Vec<_>>().join(", ")
    }

    fn parameters(&self, first: usize) -> impl Iterator<Item = String> {
        (first..first + self.width()).map(|at| format!("?{at} COLLATE BINARY"))
    }

    /// Whether the row has the key of the parameters from that one on.
    pub(super) fn equals(&self, first: usize) -> String {
        let same = self.columns().zip(self.parameters(first));
        let same = same.map(|(column, parameter)| format!("{column} = {parameter}"));
        same.collect::<Vec<_>>().join(" AND ")
    }

    pub(super) fn compares(&self, how: &str, first: usize) -> String {
        let parameters: Vec<_> = self.parameters(first).collect();
        if self.width() == 1 {
            return format!("{} {how} {}", self.list(), parameters.concat());
        }
        format!("({}) {how} ({})", self.list(), parameters.join(", "))
    }

    /// What an upsert finds out by that a row is there.
    pub(super) fn conflict(&self) -> String {
        let column = |(at, name): (usize, &String)| match self.kind(at) {
            // The number of a row is no index with an order.
            Some(Kind::Integer(_)) => quoted(name),
            _ => format!("{} COLLATE BINARY", quoted(name)),
        };
        self.names.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    pub(super) fn kind(&self, at: usize) -> Option<Kind> {
        self.row.as_ref().and(self.kinds.get(at)).copied()
    }

    /// # Errors
    /// `InvalidInput`: no row can have that key.
    pub(super) fn check(&self, key: &[u8]) -> Result<()> {
        self.cells(key).map(drop)
    }

    /// The texts of the columns, or the bytes of the one.
    pub(super) fn cells<'a>(&self, key: &'a [u8]) -> Result<Cells<'a>> {
        let Some(row) = &self.row else {
            if self.keys == Keys::Text && std::str::from_utf8(key).is_err() {
                return Err(Error::invalid(
                    "a key that is not UTF-8 cannot be stored with `keys: text`",
                )
                .with_layer(NAME));
            }
            return Ok(vec![Cow::Borrowed(key)]);
        };
        let texts = row.columns(key).map_err(|error| {
            if self.is_mark(key) {
                return Error::unsupported(crate::keys::row::NO_MARKS).with_layer(NAME);
            }
            error.with_layer(NAME)
        })?;
        Ok(owned(texts))
    }

    /// Whether it is a key of tierstack's own, which no row can have.
    pub(super) fn is_mark(&self, key: &[u8]) -> bool {
        key.starts_with(RESERVED_PREFIX)
            && self.row.as_ref().is_some_and(|row| row.columns(key).is_err())
    }

    /// Binds the cells to the parameters from that one on.
    pub(super) fn bind(
        &self,
        statement: &mut Statement<'_>,
        first: usize,
        cells: &Cells<'_>,
    ) -> rusqlite::Result<()> {
        for (at, cell) in cells.iter().enumerate() {
            let bytes;
            let value = match (self.kind(at), self.keys) {
                (Some(Kind::Integer(_)), _) => {
                    let number = std::str::from_utf8(cell).ok().and_then(|text| text.parse().ok());
                    // It was checked to be one.
                    ValueRef::Integer(number.unwrap_or_default())
                }
                (Some(Kind::Bytes), _) => {
                    let digits = std::str::from_utf8(cell).unwrap_or_default();
                    bytes = unhex(digits).unwrap_or_default();
                    ValueRef::Blob(&bytes)
                }
                (Some(_), _) | (None, Keys::Text) => ValueRef::Text(cell),
                (None, Keys::Blob | Keys::Tuple) => ValueRef::Blob(cell),
            };
            statement.raw_bind_parameter(first + at, ToSqlOutput::Borrowed(value))?;
        }
        Ok(())
    }

    /// The key of a row whose first columns are those of the key.
    pub(super) fn read(&self, row: &Row<'_>) -> Result<Bytes> {
        let cell = |at| row.get_ref(at).map_err(|error| failed(Operation::Get, error));
        let Some(form) = &self.row else { return self.of_cell(cell(0)?) };
        let mut texts = Vec::with_capacity(self.kinds.len());
        for (at, wanted) in self.kinds.iter().enumerate() {
            texts.push(match (wanted, cell(at)?) {
                (Kind::Integer(_), ValueRef::Integer(number)) => number.to_string(),
                (Kind::Bytes, ValueRef::Blob(bytes)) => hex(bytes),
                (Kind::Text, ValueRef::Text(bytes)) => {
                    let text = std::str::from_utf8(bytes);
                    text.map_err(|_| wrong_cell("a key", "no UTF-8", "all must be"))?.to_owned()
                }
                (_, other) => {
                    let must =
                        format!("all in its column must be {}", storage(*wanted).to_uppercase());
                    return Err(wrong_cell("a key", kind(other), &must));
                }
            });
        }
        // The cells are of these types.
        let key = form.key(&texts).map_err(|_| {
            wrong_cell("a key", "a text with a NUL", "no text of a key may have one")
        })?;
        sized(&key)?;
        Ok(key)
    }

    fn of_cell(&self, cell: ValueRef<'_>) -> Result<Bytes> {
        let bytes = match (cell, self.keys) {
            (ValueRef::Text(bytes), Keys::Text) => bytes,
            (ValueRef::Blob(bytes), Keys::Blob) => bytes,
            (_, Keys::Text) => {
                return Err(wrong_cell(
                    "a key",
                    kind(cell),
                    "`keys` is text, and all must be TEXT",
                ));
            }
            _ => {
                return Err(wrong_cell(
                    "a key",
                    kind(cell),
                    "`keys` is blob, and all must be BLOB",
                ));
            }
        };
        sized(bytes)?;
        Ok(Bytes::copy_from_slice(bytes))
    }

    /// `None`: no key is within.
    pub(super) fn range<'a>(&self, scan: &'a Scan) -> Option<Range<'a>> {
        let Some(row) = &self.row else {
            let cells = |key: &'a Bytes| vec![Cow::Borrowed(&key[..])];
            let from = match &scan.from {
                Bound::Included(key) => Some((">=", cells(key))),
                Bound::Excluded(key) => Some((">", cells(key))),
                Bound::Unbounded => None,
            };
            let to = match &scan.to {
                Bound::Included(key) => Some(("<=", cells(key))),
                Bound::Excluded(key) => Some(("<", cells(key))),
                Bound::Unbounded => None,
            };
            return Some(Range { from, to });
        };
        let [from, to] = scan.half_open();
        let from = match from {
            Some(from) => Some((">=", owned(row.at_least(&from)?))),
            None => None,
        };
        let to = to.and_then(|to| row.at_least(&to)).map(|texts| ("<", owned(texts)));
        Some(Range { from, to })
    }
}

fn owned<'a>(texts: Vec<String>) -> Cells<'a> {
    texts.into_iter().map(|text| Cow::Owned(text.into_bytes())).collect()
}

/// As `typeof` says it.
pub(super) const fn storage(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer(_) => "integer",
        Kind::Bytes => "blob",
        _ => "text",
    }
}

fn sized(key: &[u8]) -> Result<()> {
    check_key(key).map_err(|_| {
        Error::unsupported(format!(
            "the table holds a key of {} bytes, but keys here are 1 to 65536 bytes; remove it with the program that wrote it, or scan a range without it",
            key.len()
        ))
        .with_key(key)
        .with_layer(NAME)
    })
}
