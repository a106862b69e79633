//! Tables that others have made.

use super::*;
use crate::clock::Clock;

#[tokio::test]
async fn a_table_of_others_is_read_as_it_is_and_nothing_else_about_it_changes() {
    let folder = Folder::new();
    folder.foreign_did(
        "PRAGMA user_version = 7; PRAGMA application_id = 99;
         CREATE TABLE \"odd \"\" name\" (id INTEGER PRIMARY KEY, note TEXT DEFAULT 'n', \"the key\" BLOB UNIQUE, data);
         INSERT INTO \"odd \"\" name\" (\"the key\", data, note) VALUES (x'61', x'01', 'mine'), (x'ff00', 'text', 'mine');",
    );
    let before = std::fs::read(folder.path()).unwrap();
    let config = SqliteConfig {
        table: "odd \" name".into(),
        columns: columns("the key", "data"),
        journal: Some(Journal::Rollback),
        ..folder.config()
    };
    let store = open(config.clone()).await;
    assert_eq!(store.get(b"a").await.unwrap(), Some(Bytes::from_static(&[1]).into()));
    assert_eq!(store.get(&[0xff, 0]).await.unwrap(), Some("text".into()));
    assert_eq!(all(&store, Scan::all()).await.len(), 2);
    store.close().await.unwrap();
    assert_eq!(std::fs::read(folder.path()).unwrap(), before, "reading changed the file");

    let store = open(config).await;
    let _ = store.write(Batch::new().put("a", "new").put("b", "more")).await.unwrap();
    store.close().await.unwrap();
    let db = folder.foreign();
    let note: String = db
        .query_row("SELECT note FROM \"odd \"\" name\" WHERE \"the key\" = x'61'", [], |r| r.get(0))
        .unwrap();
    assert_eq!(note, "mine", "a put keeps what is in other columns");
    assert_eq!(number(&db, "PRAGMA user_version"), 7);
    assert_eq!(number(&db, "PRAGMA application_id"), 99);
    assert_eq!(number(&db, "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%tierstack%'"), 0);
    let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_the_setting_that_would() {
    for (sql, words) in [
        (
            "CREATE TABLE other (k BLOB PRIMARY KEY, v)",
            "there is no table \"t\" (`table`); there are \"other\"",
        ),
        (
            "CREATE TABLE tt (k BLOB PRIMARY KEY, v)",
            "there are \"tt\". Did you mean \"tt\"? With `create: true`",
        ),
        ("CREATE VIEW t AS SELECT 1 AS k, 2 AS v", "is a view"),
        (
            "CREATE TABLE t (k BLOB PRIMARY KEY, w)",
            "has no column \"v\" (`columns.value`); it has \"k\", \"w\"",
        ),
        ("CREATE TABLE t (k BLOB, v)", "no primary key and no unique index"),
        ("CREATE TABLE t (k BLOB, v, PRIMARY KEY (k, v))", "no primary key and no unique index"),
        (
            "CREATE TABLE t (k BLOB, v); CREATE UNIQUE INDEX i ON t (k) WHERE v > 1",
            "no unique index",
        ),
        ("CREATE TABLE t (k BLOB COLLATE NOCASE PRIMARY KEY, v)", "BINARY"),
        ("CREATE TABLE t (k INTEGER PRIMARY KEY, v)", "set `keys: tuple`"),
        ("CREATE TABLE t (k REAL PRIMARY KEY, v)", "type REAL"),
        ("CREATE TABLE t (k BLOB PRIMARY KEY, v REAL)", "type REAL"),
        ("CREATE TABLE t (k TEXT PRIMARY KEY, v)", "set `keys: text`"),
        ("CREATE TABLE t (k BLOB PRIMARY KEY, v TEXT) STRICT", "set `values: text`"),
        ("CREATE TABLE t (k BLOB PRIMARY KEY, v, must NOT NULL)", "\"must\" is NOT NULL"),
        (
            "CREATE TABLE t (a NOT NULL, b NOT NULL, k UNIQUE, v, PRIMARY KEY (a, b))",
            "\"a\" is NOT NULL",
        ),
        ("CREATE TABLE t (uid TEXT PRIMARY KEY, k BLOB UNIQUE, v)", "part of the primary key"),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY DESC, k BLOB UNIQUE, v)",
            "part of the primary key",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, k BLOB UNIQUE, v) WITHOUT ROWID",
            "\"id\" is NOT NULL",
        ),
        ("CREATE TABLE t (k BLOB PRIMARY KEY, w, v AS (w))", "computes its column"),
        ("CREATE TABLE t (k PRIMARY KEY, v); INSERT INTO t VALUES ('text', 1)", "set `keys: text`"),
        (
            "CREATE TABLE t (k PRIMARY KEY, v); INSERT INTO t VALUES (x'00', 1), (5, 1)",
            "type integer",
        ),
        (
            "CREATE TABLE t (k PRIMARY KEY, v); INSERT INTO t VALUES (x'00', 1), (NULL, 1)",
            "type null",
        ),
        ("PRAGMA encoding = 'UTF-16'; CREATE TABLE t (k BLOB PRIMARY KEY, v)", "UTF-16"),
    ] {
        let folder = Folder::new();
        folder.foreign_did(sql);
        let error = refusal(SqliteConfig { create: false, ..folder.plain() }).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{sql}: {error:?}");
        assert!(error.message().contains(words), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_column_in_another_order_works_by_an_index_in_bytewise_order() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (k TEXT COLLATE NOCASE, v); CREATE UNIQUE INDEX i ON t (k COLLATE BINARY);",
    );
    let store = open(SqliteConfig { keys: Keys::Text, ..folder.plain() }).await;
    let _ = store.write(Batch::new().put("a", "1").put("B", "2").put("A", "3")).await.unwrap();
    let _ = store.delete("A").await.unwrap();
    let keys: Vec<_> = all(&store, Scan::all()).await.into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["B", "a"]);
    assert_eq!(store.get(b"A").await.unwrap(), None);
}

