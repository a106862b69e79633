//! After a write is acknowledged, no read returns an older value.

use super::*;

#[tokio::test]
async fn a_load_that_a_write_overtook_is_not_kept() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.reads.shut();
    let slow = reader(&cache, b"k");
    settle().await;
    let _ = cache.put("k", "new").await.unwrap();
    cache.0.inner.reads.open();
    assert_eq!(slow.await.unwrap().unwrap(), Some("old".into()), "it began before the write");
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn who_comes_after_a_write_does_not_join_a_load_from_before_it() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.reads.shut();
    let early = reader(&cache, b"k");
    settle().await;
    let _ = cache.put("k", "new").await.unwrap();
    let late = reader(&cache, b"k");
    settle().await;
    cache.0.inner.reads.open();
    assert_eq!(late.await.unwrap().unwrap(), Some("new".into()));
    early.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_load_that_began_during_a_write_is_not_kept() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.writes.shut();
    let write = tokio::spawn({
        let cache = cache.clone();
        async move { cache.put("k", "new").await }
    });
    settle().await;
    assert_eq!(
        get(&cache, b"k").await.unwrap(),
        Some("old".into()),
        "the write is not acknowledged"
    );
    cache.0.inner.writes.open();
    let _ = write.await.unwrap().unwrap();
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn during_a_write_a_reader_waits_for_a_load_that_begins_after_it_asked() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.writes.shut();
    let mut write = tokio_test::task::spawn(cache.put("k", "new"));
    tokio_test::assert_pending!(write.poll());
    settle().await;
    cache.0.inner.reads.shut();
    let mut early = tokio_test::task::spawn(cache.get(b"k"));
    tokio_test::assert_pending!(early.poll());
    settle().await;
    // The write has taken effect below, and is not acknowledged yet.
    let _ = cache.0.inner.memory.put("k", "new").await.unwrap();
    let mut late = [0; 3].map(|_| tokio_test::task::spawn(cache.get(b"k")));
    late.iter_mut().for_each(|late| tokio_test::assert_pending!(late.poll()));
    settle().await;
    assert_eq!(asked(&cache), 1, "one load at a time");
    cache.0.inner.reads.open();
    assert_eq!(early.into_inner().await.unwrap(), Some("old".into()));
    for late in late {
        assert_eq!(late.into_inner().await.unwrap(), Some("new".into()));
    }
    assert_eq!(asked(&cache), 2);
}

#[tokio::test]
async fn a_bulk_load_that_a_write_overtook_is_not_kept() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    cache.0.inner.reads.shut();
    let slow = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_many(&[Bytes::from("k"), Bytes::from("other")]).await }
    });
    settle().await;
    let _ = cache.put("k", "new").await.unwrap();
    cache.0.inner.reads.open();
    assert_eq!(slow.await.unwrap().unwrap(), [Some("old".into()), None]);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn a_write_whose_outcome_is_unknown_is_seen_when_it_arrives() {
    for fails in [false, true] {
        let (cache, clock) = cached(settings());
        let _ = cache.put("k", "old").await.unwrap();
        get(&cache, b"k").await.unwrap();
        if fails {
            cache.0.inner.fail.store(true, Ordering::SeqCst);
            cache.put("k", "new").await.unwrap_err();
            cache.0.inner.fail.store(false, Ordering::SeqCst);
        } else {
            cache.0.inner.writes.shut();
            let mut write = tokio_test::task::spawn(cache.put("k", "new"));
            tokio_test::assert_pending!(write.poll());
            drop(write);
        }
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
        clock.advance(Duration::from_secs(29));
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
        let _ = cache.0.inner.memory.put("k", "new").await.unwrap();
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("new".into()), "it arrived below");
        clock.advance(Duration::from_secs(1));
        get(&cache, b"k").await.unwrap();
        assert!(matches!(cache.get(b"k"), Reply::Now(Ok(Some(_)))), "kept again");
    }
}

