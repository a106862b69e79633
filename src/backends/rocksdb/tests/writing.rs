//! What is acknowledged when, and what is refused.

use ::rocksdb::Cache;

use super::*;
use crate::backends::rocksdb::engine::Database;
use crate::backends::rocksdb::folder_lock::Opened;
use crate::clock::SystemClock;
use crate::types::Condition;

#[tokio::test]
async fn a_batch_is_one_write_and_its_last_operation_wins() {
    let folder = folder();
    for sync in [true, false] {
        let store = RocksDb::open(RocksDbConfig { sync, ..RocksDbConfig::new(folder.path()) })
            .await
            .unwrap();
        let large = vec![1; INLINE_WRITE_BYTES];
        let batch =
            Batch::new().put("a", "1").put("b", "1").put("a", "2").delete("b").put("c", large);
        store.write(batch).await.unwrap().durable().await.unwrap();
        assert_eq!(store.get(b"a").await.unwrap(), Some("2".into()));
        assert_eq!(store.get(b"b").await.unwrap(), None);
        assert_eq!(store.get(b"c").await.unwrap().unwrap().bytes.len(), INLINE_WRITE_BYTES);
        store.write(Batch::new()).await.unwrap().durable().await.unwrap();
        let durable = Batch::new().put("d", "4").durability(Durability::PowerCut);
        assert_eq!(store.write(durable).await.is_ok(), sync);
        store.flush().await.unwrap();
        store.close().await.unwrap();
    }
}

/// `kill -9` does not tell a write that the disk has from one that only the system has; RocksDB counts.
/// A store, and how often its log was synced.
fn counting(folder: &Path, sync: bool) -> (RocksDb, impl Fn() -> u64) {
    let mut options = creating();
    options.enable_statistics();
    let (sender, gone) = watch::channel(());
    let open = || Ok(DB::open_cf(&options, folder, ["default"]).unwrap());
    let opened = Opened::with(folder, open).unwrap();
    let pace = Pace::new(SystemClock::shared(), true);
    let database = Database::new(opened, Cache::new_lru_cache(0), "default", false);
    let store = RocksDb {
        reader: Reader::new(Engine::over(database, "default", pace, None, sender).unwrap()),
        snapshots: Mutex::default(),
        profile: RocksDbConfig { sync, ..RocksDbConfig::new("x") }.profile().unwrap(),
        sync,
        only_reads: false,
        folders: 0,
        tables: Arc::new(Tables::of(&RocksDbConfig::new(folder)).unwrap()),
        identity: None,
        gone,
    };
    (store, move || options.get_ticker_count(::rocksdb::statistics::Ticker::WalFileSynced))
}

#[tokio::test]
async fn a_group_is_synced_once() {
    let put = |n: u32| Batch::new().put(n.to_string(), "v");
    for sync in [true, false] {
        let folder = folder();
        let (store, synced) = counting(folder.path(), sync);
        let before = synced();
        let answers = store.write_group((0..64).map(put).collect()).await;
        assert!(answers.len() == 64 && answers.iter().all(Result::is_ok));
        assert_eq!(synced() - before, u64::from(sync));

        // What was written of a group that ends early is synced as well.
        let mut group: Vec<_> = (100..110).map(put).collect();
        group.insert(5, Batch::new().put("new", "v").require(Condition::absent("0")));
        let before = synced();
        let answers = store.write_group(group).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
        assert_eq!(synced() - before, u64::from(sync));
        assert_eq!(store.get(b"104").await.unwrap(), Some("v".into()));
        assert_eq!(store.get(b"105").await.unwrap(), None);
        // Nothing was written, so nothing is synced.
        let refused = Batch::new().put("0", "w").if_absent();
        assert!(store.write_group(vec![refused, put(200)]).await.iter().all(Result::is_err));
        assert_eq!(synced() - before, u64::from(sync));
        store.close().await.unwrap();
    }
}

#[test]
fn closing_that_was_given_up_before_it_began_syncs_nevertheless() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let folder = folder();
        let (store, synced) = counting(folder.path(), false);
        store.put("k", "v").await.unwrap().durable().await.unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || held.recv());
        assert!(store.close().now_or_never().is_none());
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        store.close().await.unwrap();
        assert_eq!(synced(), 1);
    });
}

#[tokio::test]
async fn a_write_is_synced_before_it_is_acknowledged_or_when_it_is_flushed() {
    for sync in [true, false] {
        let folder = folder();
        let (store, synced) = counting(folder.path(), sync);
        let before = synced();
        store.put("k", "v").await.unwrap().durable().await.unwrap();
        assert_eq!(synced() - before, u64::from(sync));
        store.flush().await.unwrap();
        assert!(synced() > before + u64::from(sync));
        let before = synced();
        store.put("k", "w").await.unwrap().durable().await.unwrap();
        store.close().await.unwrap();
        assert!(synced() > before + u64::from(sync));
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_and_nothing_of_the_batch_happens() {
    let folder = folder();
    let store = open(folder.path()).await;
    let expiring = Value::new("v").expiring_at(Timestamp::from_millis(1));
    let error = store.write(Batch::new().put("a", "1").put("b", expiring)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("`expire`"), "{error}");
    let far = Batch::new().put("a", "1").durability(Durability::MachineLoss);
    assert_eq!(store.write(far).await.unwrap_err().kind(), ErrorKind::Unsupported);
    for wrong in [Bytes::new(), vec![0; 65_537].into()] {
        let error =
            store.write(Batch::new().put("a", "1").delete(wrong.clone())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(store.get(&wrong).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(store.get(b"a").await.unwrap(), None);
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_before_it_is_copied() {
    let folder = folder();
    let store = open(folder.path()).await;
    // Zeroed pages that nobody touches take no memory.
    let huge = Bytes::from(vec![0_u8; (3 << 30) + 1]);
    let error = store.put("k", huge).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("3221225472"), "{error}");
}

#[tokio::test]
async fn usage_counts_what_was_written() {
    let folder = folder();
    let store = open(folder.path()).await;
    for number in 0..100 {
        store.put(key(number), vec![number as u8; 1000]).await.unwrap().durable().await.unwrap();
    }
    assert_eq!(store.usage().await.unwrap().entries, Some(100));
    assert!(store.usage().await.unwrap().memory_bytes.unwrap() > 100_000);
    store.compact().await.unwrap();
    assert!(store.usage().await.unwrap().stored_bytes.unwrap() > 1000);
}
