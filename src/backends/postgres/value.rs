//! The value of a row, and the SQL that reads and writes it. A value travels as `bytea`: the bytes of a column that is
//! `bytea`, otherwise the text of the column, or of several columns a JSON object.

use serde::de::IgnoredAny;

use super::columns::Values;
use super::own_table::quoted;
use crate::error::{Error, Result};
use crate::types::object;

/// A column of a value.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// The type as it is in SQL.
    pub(super) kind: String,
    pub(super) not_null: bool,
}

/// The columns of a value.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    fields: Vec<Field>,
    kind: Kind,
    /// The characters that the type has room for.
    limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bytea,
    Text,
    Json,
    Jsonb,
    /// Columns as one JSON object.
    Row,
}

impl Shape {
    /// One column, of a type as `format_type` writes it. `None`: it is not taken.
    pub(super) fn one(
        values: Values,
        name: String,
        kind: &str,
        limit: Option<usize>,
    ) -> Option<Self> {
        let (field, kind) = (Field { name, kind: kind.to_owned(), not_null: false }, kind);
        let kind = match (values, kind) {
            (Values::Bytea, "bytea") => Kind::Bytea,
            (Values::Text, "text" | "character varying") => Kind::Text,
            (Values::Text, "json") => Kind::Json,
            (Values::Text, "jsonb") => Kind::Jsonb,
            _ => return None,
        };
        Some(Self { fields: vec![field], kind, limit })
    }

    /// Columns as one JSON object.
    pub(super) fn row(fields: Vec<Field>) -> Self {
        Self { fields, kind: Kind::Row, limit: None }
    }

    /// The types of columns that are taken.
    pub(super) fn kinds(values: Values) -> &'static str {
        match values {
            Values::Bytea => {
                "bytea, or with `values: text` text, character varying, json or jsonb; columns of any types make one object with `value: { columns: [a, b], as: json }`"
            }
            Values::Text => {
                "text, character varying, json or jsonb, or without `values` bytea; columns of any types make one object with `value: { columns: [a, b], as: json }`"
            }
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    fn list(&self, of: &str) -> String {
        let names: Vec<_> = self.names().map(|name| format!("{of}{}", quoted(name))).collect();
        names.join(", ")
    }

    /// What is written of a value that was sent, into each column.
    pub(super) fn of_sent(&self, sent: &str) -> Vec<String> {
        let text = format!("convert_from({sent}, 'UTF8')");
        match self.kind {
            Kind::Bytea => vec![sent.to_owned()],
            Kind::Text => vec![text],
            Kind::Json => vec![format!("{text}::json")],
            Kind::Jsonb => vec![format!("{text}::jsonb")],
            // Of `source`.
            Kind::Row => self.names().map(|name| format!("fields.{}", quoted(name))).collect(),
        }
    }

    /// What gives the fields of an object that was sent, as an item of `FROM`.
    pub(super) fn source(&self, sent: &str) -> Option<String> {
        let field = |field: &Field| format!("{} {}", quoted(&field.name), field.kind);
        let fields: Vec<_> = self.fields.iter().map(field).collect();
        (self.kind == Kind::Row).then(|| {
            format!(
                "json_to_record(convert_from({sent}, 'UTF8')::json) AS fields ({})",
                fields.join(", ")
            )
        })
    }

    /// The value before it is made ready to travel: its size is that of the entry's value.
    pub(super) fn raw(&self, of: &str) -> String {
        let columns = self.list(of);
        match self.kind {
            Kind::Bytea => columns,
            Kind::Text | Kind::Json | Kind::Jsonb => format!("{columns}::text"),
            // A column may have the name of what it is in, which would then be that column.
            Kind::Row => {
                format!("(SELECT to_json(\"~row\")::text FROM (SELECT {columns}) AS \"~row\")")
            }
        }
    }

    pub(super) fn raw_to_sent(&self, raw: &str) -> String {
        match self.kind {
            Kind::Bytea => raw.to_owned(),
            _ => format!("convert_to({raw}, 'UTF8')"),
        }
    }

    /// The value, as it travels.
    pub(super) fn sent(&self, of: &str) -> String {
        self.raw_to_sent(&self.raw(of))
    }

    /// Whether a value is read as it was written.
    pub(super) fn is_verbatim(&self) -> bool {
        !matches!(self.kind, Kind::Jsonb | Kind::Row)
    }

    /// Whether binary `COPY` takes a value as it travels.
    pub(super) fn is_plain(&self) -> bool {
        self.is_verbatim()
    }

    /// # Errors
    /// `InvalidInput`: it is no such value.
    pub(super) fn check(&self, value: &[u8]) -> Result<()> {
        // The server cuts spaces off to make them fit. What is not UTF-8 is refused by the limits.
        let text = || std::str::from_utf8(value).unwrap_or_default();
        match self.kind {
            Kind::Text if self.limit.is_some_and(|limit| text().chars().nth(limit).is_some()) => {
                Err(Error::invalid(format!(
                    "the value's column takes {} characters at most",
                    self.limit.unwrap_or_default()
                )))
            }
            Kind::Text if value.contains(&0) => Err(Error::invalid(
                "the value holds a NUL byte, which the column, a text of PostgreSQL, cannot",
            )),
            // The reason would quote the value.
            Kind::Json | Kind::Jsonb if serde_json::from_slice::<IgnoredAny>(value).is_err() => {
                Err(Error::invalid("the value is not JSON, but its column is of that type"))
            }
            Kind::Row => self.check_fields(value),
            Kind::Bytea | Kind::Text | Kind::Json | Kind::Jsonb => Ok(()),
        }
    }

    fn check_fields(&self, value: &[u8]) -> Result<()> {
        let columns = self.fields.iter();
        let columns: Vec<_> = columns
            .map(|field| object::Field { name: &field.name, not_null: field.not_null })
            .collect();
        object::fields::<IgnoredAny>(value, &columns).map(drop)
    }
}
