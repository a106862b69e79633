//! Tests within one process; those that need a second one, or a file system of their own, are in
//! `tests/suite/sqlite.rs`.

mod damage;
mod existing;
mod keys;
mod reading;
mod rows;
mod rules;
mod tables;
mod times;
mod writing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::ext::{ReadExt, StoreExt};
use crate::layer::BackendConfig;
use crate::types::units::Span;
use crate::{Batch, Entry, ManualClock};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data.db")
    }

    fn config(&self) -> SqliteConfig {
        SqliteConfig::new(self.path())
    }

    /// The settings for a table `t` with the columns `k` and `v`, in a database that stays as it is.
    fn plain(&self) -> SqliteConfig {
        SqliteConfig { journal: Some(Journal::Rollback), ..self.plain_wal() }
    }

    fn plain_wal(&self) -> SqliteConfig {
        SqliteConfig { table: "t".into(), columns: columns("k", "v"), ..self.config() }
    }

    /// Another program.
    fn foreign(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn foreign_did(&self, sql: &str) {
        self.foreign().execute_batch(sql).unwrap();
    }
}

fn columns(key: &str, value: &str) -> Columns {
    Columns {
        key: key.into(),
        value: value.into(),
        expires: None,
        expires_unit: ExpiresUnit::Milliseconds,
        created: None,
        updated: None,
        constants: BTreeMap::new(),
    }
}

async fn open(config: SqliteConfig) -> Sqlite {
    Sqlite::open(config).await.unwrap()
}

async fn open_at(config: SqliteConfig, clock: &ManualClock) -> Sqlite {
    Sqlite::open_with_clock(config, Arc::new(clock.clone())).await.unwrap()
}

async fn refusal(config: SqliteConfig) -> Error {
    Sqlite::open(config).await.unwrap_err()
}

fn impatient(config: SqliteConfig) -> SqliteConfig {
    SqliteConfig { busy_timeout: Span(Duration::from_millis(50)), ..config }
}

fn number(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn log_bytes(path: &Path) -> u64 {
    std::fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len())
}

async fn all(store: &dyn Read, scan: Scan) -> Vec<Entry> {
    store.collect(scan).await.unwrap()
}
