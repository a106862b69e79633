//! The value of a row: one column, or columns that are read and written as one JSON object.

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::{ToSqlOutput, Value as Cell, ValueRef};
use serde::de::IgnoredAny;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::config::{SqliteConfig, Storage};
use super::error::{NAME, failed, kind, wrong_cell};
use super::key::quoted;
use super::number;
use crate::error::{Error, Operation, Result};
use crate::keys::row::{hex, unhex};
use crate::types::{ValueColumns, object};

/// A column of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) not_null: bool,
    pub(super) holds: Holds,
}

/// What SQLite makes of a cell, by the type of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// What it is given.
    Any,
    /// Declared as BLOB: in an object its bytes are hexadecimal digits.
    Bytes,
    Text,
    /// A number also where a text looks like one.
    Number,
    /// The same, with each number as a REAL.
    Real,
}

/// Where a number would be changed: what fits.
const EXACT: &str = "integers of 64 bits (up to 2^53 in a column of type REAL) and numbers of up to 15 digits between 1e-300 and 1e300 always fit";

/// The columns of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) fields: Vec<Field>,
    pub(super) form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The bytes of one column, written as that.
    Plain(Storage),
    /// The text of a column that is declared as JSON: what is a number there becomes one in SQLite.
    Json,
    /// Columns as one JSON object.
    Row,
}

impl Shape {
    /// As the settings say, before the table was looked at.
    pub(super) fn new(config: &SqliteConfig) -> Self {
        let value = &config.columns.value;
        let field =
            |name: &String| Field { name: name.clone(), not_null: false, holds: Holds::Any };
        let form = match value {
            ValueColumns::One(_) => Form::Plain(config.values),
            ValueColumns::Row(_) => Form::Row,
        };
        Self { fields: value.names().iter().map(field).collect(), form }
    }

    /// How many columns.
    pub(super) fn width(&self) -> usize {
        self.fields.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.fields.iter().map(|field| &field.name)
    }

    /// As it is read.
    pub(super) fn list(&self) -> String {
        let columns: Vec<_> = self.names().map(|name| format!("t.{}", quoted(name))).collect();
        columns.join(", ")
    }

    /// Whether the columns hold what was written to the parameters from that one on, as SQLite stores it.
    pub(super) fn equals(&self, first: usize) -> String {
        let columns = self.names().zip(first..);
        let same = columns.map(|(name, at)| format!("t.{} IS ?{at} COLLATE BINARY", quoted(name)));
        same.collect::<Vec<_>>().join(" AND ")
    }

    /// Whether a value is read as it was written.
    pub(super) fn is_verbatim(&self) -> bool {
        matches!(self.form, Form::Plain(_))
    }

    /// # Errors
    /// `InvalidInput`: the columns cannot hold it.
    pub(super) fn check(&self, value: &[u8]) -> Result<()> {
        self.cells(value).map(drop)
    }

    /// What is written of a value, into each column.
    pub(super) fn cells<'a>(&self, value: &'a [u8]) -> Result<Vec<ToSqlOutput<'a>>> {
        let refused = |message: &'static str| Err(Error::invalid(message).with_layer(NAME));
        let one = |cell| Ok(vec![ToSqlOutput::Borrowed(cell)]);
        match self.form {
            Form::Plain(Storage::Blob) => one(ValueRef::Blob(value)),
            Form::Plain(Storage::Text) | Form::Json => {
                let Ok(text) = std::str::from_utf8(value) else {
                    return refused(
                        "a value that is not UTF-8 cannot be stored with `values: text`",
                    );
                };
                if self.form != Form::Json {
                    return one(ValueRef::Text(value));
                }
                // The reason would quote the value.
                if serde_json::from_str::<IgnoredAny>(text).is_err() {
                    return refused("the value is not JSON, but its column is of that type");
                }
                match number::of_text(text).map(|number| number::cell(number, false)) {
                    None => one(ValueRef::Text(value)),
                    Some(Some(number)) => Ok(vec![ToSqlOutput::Owned(number)]),
                    Some(None) => Err(Error::invalid(format!(
                        "the value is a number that its column cannot hold as it is; {EXACT}"
                    ))
                    .with_layer(NAME)),
                }
            }
            Form::Row => self.of_object(value).map_err(|error| error.with_layer(NAME)),
        }
    }

    fn of_object(&self, value: &[u8]) -> Result<Vec<ToSqlOutput<'static>>> {
        let fields = self.fields.iter();
        let columns: Vec<_> = fields
            .map(|field| object::Field { name: &field.name, not_null: field.not_null })
            .collect();
        let cells = self.fields.iter().zip(object::fields::<&RawValue>(value, &columns)?);
        cells
            .map(|(field, value)| field.cell(value.map(RawValue::get)).map(ToSqlOutput::Owned))
            .collect()
    }

    /// The value in the columns from that one on.
    pub(super) fn read(&self, row: &Row<'_>, at: usize) -> Result<Bytes> {
        let cell = |at| row.get_ref(at).map_err(|error| failed(Operation::Get, error));
        match (self.form, cell(at)?) {
            (Form::Row, _) => {}
            (_, ValueRef::Blob(bytes) | ValueRef::Text(bytes)) => {
                return Ok(Bytes::copy_from_slice(bytes));
            }
            (Form::Json, number @ (ValueRef::Integer(_) | ValueRef::Real(_))) => {
                return Ok(json(number, false)?.into());
            }
            (_, other) => {
                return Err(wrong_cell("a value", kind(other), "values must be BLOB or TEXT"));
            }
        }
        let mut text = String::from("{");
        for (field, at) in self.fields.iter().zip(at..) {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&Json::from(field.name.as_str()).to_string());
            text.push(':');
            text.push_str(&json(cell(at)?, field.holds == Holds::Bytes)?);
        }
        text.push('}');
        Ok(text.into())
    }
}

