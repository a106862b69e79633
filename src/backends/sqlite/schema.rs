//! The table: the SQL that makes and uses it, and what must hold for a table of others.

use std::fmt::Write as _;
use std::ops::Bound;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension};

use super::config::{Columns, SqliteConfig, Storage};
use super::error::{NAME, failed};
use crate::error::{Error, Operation, Result};
use crate::spelling::nearest;
use crate::types::ExpiresUnit;
use crate::types::{Op, Order, Scan};

/// Tables that a message lists.
const TABLES_LISTED: usize = 10;

/// The version of tables that tierstack makes, in a comment that SQLite keeps along with the table.
const VERSION: u32 = 1;

/// The names in the settings as SQL.
///
/// Columns are always qualified: a quoted name alone that is no column is a text to SQLite, so a query
/// would go on after somebody has dropped the column, with wrong answers. Keys are always compared
/// with an explicit `COLLATE BINARY`, as a column may have another order.
pub(super) struct Layout {
    pub(super) keys: Storage,
    pub(super) values: Storage,
    /// As in the settings.
    table: String,
    pub(super) columns: Columns,
    /// The table as SQL.
    pub(super) full: String,
    pub(super) create: String,
    pub(super) get: String,
    pub(super) put: String,
    pub(super) delete: String,
    /// Keys of expired entries, and their removal.
    pub(super) expired: Option<Expired>,
    /// A read that begins a transaction.
    pub(super) begin: String,
    select: String,
    /// As `select`, with nothing in place of the values.
    select_keys: String,
    pub(super) key: String,
}

pub(super) struct Expired {
    /// Some of them, in any order: fast with an index.
    pub(super) any: String,
    /// Those behind a key, in order.
    pub(super) behind: String,
    pub(super) delete: String,
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Layout {
    pub(super) fn new(config: &SqliteConfig) -> Self {
        let columns = &config.columns;
        let table = format!("main.{}", quoted(&config.table));
        let of = |name: &str| format!("t.{}", quoted(name));
        let key = format!("{} COLLATE BINARY", of(&columns.key));
        let value = of(&columns.value);
        let expires = columns.expires.as_deref().map(of);
        let deadline = expires.as_deref().unwrap_or("NULL");
        let types = columns.expires_unit.types();
        let is_expired =
            expires.as_ref().map(|at| format!("typeof({at}) IN {types} AND {at} BETWEEN 0 AND ?1"));
        Self {
            keys: config.keys,
            values: config.values,
            table: config.table.clone(),
            columns: columns.clone(),
            create: create(config),
            get: format!("SELECT {value}, {deadline} FROM {table} AS t WHERE {key} = ?1"),
            put: put(&table, columns),
            delete: format!("DELETE FROM {table} AS t WHERE {key} = ?1"),
            expired: is_expired.map(|is| Expired {
                any: format!("SELECT {} FROM {table} AS t WHERE {is} LIMIT ?2", of(&columns.key)),
                behind: format!(
                    "SELECT {} FROM {table} AS t WHERE {is} AND {key} > ?3 ORDER BY {key} LIMIT ?2",
                    of(&columns.key)
                ),
                delete: format!("DELETE FROM {table} AS t WHERE {is} AND {key} = ?2"),
            }),
            begin: format!("SELECT 1 FROM {table} LIMIT 1"),
            select: format!("SELECT {}, {value}, {deadline} FROM {table} AS t", of(&columns.key)),
            select_keys: format!("SELECT {}, '', {deadline} FROM {table} AS t", of(&columns.key)),
            key,
            full: table,
        }
    }

    /// The table, and the columns of an entry. To SQLite, case makes no difference.
    pub(super) fn names(&self) -> [String; 3] {
        [&self.table, &self.columns.key, &self.columns.value].map(|name| name.to_ascii_lowercase())
    }

    pub(super) fn unit(&self) -> ExpiresUnit {
        self.columns.expires_unit
    }

    /// The entries of a range, the bounds as `?1` and `?2`.
    pub(super) fn scan(&self, scan: &Scan) -> String {
        let mut sql = if scan.keys_only { self.select_keys.clone() } else { self.select.clone() };
        self.narrow(&mut sql, scan);
        let order = if scan.order == Order::Forward { "ASC" } else { "DESC" };
        let _ = write!(sql, " ORDER BY {} {order}", self.key);
        sql
    }

    pub(super) fn narrow(&self, sql: &mut String, scan: &Scan) {
        let lower = match scan.from {
            Bound::Included(_) => Some(">= ?1"),
            Bound::Excluded(_) => Some("> ?1"),
            Bound::Unbounded => None,
        };
        let upper = match scan.to {
            Bound::Included(_) => Some("<= ?2"),
            Bound::Excluded(_) => Some("< ?2"),
            Bound::Unbounded => None,
        };
        for (word, bound) in ["WHERE", "AND"].into_iter().zip([lower, upper].into_iter().flatten())
        {
            let _ = write!(sql, " {word} {} {bound}", self.key);
        }
    }

    /// A key as a parameter.
    pub(super) fn key_cell<'a>(&self, key: &'a [u8]) -> ToSqlOutput<'a> {
        cell(self.keys, key)
    }

    pub(super) fn value_cell<'a>(&self, value: &'a [u8]) -> ToSqlOutput<'a> {
        cell(self.values, value)
    }

    /// Refuses a key that cannot be stored as text.
    pub(super) fn check_key(&self, key: &[u8]) -> Result<()> {
        check_text(self.keys, key, "a key that is not UTF-8 cannot be stored with `keys: text`")
    }

    pub(super) fn check_op(&self, op: &Op) -> Result<()> {
        self.check_key(op.key())?;
        let value = op.value().map_or(&[][..], |value| &value.bytes);
        check_text(
            self.values,
            value,
            "a value that is not UTF-8 cannot be stored with `values: text`",
        )
        .map_err(|error| error.with_key(op.key()))
    }
}

