//! Snapshots, and what closing lets go of.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_outlives_writes_flushes_and_compactions() {
    let folder = folder();
    let store = open(folder.path()).await;
    for number in 0..500 {
        store.put(key(number), "old").await.unwrap().durable().await.unwrap();
    }
    let snapshot = store.snapshot().await.unwrap();
    for number in 0..600 {
        store.put(key(number), "new").await.unwrap().durable().await.unwrap();
    }
    store.delete(key(0)).await.unwrap().durable().await.unwrap();
    store.flush().await.unwrap();
    store.compact().await.unwrap();
    let tasks = (0..4).map(|_| {
        let snapshot = Arc::clone(&snapshot);
        tokio::spawn(async move {
            assert_eq!(snapshot.get(&key(0)).await.unwrap(), Some("old".into()));
            assert_eq!(snapshot.get(&key(550)).await.unwrap(), None);
            let keys = [key(1), key(599)];
            assert_eq!(snapshot.get_many(&keys).await.unwrap(), [Some("old".into()), None]);
            let entries = all(&*snapshot, Scan::all()).await;
            assert_eq!(entries.len(), 500);
            assert!(entries.iter().all(|entry| entry.value.bytes == "old"));
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(store.get(&key(550)).await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn closing_lets_go_of_the_folder_whatever_is_still_held() {
    let folder = folder();
    foreign(folder.path(), &creating(), 5000);
    let store = open(folder.path()).await;
    let snapshot = store.snapshot().await.unwrap();
    // A reply, scans and a snapshot that nobody polls while the store is closed.
    let reply = store.get(b"key-004000");
    assert!(matches!(reply, Reply::Later(_)));
    let mut scan = store.scan(Scan::all().page_entries(10));
    let mut frozen = snapshot.scan(Scan::all().page_entries(10));
    for _ in 0..3 {
        scan.next().await.unwrap().unwrap();
        frozen.next().await.unwrap().unwrap();
    }
    store.close().await.unwrap();

    let again = open(folder.path()).await;
    assert_eq!(again.get(b"key-004000").await.unwrap(), Some("value-4000".into()));
    assert_eq!(reply.await.unwrap_err().kind(), ErrorKind::Closed);
    for mut pages in [scan, frozen] {
        // One page was read ahead.
        let rest: Vec<Result<Page>> = pages.by_ref().collect().await;
        assert!(rest.len() <= 2);
        assert_eq!(rest.last().unwrap().as_ref().unwrap_err().kind(), ErrorKind::Closed);
    }
    assert_eq!(snapshot.get(b"k").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.get(b"k").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.put("k", "v").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.snapshot().await.map(|_| ()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.flush().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.usage().await.unwrap_err().kind(), ErrorKind::Closed);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_amid_operations_loses_no_acknowledged_write() {
    for _ in 0..5 {
        let folder = folder();
        let store = Arc::new(open(folder.path()).await);
        let writers = (0..4).map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for number in 0.. {
                    let key = format!("{writer}-{number}");
                    match store.put(key.clone(), "v").await {
                        Ok(_) => assert!(
                            store.snapshot().await.is_ok() || store.get(b"x").await.is_err()
                        ),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Closed);
                            return number;
                        }
                    }
                }
                unreachable!()
            })
        });
        let writers: Vec<_> = writers.collect();
        while !matches!(store.get(b"0-20").await, Ok(Some(_))) {
            tokio::task::yield_now().await;
        }
        store.close().await.unwrap();
        let store = open(folder.path()).await;
        for (writer, task) in writers.into_iter().enumerate() {
            for number in 0..task.await.unwrap() {
                let key = format!("{writer}-{number}");
                assert!(store.get(key.as_bytes()).await.unwrap().is_some(), "{key}");
            }
        }
        store.close().await.unwrap();
    }
}

/// Its background work has ended for good: flushes and compactions of a store that joined would never happen.
#[tokio::test]
async fn no_store_joins_a_database_that_its_last_one_closes() {
    let folder = folder();
    let context = Context { common: Some(Common::default()), ..Context::default() };
    let config = || RocksDbConfig { create: true, ..RocksDbConfig::new(folder.path()) };
    let one = RocksDb::open_with(config(), &context).await.unwrap();
    let two = RocksDb::open_with(config(), &context).await.unwrap();
    two.close().await.unwrap();
    one.put("k", "v").await.unwrap().durable().await.unwrap();

    let engine = one.reader.view().unwrap();
    assert!(engine.leave(), "it is the last one");
    let refused = RocksDb::open_with(config(), &context).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    drop(engine);
    one.close().await.unwrap();
    let again = RocksDb::open_with(config(), &context).await.unwrap();
    assert_eq!(again.get(b"k").await.unwrap(), Some("v".into()));
    again.close().await.unwrap();
}
