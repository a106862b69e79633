//! `adopt`: its output is a config that opens, and what it looked at is as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::Connection;

use crate::folder::{Folder, PLAIN};

/// Every file of a folder, with its content and when it was changed.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, about) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        match about.is_dir() {
            true => found.extend(files(&path)),
            false => {
                let name = entry_name(&path);
                // RocksDB's own threads write into it while the database is open.
                let of = if name.starts_with("LOG") {
                    (Vec::new(), SystemTime::UNIX_EPOCH)
                } else {
                    (std::fs::read(&path).unwrap(), about.modified().unwrap())
                };
                found.insert(path, of);
            }
        }
    }
    found
}

fn entry_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Adopts what has that name, and makes the output the config of the folder.
#[track_caller]
fn adopt(folder: &Folder, name: &str) -> String {
    let before = files(&folder.path("there"));
    let out = adopt_beside(folder, name);
    assert!(files(&folder.path("there")) == before, "it was changed");
    out
}

/// The same while its owner, whose own threads may change it, has it open.
#[track_caller]
fn adopt_beside(folder: &Folder, name: &str) -> String {
    let target = folder.path(name);
    let out = folder.run(&["adopt", target.to_str().unwrap()]).ok().out;
    folder.write("tierstack.yaml", &out);
    folder.run(&["check"]).ok();
    out
}

fn scan(folder: &Folder, store: &str) -> String {
    folder.run(&["scan", "--store", store]).ok().out
}

const TABLES: &str = "
    CREATE TABLE sessions (name TEXT PRIMARY KEY, json TEXT, expires INTEGER);
    INSERT INTO sessions VALUES ('a', '{}', 4102444800), ('b', '[]', NULL);
    CREATE TABLE \"my blobs\" (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID;
    INSERT INTO \"my blobs\" VALUES (x'6b', x'76');
    CREATE TABLE strict (id TEXT PRIMARY KEY, body TEXT, owner TEXT NOT NULL);
    INSERT INTO strict VALUES ('s', 'x', 'me');
    CREATE TABLE heap (a TEXT, b TEXT);";

#[test]
fn tables_of_sqlite_become_stores() {
    let folder = Folder::new(PLAIN);
    std::fs::create_dir(folder.path("there")).unwrap();
    let db = Connection::open(folder.path("there/app.db")).unwrap();
    db.execute_batch(&format!("PRAGMA journal_mode = WAL; {TABLES}")).unwrap();
    let entry = "{\"key\":\"a\",\"value\":\"{}\",\"expires_at\":\"2100-01-01T00:00:00Z\"}";
    for closed in [false, true] {
        if closed {
            db.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
        }
        let out = adopt(&folder, "there/app.db");
        for text in [
            "# - SQLite",
            "# - heap (table, 2 columns): it has no primary key",
            "  my_blobs:\n    # table, 2 columns\n",
            "columns: { key: \"name\", value: \"json\", expires: \"expires\", expires_unit: seconds }  # key: the primary key",
            "keys: text  # the column holds text",
            "read_only: true  # a new row needs the column owner, which has no default",
        ] {
            assert!(out.contains(text), "{text}: {out}");
        }
        assert_eq!(out.contains("journal: rollback  # "), closed, "{out}");
        assert!(scan(&folder, "sessions").starts_with(entry));
        assert_eq!(scan(&folder, "my_blobs"), "{\"key\":\"k\",\"value\":\"v\"}\n");
        assert_eq!(scan(&folder, "strict"), "{\"key\":\"s\",\"value\":\"x\"}\n");
    }
}

/// With a log that is taken in, and no program that has it open, SQLite would make files.
#[test]
fn a_closed_database_with_a_log_gets_no_files_beside_it() {
    let folder = Folder::new(PLAIN);
    std::fs::create_dir(folder.path("there")).unwrap();
    let db = Connection::open(folder.path("there/app.db")).unwrap();
    db.execute_batch(&format!("PRAGMA journal_mode = WAL; {TABLES}")).unwrap();
    db.close().unwrap();
    assert_eq!(files(&folder.path("there")).len(), 1);
    let out = adopt(&folder, "there/app.db");
    assert!(out.contains("write-ahead log") && !out.contains("journal: "), "{out}");
    // What a crash left is its owner's to take in.
    std::fs::write(folder.path("there/app.db-wal"), "left").unwrap();
    let target = folder.path("there/app.db");
    folder.run(&["adopt", target.to_str().unwrap()]).fails().says("no program has open");
}

#[tokio::test]
async fn a_database_of_rocksdb_is_looked_at_beside_its_owner() {
    use tierstack::backends::{RocksDb, RocksDbConfig};
    use tierstack::{Store, StoreExt};

    let folder = Folder::new(PLAIN);
    std::fs::create_dir(folder.path("there")).unwrap();
    let config = RocksDbConfig::new(folder.path("there/rocks"));
    let store = RocksDb::open(config.clone()).await.unwrap();
    store.put("k", "v").await.unwrap();
    let orders = RocksDbConfig { column_family: "orders".into(), ..config };
    store.close().await.unwrap();
    let store = RocksDb::open(orders).await.unwrap();
    store.put("o", "1").await.unwrap();
    let out = adopt_beside(&folder, "there/rocks");
    for text in [
        "# - RocksDB ",
        "default: default\n",
        "  orders:\n    # column family\n    backend:\n      shared: main\n",
    ] {
        assert!(out.contains(text), "{text}: {out}");
    }
    if cfg!(target_os = "linux") {
        let text = format!("process {} (", std::process::id());
        assert!(out.contains(&text) && out.contains("has it open: while it does"), "{out}");
    }
    store.close().await.unwrap();
    let out = adopt(&folder, "there/rocks");
    assert!(!out.contains("has it open"), "{out}");
    assert_eq!(scan(&folder, "default"), "{\"key\":\"k\",\"value\":\"v\"}\n");
    assert_eq!(scan(&folder, "orders"), "{\"key\":\"o\",\"value\":\"1\"}\n");
}

#[test]
fn a_folder_of_files_is_a_store() {
    let folder = Folder::new(PLAIN);
    std::fs::create_dir_all(folder.path("there/2026")).unwrap();
    folder.write("there/2026/a.txt", "text");
    let out = adopt(&folder, "there");
    assert!(out.contains("  there:\n    # folder\n    backend:\n      file:\n"), "{out}");
    assert_eq!(scan(&folder, "there"), "{\"key\":\"2026/a.txt\",\"value\":\"text\"}\n");
}

#[test]
fn what_is_no_store_is_said() {
    let folder = Folder::new(PLAIN);
    folder.write("note.txt", "no database, and longer than a header");
    for (target, text) in [
        ("missing", "there is nothing to look at"),
        ("note.txt", "the file is no database of SQLite"),
        ("postgres://app:secret@127.0.0.1:1/x", "password"),
    ] {
        let ran = folder.run(&["adopt", target]).refused().says(text);
        assert!(!ran.err.contains("secret") && ran.out.is_empty(), "{}", ran.err);
    }
    folder
        .run(&["adopt", "note.txt", "--password", "env:X"])
        .refused()
        .says("leave --password out");
}