#[tokio::test]
async fn every_query_finds_its_rows_by_an_index() {
    let folder = Folder::new();
    folder.foreign_did("CREATE TABLE t (k BLOB PRIMARY KEY, v);");
    for config in [folder.config(), folder.plain()] {
        let store = open(SqliteConfig { journal: Some(Journal::Rollback), ..config.clone() }).await;
        store.close().await.unwrap();
        let layout = Layout::new(&config);
        let range = Scan::range("a".."b");
        let mut queries = vec![layout.get.clone(), layout.delete.clone()];
        for scan in [range.clone(), range.reverse()] {
            queries.push(layout.scan(&scan, &layout.key.range(&scan).unwrap()));
        }
        queries.extend(layout.expired.iter().flat_map(|e| [e.any.clone(), e.delete.clone()]));
        let db = folder.foreign();
        for sql in queries {
            let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let count = statement.parameter_count();
            for at in 1..=count {
                statement.raw_bind_parameter(at, 1).unwrap();
            }
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next().unwrap() {
                let step: String = row.get(3).unwrap();
                assert!(step.starts_with("SEARCH"), "{sql}: {step}");
            }
        }
    }
}

#[tokio::test]
async fn keys_and_values_of_text_are_read_and_written_as_text() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT) STRICT; INSERT INTO t VALUES ('1', 'one'), ('é', '');",
    );
    let config = SqliteConfig { keys: Keys::Text, values: Storage::Text, ..folder.plain() };
    let store = open(config).await;
    assert_eq!(store.get(b"1").await.unwrap(), Some("one".into()));
    let _ = store.write(Batch::new().put("2", "two").put("é", "e")).await.unwrap();
    let found = all(&store, Scan::range("1"..)).await;
    let found: Vec<_> = found.iter().map(|entry| entry.key.as_ref()).collect();
    assert_eq!(found, [b"1".as_slice(), b"2", "é".as_bytes()]);
    let texts = "SELECT count(*) FROM t WHERE typeof(k) = 'text' AND typeof(v) = 'text'";
    assert_eq!(number(&folder.foreign(), texts), 3);

    for batch in [
        Batch::new().put("fine", "fine").put(&b"\xff"[..], "fine"),
        Batch::new().put("fine", "fine").put("fine too", &b"\xff"[..]),
    ] {
        let error = store.write(batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains(": text`"), "{error}");
    }
    assert_eq!(store.get(b"\xff").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(store.get(b"fine").await.unwrap(), None, "nothing half done");
}

