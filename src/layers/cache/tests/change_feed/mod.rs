//! What others change, as the store below reports it.

mod chained;
mod lost;
mod race;
mod subscribing;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use super::*;
use crate::layer::LayerConfig as _;

const WITHIN: Duration = Duration::from_secs(1);

fn config() -> CacheConfig {
    let negative_ttl = Some(Span(Duration::from_secs(3600)));
    CacheConfig { negative_ttl, ..settings() }
}

/// A cache that does not follow the feed yet, over a store that reports.
fn fresh() -> (Cache<Gated>, ManualClock) {
    fresh_with(config())
}

pub(super) fn fresh_with(config: CacheConfig) -> (Cache<Gated>, ManualClock) {
    let clock = ManualClock::new();
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let below = Gated { change_feed: Some(WITHIN), ..Gated::new(Arc::clone(&context.clock)) };
    (CacheLayer::new(&config, &context).unwrap().layer(below), clock)
}

/// A cache that follows.
pub(super) async fn following() -> (Cache<Gated>, ManualClock) {
    let (cache, clock) = fresh();
    get(&cache, b"first").await.unwrap();
    settle().await;
    assert_eq!(below(&cache).subscribed.load(Ordering::SeqCst), 1);
    assert!(follows(&cache));
    (cache, clock)
}

fn below(cache: &Cache<Gated>) -> &Gated {
    &cache.0.inner
}

fn follows(cache: &Cache<Gated>) -> bool {
    cache.0.coherence.epochs.now().keeps()
}

fn is_kept(cache: &Cache<Gated>, key: &[u8]) -> bool {
    matches!(cache.get(key), Reply::Now(Ok(_)))
}

