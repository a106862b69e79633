//! Runs: nothing is kept while one is taken.

use super::*;

/// A run of one page that comes when it is let.
fn run<'a>(gate: &'a Gate, pairs: &[(&'static str, &'static str)]) -> Pages<'a> {
    let entries =
        pairs.iter().map(|(key, value)| Entry { key: (*key).into(), value: (*value).into() });
    let page = Page { entries: entries.collect() };
    futures_util::stream::once(async {
        gate.pass().await;
        Ok(page)
    })
    .boxed()
}

#[tokio::test]
async fn nothing_is_kept_while_a_run_is_taken_and_nothing_of_before() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    get(&cache, b"k").await.unwrap();
    let gate = Gate::open_now();
    gate.shut();
    cache.0.inner.reads.shut();
    let mut early = tokio_test::task::spawn(cache.get(b"a"));
    tokio_test::assert_pending!(early.poll());
    settle().await;
    let mut ingest =
        tokio_test::task::spawn(cache.ingest(run(&gate, &[("a", "new"), ("k", "new")])));
    tokio_test::assert_pending!(ingest.poll());
    cache.0.inner.reads.open();
    assert_eq!(early.into_inner().await.unwrap(), None);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()), "not taken yet");
    // A part of it is there before it is acknowledged.
    let _ = cache.0.inner.memory.put("k", "new").await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    gate.open();
    assert_eq!(ingest.into_inner().await.unwrap(), 2);
    for key in [b"a", b"k"] {
        assert_eq!(get(&cache, key).await.unwrap(), Some("new".into()));
        assert!(matches!(cache.get(key), Reply::Now(Ok(Some(_)))), "kept again");
    }
}

#[tokio::test]
async fn a_part_of_a_run_that_was_abandoned_is_seen_when_it_arrives() {
    let (cache, clock) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    let gate = Gate::open_now();
    gate.shut();
    let mut ingest = tokio_test::task::spawn(cache.ingest(run(&gate, &[("k", "new")])));
    tokio_test::assert_pending!(ingest.poll());
    drop(ingest);
    clock.advance(Duration::from_secs(29));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
    let _ = cache.0.inner.memory.put("k", "new").await.unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
    clock.advance(Duration::from_secs(1));
    get(&cache, b"k").await.unwrap();
    assert!(matches!(cache.get(b"k"), Reply::Now(Ok(Some(_)))), "kept again");
}
