//! Runs that are large enough for tables of their own.

use futures_util::stream;

use super::*;
use crate::backends::rocksdb::ingest::LOT_BYTES;

const VALUE_BYTES: usize = 10_000;
/// Two tables and a rest that is a batch.
const ENTRIES: usize = 2 * (LOT_BYTES / VALUE_BYTES) + 100;

fn value(number: usize, round: u8) -> Bytes {
    // Half of it does not compress.
    let seed = number as u64 * 31 + u64::from(round);
    let mut value = crate::testing::Random::new(seed).bytes(VALUE_BYTES / 2).to_vec();
    value.resize(VALUE_BYTES, round);
    value.into()
}

fn page(numbers: std::ops::Range<usize>, round: u8) -> Page {
    let entry = |number| Entry { key: key(number), value: value(number, round).into() };
    Page { entries: numbers.map(entry).collect() }
}

/// Every entry, in pages of a hundred.
fn run(round: u8) -> Pages<'static> {
    let pages =
        (0..ENTRIES).step_by(100).map(move |from| Ok(page(from..(from + 100).min(ENTRIES), round)));
    stream::iter(pages).boxed()
}

fn left_over(path: &Path) -> bool {
    path.join("tierstack-ingest").exists()
}

async fn holds(store: &RocksDb, round: u8) {
    for number in [0, 1, ENTRIES / 2, ENTRIES - 101, ENTRIES - 100, ENTRIES - 1] {
        assert!(store.get(&key(number)).await.unwrap() == Some(value(number, round).into()));
    }
}

#[tokio::test]
async fn tables_replace_what_is_there_and_others_write_meanwhile() {
    for family in ["default", "mine"] {
        let folder = folder();
        let config = RocksDbConfig {
            sync: false,
            column_family: family.into(),
            ..RocksDbConfig::new(folder.path())
        };
        let store = RocksDb::open(config.clone()).await.unwrap();
        // In a table, and in memory.
        store.put(key(0), "old").await.unwrap();
        store.put(key(ENTRIES), "stays").await.unwrap();
        store
            .reader
            .offload(|engine| {
                engine.db().flush_cf(engine.family()).unwrap();
                Ok(())
            })
            .await
            .unwrap();
        store.put(key(1), "old").await.unwrap();
        let before = store.snapshot().await.unwrap();
        let meanwhile = run(1).then(|page| async {
            store.put("other", "1").await?;
            page
        });
        assert_eq!(store.ingest(meanwhile.boxed()).await.unwrap(), ENTRIES as u64);
        assert!(store.usage().await.unwrap().stored_bytes.unwrap() > LOT_BYTES as u64);
        holds(&store, 1).await;
        assert_eq!(before.get(&key(1)).await.unwrap(), Some("old".into()));
        assert_eq!(before.get(&key(2)).await.unwrap(), None);
        assert_eq!(all(&*before, Scan::all()).await.len(), 3);
        assert_eq!(all(&store, Scan::all()).await.len(), ENTRIES + 2);

        // Over themselves; then a later write and delete count.
        store.ingest(run(2)).await.unwrap();
        holds(&store, 2).await;
        store.write(Batch::new().put(key(0), "newer").delete(key(1))).await.unwrap();
        store.close().await.unwrap();
        assert!(!left_over(folder.path()));

        let store = RocksDb::open(config).await.unwrap();
        assert_eq!(store.get(&key(0)).await.unwrap(), Some("newer".into()));
        assert_eq!(store.get(&key(1)).await.unwrap(), None);
        assert!(store.get(&key(2)).await.unwrap() == Some(value(2, 2).into()));
        store.compact().await.unwrap();
        assert_eq!(all(&store, Scan::all()).await.len(), ENTRIES + 1);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_run_that_fails_leaves_whole_tables_and_no_files() {
    let folder = folder();
    let store = open(folder.path()).await;
    let broken = stream::iter([Err(Error::new(ErrorKind::Access, "the run broke off"))]);
    let pages = LOT_BYTES / VALUE_BYTES / 100 + 5;
    let error = store.ingest(run(1).take(pages).chain(broken).boxed()).await.unwrap_err();
    assert_eq!(error.message(), "the run broke off");
    let there = all(&store, Scan::all()).await.len();
    assert!(there * VALUE_BYTES >= LOT_BYTES && there < pages * 100, "one table: {there}");
    let files = fs::read_dir(folder.path().join("tierstack-ingest")).unwrap().count();
    assert_eq!(files, 0);
    store.ingest(run(2)).await.unwrap();
    holds(&store, 2).await;
    store.close().await.unwrap();
    assert!(!left_over(folder.path()));
}

#[tokio::test]
async fn what_a_crash_leaves_is_removed_when_the_database_is_opened() {
    let folder = folder();
    open(folder.path()).await.close().await.unwrap();
    fs::create_dir(folder.path().join("tierstack-ingest")).unwrap();
    fs::write(folder.path().join("tierstack-ingest/7.sst"), "half a table").unwrap();
    let store = open(folder.path()).await;
    assert!(!left_over(folder.path()));
    assert!(all(&store, Scan::all()).await.is_empty());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_closes_under_a_run_waits_for_the_table_and_ends_the_run() {
    let folder = folder();
    let store = open(folder.path()).await;
    let closes = async {
        store.close().await?;
        Ok(Page::default())
    };
    let pages = LOT_BYTES / VALUE_BYTES / 100 + 5;
    let closing = run(1).take(pages).chain(stream::once(closes)).chain(run(1).skip(pages));
    let error = store.ingest(closing.boxed()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    drop(store);
    let store = open(folder.path()).await;
    let there = all(&store, Scan::all()).await.len();
    assert!(there * VALUE_BYTES >= LOT_BYTES, "what was begun is done: {there}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_dropped_run_leaves_whole_tables() {
    let folder = folder();
    let store = open(folder.path()).await;
    let pages = LOT_BYTES / VALUE_BYTES / 100 + 5;
    let waits = run(1).take(pages).chain(stream::pending());
    tokio::select! {
        biased;
        _ = store.ingest(waits.boxed()) => panic!("it cannot end"),
        () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
    }
    // Waits for what goes on.
    store.close().await.unwrap();
    let store = open(folder.path()).await;
    let there = all(&store, Scan::all()).await;
    assert!(there.iter().all(|entry| entry.value.bytes.len() == VALUE_BYTES));
    store.ingest(run(2)).await.unwrap();
    holds(&store, 2).await;
    store.close().await.unwrap();
}

/// As after a crash of the process: the log is as the engine left it.
#[tokio::test]
async fn tables_and_log_agree_after_a_crash() {
    let folder = folder();
    let store = open(folder.path()).await;
    store.put(key(1), "old").await.unwrap();
    store.ingest(run(1)).await.unwrap();
    store.put(key(2), "newer").await.unwrap();
    let image = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() && entry.file_name() != "LOCK" {
            fs::copy(entry.path(), image.path().join(entry.file_name())).unwrap();
        }
    }
    let crashed = open(image.path()).await;
    assert!(crashed.get(&key(1)).await.unwrap() == Some(value(1, 1).into()));
    assert_eq!(crashed.get(&key(2)).await.unwrap(), Some("newer".into()));
    assert_eq!(all(&crashed, Scan::all()).await.len(), ENTRIES);
    crashed.close().await.unwrap();
    store.close().await.unwrap();
}
