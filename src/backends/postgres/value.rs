//! The value of a row, and the SQL that reads and writes it. A value travels as `bytea`: the bytes of a column that is
//! `bytea`, otherwise the text of the column.

use super::columns::Values;
use super::schema::quoted;
use crate::error::{Error, Result};

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
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
}

impl Column {
    /// Of a type as `format_type` writes it. `None`: it is not taken.
    pub(super) fn new(
        values: Values,
        name: String,
        kind: &str,
        limit: Option<usize>,
    ) -> Option<Self> {
        let kind = match (values, kind) {
            (Values::Bytea, "bytea") => Kind::Bytea,
            (Values::Text, "text" | "character varying") => Kind::Text,
            (Values::Text, "json") => Kind::Json,
            (Values::Text, "jsonb") => Kind::Jsonb,
            _ => return None,
        };
        Some(Self { name, kind, limit })
    }

    /// The types of columns that are taken.
    pub(super) fn kinds(values: Values) -> &'static str {
        match values {
            Values::Bytea => "bytea, or with `values: text` text, character varying, json or jsonb",
            Values::Text => "text, character varying, json or jsonb, or without `values` bytea",
        }
    }

    /// What is written of a value that was sent.
    pub(super) fn of_sent(&self, sent: &str) -> String {
        match self.kind {
            Kind::Bytea => sent.to_owned(),
            Kind::Text => format!("convert_from({sent}, 'UTF8')"),
            Kind::Json => format!("convert_from({sent}, 'UTF8')::json"),
            Kind::Jsonb => format!("convert_from({sent}, 'UTF8')::jsonb"),
        }
    }

    /// The value before it is made ready to travel: its size is that of the entry's value.
    pub(super) fn raw(&self, of: &str) -> String {
        let column = format!("{of}{}", quoted(&self.name));
        if self.kind == Kind::Bytea { column } else { format!("{column}::text") }
    }

    pub(super) fn raw_to_sent(&self, raw: &str) -> String {
        if self.kind == Kind::Bytea { raw.to_owned() } else { format!("convert_to({raw}, 'UTF8')") }
    }

    /// The value, as it travels.
    pub(super) fn sent(&self, of: &str) -> String {
        self.raw_to_sent(&self.raw(of))
    }

    /// Whether a value is read as it was written.
    pub(super) fn is_verbatim(&self) -> bool {
        self.kind != Kind::Jsonb
    }

    /// Whether binary `COPY` takes a value as it travels.
    pub(super) fn is_plain(&self) -> bool {
        self.kind != Kind::Jsonb
    }

    /// # Errors
    /// `InvalidInput`: it is no such value.
    pub(super) fn check(&self, value: &[u8]) -> Result<()> {
        let json = || serde_json::from_slice::<serde::de::IgnoredAny>(value);
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
            Kind::Json | Kind::Jsonb if json().is_err() => {
                Err(Error::invalid("the value is not JSON, but its column is of that type"))
            }
            Kind::Bytea | Kind::Text | Kind::Json | Kind::Jsonb => Ok(()),
        }
    }
}
