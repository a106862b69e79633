//! The indexes of a table: by which of them a row is found, and which of them has the order of keys.

use tokio_postgres::types::Type;

use super::session::Session;

/// A B-tree over the whole table.
pub(super) struct Index {
    /// Whether it keeps a key from being there twice, at every moment.
    pub(super) unique: bool,
    /// The columns, and whether their texts sort by their bytes.
    pub(super) columns: Vec<(String, bool)>,
    /// Of each, whether it is `DESC`, and whether NULL comes first: as one number of the catalogue.
    options: Vec<i32>,
}

impl Index {
    /// Whether, read in one direction, it has those columns first, each in ascending order of its bytes.
    pub(super) fn begins_with<'a>(&self, names: impl Iterator<Item = &'a str>) -> bool {
        const ASC: i32 = 0;
        const DESC_NULLS_FIRST: i32 = 3;
        let first = self.options.first();
        let mut columns = self.columns.iter().zip(&self.options);
        names.into_iter().all(|name| {
            columns.next().is_some_and(|((other, bytewise), option)| {
                other == name
                    && *bytewise
                    && Some(option) == first
                    && [ASC, DESC_NULLS_FIRST].contains(option)
            })
        })
    }
}

/// Whether a collation sorts texts by their bytes. That of a column without one does.
pub(super) fn bytewise(collation: &str) -> String {
    // The provider of the database's collation has a column since version 15.
    format!(
        "({collation} = 0 OR EXISTS (SELECT FROM pg_collation l, pg_database d WHERE l.oid = {collation} AND d.datname = current_database() AND CASE WHEN l.collprovider = 'd' THEN coalesce(to_jsonb(d)->>'datlocprovider', 'c') = 'b' OR (coalesce(to_jsonb(d)->>'datlocprovider', 'c') = 'c' AND d.datcollate IN ('C', 'POSIX')) ELSE l.collprovider = 'b' OR (l.collprovider = 'c' AND l.collcollate IN ('C', 'POSIX')) END))"
    )
}

pub(super) async fn of(
    session: Session<'_>,
    table: u32,
) -> Result<Vec<Index>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT i.indisunique AND i.indimmediate, ARRAY(SELECT a.attname::text FROM unnest(string_to_array(i.indkey::text, ' ')::int[]) WITH ORDINALITY AS k (n, at) JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n WHERE k.at <= i.indnkeyatts ORDER BY k.at), ARRAY(SELECT {} FROM unnest(string_to_array(i.indcollation::text, ' ')::oid[]) WITH ORDINALITY AS k (n, at) WHERE k.at <= i.indnkeyatts ORDER BY k.at), string_to_array(i.indoption::text, ' ')::int[] FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND m.amname = 'btree' AND NOT EXISTS (SELECT FROM unnest(string_to_array(i.indclass::text, ' ')::oid[]) AS o (n) JOIN pg_opclass c ON c.oid = o.n WHERE NOT c.opcdefault)",
        bytewise("k.n")
    );
    let rows = session.query(&sql, vec![(&table, Type::OID)]).await?;
    let index = |row: &tokio_postgres::Row| {
        let (names, bytewise): (Vec<String>, Vec<bool>) = (row.try_get(1)?, row.try_get(2)?);
        let columns = names.into_iter().zip(bytewise).collect();
        Ok(Index { unique: row.try_get(0)?, columns, options: row.try_get(3)? })
    };
    rows.iter().map(index).collect()
}