fn cell(storage: Storage, bytes: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match storage {
        Storage::Blob => ValueRef::Blob(bytes),
        Storage::Text => ValueRef::Text(bytes),
    })
}

fn check_text(storage: Storage, bytes: &[u8], message: &'static str) -> Result<()> {
    if storage == Storage::Text && std::str::from_utf8(bytes).is_err() {
        return Err(Error::invalid(message).with_layer(NAME));
    }
    Ok(())
}

/// What is small comes first, so that it is read without the pages of a large value. Not STRICT, which
/// programs with a SQLite from before 2021 could not read.
fn create(config: &SqliteConfig) -> String {
    let columns = &config.columns;
    let kind = |storage| if storage == Storage::Blob { "BLOB" } else { "TEXT" };
    let (table, key) = (quoted(&config.table), quoted(&columns.key));
    let keys = kind(config.keys);
    let mut sql = format!("CREATE TABLE {table} ( /* tierstack {VERSION} */\n");
    let _ = writeln!(
        sql,
        "  {key} {keys} NOT NULL PRIMARY KEY CHECK (typeof({key}) = '{}'),",
        keys.to_lowercase()
    );
    if let Some(expires) = &columns.expires {
        let unit = columns.expires_unit.name();
        let _ = writeln!(sql, "  {} INTEGER, -- {unit} since 1970", quoted(expires));
    }
    for stamp in [&columns.created, &columns.updated].into_iter().flatten() {
        let _ = writeln!(sql, "  {} INTEGER NOT NULL, -- milliseconds since 1970", quoted(stamp));
    }
    let _ = writeln!(
        sql,
        "  {} {} NOT NULL\n) WITHOUT ROWID;",
        quoted(&columns.value),
        kind(config.values)
    );
    if let Some(expires) = columns.expires.as_deref().map(quoted) {
        let index = quoted(&format!("{}_expires", config.table));
        let _ = writeln!(
            sql,
            "CREATE INDEX {index} ON {table} ({expires}) WHERE {expires} IS NOT NULL;"
        );
    }
    sql
}

