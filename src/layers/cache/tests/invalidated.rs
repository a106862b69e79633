//! Invalidation by key, prefix, and all.

use metrics_util::debugging::DebuggingRecorder;
use tokio_test::assert_pending;
use tokio_test::task::spawn;

use super::change_feed::{counted, following};
use super::*;
use crate::testing::conformance::{Fixture, assert_conforms};

/// One of each kind, all of which have the key `k1`.
fn scopes() -> [Scope; 3] {
    [Scope::Keys(vec!["k1".into()]), Scope::Prefix("k".into()), Scope::All]
}

/// Whether it is answered from memory, without a load where it is not.
fn is_kept(cache: &Cache<Gated>, key: &str) -> bool {
    matches!(cache.0.lookup(key.as_bytes()), Lookup::Answer(_))
}

async fn read(cache: &Cache<Gated>, key: &str) -> Option<Value> {
    cache.get(key.as_bytes()).await.unwrap()
}

#[tokio::test]
async fn what_is_invalidated_is_loaded_again_and_the_rest_is_kept() {
    let config = CacheConfig { negative_ttl: Some(Span(Duration::from_secs(9))), ..settings() };
    for (scope, dropped) in scopes().into_iter().zip([1, 2, 4]) {
        let (cache, _) = cached(config.clone());
        let keys = ["k1", "k2", "other", "none"];
        for key in ["k1", "k2", "other"] {
            foreign(&cache, key, "old").await;
        }
        // So often that there are copies.
        for key in keys.repeat(4) {
            read(&cache, key).await;
        }
        for key in keys {
            foreign(&cache, key, "new").await;
        }
        cache.invalidate(scope.clone()).await.unwrap();
        let kept = keys.map(|key| is_kept(&cache, key));
        assert_eq!(kept.iter().filter(|kept| !**kept).count(), dropped, "{scope:?}: {kept:?}");
        for (key, kept) in keys.into_iter().zip(kept) {
            assert_eq!(read(&cache, key).await == Some("new".into()), !kept, "{scope:?} {key}");
            assert!(is_kept(&cache, key), "and is kept again");
        }
    }
}

#[tokio::test]
async fn a_load_that_an_invalidation_overtook_is_not_kept_and_nobody_joins_it() {
    for scope in scopes() {
        let (cache, _) = cached(settings());
        foreign(&cache, "k1", "old").await;
        cache.0.inner.reads.shut();
        let early = reader(&cache, b"k1");
        let bulk = tokio::spawn({
            let cache = cache.clone();
            async move { cache.get_many(&["k1".into()]).await }
        });
        settle().await;
        foreign(&cache, "k1", "new").await;
        cache.invalidate(scope.clone()).await.unwrap();
        let late = reader(&cache, b"k1");
        settle().await;
        cache.0.inner.reads.open();
        assert_eq!(early.await.unwrap().unwrap(), Some("old".into()), "it began before");
        assert_eq!(bulk.await.unwrap().unwrap(), [Some("old".into())], "it began before");
        assert_eq!(late.await.unwrap().unwrap(), Some("new".into()), "{scope:?}");
        assert_eq!(read(&cache, "k1").await, Some("new".into()), "{scope:?}");
    }
}

#[tokio::test]
async fn a_load_of_a_key_that_a_prefix_does_not_match_is_kept_and_joined() {
    let (cache, _) = cached(settings());
    foreign(&cache, "other", "v").await;
    cache.0.inner.reads.shut();
    let early = reader(&cache, b"other");
    settle().await;
    cache.invalidate(Scope::Prefix("k".into())).await.unwrap();
    let late = reader(&cache, b"other");
    settle().await;
    cache.0.inner.reads.open();
    early.await.unwrap().unwrap();
    late.await.unwrap().unwrap();
    assert_eq!(asked(&cache), 1);
    assert!(is_kept(&cache, "other"));
}

/// While the store below drops what it keeps, it may still give it to a load.
#[tokio::test]
async fn what_is_read_before_the_store_below_has_dropped_it_is_dropped_as_well() {
    for scope in scopes() {
        let (cache, _) = cached(settings());
        foreign(&cache, "k1", "old").await;
        cache.0.inner.invalidations.shut();
        let mut invalidation = spawn(cache.invalidate(scope.clone()));
        assert_pending!(invalidation.poll());
        assert_eq!(read(&cache, "k1").await, Some("old".into()));
        assert!(is_kept(&cache, "k1"));
        foreign(&cache, "k1", "new").await;
        cache.0.inner.invalidations.open();
        invalidation.into_inner().await.unwrap();
        assert_eq!(read(&cache, "k1").await, Some("new".into()), "{scope:?}");
    }
}

