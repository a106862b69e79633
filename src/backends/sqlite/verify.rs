//! What must hold for a table, of others above all: its columns, their types, its indexes, and what it holds.

use rusqlite::{Connection, OptionalExtension};

use super::config::{Keys, SqliteConfig};
use super::error::{NAME, opening, refused};
use super::indexes;
use super::key::{Key, quoted, storage};
use super::statements::{Layout, VERSION};
use crate::error::{Error, Result};
use crate::keys::row;
use crate::spelling::nearest;

/// Tables that a message lists.
const TABLES_LISTED: usize = 10;

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

impl Layout {
    /// Learns from the table what its columns hold and what its indexes allow, and checks that it fits the settings.
    pub(super) fn adapt(&mut self, config: &SqliteConfig, db: &Connection) -> Result<Found> {
        // What is no table is refused when it is verified.
        if let Some((_, strict)) = self.kind(db)?.filter(|(kind, _)| kind == "table") {
            let columns = self.columns_of(db)?;
            let mut key = Key::new(config);
            key.settle(self.key_kinds(&columns, strict)?);
            *self = Self::of(config, key, self.shape(&columns, strict)?);
        }
        let found = self.verify(db, !config.read_only)?;
        self.look_for_order(db)?;
        Ok(found)
    }

    /// Looks for an index that has the order of keys.
    fn look_for_order(&mut self, db: &Connection) -> Result<()> {
        let indexes = indexes::of(db, &self.table, self.key.names.first()).map_err(opening)?;
        let why = if !self.key.is_ordered() {
            Some(row::UNORDERED.to_owned())
        } else if indexes.iter().any(|index| index.has_order_of(&self.key.names)) {
            None
        } else {
            let table = quoted(&self.table);
            Some(format!(
                "no index of {table} has the order of keys, which is by bytes; this makes one: CREATE INDEX {} ON {table} ({})",
                quoted(&format!("{}_order", self.table)),
                self.binary().join(", ")
            ))
        };
        self.no_scans = row::scans(self.scans, why).map_err(|error| error.with_layer(NAME))?;
        Ok(())
    }

    /// The columns of the key as an index would have them.
    fn binary(&self) -> Vec<String> {
        let names = self.key.names.iter();
        names.map(|name| format!("{} COLLATE BINARY", quoted(name))).collect()
    }

    pub(super) fn exists(&self, db: &Connection) -> Result<bool> {
        Ok(self.kind(db)?.is_some())
    }

    /// What has the name, and whether it is STRICT.
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
        // What keys and values are made of was learnt when the store was opened.
        if !self.key.is_of(&self.key_kinds(&columns, strict)?)
            || self.value != self.shape(&columns, strict)?
        {
            return Err(self.objection(
                "has other types in its columns than when the store was opened; open it again"
                    .to_owned(),
            ));
        }
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

    /// An upsert needs a unique index on the key alone.
    fn check_key_index(&self, db: &Connection) -> Result<()> {
        let indexes = indexes::of(db, &self.table, self.key.names.first()).map_err(opening)?;
        if indexes.iter().any(|index| index.is_key(&self.key.names)) {
            return Ok(());
        }
        let names: Vec<_> = self.key.names.iter().map(|name| quoted(name)).collect();
        let of = if names.len() == 1 { "column" } else { "columns" };
        Err(self.objection(format!(
            "has no primary key and no unique index on its {of} {} alone, in the order BINARY; this makes one: CREATE UNIQUE INDEX {} ON {} ({})",
            names.join(", "),
            quoted(&format!("{}_key", self.table)),
            quoted(&self.table),
            self.binary().join(", ")
        )))
    }

    /// SQLite sorts NULL, numbers, text and blobs one after the other, so the first and the last key
    /// tell about all of them; of several columns, of the first.
    fn check_keys(&self, db: &Connection) -> Result<()> {
        let must = match (self.keys, self.key.kind(0)) {
            (_, Some(kind)) => storage(kind),
            (Keys::Text, None) => "text",
            (Keys::Blob | Keys::Tuple, None) => "blob",
        };
        for order in ["ASC", "DESC"] {
            let Some(first) = self.key.names.first() else { return Ok(()) };
            let sql = format!(
                "SELECT typeof(t.{}) FROM {} AS t ORDER BY {} LIMIT 1",
                quoted(first),
                self.full,
                self.key.order(order)
            );
            let is: Option<String> =
                db.query_row(&sql, [], |row| row.get(0)).optional().map_err(opening)?;
            match is {
                Some(is) if is != must && self.keys == Keys::Tuple => {
                    return Err(self.objection(format!(
                        "holds in the column {} what is of type {is} and not {must}; correct it with the program that wrote it",
                        quoted(first)
                    )));
                }
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
}

/// It is read with each write.
pub(super) fn schema_version(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("PRAGMA main.schema_version")?.query_row([], |row| row.get(0))
}

/// The version in the comment, if tierstack made the table.
fn version(sql: &str) -> Option<u32> {
    let (_, rest) = sql.split_once("/* tierstack ")?;
    rest.split_once(" */")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::SqliteConfig;
    use super::*;

    #[test]
    fn the_version_is_in_the_table() {
        assert_eq!(version(&SqliteConfig::new("x").schema()), Some(VERSION));
        assert_eq!(version("CREATE TABLE t (a)"), None);
        assert_eq!(version("CREATE TABLE t (a /* tierstack x */)"), None);
    }
}
