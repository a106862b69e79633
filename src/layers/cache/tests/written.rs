//! What is written is kept, where nothing else touches its key.

use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_ok};

use super::change_feed::fresh_with;
use super::*;
use crate::clock::Timestamp;
use crate::layer::LayerConfig as _;
use crate::types::Guarantees;

fn keeping() -> CacheConfig {
    CacheConfig {
        on_write: OnWrite::Keep,
        negative_ttl: Some(Span(Duration::from_secs(3600))),
        ..settings()
    }
}

fn over(config: &CacheConfig, guarantees: fn(&mut Guarantees)) -> Cache<Gated> {
    let context = Context { clock: Arc::new(ManualClock::new()), ..Context::default() };
    let below = Gated { guarantees, ..Gated::new(Arc::clone(&context.clock)) };
    CacheLayer::new(config, &context).unwrap().layer(below)
}

/// What is kept, without a look below.
fn kept(cache: &Cache<Gated>, key: &[u8]) -> Option<Option<Value>> {
    match cache.get(key) {
        Reply::Now(answer) => Some(answer.unwrap()),
        Reply::Later(_) => None,
    }
}

async fn write(cache: &Cache<Gated>, batch: Batch) {
    let _ = cache.write(batch).await.unwrap();
}

async fn put(cache: &Cache<Gated>, value: &'static str) {
    write(cache, Batch::new().put("k", value)).await;
}

async fn put_all(cache: &Cache<Gated>, group: Vec<Batch>) {
    assert!(cache.write_group(group).await.iter().all(Result::is_ok));
}

/// A write that has begun, and is held before it takes effect.
macro_rules! begun {
    ($cache:expr, $batch:expr) => {{
        $cache.0.inner.writes.shut();
        let mut write = spawn($cache.write($batch));
        assert_pending!(write.poll());
        write
    }};
}

#[tokio::test]
async fn a_read_after_a_write_finds_what_was_written() {
    let (cache, _) = cached(keeping());
    put(&cache, "1").await;
    assert_eq!(kept(&cache, b"k"), Some(Some("1".into())));
    put(&cache, "2").await;
    assert_eq!(kept(&cache, b"k"), Some(Some("2".into())));
    write(&cache, Batch::new().delete("k")).await;
    assert_eq!(kept(&cache, b"k"), Some(None), "that it is absent");
    assert_eq!(asked(&cache), 0);
}

#[tokio::test]
async fn where_it_is_set_and_where_absence_is_not_kept_the_key_is_dropped() {
    assert_eq!(CacheConfig::default().on_write, OnWrite::Keep);
    let (cache, _) = cached(CacheConfig { on_write: OnWrite::Drop, ..keeping() });
    put(&cache, "1").await;
    assert_eq!(kept(&cache, b"k"), None);
    let (cache, _) = cached(CacheConfig { negative_ttl: None, ..keeping() });
    put(&cache, "1").await;
    write(&cache, Batch::new().delete("k")).await;
    assert_eq!(kept(&cache, b"k"), None);
}

#[tokio::test]
async fn the_last_operation_of_a_key_counts_and_a_condition_disturbs_none() {
    let (cache, _) = cached(keeping());
    let batch = Batch::new().put("k", "1").put("gone", "1").put("k", "2").delete("gone");
    write(&cache, batch).await;
    assert_eq!(kept(&cache, b"k"), Some(Some("2".into())));
    assert_eq!(kept(&cache, b"gone"), Some(None));
    let swap = Batch::new().require(Condition::equals("k", "2")).put("k", "3");
    write(&cache, swap).await;
    assert_eq!(kept(&cache, b"k"), Some(Some("3".into())));
    let refused = Batch::new().require(Condition::equals("k", "2")).put("k", "4");
    cache.write(refused).await.unwrap_err();
    assert_eq!(kept(&cache, b"k"), None, "what is kept of it may be old");
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("3".into()));
    // A key of a condition that is not written is not kept either.
    write(&cache, Batch::new().require(Condition::equals("k", "3")).put("other", "1")).await;
    assert_eq!(kept(&cache, b"k"), None);
}

