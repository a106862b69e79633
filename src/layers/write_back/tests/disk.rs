//! What an answer relies on is on the disk first. The journal is written when a test says so.

use super::*;
use crate::error::{ErrorKind, Outcome};
use crate::journal::tests::faulty::Faulty;
use crate::journal::tests::rng::Rng;
use crate::journal::tests::stepped::{self, Stepped};

async fn bed(ack: Ack) -> (Bed, Stepped) {
    let (journal, stepped) = stepped::open(&Faulty::new(0), &mut Rng(0)).unwrap();
    let (clock, folder) = (ManualClock::new(), Arc::new(tempfile::tempdir().unwrap()));
    let below = Arc::new(Memory::with_clock(Arc::new(clock.clone())));
    let faults = Faults::seeded(0, Arc::new(clock.clone()));
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let path = folder.path().to_owned();
    let config = WriteBackConfig { path: Some(path.clone()), ack, ..WriteBackConfig::default() };
    let layer = WriteBackLayer::over(&config, &context, (path, journal));
    let failing = Arc::new(FaultStore::new(Arc::clone(&below), &faults));
    let mut pair = pin!(layer.pair(failing));
    let (store, flusher) = loop {
        match pair.as_mut().now_or_never() {
            Some(pair) => break pair.unwrap(),
            None => sync(&stepped),
        }
    };
    (Bed { store: Arc::new(store), flusher, below, faults, clock, folder }, stepped)
}

fn sync(stepped: &Stepped) {
    while stepped.has_work() {
        stepped.step();
    }
}

#[tokio::test]
async fn a_write_is_neither_acknowledged_nor_read_before() {
    let (bed, stepped) = bed(Ack::Journal).await;
    let store = Arc::clone(&bed.store);
    let mut write = pin!(store.put("k", "1"));
    assert!(write.as_mut().now_or_never().is_none());
    bed.gives("k", None).await;
    assert_eq!(scanned(&*bed.store, Scan::all()).await, [""; 0]);
    sync(&stepped);
    drop(write.await.unwrap());
    bed.gives("k", Some("1")).await;
}

/// Or a crash could take away the reason.
#[tokio::test]
async fn a_condition_is_refused_by_what_is_not_read_yet_and_only_then() {
    let (bed, stepped) = bed(Ack::Journal).await;
    let store = Arc::clone(&bed.store);
    let mut first = pin!(store.write(Batch::new().put("k", "1").if_absent()));
    let mut second = pin!(store.write(Batch::new().put("k", "2").if_absent()));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    sync(&stepped);
    assert_eq!(second.await.unwrap_err().kind(), ErrorKind::Conflict);
    drop(first.await.unwrap());
    bed.gives("k", Some("1")).await;
}

/// Of a run that the store below has, and the journal does not, nothing would be written again after a crash.
#[tokio::test]
async fn a_run_is_in_the_journal_before_the_store_below_gets_it() {
    let (mut bed, stepped) = bed(Ack::Memory).await;
    drop(bed.store.write(Batch::new().put("a", "1").put("b", "1")).await.unwrap());
    bed.gives("a", Some("1")).await;
    let below = Arc::clone(&bed.below);
    let mut step = pin!(bed.flusher.step());
    assert!(step.as_mut().now_or_never().is_none());
    assert_eq!(below.get(b"a").await.unwrap(), None);
    sync(&stepped);
    assert_eq!(step.await, Step::Flushed);
    assert_eq!(below.get(b"a").await.unwrap(), Some("1".into()));
}

/// Of a disk that is full, or of a store below that takes nothing: one that waits for the journal has a deadline as one that waits for memory.
#[tokio::test]
async fn a_writer_at_a_full_journal_waits_no_longer_than_it_may() {
    let (bed, stepped) = bed(Ack::Memory).await;
    let store = Arc::clone(&bed.store);
    // Nothing is written there, so at some point it takes no more.
    let mut waits = loop {
        let mut put = Box::pin(store.put("k", vec![0; 1000]));
        match put.as_mut().now_or_never() {
            Some(taken) => drop(taken.unwrap()),
            None => break put,
        }
    };
    assert_eq!(bed.store.shared.state.lock().waiting, 1);
    bed.clock.advance(bed.store.shared.config.max_wait.0);
    let error = waits.as_mut().now_or_never().expect("it still waits").unwrap_err();
    drop(waits);
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Capacity, Outcome::Nothing), "{error}");
    assert!(error.to_string().contains("the journal holds"), "{error}");
    assert_eq!(bed.store.shared.state.lock().waiting, 0);
    sync(&stepped);
    drop(store.put("k", "1").await.unwrap());
    bed.gives("k", Some("1")).await;
}
