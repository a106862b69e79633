//! Stores over several tables of one database.

use std::sync::Arc;

use super::*;
use crate::error::ErrorKind;

fn table(folder: &Folder, name: &str) -> SqliteConfig {
    SqliteConfig { table: name.into(), ..folder.config() }
}

/// Without turns one of them finds the database locked, and gives up at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_over_one_database_never_fail_for_each_other() {
    for (sync, journal) in [(true, Journal::Wal), (false, Journal::Wal), (true, Journal::Rollback)]
    {
        let folder = Folder::new();
        if journal == Journal::Rollback {
            folder.foreign_did("PRAGMA journal_mode = DELETE; CREATE TABLE t (x)");
        }
        let mut stores = Vec::new();
        for name in ["one", "two", "three"] {
            let config = SqliteConfig {
                sync,
                journal: Some(journal),
                busy_timeout: Span(Duration::ZERO),
                ..table(&folder, name)
            };
            stores.push((name, Arc::new(open(config).await)));
        }
        let mut tasks = tokio::task::JoinSet::new();
        for &(name, ref store) in &stores {
            for task in 0..4_u8 {
                let store = Arc::clone(store);
                tasks.spawn(async move {
                    for n in 0..25_u8 {
                        let _ = store.put(vec![task, n], name).await.unwrap();
                    }
                    let group = (0..3_u8).map(|n| Batch::new().put(vec![9, task, n], name));
                    for written in store.write_group(group.collect()).await {
                        let _ = written.unwrap();
                    }
                });
            }
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        for &(name, ref store) in &stores {
            let entries = all(store, Scan::all()).await;
            assert_eq!(entries.len(), 4 * (25 + 3), "{name}");
            assert!(entries.iter().all(|entry| entry.value.bytes == name.as_bytes()), "{name}");
            store.compact().await.unwrap();
        }
        for (_, store) in &stores {
            store.close().await.unwrap();
        }
    }
}

/// They have one log: what is written behind a part that was not saved is lost with it.
#[tokio::test]
async fn a_failed_sync_ends_the_writes_of_every_store_over_the_database() {
    let (folder, other) = (Folder::new(), Folder::new());
    let (one, two) = (open(table(&folder, "one")).await, open(table(&folder, "two")).await);
    let elsewhere = open(table(&other, "one")).await;
    let _ = two.put("k", "v").await.unwrap();
    one.writer().unwrap().fail_sync();
    let error = two.put("k", "w").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.to_string().contains("with all stores that have tables in it"), "{error}");
    assert_eq!(two.get(b"k").await.unwrap(), Some("v".into()), "reads go on");
    let _ = elsewhere.put("k", "v").await.unwrap();
    assert_eq!(one.close().await.unwrap_err().kind(), ErrorKind::Closed);
    drop(one);
    // What is opened next to one that knows, knows.
    let again = open(table(&folder, "one")).await;
    assert_eq!(again.put("k", "w").await.unwrap_err().kind(), ErrorKind::Closed);
    let _ = (again.close().await, two.close().await);
    drop((again, two));
    let fresh = open(table(&folder, "two")).await;
    assert_eq!(fresh.get(b"k").await.unwrap(), Some("v".into()));
    let _ = fresh.put("k", "w").await.unwrap();
    fresh.close().await.unwrap();
}
