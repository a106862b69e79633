//! Columns of times that other programs have written.

use super::*;
use crate::clock::{Clock, Timestamp};

/// The settings for a table `t` with the columns `k`, `v` and `e`.
fn expiring(folder: &Folder, unit: ExpiresUnit) -> SqliteConfig {
    let columns = Columns { expires: Some("e".into()), expires_unit: unit, ..columns("k", "v") };
    SqliteConfig { columns, create: false, ..folder.plain() }
}

const SECONDS: ExpiresUnit = ExpiresUnit::Seconds;
const MILLIS: ExpiresUnit = ExpiresUnit::Milliseconds;

#[tokio::test]
async fn times_that_do_not_look_like_the_unit_are_refused() {
    for (unit, value, words) in [
        (
            MILLIS,
            "1700000000",
            "look like seconds, not milliseconds; set `columns.expires_unit: seconds`",
        ),
        (
            SECONDS,
            "1700000000123",
            "look like milliseconds, not seconds; set `columns.expires_unit: milliseconds`",
        ),
        (MILLIS, "1700000000123456", "microseconds"),
        (SECONDS, "1700000000123456789", "nanoseconds"),
        (MILLIS, "0", "NULL means"),
        (MILLIS, "3600", "before the year 2000"),
        (SECONDS, "3600", "before the year 2000"),
        (SECONDS, "-1", "before the year 2000"),
        (MILLIS, "'2026-01-01 00:00:00'", "TEXT, but milliseconds are INTEGER"),
        (MILLIS, "1700000000123.5", "REAL, but milliseconds are INTEGER"),
    ] {
        for index in ["", "CREATE INDEX i ON t (e);", "CREATE INDEX i ON t (e, v);"] {
            let folder = Folder::new();
            folder.foreign_did(&format!(
                "CREATE TABLE t (k BLOB PRIMARY KEY, v, e); {index}
                 INSERT INTO t VALUES (x'61', x'00', NULL), (x'62', x'00', {value}), (x'63', x'00', NULL)"
            ));
            let error = refusal(expiring(&folder, unit)).await;
            assert_eq!(error.kind(), ErrorKind::Config, "{value}: {error:?}");
            assert!(error.message().contains(words), "{value}: {error}");
            assert_eq!(number(&folder.foreign(), "SELECT count(*) FROM t"), 3);
        }
    }
}

#[tokio::test]
async fn an_index_finds_a_wrong_time_among_many_right_ones() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (k BLOB PRIMARY KEY, v, e INTEGER); CREATE INDEX i ON t (e);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO t SELECT CAST(printf('%05d', i) AS BLOB), x'00', 1700000000000 + i FROM n;
         UPDATE t SET e = 1700000000 WHERE k = CAST('01500' AS BLOB);",
    );
    assert!(refusal(expiring(&folder, MILLIS)).await.message().contains("seconds"));
    folder.foreign_did("UPDATE t SET e = 9223372036854775807 WHERE e = 1700000000");
    let store = open(expiring(&folder, MILLIS)).await;
    let never = store.get(b"01500").await.unwrap().unwrap();
    assert_eq!(never.expires_at, Some(Timestamp::from_millis(i64::MAX as u64)));
}

#[tokio::test]
async fn stamps_of_another_unit_are_refused_as_others_would_misread_ours() {
    for (value, words) in [("1700000000", "seconds"), ("'2026-01-01'", "TEXT")] {
        let folder = Folder::new();
        folder.foreign_did(&format!(
            "CREATE TABLE t (k BLOB PRIMARY KEY, v, at DATETIME);
             INSERT INTO t VALUES (x'61', x'00', {value})"
        ));
        let columns = Columns { updated: Some("at".into()), ..columns("k", "v") };
        let error = refusal(SqliteConfig { columns, ..folder.plain() }).await;
        assert!(error.message().contains(words), "{error}");
        assert!(error.message().contains("leave `columns.updated` out"), "{error}");
    }
}