/// `?1` key, `?2` value, `?3` expiry, `?4` now. An upsert, not `REPLACE`, which would delete the row
/// and with it what is in its other columns. `OR ABORT` overrules what the table says about conflicts
/// in other columns, `ON CONFLICT IGNORE` or `REPLACE`: the entry, or another one, would be gone in silence.
fn put(table: &str, columns: &Columns) -> String {
    let mut names = vec![(&columns.key, "?1"), (&columns.value, "?2")];
    names.extend(columns.expires.iter().map(|name| (name, "?3")));
    names.extend(columns.created.iter().map(|name| (name, "?4")));
    names.extend(columns.updated.iter().map(|name| (name, "?4")));
    let list: Vec<_> = names.iter().map(|(name, _)| quoted(name)).collect();
    let values: Vec<_> = names.iter().map(|(_, value)| *value).collect();
    let kept = |name: &&String| Some(*name) != columns.created.as_ref() && *name != &columns.key;
    let mut sets: Vec<_> = names
        .iter()
        .map(|(name, _)| name)
        .filter(|name| kept(name))
        .map(|name| format!("{0} = excluded.{0}", quoted(name)))
        .collect();
    // An entry that has expired is not there: what takes its place is a new one.
    if let (Some(created), Some(expires)) = (&columns.created, &columns.expires) {
        let (created, expires) = (quoted(created), quoted(expires));
        let passed = match columns.expires_unit {
            ExpiresUnit::Seconds => "?4 / 1000",
            ExpiresUnit::Milliseconds => "?4",
        };
        sets.push(format!(
            "{created} = CASE WHEN t.{expires} BETWEEN 0 AND {passed} THEN excluded.{created} ELSE t.{created} END"
        ));
    }
    format!(
        "INSERT OR ABORT INTO {table} AS t ({}) VALUES ({}) ON CONFLICT ({} COLLATE BINARY) DO UPDATE SET {}",
        list.join(", "),
        values.join(", "),
        quoted(&columns.key),
        sets.join(", ")
    )
}

/// What verifying has found out.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// The version of the database's schema, which changes with any change to it.
    pub(super) version: i64,
    /// Whether tierstack made the table.
    pub(super) made: bool,
    /// Whether an index leads to expired entries.
    pub(super) expiry_is_indexed: bool,
    pub(super) has_triggers: bool,
}

struct Column {
    name: String,
    declared: String,
    required: bool,
    generated: bool,
}

impl Layout {
    pub(super) fn exists(&self, db: &Connection) -> Result<bool> {
        Ok(self.kind(db)?.is_some())
    }

