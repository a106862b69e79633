//! The indexes of a table: by which of them a row is found, and which of them has the order of keys.

use rusqlite::{Connection, OptionalExtension};

/// An index over the whole table.
pub(super) struct Index {
    /// Whether no two rows have the same there.
    unique: bool,
    columns: Vec<Column>,
}

struct Column {
    /// Empty: it is an expression.
    name: String,
    binary: bool,
    descending: bool,
}

impl Index {
    fn is_of(column: &Column, name: &str) -> bool {
        column.binary && column.name.eq_ignore_ascii_case(name)
    }

    /// Whether it keeps a key of those columns from being there twice.
    pub(super) fn is_key(&self, names: &[String]) -> bool {
        self.unique
            && self.columns.len() == names.len()
            && names.iter().all(|name| self.columns.iter().any(|column| Self::is_of(column, name)))
    }

    /// Whether, read in one direction, it has the rows sorted by those columns.
    pub(super) fn has_order_of(&self, names: &[String]) -> bool {
        let mut columns = self.columns.iter();
        let first = self.columns.first().is_some_and(|column| column.descending);
        names.iter().all(|name| {
            columns
                .next()
                .is_some_and(|column| Self::is_of(column, name) && column.descending == first)
        })
    }
}

/// Those of a table; with the numbers of its rows, where that column is one.
pub(super) fn of(
    db: &Connection,
    table: &str,
    column: Option<&String>,
) -> rusqlite::Result<Vec<Index>> {
    let mut statement = db.prepare(
        "SELECT i.seq, i.\"unique\", coalesce(x.name, ''), x.coll = 'BINARY' COLLATE NOCASE, x.desc
         FROM pragma_index_list(?1, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS x
         WHERE NOT i.partial AND x.key ORDER BY i.seq, x.seqno",
    )?;
    let mut rows = statement.query([table])?;
    let (mut indexes, mut last) = (Vec::<Index>::new(), None);
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        let column = Column { name: row.get(2)?, binary: row.get(3)?, descending: row.get(4)? };
        match indexes.last_mut().filter(|_| last == Some(seq)) {
            Some(index) => index.columns.push(column),
            None => indexes.push(Index { unique: row.get(1)?, columns: vec![column] }),
        }
        last = Some(seq);
    }
    drop(rows);
    // By their numbers the table itself is sorted.
    let number = row_number(db, table)?;
    if let Some(name) =
        number.filter(|name| column.is_some_and(|own| own.eq_ignore_ascii_case(name)))
    {
        let column = Column { name, binary: true, descending: false };
        indexes.push(Index { unique: true, columns: vec![column] });
    }
    Ok(indexes)
}

/// The column that is the number of a row: an INTEGER PRIMARY KEY, without an index for it. Where there is one, the table has no
/// numbers, or the column is an `INTEGER PRIMARY KEY DESC`.
pub(super) fn row_number(db: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    db.query_row(
        "SELECT max(name) FILTER (WHERE upper(type) = 'INTEGER') FROM pragma_table_info(?1, 'main')
         WHERE pk HAVING count(*) = 1
            AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk')",
        [table],
        |row| row.get(0),
    )
    .optional()
    .map(Option::flatten)
}