#[tokio::test]
async fn a_table_in_seconds_is_read_and_written_in_seconds() {
    for declared in ["INTEGER", "REAL", ""] {
        let folder = Folder::new();
        let clock = ManualClock::new();
        let now = i64::try_from(clock.now().as_millis() / 1000).unwrap();
        folder.foreign_did(&format!(
            "CREATE TABLE t (k BLOB PRIMARY KEY, v, e {declared}); CREATE INDEX i ON t (e);
             INSERT INTO t VALUES (x'61', x'00', {}), (x'62', x'00', {}), (x'63', x'00', NULL)",
            now - 1,
            now + 60
        ));
        let store = open_at(expiring(&folder, SECONDS), &clock).await;
        let keys: Vec<_> = all(&store, Scan::all()).await.into_iter().map(|e| e.key).collect();
        assert_eq!(keys, ["b", "c"], "what has expired is passed by");
        let at = clock.now() + Duration::from_millis(1500);
        let _ = store.put("d", Value::new("v").expiring_at(at)).await.unwrap();
        let read = store.get(b"d").await.unwrap().unwrap().expires_at.unwrap();
        assert_eq!(read.as_millis() % 1000, 0);
        assert!(read >= at && read.since(at) < Duration::from_secs(1), "{read} for {at}");
        let cell = "SELECT e FROM t WHERE k = x'64'";
        let cell: f64 = folder.foreign().query_row(cell, [], |row| row.get(0)).unwrap();
        assert!((cell - read.as_millis() as f64 / 1000.0).abs() < 0.5, "{cell}");
        clock.advance(Duration::from_secs(3));
        assert_eq!(store.get(b"d").await.unwrap(), None);
        let _ = store.write(Batch::new().put("d", "new").if_absent()).await.unwrap();
    }
}

#[tokio::test]
async fn rows_of_others_are_removed_only_if_the_settings_say_so() {
    for (sweep, left) in [(None, 3), (Some(false), 3), (Some(true), 2)] {
        let folder = Folder::new();
        let clock = ManualClock::new();
        folder.foreign_did(
            "CREATE TABLE t (k BLOB PRIMARY KEY, v, e INTEGER); CREATE INDEX i ON t (e);
             INSERT INTO t VALUES (x'61', x'00', 1600000000), (x'62', x'00', NULL)",
        );
        let config = SqliteConfig { sweep, ..expiring(&folder, SECONDS) };
        let store = open_at(config, &clock).await;
        for _ in 0..3 {
            clock.advance(Duration::from_secs(5));
            let _ = store.put("new", "1").await.unwrap();
        }
        store.compact().await.unwrap();
        assert_eq!(number(&folder.foreign(), "SELECT count(*) FROM t"), left, "{sweep:?}");
        assert_eq!(all(&store, Scan::all()).await.len(), 2, "what has expired is passed by");
    }
}

#[tokio::test]
async fn rows_of_a_table_made_here_stay_if_the_settings_say_so() {
    let folder = Folder::new();
    let clock = ManualClock::new();
    for (sweep, left) in [(Some(false), 2), (None, 1)] {
        let store = open_at(SqliteConfig { sweep, ..folder.config() }, &clock).await;
        let soon = Value::new("v").expiring_at(clock.now() + Duration::from_secs(1));
        let _ = store.put("k", soon).await.unwrap();
        clock.advance(Duration::from_secs(5));
        let _ = store.put("l", "1").await.unwrap();
        store.compact().await.unwrap();
        assert_eq!(number(&folder.foreign(), "SELECT count(*) FROM entries"), left, "{sweep:?}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_table_made_here_in_another_unit_is_refused() {
    let folder = Folder::new();
    let columns = Columns { expires_unit: SECONDS, ..Columns::default() };
    let seconds = SqliteConfig { columns, ..folder.config() };
    assert!(seconds.schema().contains("\"expires\" INTEGER, -- seconds since 1970"));
    let clock = ManualClock::new();
    let store = open_at(seconds.clone(), &clock).await;
    let hour = Value::new("v").expiring_at(clock.now() + Duration::from_secs(3600));
    let _ = store.put("k", hour).await.unwrap();
    store.close().await.unwrap();
    let error = refusal(folder.config()).await;
    assert!(error.message().contains("set `columns.expires_unit: seconds`"), "{error}");
    let store = open_at(seconds, &clock).await;
    assert!(store.get(b"k").await.unwrap().is_some());
}
