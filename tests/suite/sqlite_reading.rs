//! A SQLite database that is only read, and another program: Python's `sqlite3`.
//!
//! Without Python a test prints that it is skipped; with `CI` set it fails instead.

#![cfg(feature = "sqlite")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::SystemTime;

use bytes::Bytes;
use tempfile::tempdir;
use tierstack::backends::sqlite::{Columns, Journal, KeyColumns, Keys, Storage};
use tierstack::backends::{Sqlite, SqliteConfig};
use tierstack::{ErrorKind, Read, ReadExt, Scan, Store, StoreExt};

/// A Python that does what it is told, a line at a time.
struct Python {
    child: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
}

const LOOP: &str = "
import sqlite3, sys
db = None
for line in sys.stdin:
    exec(line)
    print('done', flush=True)
";

impl Python {
    /// `None`: there is no Python here.
    fn start(folder: &Path) -> Option<Self> {
        let started = Command::new("python3")
            .args(["-c", LOOP])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "no Python: {error}");
                println!("skipped: there is no python3 ({error})");
                return None;
            }
        };
        let (say, hear) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Some(Self { child, say, hear: BufReader::new(hear) })
    }

    fn does(&mut self, line: &str) {
        writeln!(self.say, "{line}").unwrap();
        let mut answer = String::new();
        self.hear.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "{line}");
    }

    fn opens(&mut self) {
        self.does("db = sqlite3.connect('app.db')");
    }

    fn runs(&mut self, sql: &str) {
        self.does(&format!("db.executescript(\"{sql}\"); db.commit()"));
    }

    fn closes(&mut self) {
        self.does("db.close()");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reading(folder: &Path, journal: Option<Journal>) -> SqliteConfig {
    let columns = Columns {
        key: KeyColumns::One("k".into()),
        value: "v".into(),
        expires: None,
        created: None,
        updated: None,
        ..Columns::default()
    };
    SqliteConfig {
        table: "t".into(),
        columns,
        keys: Keys::Text,
        values: Storage::Text,
        read_only: true,
        journal,
        ..SqliteConfig::new(folder.join("app.db"))
    }
}

/// The files of a folder, with their contents and times.
fn files(folder: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            let content = std::fs::read(file.path()).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            (file.file_name().into_string().unwrap(), (content, modified))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_only_read_stays_as_it_is_and_its_owner_is_seen() {
    for wal in [true, false] {
        let folder = tempdir().unwrap();
        let Some(mut owner) = Python::start(folder.path()) else { return };
        owner.opens();
        let mode = if wal { "PRAGMA journal_mode = WAL;" } else { "" };
        owner.runs(&format!(
            "{mode} CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT); INSERT INTO t VALUES ('a', 'one')"
        ));
        owner.closes();
        // Nobody may write to the folder either, as far as that stops this process.
        let before = files(folder.path());
        assert_eq!(before.keys().collect::<Vec<_>>(), ["app.db"]);
        let journal = (!wal).then_some(Journal::Rollback);
        let store = Sqlite::open(reading(folder.path(), journal)).await.unwrap();
        assert_eq!(store.get(b"a").await.unwrap(), Some("one".into()));
        assert_eq!(store.get(b"b").await.unwrap(), None);
        assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 1);
        assert_eq!(store.count(b"").await.unwrap(), Some(1));
        let refused = store.put("a", "two").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Access);
        store.integrity_check().await.unwrap();
        store.flush().await.unwrap();
        assert!(files(folder.path()) == before, "reading changed the folder");

        // The owner comes back, and is seen at once, while it is there and when it is gone again.
        owner.opens();
        owner.runs("UPDATE t SET v = 'two'; INSERT INTO t VALUES ('b', 'new')");
        assert_eq!(store.get(b"a").await.unwrap(), Some("two".into()));
        assert_eq!(store.get_many(&["b".into()]).await.unwrap(), [Some("new".into())]);
        owner.runs("UPDATE t SET v = 'three'");
        assert_eq!(store.collect(Scan::all()).await.unwrap()[0].value, "three".into());
        owner.closes();
        assert_eq!(store.get(b"a").await.unwrap(), Some("three".into()));
        store.close().await.unwrap();

        // What the owner's last close left is as it was.
        let before = files(folder.path());
        let store = Sqlite::open(reading(folder.path(), journal)).await.unwrap();
        assert_eq!(store.get(b"a").await.unwrap(), Some("three".into()));
        if wal {
            let frozen = store.snapshot().await.unwrap();
            assert_eq!(frozen.get(b"b").await.unwrap(), Some("three".into()));
        }
        store.close().await.unwrap();
        assert!(files(folder.path()) == before, "reading changed the folder");
    }
}

/// An owner that opens the database, writes, and closes it, again and again: each time all of it is brought into the file
/// that is read as one that nobody changes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_next_to_an_owner_that_comes_and_goes_is_of_one_moment() {
    let folder = tempdir().unwrap();
    let Some(mut owner) = Python::start(folder.path()) else { return };
    owner.opens();
    owner.runs(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT); WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 199) INSERT INTO t SELECT printf('%03d', i), '0' FROM n",
    );
    owner.closes();
    let store = Sqlite::open(reading(folder.path(), None)).await.unwrap();
    let keys: Vec<Bytes> = (0..200).map(|n| format!("{n:03}").into()).collect();
    let writing = std::thread::spawn(move || {
        for round in 1..=100 {
            owner.opens();
            owner
                .runs(&format!("UPDATE t SET v = '{round}' || substr(hex(zeroblob(300)), 1, 500)"));
            owner.closes();
        }
    });
    let (mut last, mut read) = (0, 0);
    while !writing.is_finished() || read == 0 {
        let values = match store.get_many(&keys).await {
            Ok(values) => values,
            Err(error) if error.kind() == ErrorKind::Unavailable => continue,
            Err(error) => panic!("{error:?}"),
        };
        let value = |bytes: &Option<tierstack::Value>| {
            String::from_utf8(bytes.as_ref().unwrap().bytes.to_vec()).unwrap()
        };
        let first = value(&values[0]);
        assert!(values.iter().all(|found| value(found) == first), "of two moments");
        let round: usize = first.strip_suffix(&"0".repeat(500)).unwrap_or("0").parse().unwrap();
        assert!(round >= last, "{round} after {last}");
        (last, read) = (round, read + 1);
    }
    writing.join().unwrap();
    let found = store.get(b"007").await.unwrap().unwrap();
    assert!(found.bytes.starts_with(b"100"), "the last one is seen");
    store.close().await.unwrap();
}
