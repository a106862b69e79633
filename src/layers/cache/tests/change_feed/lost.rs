//! Before the reports begin, and while they are interrupted.

use super::*;

#[tokio::test]
async fn while_the_connection_is_lost_every_read_goes_below() {
    let (cache, _) = following().await;
    foreign(&cache, "k", "1").await;
    get(&cache, b"k").await.unwrap();
    // This one is under way when the connection is lost, and ends while it is.
    below(&cache).reads.shut();
    let under_way = reader(&cache, b"slow");
    settle().await;
    report(&cache, Change::Lost).await;
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
    // A key that is reported meanwhile changes nothing about that.
    report(&cache, keys(&["k"])).await;
    get(&cache, b"k").await.unwrap();
    assert!(!is_kept(&cache, b"k"));

    // This one begins while it is lost, and ends behind that: a change may have come in between.
    below(&cache).reads.shut();
    let during = reader(&cache, b"during");
    settle().await;
    foreign(&cache, "during", "new").await;
    report(&cache, Change::All).await;
    below(&cache).reads.open();
    during.await.unwrap().unwrap();
    assert_eq!(get(&cache, b"during").await.unwrap(), Some("new".into()));
    get(&cache, b"k").await.unwrap();
    assert!(is_kept(&cache, b"k"), "kept again");
    assert_eq!(below(&cache).subscribed.load(Ordering::SeqCst), 1, "the stream went on by itself");
}

/// How old the answer of a load is that is under way, nobody knows; a later reader waits for the next
/// one, so there are two at most.
#[tokio::test]
async fn while_the_connection_is_lost_a_reader_waits_for_a_load_that_begins_after_it_asked() {
    let (cache, _) = following().await;
    report(&cache, Change::Lost).await;
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
    assert!(follows(&cache));
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
async fn a_stream_that_ends_is_a_lost_connection_and_is_made_again() {
    let (cache, clock) = following().await;
    foreign(&cache, "k", "old").await;
    get(&cache, b"k").await.unwrap();
    below(&cache).subscribers.lock().clear();
    settle().await;
    foreign(&cache, "k", "new").await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    assert!(!is_kept(&cache, b"k"));
    clock.advance(Duration::from_secs(20));
    settle().await;
    get(&cache, b"k").await.unwrap();
    assert!(is_kept(&cache, b"k"));
}
