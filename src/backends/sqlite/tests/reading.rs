//! Reads: inline and in threads, snapshots, scans, concurrently with other programs.

use super::*;

/// As if reads had taken long.
fn needs_the_disk(store: &Sqlite) {
    for _ in 0..2 {
        store.base.pace.took(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn a_get_of_what_is_in_memory_is_answered_at_once() {
    let folder = Folder::new();
    let store = open_at(folder.config(), &ManualClock::new()).await;
    let _ = store.put("k", "v").await.unwrap();
    assert!(matches!(store.get(b"k"), Reply::Now(Ok(Some(_)))));
    let keys = vec![Bytes::from("k"); 16];
    assert!(matches!(store.get_many(&keys), Reply::Now(Ok(_))));
    // When it takes long, the next ones go to threads.
    needs_the_disk(&store);
    let later = store.get(b"k");
    assert!(matches!(later, Reply::Later(_)));
    assert_eq!(later.await.unwrap(), Some("v".into()));
}

/// A cell that holds no value fails every read that looks at it.
#[tokio::test]
async fn a_scan_of_keys_only_looks_at_no_value() {
    let folder = Folder::new();
    let store = open_at(folder.config(), &ManualClock::new()).await;
    for key in ["a", "b", "c"] {
        let _ = store.put(key, "v").await.unwrap();
    }
    folder.foreign_did("UPDATE entries SET value = 7 WHERE key = x'62'");
    let frozen = store.snapshot().await.unwrap();
    for scan in [Scan::all(), Scan::all().reverse(), Scan::range("a".."c").page_entries(1)] {
        assert!(store.collect(scan.clone()).await.is_err());
        let found = all(&store, scan.clone().keys_only()).await;
        assert_eq!(found, all(&*frozen, scan.clone().keys_only()).await);
        assert!(found.iter().any(|entry| entry.key == "b"));
        assert!(reads_values(&store, &folder, &scan));
        assert!(!reads_values(&store, &folder, &scan.keys_only()));
    }
}

/// Whether the program that SQLite makes of a scan's statement takes the column of values from a row.
fn reads_values(store: &Sqlite, folder: &Folder, scan: &Scan) -> bool {
    let db = folder.foreign();
    let value = number(&db, "SELECT cid FROM pragma_table_info('entries') WHERE name = 'value'");
    let layout = &store.base.layout;
    let sql = layout.scan(scan, &layout.key.range(scan).unwrap());
    let mut explained = db.prepare(&format!("EXPLAIN {sql}")).unwrap();
    let bounds = rusqlite::params_from_iter(vec![0; explained.parameter_count()]);
    let step = |row: &rusqlite::Row<'_>| Ok((row.get(1)?, row.get(3)?));
    let mut steps = explained.query_map(bounds, step).unwrap();
    steps.any(|step| step.unwrap() == ("Column".to_owned(), value))
}

#[tokio::test]
async fn what_other_programs_write_is_seen_at_once() {
    let folder = Folder::new();
    let store = open(folder.config()).await;
    let put = "INSERT INTO entries VALUES (x'61', NULL, 1, 1, ?1)
               ON CONFLICT DO UPDATE SET value = excluded.value";
    let foreign = folder.foreign();
    for n in 0..50u8 {
        foreign.execute(put, [vec![n]]).unwrap();
        assert_eq!(store.get(b"a").await.unwrap(), Some(vec![n].into()));
        let _ = store.put("b", vec![n]).await.unwrap();
        let read = "SELECT value FROM entries WHERE key = x'62'";
        let seen: Vec<u8> = foreign.query_row(read, [], |row| row.get(0)).unwrap();
        assert_eq!(seen, [n]);
    }
}

#[tokio::test]
async fn reads_go_on_while_another_program_writes() {
    let folder = Folder::new();
    let store = open(folder.config()).await;
    let _ = store.put("k", "v").await.unwrap();
    let foreign = folder.foreign();
    foreign.execute_batch("BEGIN IMMEDIATE; DELETE FROM entries").unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
    assert_eq!(all(&store, Scan::all()).await.len(), 1);
    let frozen = store.snapshot().await.unwrap();
    foreign.execute_batch("COMMIT").unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), None);
    assert_eq!(frozen.get(b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn a_read_that_is_locked_out_for_too_long_is_unavailable() {
    let folder = Folder::new();
    folder
        .foreign_did("CREATE TABLE t (k BLOB PRIMARY KEY, v); INSERT INTO t VALUES (x'61', x'62')");
    let store = open(impatient(folder.plain())).await;
    let foreign = folder.foreign();
    foreign.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let errors = [
        store.get(b"a").await.unwrap_err(),
        store.get_many(&["a".into()]).await.unwrap_err(),
        store.collect(Scan::all()).await.unwrap_err(),
        store.put("a", "c").await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(error.retry(), crate::Retry::Later);
        assert!(error.message().contains("`busy_timeout`"), "{error}");
    }
    foreign.execute_batch("COMMIT").unwrap();
    assert_eq!(store.get(b"a").await.unwrap(), Some("b".into()));
}

#[tokio::test]
async fn snapshots_are_limited_and_never_keep_reads_waiting() {
    let folder = Folder::new();
    let store = open(folder.config()).await;
    let _ = store.put("k", "v").await.unwrap();
    let mut frozen = Vec::new();
    let error = loop {
        match store.snapshot().await {
            Ok(snapshot) => frozen.push(snapshot),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), frozen.len()), (ErrorKind::Capacity, 64));
    let _ = store.put("k", "w").await.unwrap();
    needs_the_disk(&store);
    assert_eq!(store.get(b"k").await.unwrap(), Some("w".into()));
    assert_eq!(frozen[63].get(b"k").await.unwrap(), Some("v".into()));
    frozen.pop();
    store.snapshot().await.unwrap();
}

#[tokio::test]
async fn only_a_snapshot_holds_the_log_back() {
    let folder = Folder::new();
    let store = open(folder.config()).await;
    for n in 0..100u8 {
        let _ = store.put(vec![n], vec![n; 4096]).await.unwrap();
    }
    let mut pages = store.scan(Scan::all().page_entries(10));
    assert!(pages.next().await.unwrap().is_ok());
    let held = store.snapshot().await.unwrap();
    let _ = store.put("k", "after").await.unwrap();
    store.compact().await.unwrap();
    assert!(log_bytes(&folder.path()) > 0, "a snapshot needs what is behind it");
    drop(held);
    store.compact().await.unwrap();
    assert_eq!(log_bytes(&folder.path()), 0, "an idle scan holds nothing");
    assert_eq!(
        pages.map(|page| page.unwrap().len()).collect::<Vec<_>>().await.iter().sum::<usize>(),
        91
    );
}

#[tokio::test]
async fn without_snapshots_they_are_refused() {
    let folder = Folder::new();
    let store = open(SqliteConfig { journal: Some(Journal::Rollback), ..folder.config() }).await;
    let error = store.snapshot().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("`journal: wal`"), "{error}");
}

#[test]
fn without_a_runtime_only_what_needs_none_is_done() {
    let folder = Folder::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(open(folder.config()));
    // The writer has a thread of its own.
    let _ = futures_executor(store.put("k", "v")).unwrap();
    assert_eq!(futures_executor(store.get(b"k")).unwrap(), Some("v".into()));
    let error = futures_executor(store.collect(Scan::all())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    runtime.block_on(store.close()).unwrap();
}

/// Waits without a runtime.
fn futures_executor<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
        std::thread::yield_now();
    }
}
