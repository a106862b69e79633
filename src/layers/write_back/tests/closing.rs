//! Closing drains, and says what is left. A future that is dropped leaves nothing half done.

use std::time::Duration;

use super::*;
use crate::error::{ErrorKind, Operation};

#[tokio::test]
async fn close_drains() {
    let mut bed = bed().await;
    bed.put("k", "1").await;
    let store = Arc::clone(&bed.store);
    bed.faults.on(Operation::Write).times(2).fail(ErrorKind::Unavailable);
    bed.below_gives("k", None).await;
    // A memory store that is closed is empty.
    bed.faults.on(Operation::Close).fail(ErrorKind::Internal);
    assert!(bed.beside(store.close()).await.unwrap_err().to_string().contains("injected"));
    bed.below_gives("k", Some("1")).await;
    assert_eq!(store.get(b"k").await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn close_gives_up_after_a_while_and_says_what_is_left() {
    let bed = bed().await;
    let commit = bed.store.put("k", "1").await.unwrap();
    bed.faults.cut();
    let store = Arc::clone(&bed.store);
    let closing = tokio::spawn(async move { store.close().await });
    while bed.clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    bed.clock.advance(Duration::from_secs(30));
    let text = closing.await.unwrap().unwrap_err().to_string();
    assert!(text.contains("1 entry of") && text.contains("in the journal"), "{text}");
    assert!(commit.durable().await.is_err(), "no task waits for a store that is closed");
    bed.faults.heal();
    assert_eq!(bed.store.put("k", "2").await.unwrap_err().kind(), ErrorKind::Closed);
}

/// A writer may go away at any moment: the batch is taken wholly or not at all, and what is in the journal becomes visible.
#[tokio::test]
async fn a_write_that_is_dropped_is_taken_or_not() {
    let mut bed = bed().await;
    for polls in 0..4 {
        let (key, other) = (format!("k{polls}"), format!("l{polls}"));
        {
            let batch = Batch::new().put(key.clone(), "1").put(other.clone(), "1");
            let mut write = bed.store.write(batch);
            for _ in 0..polls {
                if (&mut write).now_or_never().is_some() {
                    break;
                }
            }
        }
        let journal = &bed.store.shared.log.as_ref().unwrap().journal;
        let taken = journal.usage().next;
        while bed.store.shared.state.lock().visible + 1 < taken {
            tokio::task::yield_now().await;
        }
        let found = bed.store.get_many(&[key.into(), other.into()]).await.unwrap();
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0].is_some(), polls > 0);
    }
    bed.flush_all().await;
}