#[tokio::test]
async fn cells_that_are_no_key_value_or_time_are_errors_that_say_so() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (k PRIMARY KEY, v, e);
         INSERT INTO t VALUES (x'01', NULL, NULL), (x'02', 5, NULL), (x'03', 1.5, NULL),
                              (x'05', x'00', NULL);",
    );
    let columns = Columns { expires: Some("e".into()), ..columns("k", "v") };
    let store = open(SqliteConfig { columns, ..folder.plain() }).await;
    folder.foreign_did("INSERT INTO t VALUES (x'04', x'00', 'tomorrow')");
    for (key, words) in [(1u8, "NULL"), (2, "INTEGER"), (3, "REAL"), (4, "TEXT")] {
        for error in [
            store.get(&[key]).await.unwrap_err(),
            store.get_many(&[Bytes::from(vec![key])]).await.unwrap_err(),
            store.collect(Scan::range([key]..)).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error:?}");
            assert!(error.message().contains(words), "{error}");
        }
    }
    assert_eq!(all(&store, Scan::range([5u8]..)).await.len(), 1, "the others stay readable");
    // A program that adds a key of another kind later is found out by a scan that comes there.
    folder.foreign_did("INSERT INTO t VALUES ('text', x'00', NULL)");
    let error = store.collect(Scan::all()).await.unwrap_err();
    assert!(error.message().contains("a key that is TEXT"), "{error}");
    folder.foreign_did("DELETE FROM t; INSERT INTO t VALUES (x'', x'00', NULL)");
    let error = store.collect(Scan::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("0 bytes"), "{error}");
}