#[tokio::test]
async fn a_write_that_was_refused_leaves_no_doubt() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    let refused = Batch::new().put("k", "new").put("", "no key");
    assert_eq!(cache.write(refused).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    get(&cache, b"k").await.unwrap();
    assert!(matches!(cache.get(b"k"), Reply::Now(Ok(Some(_)))));
}

/// Repeated, and overwritten: an abandoned write must not come after what was acknowledged since.
#[tokio::test]
async fn a_dropped_write_does_not_go_on() {
    let (cache, _) = cached(settings());
    cache.0.inner.writes.shut();
    let mut write = tokio_test::task::spawn(cache.put("k", "1"));
    tokio_test::assert_pending!(write.poll());
    drop(write);
    cache.0.inner.writes.open();
    let _ = cache.put("k", "1").await.unwrap();
    let _ = cache.put("k", "2").await.unwrap();
    settle().await;
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("2".into()));
    assert_eq!(cache.0.inner.memory.get(b"k").await.unwrap(), Some("2".into()));
}

/// Some tell a write that came too late by a conflict, and a refusal by a kind of its own.
#[tokio::test]
async fn a_write_only_where_keys_are_absent_leaves_no_doubt_when_they_exist() {
    let (cache, _) = cached(settings());
    let _ = cache.put("k", "old").await.unwrap();
    let batch = Batch::new().put("k", "new").put("other", "new").if_absent();
    assert_eq!(cache.write(batch).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("old".into()));
    assert!(matches!(cache.get(b"k"), Reply::Now(Ok(Some(_)))), "kept");
    let _ = cache.write(Batch::new().put("other", "new").if_absent()).await.unwrap();
    assert_eq!(get(&cache, b"other").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn a_failed_batch_leaves_no_doubt_about_other_keys() {
    let (cache, _) = cached(settings());
    let keys = |prefix: char, count| (0..count).map(move |n| Bytes::from(format!("{prefix}{n}")));
    for key in keys('b', 4000) {
        let _ = cache.0.inner.memory.put(key, "v").await.unwrap();
    }
    fail(&cache, Some(ErrorKind::Unavailable));
    let batch = keys('a', 1000).map(|key| Op::Put(key, "new".into())).collect();
    cache.write(batch).await.unwrap_err();
    fail(&cache, None);
    for key in keys('b', 4000) {
        cache.get(&key).await.unwrap();
    }
    let kept = keys('b', 4000).filter(|key| matches!(cache.get(key), Reply::Now(_)));
    assert_eq!(kept.count(), 4000);
    for key in keys('a', 1000) {
        cache.get(&key).await.unwrap();
    }
    let kept = keys('a', 1000).filter(|key| matches!(cache.get(key), Reply::Now(_)));
    assert_eq!(kept.count(), 0, "those that the batch wrote stay in doubt");
}

/// 50,000 writes a second, concurrently with loads of 20 ms.
#[tokio::test]
async fn writes_of_other_keys_keep_few_loads_from_being_kept() {
    let (cache, _) = cached(settings());
    let keys: Vec<Bytes> = (0..1000).map(|n| Bytes::from(format!("a{n}"))).collect();
    for key in &keys {
        let _ = cache.0.inner.memory.put(key.clone(), "v").await.unwrap();
    }
    cache.0.inner.reads.shut();
    let readers: Vec<_> = keys
        .iter()
        .map(|key| {
            let (cache, key) = (cache.clone(), key.clone());
            tokio::spawn(async move { cache.get(&key).await })
        })
        .collect();
    settle().await;
    for n in 0..1000 {
        let _ = cache.put(format!("b{n}"), "v").await.unwrap();
    }
    cache.0.inner.reads.open();
    for reader in readers {
        reader.await.unwrap().unwrap();
    }
    let kept = keys.iter().filter(|key| matches!(cache.get(key), Reply::Now(_))).count();
    assert!(kept > 950, "{kept} of 1000");
}
