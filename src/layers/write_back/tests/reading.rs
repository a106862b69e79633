//! Reads see what is acknowledged, at once and as of one moment.

use std::time::Duration;

use super::*;
use crate::clock::Clock as _;
use crate::error::Operation;
use crate::types::{Presence, Value};

#[tokio::test]
async fn every_read_sees_what_the_store_below_does_not_have() {
    let mut bed = bed().await;
    for (key, value) in [("a", "1"), ("b", "1"), ("c", "1"), ("e", "1")] {
        bed.put(key, value).await;
    }
    bed.flush_all().await;
    drop(bed.store.write(Batch::new().put("b", "2").delete("c").put("d", "2")).await.unwrap());
    bed.below_gives("b", Some("1")).await;
    bed.gives("b", Some("2")).await;
    bed.gives("c", None).await;
    let keys = ["a", "b", "c", "d", "x"].map(Into::into);
    let want = [Some("1"), Some("2"), None, Some("2"), None].map(|value| value.map(Into::into));
    assert_eq!(bed.store.get_many(&keys).await.unwrap(), want);
    let snapshot = bed.store.snapshot().await.unwrap();
    bed.put("a", "3").await;
    bed.flush_all().await;
    assert_eq!(snapshot.get_many(&keys).await.unwrap(), want);
    let all = ["a=1", "b=2", "d=2", "e=1"];
    assert_eq!(scanned(&*snapshot, Scan::all()).await, all);
    assert_eq!(scanned(&*snapshot, Scan::all().reverse()).await, ["e=1", "d=2", "b=2", "a=1"]);
}

#[tokio::test]
async fn scans_merge_in_both_directions_and_fill_their_limits_past_deletes() {
    let mut bed = bed().await;
    for n in 0..20 {
        drop(bed.store.put(format!("k{n:02}"), "1").await.unwrap());
    }
    bed.flush_all().await;
    // A page below of which nothing is left.
    drop(
        bed.store
            .write((2..12).map(|n| crate::types::Op::Delete(format!("k{n:02}").into())).collect())
            .await
            .unwrap(),
    );
    drop(
        bed.store
            .write(Batch::new().put("k055", "2").put("k12", "2").put("k99", "2"))
            .await
            .unwrap(),
    );
    for page in [1, 2, 3, 1000] {
        let scan = || Scan::all().page_entries(page);
        assert_eq!(
            scanned(&*bed.store, scan().limit(4)).await,
            ["k00=1", "k01=1", "k055=2", "k12=2"]
        );
        assert_eq!(scanned(&*bed.store, scan().reverse().limit(2)).await, ["k99=2", "k19=1"]);
        let range = Scan::range("k03".."k12").reverse().page_entries(page);
        assert_eq!(scanned(&*bed.store, range).await, ["k055=2"]);
        assert_eq!(
            scanned(&*bed.store, scan().keys_only().limit(3)).await,
            ["k00=", "k01=", "k055="]
        );
        assert_eq!(scanned(&*bed.store, scan()).await.len(), 12);
    }
}

#[tokio::test]
async fn an_entry_that_expires_before_it_is_flushed_stays_gone() {
    let mut bed = bed().await;
    bed.put("k", "old").await;
    bed.flush_all().await;
    let value = Value::from("new").expiring_at(bed.clock.now() + Duration::from_millis(100));
    drop(bed.store.put("k", value).await.unwrap());
    assert_eq!(bed.store.get(b"k").await.unwrap().unwrap().bytes, "new");
    let snapshot = bed.store.snapshot().await.unwrap();
    bed.clock.advance(Duration::from_millis(100));
    bed.gives("k", None).await;
    assert_eq!(scanned(&*bed.store, Scan::all()).await, [""; 0]);
    assert_eq!(scanned(&*snapshot, Scan::all()).await, ["k=new"], "time does not pass in it");
    bed.flush_all().await;
    bed.gives("k", None).await;
    assert_eq!(bed.below.usage().await.unwrap().entries, Some(0));
}

/// A page that was begun before a flush, and read below after it, would show one half of a batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_a_batch_wholly_while_it_is_flushed() {
    let mut bed = bed().await;
    drop(bed.store.write(Batch::new().put("b", "1").put("z", "1")).await.unwrap());
    bed.flush_all().await;
    bed.put("b", "2").await;
    let gate = bed.faults.on(Operation::Scan).times(1).hold();
    let store = Arc::clone(&bed.store);
    let scanning = tokio::spawn(async move { scanned(&*store, Scan::all()).await });
    gate.reached(1).await;
    drop(bed.store.write(Batch::new().put("b", "3").put("z", "3")).await.unwrap());
    let flushing = tokio::spawn(async move {
        bed.flush_all().await;
        bed
    });
    // Time enough for a flush that nothing holds up.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    gate.open();
    let found = scanning.await.unwrap();
    assert!(found == ["b=2", "z=1"] || found == ["b=3", "z=3"], "{found:?}");
    let bed = flushing.await.unwrap();
    bed.below_gives("z", Some("3")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_shows_nothing_that_came_after_it_was_frozen() {
    let mut bed = bed().await;
    bed.put("b", "2").await;
    let gate = bed.faults.on(Operation::Snapshot).times(1).hold();
    let store = Arc::clone(&bed.store);
    let taking = tokio::spawn(async move { store.snapshot().await.unwrap() });
    gate.reached(1).await;
    drop(bed.store.write(Batch::new().put("b", "3").put("z", "3")).await.unwrap());
    let flushing = tokio::spawn(async move { bed.flush_all().await });
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(scanned(&*taking.await.unwrap(), Scan::all()).await, ["b=2"]);
    flushing.await.unwrap();
}

/// Neither a scan nor a snapshot that nobody polls any more holds up the flushes.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_page_holds_up_no_flush() {
    let mut bed = bed().await;
    bed.put("a", "1").await;
    let store = Arc::clone(&bed.store);
    let mut pages = store.scan(Scan::all());
    let mut snapshot = store.snapshot();
    let _ = futures_util::StreamExt::next(&mut pages).now_or_never();
    let _ = (&mut snapshot).now_or_never();
    bed.flush_all().await;
    bed.below_gives("a", Some("1")).await;
}

#[tokio::test]
async fn an_inspection_tells_what_is_dirty_and_since_when() {
    let mut bed = bed().await;
    bed.put("k", "1").await;
    bed.clock.advance(Duration::from_millis(300));
    drop(bed.store.write(Batch::new().put("k", "22").delete("d")).await.unwrap());
    let seen = bed.store.inspect(b"k").await.unwrap();
    assert_eq!((seen.len(), seen[0].presence, seen[0].bytes), (2, Presence::Entry, Some(2)));
    assert_eq!(seen[0].age.map(|age| age.0), Some(Duration::from_millis(300)), "since the first");
    assert_eq!((seen[0].dirty, seen[0].sequence), (Some(true), Some(2)));
    assert_eq!((seen[1].presence, seen[1].sequence), (Presence::None, None));
    let deleted = bed.store.inspect(b"d").await.unwrap();
    assert_eq!((deleted[0].presence, deleted[0].dirty), (Presence::Absence, Some(true)));
    bed.flush_all().await;
    let seen = bed.store.inspect(b"k").await.unwrap();
    assert_eq!((seen[0].presence, seen[0].dirty), (Presence::None, Some(false)));
    assert_eq!(seen[1].presence, Presence::Entry);
}
