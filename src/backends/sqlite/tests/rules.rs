//! Rules that a table of others has: triggers, foreign keys, conflicts in other columns.

use super::*;
use crate::clock::Clock;

async fn is_refused(store: &Sqlite, batch: Batch) {
    let error = store.write(batch).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
}

#[tokio::test]
async fn what_a_trigger_passes_over_in_silence_is_an_error() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (k BLOB PRIMARY KEY, v);
         INSERT INTO t VALUES (x'6b', x'31');
         CREATE TRIGGER a BEFORE INSERT ON t WHEN new.k = x'62' BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER b BEFORE DELETE ON t BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER c BEFORE UPDATE ON t WHEN new.v = x'78' BEGIN SELECT RAISE(IGNORE); END;",
    );
    let store = open(folder.plain()).await;
    for other in [Batch::new(), Batch::new().put("other", "1")] {
        is_refused(&store, other.clone().put("b", "1")).await;
        is_refused(&store, other.clone().delete("k")).await;
        is_refused(&store, other.put("k", "x")).await;
    }
    assert_eq!(all(&store, Scan::all()).await.len(), 1);
    // What is not there can be deleted.
    let _ = store.write(Batch::new().put("k", "2").delete("none")).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("2".into()));
}

#[tokio::test]
async fn what_a_trigger_undoes_or_changes_is_an_error() {
    for (trigger, sync) in [
        ("AFTER INSERT ON t BEGIN DELETE FROM t WHERE k = new.k; END", true),
        ("AFTER INSERT ON t BEGIN UPDATE t SET v = x'00' WHERE k = new.k; END", true),
        ("AFTER INSERT ON t BEGIN UPDATE t SET v = NULL WHERE k = new.k; END", false),
        ("AFTER INSERT ON t BEGIN DELETE FROM t WHERE k = new.k; END", false),
    ] {
        let folder = Folder::new();
        folder.foreign_did("PRAGMA journal_mode = WAL; CREATE TABLE t (k BLOB PRIMARY KEY, v)");
        let store = open(SqliteConfig { sync, ..folder.plain_wal() }).await;
        let _ = store.write(Batch::new().put("k", "1").put("l", "1")).await.unwrap();
        // Made while the store is open: the next write finds it.
        folder.foreign_did(&format!("CREATE TRIGGER a {trigger}"));
        is_refused(&store, Batch::new().put("b", "1")).await;
        folder.foreign_did("DELETE FROM t WHERE k = x'62'");
        is_refused(&store, Batch::new().put("b", "1")).await;
        is_refused(&store, Batch::new().put("c", "1").delete("k")).await;
        assert_eq!(all(&store, Scan::all()).await.len(), 2, "{trigger}");
        // The trigger heeds new rows only.
        let _ = store.put("k", "2").await.unwrap();
        folder.foreign_did(
            "DROP TRIGGER a;
             CREATE TRIGGER a AFTER DELETE ON t BEGIN INSERT INTO t VALUES (old.k, old.v); END",
        );
        is_refused(&store, Batch::new().put("c", "1").delete("k")).await;
        is_refused(&store, Batch::new().delete("k")).await;
        folder.foreign_did("DROP TRIGGER a");
        let _ = store.write(Batch::new().put("c", "1").delete("k")).await.unwrap();
        assert_eq!(all(&store, Scan::all()).await.len(), 2, "{trigger}");
    }
}

