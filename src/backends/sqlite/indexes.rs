//! The indexes of a table: by which of them a row is found, and which of them has the order of keys.

use rusqlite::Connection;

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
    if let Some(name) = column {
        // An INTEGER PRIMARY KEY is the number of the row, by which the table itself is sorted. With an index for
        // it, it is none: of a table without numbers, or as `INTEGER PRIMARY KEY DESC`.
        let numbered: bool = db.query_row(
            "SELECT count(*) = 1 AND max(lower(name) = lower(?2) AND upper(type) = 'INTEGER')
                AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk')
             FROM pragma_table_info(?1, 'main') WHERE pk",
            [table, name.as_str()],
            |row| row.get(0).map(|found: Option<bool>| found.unwrap_or_default()),
        )?;
        if numbered {
            let column = Column { name: name.clone(), binary: true, descending: false };
            indexes.push(Index { unique: true, columns: vec![column] });
        }
    }
    Ok(indexes)
}
