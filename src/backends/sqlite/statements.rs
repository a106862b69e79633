//! The table: the SQL that makes and uses it.

use std::fmt::Write as _;

use super::config::{Columns, Keys, SqliteConfig, Storage};
use super::key::{Key, Range, quoted};
use super::value::Shape;
use crate::error::Result;
use crate::types::{ExpiresUnit, Op, Order, Scan, ValueColumns};

/// The version of tables that tierstack makes, in a comment that SQLite keeps along with the table.
pub(super) const VERSION: u32 = 1;

/// The names in the settings as SQL.
///
/// Columns are always qualified: a quoted name alone that is no column is a text to SQLite, so a query
/// would go on after somebody has dropped the column, with wrong answers.
pub(super) struct Layout {
    pub(super) keys: Keys,
    /// Whether there are to be scans, and why there are none.
    pub(super) scans: bool,
    pub(super) no_scans: Option<String>,
    pub(super) values: Storage,
    /// As in the settings.
    pub(super) table: String,
    pub(super) columns: Columns,
    /// The table as SQL.
    pub(super) full: String,
    /// `None`: the settings do not tell the types of its columns.
    pub(super) create: Option<String>,
    /// The deadline and the value.
    pub(super) get: String,
    /// Whether there is a row with that key and that value.
    pub(super) holds: String,
    pub(super) put: String,
    pub(super) delete: String,
    /// Keys of expired entries, and their removal.
    pub(super) expired: Option<Expired>,
    /// A read that begins a transaction.
    pub(super) begin: String,
    /// Keys, deadlines and values, and the same without values.
    select: String,
    select_keys: String,
    pub(super) key: Key,
    pub(super) value: Shape,
}

pub(super) struct Expired {
    /// Some of them, in any order: fast with an index.
    pub(super) any: String,
    /// The first, and those behind a key, in order.
    pub(super) first: String,
    pub(super) behind: String,
    pub(super) delete: String,
}

impl Layout {
    /// As the settings say, before the table was looked at.
    pub(super) fn new(config: &SqliteConfig) -> Self {
        Self::of(config, Key::new(config), Shape::new(config))
    }

    pub(super) fn of(config: &SqliteConfig, key: Key, value: Shape) -> Self {
        let columns = &config.columns;
        let table = format!("main.{}", quoted(&config.table));
        let expires = columns.expires.as_ref().map(|name| format!("t.{}", quoted(name)));
        let deadline = expires.as_deref().unwrap_or("NULL");
        let types = columns.expires_unit.types();
        let is_expired =
            expires.as_ref().map(|at| format!("typeof({at}) IN {types} AND {at} BETWEEN 0 AND ?1"));
        let (keys, values, is_key) = (key.list(), value.list(), key.equals(1));
        let ordered = key.order("ASC");
        Self {
            keys: config.keys,
            scans: config.scans,
            no_scans: None,
            values: config.values,
            table: config.table.clone(),
            columns: columns.clone(),
            create: create(config),
            get: format!("SELECT {deadline}, {values} FROM {table} AS t WHERE {is_key}"),
            holds: format!(
                "SELECT 1 FROM {table} AS t WHERE {is_key} AND {}",
                value.equals(key.width() + 1)
            ),
            put: put(&table, columns, &key, &value),
            delete: format!("DELETE FROM {table} AS t WHERE {is_key}"),
            expired: is_expired.map(|is| Expired {
                any: format!("SELECT {keys} FROM {table} AS t WHERE {is} LIMIT ?2"),
                first: format!(
                    "SELECT {keys} FROM {table} AS t WHERE {is} ORDER BY {ordered} LIMIT ?2"
                ),
                behind: format!(
                    "SELECT {keys} FROM {table} AS t WHERE {is} AND {} ORDER BY {ordered} LIMIT ?2",
                    key.compares(">", 3)
                ),
                delete: format!("DELETE FROM {table} AS t WHERE {is} AND {}", key.equals(2)),
            }),
            begin: format!("SELECT 1 FROM {table} LIMIT 1"),
            select: format!("SELECT {keys}, {deadline}, {values} FROM {table} AS t"),
            select_keys: format!("SELECT {keys}, {deadline} FROM {table} AS t"),
            key,
            value,
            full: table,
        }
    }

