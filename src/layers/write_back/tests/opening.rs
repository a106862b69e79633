//! Opening over a store that is away, and for what only reads.

use super::super::Opening;
use super::*;
use crate::error::{ErrorKind, Operation};
use crate::layer::LayerConfig;

/// Opens it again as a stack does, with a flusher of its own, once the one before has let go of the journal.
async fn opened(bed: &Bed, opening: Opening, may_create: bool) -> Result<Arc<dyn Store>> {
    let config = WriteBackConfig { open: opening, ..config(bed.folder.path(), Ack::Journal) };
    let context = Context { clock: Arc::new(bed.clock.clone()), may_create, ..Context::default() };
    let layer = loop {
        match config.open(&context).await {
            Err(error) if error.to_string().contains("open already") => {
                tokio::task::yield_now().await;
            }
            opened => break opened?,
        }
    };
    layer.wrap(Arc::new(FaultStore::new(Arc::clone(&bed.below), &bed.faults))).await
}

/// A bed whose journal holds a write, and which is not open.
async fn left_behind() -> Bed {
    let bed = bed().await;
    bed.put("k", "1").await;
    let Bed { below, faults, clock, folder, .. } = bed;
    // Closing a memory store empties it.
    faults.on(Operation::Close).fail(ErrorKind::Internal);
    let elsewhere = bed_with(|_| ()).await;
    Bed { below, faults, clock, folder, ..elsewhere }
}

#[tokio::test]
async fn a_stack_that_waits_opens_once_the_store_below_has_it_and_fails_while_that_is_away() {
    let bed = left_behind().await;
    bed.faults.cut();
    let error = opened(&bed, Opening::Wait, true).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    bed.below_gives("k", None).await;
    bed.faults.heal();
    let store = opened(&bed, Opening::Wait, true).await.unwrap();
    bed.below_gives("k", Some("1")).await;
    assert_eq!(store.get(b"k").await.unwrap(), Some("1".into()));
}

#[tokio::test]
async fn a_stack_that_does_not_wait_opens_while_the_store_below_is_away() {
    let bed = left_behind().await;
    bed.faults.cut();
    let store = opened(&bed, Opening::Later, true).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("1".into()));
    assert_eq!(store.get(b"clean").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let commit = store.put("l", "1").await.unwrap();
    assert_eq!(store.flush().await.unwrap_err().kind(), ErrorKind::Unavailable);
    bed.faults.heal();
    // An attempt that began before may still fail.
    while store.flush().await.is_err() {
        tokio::task::yield_now().await;
    }
    commit.durable().await.unwrap();
    bed.below_gives("k", Some("1")).await;
    bed.below_gives("l", Some("1")).await;
}

#[tokio::test]
async fn what_only_reads_sees_what_an_earlier_process_left_and_leaves_it() {
    for opening in [Opening::Later, Opening::Wait] {
        let bed = left_behind().await;
        let store = opened(&bed, opening, false).await.unwrap();
        assert_eq!(store.get(b"k").await.unwrap(), Some("1".into()));
        assert_eq!(scanned(&*store, Scan::all()).await, ["k=1"]);
        assert_eq!(store.count(b"").await.unwrap(), None, "the store below does not have it");
        let closed = store.close().await.unwrap_err().to_string();
        assert!(closed.contains("injected"), "only the fault: {closed}");
        bed.below_gives("k", None).await;
        // The first write takes it along, and so does a flush.
        let store = opened(&bed, opening, false).await.unwrap();
        let commit = store.put("l", "1").await.unwrap();
        bed.clock.advance(std::time::Duration::from_secs(1));
        commit.durable().await.unwrap();
        bed.below_gives("k", Some("1")).await;
        bed.below_gives("l", Some("1")).await;
    }
    let bed = left_behind().await;
    let store = opened(&bed, Opening::Later, false).await.unwrap();
    store.flush().await.unwrap();
    bed.below_gives("k", Some("1")).await;
}

/// What waits for room does not wait for a flush that never begins.
#[tokio::test]
async fn a_writer_that_finds_it_full_ends_the_rest() {
    let bed = left_behind().await;
    let config = WriteBackConfig {
        flush_bytes: crate::types::units::ByteSize(1 << 10),
        max_dirty: crate::types::units::ByteSize(1 << 10),
        ..config(bed.folder.path(), Ack::Journal)
    };
    let context =
        Context { clock: Arc::new(bed.clock.clone()), may_create: false, ..Context::default() };
    let layer = loop {
        match config.open(&context).await {
            Err(error) if error.to_string().contains("open already") => {
                tokio::task::yield_now().await;
            }
            opened => break opened.unwrap(),
        }
    };
    let below = Arc::new(FaultStore::new(Arc::clone(&bed.below), &bed.faults));
    let store = layer.wrap(below).await.unwrap();
    drop(store.put("large", vec![1; 1000]).await.unwrap());
    bed.below_gives("k", Some("1")).await;
}
