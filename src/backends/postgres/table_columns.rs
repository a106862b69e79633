//! The columns of a table as they are: whether each can be what the settings say that it is.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::columns::Keys;
use super::config::PostgresConfig;
use super::error::failed;
use super::expires::Expires;
use super::indexes::{self, Index};
use super::key::{Key, Part, told};
use super::own_table::{Table, literal, quoted};
use super::session::Session;
use super::value::{Field, Shape};
use crate::error::{Error, Operation, Result};
use crate::keys::row;
use crate::types::{Fields, RowColumns, ValueColumns};

fn config(message: impl Into<String>) -> Error {
    Error::config(message.into())
}

/// The columns of a table, with what they are to be.
pub(super) struct Attributes<'a> {
    table: &'a Table,
    settings: &'a PostgresConfig,
    columns: Vec<Attribute>,
    /// Whether an index must lead to each key, and keep it from being there twice: not of a view that is only read.
    indexed: bool,
}

impl<'a> Attributes<'a> {
    pub(super) async fn look(
        session: Session<'_>,
        oid: u32,
        table: &'a Table,
        settings: &'a PostgresConfig,
        plain: bool,
    ) -> Result<Self> {
        let sql = format!(
            "SELECT attname::text, format_type(atttypid, NULL), attnotnull, atthasdef OR attidentity <> '', {}, coalesce((SELECT collisdeterministic FROM pg_collation WHERE oid = attcollation), true), current_setting('server_encoding') = 'UTF8', atttypmod, format_type(atttypid, atttypmod), attidentity = 'a', attgenerated <> '', (SELECT format('%I.%I', n.nspname, l.collname) FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = attcollation) FROM pg_attribute a WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped",
            indexes::bytewise("attcollation")
        );
        let fail = |error| failed(Operation::Open, error);
        let rows = session.query(&sql, vec![(&oid, Type::OID)]).await.map_err(fail)?;
        let columns = rows.iter().map(column).collect::<Result<Vec<_>, _>>().map_err(fail)?;
        let indexed = plain || !settings.read_only;
        Ok(Self { table, settings, columns, indexed })
    }

    /// Fails where a column is missing, or of another type.
    pub(super) fn expires(&self) -> Result<Expires> {
        let mut kept = Expires::Millis;
        for (setting, wanted) in self.settings.columns.named() {
            let found = self.find(setting, wanted)?;
            let unit = self.settings.columns.expires_unit;
            let (fits, must_be) = match setting {
                "expires" => match Expires::of(&found.kind, unit) {
                    Some(expires) => {
                        kept = expires;
                        (true, "")
                    }
                    None => (
                        false,
                        "bigint (milliseconds since 1970), timestamptz or timestamp, or with `columns.expires_unit: seconds` bigint or integer",
                    ),
                },
                "created" | "updated" => (found.kind.starts_with("timestamp"), "timestamptz"),
                // Those of keys and values are looked at below.
                _ => (true, ""),
            };
            if !fits {
                return Err(self.of_type(found, setting, must_be));
            }
        }
        Ok(kept)
    }

    /// Fails where a column would stay empty.
    pub(super) fn filled(&self, value: &Shape) -> Result<()> {
        let named = self.settings.columns.named().map(|(_, name)| name);
        let ours: Vec<&str> = named.chain(value.names()).collect();
        let unfilled = |column: &&Attribute| {
            !self.settings.read_only
                && column.not_null
                && !column.has_default
                && !ours.contains(&column.name.as_str())
        };
        let found = self.columns.iter().find(unfilled);
        found.map_or(Ok(()), |column| {
            let (name, table) = (quoted(&column.name), self.table);
            Err(config(format!(
                "the column {name} of {table} must be filled, but is not in `columns`; give it a default, or name what a new row has there with `columns.constants`"
            )))
        })
    }