#[tokio::test]
async fn an_error_below_is_given_and_what_is_kept_here_is_dropped() {
    for scope in scopes() {
        let (cache, _) = cached(settings());
        foreign(&cache, "k1", "old").await;
        read(&cache, "k1").await;
        cache.0.inner.fail.store(true, Ordering::SeqCst);
        let error = cache.invalidate(scope).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!is_kept(&cache, "k1"));
    }
}

#[tokio::test]
async fn of_two_caches_neither_keeps_what_was_invalidated_through_the_outer_one() {
    for scope in scopes() {
        let (inner, _) = cached(settings());
        let outer = CacheLayer::new(&settings(), &Context::default()).unwrap().layer(inner.clone());
        foreign(&inner, "k1", "old").await;
        outer.get(b"k1").await.unwrap();
        foreign(&inner, "k1", "new").await;
        outer.invalidate(scope).await.unwrap();
        assert!(!is_kept(&inner, "k1"));
        assert_eq!(outer.get(b"k1").await.unwrap(), Some("new".into()));
    }
}

#[tokio::test]
async fn who_listens_to_the_cache_is_told() {
    let (cache, _) = following().await;
    let mut changes = cache.changes().await.unwrap();
    for (scope, change) in scopes().into_iter().zip([
        Change::Keys(vec!["k1".into()]),
        Change::Prefix("k".into()),
        Change::Prefix("".into()),
    ]) {
        cache.invalidate(scope).await.unwrap();
        assert_eq!(changes.next().await, Some(change));
    }
}

/// A cache further out that took it for the end of the loss would keep what nobody tells it about.
#[tokio::test]
async fn an_invalidation_does_not_end_the_loss_of_the_connection() {
    let (inner, clock) = following().await;
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let outer = CacheLayer::new(&settings(), &context).unwrap().layer(inner.clone());
    outer.get(b"k1").await.unwrap();
    settle().await;
    assert!(outer.0.coherence.epochs.now().keeps());
    inner.0.inner.report(Change::Lost);
    settle().await;
    for scope in scopes() {
        inner.invalidate(scope.clone()).await.unwrap();
        outer.invalidate(scope).await.unwrap();
        settle().await;
        assert!(!inner.0.coherence.epochs.now().keeps() && !outer.0.coherence.epochs.now().keeps());
    }
    inner.0.inner.report(Change::All);
    settle().await;
    assert!(outer.0.coherence.epochs.now().keeps());
    outer.close().await.unwrap();
}

#[tokio::test]
async fn a_prefix_that_the_store_below_reports_is_dropped_and_passed_on() {
    let (cache, _) = following().await;
    let mut changes = cache.changes().await.unwrap();
    for key in ["k1", "other"] {
        foreign(&cache, key, "old").await;
        read(&cache, key).await;
    }
    cache.0.inner.report(Change::Prefix("k".into()));
    assert_eq!(changes.next().await, Some(Change::Prefix("k".into())));
    assert!(!is_kept(&cache, "k1") && is_kept(&cache, "other"));
}

#[tokio::test]
async fn invalidations_are_counted_by_cause() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (cache, _) = cached(settings());
    cache.invalidate(Scope::Keys(vec!["a".into(), "b".into()])).await.unwrap();
    cache.invalidate(Scope::Prefix("a".into())).await.unwrap();
    cache.invalidate(Scope::All).await.unwrap();
    let count = counted(&recorder);
    for (cause, times) in [("key", 2.0), ("prefix", 1.0), ("all", 1.0)] {
        assert_eq!(count("tierstack_cache_invalidations_total", cause), times, "{cause}");
    }
}

/// As many prefixes as the table holds, and the last one.
fn filling() -> impl Iterator<Item = Scope> {
    (0..4096).map(|n| Scope::Prefix(format!("p{n:04}").into()))
}

