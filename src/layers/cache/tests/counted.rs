//! Each read is counted once, by what came of it, and each load is measured.

use super::*;

fn seconds(seconds: u64) -> Option<Span> {
    Some(Span(Duration::from_secs(seconds)))
}

fn config() -> CacheConfig {
    CacheConfig {
        capacity: ByteSize(64 << 10),
        ttl: seconds(60),
        negative_ttl: seconds(60),
        error_ttl: seconds(60),
        refresh_ahead: Some(Fraction::percent(50)),
        stale_while_refresh: seconds(30),
        stale_if_error: seconds(60),
        ..settings()
    }
}

/// What was counted since the last look, without what was not.
fn requests(read: &mut impl FnMut() -> Counted, before: &mut Counted) -> Vec<(String, f64)> {
    let after = read();
    let names = ["tierstack_cache_requests_total ", "tierstack_cache_refreshes_total "];
    let mut changed = Vec::new();
    for (series, count) in &after {
        let change = count - before.get(series).unwrap_or(&0.0);
        if let Some(label) = names.iter().find_map(|name| series.strip_prefix(name))
            && change != 0.0
        {
            changed.push((label.to_owned(), change));
        }
    }
    *before = after;
    changed.sort_by(|a, b| a.0.cmp(&b.0));
    changed
}

#[tokio::test]
async fn each_read_is_counted_once_by_what_came_of_it() {
    for at_once in [false, true] {
        let (cache, clock, mut read) = recorded(config());
        cache.0.inner.at_once.store(at_once, Ordering::SeqCst);
        let mut before = Counted::new();
        let mut counted = |expected: &[(&str, f64)]| {
            let found = requests(&mut read, &mut before);
            let expected: Vec<_> = expected.iter().map(|(l, c)| ((*l).to_owned(), *c)).collect();
            assert_eq!(found, expected);
        };
        foreign(&cache, "k", "v").await;
        let _ = cache.0.inner.memory.put("large", vec![0; 10 << 10]).await.unwrap();
        get(&cache, b"k").await.unwrap();
        get(&cache, b"none").await.unwrap();
        counted(&[("miss", 2.0)]);
        get(&cache, b"k").await.unwrap();
        get(&cache, b"none").await.unwrap();
        counted(&[("hit", 1.0), ("negative", 1.0)]);
        get(&cache, b"large").await.unwrap();
        counted(&[("bypass", 1.0)]);
        let many = ["k", "none", "large", "other"].map(Bytes::from);
        cache.get_many(&many).await.unwrap();
        counted(&[("bypass", 1.0), ("hit", 1.0), ("miss", 1.0), ("negative", 1.0)]);

        // Late in its ttl, and past it.
        for (after, result) in [(30, "hit"), (60, "stale")] {
            clock.advance(Duration::from_secs(after));
            get(&cache, b"k").await.unwrap();
            settle().await;
            match at_once {
                false if result == "hit" => counted(&[(result, 1.0), ("kept", 1.0)]),
                false => counted(&[("kept", 1.0), (result, 1.0)]),
                true => counted(&[("miss", 1.0)]),
            }
        }
        clock.advance(Duration::from_secs(60));
        fail(&cache, Some(ErrorKind::Unavailable));
        get(&cache, b"k").await.unwrap();
        settle().await;
        match at_once {
            false => counted(&[("failed", 1.0), ("stale", 1.0)]),
            true => counted(&[("stale", 1.0)]),
        }
        get(&cache, b"k").await.unwrap();
        counted(&[("stale", 1.0)]);
        clock.advance(Duration::from_secs(30));
        get(&cache, b"k").await.unwrap();
        cache.get_many(&many[..1]).await.unwrap();
        counted(&[("stale", 2.0)]);
        clock.advance(Duration::from_secs(30));
        get(&cache, b"k").await.unwrap_err();
        counted(&[("miss", 1.0)]);
        get(&cache, b"k").await.unwrap_err();
        counted(&[("error", 1.0)]);
    }
}

