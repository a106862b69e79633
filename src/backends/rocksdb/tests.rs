//! Tests within one process; those that need a second one, or a file system of their own, are in
//! `tests/rocksdb.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::Path;

use ::rocksdb::{ColumnFamilyDescriptor, DB, DBCompressionType, Options, SliceTransform};
use futures_util::{FutureExt, StreamExt};
use tempfile::TempDir;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::ext::StoreExt;
use crate::layer::{BackendConfig, Context};
use crate::types::units::ByteSize;
use crate::types::{Durability, Entry, Page};
use crate::{Freshness, Timestamp};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn open(path: &Path) -> RocksDb {
    RocksDb::open(RocksDbConfig::new(path)).await.unwrap()
}

async fn refusal(config: RocksDbConfig) -> Error {
    RocksDb::open(config).await.unwrap_err()
}

fn key(number: usize) -> Bytes {
    format!("key-{number:06}").into()
}

/// Entries written with the plain library, flushed to a table, and the database closed.
fn foreign(path: &Path, options: &Options, entries: usize) {
    let db = DB::open(options, path).unwrap();
    for number in 0..entries {
        db.put(key(number), format!("value-{number}")).unwrap();
    }
    db.flush().unwrap();
}

fn creating() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options
}

async fn all(store: &dyn Read, scan: Scan) -> Vec<Entry> {
    let pages: Vec<Result<Page>> = store.scan(scan).collect().await;
    pages.into_iter().flat_map(|page| page.unwrap().entries).collect()
}

