//! The columns of a table as they are: whether each can be what the settings say that it is.

use rusqlite::Connection;

use super::config::{Columns, Keys, Storage};
use super::error::{opening, refused};
use super::indexes::row_number;
use super::key::quoted;
use super::statements::Layout;
use super::value::{Field, Form, Holds, Shape};
use crate::error::{Error, Result};
use crate::keys::row::Kind;
use crate::types::{Fields, RowColumns, ValueColumns};

pub(super) struct Column {
    name: String,
    declared: String,
    not_null: bool,
    /// Whether a row cannot be added without it.
    required: bool,
    generated: bool,
}

impl Column {
    /// Whether its type says nothing of what it holds.
    fn is_open(&self) -> bool {
        self.declared.is_empty() || self.declared == "ANY"
    }

    /// Of a column of numbers: whether each becomes a REAL.
    fn is_real(&self) -> bool {
        let has = |word: &&str| self.declared.contains(word);
        !has(&"INT") && ["REAL", "FLOA", "DOUB"].iter().any(has)
    }
}

impl Layout {
    pub(super) fn objection(&self, what: String) -> Error {
        refused(format!("the table {} {what}", quoted(&self.table)))
    }

    pub(super) fn columns_of(&self, db: &Connection) -> Result<Vec<Column>> {
        let mut statement = db
            .prepare(
                "SELECT name, type, \"notnull\", (\"notnull\" OR pk) AND coalesce(upper(dflt_value), 'NULL') = 'NULL' AND hidden < 2, hidden
                 FROM pragma_table_xinfo(?1, 'main')",
            )
            .map_err(opening)?;
        // Where that is NULL, SQLite gives a row another number.
        let number = row_number(db, &self.table).map_err(opening)?;
        let columns = statement.query_map([&self.table], |row| {
            let name: String = row.get(0)?;
            let is_number = number.as_ref() == Some(&name);
            Ok(Column {
                name,
                declared: row.get::<_, String>(1)?.to_uppercase(),
                not_null: is_number || row.get(2)?,
                required: !is_number && row.get(3)?,
                generated: row.get::<_, i64>(4)? > 1,
            })
        });
        columns.and_then(Iterator::collect).map_err(opening)
    }

    pub(super) fn check_columns(
        &self,
        columns: &[Column],
        strict: bool,
        writable: bool,
    ) -> Result<()> {
        let used = &self.columns;
        let keys = used.key.names().iter().map(|name| (name, "key"));
        let values = self.value.names().map(|name| (name, "value"));
        let constants = used.constants.keys().map(|name| (name, "constants"));
        let rest =
            [(&used.expires, "expires"), (&used.created, "created"), (&used.updated, "updated")];
        let rest = rest.into_iter().filter_map(|(name, setting)| Some((name.as_ref()?, setting)));
        let names: Vec<_> = keys.chain(values).chain(rest).chain(constants).collect();
        for (name, setting) in &names {
            let column = columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
            let Some(column) = column else {
                let have: Vec<_> = columns.iter().map(|column| quoted(&column.name)).collect();
                return Err(self.objection(format!(
                    "has no column {} (`columns.{setting}`); it has {}. `columns` names those to use, and only `key` and `value` are needed",
                    quoted(name),
                    have.join(", ")
                )));
            };
            if column.generated {
                return Err(self.objection(format!("computes its column {}", quoted(name))));
            }
            self.check_type(column, setting, strict)?;
        }
        let foreign = columns.iter().find(|column| {
            column.required && !names.iter().any(|(name, _)| column.name.eq_ignore_ascii_case(name))
        });
        match foreign {
            Some(column) if writable => Err(self.objection(format!(
                "cannot be written to: its column {} is NOT NULL, or part of the primary key, and has no default; give it one, name what a new row has there with `columns.constants`, or set `read_only: true`",
                quoted(&column.name)
            ))),
            _ => Ok(()),
        }
    }

    fn check_type(&self, column: &Column, setting: &str, strict: bool) -> Result<()> {
        let affinity = affinity(&column.declared, strict);
        let says = |storage: Storage| match storage {
            Storage::Blob => "blob",
            Storage::Text => "text",
        };
        let wrong = |what: &str| {
            let name = quoted(&column.name);
            Err(self
                .objection(format!("has the column {name} of type {}, {what}", column.declared)))
        };
        match (setting, affinity) {
            // See `key_kinds`.
            ("key" | "constants", _) => Ok(()),
            ("value", _) if !matches!(self.value.form, Form::Plain(_)) => Ok(()),
            ("value", Affinity::Number) => {
                wrong("which turns what looks like a number into one; it must be BLOB or TEXT")
            }
            ("value", kind) if strict && column.declared != "ANY" && kind != self.values.into() => {
                let other =
                    if self.values == Storage::Blob { Storage::Text } else { Storage::Blob };
                wrong(&format!("so set `values: {}`", says(other)))
            }
            ("value", _) | (_, Affinity::Number) => Ok(()),
            (_, _) if column.is_open() => Ok(()),
            ("expires", _) => wrong(
                "but times are numbers: milliseconds since 1970, or seconds (`columns.expires_unit`)",
            ),
            _ => wrong("but times are integers: milliseconds since 1970"),
        }
    }