impl Field {
    /// A field as a cell, of its JSON. SQLite then makes of it what the type of the column says.
    fn cell(&self, json: Option<&str>) -> Result<Cell> {
        let refused =
            |what: &str| Err(Error::invalid(format!("the field {} {what}", quoted(&self.name))));
        let number = |number: &str| match number::cell(number, self.holds == Holds::Real) {
            Some(cell) => Ok(cell),
            None => refused(&format!("is a number that its column cannot hold as it is; {EXACT}")),
        };
        let Some(json) = json else { return Ok(Cell::Null) };
        match json.bytes().next() {
            Some(b'[' | b'{') => refused(
                "is an array or an object; a column takes a text (which may be JSON), a number, true, false or null",
            ),
            Some(b't' | b'f') => Ok(Cell::Integer((json == "true").into())),
            Some(b'"') => match (serde_json::from_str::<String>(json), self.holds) {
                (Err(_), _) => {
                    refused("is a text with half a character (an escape such as \\ud800)")
                }
                (Ok(text), Holds::Bytes) => match unhex(&text) {
                    Some(bytes) => Ok(Cell::Blob(bytes)),
                    None => refused(
                        "must be hexadecimal digits of lower case, such as \"00ff\", as its column is a BLOB",
                    ),
                },
                (Ok(text), Holds::Number | Holds::Real) => match number::of_text(&text) {
                    Some(_) if text.contains('\0') => refused(
                        "is a text that its column takes for a number, up to a NUL in it; leave that out",
                    ),
                    Some(looks) => number(looks),
                    None => Ok(Cell::Text(text)),
                },
                (Ok(text), Holds::Any | Holds::Text) => Ok(Cell::Text(text)),
            },
            // SQLite would write 15 digits of it.
            _ if self.holds == Holds::Text => Ok(Cell::Text(json.to_owned())),
            _ => number(json),
        }
    }
}

/// A cell as JSON. `bytes`: its column is declared as BLOB.
fn json(cell: ValueRef<'_>, bytes: bool) -> Result<String> {
    let wrong = |is: &str, must: &str| Err(wrong_cell("a value", is, must));
    match cell {
        ValueRef::Null => Ok("null".to_owned()),
        ValueRef::Integer(number) => Ok(number.to_string()),
        ValueRef::Real(number) => match serde_json::Number::from_f64(number) {
            Some(number) => Ok(number.to_string()),
            None => wrong("an infinite REAL", "JSON has no such number"),
        },
        ValueRef::Blob(digits) if bytes => Ok(format!("\"{}\"", hex(digits))),
        ValueRef::Blob(_) => wrong("a BLOB", "the column is not declared as BLOB"),
        ValueRef::Text(_) if bytes => wrong("TEXT", "the column is declared as BLOB"),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Json::from(text).to_string()),
            Err(_) => wrong("no UTF-8", "all texts must be"),
        },
    }
}
