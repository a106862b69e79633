//! The second level: what is on the disk is what is below, or it is not served.

use super::*;
use crate::types::{Durability, Guarantees, Inspection, Presence, Scope};

fn config(folder: &tempfile::TempDir) -> CacheConfig {
    let path = folder.path().join("disk");
    let disk =
        Some(DiskConfig { path, capacity: ByteSize(16 << 20), index_memory: None, warm: false });
    CacheConfig { disk, capacity: ByteSize(64 << 10), ..settings() }
}

/// A cache whose disk is written by hand.
fn two_levels(config: CacheConfig, change_feed: Option<Duration>) -> (Cache<Gated>, ManualClock) {
    let clock = ManualClock::new();
    let context = Context { clock: Arc::new(clock.clone()), below: Some(1), ..Context::default() };
    let below = Gated { change_feed, ..Gated::new(Arc::clone(&context.clock)) };
    let plain = CacheConfig { disk: None, ..config.clone() };
    let disk = Disk::by_hand(config.disk.as_ref().unwrap(), &context).unwrap();
    let layer = CacheLayer {
        config,
        disk: UnclaimedDisk::of(disk),
        ..CacheLayer::new(&plain, &context).unwrap()
    };
    (layer.layer(below), clock)
}

fn write_out(cache: &Cache<Gated>) {
    cache.0.disk.as_ref().unwrap().write_out();
}

/// Whether the disk has a copy.
fn on_disk(cache: &Cache<Gated>, key: &[u8]) -> bool {
    cache.0.disk.as_ref().unwrap().level().may_hold(key)
}

async fn below(cache: &Cache<Gated>, key: &'static str, value: impl Into<Value>) {
    let _ = cache.0.inner.memory.put(key, value).await.unwrap();
}

/// Reads a key, so that it is on the disk, and lets the memory evict it.
async fn put_on_disk(cache: &Cache<Gated>, key: &'static [u8]) {
    get(cache, key).await.unwrap();
    write_out(cache);
    assert!(on_disk(cache, key));
    cache.0.engine.remove(key);
}

#[tokio::test]
async fn what_the_memory_has_no_room_for_comes_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    let keys: Vec<Bytes> = (0..300u32).map(|n| n.to_be_bytes().to_vec().into()).collect();
    for key in &keys {
        let value = [key.as_ref(), &[7; 1000]].concat();
        let _ = cache.0.inner.memory.put(key.clone(), value).await.unwrap();
    }
    for round in 0..3 {
        for key in &keys {
            let value = cache.get(key).await.unwrap().unwrap();
            assert!(value.bytes.starts_with(key));
        }
        assert_eq!(asked(&cache), 300, "round {round}");
        write_out(&cache);
        assert!(cache.0.engine.bytes() <= 64 << 10);
    }
    let values = cache.get_many(&keys).await.unwrap();
    assert!(keys.iter().zip(values).all(|(key, value)| value.unwrap().bytes.starts_with(key)));
    assert_eq!(asked(&cache), 300);
}

#[tokio::test]
async fn what_was_found_on_the_disk_is_kept_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", "v").await;
    put_on_disk(&cache, b"k").await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
    assert!(matches!(cache.get(b"k"), Reply::Now(Ok(Some(_)))));
    assert_eq!(asked(&cache), 1);
}

#[tokio::test]
async fn a_write_and_a_delete_remove_the_copy_before_they_are_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", "old").await;
    put_on_disk(&cache, b"k").await;
    let _ = cache.put("k", "new").await.unwrap();
    assert!(!on_disk(&cache, b"k"));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    put_on_disk(&cache, b"k").await;
    let _ = cache.delete("k").await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), None);
    // Its outcome is unknown, so nothing is written there meanwhile.
    below(&cache, "k", "old").await;
    cache.0.inner.fail.store(true, Ordering::SeqCst);
    cache.put("k", "new").await.unwrap_err();
    cache.0.inner.fail.store(false, Ordering::SeqCst);
    get(&cache, b"k").await.unwrap();
    assert!(!on_disk(&cache, b"k"));
}

/// Whatever engine evicts it, and whatever was there of the key before.
#[tokio::test]
async fn what_was_written_and_evicted_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(CacheConfig { on_write: OnWrite::Keep, ..config(&folder) }, None);
    below(&cache, "k", "old").await;
    put_on_disk(&cache, b"k").await;
    let _ = cache.put("k", "new").await.unwrap();
    for n in 0..500u32 {
        let _ = cache.put(n.to_be_bytes().to_vec(), vec![0; 500]).await.unwrap();
    }
    cache.0.engine.finish();
    write_out(&cache);
    assert!(cache.0.engine.entries() < 250, "others were evicted");
    let loads = asked(&cache);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    let mut found = 0;
    for n in 0..500u32 {
        found += u32::from(cache.get(&n.to_be_bytes()).await.unwrap().is_some());
    }
    assert_eq!((found, asked(&cache) - loads), (500, 0), "everything is in one of both");
}