    /// What the columns of the key hold, by their types.
    pub(super) fn key_kinds(&self, columns: &[Column], strict: bool) -> Result<Vec<Kind>> {
        let one = self.key.width() == 1;
        let kind = |name: &String| {
            let column = columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
            // That there is one is checked with the others.
            let Some(column) = column else { return Ok(Kind::Bytes) };
            let wrong = |what: &str| {
                let (name, declared) = (quoted(&column.name), &column.declared);
                Err(self.objection(format!("has the column {name} of type {declared}, {what}")))
            };
            let integer = column.declared.contains("INT");
            let open = column.is_open();
            match (self.keys, affinity(&column.declared, strict)) {
                (Keys::Blob, Affinity::Number) if integer => wrong(
                    "so set `keys: tuple` (as tuples, which sort as the column does) or `keys: text` (as a person types it)",
                ),
                (Keys::Text | Keys::Tuple, Affinity::Number) if integer => Ok(Kind::Integer(64)),
                (_, Affinity::Number) => wrong(
                    "which turns what looks like a number into one; it must be INTEGER, TEXT or BLOB",
                ),
                (Keys::Blob, Affinity::Text) => wrong("so set `keys: text`"),
                (Keys::Text, Affinity::Blob) if one && strict && !open => {
                    wrong("so set `keys: blob`")
                }
                (Keys::Text, _) if one => Ok(Kind::Text),
                (Keys::Text | Keys::Tuple, Affinity::Blob) if open => {
                    wrong("which says nothing of what it holds; it must be INTEGER, TEXT or BLOB")
                }
                (Keys::Text | Keys::Tuple, Affinity::Text) => Ok(Kind::Text),
                (_, Affinity::Blob) => Ok(Kind::Bytes),
            }
        };
        self.key.names.iter().map(kind).collect()
    }

    /// What the columns of the value are, as those of the table are now.
    pub(super) fn shape(&self, columns: &[Column], strict: bool) -> Result<Shape> {
        let find =
            |name: &str| columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        let names: Vec<String> = match &self.columns.value {
            // Later, those that the table had when the store was opened.
            ValueColumns::Row(RowColumns { columns: Fields::All(_), .. })
                if self.value.fields.is_empty() =>
            {
                let named: Vec<_> = self.columns.named().map(|(_, name)| name).collect();
                let is_free = |column: &&Column| {
                    !column.generated
                        && !named.iter().any(|name| name.eq_ignore_ascii_case(&column.name))
                };
                columns.iter().filter(is_free).map(|column| column.name.clone()).collect()
            }
            _ => self.value.names().cloned().collect(),
        };
        if names.is_empty() {
            return Err(self.objection(
                "has no columns but those of the key and of times, so there is nothing for a value"
                    .to_owned(),
            ));
        }
        let form = match &self.columns.value {
            ValueColumns::Row(_) => Form::Row,
            ValueColumns::One(name) => {
                let is_json = find(name).is_some_and(|column| column.declared == "JSON");
                // A table that tierstack would make has its values as they were put.
                match self.values == Storage::Text && self.columns != Columns::default() && is_json
                {
                    true => Form::Json,
                    false => Form::Plain(self.values),
                }
            }
        };
        let field = |name: String| {
            // That there is one is checked with the others. A column by itself is taken as it is.
            let found = find(&name).filter(|_| form == Form::Row);
            let holds = |column: &Column| match affinity(&column.declared, strict) {
                Affinity::Blob if column.is_open() => Holds::Any,
                Affinity::Blob => Holds::Bytes,
                Affinity::Text => Holds::Text,
                Affinity::Number if column.is_real() => Holds::Real,
                Affinity::Number => Holds::Number,
            };
            Field {
                not_null: found.is_some_and(|found| found.not_null),
                holds: found.map_or(Holds::Any, holds),
                name,
            }
        };
        Ok(Shape { fields: names.into_iter().map(field).collect(), form })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affinity {
    Blob,
    Text,
    Number,
}

impl From<Storage> for Affinity {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::Blob => Self::Blob,
            Storage::Text => Self::Text,
        }
    }
}

/// What SQLite makes of a declared type: <https://sqlite.org/datatype3.html#determination_of_column_affinity>
/// `ANY` is special in STRICT tables only.
fn affinity(declared: &str, strict: bool) -> Affinity {
    let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    if has(&["INT"]) {
        Affinity::Number
    } else if has(&["CHAR", "CLOB", "TEXT"]) {
        Affinity::Text
    } else if declared.is_empty() || strict && declared == "ANY" || has(&["BLOB"]) {
        Affinity::Blob
    } else {
        Affinity::Number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_are_read_as_sqlite_reads_them() {
        for (declared, expected) in [
            ("", Affinity::Blob),
            ("BLOB", Affinity::Blob),
            ("TEXT", Affinity::Text),
            ("VARCHAR(20)", Affinity::Text),
            ("CHARINT", Affinity::Number),
            ("INTEGER", Affinity::Number),
            ("STRING", Affinity::Number),
            ("DATETIME", Affinity::Number),
            ("REAL", Affinity::Number),
            ("ANY", Affinity::Number),
        ] {
            assert_eq!(affinity(declared, false), expected, "{declared}");
        }
        assert_eq!(affinity("ANY", true), Affinity::Blob);
    }
}