#[tokio::test]
async fn a_column_that_is_dropped_meanwhile_is_an_error_and_no_value() {
    let folder = Folder::new();
    folder
        .foreign_did("CREATE TABLE t (k BLOB PRIMARY KEY, v); INSERT INTO t VALUES (x'61', x'00')");
    let store = open(folder.plain()).await;
    assert!(store.get(b"a").await.unwrap().is_some());
    folder.foreign_did("ALTER TABLE t DROP COLUMN v");
    assert_eq!(store.get(b"a").await.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(store.put("a", "1").await.unwrap_err().kind(), ErrorKind::Config);
    folder.foreign_did("DROP TABLE t");
    assert_eq!(store.collect(Scan::all()).await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn the_journal_mode_of_others_changes_only_when_asked() {
    let folder = Folder::new();
    folder.foreign_did("CREATE TABLE t (k BLOB PRIMARY KEY, v)");
    let error = refusal(folder.plain_wal()).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("`journal: wal`"), "{error}");

    let wal = SqliteConfig { journal: Some(Journal::Wal), ..folder.plain() };
    open(wal).await.close().await.unwrap();
    open(folder.plain_wal()).await.close().await.unwrap();
    let error = refusal(folder.plain()).await;
    assert!(error.message().contains("leave `journal` out"), "{error}");
}

#[tokio::test]
async fn a_table_made_by_a_newer_tierstack_is_refused() {
    let folder = Folder::new();
    let schema = folder.config().schema();
    folder.foreign_did("PRAGMA journal_mode = WAL");
    folder.foreign_did(&schema.replace("tierstack 1", "tierstack 2"));
    let error = refusal(folder.config()).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("version 2"), "{error}");
}

#[tokio::test]
async fn what_the_schema_prints_is_what_is_made() {
    let folder = Folder::new();
    open(folder.config()).await.close().await.unwrap();
    let other = Folder::new();
    other.foreign_did(&folder.config().schema());
    let made = |folder: &Folder| -> Vec<String> {
        let db = folder.foreign();
        let mut all = db.prepare("SELECT sql FROM sqlite_schema WHERE sql NOT NULL").unwrap();
        let rows = all.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert_eq!(made(&folder), made(&other));
    let refused = folder
        .foreign()
        .execute("INSERT INTO entries VALUES ('text', NULL, 1, 1, x'00')", [])
        .unwrap_err();
    assert!(refused.to_string().contains("CHECK"), "{refused}");
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
    let good = || SqliteConfig::new("x");
    for (config, words) in [
        (SqliteConfig::new(""), "`path`"),
        (SqliteConfig { table: String::new(), ..good() }, "`table`"),
        (SqliteConfig { columns: columns("k", "K"), ..good() }, "same column"),
        (SqliteConfig { columns: columns("k", "v\0"), ..good() }, "`columns.value`"),
        (SqliteConfig { busy_timeout: Span(Duration::from_secs(7200)), ..good() }, "1h"),
        (SqliteConfig { sync: false, journal: Some(Journal::Rollback), ..good() }, "`sync: false`"),
        (
            SqliteConfig {
                columns: Columns { expires_unit: ExpiresUnit::Seconds, ..columns("k", "v") },
                ..good()
            },
            "`columns.expires` names none",
        ),
        (SqliteConfig { columns: columns("k", "v"), sweep: Some(true), ..good() }, "`sweep: true`"),
    ] {
        let error = config.profile().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(words), "{error}");
    }
}

/// SQLite puts the log next to what a link leads to.
#[cfg(unix)]
#[tokio::test]
async fn a_database_behind_a_link_has_its_log_where_the_file_is() {
    let (folder, links) = (Folder::new(), Folder::new());
    std::fs::create_dir(folder.0.path().join("real")).unwrap();
    let real = folder.0.path().join("real/data.db");
    std::os::unix::fs::symlink(&real, links.path()).unwrap();
    // The first time the link leads to nothing yet.
    for value in ["1", "2"] {
        let store = open(SqliteConfig { sync: false, ..links.config() }).await;
        // Other bytes than those that are there, which SQLite would not write again.
        let _ = store.put("k", value.repeat(100_000)).await.unwrap();
        let _ = store.put("l", value).await.unwrap();
        let log = store.base.site.log();
        assert_eq!(log.parent(), std::fs::canonicalize(&real).unwrap().parent());
        assert!(log_bytes(&real) > 100_000, "what `flush` syncs is there");
        store.flush().await.unwrap();
        let stored = store.usage().await.unwrap().stored_bytes.unwrap();
        assert_eq!(stored, std::fs::metadata(&real).unwrap().len() + log_bytes(&real));
        store.close().await.unwrap();
    }
    let store = open(links.config()).await;
    assert_eq!(store.get(b"l").await.unwrap(), Some("2".into()));
    // The link leads elsewhere: what is written now would be looked for there.
    open(folder.config()).await.close().await.unwrap();
    std::fs::remove_file(links.path()).unwrap();
    std::os::unix::fs::symlink(folder.path(), links.path()).unwrap();
    assert_eq!(store.put("k", "3").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn nothing_is_made_where_that_was_not_asked() {
    let folder = Folder::new();
    for config in [
        SqliteConfig { create: false, ..folder.config() },
        SqliteConfig { read_only: true, ..folder.config() },
    ] {
        assert_eq!(refusal(config).await.kind(), ErrorKind::Config);
        assert!(!folder.path().exists());
    }
    std::fs::write(folder.0.path().join("dat.db"), "").unwrap();
    let error = refusal(SqliteConfig { create: false, ..folder.config() }).await;
    assert!(error.message().contains("did you mean 'dat.db'?"), "{error}");
    let error = refusal(SqliteConfig::new(folder.0.path())).await;
    assert!(error.message().contains("not its folder"), "{error}");
    // By itself, SQLite would take it for a URI.
    let path = open::Site::new(&SqliteConfig::new("file:x?mode=memory")).unwrap().log();
    assert!(path.is_absolute() && path.ends_with("file:x?mode=memory-wal"), "{path:?}");
}

#[tokio::test]
async fn what_only_reads_makes_nothing() {
    let folder = Folder::new();
    let reading = crate::layer::Context { may_create: false, ..Default::default() };
    let error = folder.config().open(&reading).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(!folder.path().exists());
    // A file without a table, as a program makes it that has got no further.
    for sql in ["", "CREATE TABLE entry (key BLOB PRIMARY KEY, value)"] {
        folder.foreign_did(sql);
        let before = std::fs::read(folder.path()).unwrap();
        let error = folder.config().open(&reading).await.map(drop).unwrap_err();
        assert!(error.message().contains("there is no table \"entries\""), "{error}");
        assert_eq!(std::fs::read(folder.path()).unwrap(), before);
    }
}

#[tokio::test]
async fn the_identity_is_that_of_the_file_and_the_table() {
    let folder = Folder::new();
    let identity = async |config: SqliteConfig| {
        let store = open(config).await;
        let identity = store.identity().unwrap();
        store.close().await.unwrap();
        identity
    };
    let first = identity(folder.config()).await;
    assert_eq!(identity(folder.config()).await, first);
    assert_eq!(identity(SqliteConfig { read_only: true, ..folder.config() }).await, first);
    assert_ne!(identity(SqliteConfig { table: "other".into(), ..folder.config() }).await, first);
    let copy = Folder::new();
    std::fs::copy(folder.path(), copy.path()).unwrap();
    assert_ne!(identity(copy.config()).await, first);
    #[cfg(unix)]
    {
        let links = Folder::new();
        std::os::unix::fs::symlink(folder.path(), links.path()).unwrap();
        assert_eq!(identity(links.config()).await, first);
    }
}

#[tokio::test]
async fn what_has_expired_stays_where_nothing_runs_by_itself() {
    let folder = Folder::new();
    let clock = ManualClock::new();
    for (background, left) in [(false, 3), (true, 2)] {
        let context = crate::layer::Context {
            clock: Arc::new(clock.clone()),
            background,
            ..Default::default()
        };
        let store = folder.config().open(&context).await.unwrap();
        let soon = Value::new("v").expiring_at(clock.now() + Duration::from_secs(1));
        let _ = store.put("k", soon).await.unwrap();
        let _ = store.put("other", "1").await.unwrap();
        clock.advance(Duration::from_secs(5));
        let _ = store.put("l", "1").await.unwrap();
        store.close().await.unwrap();
        assert_eq!(number(&folder.foreign(), "SELECT count(*) FROM entries"), left);
    }
}

#[tokio::test]
async fn a_store_for_reading_only_reads_and_refuses_to_write() {
    let folder = Folder::new();
    let store = open(folder.config()).await;
    let _ = store.put("k", "v").await.unwrap();
    let reading = SqliteConfig { read_only: true, ..folder.config() };
    let guarantees = reading.profile().unwrap();
    let reader = open(reading).await;
    assert_eq!(reader.profile(), guarantees);
    assert!(!guarantees.guarantees.writable);
    assert_eq!(reader.get(b"k").await.unwrap(), Some("v".into()));
    let frozen = reader.snapshot().await.unwrap();
    let _ = store.put("k", "w").await.unwrap();
    assert_eq!(reader.get(b"k").await.unwrap(), Some("w".into()), "concurrently with a writer");
    assert_eq!(frozen.get(b"k").await.unwrap(), Some("v".into()));
    assert_eq!(reader.put("k", "x").await.unwrap_err().kind(), ErrorKind::Access);
    assert_eq!(reader.compact().await.unwrap_err().kind(), ErrorKind::Access);
    drop(frozen);
    reader.flush().await.unwrap();
    reader.close().await.unwrap();
    store.close().await.unwrap();
}