    /// What a new row has in other columns, as SQL, once the server has taken it for a value of the column.
    pub(super) async fn constants(&self, session: Session<'_>) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for (name, text) in &self.settings.columns.constants {
            let found = self.find("constants", name)?;
            let sql = format!("{}::{}", literal(text), found.whole);
            let asked = format!("SELECT ({sql}) IS NULL");
            session.query(&asked, Vec::new()).await.map_err(|_| {
                config(format!(
                    "`columns.constants`: the value for {} is not of the type of the column, {}",
                    quoted(name),
                    found.whole
                ))
            })?;
            all.push((name.clone(), sql));
        }
        Ok(all)
    }

    fn find(&self, setting: &str, wanted: &str) -> Result<&Attribute> {
        let (table, name) = (self.table, quoted(wanted));
        let found = self.columns.iter().find(|column| column.name == wanted).ok_or_else(|| {
            config(format!(
                "the table {table} has no column {name}; say with `columns.{setting}` which one it is"
            ))
        })?;
        if self.settings.read_only {
            return Ok(found);
        }
        if found.computed {
            return Err(config(format!(
                "the server computes the column {name} of {table}, so it cannot be written as `columns.{setting}`; name another one"
            )));
        }
        if found.numbered {
            return Err(config(format!(
                "the column {name} of {table} is GENERATED ALWAYS, so the server writes no number into it that it is given; ALTER TABLE {table} ALTER COLUMN {name} SET GENERATED BY DEFAULT"
            )));
        }
        Ok(found)
    }

    fn of_type(&self, column: &Attribute, setting: &str, must_be: &str) -> Error {
        config(format!(
            "the column {} of {} is of type {}, but as `columns.{setting}` it must be {must_be}",
            quoted(&column.name),
            self.table,
            column.kind
        ))
    }

    pub(super) fn key(&self) -> Result<Key> {
        let mut parts = Vec::new();
        for name in self.settings.columns.key.names() {
            let found = self.find("key", name)?;
            let part = Part {
                name: found.name.clone(),
                kind: found.kind.clone(),
                collation: found.collation.clone(),
                bytewise: found.bytewise,
                limit: limit(&found.kind, found.modifier),
            };
            let fits = match self.settings.keys {
                Keys::Bytea => found.kind == "bytea",
                Keys::Text | Keys::Tuple => part.known().is_some(),
            };
            if !fits {
                let must_be = match self.settings.keys {
                    Keys::Bytea if part.known().is_some() => {
                        "bytea; set `keys: text` (keys as a person types them) or `keys: tuple` (as tuples, which sort as the column does)"
                    }
                    Keys::Bytea => "bytea",
                    _ => {
                        "text, character varying, uuid, smallint, integer, bigint or a timestamp, or without `keys` bytea"
                    }
                };
                return Err(self.of_type(found, "key", must_be));
            }
            if !found.deterministic {
                return Err(config(format!(
                    "the column {} of {} has a collation by which texts are equal that differ, so two keys would be one row",
                    quoted(name),
                    self.table
                )));
            }
            if self.settings.keys != Keys::Bytea && !found.utf8 {
                return Err(config(
                    "the database is not encoded in UTF8, which `keys` other than `bytea` need",
                ));
            }
            if self.indexed && !found.not_null {
                return Err(self.no_key());
            }
            parts.push(part);
        }
        Key::new(self.settings.keys, parts)
            .ok_or_else(|| Error::internal("a type of a column was checked and is not known"))
    }

    fn no_key(&self) -> Error {
        let name = &self.table;
        let columns = told(self.settings).columns();
        config(match self.settings.columns.key.names() {
            [_] => format!(
                "the column {columns} of {name} must be NOT NULL and have a unique index of its own (B-tree, on the whole table): a primary key"
            ),
            _ => format!(
                "the columns {columns} of {name} must be NOT NULL and have a unique index together (B-tree, on the whole table): a primary key"
            ),
        })
    }

    pub(super) fn value(&self) -> Result<Shape> {
        let fields = match &self.settings.columns.value {
            ValueColumns::One(name) => {
                let (found, values) = (self.find("value", name)?, self.settings.values);
                let limit = limit(&found.kind, found.modifier);
                return Shape::one(values, found.name.clone(), &found.kind, limit)
                    .ok_or_else(|| self.of_type(found, "value", Shape::kinds(values)));
            }
            ValueColumns::Row(RowColumns { columns: Fields::Named(names), .. }) => {
                let found = names.iter().map(|name| self.find("value", name));
                found.collect::<Result<Vec<_>>>()?
            }
            ValueColumns::Row(RowColumns { columns: Fields::All(_), .. }) => {
                let named: Vec<_> = self.settings.columns.named().map(|(_, name)| name).collect();
                let free = |column: &&Attribute| {
                    !(column.computed || column.numbered || named.contains(&column.name.as_str()))
                };
                self.columns.iter().filter(free).collect()
            }
        };
        if fields.is_empty() {
            return Err(config(format!(
                "the table {} has no columns but those of the key and of times, so there is nothing for a value",
                self.table
            )));
        }
        let field = |found: &&Attribute| Field {
            name: found.name.clone(),
            kind: found.whole.clone(),
            not_null: found.not_null,
        };
        Ok(Shape::row(fields.iter().map(field).collect()))
    }

    pub(super) fn unique(&self, key: &Key, indexes: &[Index]) -> Result<()> {
        let names: Vec<_> = key.parts.iter().map(|part| part.name.as_str()).collect();
        let is_key = |index: &Index| {
            index.unique
                && index.columns.len() == names.len()
                && index.columns.iter().all(|(name, _)| names.contains(&name.as_str()))
        };
        if !self.indexed || indexes.iter().any(is_key) { Ok(()) } else { Err(self.no_key()) }
    }

    /// Why there are no scans. Fails where there are to be some.
    pub(super) fn scans(&self, key: &Key, indexes: &[Index]) -> Result<Option<String>> {
        let names = || key.parts.iter().map(|part| part.name.as_str());
        let why = if !key.is_ordered() {
            Some(row::UNORDERED.to_owned())
        } else if !self.indexed || indexes.iter().any(|index| index.begins_with(names())) {
            None
        } else {
            Some(format!(
                "no index of {} has the order of keys, which is by bytes; this makes one: CREATE INDEX ON {} ({})",
                self.table,
                self.table,
                key.order("").join(", ")
            ))
        };
        row::scans(self.settings.scans, why)
    }
}