    /// The table, and the columns of an entry. To SQLite, case makes no difference.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let names = [&self.table].into_iter().chain(&self.key.names).chain(self.value.names());
        names.map(|name| name.to_ascii_lowercase())
    }

    pub(super) fn unit(&self) -> ExpiresUnit {
        self.columns.expires_unit
    }

    /// The entries of a range, the bounds as the first parameters.
    pub(super) fn scan(&self, scan: &Scan, range: &Range<'_>) -> String {
        let mut sql = if scan.keys_only { self.select_keys.clone() } else { self.select.clone() };
        self.narrow(&mut sql, range);
        let order = if scan.order == Order::Forward { "ASC" } else { "DESC" };
        let _ = write!(sql, " ORDER BY {}", self.key.order(order));
        sql
    }

    pub(super) fn narrow(&self, sql: &mut String, range: &Range<'_>) {
        let bound = |bound: &Option<(&'static str, _)>, first| {
            bound.as_ref().map(|(how, _)| self.key.compares(how, first))
        };
        let bounds = [bound(&range.from, 1), bound(&range.to, 1 + self.key.width())];
        for (word, bound) in ["WHERE", "AND"].into_iter().zip(bounds.into_iter().flatten()) {
            let _ = write!(sql, " {word} {bound}");
        }
    }

    pub(super) fn check_op(&self, op: &Op) -> Result<()> {
        self.key.check(op.key())?;
        let value = op.value().map_or(Ok(()), |value| self.value.check(&value.bytes));
        value.map_err(|error| error.with_key(op.key()))
    }
}

impl SqliteConfig {
    /// The SQL that makes the table and its index, as it is run when the table is missing.
    ///
    /// ```
    /// use tierstack::backends::SqliteConfig;
    ///
    /// let sql = SqliteConfig::new("./data.db").schema();
    /// assert!(sql.starts_with("CREATE TABLE \"entries\""), "{sql}");
    /// ```
    #[must_use]
    pub fn schema(&self) -> String {
        Layout::new(self).create.unwrap_or_else(|| "-- The table is one of your own.\n".to_owned())
    }
}

/// What is small comes first, so that it is read without the pages of a large value. Not STRICT, which
/// programs with a SQLite from before 2021 could not read.
fn create(config: &SqliteConfig) -> Option<String> {
    let columns = &config.columns;
    let (keys, [key]) = (config.keys, columns.key.names()) else { return None };
    let ValueColumns::One(value) = &columns.value else { return None };
    if !columns.constants.is_empty() {
        return None;
    }
    let keys = match keys {
        Keys::Blob => "BLOB",
        Keys::Text => "TEXT",
        Keys::Tuple => return None,
    };
    let kind = |storage| if storage == Storage::Blob { "BLOB" } else { "TEXT" };
    let (table, key) = (quoted(&config.table), quoted(key));
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
    let _ = writeln!(sql, "  {} {} NOT NULL\n) WITHOUT ROWID;", quoted(value), kind(config.values));
    if let Some(expires) = columns.expires.as_deref().map(quoted) {
        let index = quoted(&format!("{}_expires", config.table));
        let _ = writeln!(
            sql,
            "CREATE INDEX {index} ON {table} ({expires}) WHERE {expires} IS NOT NULL;"
        );
    }
    Some(sql)
}

/// A text as SQL writes it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The key, the value, expiry, now as parameters. An upsert, not `REPLACE`, which would delete the row
/// and with it what is in its other columns. `OR ABORT` overrules what the table says about conflicts
/// in other columns, `ON CONFLICT IGNORE` or `REPLACE`: the entry, or another one, would be gone in silence.
fn put(table: &str, columns: &Columns, key: &Key, value: &Shape) -> String {
    let behind = key.width() + value.width();
    let parameter = |at: usize| format!("?{at}");
    let cells = key.names.iter().chain(value.names());
    let mut names: Vec<_> = cells.zip((1..).map(parameter)).collect();
    names.extend(columns.expires.iter().map(|name| (name, parameter(behind + 1))));
    names.extend(columns.created.iter().map(|name| (name, parameter(behind + 2))));
    names.extend(columns.updated.iter().map(|name| (name, parameter(behind + 2))));
    // In a new row only.
    names.extend(columns.constants.iter().map(|(name, text)| (name, literal(text))));
    let list: Vec<_> = names.iter().map(|(name, _)| quoted(name)).collect();
    let values: Vec<_> = names.iter().map(|(_, value)| value.as_str()).collect();
    let kept = |name: &&String| {
        Some(*name) != columns.created.as_ref()
            && !key.is(name)
            && !columns.constants.contains_key(*name)
    };
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
            ExpiresUnit::Seconds => format!("{} / 1000", parameter(behind + 2)),
            ExpiresUnit::Milliseconds => parameter(behind + 2),
        };
        sets.push(format!(
            "{created} = CASE WHEN t.{expires} BETWEEN 0 AND {passed} THEN excluded.{created} ELSE t.{created} END"
        ));
    }
    format!(
        "INSERT OR ABORT INTO {table} AS t ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}",
        list.join(", "),
        values.join(", "),
        key.conflict(),
        sets.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let config = SqliteConfig { table: "my \"odd\" table".into(), ..SqliteConfig::new("x") };
        assert!(config.schema().contains("CREATE TABLE \"my \"\"odd\"\" table\" ("));
    }
}
