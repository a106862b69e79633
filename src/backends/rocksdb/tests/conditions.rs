//! Writes that depend on what is there, concurrently with others, and which data it is.

use crate::types::Condition;

use super::*;

/// Increments that lose no other, concurrently with writes and bulk loads without conditions.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_holds_until_the_write_is_done() {
    for sync in [true, false] {
        let folder = folder();
        let config = RocksDbConfig { sync, ..RocksDbConfig::new(folder.path()) };
        let store = Arc::new(RocksDb::open(config).await.unwrap());
        let number = |value: &Value| String::from_utf8_lossy(&value.bytes).parse::<u64>().unwrap();
        store.put("n", "0").await.unwrap();
        let (tasks, rounds) = (4, 50);
        let tasks = (0..tasks).map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut done = 0;
                while done < rounds {
                    let seen = store.get(b"n").await.unwrap().unwrap();
                    let next = (number(&seen) + 1).to_string();
                    let batch = Batch::new()
                        .put("n", next)
                        .put(format!("{task}-{done}"), "x")
                        .require(Condition::equals("n", seen))
                        .require(Condition::absent(format!("{task}-{done}")));
                    match store.write(batch).await {
                        Ok(_) => done += 1,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                    }
                    store.put(format!("other-{task}"), done.to_string()).await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(number(&store.get(b"n").await.unwrap().unwrap()), 200);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_identity_is_that_of_the_data() {
    let folder = folder();
    let path = folder.path().join("one");
    let store = open(&path).await;
    let identity = store.identity().unwrap();
    store.put("k", "v").await.unwrap().durable().await.unwrap();
    store.close().await.unwrap();
    let other = RocksDbConfig { column_family: "other".into(), ..RocksDbConfig::new(&path) };
    let store = RocksDb::open(other).await.unwrap();
    assert_ne!(store.identity().unwrap(), identity);
    store.close().await.unwrap();

    // The same data in another place, and by way of a link; then other data in that place.
    let moved = folder.path().join("two");
    fs::rename(&path, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    let store = open(&path).await;
    assert_eq!(store.identity().unwrap(), identity);
    store.close().await.unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for (name, bytes) in image(&moved) {
        fs::write(path.join(name), bytes).unwrap();
    }
    let copy = open(&path).await;
    assert_ne!(copy.identity().unwrap(), identity);
    copy.close().await.unwrap();
}

#[tokio::test]
async fn one_that_only_reads_makes_nothing() {
    let folder = folder();
    open(&folder.path().join("orders")).await.close().await.unwrap();
    let before = image(&folder.path().join("orders"));
    let reading =
        Context { folder: folder.path().to_owned(), may_create: false, ..Context::default() };
    let refused = async |path: &str, family: &str| {
        let config = RocksDbConfig { column_family: family.into(), ..RocksDbConfig::new(path) };
        config.open(&reading).await.map(drop).unwrap_err()
    };
    let error = refused("order", "default").await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.message().contains("only reads") && error.message().contains("orders"),
        "{error}"
    );
    let error = refused("orders", "defalt").await;
    assert!(error.message().contains("'defalt'"), "{error}");
    assert!(error.message().contains("there are: default"), "{error}");
    assert!(!folder.path().join("order").exists());
    assert!(image(&folder.path().join("orders")) == before);
}
