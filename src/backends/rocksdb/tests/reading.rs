//! What memory answers, what the disk, and what a scan gives.

use std::time::Duration;

use super::*;
use crate::clock::ManualClock;

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

/// A database of ten blocks, under a clock that does not move: each read takes no time.
async fn of_blocks(folder: &Path, inline_reads: bool) -> (RocksDb, ManualClock) {
    let mut options = creating();
    options.set_compression_type(DBCompressionType::None);
    let db = DB::open(&options, folder).unwrap();
    for number in 0..10 {
        db.put(key(number), [b'v'; 5000]).unwrap();
    }
    db.flush().unwrap();
    drop(db);
    let clock = ManualClock::new();
    let config = RocksDbConfig { inline_reads, ..RocksDbConfig::new(folder) };
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    (RocksDb::open_with(config, &context).await.unwrap(), clock)
}

#[tokio::test]
async fn a_disk_that_answers_fast_is_read_inline_until_it_is_slow() {
    let folder = folder();
    let (store, clock) = of_blocks(folder.path(), true).await;
    let first = store.get(b"key-000000");
    assert!(matches!(first, Reply::Later(_)), "nobody knows how fast the disk is");
    assert!(first.await.unwrap().is_some());
    assert!(matches!(store.get(b"key-000001"), Reply::Now(Ok(Some(_)))));
    let keys = [key(2), "missing".into(), key(3)];
    assert!(matches!(store.get_many(&keys), Reply::Now(Ok(values)) if values.len() == 3));
    let snapshot = store.snapshot().await.unwrap();
    assert!(matches!(snapshot.get(b"key-000004"), Reply::Now(Ok(Some(_)))));

    let slow = Duration::from_millis(1);
    store.reader.view().unwrap().pace().probe(1, || clock.advance(slow));
    let after = store.get(b"key-000005");
    assert!(matches!(after, Reply::Later(_)));
    assert!(after.await.unwrap().is_some());
    assert!(matches!(store.get_many(&[key(6)]), Reply::Later(_)));
    clock.advance(slow * 20);
    assert!(store.get_many(&[key(6), key(7)]).await.unwrap().iter().all(Option::is_some));
    assert!(matches!(store.get(b"key-000008"), Reply::Now(Ok(Some(_)))), "many keys are a probe");
}

#[tokio::test]
async fn one_call_reads_eight_keys_inline_and_the_others_in_one_hop() {
    let folder = folder();
    let (store, _) = of_blocks(folder.path(), true).await;
    store.reader.view().unwrap().pace().probe(1, || ());
    let keys: Vec<Bytes> = (0..10).map(key).collect();
    let cold = store.get_many(&keys);
    assert!(matches!(cold, Reply::Later(_)));
    assert!(matches!(store.get_many(&keys[..8]), Reply::Now(Ok(_))), "read before it was awaited");
    assert!(cold.await.unwrap().iter().all(Option::is_some));
}

#[tokio::test]
async fn without_inline_reads_the_disk_is_read_in_threads() {
    let folder = folder();
    let (store, _) = of_blocks(folder.path(), false).await;
    for number in 0..3 {
        let wanted = [key(number)];
        let cold = store.get_many(&wanted);
        assert!(matches!(cold, Reply::Later(_)));
        assert!(cold.await.unwrap().iter().all(Option::is_some));
    }
    let wanted = key(5);
    assert!(matches!(store.get(&wanted), Reply::Later(_)));
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
    let recorded = latest_options(folder.path());
    assert!(recorded.contains("filter_policy=bloomfilter\n"));
    // First a table of the other program is read, then one that was written here.
    for from in [0, 100] {
        let store = open(folder.path()).await;
        let missing = (from..from + 50).filter(|number| {
            matches!(store.get(format!("key-{number:06}x").as_bytes()), Reply::Now(Ok(None)))
        });
        assert!(missing.count() > 40, "the filter would answer nearly all without the disk");
        for number in 100..200 {
            store.put(key(number), "ours").await.unwrap().durable().await.unwrap();
        }
        store.reader.view().unwrap().db().flush().unwrap();
        store.close().await.unwrap();
        assert_eq!(latest_options(folder.path()), recorded);
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