/// More waits to be written than may wait, so the close waits for the disk.
#[tokio::test]
async fn a_close_brings_everything_that_is_in_memory_to_a_warm_disk() {
    if settings().policy != Policy::S3Fifo {
        // Written at once, as far as the disk is fast enough.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.on_write = OnWrite::Keep;
    config.capacity = ByteSize(128 << 20);
    let disk = config.disk.as_mut().unwrap();
    (disk.warm, disk.capacity) = (true, ByteSize(256 << 20));
    let context = Context { below: Some(1), ..Context::default() };
    let layer = CacheLayer::new(&config, &context).unwrap();
    let guarantees =
        |guarantees: &mut Guarantees| guarantees.durability_after_flush = Durability::PowerCut;
    let cache = layer.layer(Gated { guarantees, ..Gated::new(Arc::clone(&context.clock)) });
    let keys: Vec<Bytes> = (0..1500u32).map(|n| n.to_be_bytes().to_vec().into()).collect();
    for key in &keys {
        let _ = cache.put(key.clone(), vec![key[3]; 60 << 10]).await.unwrap();
    }
    assert!(cache.0.engine.bytes() > 80 << 20);
    let level = Arc::clone(cache.0.disk.as_ref().unwrap().level());
    cache.0.empty_memory().await;
    assert!(keys.iter().all(|key| level.may_hold(key)));
    assert_eq!(cache.0.engine.entries(), 0);
    cache.close().await.unwrap();
}

#[tokio::test]
async fn a_load_that_a_write_overtook_does_not_reach_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", "old").await;
    cache.0.inner.reads.shut();
    let slow = reader(&cache, b"k");
    settle().await;
    let _ = cache.put("k", "new").await.unwrap();
    cache.0.inner.reads.open();
    slow.await.unwrap().unwrap();
    assert!(!on_disk(&cache, b"k"));
}

/// The write comes between the reading of the disk and the keeping.
#[tokio::test]
async fn a_copy_that_a_write_overtook_is_not_kept_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    for overtaken in [false, true] {
        below(&cache, "k", "old").await;
        put_on_disk(&cache, b"k").await;
        let ticket = cache.0.coherence.ticket(b"k");
        let level = cache.0.disk.as_ref().unwrap().level();
        let found = level.get_many(&["k".into()], Duration::from_secs(15)).await.remove(0).unwrap();
        if overtaken {
            let _ = cache.delete("k").await.unwrap();
        }
        cache.0.promote(b"k", &found, ticket);
        assert_eq!(cache.0.engine.get(b"k").is_some(), !overtaken);
    }
}

/// Without a write in between: a bulk read may have brought a later answer.
#[tokio::test]
async fn a_copy_does_not_replace_a_later_answer_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", "old").await;
    put_on_disk(&cache, b"k").await;
    let ticket = cache.0.coherence.ticket(b"k");
    let level = cache.0.disk.as_ref().unwrap().level();
    let found = level.get_many(&["k".into()], Duration::from_secs(15)).await.remove(0).unwrap();
    cache.0.take(b"k", &Ok(Some("foreign".into())), cache.0.now(), ticket);
    cache.0.promote(b"k", &found, ticket);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("foreign".into()));
}

/// A refresh, or a store that answers at once, may find what the disk does not know.
#[tokio::test]
async fn an_answer_that_is_not_kept_removes_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    for answer in [None, Some(Value::from(vec![0; 20 << 20]))] {
        below(&cache, "k", "old").await;
        put_on_disk(&cache, b"k").await;
        let ticket = cache.0.coherence.ticket(b"k");
        cache.0.take(b"k", &Ok(answer), cache.0.now(), ticket);
        assert!(!on_disk(&cache, b"k"));
    }
}

#[tokio::test]
async fn what_is_too_large_for_the_memory_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", vec![1; 60 << 10]).await;
    for _ in 0..3 {
        assert_eq!(get(&cache, b"k").await.unwrap().unwrap().bytes.len(), 60 << 10);
        write_out(&cache);
    }
    assert_eq!((asked(&cache), cache.0.engine.bytes()), (1, 0));
}

#[tokio::test]
async fn a_ttl_goes_on_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let ttl = Some(Span(Duration::from_secs(10)));
    let (cache, clock) = two_levels(CacheConfig { ttl, ..config(&folder) }, None);
    below(&cache, "k", "old").await;
    put_on_disk(&cache, b"k").await;
    below(&cache, "k", "new").await;
    clock.advance(Duration::from_secs(9));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
    clock.advance(Duration::from_secs(1));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    assert_eq!(asked(&cache), 2);
}

