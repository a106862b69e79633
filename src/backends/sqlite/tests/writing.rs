//! Writes: groups, locks, expiry, the log.

use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::*;
use crate::clock::{Clock, Timestamp};

#[tokio::test]
async fn created_stays_and_updated_follows_the_writes() {
    let folder = Folder::new();
    let clock = ManualClock::new();
    let store = open_at(folder.config(), &clock).await;
    let stamps = || {
        folder
            .foreign()
            .query_row("SELECT created, updated FROM entries", [], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
            })
            .unwrap()
    };
    let first = clock.now();
    let _ = store.put("k", "1").await.unwrap();
    assert_eq!(stamps(), (first.as_millis(), first.as_millis()));
    clock.advance(Duration::from_millis(5));
    let soon = clock.now() + Duration::from_millis(5);
    let _ = store.put("k", Value::new("2").expiring_at(soon)).await.unwrap();
    assert_eq!(stamps(), (first.as_millis(), clock.now().as_millis()));
    clock.advance(Duration::from_millis(5));
    assert_eq!(store.get(b"k").await.unwrap(), None);
    let _ = store.put("k", "3").await.unwrap();
    let now = clock.now().as_millis();
    assert_eq!(stamps(), (now, now), "what takes the place of an expired entry is new");
}

/// Transactions in the log of a database: with `sync`, each is an fsync.
fn transactions(folder: &Folder) -> usize {
    let log = std::fs::read(folder.path().with_extension("db-wal")).unwrap();
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let frame = 24 + number(8) as usize;
    let frames = (32..log.len()).step_by(frame).take_while(|at| at + frame <= log.len());
    // The last frame of a transaction holds the size of the database. Others are left over from before.
    frames.filter(|at| log[at + 8..at + 16] == log[16..24] && number(at + 4) > 0).count()
}

#[tokio::test]
async fn a_group_is_one_transaction() {
    let put = |n: u32| Batch::new().put(n.to_string(), "v");
    for sync in [true, false] {
        let folder = Folder::new();
        let store = open(SqliteConfig { sync, ..folder.config() }).await;
        let _ = store.put("first", "v").await.unwrap();
        let before = transactions(&folder);
        let answers = store.write_group((0..64).map(put).collect()).await;
        assert!(answers.len() == 64 && answers.iter().all(Result::is_ok));
        assert_eq!(transactions(&folder), before + 1);

        // A batch that is refused takes those behind it with it, and none before it.
        let mut group: Vec<_> = (100..110).map(put).collect();
        group.insert(5, Batch::new().put("new", "v").put("0", "v").if_absent());
        let answers = store.write_group(group).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
        assert_eq!(transactions(&folder), before + 2);
        assert_eq!(store.get(b"104").await.unwrap(), Some("v".into()));
        for key in ["new", "105", "109"] {
            assert_eq!(store.get(key.as_bytes()).await.unwrap(), None);
        }
        store.close().await.unwrap();
    }
}

