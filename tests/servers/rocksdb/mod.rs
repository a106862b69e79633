//! The RocksDB backend against what happens to processes and disks: another process, `kill -9`, a full
//! disk, a file system that is read-only.
//!
//! The older versions of RocksDB in `owner.rs` are those of `scripts/test-servers`. Mounting a small file system needs root on Linux. Without it those tests print why they are skipped;
//! with `CI` set they fail instead.

#![cfg(all(feature = "rocksdb", feature = "testing"))]

mod owner;

use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tempfile::tempdir;
use tierstack::backends::{RocksDb, RocksDbConfig};
use tierstack::testing::Random;
use tierstack::units::ByteSize;
use tierstack::{Batch, Entry, ErrorKind, Page, Read, ReadExt, Scan, Store, StoreExt};

use crate::support::child::{child, marked, role};
use crate::support::mount::Mount;

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn open(path: &Path) -> RocksDb {
    RocksDb::open(RocksDbConfig::new(path)).await.unwrap()
}

#[tokio::test]
async fn another_process_is_told_that_the_database_is_open() {
    if let Some(folder) = role() {
        let _store = open(&folder).await;
        println!("@@ open");
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let folder = tempdir().unwrap();
    let mut holder =
        child("rocksdb::another_process_is_told_that_the_database_is_open", folder.path());
    assert_eq!(marked(&mut holder).next().as_deref(), Some("open"));
    let log = || std::fs::read(folder.path().join("LOG")).unwrap();
    let (before, written) = (names(folder.path()), log());
    for _ in 0..2 {
        let error = RocksDb::open(RocksDbConfig::new(folder.path())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        assert!(error.message().contains("open elsewhere"), "{error}");
        // The owner removes an old MANIFEST in the background once it is open, and goes on with its log.
        let new: Vec<_> =
            names(folder.path()).into_iter().filter(|name| !before.contains(name)).collect();
        assert!(new.is_empty(), "renamed or made: {new:?}");
        assert!(log().starts_with(&written), "the LOG file is another one");
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    open(folder.path()).await.close().await.unwrap();
}

/// An attempt to open what another part of this process has open leaves it its lock.
#[tokio::test]
async fn another_user_of_rocksdb_in_this_process_keeps_its_lock() {
    if let Some(folder) = role() {
        let error = RocksDb::open(RocksDbConfig::new(folder)).await.unwrap_err();
        println!("@@ {:?}", error.kind());
        return;
    }
    let folder = tempdir().unwrap();
    let holder = rocksdb::DB::open_default(folder.path()).unwrap();
    let error = RocksDb::open(RocksDbConfig::new(folder.path())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    let mut other =
        child("rocksdb::another_user_of_rocksdb_in_this_process_keeps_its_lock", folder.path());
    assert_eq!(marked(&mut other).collect::<Vec<_>>(), ["Conflict"]);
    other.wait().unwrap();
    drop(holder);
    open(folder.path()).await.close().await.unwrap();
}

/// The child writes batches of two keys from several tasks, and names each one that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_kill_9() {
    if let Some(folder) = role() {
        let store = std::sync::Arc::new(open(&folder).await);
        let tasks = (0..4).map(|task| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                for number in 0.. {
                    let (a, b) = (format!("a-{task}-{number}"), format!("b-{task}-{number}"));
                    store
                        .write(Batch::new().put(a, vec![7; 500]).put(b, "b"))
                        .await
                        .unwrap()
                        .durable()
                        .await
                        .unwrap();
                    println!("@@ {task}-{number}");
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        return;
    }
    let folder = tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 1..=5 {
        let mut writer =
            child("rocksdb::what_was_acknowledged_is_there_after_kill_9", folder.path());
        let mut lines = marked(&mut writer);
        acknowledged.extend(lines.by_ref().take(100 * round));
        writer.kill().unwrap();
        acknowledged.extend(lines);
        writer.wait().unwrap();

        let store = open(folder.path()).await;
        for name in &acknowledged {
            for half in ["a", "b"] {
                let key = format!("{half}-{name}");
                assert!(store.get(key.as_bytes()).await.unwrap().is_some(), "{key} was lost");
            }
        }
        // Batches that were not acknowledged are there wholly or not at all.
        let mut pages = store.scan(Scan::all());
        let (mut a, mut b) = (0, 0);
        while let Some(page) = pages.next().await {
            for entry in page.unwrap().entries {
                if entry.key.starts_with(b"a") { a += 1 } else { b += 1 }
            }
        }
        drop(pages);
        assert_eq!(a, b);
        store.close().await.unwrap();
    }
    assert!(acknowledged.len() >= 1500);
}

#[tokio::test]
async fn a_full_disk_fails_writes_and_not_reads() {
    let Some(disk) = Mount::small(4 << 20) else { return };
    let path = disk.path().join("db");
    let config =
        RocksDbConfig { write_buffer_size: Some(ByteSize(256 << 10)), ..RocksDbConfig::new(&path) };
    let store = RocksDb::open(config.clone()).await.unwrap();
    let value = |number: usize| -> Vec<u8> {
        (0..10_000).map(|at| ((at * 7919 + number * 104_729) >> 5) as u8).collect()
    };
    let mut written = 0;
    let error = loop {
        match store.put(format!("key-{written:05}"), value(written)).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 10_000, "the disk does not get full");
    };
    assert_eq!(error.kind(), ErrorKind::Capacity, "{error:?}");
    assert!(error.message().contains("disk is full"), "{error}");
    assert!(written > 50);
    assert!(!format!("{error:?}").contains("key-0"), "{error:?}");
    let flushed = store.flush().await;
    assert!(flushed.is_err(), "a failure of background work is returned by flush");
    for number in 0..written {
        let key = format!("key-{number:05}");
        let found = store.get(key.as_bytes()).await.unwrap().unwrap();
        assert!(found.bytes == value(number), "{key}");
    }
    let _ = store.close().await;

    disk.remount("size=16m");
    let store = RocksDb::open(config).await.unwrap();
    for number in 0..written {
        let key = format!("key-{number:05}");
        assert!(store.get(key.as_bytes()).await.unwrap().unwrap().bytes == value(number), "{key}");
    }
    store.put("after", "1").await.unwrap().durable().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_run_that_does_not_fit_leaves_no_half_table() {
    let Some(disk) = Mount::small(64 << 20) else { return };
    let store = open(&disk.path().join("db")).await;
    store.put("before", "1").await.unwrap().durable().await.unwrap();
    let mut random = Random::new(1);
    let pages = (0..100).map(|n| {
        let value = random.bytes(1 << 20).into();
        Ok(Page { entries: vec![Entry { key: format!("key-{n:05}").into(), value }] })
    });
    let error = store.ingest(stream::iter(pages).boxed()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Capacity, "{error:?}");
    let left = std::fs::read_dir(disk.path().join("db/tierstack-ingest")).unwrap().count();
    assert_eq!(left, 0);
    // The first table is there and the space of the second is free: the store goes on.
    let found = store.collect(Scan::all().page_entries(1)).await.unwrap().len();
    assert!((30..100).contains(&found), "{found}");
    store.put("after", vec![1; 1 << 20]).await.unwrap().durable().await.unwrap();
    store.flush().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_read_only_file_system_is_an_access_error() {
    let Some(disk) = Mount::small(4 << 20) else { return };
    let path = disk.path().join("db");
    let store = open(&path).await;
    store.put("k", "v").await.unwrap().durable().await.unwrap();
    store.close().await.unwrap();
    disk.remount("ro");
    for path in [path, disk.path().join("new")] {
        let error = RocksDb::open(RocksDbConfig::new(&path)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    }
    // Nothing is written, made or locked by a store that only reads.
    let path = disk.path().join("db");
    let config = RocksDbConfig { read_only: true, ..RocksDbConfig::new(&path) };
    let store = RocksDb::open(config).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 1);
    store.close().await.unwrap();
    disk.remount("rw");
    let store = open(&path).await;
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
}