#[tokio::test]
async fn who_joins_a_load_is_counted_once() {
    let (cache, clock, mut read) = recorded(config());
    let mut before = Counted::new();
    foreign(&cache, "k", "v").await;
    cache.0.inner.reads.shut();
    let readers: Vec<_> = (0..3).map(|_| reader(&cache, b"k")).collect();
    settle().await;
    let many = [Bytes::from("k"), Bytes::from("other")];
    let mut bulk = tokio_test::task::spawn(cache.get_many(&many));
    tokio_test::assert_pending!(bulk.poll());
    cache.0.inner.reads.open();
    for reader in readers {
        reader.await.unwrap().unwrap();
    }
    bulk.into_inner().await.unwrap();
    let found = requests(&mut read, &mut before);
    assert_eq!(found, [("coalesced".to_owned(), 3.0), ("miss".to_owned(), 2.0)]);
    // With an old value to fall back on.
    for (after, failing, expected) in [
        (100, true, vec![("stale".to_owned(), 3.0)]),
        (1, false, vec![("coalesced".to_owned(), 2.0), ("miss".to_owned(), 1.0)]),
    ] {
        clock.advance(Duration::from_secs(after));
        fail(&cache, failing.then_some(ErrorKind::Unavailable));
        cache.0.inner.reads.shut();
        let readers: Vec<_> = (0..3).map(|_| reader(&cache, b"k")).collect();
        settle().await;
        cache.0.inner.reads.open();
        for reader in readers {
            reader.await.unwrap().unwrap();
        }
        assert_eq!(requests(&mut read, &mut before), expected);
    }
}

#[tokio::test]
async fn while_nothing_is_kept_reads_pass_by() {
    let (cache, _, mut read) = recorded(settings());
    cache.0.coherence.epochs.begin(Mode::Disconnected);
    get(&cache, b"k").await.unwrap();
    assert_eq!(requests(&mut read, &mut Counted::new()), [("bypass".to_owned(), 1.0)]);
}

#[tokio::test]
async fn a_refresh_that_is_not_kept_is_counted_so() {
    let (cache, clock, mut read) = recorded(config());
    foreign(&cache, "k", "v").await;
    get(&cache, b"k").await.unwrap();
    clock.advance(Duration::from_secs(30));
    cache.0.inner.reads.shut();
    get(&cache, b"k").await.unwrap();
    settle().await;
    let _ = cache.put("k", "new").await.unwrap();
    cache.0.inner.reads.open();
    settle().await;
    let counted = read();
    assert_eq!(counted["tierstack_cache_refreshes_total dropped"], 1.0);
    assert_eq!(counted["tierstack_cache_refreshes_total kept"], 0.0);
}

#[tokio::test]
async fn what_was_idle_is_counted_when_it_goes() {
    let (cache, clock, mut read) = recorded(CacheConfig { idle: seconds(5), ..settings() });
    foreign(&cache, "k", "v").await;
    get(&cache, b"k").await.unwrap();
    clock.advance(Duration::from_secs(5));
    get(&cache, b"k").await.unwrap();
    let counted = read();
    assert_eq!(counted["tierstack_cache_evictions_total idle"], 1.0);
    assert_eq!(counted["tierstack_cache_evictions_total expired"], 0.0);
    assert_eq!(counted["tierstack_cache_entries "], 1.0);
}

#[tokio::test]
async fn loads_are_measured_where_the_store_below_has_to_be_waited_for() {
    let recorder = DebuggingRecorder::new();
    let (cache, clock) = metrics::with_local_recorder(&recorder, || cached(settings()));
    cache.0.inner.reads.shut();
    let slow = reader(&cache, b"k");
    settle().await;
    clock.advance(Duration::from_millis(1500));
    cache.0.inner.reads.open();
    slow.await.unwrap().unwrap();
    cache.0.inner.at_once.store(true, Ordering::SeqCst);
    get(&cache, b"other").await.unwrap();
    let measured = cache.0.counters.load_duration.value();
    assert_eq!((measured.count(), measured.sum()), (1, Duration::from_millis(1500)));
}

#[tokio::test]
async fn throttled_entries_and_kept_errors_are_counted_as_what_they_take() {
    let (cache, clock, mut read) = recorded(config());
    foreign(&cache, "k", "v").await;
    get(&cache, b"k").await.unwrap();
    let plain = read()["tierstack_cache_bytes "];
    clock.advance(Duration::from_secs(100));
    fail(&cache, Some(ErrorKind::Unavailable));
    get(&cache, b"k").await.unwrap();
    cache.0.engine.finish();
    let held = read();
    assert_eq!(held["tierstack_cache_entries "], 1.0);
    assert!(held["tierstack_cache_bytes "] > plain);
    get(&cache, b"n").await.unwrap_err();
    cache.0.engine.finish();
    let failed = read();
    assert_eq!(failed["tierstack_cache_entries "], 2.0);
    assert!(failed["tierstack_cache_bytes "] > held["tierstack_cache_bytes "] + plain);
    let _ = cache.write(Batch::new().put("k", "v").put("n", "v")).await;
    cache.0.engine.finish();
    assert_eq!(super::kept(&read()), (0.0, 0.0));
}
