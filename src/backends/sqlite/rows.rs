//! Reading rows: what is in a cell is checked before it is believed.

use std::fmt::Write as _;

use bytes::Bytes;
use rusqlite::{Connection, Row, Statement};

use super::error::failed;
use super::key::{Range, quoted};
use super::statements::Layout;
use crate::clock::Timestamp;
use crate::error::{Error, Operation, Result};
use crate::types::{Entry, Page, Scan, Value};

/// The value of a key, expired or not.
pub(super) fn get(db: &Connection, layout: &Layout, key: &[u8]) -> Result<Option<Value>, Miss> {
    if layout.key.is_mark(key) {
        return Ok(None);
    }
    let mut statement = db.prepare_cached(&layout.get)?;
    layout.key.bind(&mut statement, 1, &layout.key.cells(key)?)?;
    let mut rows = statement.raw_query();
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
    let Some(range) = layout.key.range(scan) else { return Ok((Page::default(), false)) };
    let mut statement = db.prepare_cached(&layout.scan(scan, &range))?;
    bind(&mut statement, layout, &range)?;
    let mut rows = statement.raw_query();
    let (mut page, mut bytes) = (Page::default(), 0);
    let (full, now) = (scan.next_page_entries(), now());
    while let Some(row) = rows.next()? {
        let entry = layout.key.read(row).and_then(|key| {
            let width = layout.key.width();
            let value = match scan.keys_only {
                true => deadline(row, width, layout)
                    .map(|expires_at| Value { expires_at, ..Value::default() }),
                false => value(row, width, layout),
            };
            Ok((value.map_err(|error| error.with_key(&key))?, key))
        });
        let (value, key) = match entry {
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
    /// The number of entries of a range, the bounds as the first parameters, the moment as the next.
    fn count(&self, range: &Range<'_>) -> String {
        let mut sql = format!("SELECT count(*) FROM {} AS t", self.full);
        self.narrow(&mut sql, range);
        if let Some(expires) = &self.columns.expires {
            let (at, types) = (format!("t.{}", quoted(expires)), self.unit().types());
            let word = if sql.contains(" WHERE ") { "AND" } else { "WHERE" };
            let _ = write!(
                sql,
                " {word} NOT (typeof({at}) IN {types} AND {at} BETWEEN 0 AND ?{})",
                2 * self.key.width() + 1
            );
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
    let Some(range) = layout.key.range(scan) else { return Ok(0) };
    let mut statement = db.prepare(&layout.count(&range))?;
    bind(&mut statement, layout, &range)?;
    if layout.columns.expires.is_some() {
        statement.raw_bind_parameter(2 * layout.key.width() + 1, layout.unit().passed(now))?;
    }
    let mut rows = statement.raw_query();
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(row.get::<_, i64>(0)?.unsigned_abs())
}

fn bind(statement: &mut Statement<'_>, layout: &Layout, range: &Range<'_>) -> rusqlite::Result<()> {
    if let Some((_, from)) = &range.from {
        layout.key.bind(statement, 1, from)?;
    }
    if let Some((_, to)) = &range.to {
        layout.key.bind(statement, 1 + layout.key.width(), to)?;
    }
    Ok(())
}

fn deadline(row: &Row<'_>, at: usize, layout: &Layout) -> Result<Option<Timestamp>> {
    let cell = row.get_ref(at).map_err(|error| failed(Operation::Get, error));
    layout.unit().deadline(cell?)
}

/// The value, with its deadline in that column and its own in those behind it.
fn value(row: &Row<'_>, at: usize, layout: &Layout) -> Result<Value> {
    let bytes = layout.value.read(row, at + 1)?;
    Ok(Value { bytes, expires_at: deadline(row, at, layout)? })
}

/// A time of ours, in milliseconds.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millis().cast_signed()
}