    /// What the name stands for, and whether it is STRICT.
    fn kind(&self, db: &Connection) -> Result<Option<(String, bool)>> {
        db.query_row(
            "SELECT type, strict FROM pragma_table_list WHERE schema = 'main' AND lower(name) = lower(?1)",
            [&self.table],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
        .map_err(opening)
    }

    /// Checks that the table can be used as the settings say, and says which setting would fit.
    pub(super) fn verify(&self, db: &Connection, writable: bool) -> Result<Found> {
        let version = schema_version(db).map_err(opening)?;
        let (kind, strict) = self.kind(db)?.map_or_else(|| Err(self.missing(db)?), Ok)?;
        if kind != "table" {
            return Err(self.objection(format!("is a {kind}, not a table")));
        }
        let made = self.check_version(db)?;
        let encoding: String =
            db.query_row("PRAGMA encoding", [], |row| row.get(0)).map_err(opening)?;
        if encoding != "UTF-8" {
            return Err(refused(format!(
                "the database stores text as {encoding}, whose order is not that of the bytes; only UTF-8 is supported"
            )));
        }
        let columns = self.columns_of(db)?;
        self.check_columns(&columns, strict, writable)?;
        self.check_key_index(db)?;
        self.check_keys(db)?;
        let expiry_is_indexed = self.expiry_is_indexed(db)?;
        self.check_times(db, made, expiry_is_indexed)?;
        Ok(Found { version, made, expiry_is_indexed, has_triggers: self.has_triggers(db)? })
    }

    pub(super) fn missing(&self, db: &Connection) -> Result<Error> {
        let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name LIMIT 1000";
        let mut statement = db.prepare(sql).map_err(opening)?;
        let names = statement.query_map([], |row| row.get::<_, String>(0)).map_err(opening)?;
        let names = names.collect::<Result<Vec<_>, _>>().map_err(opening)?;
        let listed: Vec<_> = names.iter().take(TABLES_LISTED).map(|name| quoted(name)).collect();
        let listed = listed.join(", ");
        let there = match names.len() {
            0 => ", and no other.".to_owned(),
            count if count > TABLES_LISTED => format!("; of {count}, there are {listed}."),
            _ => format!("; there are {listed}."),
        };
        let near = nearest(&self.table, names.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!(" Did you mean {}?", quoted(near)));
        Ok(refused(format!(
            "there is no table {} (`table`){there}{near} With `create: true` it is made for writing",
            quoted(&self.table)
        )))
    }

    /// Whether tierstack made the table.
    fn check_version(&self, db: &Connection) -> Result<bool> {
        let sql: Option<String> = db
            .query_row(
                "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?1)",
                [&self.table],
                |row| row.get(0),
            )
            .map_err(opening)?;
        match version(sql.as_deref().unwrap_or_default()) {
            Some(version) if version > VERSION => Err(self.objection(format!(
                "was made by a newer tierstack, in version {version}; this one knows versions up to {VERSION}"
            ))),
            version => Ok(version.is_some()),
        }
    }

    fn columns_of(&self, db: &Connection) -> Result<Vec<Column>> {
        let mut statement = db
            .prepare("SELECT name, type, \"notnull\" AND dflt_value IS NULL AND pk = 0, hidden FROM pragma_table_xinfo(?1, 'main')")
            .map_err(opening)?;
        let columns = statement.query_map([&self.table], |row| {
            Ok(Column {
                name: row.get(0)?,
                declared: row.get::<_, String>(1)?.to_uppercase(),
                required: row.get(2)?,
                generated: row.get::<_, i64>(3)? > 1,
            })
        });
        columns.and_then(Iterator::collect).map_err(opening)
    }

    fn check_columns(&self, columns: &[Column], strict: bool, writable: bool) -> Result<()> {
        let used = &self.columns;
        let (key, value) = ((&used.key, "key"), (&used.value, "value"));
        let rest =
            [(&used.expires, "expires"), (&used.created, "created"), (&used.updated, "updated")];
        let rest = rest.into_iter().filter_map(|(name, setting)| Some((name.as_ref()?, setting)));
        let names: Vec<_> = [key, value].into_iter().chain(rest).collect();
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
                "cannot be written to: its column {} is NOT NULL and has no default; give it one, or set `read_only: true`",
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
            ("key" | "value", Affinity::Number) => {
                wrong("which turns what looks like a number into one; it must be BLOB or TEXT")
            }
            ("key", Affinity::Text) if self.keys == Storage::Blob => wrong("so set `keys: text`"),
            ("key", Affinity::Blob)
                if strict && column.declared != "ANY" && self.keys == Storage::Text =>
            {
                wrong("so set `keys: blob`")
            }
            ("value", kind) if strict && column.declared != "ANY" && kind != self.values.into() => {
                let other =
                    if self.values == Storage::Blob { Storage::Text } else { Storage::Blob };
                wrong(&format!("so set `values: {}`", says(other)))
            }
            ("key" | "value", _) | (_, Affinity::Number) => Ok(()),
            (_, _) if column.declared.is_empty() || column.declared == "ANY" => Ok(()),
            ("expires", _) => wrong(
                "but times are numbers: milliseconds since 1970, or seconds (`columns.expires_unit`)",
            ),
            _ => wrong("but times are integers: milliseconds since 1970"),
        }
    }

