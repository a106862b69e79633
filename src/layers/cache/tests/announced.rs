//! What others change, as the store below announces it.

use std::task::{Wake, Waker};

use futures_util::FutureExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};

use super::*;

const WITHIN: Duration = Duration::from_secs(1);

fn config() -> CacheConfig {
    let negative_ttl = Some(Span(Duration::from_secs(3600)));
    CacheConfig { negative_ttl, ..settings() }
}

/// A cache that does not listen yet, over a store that announces.
fn fresh() -> (Cache<Gated>, ManualClock) {
    let clock = ManualClock::new();
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let below = Gated { announces: Some(WITHIN), ..Gated::new(Arc::clone(&context.clock)) };
    (CacheLayer::new(&config(), &context).unwrap().layer(below), clock)
}

/// A cache that listens.
async fn listening() -> (Cache<Gated>, ManualClock) {
    let (cache, clock) = fresh();
    get(&cache, b"first").await.unwrap();
    settle().await;
    assert_eq!(below(&cache).subscribed.load(Ordering::SeqCst), 1);
    assert!(listens(&cache));
    (cache, clock)
}

fn below(cache: &Cache<Gated>) -> &Gated {
    &cache.0.inner
}

fn listens(cache: &Cache<Gated>) -> bool {
    cache.0.stripes.eras.now().keeps()
}

fn is_kept(cache: &Cache<Gated>, key: &[u8]) -> bool {
    matches!(cache.get(key), Reply::Now(Ok(_)))
}

/// A write behind the back of the cache.
async fn foreign(cache: &Cache<Gated>, key: &'static str, value: &'static str) {
    let _ = below(cache).memory.put(key, value).await.unwrap();
}