/// A column of the table.
struct Attribute {
    name: String,
    kind: String,
    not_null: bool,
    has_default: bool,
    /// As SQL writes it.
    collation: Option<String>,
    /// Whether texts sort by their bytes.
    bytewise: bool,
    /// Whether only the same text is equal.
    deterministic: bool,
    /// The encoding of the database.
    utf8: bool,
    /// What is in parentheses behind the type; -1 where nothing does.
    modifier: i32,
    /// The type with that.
    whole: String,
    /// Whether it takes no other number than the server's.
    numbered: bool,
    /// Whether the server computes it.
    computed: bool,
}

/// The characters of a text, or the digits behind the second, that the type has room for.
fn limit(kind: &str, modifier: i32) -> Option<usize> {
    // That of a text counts its header.
    let header = if kind == "character varying" { 4 } else { 0 };
    usize::try_from(modifier).ok()?.checked_sub(header)
}

fn column(row: &Row) -> Result<Attribute, tokio_postgres::Error> {
    Ok(Attribute {
        name: row.try_get(0)?,
        kind: row.try_get(1)?,
        not_null: row.try_get(2)?,
        has_default: row.try_get(3)?,
        bytewise: row.try_get(4)?,
        deterministic: row.try_get(5)?,
        utf8: row.try_get(6)?,
        modifier: row.try_get(7)?,
        whole: row.try_get(8)?,
        numbered: row.try_get(9)?,
        computed: row.try_get(10)?,
        collation: row.try_get(11)?,
    })
}