/// As when a copy takes the place of the table.
#[tokio::test]
async fn a_table_that_takes_the_place_of_the_one_that_was_opened_is_looked_at_anew() {
    for sync in [true, false] {
        let folder = Folder::new();
        let clock = ManualClock::new();
        let store = open_at(SqliteConfig { sync, ..folder.config() }, &clock).await;
        let _ = store.put("k", "1").await.unwrap();
        folder.foreign_did(
            "DROP TABLE entries;
             CREATE TABLE entries (key BLOB PRIMARY KEY, value, expires, created, updated);
             CREATE INDEX i ON entries (expires);
             INSERT INTO entries VALUES (x'61', x'00', 1600000000000, 1600000000000, 1600000000000);",
        );
        for n in 0..4u8 {
            clock.advance(Duration::from_secs(5));
            let _ = store.write(Batch::new().put(vec![n], "1").put("x", "1")).await.unwrap();
            let _ = store.put("k", "2").await.unwrap();
        }
        store.compact().await.unwrap();
        let rows = "SELECT count(*) FROM entries WHERE key = x'61'";
        assert_eq!(number(&folder.foreign(), rows), 1, "a row of others was swept");
        folder
            .foreign_did("DROP TABLE entries; CREATE TABLE entries (key BLOB PRIMARY KEY, value)");
        let error = store.write(Batch::new().put("a", "1").put("b", "1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    }
}

#[tokio::test]
async fn what_a_trigger_refuses_late_is_not_written_either() {
    for how in ["ABORT", "FAIL", "ROLLBACK"] {
        let folder = Folder::new();
        folder.foreign_did(&format!(
            "CREATE TABLE t (k BLOB PRIMARY KEY, v);
             CREATE TRIGGER a AFTER INSERT ON t WHEN new.k <> x'6b' BEGIN SELECT RAISE({how}, 'no'); END;",
        ));
        let store = open(folder.plain()).await;
        is_refused(&store, Batch::new().put("b", "1")).await;
        is_refused(&store, Batch::new().put("k", "1").put("b", "1")).await;
        assert!(all(&store, Scan::all()).await.is_empty(), "{how}");
        let _ = store.put("k", "1").await.unwrap();
    }
}

/// Its transaction is the group's, so the others are written again without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_ends_the_transaction_takes_no_other_write_with_it() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (k BLOB PRIMARY KEY, v);
         CREATE TRIGGER a AFTER INSERT ON t WHEN new.v = x'62' BEGIN SELECT RAISE(ROLLBACK, 'no'); END;",
    );
    let store = Arc::new(open(folder.plain()).await);
    // Behind a lock they gather into one group.
    let foreign = folder.foreign();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writes: Vec<_> = (0..20u8)
        .map(|n| {
            let store = Arc::clone(&store);
            let value = if n % 7 == 3 { "b" } else { "a" };
            tokio::spawn(async move { (n, store.put(vec![n], value).await.map(drop)) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    foreign.execute_batch("COMMIT").unwrap();
    for write in writes {
        let (n, result) = write.await.unwrap();
        assert_eq!(result.is_ok(), n % 7 != 3, "{n}: {result:?}");
        assert_eq!(store.get(&[n]).await.unwrap().is_some(), n % 7 != 3, "{n}");
    }
}

#[tokio::test]
async fn a_conflict_in_another_column_loses_no_entry() {
    for how in ["IGNORE", "REPLACE", "FAIL", "ROLLBACK"] {
        let folder = Folder::new();
        folder.foreign_did(&format!(
            "CREATE TABLE t (k BLOB PRIMARY KEY, v UNIQUE ON CONFLICT {how});",
        ));
        let store = open(folder.plain()).await;
        let _ = store.put("a", "1").await.unwrap();
        is_refused(&store, Batch::new().put("b", "1")).await;
        is_refused(&store, Batch::new().put("c", "2").put("b", "1")).await;
        let _ = store.put("a", "1").await.unwrap();
        let there = all(&store, Scan::all()).await;
        assert_eq!(there.len(), 1, "{how}");
        assert_eq!(&there[0].key[..], b"a", "{how}");
    }
}

#[tokio::test]
async fn an_expired_row_that_the_table_keeps_fails_no_write() {
    for keeps in [
        "CREATE TABLE child (p BLOB REFERENCES t(k)); INSERT INTO child VALUES (x'61');",
        "CREATE TRIGGER a BEFORE DELETE ON t WHEN old.k = x'61' BEGIN SELECT RAISE(ROLLBACK, 'no'); END;",
    ] {
        let folder = Folder::new();
        folder.foreign_did(&format!(
            "CREATE TABLE t (k BLOB PRIMARY KEY, v, e INTEGER); CREATE INDEX i ON t (e);
             INSERT INTO t VALUES (x'61', x'31', 1600000000000), (x'62', x'31', 1600000000000); {keeps}"
        ));
        let config = SqliteConfig { sweep: Some(true), ..folder.plain() };
        let columns = Columns { expires: Some("e".into()), ..config.columns.clone() };
        let clock = ManualClock::new();
        let store = open_at(SqliteConfig { columns, ..config }, &clock).await;
        for n in 0..4u8 {
            clock.advance(Duration::from_secs(5));
            let _ = store.put(vec![n], "1").await.unwrap();
            let _ = store.write(Batch::new().put("x", "1").put(vec![n], "2")).await.unwrap();
        }
        assert_eq!(all(&store, Scan::all()).await.len(), 5);
        let rows = number(&folder.foreign(), "SELECT count(*) FROM t WHERE k = x'61'");
        assert_eq!(rows, 1);
        if keeps.contains("REFERENCES") {
            let rows = number(&folder.foreign(), "SELECT count(*) FROM t WHERE k = x'62'");
            assert_eq!(rows, 0, "what may go, goes");
            store.compact().await.unwrap();
        }
        let _ = store.put("a", "again").await.unwrap();
        assert!(clock.now().as_millis() > 1_600_000_000_000);
        assert_eq!(store.get(b"a").await.unwrap(), Some("again".into()));
    }
}

#[tokio::test]
async fn the_type_any_keeps_what_it_is_given_in_strict_tables_only() {
    let folder = Folder::new();
    folder.foreign_did("CREATE TABLE t (k ANY PRIMARY KEY, v BLOB)");
    let text = SqliteConfig { keys: Keys::Text, ..folder.plain() };
    assert!(refusal(text.clone()).await.message().contains("number"));
    folder.foreign_did("DROP TABLE t; CREATE TABLE t (k ANY PRIMARY KEY, v ANY) STRICT");
    let store = open(text).await;
    let _ = store.put("007", "1.0").await.unwrap();
    assert_eq!(store.get(b"007").await.unwrap(), Some("1.0".into()));
    assert_eq!(store.get(b"7").await.unwrap(), None);
}

/// As when somebody copies a backup over an open database by a rename.
#[tokio::test]
async fn nothing_is_acknowledged_into_a_file_that_was_replaced() {
    for sync in [true, false] {
        let (folder, other) = (Folder::new(), Folder::new());
        let store = open(SqliteConfig { sync, ..folder.config() }).await;
        let _ = store.put("k", "1").await.unwrap();
        open(other.config()).await.close().await.unwrap();
        std::fs::rename(other.path(), folder.path()).unwrap();
        let mut lost = 0;
        let error = loop {
            match store.put("k", "2").await {
                Ok(_) => lost += 1,
                Err(error) => break error,
            }
            assert!(lost < 50);
        };
        assert!(!sync || lost == 0, "{lost} were acknowledged");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.message().contains("replaced"), "{error}");
        // A new connection would answer from the other file.
        let reads = (0..20).map(|_| store.collect(Scan::all()));
        for read in futures_util::future::join_all(reads).await {
            match read {
                Ok(entries) => assert_eq!(entries.len(), 1),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
        }
    }
}

/// Reads that overlap without end keep the log from beginning again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn reads_without_a_pause_do_not_let_the_log_grow_without_end() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let folder = Folder::new();
    let store = open(SqliteConfig { sync: false, ..folder.config() }).await;
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (foreign, done) = (folder.foreign(), Arc::clone(&done));
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    foreign.execute_batch("BEGIN; SELECT count(*) FROM entries").unwrap();
                    std::thread::sleep(Duration::from_millis(3));
                    foreign.execute_batch("COMMIT").unwrap();
                }
            })
        })
        .collect();
    let mut most = 0;
    for n in 0..10_000u32 {
        let _ = store.put((n % 500).to_be_bytes().to_vec(), vec![1; 1000]).await.unwrap();
        if n % 100 == 0 {
            most = most.max(log_bytes(&folder.path()));
        }
    }
    done.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    assert!(most > 4 << 20 && most < 32 << 20, "the log had {most} bytes");
}
