//! What a database is that is there already.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;

use super::config::SqliteConfig;
use super::error::{NAME, failed};
use super::pool::offload;
use super::shared_database::has_log;
use super::statements::Layout;
use super::untouched;
use crate::error::{Error, Operation, Result};
use crate::filesystem::users;
use crate::types::survey::{Chosen, Column, Part, Survey};
use crate::types::units::{ByteSize, counted};

/// Tables that are looked at.
const TABLES: i64 = 1000;

impl SqliteConfig {
    /// Looks at the database of `path`, and changes nothing: no file is made next to it, as SQLite does where a program
    /// opens one with a write-ahead log. Not while this process has it open, whose locks would be lost.
    ///
    /// # Errors
    /// `Config` where there is none; `Unavailable` where a program that had it open did not close it in order.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data.db");
    /// # tokio::runtime::Builder::new_multi_thread().build().unwrap().block_on(async {
    /// use tierstack::backends::{Sqlite, SqliteConfig};
    /// use tierstack::Store;
    ///
    /// let config = SqliteConfig::new(path);
    /// Sqlite::open(config.clone()).await?.close().await?;
    /// let found = config.survey().await?;
    /// assert_eq!((&*found.parts[0].name, &*found.parts[0].columns[0].name), ("entries", "key"));
    /// config.check_table().await?;
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    pub async fn survey(&self) -> Result<Survey> {
        let path = self.path.clone();
        offload(move || look(&path)).await.map_err(opening)
    }

    /// Checks that the table fits the settings, and changes nothing, as [`survey`](Self::survey) does.
    ///
    /// # Errors
    /// Those of opening the store.
    pub async fn check_table(&self) -> Result<()> {
        let config = self.clone();
        let checking = move || {
            let (db, _) = connect(&config.path)?;
            Layout::new(&config).adapt(&config, &db).map(drop)
        };
        offload(checking).await.map_err(opening)
    }
}

fn opening(error: Error) -> Error {
    error.with_operation(Operation::Open).with_layer(NAME)
}

fn fail(error: rusqlite::Error) -> Error {
    failed(Operation::Open, error)
}

/// A connection that makes no files, and whether there is a write-ahead log.
fn connect(path: &Path) -> Result<(Connection, bool)> {
    let path = std::fs::canonicalize(path)
        .map_err(|error| Error::io("the path of the database cannot be resolved", error))?;
    let mut file =
        File::open(&path).map_err(|error| Error::io("the database file cannot be read", error))?;
    let wal = has_log(&mut file)?;
    let (db, _) = untouched::connect(&path, wal)?;
    db.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA query_only = ON").map_err(fail)?;
    Ok((db, wal))
}

fn look(path: &Path) -> Result<Survey> {
    let (db, wal) = connect(path)?;
    let kept = match wal {
        true => "It keeps a write-ahead log.",
        false => "It keeps a rollback journal.",
    };
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    let mut facts = vec![format!("The file has {}.", ByteSize(bytes)), kept.into()];
    let users = users::of(path);
    if !users.is_empty() {
        facts.push(format!("{} has it open, which may go on.", users.join(", ")));
    }
    let mut settings = Vec::new();
    if !wal {
        let why = "the database is in this mode; `wal` would change it, for every program";
        settings.push(Chosen::new("journal", "rollback", why));
    }
    if std::fs::metadata(path).is_ok_and(|file| file.permissions().readonly()) {
        let why = "the file is not to be written";
        settings.push(Chosen::new("read_only", "true", why));
    }
    let sql = "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'view', 'virtual')
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name LIMIT ?1";
    let mut tables = db.prepare(sql).map_err(fail)?;
    let tables = tables.query_map([TABLES], |row| Ok((row.get(0)?, row.get(1)?))).map_err(fail)?;
    let mut parts = Vec::new();
    for table in tables {
        let (name, kind): (String, String) = table.map_err(fail)?;
        let columns = columns(&db, &name).map_err(fail)?;
        let number = counted(columns.len(), "column", "columns");
        let table = Chosen::new("table", format!("{name:?}"), "");
        parts.push(Part {
            facts: vec![number],
            columns,
            settings: std::iter::once(table).chain(settings.clone()).collect(),
            name,
            kind,
        });
    }
    Ok(Survey { what: "SQLite".into(), facts, parts })
}

fn columns(db: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let sql = "SELECT name, type, pk > 0, \"notnull\" AND dflt_value IS NULL AND pk = 0 FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0";
    let mut columns = db.prepare(sql)?;
    let columns = columns.query_map([table], |row| {
        Ok(Column { name: row.get(0)?, kind: row.get(1)?, key: row.get(2)?, required: row.get(3)? })
    })?;
    columns.collect()
}