/// Every file of the folder.
fn image(path: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn latest_options(path: &Path) -> String {
    let (_, text) =
        image(path).into_iter().rfind(|(name, _)| name.starts_with("OPTIONS-")).unwrap();
    String::from_utf8(text).unwrap()
}

// --- reading -------------------------------------------------------------------------------------

#[tokio::test]
async fn memory_answers_inline_and_the_disk_in_a_thread() {
    let folder = folder();
    foreign(folder.path(), &creating(), 10);
    let store = open(folder.path()).await;

    let cold = store.get(b"key-000003");
    assert!(matches!(cold, Reply::Later(_)), "the block is on the disk only");
    assert_eq!(cold.await.unwrap(), Some("value-3".into()));
    let cached = store.get(b"key-000003");
    assert!(matches!(&cached, Reply::Now(Ok(Some(value))) if value.bytes == "value-3"));
    let neighbour = store.get(b"key-000004");
    assert!(matches!(neighbour, Reply::Now(Ok(Some(_)))), "the same block");

    store.put("key-000003", "new").await.unwrap().durable().await.unwrap();
    let written = store.get(b"key-000003");
    assert!(matches!(&written, Reply::Now(Ok(Some(value))) if value.bytes == "new"));
    store.delete("key-000003").await.unwrap().durable().await.unwrap();
    assert!(matches!(store.get(b"key-000003"), Reply::Now(Ok(None))));
}

#[tokio::test]
async fn a_missing_key_is_answered_by_the_bloom_filter() {
    let folder = folder();
    let store = open(folder.path()).await;
    store.put("a", "1").await.unwrap().durable().await.unwrap();
    store.put("z", "1").await.unwrap().durable().await.unwrap();
    store.reader.view().unwrap().db().flush().unwrap();
    assert!(matches!(store.get(b"m"), Reply::Now(Ok(None))));
}

#[tokio::test]
async fn many_keys_are_read_in_memory_or_in_one_hop() {
    let folder = folder();
    foreign(folder.path(), &creating(), 3);
    let store = open(folder.path()).await;
    store.put("in-memory", "m").await.unwrap().durable().await.unwrap();
    let keys = [key(2), "missing".into(), "in-memory".into(), key(0), key(2)];
    let expected = vec![
        Some("value-2".into()),
        None,
        Some("m".into()),
        Some("value-0".into()),
        Some("value-2".into()),
    ];
    let cold = store.get_many(&keys);
    assert!(matches!(cold, Reply::Later(_)), "{:?}", cold);
    assert_eq!(cold.await.unwrap(), expected);
    let cached = store.get_many(&keys);
    assert!(matches!(&cached, Reply::Now(Ok(values)) if *values == expected));
    assert!(matches!(store.get_many(&[]), Reply::Now(Ok(values)) if values.is_empty()));

    let keys: Vec<Bytes> = keys.iter().cycle().take(1003).cloned().collect();
    let expected: Vec<_> = expected.iter().cycle().take(1003).cloned().collect();
    assert_eq!(store.get_many(&keys).await.unwrap(), expected);
}

#[tokio::test]
async fn the_bloom_filter_of_an_existing_database_is_used_and_kept() {
    let folder = folder();
    // As the C interface records it, which RocksDB does not read back by itself.
    let mut table = ::rocksdb::BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    let mut options = creating();
    options.set_block_based_table_factory(&table);
    foreign(folder.path(), &options, 100);
    assert!(latest_options(folder.path()).contains("filter_policy=bloomfilter\n"));
    for _ in 0..2 {
        let store = open(folder.path()).await;
        let missing = (0..50).filter(|number| {
            matches!(store.get(format!("key-{number:06}x").as_bytes()), Reply::Now(Ok(None)))
        });
        assert!(missing.count() > 40, "the filter would answer nearly all without the disk");
        store.close().await.unwrap();
        assert!(latest_options(folder.path()).contains("filter_policy=bloomfilter:10:false"));
    }
}

#[test]
fn without_a_runtime_the_disk_is_refused_and_memory_is_not() {
    let folder = folder();
    foreign(folder.path(), &creating(), 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(open(folder.path()));
    let mut reply = tokio_test::task::spawn(store.get(b"key-000000"));
    let error = tokio_test::assert_ready!(reply.poll()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("tokio runtime"), "{error}");
    runtime.block_on(store.get(b"key-000000")).unwrap();
    assert!(matches!(store.get(b"key-000000"), Reply::Now(Ok(Some(_)))));
}

#[tokio::test]
async fn a_scan_is_what_a_map_would_give() {
    let folder = folder();
    let store = open(folder.path()).await;
    let mut map = BTreeMap::new();
    for number in 0..700_usize {
        // Some in tables, some in memory, some overwritten, some deleted; values on both sides of the
        // size from which they have bytes of their own.
        let value = Bytes::from(vec![
            number as u8;
            (number * 37) % 400 + 20_000 * usize::from(number % 97 == 0)
        ]);
        store.put(key(number), value.clone()).await.unwrap().durable().await.unwrap();
        map.insert(key(number), value);
        if number % 5 == 0 {
            store.delete(key(number / 2)).await.unwrap().durable().await.unwrap();
            map.remove(&key(number / 2));
        }
        if number == 400 {
            store.reader.view().unwrap().db().flush().unwrap();
        }
    }
    store.put([0xff_u8].as_slice(), "last").await.unwrap().durable().await.unwrap();
    map.insert(Bytes::from_static(&[0xff]), "last".into());

    let bounds = [
        Bound::Unbounded,
        Bound::Included(key(100)),
        Bound::Excluded(key(101)),
        Bound::Included(key(650)),
        Bound::Excluded(key(651)),
        Bound::Excluded(Bytes::new()),
    ];
    for from in &bounds {
        for to in &bounds {
            for reverse in [false, true] {
                for (limit, page_entries, page_bytes) in [
                    (None, 1024, 1 << 20),
                    (Some(300), 7, 1 << 20),
                    (Some(3), 1024, 1),
                    (None, 50, 900),
                ] {
                    let mut scan = Scan::all().page_entries(page_entries).page_bytes(page_bytes);
                    (scan.from, scan.to, scan.limit) = (from.clone(), to.clone(), limit);
                    if reverse {
                        scan = scan.reverse();
                    }
                    let mut expected: Vec<_> =
                        map.iter().filter(|(key, _)| scan.contains(key)).collect();
                    if reverse {
                        expected.reverse();
                    }
                    expected.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
                    let found = all(&store, scan.clone()).await;
                    let found: Vec<_> =
                        found.iter().map(|entry| (&entry.key, &entry.value.bytes)).collect();
                    assert!(found == expected, "{scan:?} {from:?} {to:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn pages_keep_their_size() {
    let folder = folder();
    foreign(folder.path(), &creating(), 100);
    let store = open(folder.path()).await;
    let pages: Vec<Result<Page>> = store.scan(Scan::all().page_entries(30)).collect().await;
    let sizes: Vec<usize> = pages.iter().map(|page| page.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [30, 30, 30, 10]);
    let pages: Vec<Result<Page>> = store.scan(Scan::all().page_bytes(40)).collect().await;
    assert!(pages.iter().all(|page| page.as_ref().unwrap().len() <= 3), "17 bytes an entry");
}

#[test]
fn a_short_scan_of_what_is_in_memory_needs_no_thread() {
    let folder = folder();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(open(folder.path()));
    for number in 0..20 {
        drop(runtime.block_on(store.put(key(number), "v")).unwrap());
    }
    // Without a runtime, a thread would be an error.
    let mut pages = tokio_test::task::spawn(store.scan(Scan::all().limit(10)));
    let page = tokio_test::assert_ready!(pages.poll_next()).unwrap().unwrap();
    assert_eq!(page.len(), 10);
    assert!(tokio_test::assert_ready!(pages.poll_next()).is_none());
}

#[tokio::test]
async fn a_long_scan_leaves_the_block_cache_alone_and_a_short_one_is_kept() {
    let folder = folder();
    foreign(folder.path(), &creating(), 2000);
    let store = open(folder.path()).await;
    assert_eq!(all(&store, Scan::all()).await.len(), 2000);
    assert!(matches!(store.get(b"key-001234"), Reply::Later(_)));
    let short = || Scan::range(key(1500)..).limit(10);
    assert_eq!(all(&store, short()).await.len(), 10);
    let mut again = store.scan(short());
    let page = again.next().now_or_never().expect("from memory").unwrap().unwrap();
    assert_eq!(page.len(), 10);
}

#[tokio::test]
async fn a_prefix_extractor_does_not_cut_a_scan_short() {
    let folder = folder();
    let mut options = creating();
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(8));
    options.set_memtable_prefix_bloom_ratio(0.2);
    foreign(folder.path(), &options, 300);
    let store = open(folder.path()).await;
    let scan = Scan::range(key(50)..key(250));
    assert_eq!(all(&store, scan.clone()).await.len(), 200);
    assert_eq!(all(&store, scan.reverse()).await.len(), 200);
}

#[tokio::test]
async fn a_key_that_the_contract_does_not_know_is_not_passed_over() {
    let folder = folder();
    let db = DB::open(&creating(), folder.path()).unwrap();
    db.put(b"", b"empty key").unwrap();
    drop(db);
    let store = open(folder.path()).await;
    let error = store.scan(Scan::all()).next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("0 bytes"), "{error}");
}

// --- snapshots and closing -----------------------------------------------------------------------

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

// --- writing -------------------------------------------------------------------------------------

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
    let db = DB::open_cf(&options, folder, ["default"]).unwrap();
    let store = RocksDb {
        reader: Reader::new(Engine::over(db, "default", sender).unwrap()),
        snapshots: Mutex::default(),
        profile: RocksDbConfig { sync, ..RocksDbConfig::new("x") }.profile().unwrap(),
        sync,
        gone,
    };
    (store, move || options.get_ticker_count(::rocksdb::statistics::Ticker::WalFileSynced))
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

// --- settings ------------------------------------------------------------------------------------

#[test]
fn settings_out_of_range_name_the_setting_and_the_range() {
    let good = || RocksDbConfig::new("x");
    for (config, words) in [
        (
            RocksDbConfig { block_cache_size: ByteSize(1), ..good() },
            ["block_cache_size", "1MiB to 1TiB"],
        ),
        (
            RocksDbConfig { write_buffer_size: Some(ByteSize(1)), ..good() },
            ["write_buffer_size", "64KiB to 64GiB"],
        ),
        (RocksDbConfig { write_buffers: Some(1), ..good() }, ["write_buffers", "2 to 64"]),
        (RocksDbConfig { bloom_bits: Some(33), ..good() }, ["bloom_bits", "0 to 32"]),
        (RocksDbConfig { background_jobs: Some(0), ..good() }, ["background_jobs", "1 to 256"]),
        (
            RocksDbConfig { column_family: String::new(), ..good() },
            ["column_family", "at least one"],
        ),
        (RocksDbConfig::new(""), ["path", "empty"]),
    ] {
        let error = config.profile().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
    }
}

#[test]
fn the_profile_follows_the_settings() {
    let profile = RocksDbConfig::new("x").profile().unwrap();
    assert_eq!(profile.guarantees.durability, Durability::PowerCut);
    assert_eq!(profile.guarantees.freshness, Freshness::Exclusive);
    assert!(profile.notes.is_empty());
    let fast =
        RocksDbConfig { sync: false, compaction: Some(Compaction::Off), ..RocksDbConfig::new("x") };
    let profile = fast.profile().unwrap();
    assert_eq!(profile.guarantees.durability, Durability::ProcessCrash);
    assert_eq!(profile.guarantees.durability_after_flush, Durability::PowerCut);
    assert_eq!(profile.notes.len(), 2);
}

#[cfg(feature = "config")]
#[test]
fn settings_are_read_from_a_file() {
    let text =
        r#"{"path": "d", "block_cache_size": "8MiB", "compression": "zstd", "compaction": "off"}"#;
    let config: RocksDbConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config.compression, Some(Compression::Zstd));
    assert_eq!(config.compaction, Some(Compaction::Off));
    assert!(config.create && config.sync && config.write_buffers.is_none());
    assert!(serde_json::from_str::<RocksDbConfig>("{}").is_err(), "`path` is required");
    assert!(serde_json::from_str::<RocksDbConfig>(r#"{"path": "d", "colour": 1}"#).is_err());
}

#[tokio::test]
async fn a_new_database_gets_the_settings_or_the_defaults() {
    let folder = folder();
    open(&folder.path().join("a/b")).await.close().await.unwrap();
    let options = latest_options(&folder.path().join("a/b"));
    for line in [
        "filter_policy=bloomfilter",
        "compression=kLZ4Compression",
        "disable_auto_compactions=false",
    ] {
        assert!(options.contains(line), "{line} in {options}");
    }
    let config = RocksDbConfig {
        write_buffer_size: Some(ByteSize(1 << 20)),
        write_buffers: Some(5),
        bloom_bits: Some(0),
        compression: Some(Compression::None),
        background_jobs: Some(3),
        compaction: Some(Compaction::Off),
        column_family: "mine".into(),
        ..RocksDbConfig::new(folder.path().join("c"))
    };
    RocksDb::open(config).await.unwrap().close().await.unwrap();
    let options = latest_options(&folder.path().join("c"));
    for line in [
        "write_buffer_size=1048576",
        "max_write_buffer_number=5",
        "filter_policy=nullptr",
        "compression=kNoCompression",
        "max_background_jobs=3",
        "disable_auto_compactions=true",
        "[CFOptions \"mine\"]",
    ] {
        assert!(options.contains(line), "{line} in {options}");
    }
}

// --- existing databases --------------------------------------------------------------------------

/// A database with three column families and unusual settings.
fn others(path: &Path) {
    let options = |compression, buffer| {
        let mut options = Options::default();
        options.set_compression_type(compression);
        options.set_write_buffer_size(buffer);
        options
    };
    let families = [
        ColumnFamilyDescriptor::new("default", options(DBCompressionType::Zlib, 1 << 20)),
        ColumnFamilyDescriptor::new("orders", options(DBCompressionType::Zstd, 2 << 20)),
        ColumnFamilyDescriptor::new("odd \"name\" #1", options(DBCompressionType::Bz2, 3 << 20)),
    ];
    let mut options = creating();
    options.set_max_background_jobs(5);
    let db = DB::open_cf_descriptors(&options, path, families).unwrap();
    for name in ["default", "orders", "odd \"name\" #1"] {
        let family = db.cf_handle(name).unwrap();
        for number in 0..100 {
            db.put_cf(&family, key(number), format!("{name}-{number}")).unwrap();
        }
        db.flush_cf(&family).unwrap();
    }
}

/// The lines of all column families' sections.
fn family_lines(options: &str) -> Vec<String> {
    let from = options.find("[CFOptions").unwrap();
    options[from..].lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn another_programs_database_is_read_as_it_is_and_keeps_its_options() {
    let folder = folder();
    others(folder.path());
    let before = latest_options(folder.path());
    for name in ["default", "orders", "odd \"name\" #1"] {
        let config = RocksDbConfig {
            column_family: name.into(),
            create: false,
            ..RocksDbConfig::new(folder.path())
        };
        let store = RocksDb::open(config).await.unwrap();
        assert_eq!(store.get(&key(42)).await.unwrap(), Some(format!("{name}-42").into()));
        assert_eq!(all(&store, Scan::all()).await.len(), 100);
        store.put("ours", "1").await.unwrap().durable().await.unwrap();
        store.close().await.unwrap();
    }
    let after = latest_options(folder.path());
    assert_eq!(family_lines(&before), family_lines(&after));
    assert!(after.contains("max_background_jobs=5"));
    assert!(after.contains("allow_data_in_errors=false"));
    let db = DB::open_cf(
        &Options::default(),
        folder.path(),
        DB::list_cf(&Options::default(), folder.path()).unwrap(),
    )
    .unwrap();
    let orders = db.cf_handle("orders").unwrap();
    assert_eq!(db.get_cf(&orders, "ours").unwrap(), Some(b"1".to_vec()));
    assert_eq!(db.get_cf(&orders, key(7)).unwrap(), Some(b"orders-7".to_vec()));
}

#[tokio::test]
async fn settings_that_are_named_change_the_one_column_family() {
    let folder = folder();
    others(folder.path());
    let config = RocksDbConfig {
        column_family: "orders".into(),
        write_buffer_size: Some(ByteSize(7 << 20)),
        write_buffers: Some(6),
        bloom_bits: Some(12),
        compression: Some(Compression::Snappy),
        background_jobs: Some(7),
        compaction: Some(Compaction::Off),
        ..RocksDbConfig::new(folder.path())
    };
    RocksDb::open(config).await.unwrap().close().await.unwrap();
    let options = latest_options(folder.path());
    assert!(options.contains("max_background_jobs=7"));
    for line in [
        "write_buffer_size=7340032",
        "max_write_buffer_number=6",
        "filter_policy=bloomfilter:12:false",
        "compression=kSnappyCompression",
        "disable_auto_compactions=true",
    ] {
        assert_eq!(options.matches(line).count(), 1, "{line} in {options}");
    }
}

#[tokio::test]
async fn what_only_another_program_can_read_is_refused_and_left_alone() {
    let merging = || {
        let mut options = creating();
        options.set_merge_operator_associative("append", |_, _, _| Some(Vec::new()));
        options
    };
    let built_in = || {
        creating().get_options_from_string("create_if_missing=true;create_missing_column_families=true;merge_operator=uint64add").unwrap()
    };
    let reversed = || {
        let mut options = creating();
        options.set_comparator("backwards", Box::new(|a, b| b.cmp(a)));
        options
    };
    for (options, word) in
        [(merging(), "append"), (built_in(), "UInt64AddOperator"), (reversed(), "backwards")]
    {
        for (name, used) in [("default", "default"), ("other", "other"), ("other", "default")] {
            let folder = folder();
            let families = [ColumnFamilyDescriptor::new(name, options.clone())];
            let db = DB::open_cf_descriptors(&creating(), folder.path(), families).unwrap();
            db.put_cf(&db.cf_handle(name).unwrap(), "k", "v").unwrap();
            drop(db);
            let before = image(folder.path());
            let config =
                RocksDbConfig { column_family: used.into(), ..RocksDbConfig::new(folder.path()) };
            let error = refusal(config).await;
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains(word) && text.contains(&format!("'{name}'")), "{text}");
            assert!(image(folder.path()) == before, "the folder was changed");
        }
    }
}

/// A copy of a database whose OPTIONS file names the folder of its log would replay the original's
/// log, and delete it; where that folder is gone, the copy's own log would not be found.
#[tokio::test]
async fn a_copy_does_not_consume_the_log_of_the_original() {
    let (original, copy, log) = (folder(), folder(), folder());
    let mut options = creating();
    options.set_wal_dir(log.path());
    let db = DB::open(&options, original.path()).unwrap();
    db.put("k", "v").unwrap();
    drop(db);
    for (name, bytes) in image(original.path()) {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    let before = image(log.path());
    let error = refusal(RocksDbConfig::new(copy.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(log.path().to_str().unwrap()), "{error}");
    assert!(image(log.path()) == before, "the log of the original was changed");
    let db = DB::open(&options, original.path()).unwrap();
    assert_eq!(db.get("k").unwrap(), Some(b"v".to_vec()));
}

/// Older versions of RocksDB record the database's own folder.
#[tokio::test]
async fn a_log_in_the_folder_of_the_database_is_read() {
    let folder = folder();
    let db = DB::open(&creating(), folder.path()).unwrap();
    db.put("k", "v").unwrap();
    drop(db);
    let own = format!("{}/.", folder.path().display());
    for (name, bytes) in image(folder.path()) {
        if name.starts_with("OPTIONS-") {
            let text = String::from_utf8(bytes).unwrap();
            let text = text.replace("[DBOptions]\n", &format!("[DBOptions]\n  wal_dir={own}\n"));
            fs::write(folder.path().join(name), text).unwrap();
        }
    }
    let store = open(folder.path()).await;
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_database_with_a_time_to_live_is_refused() {
    let folder = folder();
    let db =
        DB::open_with_ttl(&creating(), folder.path(), std::time::Duration::from_secs(60)).unwrap();
    db.put("k", "v").unwrap();
    drop(db);
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_missing_column_family_is_made_only_if_that_is_allowed() {
    let folder = folder();
    others(folder.path());
    let config = |create| RocksDbConfig {
        column_family: "new".into(),
        create,
        ..RocksDbConfig::new(folder.path())
    };
    let error = refusal(config(false)).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.message().contains("'new'") && error.message().contains("default, orders"),
        "{error}"
    );
    let store = RocksDb::open(config(true)).await.unwrap();
    store.put("k", "v").await.unwrap().durable().await.unwrap();
    store.close().await.unwrap();
    let store = RocksDb::open(config(false)).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn a_folder_of_other_files_is_left_alone() {
    let folder = folder();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let before = image(folder.path());
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("'notes.txt'"), "{error}");
    assert!(image(folder.path()) == before);
    let file = refusal(RocksDbConfig::new(folder.path().join("notes.txt"))).await;
    assert_eq!(file.kind(), ErrorKind::InvalidInput);
    let below = refusal(RocksDbConfig::new(folder.path().join("notes.txt/below"))).await;
    assert_eq!(below.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn nothing_there_is_made_only_if_that_is_allowed() {
    let folder = folder();
    for path in [folder.path().to_owned(), folder.path().join("missing")] {
        let config = RocksDbConfig { create: false, ..RocksDbConfig::new(&path) };
        let error = refusal(config).await;
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("`create`"), "{error}");
    }
    assert!(image(folder.path()).is_empty());
    // What a failed attempt leaves behind is no obstacle.
    fs::write(folder.path().join("LOCK"), "").unwrap();
    fs::write(folder.path().join("LOG"), "").unwrap();
    open(folder.path()).await.close().await.unwrap();
}

#[tokio::test]
async fn the_name_of_the_folder_may_be_relative_to_that_of_the_config() {
    let folder = folder();
    let context = Context { folder: folder.path().to_owned(), ..Context::default() };
    let store = RocksDbConfig::new("data/db").open(&context).await.unwrap();
    store.close().await.unwrap();
    assert!(folder.path().join("data/db/CURRENT").exists());
}

#[tokio::test]
async fn a_second_opener_is_told_and_the_first_is_not_disturbed() {
    let folder = folder();
    let store = open(folder.path()).await;
    store.put("k", "v").await.unwrap().durable().await.unwrap();
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("open elsewhere"), "{error}");
    store.put("k", "w").await.unwrap().durable().await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("w".into()));
    drop(store);
    open(folder.path()).await;
}

// --- damage --------------------------------------------------------------------------------------

/// A copy of a sound database with one file changed.
fn damaged(
    files: &BTreeMap<String, Vec<u8>>,
    name: &str,
    change: impl FnOnce(&mut Vec<u8>),
) -> TempDir {
    let copy = folder();
    for (file, bytes) in files {
        fs::write(copy.path().join(file), bytes).unwrap();
    }
    let mut bytes = files[name].clone();
    change(&mut bytes);
    fs::write(copy.path().join(name), bytes).unwrap();
    copy
}

fn sound() -> BTreeMap<String, Vec<u8>> {
    let folder = folder();
    foreign(folder.path(), &creating(), 200);
    image(folder.path())
}

fn named(files: &BTreeMap<String, Vec<u8>>, what: &str) -> String {
    files.keys().rfind(|name| name.contains(what)).unwrap().clone()
}

#[tokio::test]
async fn a_damaged_database_is_refused_with_what_to_do() {
    let files = sound();
    let (manifest, table) = (named(&files, "MANIFEST"), named(&files, ".sst"));
    let empty: fn(&mut Vec<u8>) = Vec::clear;
    let garbage: fn(&mut Vec<u8>) = |bytes| bytes.fill(b'x');
    let astray: fn(&mut Vec<u8>) = |bytes| *bytes = b"MANIFEST-999999\n".to_vec();
    let halved: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() / 2);
    for (name, change) in [
        ("CURRENT", empty),
        ("CURRENT", garbage),
        ("CURRENT", astray),
        (&manifest, empty),
        (&manifest, garbage),
        (&table, empty),
        (&table, halved),
    ] {
        let folder = damaged(&files, name, change);
        let error = refusal(RocksDbConfig::new(folder.path())).await;
        assert_eq!(error.kind(), ErrorKind::Corruption, "{name}: {error:?}");
        assert!(error.message().contains("restore it from a backup"), "{error}");
    }
    let folder = damaged(&files, &table, |_| ());
    fs::remove_file(folder.path().join("CURRENT")).unwrap();
    assert_eq!(refusal(RocksDbConfig::new(folder.path())).await.kind(), ErrorKind::Corruption);
    let folder = damaged(&files, &table, |_| ());
    fs::remove_file(folder.path().join(&table)).unwrap();
    assert_eq!(refusal(RocksDbConfig::new(folder.path())).await.kind(), ErrorKind::Corruption);
}

#[tokio::test]
async fn damage_within_the_log_is_refused_and_a_cut_off_end_is_not() {
    // All entries are in the log: what a crash leaves.
    let folder = folder();
    let db = DB::open(&creating(), folder.path()).unwrap();
    for entry in 0..2000 {
        db.put(key(entry), format!("value-{entry}")).unwrap();
    }
    let files = image(folder.path());
    drop(db);
    let log = named(&files, ".log");
    let middle = files[&log].len() / 2;

    let hurt = damaged(&files, &log, |bytes| bytes[middle] ^= 0x10);
    for _ in 0..2 {
        let error = refusal(RocksDbConfig::new(hurt.path())).await;
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error:?}");
    }
    assert_eq!(fs::read(hurt.path().join(&log)).unwrap()[..middle], files[&log][..middle]);
    fs::write(hurt.path().join(&log), &files[&log]).unwrap();
    let cut = damaged(&files, &log, |bytes| bytes.truncate(bytes.len() - 5));
    for (folder, entries) in [(&hurt, 2000), (&cut, 1999)] {
        let store = RocksDb::open(RocksDbConfig::new(folder.path())).await.unwrap();
        assert_eq!(all(&store, Scan::all()).await.len(), entries);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn without_an_options_file_nothing_is_guessed() {
    let folder = folder();
    foreign(folder.path(), &creating(), 1);
    for name in image(folder.path()).into_keys().filter(|name| name.starts_with("OPTIONS")) {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("OPTIONS"), "{error}");
}

#[tokio::test]
async fn a_format_from_the_future_is_named_as_one() {
    let files = sound();
    let options = named(&files, "OPTIONS");
    let folder = damaged(&files, &options, |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text
            .replace("rocksdb_version=11.8.1", "rocksdb_version=99.1.2")
            .replace("[DBOptions]", "[DBOptions]\n  telepathy=true")
            .into_bytes();
    });
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("99.1.2"), "{error}");
}

#[tokio::test]
async fn a_flipped_bit_gives_the_value_or_an_error_and_the_rest_stays_readable() {
    let files = sound();
    let table = named(&files, ".sst");
    let mut noticed = 0;
    for at in (0..files[&table].len()).step_by(41) {
        let folder = damaged(&files, &table, |bytes| bytes[at] ^= 0x10);
        let store = match RocksDb::open(RocksDbConfig::new(folder.path())).await {
            Ok(store) => store,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported),
                    "{error:?}"
                );
                noticed += 1;
                continue;
            }
        };
        match store.get(&key(7)).await {
            Ok(value) => assert_eq!(value, Some("value-7".into()), "byte {at}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error:?}");
                assert!(!format!("{error:?}").contains("key-0"), "{error:?}");
                noticed += 1;
            }
        }
        for page in store.scan(Scan::all()).collect::<Vec<_>>().await {
            if let Err(error) = page {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error:?}");
            }
        }
        store.put("written", "after").await.unwrap().durable().await.unwrap();
        assert_eq!(store.get(b"written").await.unwrap(), Some("after".into()));
        store.close().await.unwrap();
    }
    assert!(noticed > 0, "no flip hit the block that was read");
}