    /// An upsert needs a unique index on the key alone, and a scan needs one in bytewise order.
    fn check_key_index(&self, db: &Connection) -> Result<()> {
        let found = db
            .query_row(
                "SELECT 1 FROM pragma_index_list(?1, 'main') AS i WHERE i.\"unique\" AND NOT i.partial
                 AND (SELECT count(*) FROM pragma_index_xinfo(i.name, 'main') WHERE key) = 1
                 AND (SELECT lower(x.name) = lower(?2) AND x.coll = 'BINARY' COLLATE NOCASE
                      FROM pragma_index_xinfo(i.name, 'main') AS x WHERE x.key)",
                [&self.table, &self.columns.key],
                |_| Ok(()),
            )
            .optional()
            .map_err(opening)?;
        found.ok_or_else(|| {
            self.objection(format!(
                "has no primary key and no unique index on its column {} alone, in the order BINARY",
                quoted(&self.columns.key)
            ))
        })
    }

    /// SQLite sorts NULL, numbers, text and blobs one after the other, so the first and the last key
    /// tell about all of them.
    fn check_keys(&self, db: &Connection) -> Result<()> {
        let must = match self.keys {
            Storage::Blob => "blob",
            Storage::Text => "text",
        };
        for order in ["ASC", "DESC"] {
            let key = format!("t.{}", quoted(&self.columns.key));
            let sql = format!(
                "SELECT typeof({key}) FROM main.{} AS t ORDER BY {} {order} LIMIT 1",
                quoted(&self.table),
                self.key
            );
            let is: Option<String> =
                db.query_row(&sql, [], |row| row.get(0)).optional().map_err(opening)?;
            match is {
                Some(is) if is != must => {
                    let fits = ["blob", "text"].contains(&is.as_str());
                    let help = if fits {
                        format!("if all are, set `keys: {is}`")
                    } else {
                        "they must be all BLOB or all TEXT".to_owned()
                    };
                    return Err(self.objection(format!(
                        "holds keys of type {is}, but `keys` is {must}, and to SQLite these are different; {help}"
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn has_triggers(&self, db: &Connection) -> Result<bool> {
        db.query_row(
            "SELECT count(*) > 0 FROM main.sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?1)",
            [&self.table],
            |row| row.get(0),
        )
        .map_err(opening)
    }

    fn expiry_is_indexed(&self, db: &Connection) -> Result<bool> {
        let Some(expires) = &self.columns.expires else { return Ok(false) };
        // Of partial indexes only one that is certain to be used: ours.
        db.query_row(
            "SELECT count(*) > 0 FROM pragma_index_list(?1, 'main') AS i
             WHERE (NOT i.partial OR lower(i.name) = lower(?3))
             AND (SELECT lower(x.name) = lower(?2) FROM pragma_index_xinfo(i.name, 'main') AS x WHERE x.seqno = 0)",
            [&self.table, expires, &format!("{}_expires", self.table)],
            |row| row.get(0),
        )
        .map_err(opening)
    }

    pub(super) fn objection(&self, what: String) -> Error {
        refused(format!("the table {} {what}", quoted(&self.table)))
    }
}

fn refused(message: String) -> Error {
    Error::config(message).with_layer(NAME)
}

/// It is read with each write.
pub(super) fn schema_version(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("PRAGMA main.schema_version")?.query_row([], |row| row.get(0))
}

pub(super) fn opening(error: rusqlite::Error) -> Error {
    failed(Operation::Open, error)
}

/// The version in the comment, if tierstack made the table.
fn version(sql: &str) -> Option<u32> {
    let (_, rest) = sql.split_once("/* tierstack ")?;
    rest.split_once(" */")?.0.parse().ok()
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
    fn the_version_is_in_the_table() {
        assert_eq!(version(&SqliteConfig::new("x").schema()), Some(VERSION));
        assert_eq!(version("CREATE TABLE t (a)"), None);
        assert_eq!(version("CREATE TABLE t (a /* tierstack x */)"), None);
    }

    #[test]
    fn names_are_quoted() {
        let config = SqliteConfig { table: "my \"odd\" table".into(), ..SqliteConfig::new("x") };
        assert!(config.schema().contains("CREATE TABLE \"my \"\"odd\"\" table\" ("));
    }

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