/// The disk has what the refresh is to replace.
#[tokio::test]
async fn a_refresh_does_not_ask_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let config = CacheConfig {
        ttl: Some(Span(Duration::from_secs(10))),
        refresh_ahead: Some("0.5".parse().unwrap()),
        ..config(&folder)
    };
    let (cache, clock) = two_levels(config, None);
    below(&cache, "k", "old").await;
    put_on_disk(&cache, b"k").await;
    get(&cache, b"k").await.unwrap();
    below(&cache, "k", "new").await;
    clock.advance(Duration::from_secs(6));
    assert_eq!(
        get(&cache, b"k").await.unwrap(),
        Some("old".into()),
        "it is loaded again meanwhile"
    );
    settle().await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn nobody_reads_it_on_the_disk_so_idle_goes_on_there() {
    let folder = tempfile::tempdir().unwrap();
    let idle = Some(Span(Duration::from_secs(10)));
    let (cache, clock) = two_levels(CacheConfig { idle, ..config(&folder) }, None);
    below(&cache, "k", "old").await;
    put_on_disk(&cache, b"k").await;
    below(&cache, "k", "new").await;
    clock.advance(Duration::from_secs(10));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn what_forgets_everything_empties_the_disk() {
    let change_feed = Some(Duration::from_secs(1));
    for change in [Change::All, Change::Lost, Change::Keys(vec!["k".into()])] {
        let folder = tempfile::tempdir().unwrap();
        let (cache, _) = two_levels(config(&folder), change_feed);
        get(&cache, b"first").await.unwrap();
        settle().await;
        below(&cache, "k", "old").await;
        put_on_disk(&cache, b"k").await;
        below(&cache, "k", "new").await;
        cache.0.inner.report(change);
        settle().await;
        assert!(!on_disk(&cache, b"k"));
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    }
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", "old").await;
    put_on_disk(&cache, b"k").await;
    let run = Entry { key: "k".into(), value: "new".into() };
    let page = Page { entries: vec![run] };
    cache.ingest(futures_util::stream::iter([Ok(page)]).boxed()).await.unwrap();
    assert!(!on_disk(&cache, b"k"));
}

#[tokio::test]
async fn what_is_invalidated_is_not_served_from_the_disk() {
    let scopes = [
        Scope::Keys(vec!["user:1".into()]),
        Scope::Prefix("user:".into()),
        Scope::Prefix("".into()),
        Scope::All,
    ];
    for scope in scopes {
        let folder = tempfile::tempdir().unwrap();
        let (cache, _) = two_levels(config(&folder), None);
        for key in ["user:1", "order:1"] {
            below(&cache, key, "old").await;
            put_on_disk(&cache, key.as_bytes()).await;
            below(&cache, key, "new").await;
        }
        cache.invalidate(scope.clone()).await.unwrap();
        assert_eq!(get(&cache, b"user:1").await.unwrap(), Some("new".into()));
        let others =
            matches!(&scope, Scope::All) || matches!(&scope, Scope::Prefix(all) if all.is_empty());
        let expected = if others { "new" } else { "old" };
        assert_eq!(get(&cache, b"order:1").await.unwrap(), Some(expected.into()), "{scope:?}");
    }
}

/// What the memory evicts after its prefix was invalidated, and what is there when the prefixes are full.
#[tokio::test]
async fn a_copy_that_an_invalidation_matches_does_not_come_back() {
    for prefixes in [1, 5000] {
        let folder = tempfile::tempdir().unwrap();
        let (cache, _) = two_levels(config(&folder), None);
        below(&cache, "user:1", "old").await;
        get(&cache, b"user:1").await.unwrap();
        let kept = cache.0.engine.get(b"user:1").unwrap();
        for n in 0..prefixes {
            let prefix = if n == 0 { "user:".to_owned() } else { n.to_string() };
            cache.invalidate(Scope::Prefix(prefix.into())).await.unwrap();
            if n == 0 {
                let level = cache.0.disk.as_ref().unwrap().level();
                level.remove(b"user:1");
                level.offer_evicted(b"user:1", &"old".into(), CoarseTime::NEVER, kept.epoch);
            }
        }
        below(&cache, "user:1", "new").await;
        cache.0.engine.remove(b"user:1");
        assert_eq!(get(&cache, b"user:1").await.unwrap(), Some("new".into()), "{prefixes}");
    }
}

#[tokio::test]
async fn an_inspection_tells_what_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", "v").await;
    put_on_disk(&cache, b"k").await;
    let places = |found: Vec<Inspection>| -> Vec<(String, Presence)> {
        found.into_iter().map(|found| (found.place, found.presence)).take(2).collect()
    };
    let found = places(cache.inspect(b"k").await.unwrap());
    assert_eq!(found, [("memory".into(), Presence::None), ("disk".into(), Presence::Entry)]);
    cache.invalidate(Scope::Prefix("k".into())).await.unwrap();
    let found = places(cache.inspect(b"k").await.unwrap());
    assert_eq!(found[1], ("disk".into(), Presence::None));
}

