//! The subscription: failures, the end, and the runtime it lives in.

use super::*;

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
    assert!(follows(&cache));
    get(&cache, b"k").await.unwrap();
    assert!(is_kept(&cache, b"k"));
    assert_eq!(attempts, 7);
    let count = counted(&recorder);
    assert_eq!(count("tierstack_errors_total", "unavailable"), 7.0);
    assert_eq!(count("tierstack_errors_total", ""), 7.0);
    assert_eq!(count("tierstack_cache_change_feed_connected", ""), 1.0);
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
    let (cache, _) = following().await;
    let store = Arc::downgrade(&cache.0);
    let subscriber = below(&cache).subscribers.lock()[0].clone();
    drop(cache);
    settle().await;
    assert!(store.upgrade().is_none());
    assert!(subscriber.is_closed());
}

#[tokio::test]
async fn close_lets_go_of_the_subscription_and_ends_the_change_feed() {
    let (cache, _) = following().await;
    let mut changes = cache.changes().await.unwrap();
    let subscriber = below(&cache).subscribers.lock()[0].clone();
    let mut close = spawn(cache.close());
    assert_pending!(close.poll());
    assert!(!subscriber.is_closed(), "it waits for the task");
    close.into_inner().await.unwrap();
    assert!(subscriber.is_closed());
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
    assert!(!follows(&cache), "there is no subscriber any more");
    runtime().block_on(async {
        get(&cache, b"k").await.unwrap();
        settle().await;
        get(&cache, b"k").await.unwrap();
        assert!(is_kept(&cache, b"k"));
    });
}
