//! A subscriber of a cache is told of a change once it was dropped there.

use std::task::{Wake, Waker};

use futures_util::FutureExt;

use super::*;

/// Looks whether a key is kept at the moment at which it is woken.
struct Look {
    cache: Cache<Gated>,
    kept: Mutex<Vec<bool>>,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        self.kept.lock().push(matches!(self.cache.0.lookup(b"k"), Lookup::Answer(_)));
    }
}

/// The outer one would ask the inner one as soon as it is told of a change, and keep the old answer for good.
#[tokio::test]
async fn a_cache_passes_a_foreign_change_on_when_it_has_dropped_the_key() {
    let (inner, _) = following().await;
    foreign(&inner, "k", "old").await;
    let mut changes = inner.changes().await.unwrap();
    for (change, kept) in [(keys(&["k"]), true), (Change::All, true), (Change::Lost, false)] {
        get(&inner, b"k").await.unwrap();
        assert!(is_kept(&inner, b"k"));
        let look = Arc::new(Look { cache: inner.clone(), kept: Mutex::default() });
        let waker = Waker::from(Arc::clone(&look));
        let mut context = std::task::Context::from_waker(&waker);
        assert!(changes.poll_next_unpin(&mut context).is_pending());
        report(&inner, change.clone()).await;
        assert_eq!(*look.kept.lock(), [false]);
        assert_eq!(changes.next().await, Some(change));
        get(&inner, b"k").await.unwrap();
        assert_eq!(is_kept(&inner, b"k"), kept);
    }
    let mut late = inner.changes().await.unwrap();
    let told = late.next().now_or_never();
    assert_eq!(told, Some(Some(Change::Lost)), "a subscriber that comes meanwhile is told");
    report(&inner, Change::All).await;
    assert_eq!(late.next().await, Some(Change::All));
}

#[tokio::test]
async fn of_two_caches_neither_keeps_what_was_reported() {
    let (inner, clock) = following().await;
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
        let disconnected = number == 3;
        assert_eq!(matches!(outer.get(b"k"), Reply::Now(_)), !disconnected);
        let value = ["1", "2", "3", "4"][number];
        foreign(&inner, "k", value).await;
        report(&inner, change).await;
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
        let (cache, _) = following().await;
        let mut changes = cache.changes().await.unwrap();
        for _ in 0..3000 {
            below(&cache).report(keys(&["k"]));
        }
        if lost {
            below(&cache).report(Change::Lost);
        }
        for _ in 0..100 {
            settle().await;
        }
        assert_eq!(changes.next().await, Some(first));
        assert_eq!(changes.next().await, Some(keys(&["k"])), "and then goes on");
    }
}