#[tokio::test]
async fn what_a_group_leaves_is_kept_if_all_of_it_is_written() {
    let (cache, _) = cached(keeping());
    let put = |key, value| Batch::new().put(key, value);
    put_all(
        &cache,
        vec![put("k", "1"), put("gone", "1"), put("k", "2"), Batch::new().delete("gone")],
    )
    .await;
    assert_eq!(kept(&cache, b"k"), Some(Some("2".into())));
    assert_eq!(kept(&cache, b"gone"), Some(None));
    let answers = cache.write_group(vec![put("k", "3"), put("", "wrong"), put("k", "4")]).await;
    assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_err());
    assert_eq!(kept(&cache, b"k"), None, "how far a group came is not looked at");
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("3".into()));
    assert!(kept(&cache, b"k").is_some(), "nothing of it arrives any more");
}

/// Every key of a group is reported before the first batch is written, and until the last one is.
#[tokio::test]
async fn a_load_during_a_group_keeps_nothing_of_its_keys() {
    let (cache, _) = cached(settings());
    put_all(&cache, vec![Batch::new().put("first", "1"), Batch::new().put("last", "1")]).await;
    for key in [&b"first"[..], b"last"] {
        get(&cache, key).await.unwrap();
        assert!(kept(&cache, key).is_some());
    }
    cache.0.inner.writes.shut();
    let group = vec![Batch::new().put("first", "2"), Batch::new().put("last", "2")];
    let mut writing = spawn(cache.write_group(group));
    assert_pending!(writing.poll());
    for key in [&b"first"[..], b"last"] {
        assert_eq!(kept(&cache, key), None);
        get(&cache, key).await.unwrap();
        assert_eq!(kept(&cache, key), None, "what a load finds now may be old");
    }
    cache.0.inner.writes.open();
    assert!(writing.await.iter().all(Result::is_ok));
    assert_eq!(get(&cache, b"last").await.unwrap(), Some("2".into()));
    assert!(kept(&cache, b"last").is_some());
}

/// In which order the store below took them, nobody knows.
#[tokio::test]
async fn of_two_writes_that_overlap_neither_is_kept() {
    let (cache, _) = cached(keeping());
    let mut first = begun!(cache, Batch::new().put("k", "1"));
    let mut second = begun!(cache, Batch::new().put("k", "2"));
    cache.0.inner.writes.open();
    let _ = assert_ready_ok!(second.poll());
    assert_eq!(kept(&cache, b"k"), None);
    let _ = assert_ready_ok!(first.poll());
    assert_eq!(kept(&cache, b"k"), None);
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("1".into()), "as the store took them");
    put(&cache, "3").await;
    assert_eq!(kept(&cache, b"k"), Some(Some("3".into())), "alone again");
}

#[tokio::test]
async fn a_load_under_way_brings_back_nothing_of_before() {
    let (cache, _) = cached(keeping());
    put(&cache, "old").await;
    cache.0.engine.remove(b"k");
    cache.0.inner.reads.shut();
    let slow = reader(&cache, b"k");
    settle().await;
    put(&cache, "new").await;
    assert_eq!(kept(&cache, b"k"), Some(Some("new".into())));
    cache.0.inner.reads.open();
    assert_eq!(slow.await.unwrap().unwrap(), Some("old".into()), "it began before the write");
    assert_eq!(kept(&cache, b"k"), Some(Some("new".into())));
}

#[tokio::test]
async fn what_is_invalidated_during_a_write_is_not_kept() {
    for scope in [Scope::Keys(vec!["k".into()]), Scope::Prefix("k".into()), Scope::All] {
        let (cache, _) = cached(keeping());
        let mut write = begun!(cache, Batch::new().put("k", "1"));
        cache.invalidate(scope.clone()).await.unwrap();
        cache.0.inner.writes.open();
        let _ = assert_ready_ok!(write.poll());
        assert_eq!(kept(&cache, b"k"), None, "{scope:?}");
    }
    let (cache, _) = cached(keeping());
    let mut write = begun!(cache, Batch::new().put("k", "1"));
    cache.invalidate(Scope::Prefix("other".into())).await.unwrap();
    cache.0.inner.writes.open();
    let _ = assert_ready_ok!(write.poll());
    assert!(kept(&cache, b"k").is_some(), "of another prefix");
}

