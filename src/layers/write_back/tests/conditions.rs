//! Conditions hold of what is acknowledged, at the moment of the acknowledgement.

use super::*;
use crate::error::{ErrorKind, Operation};
use crate::types::Condition;

#[tokio::test]
async fn conditions_are_of_what_is_dirty_over_what_is_below() {
    let mut bed = bed().await;
    bed.put("k", "1").await;
    bed.flush_all().await;
    let take = |from, to| Batch::new().put("k", to).require(Condition::equals("k", from));
    drop(bed.store.write(take("1", "2")).await.unwrap());
    bed.below_gives("k", Some("1")).await;
    let refused = bed.store.write(take("1", "3")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    drop(bed.store.write(take("2", "3")).await.unwrap());
    drop(bed.store.delete("k").await.unwrap());
    drop(bed.store.write(Batch::new().put("k", "4").if_absent()).await.unwrap());
    bed.flush_all().await;
    bed.below_gives("k", Some("4")).await;
    assert!(bed.store.write(Batch::new().put("k", "5").if_absent()).await.is_err());
}

/// Of batches that are on their way to the disk at the same time too.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_require_the_absence_one_wins() {
    let bed = bed().await;
    for round in 0..20 {
        let tasks = (0..8).map(|task| {
            let (store, key) = (Arc::clone(&bed.store), format!("k{round}"));
            tokio::spawn(async move {
                let batch = Batch::new().put(key, task.to_string()).if_absent();
                store.write(batch).await.map(drop)
            })
        });
        let mut won = 0;
        for task in tasks.collect::<Vec<_>>() {
            match task.await.unwrap() {
                Ok(()) => won += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
        }
        assert_eq!(won, 1);
    }
}

/// What was read below is old once the key was written and flushed.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_below_before_a_flush_is_read_again() {
    let mut bed = bed().await;
    let gate = bed.faults.on(Operation::GetMany).after_effect().times(1).hold();
    let store = Arc::clone(&bed.store);
    let late = Batch::new().put("k", "late").if_absent();
    let late = tokio::spawn(async move { store.write(late).await.map(drop) });
    gate.reached(1).await;
    bed.put("k", "first").await;
    bed.flush_all().await;
    gate.open();
    assert_eq!(late.await.unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    bed.gives("k", Some("first")).await;
}

#[tokio::test]
async fn a_condition_on_a_clean_key_needs_the_store_below_and_one_on_a_dirty_key_does_not() {
    let bed = bed().await;
    bed.put("dirty", "1").await;
    bed.faults.cut();
    let error = bed.store.write(Batch::new().put("clean", "1").if_absent()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.outcome(), crate::error::Outcome::Nothing);
    let batch = Batch::new().put("dirty", "2").require(Condition::equals("dirty", "1"));
    drop(bed.store.write(batch).await.unwrap());
    assert!(bed.store.get(b"clean").await.is_err());
    bed.gives("dirty", Some("2")).await;
}

#[tokio::test]
async fn a_group_sees_the_batches_before_it() {
    let bed = bed().await;
    let take = |from, to| Batch::new().put("stock", to).require(Condition::equals("stock", from));
    let group =
        vec![Batch::new().put("stock", "3"), take("3", "2"), take("3", "1"), take("2", "0")];
    let answers = bed.store.write_group(group).await;
    let kinds: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().err().map(|e| e.kind())).collect();
    assert_eq!(kinds, [None, None, Some(ErrorKind::Conflict), Some(ErrorKind::Aborted)]);
    bed.gives("stock", Some("2")).await;
}