/// An epoch ends a moment before the disk is emptied.
#[tokio::test]
async fn a_copy_of_an_epoch_that_has_ended_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", "old").await;
    put_on_disk(&cache, b"k").await;
    below(&cache, "k", "new").await;
    cache.0.coherence.epochs.renew();
    assert!(on_disk(&cache, b"k"));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn a_bulk_read_asks_below_for_what_neither_level_has() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        below(&cache, key, value).await;
    }
    put_on_disk(&cache, b"b").await;
    get(&cache, b"a").await.unwrap();
    let keys = ["c", "b", "none", "a"].map(Bytes::from);
    let values = cache.get_many(&keys).await.unwrap();
    assert_eq!(values, [Some("3".into()), Some("2".into()), None, Some("1".into())]);
    assert_eq!(asked(&cache), 3);
}

#[tokio::test]
async fn each_read_is_counted_once() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", "v").await;
    put_on_disk(&cache, b"k").await;
    get(&cache, b"k").await.unwrap();
    get(&cache, b"k").await.unwrap();
    let mut counts = Vec::new();
    crate::telemetry::gather();
    for (key, _, _, value) in recorder.snapshotter().snapshot().into_vec() {
        let result = key.key().labels().find(|label| label.key() == "result");
        if let (Some(result), DebugValue::Counter(count @ 1..)) = (result, value) {
            counts.push((result.value().to_owned(), count));
        }
    }
    counts.sort();
    let one = |result: &str| (result.to_owned(), 1);
    assert_eq!(counts, [one("disk"), one("hit"), one("miss")]);
}

#[tokio::test]
async fn with_s3_fifo_what_is_evicted_is_written_if_it_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", "v").await;
    put_on_disk(&cache, b"k").await;
    get(&cache, b"k").await.unwrap();
    // As if its segment were gone.
    cache.0.disk.as_ref().unwrap().level().remove(b"k");
    for n in 0..500u32 {
        let _ = cache.0.inner.memory.put(n.to_be_bytes().to_vec(), vec![0; 500]).await.unwrap();
        for _ in 0..3 {
            cache.get(&n.to_be_bytes()).await.unwrap();
        }
    }
    cache.0.engine.finish();
    assert!(cache.0.engine.get(b"k").is_none());
    let quick = settings().policy == Policy::S3Fifo;
    assert_eq!(on_disk(&cache, b"k"), quick);
}

#[tokio::test]
async fn a_disk_that_fails_is_noticed_by_no_reader_or_writer() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = two_levels(config(&folder), None);
    below(&cache, "k", "v").await;
    put_on_disk(&cache, b"k").await;
    cache.0.disk.as_ref().unwrap().break_it();
    for _ in 0..2 {
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("v".into()));
        let _ = cache.put("k", "v").await.unwrap();
        write_out(&cache);
    }
    assert!(!on_disk(&cache, b"k"));
}

#[tokio::test]
async fn over_a_store_that_a_power_cut_empties_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.disk.as_mut().unwrap().warm = true;
    let context = Context::default();
    let open = || {
        let layer = CacheLayer::new(&config, &context).unwrap();
        layer.layer(Gated::new(Arc::clone(&context.clock)))
    };
    let cache = open();
    below(&cache, "k", "v").await;
    get(&cache, b"k").await.unwrap();
    cache.close().await.unwrap();
    let cache = open();
    assert_eq!(get(&cache, b"k").await.unwrap(), None);
}

#[tokio::test]
async fn for_those_that_only_read_no_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context { may_create: false, ..Context::default() };
    let open = || {
        let layer = CacheLayer::new(&config(&folder), &context).unwrap();
        layer.layer(Gated::new(Arc::clone(&context.clock)))
    };
    assert!(open().0.disk.is_none());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    std::fs::create_dir(folder.path().join("disk")).unwrap();
    assert!(open().0.disk.is_some());
}

#[tokio::test]
async fn one_store_of_a_layer_has_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::default();
    let layer = CacheLayer::new(&config(&folder), &context).unwrap();
    let stores = [0, 1].map(|_| layer.layer(Gated::new(Arc::clone(&context.clock))));
    assert_eq!(stores.map(|store| store.0.disk.is_some()), [true, false]);
}
