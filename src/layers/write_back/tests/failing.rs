//! A journal that fails: what was acknowledged is there when it is opened again, and until then everybody is told.

use super::*;
use std::time::Duration;

use crate::error::{ErrorKind, Operation, Outcome};
use crate::journal::OnFull;
use crate::journal::tests::faulty::{End, Fault, Faulty};
use crate::journal::tests::waiting::start;
use crate::types::Durability;

/// Over the journal of a disk that fails.
async fn over(disk: &Faulty, bed: Option<Bed>) -> Bed {
    let (clock, folder, below) = match bed {
        Some(Bed { clock, folder, below, .. }) => (clock, folder, below),
        None => {
            let clock = ManualClock::new();
            let below = Arc::new(Memory::with_clock(Arc::new(clock.clone())));
            (clock, Arc::new(tempfile::tempdir().unwrap()), below)
        }
    };
    let faults = Faults::seeded(0, Arc::new(clock.clone()));
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let config = config(folder.path(), Ack::Journal);
    std::fs::create_dir_all(folder.path().join("journal")).unwrap();
    let journal = start(disk, OnFull::Block).await;
    let layer = WriteBackLayer::over(&config, &context, (folder.path().join("journal"), journal));
    let failing = Arc::new(FaultStore::new(Arc::clone(&below), &faults));
    let (store, flusher) = layer.pair(failing).await.unwrap();
    Bed { store: Arc::new(store), flusher, below, faults, clock, folder }
}

/// Everybody is told of the first failure, and reads go on.
async fn told(bed: &Bed, cause: &str) {
    let in_memory = Batch::new().put("m", "1").durability(Durability::Nothing);
    let told =
        [bed.store.put("later", "1").await.map(drop), bed.store.write(in_memory).await.map(drop)];
    for answer in told {
        let text = answer.unwrap_err().to_string();
        assert!(text.contains(cause) && text.contains("the journal has stopped"), "{text}");
    }
    bed.gives("kept", Some("1")).await;
    bed.gives("later", None).await;
    bed.gives("m", None).await;
}

/// A call of the disk fails while a batch is written. The next process finds what was acknowledged.
async fn fails(calls: u64, fault: Fault, cause: &str) {
    for closes in [false, true] {
        let disk = Faulty::new(7);
        let mut bed = over(&disk, None).await;
        bed.put("kept", "1").await;
        disk.plan(calls, fault);
        let error = bed.store.put("lost", "1").await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert!(error.to_string().contains(cause), "{error}");
        assert_eq!(disk.fired(), Some(fault));
        bed.gives("lost", None).await;
        told(&bed, cause).await;
        let store = Arc::clone(&bed.store);
        if closes {
            let flushed = bed.beside(store.flush()).await.unwrap_err().to_string();
            assert!(flushed.contains(cause), "{flushed}");
            // A memory store that is closed is empty.
            bed.faults.on(Operation::Close).fail(ErrorKind::Internal);
            let closed = bed.beside(store.close()).await.unwrap_err().to_string();
            assert!(closed.contains(cause), "{closed}");
            bed.below_gives("kept", Some("1")).await;
            bed.below_gives("lost", None).await;
        }
        drop(store);
        disk.restart(End::PowerCut);
        let mut bed = over(&disk, Some(bed)).await;
        bed.gives("kept", Some("1")).await;
        bed.put("again", "1").await;
        bed.flush_all().await;
        bed.below_gives("kept", Some("1")).await;
        bed.below_gives("again", Some("1")).await;
        assert_eq!(disk.wrong(), [""; 0]);
    }
}

#[tokio::test]
async fn a_write_of_the_journal_that_fails_is_told_and_loses_nothing() {
    fails(0, Fault::Io, "writing disk/journal").await;
    fails(0, Fault::Full, "writing disk/journal").await;
}

#[tokio::test]
async fn a_sync_of_the_journal_that_fails_is_told_and_loses_nothing() {
    fails(1, Fault::Io, "syncing disk/journal").await;
    fails(1, Fault::Full, "syncing disk/journal").await;
}

#[tokio::test]
async fn a_full_disk_holds_writers_up_and_says_so() {
    let disk = Faulty::new(7);
    let mut bed = over(&disk, None).await;
    drop(bed.store.put("kept", vec![1; 3000]).await.unwrap());
    disk.set_room(0);
    let store = Arc::clone(&bed.store);
    let write = tokio::spawn(async move { store.put("more", vec![1; 3000]).await });
    while bed.clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    bed.clock.advance(Duration::from_secs(30));
    let error = write.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Capacity, Outcome::Nothing));
    assert!(error.to_string().contains("is full, or its disk is"), "{error}");
    bed.gives("more", None).await;
    assert!(bed.store.get(b"kept").await.unwrap().is_some());
    disk.set_room(u64::MAX);
    bed.put("more", "1").await;
    bed.flush_all().await;
    bed.below_gives("more", Some("1")).await;
}