#[tokio::test]
async fn what_others_change_during_a_write_or_after_it_is_not_hidden() {
    let changes =
        [Change::Keys(vec!["k".into()]), Change::Prefix("".into()), Change::All, Change::Lost];
    for change in changes {
        let (cache, _) = fresh_with(keeping());
        put(&cache, "disconnected").await;
        assert_eq!(kept(&cache, b"k"), None, "nobody would tell");
        get(&cache, b"k").await.unwrap();
        settle().await;
        put(&cache, "heard").await;
        assert!(kept(&cache, b"k").is_some());
        // During it.
        let mut write = begun!(cache, Batch::new().put("k", "1"));
        cache.0.inner.report(change.clone());
        settle().await;
        cache.0.inner.writes.open();
        let _ = assert_ready_ok!(write.poll());
        assert_eq!(kept(&cache, b"k"), None, "{change:?}");
        // After it.
        cache.0.inner.report(Change::All);
        settle().await;
        put(&cache, "2").await;
        assert!(kept(&cache, b"k").is_some());
        foreign(&cache, "k", "theirs").await;
        cache.0.inner.report(change.clone());
        settle().await;
        assert_eq!(get(&cache, b"k").await.unwrap(), Some("theirs".into()), "{change:?}");
    }
}

#[tokio::test]
async fn nothing_is_kept_of_a_write_that_fails_or_follows_one_of_unknown_outcome() {
    for (kind, again) in [(ErrorKind::InvalidInput, true), (ErrorKind::Timeout, false)] {
        let (cache, clock) = cached(keeping());
        put(&cache, "old").await;
        fail(&cache, Some(kind));
        cache.put("k", "new").await.unwrap_err();
        fail(&cache, None);
        assert_eq!(kept(&cache, b"k"), None);
        put(&cache, "later").await;
        assert_eq!(kept(&cache, b"k").is_some(), again, "{kind:?}: the other may arrive behind it");
        clock.advance(Duration::from_secs(30));
        put(&cache, "last").await;
        assert_eq!(kept(&cache, b"k"), Some(Some("last".into())));
    }
}

#[tokio::test]
async fn a_write_that_is_dropped_is_not_kept() {
    let (cache, _) = cached(keeping());
    drop(begun!(cache, Batch::new().put("k", "1")));
    cache.0.inner.writes.open();
    assert_eq!(kept(&cache, b"k"), None);
    put(&cache, "2").await;
    assert_eq!(kept(&cache, b"k"), None, "the first may arrive behind the second");
}

/// Each of its batches may arrive, behind whatever is written meanwhile.
#[tokio::test]
async fn of_a_group_that_is_dropped_no_key_is_kept_for_a_while() {
    let (cache, clock) = cached(keeping());
    put_all(&cache, vec![Batch::new().put("a", "0"), Batch::new().put("b", "0")]).await;
    cache.0.inner.writes.shut();
    let group =
        vec![Batch::new().put("a", "1"), Batch::new().delete("b"), Batch::new().put("c", "1")];
    let mut writing = spawn(cache.write_group(group));
    assert_pending!(writing.poll());
    drop(writing);
    cache.0.inner.writes.open();
    for key in ["a", "b", "c"] {
        assert_eq!(kept(&cache, key.as_bytes()), None);
        let _ = cache.put(key, "2").await.unwrap();
        assert_eq!(kept(&cache, key.as_bytes()), None, "the group may arrive behind it");
        assert_eq!(get(&cache, key.as_bytes()).await.unwrap(), Some("2".into()));
        assert_eq!(kept(&cache, key.as_bytes()), None);
    }
    clock.advance(Duration::from_secs(30));
    for key in ["a", "b", "c"] {
        let _ = cache.put(key, "3").await.unwrap();
        assert_eq!(kept(&cache, key.as_bytes()), Some(Some("3".into())));
    }
}

#[tokio::test]
async fn a_run_during_a_write_keeps_it_from_being_kept() {
    let (cache, _) = cached(keeping());
    let mut write = begun!(cache, Batch::new().put("k", "1"));
    let entry = Entry { key: "k".into(), value: "run".into() };
    let page = Page { entries: vec![entry] };
    cache.ingest(futures_util::stream::iter([Ok(page)]).boxed()).await.unwrap();
    cache.0.inner.writes.open();
    let _ = assert_ready_ok!(write.poll());
    assert_eq!(kept(&cache, b"k"), None);
}