/// Some failures make SQLite roll back the whole transaction, with what the batches before did.
#[tokio::test]
async fn what_ends_the_transaction_leaves_the_batches_before_it() {
    for ends in ["ABORT", "FAIL", "ROLLBACK"] {
        let folder = Folder::new();
        folder.foreign_did(&format!(
            "CREATE TABLE t (k BLOB PRIMARY KEY, v);
             CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.v = x'6e6f'
             BEGIN SELECT RAISE({ends}, 'no'); END"
        ));
        let store = open(folder.plain()).await;
        let mut group: Vec<_> = (0..6)
            .map(|n| Batch::new().put(format!("a{n}"), "v").put(format!("b{n}"), "v"))
            .collect();
        group.insert(3, Batch::new().put("c", "v").put("d", "no"));
        let answers = store.write_group(group).await;
        let written = answers.iter().map(Result::is_ok).collect::<Vec<_>>();
        assert_eq!(written, [true, true, true, false, false, false, false], "{ends}");
        assert_eq!(answers[4].as_ref().unwrap_err().kind(), crate::ErrorKind::Aborted);
        assert_eq!(store.get(b"b2").await.unwrap(), Some("v".into()), "{ends}");
        for key in ["c", "a3", "b5"] {
            assert_eq!(store.get(key.as_bytes()).await.unwrap(), None, "{ends}");
        }
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_refused_takes_no_other_with_it() {
    let folder = Folder::new();
    folder.foreign_did("CREATE TABLE t (k BLOB PRIMARY KEY, v CHECK (length(v) < 5))");
    let store = Arc::new(open(folder.plain()).await);
    // Behind a lock they gather into one group.
    let foreign = folder.foreign();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut tasks = JoinSet::new();
    for n in 0..60u8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let second = if n % 3 == 0 { "too long" } else { "fine" };
            let batch = Batch::new().put(vec![n, 0], "fine").put(vec![n, 1], second);
            let batch = if n % 3 == 1 { batch.if_absent() } else { batch };
            (n, store.write(batch).await.map(drop))
        });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    foreign.execute_batch("INSERT INTO t VALUES (x'0401', x'00'); COMMIT").unwrap();
    while let Some(done) = tasks.join_next().await {
        let (n, result) = done.unwrap();
        let keys = [Bytes::from(vec![n, 0]), Bytes::from(vec![n, 1])];
        let there = store.get_many(&keys).await.unwrap().iter().flatten().count();
        match n {
            4 => {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
                assert_eq!(there, 1, "only what somebody else put");
            }
            n if n % 3 == 0 => {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
                assert_eq!(there, 0, "nothing half done");
            }
            _ => {
                result.unwrap();
                assert_eq!(there, 2);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_given_up_does_not_come_after_later_ones() {
    let folder = Folder::new();
    for sync in [true, false] {
        let store = open(SqliteConfig { sync, ..folder.config() }).await;
        let foreign = folder.foreign();
        foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut first = Box::pin(store.put("first", "1"));
        let mut given_up = Box::pin(store.put("given up", "1"));
        assert!(futures_util::poll!(&mut first).is_pending());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        foreign.execute_batch("COMMIT").unwrap();
        let _ = first.await.unwrap();
        let _ = store.put("later", "1").await.unwrap();
        assert_eq!(store.get(b"given up").await.unwrap(), None);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_held_for_too_long_makes_writes_unavailable_and_nothing_is_written() {
    let folder = Folder::new();
    for sync in [true, false] {
        let store = open(impatient(SqliteConfig { sync, ..folder.config() })).await;
        let _ = store.put("k", "before").await.unwrap();
        let foreign = folder.foreign();
        foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
        let writes = (0..20).map(|n| store.put(format!("locked-{n}"), "1"));
        for refused in join_all(writes).await {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        }
        assert_eq!(store.get(b"k").await.unwrap(), Some("before".into()));
        foreign.execute_batch("COMMIT").unwrap();
        let _ = store.put("k", "after").await.unwrap();
        assert_eq!(all(&store, Scan::all()).await.len(), 1);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn expired_entries_are_removed_by_later_writes() {
    let folder = Folder::new();
    let clock = ManualClock::new();
    for sync in [true, false] {
        let store = open_at(SqliteConfig { sync, ..folder.config() }, &clock).await;
        for round in 0..5u8 {
            let soon = clock.now() + Duration::from_secs(1);
            let puts = (0..100u8)
                .map(|n| Op::Put(vec![round, n].into(), Value::new("v").expiring_at(soon)));
            let _ = store.write(puts.collect()).await.unwrap();
            let far = Value::new("v").expiring_at(Timestamp::from_millis(u64::MAX));
            let _ = store.put("stays", far).await.unwrap();
            clock.advance(Duration::from_secs(2));
        }
        let _ = store.put("sweeps", "1").await.unwrap();
        let left = number(&folder.foreign(), "SELECT count(*) FROM entries");
        assert_eq!(left, 2, "all that is left: what stays, and what swept");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn compact_removes_what_has_expired_from_tables_without_an_index() {
    let folder = Folder::new();
    folder.foreign_did("CREATE TABLE t (k BLOB PRIMARY KEY, v, e)");
    let clock = ManualClock::new();
    let columns = Columns { expires: Some("e".into()), ..columns("k", "v") };
    let config = SqliteConfig { columns, sweep: Some(true), ..folder.plain() };
    let store = open_at(config, &clock).await;
    let soon = clock.now() + Duration::from_secs(1);
    let put = |n: u32| {
        let value = Value::new("v");
        let value = if n.is_multiple_of(3) { value } else { value.expiring_at(soon) };
        Op::Put(n.to_be_bytes().to_vec().into(), value)
    };
    let _ = store.write((0..4500).map(put).collect()).await.unwrap();
    clock.advance(Duration::from_secs(2));
    let _ = store.put("sweeps", "nothing").await.unwrap();
    let count = || number(&folder.foreign(), "SELECT count(*) FROM t");
    assert_eq!(count(), 4501);
    store.compact().await.unwrap();
    assert_eq!(count(), 1501);
    assert_eq!(all(&store, Scan::all()).await.len(), 1501);
}

#[tokio::test]
async fn the_log_stays_small_and_compact_gives_space_back() {
    let folder = Folder::new();
    let store = open(SqliteConfig { sync: false, ..folder.config() }).await;
    for n in 0..6000u32 {
        let _ = store.put(n.to_be_bytes().to_vec(), vec![7; 2000]).await.unwrap();
    }
    let log = log_bytes(&folder.path());
    assert!((1..16 << 20).contains(&log), "the log has {log} bytes after 12 MB of writes");
    let full = store.usage().await.unwrap().stored_bytes.unwrap();
    assert!(full > 12_000_000, "{full}");
    for n in 0..6000u32 {
        let _ = store.delete(n.to_be_bytes().to_vec()).await.unwrap();
    }
    store.compact().await.unwrap();
    let less = store.usage().await.unwrap().stored_bytes.unwrap();
    assert!(less < 1_000_000, "{less} of {full} bytes are left");
}

#[tokio::test]
async fn a_run_is_loaded_in_few_transactions_and_a_wrong_one_is_refused() {
    let folder = Folder::new();
    let store = open(folder.config()).await;
    let page = |from: u32| {
        let entries = (from..from + 1000)
            .map(|n| Entry { key: n.to_be_bytes().to_vec().into(), value: vec![7; 1000].into() });
        Ok(crate::Page { entries: entries.collect() })
    };
    let run = futures_util::stream::iter((0..20).map(|n| page(n * 1000))).boxed();
    assert_eq!(store.load(run).await.unwrap(), 20_000);
    assert_eq!(all(&store, Scan::all()).await.len(), 20_000);
    assert!(log_bytes(&folder.path()) < 32 << 20);
    let backwards = futures_util::stream::iter([page(1000), page(0)]).boxed();
    assert_eq!(store.ingest(backwards).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_more_is_acknowledged() {
    let folder = Folder::new();
    let store = open(SqliteConfig { sync: false, ..folder.config() }).await;
    let _ = store.put("k", "v").await.unwrap();
    store.writer().unwrap().fail_sync();
    assert_eq!(store.put("k", "w").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.flush().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()), "reads go on");
    assert_eq!(store.close().await.unwrap_err().kind(), ErrorKind::Closed);
    store.close().await.unwrap();
}
