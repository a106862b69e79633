//! A bound on what is dirty: writers wait, and nothing is dropped.

use std::time::Duration;

use super::*;
use crate::error::{ErrorKind, Outcome, Retry};
use crate::types::units::ByteSize;

async fn small() -> Bed {
    bed_with(|config| {
        (config.flush_bytes, config.max_dirty) = (ByteSize(1024), ByteSize(2048));
        config.max_wait = "10s".parse().unwrap();
    })
    .await
}

#[tokio::test]
async fn a_writer_waits_for_room_and_gets_it_once_something_is_flushed() {
    let mut bed = small().await;
    for key in ["a", "b"] {
        drop(bed.store.put(key, vec![0; 700]).await.unwrap());
    }
    let store = Arc::clone(&bed.store);
    let mut third = pin!(store.put("c", vec![0; 700]));
    assert!(third.as_mut().now_or_never().is_none());
    use super::super::state::Due;
    let due = bed.store.shared.state.lock().due(Duration::ZERO);
    assert_eq!(due, Due::Now, "a writer that waits makes it so");
    drop(bed.beside(third).await.unwrap());
    bed.flush_all().await;
    assert_eq!(bed.store.shared.state.lock().dirty, 0);
}

/// What is before a batch in its group takes room, and leaves once it is on the disk and flushed, whatever the batch waits for.
#[tokio::test]
async fn a_group_that_is_larger_than_the_room_does_not_wait_for_itself() {
    let mut bed = small().await;
    let group = ["a", "b", "c", "d", "e"].map(|key| Batch::new().put(key, vec![0; 700])).to_vec();
    let store = Arc::clone(&bed.store);
    let answers = bed.beside(store.write_group(group)).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    bed.flush_all().await;
}

#[tokio::test]
async fn a_writer_waits_no_longer_than_it_may_and_is_told_why() {
    let mut bed = small().await;
    for key in ["a", "b"] {
        drop(bed.store.put(key, vec![0; 700]).await.unwrap());
    }
    for kind in [ErrorKind::Capacity, ErrorKind::Unavailable] {
        let store = Arc::clone(&bed.store);
        let waiting = tokio::spawn(async move { store.put("c", vec![0; 700]).await });
        while bed.clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        bed.clock.advance(Duration::from_secs(10));
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (kind, Outcome::Nothing), "{error}");
        assert_eq!(error.retry(), Retry::Later);
        bed.faults.heal();
        bed.gives("c", None).await;
        bed.faults.cut();
        bed.flusher.step().await;
    }
    assert_eq!(bed.store.shared.state.lock().waiting, 0);
    bed.faults.heal();
    bed.flush_all().await;
}

#[tokio::test]
async fn a_batch_that_is_larger_than_the_bound_waits_until_it_is_alone() {
    let mut bed = small().await;
    drop(bed.store.put("a", "1").await.unwrap());
    let store = Arc::clone(&bed.store);
    let large = store.put("large", vec![0; 5000]);
    drop(bed.beside(large).await.unwrap());
    bed.below_gives("a", Some("1")).await;
    bed.flush_all().await;
}