fn keys(keys: &[&'static str]) -> Change {
    Change::Keys(keys.iter().map(|key| Bytes::from(*key)).collect())
}

/// Announces, and waits until the cache has dealt with it.
async fn announce(cache: &Cache<Gated>, change: Change) {
    below(cache).announce(change);
    settle().await;
}

#[tokio::test]
async fn a_key_that_others_changed_is_dropped_when_that_is_announced() {
    let (cache, _) = listening().await;
    foreign(&cache, "k", "old").await;
    get(&cache, b"k").await.unwrap();
    get(&cache, b"none").await.unwrap();
    get(&cache, b"other").await.unwrap();
    foreign(&cache, "k", "new").await;
    foreign(&cache, "none", "new").await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()), "not announced yet");
    assert_eq!(get(&cache, b"none").await.unwrap(), None, "not announced yet");
    announce(&cache, keys(&["k", "none"])).await;
    assert!(is_kept(&cache, b"other"));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    assert_eq!(get(&cache, b"none").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn a_load_that_an_announcement_overtook_is_not_kept() {
    let many = [Bytes::from("k"), Bytes::from("calm")];
    for change in [keys(&["k"]), Change::All] {
        let (cache, _) = listening().await;
        foreign(&cache, "k", "old").await;
        foreign(&cache, "calm", "calm").await;
        below(&cache).reads.shut();
        let mut single = spawn(cache.get(b"k"));
        let mut bulk = spawn(cache.get_many(&many));
        assert_pending!(single.poll());
        assert_pending!(bulk.poll());
        settle().await;
        foreign(&cache, "k", "new").await;
        announce(&cache, change.clone()).await;
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
async fn a_load_that_begins_after_the_announcement_is_kept() {
    let (cache, _) = listening().await;
    foreign(&cache, "k", "new").await;
    announce(&cache, keys(&["k"])).await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    assert!(is_kept(&cache, b"k"));
}

#[tokio::test]
async fn who_comes_after_an_announcement_does_not_join_a_load_from_before_it() {
    for change in [keys(&["k"]), Change::All, Change::Lost] {
        let (cache, _) = listening().await;
        foreign(&cache, "k", "old").await;
        below(&cache).reads.shut();
        let early = reader(&cache, b"k");
        settle().await;
        foreign(&cache, "k", "new").await;
        announce(&cache, change).await;
        let late = reader(&cache, b"k");
        settle().await;
        below(&cache).reads.open();
        assert_eq!(late.await.unwrap().unwrap(), Some("new".into()));
        early.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn everything_is_dropped_when_any_key_may_have_changed() {
    let (cache, _) = listening().await;
    for key in ["a", "b"] {
        foreign(&cache, key, "old").await;
        get(&cache, key.as_bytes()).await.unwrap();
        foreign(&cache, key, "new").await;
    }
    announce(&cache, Change::All).await;
    for key in [b"a", b"b"] {
        assert_eq!(get(&cache, key).await.unwrap(), Some("new".into()));
        assert!(is_kept(&cache, key));
    }
}

/// The engine is emptied a moment after the era has ended, so an entry may come behind that.
#[tokio::test]
async fn an_entry_that_comes_after_all_was_dropped_is_not_served() {
    for change in [Change::All, Change::Lost] {
        let (cache, _) = listening().await;
        foreign(&cache, "k", "new").await;
        let era = cache.0.stripes.ticket(b"k").era;
        let late = cache.0.engine.admit(b"k", Some(&"old".into()), Duration::MAX, era).unwrap();
        announce(&cache, change).await;
        cache.0.engine.insert(b"k", late);
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    }
}

#[tokio::test]
async fn while_the_connection_is_lost_every_read_goes_below() {
    let (cache, _) = listening().await;
    foreign(&cache, "k", "1").await;
    get(&cache, b"k").await.unwrap();
    // This one is under way when the connection is lost, and ends while it is.
    below(&cache).reads.shut();
    let under_way = reader(&cache, b"slow");
    settle().await;
    announce(&cache, Change::Lost).await;
    foreign(&cache, "slow", "new").await;
    below(&cache).reads.open();
    under_way.await.unwrap().unwrap();
    assert_eq!(get(&cache, b"slow").await.unwrap(), Some("new".into()));

    let many = [Bytes::from("k"), Bytes::from("slow")];
    for value in ["2", "3"] {
        foreign(&cache, "k", value).await;
        assert_eq!(get(&cache, b"k").await.unwrap(), Some(value.into()));
        assert_eq!(cache.get_many(&many).await.unwrap()[0], Some(value.into()));
    }
    // A key that is announced meanwhile changes nothing about that.
    announce(&cache, keys(&["k"])).await;
    get(&cache, b"k").await.unwrap();
    assert!(!is_kept(&cache, b"k"));

    // This one begins while it is lost, and ends behind that: a change may have come in between.
    below(&cache).reads.shut();
    let during = reader(&cache, b"during");
    settle().await;
    foreign(&cache, "during", "new").await;
    announce(&cache, Change::All).await;
    below(&cache).reads.open();
    during.await.unwrap().unwrap();
    assert_eq!(get(&cache, b"during").await.unwrap(), Some("new".into()));
    get(&cache, b"k").await.unwrap();
    assert!(is_kept(&cache, b"k"), "kept again");
    assert_eq!(below(&cache).subscribed.load(Ordering::SeqCst), 1, "the stream went on by itself");
}

/// How old the answer of a load is that is under way, nobody knows; whoever comes later waits for the next
/// one, so there are two at most.
#[tokio::test]
async fn while_the_connection_is_lost_a_reader_waits_for_a_load_that_begins_after_it_asked() {
    let (cache, _) = listening().await;
    announce(&cache, Change::Lost).await;
    let before = asked(&cache);
    foreign(&cache, "k", "old").await;
    below(&cache).reads.shut();
    let early = reader(&cache, b"k");
    settle().await;
    foreign(&cache, "k", "new").await;
    let late: Vec<_> = (0..100).map(|_| reader(&cache, b"k")).collect();
    settle().await;
    below(&cache).reads.open();
    early.await.unwrap().unwrap();
    for late in join_all(late).await {
        assert_eq!(late.unwrap().unwrap(), Some("new".into()));
    }
    assert_eq!(asked(&cache) - before, 2);
}

#[tokio::test]
async fn nothing_is_kept_before_the_subscription_is_active() {
    let (cache, _) = fresh();
    below(&cache).subscribing.shut();
    foreign(&cache, "k", "old").await;
    for _ in 0..2 {
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
    }
    assert_eq!(asked(&cache), 2);
    // One load begins before, and ends after.
    below(&cache).reads.shut();
    let early = reader(&cache, b"k");
    settle().await;
    foreign(&cache, "k", "new").await;
    below(&cache).subscribing.open();
    settle().await;
    assert!(listens(&cache));
    below(&cache).reads.open();
    early.await.unwrap().unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    assert!(is_kept(&cache, b"k"));
    assert_eq!(
        below(&cache).subscribed.load(Ordering::SeqCst),
        1,
        "one subscription for all misses"
    );
}

#[tokio::test]
async fn a_subscription_that_fails_is_made_again_with_growing_pauses() {
    let recorder = DebuggingRecorder::new();
    let (cache, clock) = metrics::with_local_recorder(&recorder, fresh);
    *below(&cache).refuse.lock() = Some(ErrorKind::Unavailable);
    let _guard = metrics::set_default_local_recorder(&recorder);
    get(&cache, b"k").await.unwrap();
    let error = cache.changes().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let (mut attempts, mut pauses) = (1, Vec::new());
    let mut waited = 0;
    while pauses.len() < 6 {
        settle().await;
        let made = below(&cache).subscribed.load(Ordering::SeqCst);
        if made > attempts {
            attempts = made;
            pauses.push(std::mem::take(&mut waited));
        }
        get(&cache, b"k").await.unwrap();
        assert!(!is_kept(&cache, b"k"));
        clock.advance(Duration::from_millis(50));
        waited += 50;
    }
    assert!(pauses[5] > 8 * pauses[0], "{pauses:?}");
    *below(&cache).refuse.lock() = None;
    clock.advance(Duration::from_secs(20));
    settle().await;
    assert!(listens(&cache));
    get(&cache, b"k").await.unwrap();
    assert!(is_kept(&cache, b"k"));
    assert_eq!(attempts, 7);
    let count = counted(&recorder);
    assert_eq!(count("tierstack_errors_total", "changes"), 7.0);
    assert_eq!(count("tierstack_cache_listening", ""), 1.0);
}

/// Reads a series whose labels contain that value.
fn counted(recorder: &DebuggingRecorder) -> impl Fn(&str, &str) -> f64 {
    let series = recorder.snapshotter().snapshot().into_vec();
    move |name, label| {
        let found = series.iter().filter(|(key, ..)| {
            let has = key.key().labels().any(|found| found.value() == label);
            key.key().name() == name && has
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
    let (cache, _) = listening().await;
    announce(&cache, keys(&["a", "b"])).await;
    for change in [Change::All, Change::Lost, Change::Lost] {
        announce(&cache, change).await;
    }
    let count = counted(&recorder);
    for (cause, times) in [("announced", 2.0), ("all", 1.0), ("lost", 1.0)] {
        assert_eq!(count("tierstack_cache_invalidations_total", cause), times, "{cause}");
    }
    assert_eq!(count("tierstack_cache_listening", ""), 0.0);
}

#[tokio::test]
async fn a_stream_that_ends_is_a_lost_connection_and_is_made_again() {
    let (cache, clock) = listening().await;
    foreign(&cache, "k", "old").await;
    get(&cache, b"k").await.unwrap();
    below(&cache).listeners.lock().clear();
    settle().await;
    foreign(&cache, "k", "new").await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    assert!(!is_kept(&cache, b"k"));
    clock.advance(Duration::from_secs(20));
    settle().await;
    get(&cache, b"k").await.unwrap();
    assert!(is_kept(&cache, b"k"));
}

#[tokio::test]
async fn a_subscription_that_hangs_is_given_up() {
    let (cache, clock) = fresh();
    below(&cache).subscribing.shut();
    get(&cache, b"k").await.unwrap();
    let mut refused = spawn(async { cache.changes().await.err() });
    assert_pending!(refused.poll());
    settle().await;
    clock.advance(Duration::from_secs(30));
    settle().await;
    assert_eq!(assert_ready!(refused.poll()).unwrap().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_panic_of_the_subscription_wedges_nobody() {
    let (cache, clock) = fresh();
    below(&cache).panic.store(true, Ordering::SeqCst);
    get(&cache, b"k").await.unwrap_err();
    settle().await;
    assert_eq!(cache.changes().await.err().unwrap().kind(), ErrorKind::Internal);
    below(&cache).panic.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(20));
    settle().await;
    get(&cache, b"k").await.unwrap();
    assert!(is_kept(&cache, b"k"));
}

#[tokio::test]
async fn a_cache_that_is_dropped_lets_go_of_its_subscription_and_its_store() {
    let (cache, _) = listening().await;
    let store = Arc::downgrade(&cache.0);
    let listener = below(&cache).listeners.lock()[0].clone();
    drop(cache);
    settle().await;
    assert!(store.upgrade().is_none());
    assert!(listener.is_closed());
}

#[tokio::test]
async fn close_lets_go_of_the_subscription_and_ends_the_announcements() {
    let (cache, _) = listening().await;
    let mut changes = cache.changes().await.unwrap();
    let listener = below(&cache).listeners.lock()[0].clone();
    let mut close = spawn(cache.close());
    assert_pending!(close.poll());
    assert!(!listener.is_closed(), "it waits for the task");
    close.into_inner().await.unwrap();
    assert!(listener.is_closed());
    assert_eq!(changes.next().await, None);
    cache.close().await.unwrap();
    assert_eq!(cache.changes().await.err().unwrap().kind(), ErrorKind::Closed);
    assert_eq!(get(&cache, b"k").await.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_cache_made_outside_a_runtime_listens_once_there_is_one() {
    let (cache, _) = fresh();
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let first = runtime();
    first.block_on(async {
        get(&cache, b"k").await.unwrap();
        settle().await;
        get(&cache, b"k").await.unwrap();
        assert!(is_kept(&cache, b"k"));
    });
    drop(first);
    assert!(!listens(&cache), "nobody listens any more");
    runtime().block_on(async {
        get(&cache, b"k").await.unwrap();
        settle().await;
        get(&cache, b"k").await.unwrap();
        assert!(is_kept(&cache, b"k"));
    });
}

#[tokio::test]
async fn own_writes_that_are_announced_cost_a_load_and_no_more() {
    let (cache, _) = listening().await;
    let _ = cache.put("k", "1").await.unwrap();
    get(&cache, b"k").await.unwrap();
    announce(&cache, keys(&["k"])).await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("1".into()));
    assert!(is_kept(&cache, b"k"));

    // However often it is announced while it loads: each reader gets its answer.
    below(&cache).reads.shut();
    let mut readers = Vec::new();
    for _ in 0..10 {
        announce(&cache, keys(&["k"])).await;
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

/// Looks whether a key is kept at the moment at which it is woken.
struct Look {
    cache: Cache<Gated>,
    kept: Mutex<Vec<bool>>,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        self.kept.lock().push(self.cache.0.lookup(b"k").is_some());
    }
}

/// The outer one would ask the inner one as soon as it hears of a change, and keep the old answer for good.
#[tokio::test]
async fn a_cache_passes_an_announcement_on_when_it_has_dropped_the_key() {
    let (inner, _) = listening().await;
    foreign(&inner, "k", "old").await;
    let mut changes = inner.changes().await.unwrap();
    for (change, kept) in [(keys(&["k"]), true), (Change::All, true), (Change::Lost, false)] {
        get(&inner, b"k").await.unwrap();
        assert!(is_kept(&inner, b"k"));
        let look = Arc::new(Look { cache: inner.clone(), kept: Mutex::default() });
        let waker = Waker::from(Arc::clone(&look));
        let mut context = std::task::Context::from_waker(&waker);
        assert!(changes.poll_next_unpin(&mut context).is_pending());
        announce(&inner, change.clone()).await;
        assert_eq!(*look.kept.lock(), [false]);
        assert_eq!(changes.next().await, Some(change));
        get(&inner, b"k").await.unwrap();
        assert_eq!(is_kept(&inner, b"k"), kept);
    }
    let mut late = inner.changes().await.unwrap();
    let told = late.next().now_or_never();
    assert_eq!(told, Some(Some(Change::Lost)), "who comes meanwhile is told");
    announce(&inner, Change::All).await;
    assert_eq!(late.next().await, Some(Change::All));
}

#[tokio::test]
async fn of_two_caches_neither_keeps_what_was_announced() {
    let (inner, clock) = listening().await;
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let outer = CacheLayer::new(&config(), &context).unwrap().layer(inner.clone());
    let get = async || outer.get(b"k").await.unwrap();
    foreign(&inner, "k", "0").await;
    get().await;
    settle().await;
    for (number, change) in
        [keys(&["k"]), Change::All, Change::Lost, Change::All].into_iter().enumerate()
    {
        get().await;
        let deaf = number == 3;
        assert_eq!(matches!(outer.get(b"k"), Reply::Now(_)), !deaf);
        let value = ["1", "2", "3", "4"][number];
        foreign(&inner, "k", value).await;
        announce(&inner, change).await;
        for _ in 0..3 {
            assert_eq!(get().await, Some(value.into()));
        }
    }
    assert!(matches!(outer.get(b"k"), Reply::Now(_)));
    outer.close().await.unwrap();
}

#[tokio::test]
async fn who_falls_behind_is_told_that_any_key_may_have_changed() {
    for (lost, first) in [(false, Change::All), (true, Change::Lost)] {
        let (cache, _) = listening().await;
        let mut changes = cache.changes().await.unwrap();
        for _ in 0..3000 {
            below(&cache).announce(keys(&["k"]));
        }
        if lost {
            below(&cache).announce(Change::Lost);
        }
        for _ in 0..100 {
            settle().await;
        }
        assert_eq!(changes.next().await, Some(first));
        assert_eq!(changes.next().await, Some(keys(&["k"])), "and then goes on");
    }
}

#[test]
fn the_profile_says_how_late_a_foreign_write_is_seen() {
    let below = |announces| {
        let store = Gated { announces, ..Gated::new(SystemClock::shared()) };
        store.profile().changed(|guarantees| guarantees.freshness = Freshness::Immediate)
    };
    let second = Duration::from_secs(1);
    let ttl = Some(Span(10 * second));
    for (ttl, announces, expected) in [
        (None, None, Freshness::Unbounded),
        (ttl, None, Freshness::Within(10 * second)),
        (None, Some(second), Freshness::Within(second)),
        (ttl, Some(second), Freshness::Within(second)),
        (ttl, Some(20 * second), Freshness::Within(10 * second)),
    ] {
        let config = CacheConfig { ttl, ..settings() };
        let profile = config.profile(below(announces)).unwrap();
        assert_eq!(profile.guarantees.freshness, expected);
        assert_eq!(profile.guarantees.announces, announces);
        assert_eq!(
            profile.notes.iter().any(|note| note.contains("within 1s")),
            announces == Some(second)
        );
        let layer = CacheLayer::new(&config, &Context::default()).unwrap();
        let store = Gated { announces, ..Gated::new(SystemClock::shared()) };
        assert_eq!(layer.layer(store).profile().notes, profile.notes);
    }
}

/// Writers behind the back of the cache that announce late, and readers through it, on real threads. Once
/// an announcement was passed on, no reader sees less than what it is about.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_sees_less_than_what_was_announced() {
    const KEYS: usize = 4;
    const WRITES: u64 = 3000;

    let below = Gated { announces: Some(WITHIN), ..Gated::new(SystemClock::shared()) };
    let inner = CacheLayer::new(&settings(), &Context::default()).unwrap().layer(below);
    let outer = CacheLayer::new(&settings(), &Context::default()).unwrap().layer(inner.clone());
    let key = |at: usize| Bytes::from(format!("key {at}"));
    let number = |value: Option<Value>| {
        value.map_or(0, |value| u64::from_be_bytes(value.bytes[..].try_into().unwrap()))
    };
    /// What was written, and which of it was announced by whom.
    #[derive(Default)]
    struct Seen {
        written: [AtomicU64; KEYS],
        announced: [[AtomicU64; KEYS]; 2],
    }
    let seen: Arc<Seen> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));

    // The barrier: what was written when a change was sent is announced when it comes out. A number is
    // sent as a key, in front of the keys.
    let caches: [Arc<dyn Store>; 2] = [Arc::new(inner.clone()), Arc::new(outer.clone())];
    let mut tasks = Vec::new();
    for (at, cache) in caches.iter().enumerate() {
        let (seen, mut changes) = (Arc::clone(&seen), cache.changes().await.unwrap());
        tasks.push(tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                let Change::Keys(keys) = change else { continue };
                let [key, number] = &keys[..] else { panic!("a key and a number") };
                let key: usize = std::str::from_utf8(&key[4..]).unwrap().parse().unwrap();
                let number = std::str::from_utf8(number).unwrap().parse().unwrap();
                seen.announced[at][key].fetch_max(number, Ordering::SeqCst);
            }
        }));
    }
    let writers: Vec<_> = (0..KEYS)
        .map(|at| {
            let (inner, seen) = (inner.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                for number in 1..=WRITES {
                    let value = number.to_be_bytes().to_vec();
                    let _ = inner.0.inner.memory.put(key(at), value).await.unwrap();
                    seen.written[at].store(number, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    let change = Change::Keys(vec![key(at), Bytes::from(number.to_string())]);
                    inner.0.inner.announce(change);
                    match number % 500 {
                        100 => inner.0.inner.announce(Change::Lost),
                        150 => inner.0.inner.announce(Change::All),
                        _ => {}
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..8usize)
        .map(|reader| {
            let (seen, done, level) = (Arc::clone(&seen), Arc::clone(&done), reader % 2);
            let cache = Arc::clone(&caches[level]);
            tokio::spawn(async move {
                let (mut at, mut hits) = (reader, 0u64);
                while !done.load(Ordering::SeqCst) {
                    at = (at * 7 + 3) % KEYS;
                    let key = key(at);
                    let before = seen.announced[level][at].load(Ordering::SeqCst);
                    let read = if reader % 4 == 3 {
                        number(cache.get_many(std::slice::from_ref(&key)).await.unwrap().remove(0))
                    } else {
                        let reply = cache.get(&key);
                        hits += u64::from(matches!(reply, Reply::Now(_)));
                        number(reply.await.unwrap())
                    };
                    assert!(read >= before, "read {read} after {before} was announced at {level}");
                    let written = seen.written[at].load(Ordering::SeqCst);
                    assert!(read <= written + 1, "read {read} before it was written");
                    tokio::task::yield_now().await;
                }
                hits
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    inner.0.inner.announce(Change::All);
    done.store(true, Ordering::SeqCst);
    let mut hits = 0;
    for reader in readers {
        hits += reader.await.unwrap();
    }
    assert!(hits > 0, "nothing was kept");
    outer.close().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
}
