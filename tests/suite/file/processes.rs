//! The file backend against what happens to processes and disks: another process, `kill -9`, a full disk, a read-only
//! one.
//!
//! Mounting a small file system needs root on Linux. Without it those tests print why they are skipped;
//! with `CI` set they fail instead.

use super::*;
use crate::child::{child, marked, role};
use crate::mount::Mount;

#[tokio::test]
async fn another_process_is_told_who_has_the_folder() {
    if let Some(folder) = role() {
        let _store = open(&folder).await;
        println!("@@ open");
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let folder = tempdir().unwrap();
    let mut holder =
        child("file::processes::another_process_is_told_who_has_the_folder", folder.path());
    assert_eq!(marked(&mut holder).next().as_deref(), Some("open"));
    let error = refused(FileConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.message().contains(&format!("process {}", holder.id())), "{error}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let store = open(folder.path()).await;
    let error = refused(FileConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "in the same process too: {error:?}");
    store.close().await.unwrap();
    open(folder.path()).await.close().await.unwrap();
}

/// The child writes batches of two keys from several tasks, and names each one that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_kill_9() {
    if let Some(folder) = role() {
        let config = FileConfig { sync: false, ..FileConfig::new(folder) };
        let store = std::sync::Arc::new(FileStore::open(config).await.unwrap());
        let tasks = (0..4).map(|task| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                for number in 0u64.. {
                    let value = format!("{}.{number}", std::process::id());
                    let batch = Batch::new()
                        .put(format!("a/{task}/{}", number % 50), value.clone())
                        .delete(format!("c/{task}/{}", number.wrapping_sub(1) % 50))
                        .put(format!("b/{task}/{}", number % 50), value.clone())
                        .put(format!("c/{task}/{}", number % 50), value);
                    store.write(batch).await.unwrap().durable().await.unwrap();
                    println!("@@ {task} {number}");
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        return;
    }
    let folder = tempdir().unwrap();
    let mut count = 0;
    for round in 1..=8 {
        let mut writer =
            child("file::processes::what_was_acknowledged_is_there_after_kill_9", folder.path());
        let mut lines = marked(&mut writer);
        let mut acknowledged: Vec<String> = lines.by_ref().take(60 * round).collect();
        writer.kill().unwrap();
        acknowledged.extend(lines);
        writer.wait().unwrap();
        count += acknowledged.len();
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for line in &acknowledged {
            let (task, number) = line.split_once(' ').unwrap();
            last.insert(task.to_owned(), number.parse().unwrap());
        }
        let store = open(folder.path()).await;
        for (task, number) in last {
            // Whether the entry of that number is the one that this writer put.
            let there = async |set: &str, number: u64| {
                let key = format!("{set}/{task}/{}", number % 50);
                let wanted = format!("{}.{number}", writer.id());
                store.get(key.as_bytes()).await.unwrap() == Some(wanted.into())
            };
            // The one after it may be there too, but only wholly.
            let next = there("a", number + 1).await;
            assert_eq!(there("b", number + 1).await, next, "half a batch");
            assert_eq!(there("c", number + 1).await, next, "half a batch");
            assert_eq!(there("c", number).await, !next, "half a batch");
            for set in ["a", "b"] {
                assert!(there(set, number).await, "an acknowledged write is lost");
            }
        }
        store.close().await.unwrap();
    }
    assert!(count >= 2000);
}

#[tokio::test]
async fn a_full_disk_fails_writes_wholly_and_not_reads() {
    let Some(disk) = Mount::small(1 << 20) else { return };
    let store = open(disk.path()).await;
    let mut written = 0;
    let error = loop {
        let (a, b) = (format!("a/{written}"), format!("b/{written}"));
        match store.write(Batch::new().put(a, vec![b'a'; 9000]).put(b, vec![b'b'; 9000])).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the disk does not get full");
    };
    assert_eq!(error.kind(), ErrorKind::Capacity, "{error:?}");
    assert!(error.message().contains("disk is full"), "{error}");
    assert!(written > 20);
    assert_eq!(store.put("c", vec![0; 2 << 20]).await.unwrap_err().kind(), ErrorKind::Capacity);
    assert_eq!(keys(&store).await.len(), 2 * written, "nothing of what failed is there");
    let temporary = disk.path().join(".tierstack/temporary");
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0, "and it takes no space");
    for n in 0..4 {
        store.delete(format!("a/{n}")).await.unwrap();
    }
    store.put("c", vec![0; 20_000]).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_read_only_file_system_is_an_access_error() {
    let Some(disk) = Mount::small(1 << 20) else { return };
    let path = disk.path().join("data");
    let store = open(&path).await;
    store.put("k", "v").await.unwrap();
    store.close().await.unwrap();
    disk.remount("ro");
    for path in [path, disk.path().join("new"), disk.path().to_owned()] {
        let error = refused(FileConfig::new(&path)).await;
        assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    }
    disk.remount("rw");
    let store = open(&disk.path().join("data")).await;
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn another_file_system_in_the_folder_is_named() {
    let folder = tempdir().unwrap();
    let Some(disk) = Mount::small(1 << 20) else { return };
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let bound = Command::new("mount").arg("--bind").args([disk.path(), &inner]).status().unwrap();
    assert!(bound.success());
    let store = open(folder.path()).await;
    let error = store.put("inner/k", "v").await.unwrap_err();
    let batch = store.write(Batch::new().put("inner/k", "v").put("k", "v")).await;
    let seen = store.get(b"k").await;
    drop(store);
    assert!(Command::new("umount").arg(&inner).status().unwrap().success());
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.message().contains("another file system"), "{error}");
    assert_eq!(batch.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(seen.unwrap(), None);
}
