//! Tests within one process; those that need a second one, or a file system of their own, are in
//! `tests/servers/rocksdb/mod.rs`.

mod closing;
mod conditions;
mod damage;
mod entities;
mod existing;
mod folders;
mod ingesting;
mod merging;
mod only_reading;
mod reading;
mod settings;
mod ttl;
mod writing;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::Path;

use ::rocksdb::{ColumnFamilyDescriptor, DB, DBCompressionType, Options, SliceTransform};
use futures_util::{FutureExt, StreamExt};
use tempfile::TempDir;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::ext::StoreExt;
use crate::layer::{BackendConfig, Context};
use crate::types::units::ByteSize;
use crate::types::{Durability, Entry, Page};
use crate::{Freshness, Timestamp};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn open(path: &Path) -> RocksDb {
    // The clock of the machine must not decide what is answered inline.
    let config = RocksDbConfig { inline_reads: false, ..RocksDbConfig::new(path) };
    RocksDb::open(config).await.unwrap()
}

async fn refusal(config: RocksDbConfig) -> Error {
    RocksDb::open(config).await.unwrap_err()
}

fn key(number: usize) -> Bytes {
    format!("key-{number:06}").into()
}

/// Entries written with the plain library, flushed to a table, and the database closed.
fn foreign(path: &Path, options: &Options, entries: usize) {
    let db = DB::open(options, path).unwrap();
    for number in 0..entries {
        db.put(key(number), format!("value-{number}")).unwrap();
    }
    db.flush().unwrap();
}

fn creating() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options
}

async fn all(store: &dyn Read, scan: Scan) -> Vec<Entry> {
    let pages: Vec<Result<Page>> = store.scan(scan).collect().await;
    pages.into_iter().flat_map(|page| page.unwrap().entries).collect()
}

/// Every file of the folder. `LOCK` is not read, as closing it would give up the lock of this process.
fn image(path: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(path)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            let bytes = if name == "LOCK" { Vec::new() } else { fs::read(entry.path()).unwrap() };
            (name, bytes)
        })
        .collect()
}

fn names(path: &Path) -> Vec<String> {
    image(path).into_keys().collect()
}

fn latest_options(path: &Path) -> String {
    let (_, text) =
        image(path).into_iter().rfind(|(name, _)| name.starts_with("OPTIONS-")).unwrap();
    String::from_utf8(text).unwrap()
}
