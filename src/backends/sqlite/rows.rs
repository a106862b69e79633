//! Reading rows: what is in a cell is checked before it is believed.

use std::fmt::Write as _;
use std::ops::Bound;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Statement};

use super::config::Storage;
use super::error::{NAME, failed, wrong_cell};
use super::schema::{Layout, quoted};
use crate::clock::Timestamp;
use crate::error::{Error, Operation, Result};
use crate::types::{Entry, Page, Scan, Value, check_key};

/// The value of a key, expired or not.
pub(super) fn get(db: &Connection, layout: &Layout, key: &[u8]) -> Result<Option<Value>, Miss> {
    let mut statement = db.prepare_cached(&layout.get)?;
    let mut rows = statement.query([layout.key_cell(key)])?;
    match rows.next()? {
        Some(row) => Ok(Some(value(row, 0, layout).map_err(|error| error.with_key(key))?)),
        None => Ok(None),
    }
}

/// The values of keys, of one moment.
pub(super) fn get_many(
    db: &Connection,
    layout: &Layout,
    keys: &[Bytes],
) -> Result<Vec<Option<Value>>, Miss> {
    // In a snapshot the transaction is open already.
    let transaction = if db.is_autocommit() { Some(db.unchecked_transaction()?) } else { None };
    let values = keys.iter().map(|key| get(db, layout, key)).collect();
    // It has written nothing, so dropping it ends it as well.
    drop(transaction);
    values
}

/// Why a read gave no answer: SQLite's error, or ours.
pub(super) enum Miss {
    Engine(rusqlite::Error),
    Cell(Error),
}

impl From<rusqlite::Error> for Miss {
    fn from(error: rusqlite::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<Error> for Miss {
    fn from(error: Error) -> Self {
        Self::Cell(error)
    }
}

impl Miss {
    pub(super) fn during(self, operation: Operation) -> Error {
        match self {
            Self::Engine(error) => failed(operation, error),
            Self::Cell(error) => error.with_operation(operation),
        }
    }
}

/// The next page of a scan, and whether there may be more behind it. One statement, so of one moment.
pub(super) fn page(
    db: &Connection,
    layout: &Layout,
    scan: &Scan,
    now: impl Fn() -> Timestamp,
) -> Result<(Page, bool), Miss> {
    let mut statement = db.prepare_cached(&layout.scan(scan))?;
    bind_bound(&mut statement, 1, layout, &scan.from)?;
    bind_bound(&mut statement, 2, layout, &scan.to)?;
    let mut rows = statement.raw_query();
    let (mut page, mut bytes) = (Page::default(), 0);
    let (full, now) = (scan.next_page_entries(), now());
    while let Some(row) = rows.next()? {
        let entry = key(row.get_ref(0)?, layout.keys).and_then(|key| {
            let value = value(row, 1, layout).map_err(|error| error.with_key(&key))?;
            Ok((key, value))
        });
        let (key, value) = match entry {
            Ok(entry) => entry,
            // What was read is given first, so that a reader can go on behind the error.
            Err(_) if !page.is_empty() => return Ok((page, true)),
            Err(error) => return Err(error.into()),
        };
        if value.is_expired(now) {
            continue;
        }
        let value = if scan.keys_only { Value::default() } else { value };
        bytes += key.len() + value.bytes.len();
        page.entries.push(Entry { key, value });
        if page.entries.len() >= full || bytes >= scan.page_bytes {
            return Ok((page, true));
        }
    }
    Ok((page, false))
}

impl Layout {
    /// The number of entries of a range, the bounds as `?1` and `?2`, the moment as `?3`.
    fn count(&self, scan: &Scan) -> String {
        let mut sql = format!("SELECT count(*) FROM {} AS t", self.full);
        self.narrow(&mut sql, scan);
        if let Some(expires) = &self.columns.expires {
            let (at, types) = (format!("t.{}", quoted(expires)), self.unit().types());
            let word = if sql.contains(" WHERE ") { "AND" } else { "WHERE" };
            let _ = write!(sql, " {word} NOT (typeof({at}) IN {types} AND {at} BETWEEN 0 AND ?3)");
        }
        sql
    }
}

/// The number of rows in a range that have not expired.
pub(super) fn count(
    db: &Connection,
    layout: &Layout,
    scan: &Scan,
    now: Timestamp,
) -> Result<u64, Miss> {
    let mut statement = db.prepare(&layout.count(scan))?;
    bind_bound(&mut statement, 1, layout, &scan.from)?;
    bind_bound(&mut statement, 2, layout, &scan.to)?;
    if layout.columns.expires.is_some() {
        statement.raw_bind_parameter(3, layout.unit().passed(now))?;
    }
    let mut rows = statement.raw_query();
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(row.get::<_, i64>(0)?.unsigned_abs())
}

fn bind_bound(
    statement: &mut Statement<'_>,
    at: usize,
    layout: &Layout,
    bound: &Bound<Bytes>,
) -> rusqlite::Result<()> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => {
            statement.raw_bind_parameter(at, layout.key_cell(key))
        }
        Bound::Unbounded => Ok(()),
    }
}

pub(super) fn key(cell: ValueRef<'_>, storage: Storage) -> Result<Bytes> {
    let bytes = match (cell, storage) {
        (ValueRef::Blob(bytes), Storage::Blob) | (ValueRef::Text(bytes), Storage::Text) => bytes,
        (_, Storage::Blob) => {
            return Err(wrong_cell("a key", kind(cell), "`keys` is blob, and all must be BLOB"));
        }
        (_, Storage::Text) => {
            return Err(wrong_cell("a key", kind(cell), "`keys` is text, and all must be TEXT"));
        }
    };
    check_key(bytes).map_err(|_| {
        Error::unsupported(format!(
            "the table holds a key of {} bytes, but keys here are 1 to 65536 bytes; remove it with the program that wrote it, or scan a range without it",
            bytes.len()
        ))
        .with_key(bytes)
        .with_layer(NAME)
    })?;
    Ok(Bytes::copy_from_slice(bytes))
}

/// The value in that column, with the expiry in the next.
fn value(row: &Row<'_>, at: usize, layout: &Layout) -> Result<Value> {
    let cell = |at| row.get_ref(at).map_err(|error| failed(Operation::Get, error));
    let bytes = match cell(at)? {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Bytes::copy_from_slice(bytes),
        other => {
            return Err(wrong_cell("a value", kind(other), "values must be BLOB or TEXT"));
        }
    };
    Ok(Value { bytes, expires_at: layout.unit().deadline(cell(at + 1)?)? })
}

/// A time of ours, in milliseconds.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millis().cast_signed()
}

pub(super) const fn kind(cell: ValueRef<'_>) -> &'static str {
    match cell {
        ValueRef::Null => "NULL",
        ValueRef::Integer(_) => "an INTEGER",
        ValueRef::Real(_) => "a REAL",
        ValueRef::Text(_) => "TEXT",
        ValueRef::Blob(_) => "a BLOB",
    }
}