fn keys(keys: &[&'static str]) -> Change {
    Change::Keys(keys.iter().map(|key| Bytes::from(*key)).collect())
}

/// Reports, and waits until the cache has dealt with it.
async fn report(cache: &Cache<Gated>, change: Change) {
    below(cache).report(change);
    settle().await;
}

#[tokio::test]
async fn a_key_that_others_changed_is_dropped_when_that_is_reported() {
    let (cache, _) = following().await;
    foreign(&cache, "k", "old").await;
    get(&cache, b"k").await.unwrap();
    get(&cache, b"none").await.unwrap();
    get(&cache, b"other").await.unwrap();
    foreign(&cache, "k", "new").await;
    foreign(&cache, "none", "new").await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()), "not reported yet");
    assert_eq!(get(&cache, b"none").await.unwrap(), None, "not reported yet");
    report(&cache, keys(&["k", "none"])).await;
    assert!(is_kept(&cache, b"other"));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    assert_eq!(get(&cache, b"none").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn a_load_that_a_foreign_change_overtook_is_not_kept() {
    let many = [Bytes::from("k"), Bytes::from("calm")];
    for change in [keys(&["k"]), Change::All] {
        let (cache, _) = following().await;
        foreign(&cache, "k", "old").await;
        foreign(&cache, "calm", "calm").await;
        below(&cache).reads.shut();
        let mut single = spawn(cache.get(b"k"));
        let mut bulk = spawn(cache.get_many(&many));
        assert_pending!(single.poll());
        assert_pending!(bulk.poll());
        settle().await;
        foreign(&cache, "k", "new").await;
        report(&cache, change.clone()).await;
        below(&cache).reads.open();
        assert_eq!(single.into_inner().await.unwrap(), Some("old".into()), "it asked before");
        assert_eq!(bulk.into_inner().await.unwrap()[0], Some("old".into()), "it asked before");
        settle().await;
        assert_eq!(is_kept(&cache, b"calm"), change != Change::All, "each key on its own");
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
        assert!(is_kept(&cache, b"k"));
    }
}

#[tokio::test]
async fn a_load_that_begins_after_the_report_is_kept() {
    let (cache, _) = following().await;
    foreign(&cache, "k", "new").await;
    report(&cache, keys(&["k"])).await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    assert!(is_kept(&cache, b"k"));
}

#[tokio::test]
async fn who_comes_after_a_foreign_change_does_not_join_a_load_from_before_it() {
    for change in [keys(&["k"]), Change::All, Change::Lost] {
        let (cache, _) = following().await;
        foreign(&cache, "k", "old").await;
        below(&cache).reads.shut();
        let early = reader(&cache, b"k");
        settle().await;
        foreign(&cache, "k", "new").await;
        report(&cache, change).await;
        let late = reader(&cache, b"k");
        settle().await;
        below(&cache).reads.open();
        assert_eq!(late.await.unwrap().unwrap(), Some("new".into()));
        early.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn everything_is_dropped_when_any_key_may_have_changed() {
    let (cache, _) = following().await;
    for key in ["a", "b"] {
        foreign(&cache, key, "old").await;
        get(&cache, key.as_bytes()).await.unwrap();
        foreign(&cache, key, "new").await;
    }
    report(&cache, Change::All).await;
    for key in [b"a", b"b"] {
        assert_eq!(get(&cache, key).await.unwrap(), Some("new".into()));
        assert!(is_kept(&cache, key));
    }
}

/// The engine is emptied a moment after the epoch has ended, so an entry may come behind that.
#[tokio::test]
async fn an_entry_that_comes_after_all_was_dropped_is_not_served() {
    for change in [Change::All, Change::Lost] {
        let (cache, _) = following().await;
        foreign(&cache, "k", "new").await;
        let epoch = cache.0.coherence.ticket(b"k").epoch;
        let (answer, until) = (Answer::Value("old".into()), CoarseTime::NEVER);
        let late = Cached { answer, until, epoch, extra: None };
        report(&cache, change).await;
        cache.0.engine.insert(b"k", late);
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    }
}

/// Reads a series whose labels contain that value.
pub(super) fn counted(recorder: &DebuggingRecorder) -> impl Fn(&str, &str) -> f64 {
    crate::telemetry::gather();
    let series = recorder.snapshotter().snapshot().into_vec();
    move |name, label| {
        let found = series.iter().filter(|(key, ..)| {
            let has = key.key().labels().any(|found| found.value() == label);
            key.key().name() == name && (label.is_empty() || has)
        });
        found
            .map(|(.., value)| match value {
                DebugValue::Counter(count) => *count as f64,
                DebugValue::Gauge(value) => value.into_inner(),
                DebugValue::Histogram(_) => 0.0,
            })
            .sum()
    }
}

#[tokio::test]
async fn what_is_dropped_is_counted_by_cause() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (cache, _) = following().await;
    report(&cache, keys(&["a", "b"])).await;
    for change in [Change::All, Change::Lost, Change::Lost] {
        report(&cache, change).await;
    }
    let count = counted(&recorder);
    for (cause, times) in [("foreign", 2.0), ("all", 1.0), ("lost", 1.0)] {
        assert_eq!(count("tierstack_cache_invalidations_total", cause), times, "{cause}");
    }
    assert_eq!(count("tierstack_cache_change_feed_connected", ""), 0.0);
}

#[tokio::test]
async fn own_writes_that_are_reported_cost_a_load_and_no_more() {
    let (cache, _) = following().await;
    let _ = cache.put("k", "1").await.unwrap();
    get(&cache, b"k").await.unwrap();
    report(&cache, keys(&["k"])).await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("1".into()));
    assert!(is_kept(&cache, b"k"));

    // However often it is reported while it loads: each reader gets its answer.
    below(&cache).reads.shut();
    let mut readers = Vec::new();
    for _ in 0..10 {
        report(&cache, keys(&["k"])).await;
        readers.push(reader(&cache, b"k"));
        settle().await;
    }
    below(&cache).reads.open();
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap(), Some("1".into()));
    }
    get(&cache, b"k").await.unwrap();
    assert!(is_kept(&cache, b"k"));
}

#[test]
fn the_profile_says_how_late_a_foreign_write_is_seen() {
    let below = |change_feed| {
        let store = Gated { change_feed, ..Gated::new(SystemClock::shared()) };
        store.profile().changed(|guarantees| guarantees.freshness = Freshness::Immediate)
    };
    let second = Duration::from_secs(1);
    let ttl = Some(Span(10 * second));
    for (ttl, change_feed, expected) in [
        (None, None, Freshness::Unbounded),
        (ttl, None, Freshness::Within(10 * second)),
        (None, Some(second), Freshness::Within(second)),
        (ttl, Some(second), Freshness::Within(second)),
        (ttl, Some(20 * second), Freshness::Within(10 * second)),
    ] {
        let config = CacheConfig { ttl, ..settings() };
        let profile = config.profile(below(change_feed)).unwrap();
        assert_eq!(profile.guarantees.freshness, expected);
        assert_eq!(profile.guarantees.change_feed, change_feed);
        assert_eq!(
            profile.notes.iter().any(|note| note.contains("within 1s")),
            change_feed == Some(second)
        );
        let layer = CacheLayer::new(&config, &Context::default()).unwrap();
        let store = Gated { change_feed, ..Gated::new(SystemClock::shared()) };
        assert_eq!(layer.layer(store).profile().notes, profile.notes);
    }
}
