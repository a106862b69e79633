//! Databases whose log or tables are in folders of their own.

use ::rocksdb::{DBPath, WaitForCompactOptions};

use super::*;

fn logging_to(path: &Path) -> Options {
    let mut options = creating();
    options.set_wal_dir(path);
    options
}

#[tokio::test]
async fn a_log_in_a_folder_that_is_named_is_read_and_written_there() {
    let (data, log) = (folder(), folder());
    let options = logging_to(log.path());
    let db = DB::open(&options, data.path()).unwrap();
    db.put("k", "v").unwrap();
    drop(db);
    let before = latest_options(data.path());
    let config = RocksDbConfig {
        wal_dir: Some(log.path().to_owned()),
        inline_reads: false,
        ..RocksDbConfig::new(data.path())
    };
    let store = RocksDb::open(config).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
    store.put("ours", "1").await.unwrap().durable().await.unwrap();
    store.close().await.unwrap();
    let logs = |path: &Path| names(path).iter().filter(|name| name.ends_with(".log")).count();
    assert_eq!((logs(data.path()), logs(log.path()) > 0), (0, true));
    assert_eq!(latest_options(data.path()), before);
    let db = DB::open(&options, data.path()).unwrap();
    assert_eq!(db.get("ours").unwrap(), Some(b"1".to_vec()));
}

#[tokio::test]
async fn a_log_that_is_not_where_it_was_named_is_refused_and_left_alone() {
    let (data, log, other) = (folder(), folder(), folder());
    let wrong = |data: &Path| RocksDbConfig {
        wal_dir: Some(other.path().to_owned()),
        ..RocksDbConfig::new(data)
    };
    let db = DB::open(&logging_to(log.path()), data.path()).unwrap();
    db.put("k", "v").unwrap();
    drop(db);
    let before = (image(data.path()), image(log.path()));
    let error = refusal(wrong(data.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for folder in [&log, &other] {
        assert!(error.message().contains(folder.path().to_str().unwrap()), "{error}");
    }
    assert!((image(data.path()), image(log.path())) == before);

    // A log in the folder of the database, as most have it.
    let own = folder();
    foreign(own.path(), &creating(), 10);
    let before = image(own.path());
    let error = refusal(wrong(own.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("leave it out"), "{error}");
    assert!(image(own.path()) == before && image(other.path()).is_empty());
}

fn in_two(first: &Path, second: &Path) -> Options {
    let mut options = creating();
    options.set_level_zero_file_num_compaction_trigger(2);
    let folder = |path: &Path, size| DBPath::new(path, size).unwrap();
    options.set_db_paths(&[folder(first, 1), folder(second, 1 << 30)]);
    options
}

fn named(first: &Path, second: &Path) -> RocksDbConfig {
    let folder = |path: &Path, size| TableFolder { path: path.to_owned(), size: ByteSize(size) };
    RocksDbConfig {
        db_paths: vec![folder(first, 1), folder(second, 1 << 30)],
        inline_reads: false,
        ..RocksDbConfig::new(first)
    }
}

#[tokio::test]
async fn tables_in_folders_that_are_named_are_read_and_written_there() {
    let (first, second) = (folder(), folder());
    let options = in_two(first.path(), second.path());
    let db = DB::open(&options, first.path()).unwrap();
    for value in ["old", "v"] {
        for number in 0..100 {
            db.put(key(number), value).unwrap();
        }
        db.flush().unwrap();
    }
    // Of a compaction by hand RocksDB would write all to the first folder.
    db.wait_for_compact(&WaitForCompactOptions::default()).unwrap();
    drop(db);
    let tables = |path: &Path| names(path).iter().filter(|name| name.ends_with(".sst")).count();
    assert!(tables(second.path()) > 0);
    let before = latest_options(first.path());

    let error = refusal(RocksDbConfig::new(first.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("`db_paths`"), "{error}");

    let store = RocksDb::open(named(first.path(), second.path())).await.unwrap();
    assert_eq!(all(&store, Scan::all()).await.len(), 100);
    let entry = |n: usize| Entry { key: key(1000 + n), value: vec![7; 100_000].into() };
    let page = Page { entries: (0..60).map(entry).collect() };
    store.ingest(futures_util::stream::iter([Ok(page)]).boxed()).await.unwrap();
    let error = store.compact().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("first folder"), "{error}");
    store.close().await.unwrap();
    assert_eq!(latest_options(first.path()), before);

    let db = DB::open(&options, first.path()).unwrap();
    assert_eq!(db.iterator(::rocksdb::IteratorMode::Start).count(), 160);
}

#[tokio::test]
async fn a_new_database_is_made_with_its_folders_unless_they_are_those_of_another() {
    let (data, log, second) = (folder(), folder(), folder());
    let config = RocksDbConfig {
        wal_dir: Some(log.path().join("log")),
        ..named(&data.path().join("db"), &second.path().join("tables"))
    };
    for _ in 0..2 {
        let store = RocksDb::open(config.clone()).await.unwrap();
        store.put("k", "v").await.unwrap().durable().await.unwrap();
        store.close().await.unwrap();
    }
    assert!(names(&log.path().join("log")).iter().any(|name| name.ends_with(".log")));
    let before = image(&log.path().join("log"));
    let error = refusal(RocksDbConfig { path: data.path().join("new"), ..config }).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("`wal_dir`"), "{error}");
    assert!(image(&log.path().join("log")) == before);
}