/// The ttl counts from the beginning of the write: a foreign write may have landed right behind it.
#[tokio::test]
async fn the_ttl_counts_from_the_beginning_of_the_write() {
    let second = Duration::from_secs(1);
    let (cache, clock) = cached(CacheConfig { ttl: Some(Span(10 * second)), ..keeping() });
    let mut write = begun!(cache, Batch::new().put("k", "1"));
    clock.advance(4 * second);
    cache.0.inner.writes.open();
    let _ = assert_ready_ok!(write.poll());
    foreign(&cache, "k", "theirs").await;
    clock.advance(6 * second - Duration::from_millis(1));
    assert_eq!(kept(&cache, b"k"), Some(Some("1".into())));
    clock.advance(Duration::from_millis(1));
    assert_eq!(get(&cache, b"k").await.unwrap(), Some("theirs".into()));
}

#[tokio::test]
async fn a_deadline_is_kept_with_its_value_and_one_that_has_passed_is_not() {
    let (cache, clock) = cached(keeping());
    let deadline = clock.now() + Duration::from_secs(5);
    let value = Value::from("v").expiring_at(deadline);
    write(&cache, Batch::new().put("k", value.clone())).await;
    assert_eq!(kept(&cache, b"k"), Some(Some(value)));
    clock.advance(Duration::from_secs(5));
    assert_eq!(get(&cache, b"k").await.unwrap(), None);
    for at in [clock.now(), Timestamp::from_millis(u64::MAX)] {
        write(&cache, Batch::new().put("k", Value::from("v").expiring_at(at))).await;
        assert_eq!(kept(&cache, b"k"), None, "{at}");
    }
}

/// A store that gives back something else than was put is asked what that is.
#[tokio::test]
async fn over_a_store_that_changes_what_is_put_nothing_is_kept() {
    let cache = over(&keeping(), |guarantees| guarantees.verbatim = false);
    put(&cache, "1").await;
    assert_eq!(kept(&cache, b"k"), None);
    let said = |notes: &[String]| notes.iter().any(|note| note.contains("on_write"));
    assert!(said(&cache.profile().notes), "and says so");
    let cache = over(&keeping(), |_| ());
    assert!(!said(&cache.profile().notes));
    let expire = crate::layers::expire::ExpireConfig {
        default_ttl: Some(Span(Duration::from_secs(1))),
        ..Default::default()
    };
    let adds = expire.profile(Memory::new().profile()).unwrap();
    assert!(!adds.guarantees.verbatim);
    assert!(said(&keeping().profile(adds).unwrap().notes));
}

#[tokio::test]
async fn large_values_are_not_kept_and_others_do_not_hold_the_buffer_of_the_caller() {
    let (cache, _) = cached(keeping());
    let buffer = Bytes::from(vec![7; 128 << 10]);
    write(&cache, Batch::new().put("k", buffer.clone())).await;
    assert_eq!(kept(&cache, b"k"), None);
    for length in [100, 64 << 10] {
        let part = buffer.slice(..length);
        write(&cache, Batch::new().put("k", part.clone())).await;
        let held = kept(&cache, b"k").unwrap().unwrap().bytes;
        assert!(held == part && held.as_ptr() != part.as_ptr(), "{length}");
    }
}

#[tokio::test]
async fn nothing_is_kept_once_it_is_closed() {
    let (cache, _) = cached(keeping());
    let mut write = begun!(cache, Batch::new().put("k", "1"));
    cache.0.coherence.epochs.begin(Mode::Closed);
    cache.0.inner.writes.open();
    let _ = assert_ready_ok!(write.poll());
    assert!(cache.0.engine.get(b"k").is_none());
}

#[tokio::test]
async fn what_was_written_is_counted_by_what_became_of_it() {
    let (cache, _, mut counted) = recorded(keeping());
    write(&cache, Batch::new().put("a", "1").put("b", "1").put("a", "2").delete("c")).await;
    write(&cache, Batch::new().put("a", Bytes::from(vec![7; 128 << 10]))).await;
    let counted = counted();
    assert_eq!(counted["tierstack_cache_writes_total kept"], 3.0);
    assert_eq!(counted["tierstack_cache_writes_total dropped"], 1.0);
}