#[tokio::test]
async fn when_the_prefixes_are_full_what_they_match_is_removed_and_the_rest_is_kept() {
    let (cache, _) = cached(settings());
    for key in ["p0000/a", "p4095/a", "p4095", "p409", "other"] {
        let _ = cache.put(key, "old").await.unwrap();
        // So often that there is a copy.
        for _ in 0..4 {
            read(&cache, key).await;
        }
    }
    for key in ["p0001/a", "late"] {
        foreign(&cache, key, "old").await;
    }
    cache.0.inner.reads.shut();
    let early = [reader(&cache, b"p0001/a"), reader(&cache, b"late")];
    settle().await;
    for (n, scope) in filling().enumerate() {
        cache.invalidate(scope).await.unwrap();
        // Still there, as nobody has looked.
        assert_eq!(cache.0.engine.peek(b"p0000/a").is_some(), n < 4095, "{n}");
    }
    assert!(cache.0.engine.peek(b"p4095/a").is_none() && cache.0.engine.peek(b"p4095").is_none());
    assert!(!is_kept(&cache, "p0000/a") && !is_kept(&cache, "p4095"));
    assert!(is_kept(&cache, "p409") && is_kept(&cache, "other"));
    // These began before the prefixes were forgotten.
    let late = reader(&cache, b"p0001/a");
    settle().await;
    cache.0.inner.reads.open();
    for reader in early {
        reader.await.unwrap().unwrap();
    }
    late.await.unwrap().unwrap();
    assert_eq!(asked(&cache), 8, "no reader joined the load from before the invalidation");
    assert!(!is_kept(&cache, "late"), "a load from before the sweep is not kept");
    read(&cache, "late").await;
    assert!(is_kept(&cache, "late"));
    // And the next round begins.
    read(&cache, "p0000/a").await;
    cache.invalidate(Scope::Prefix("p0000".into())).await.unwrap();
    assert!(!is_kept(&cache, "p0000/a") && is_kept(&cache, "other"));
}

/// A load that looked at the prefixes before they were full, and keeps what it found during the sweep.
#[tokio::test]
async fn an_entry_that_is_found_before_the_sweep_ends_is_not_served_after_it() {
    let (cache, _) = cached(settings());
    let _ = cache.put("p0000", "old").await.unwrap();
    read(&cache, "p0000").await;
    let epochs = &cache.0.coherence.epochs;
    let mut scopes = filling();
    cache.invalidate(scopes.next().unwrap()).await.unwrap();
    let (looked, found) = (epochs.now(), cache.0.engine.peek(b"p0000").unwrap());
    for scope in scopes {
        cache.invalidate(scope).await.unwrap();
    }
    assert!(!epochs.serve(looked, found.epoch, b"p0000"));
}

/// Writers behind the back of the cache that invalidate what they wrote, in every way, and readers through
/// it, on real threads. Once an invalidation is acknowledged, no reader sees less than what it was about.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_sees_less_than_what_was_invalidated() {
    const WRITERS: usize = 4;
    const WRITES: u64 = 4000;

    let below = Gated::new(SystemClock::shared());
    let inner = CacheLayer::new(&settings(), &Context::default()).unwrap().layer(below);
    let cache = CacheLayer::new(&settings(), &Context::default()).unwrap().layer(inner.clone());
    let written: Arc<[AtomicU64; WRITERS]> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let key = |writer: usize| Bytes::from(format!("key {writer}"));

    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (cache, inner, written) = (cache.clone(), inner.clone(), Arc::clone(&written));
            tokio::spawn(async move {
                for number in 1..=WRITES {
                    let value = number.to_be_bytes().to_vec();
                    let _ = inner.0.inner.memory.put(key(writer), value).await.unwrap();
                    // Three of four are different prefixes, so that there are sweeps as well.
                    for n in 0..3 {
                        let other = format!("{writer} {number} {n}");
                        cache.invalidate(Scope::Prefix(other.into())).await.unwrap();
                    }
                    let scope = match number % 1500 {
                        0 => Scope::All,
                        1..400 => Scope::Keys(vec![key(writer)]),
                        400..800 => Scope::Prefix("key".into()),
                        _ => Scope::Prefix(key(writer)),
                    };
                    cache.invalidate(scope).await.unwrap();
                    written[writer].store(number, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..4usize)
        .map(|reader| {
            let (cache, written) = (cache.clone(), Arc::clone(&written));
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                let (mut at, mut hits) = (reader, 0u64);
                while !done.load(Ordering::SeqCst) {
                    at = (at * 7 + 3) % WRITERS;
                    let before = written[at].load(Ordering::SeqCst);
                    let key = key(at);
                    let reply = cache.get(&key);
                    hits += u64::from(matches!(reply, Reply::Now(_)));
                    let value = reply.await.unwrap();
                    let read = value
                        .map_or(0, |value| u64::from_be_bytes(value.bytes[..].try_into().unwrap()));
                    assert!(read >= before, "read {read} after {before} was invalidated");
                    tokio::task::yield_now().await;
                }
                hits
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let mut hits = 0;
    for reader in readers {
        hits += reader.await.unwrap();
    }
    assert!(hits > 0, "nothing was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_where_others_change_what_nobody_reports() {
    assert_conforms(|| async {
        let below = Arc::new(Memory::new());
        let cache =
            CacheLayer::new(&settings(), &Context::default()).unwrap().layer(Arc::clone(&below));
        Ok(Fixture::new(cache).changed_by(move |op| {
            let below = Arc::clone(&below);
            async move { below.write([op].into_iter().collect()).await.map(drop) }
        }))
    })
    .await;
}
