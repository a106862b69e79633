//! The way to the store below: in order, merged, again where it fails, and not at all where it is refused.

use std::time::Duration;

use super::*;
use crate::error::{Error, ErrorKind, Operation};
use crate::testing::Call;
use crate::types::units::ByteSize;

fn writes(bed: &Bed) -> Vec<Batch> {
    let write = |call| match call {
        Call::Write(batch) => Some(batch),
        _ => None,
    };
    bed.faults.record().into_iter().filter_map(write).collect()
}

#[tokio::test]
async fn many_updates_of_a_key_are_one_write_below_and_the_last_one_wins() {
    let mut bed = bed().await;
    writes(&bed);
    for n in 0..100 {
        drop(bed.store.put("k", n.to_string()).await.unwrap());
    }
    drop(
        bed.store
            .write(Batch::new().put("x", "1").delete("x").put("y", "1").put("y", "2"))
            .await
            .unwrap(),
    );
    assert_eq!(bed.flusher.step().await, Step::Flushed);
    assert_eq!(writes(&bed), [Batch::new().put("k", "99").delete("x").put("y", "2")]);
    assert_eq!(bed.flusher.step().await, Step::Idle);
}

#[tokio::test]
async fn runs_are_bounded_in_order_and_never_split_a_batch() {
    let mut bed = bed_with(|config| config.flush_bytes = ByteSize(1024)).await;
    writes(&bed);
    let large = Batch::new().put("a", vec![b'a'; 900]).put("b", vec![b'b'; 900]);
    drop(bed.store.write(large.clone()).await.unwrap());
    for key in ["c", "d", "e"] {
        drop(bed.store.put(key, vec![b'x'; 300]).await.unwrap());
    }
    drop(bed.store.put("c", vec![b'y'; 300]).await.unwrap());
    bed.flush_all().await;
    let written = writes(&bed);
    assert_eq!(written.len(), 3);
    assert_eq!(written[0], large);
    assert_eq!(written[1], Batch::new().put("c", vec![b'x'; 300]).put("d", vec![b'x'; 300]));
    assert_eq!(written[2], Batch::new().put("e", vec![b'x'; 300]).put("c", vec![b'y'; 300]));
}

/// JuiceFS, Hazelcast and rclone let a key wait that was written again and again.
#[tokio::test]
async fn the_first_write_sets_the_deadline_and_later_ones_do_not_move_it() {
    use super::super::state::Due;
    let bed = bed().await;
    let due = || bed.store.shared.state.lock().due(crate::clock::Clock::monotonic(&bed.clock));
    bed.put("k", "1").await;
    assert_eq!(due(), Due::In(Duration::from_millis(500)));
    for _ in 0..4 {
        bed.clock.advance(Duration::from_millis(100));
        bed.put("k", "2").await;
    }
    assert_eq!(due(), Due::In(Duration::from_millis(100)));
    bed.clock.advance(Duration::from_millis(100));
    assert_eq!(due(), Due::Now);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_written_while_it_is_flushed_stays_dirty() {
    let mut bed = bed().await;
    bed.put("k", "1").await;
    bed.put("same", "1").await;
    let gate = bed.faults.on(Operation::Write).after_effect().times(1).hold();
    let store = Arc::clone(&bed.store);
    let flushing = tokio::spawn(async move {
        bed.flusher.step().await;
        bed
    });
    gate.reached(1).await;
    // Equal by value, and another write all the same.
    drop(store.put("same", "1").await.unwrap());
    drop(store.put("k", "2").await.unwrap());
    assert_eq!(store.get(b"k").await.unwrap(), Some("2".into()));
    gate.open();
    let mut bed = flushing.await.unwrap();
    assert_eq!(bed.store.shared.overlay.entries(), 2);
    bed.below_gives("k", Some("1")).await;
    bed.gives("k", Some("2")).await;
    bed.flush_all().await;
    bed.below_gives("k", Some("2")).await;
}

#[tokio::test]
async fn what_fails_is_tried_again_in_order_and_nothing_is_dropped() {
    let mut bed = bed_with(|config| config.flush_bytes = ByteSize(1024)).await;
    bed.faults.on(Operation::Write).times(2).fail(ErrorKind::Unavailable);
    bed.faults.on(Operation::Write).times(1).after_effect().fail(ErrorKind::Timeout);
    writes(&bed);
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
        drop(bed.store.put(key, vec![value.as_bytes()[0]; 600]).await.unwrap());
    }
    let mut pauses = Vec::new();
    loop {
        match bed.flusher.step().await {
            Step::Failed(pause) => pauses.push(pause),
            Step::Flushed => {}
            Step::Idle => break,
            Step::Stopped => panic!("it can pass"),
        }
    }
    assert_eq!(pauses.len(), 3);
    assert!(pauses[2] > pauses[0], "they grow: {pauses:?}");
    let keys: Vec<_> = writes(&bed).iter().map(|batch| batch.ops()[0].key().clone()).collect();
    assert_eq!(keys, ["a", "a", "a", "a", "b", "a"]);
    let last = bed.below.get(b"a").await.unwrap().unwrap();
    assert_eq!(last.bytes[0], b'2');
}

#[tokio::test]
async fn a_flush_that_fails_says_so_and_what_is_dirty_stays() {
    let mut bed = bed().await;
    bed.put("k", "1").await;
    bed.faults.cut();
    let store = Arc::clone(&bed.store);
    let error = bed.beside(store.flush()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    bed.gives("k", Some("1")).await;
    bed.faults.heal();
    bed.beside(store.flush()).await.unwrap();
    bed.below_gives("k", Some("1")).await;
}

#[tokio::test]
async fn what_is_refused_for_good_stops_everything_and_is_named() {
    let mut bed = bed().await;
    bed.put("good", "1").await;
    bed.put("bad", "1").await;
    bed.put("later", "1").await;
    // The run, and the second of its batches.
    bed.faults
        .on(Operation::Write)
        .times(1)
        .fail_with(|| Error::invalid("this value does not please"));
    bed.faults
        .on(Operation::Write)
        .skip(1)
        .fail_with(|| Error::invalid("this value does not please"));
    assert_eq!(bed.flusher.step().await, Step::Stopped);
    let store = Arc::clone(&bed.store);
    let told = [store.put("more", "1").await.map(drop), store.flush().await, store.close().await];
    for answer in told {
        let text = answer.unwrap_err().to_string();
        assert!(
            text.contains("refuses the batch 2 for good") && text.contains("does not please"),
            "{text}"
        );
    }
    assert!(store.close().await.is_ok(), "it is closed");
    drop(store);
    let path = bed.folder.path().join("journal");
    let waiting = super::super::inspect(&path).await.unwrap().batches;
    assert_eq!(waiting.iter().map(|batch| batch.sequence).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((waiting[0].puts, waiting[0].deletes, waiting[0].bytes), (1, 0, 4));
    let copy = bed.folder.path().join("skipped");
    let refused = super::super::skip(&path, 3, &copy).await.unwrap_err();
    assert!(refused.to_string().contains("the first batch that waits is 2"), "{refused}");
    super::super::skip(&path, 2, &copy).await.unwrap();
    // The faults closed the store below before the rest was there.
    let other: Arc<dyn Store> = Arc::new(Memory::new());
    let refused = super::super::drain(&path, &other).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert_eq!(super::super::inspect(&path).await.unwrap().batches[0].sequence, 3);
    let copied = super::super::inspect(&copy).await.unwrap();
    assert_eq!((copied.batches.len(), copied.batches[0].bytes), (1, 4));
    assert_eq!(copied.owner.as_deref(), Some(bed.below.identity().unwrap().as_str()));
}

#[tokio::test]
async fn a_commit_is_durable_once_the_store_below_has_it() {
    let mut bed = bed().await;
    let commit = bed.store.put("k", "1").await.unwrap();
    assert_eq!(commit.sequence, Some(1));
    bed.beside(commit.durable()).await.unwrap();
    bed.below_gives("k", Some("1")).await;
    bed.faults.on(Operation::Write).times(1).fail(ErrorKind::Unavailable);
    let commit = bed.store.put("k", "2").await.unwrap();
    let error = bed.beside(commit.durable()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    bed.flush_all().await;
    bed.below_gives("k", Some("2")).await;
}

#[tokio::test]
async fn a_batch_is_acknowledged_as_it_asks() {
    let mut bed = bed_with(|config| config.ack = Ack::Through).await;
    let store = Arc::clone(&bed.store);
    drop(bed.beside(store.put("k", "1")).await.unwrap());
    bed.below_gives("k", Some("1")).await;
    bed.faults.cut();
    let error = bed.beside(store.put("k", "2")).await.unwrap_err();
    assert_eq!(error.outcome(), crate::error::Outcome::Unknown);
    let memory = Batch::new().put("m", "1").durability(crate::types::Durability::Nothing);
    drop(store.write(memory).await.unwrap());
    bed.gives("m", Some("1")).await;
    bed.faults.heal();
    bed.flush_all().await;
    bed.below_gives("k", Some("2")).await;
}

#[test]
fn what_a_batch_may_ask_for_follows_from_the_journal_and_the_store_below() {
    use crate::layer::{BackendConfig, LayerConfig};
    use crate::types::Durability::{MachineLoss, Nothing, PowerCut, ProcessCrash};
    let guarantees = |ack, path: bool, now, after| {
        let below = crate::backends::MemoryConfig::default().profile().unwrap();
        let below = below.changed(|guarantees| {
            (guarantees.durability, guarantees.durability_on_request) = (now, now);
            guarantees.durability_after_flush = after;
        });
        let path = path.then(|| "journal".into());
        let config = WriteBackConfig { path, ack, ..WriteBackConfig::default() };
        let guarantees = config.profile(below.clone()).unwrap().guarantees;
        let acks = [Nothing, ProcessCrash, PowerCut, MachineLoss];
        let acks = acks.map(|asked| config.ack_for(Some(asked), &below));
        (guarantees.durability, guarantees.durability_on_request, acks)
    };
    use Ack::{Journal, Memory, Through};
    let journal = guarantees(Journal, true, ProcessCrash, PowerCut);
    assert_eq!(journal, (PowerCut, PowerCut, [Memory, Journal, Journal, Through]));
    let memory = guarantees(Memory, true, ProcessCrash, PowerCut);
    assert_eq!(memory, (Nothing, PowerCut, [Memory, Journal, Journal, Through]));
    let bucket = guarantees(Journal, true, MachineLoss, MachineLoss);
    assert_eq!(bucket, (PowerCut, MachineLoss, [Memory, Journal, Journal, Through]));
    let through = guarantees(Through, false, PowerCut, PowerCut);
    assert_eq!(through, (PowerCut, PowerCut, [Memory, Through, Through, Through]));
    // From the journal it goes to a store that forgets.
    assert_eq!(guarantees(Journal, true, Nothing, Nothing).0, Nothing);
}

#[tokio::test]
async fn a_run_is_loaded_in_batches_and_replaces_what_was_dirty() {
    use futures_util::StreamExt;
    let mut bed = bed().await;
    bed.put("k", "dirty").await;
    let entry = crate::types::Entry { key: "k".into(), value: "loaded".into() };
    let page = crate::types::Page { entries: vec![entry] };
    let run = || futures_util::stream::iter([Ok(page.clone())]).boxed();
    let refused = bed.store.ingest(run()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert_eq!(bed.store.load(run()).await.unwrap(), 1);
    bed.gives("k", Some("loaded")).await;
    bed.below_gives("k", None).await;
    bed.flush_all().await;
    bed.below_gives("k", Some("loaded")).await;
}

#[tokio::test]
async fn a_failure_that_has_passed_is_no_answer() {
    let mut bed = bed_with(|config| config.flush_bytes = ByteSize(1024)).await;
    bed.faults.on(Operation::Write).times(1).fail(ErrorKind::Unavailable);
    for key in ["a", "b"] {
        drop(bed.store.put(key, vec![0; 600]).await.unwrap());
    }
    let store = Arc::clone(&bed.store);
    let mut flush = std::pin::pin!(store.flush());
    assert!(flush.as_mut().now_or_never().is_none());
    // Before the caller is woken, the attempt fails and the first of two runs succeeds.
    assert!(matches!(bed.flusher.step().await, Step::Failed(_)));
    assert_eq!(bed.flusher.step().await, Step::Flushed);
    assert!(flush.as_mut().now_or_never().is_none());
    assert_eq!(bed.flusher.step().await, Step::Flushed);
    flush.await.unwrap();
}

/// What is dirty replaces it.
#[tokio::test]
async fn a_foreign_change_of_a_dirty_key_is_overwritten() {
    let mut bed = bed().await;
    bed.put("k", "mine").await;
    drop(bed.below.put("k", "foreign").await.unwrap());
    bed.gives("k", Some("mine")).await;
    bed.flush_all().await;
    bed.gives("k", Some("mine")).await;
    drop(bed.below.put("k", "foreign").await.unwrap());
    bed.gives("k", Some("foreign")).await;
}

/// A store that takes one operation at a time.
struct Singly(FaultStore<Memory>);

impl Read for Singly {
    crate::forward!(self => self.0; get, get_many, scan);
}

#[async_trait::async_trait]
impl Store for Singly {
    fn profile(&self) -> crate::types::Profile {
        self.0.profile().changed(|guarantees| {
            (guarantees.atomic_batches, guarantees.limits.batch_ops) = (false, Some(1));
        })
    }

    async fn write(&self, batch: Batch) -> Result<crate::Commit> {
        match batch.ops().iter().any(|op| **op.key() == *b"refused") {
            true => Err(crate::Error::invalid("this key is refused here")),
            false => self.0.write(batch).await,
        }
    }

    crate::forward!(self => self.0; write_group, ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, close, identity);
}

/// The batches of a run that is refused are written one by one, as the journal has them.
#[tokio::test]
async fn what_has_landed_beside_a_refused_operation_is_not_replaced_by_an_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let below = Arc::new(Singly(FaultStore::new(Memory::new(), &Faults::new())));
    let config = config(folder.path(), Ack::Journal);
    let layer = WriteBackLayer::open(&config, &Context::default()).await.unwrap();
    let (store, mut flusher) = layer.pair(below).await.unwrap();
    for (key, value) in [("k", "1"), ("l", "1"), ("refused", "1"), ("k", "2")] {
        drop(store.put(key, value).await.unwrap());
    }
    drop(store.delete("l").await.unwrap());
    assert_eq!(flusher.step().await, Step::Stopped);
    assert_eq!(store.get(b"k").await.unwrap(), Some("2".into()));
    assert_eq!(store.get(b"l").await.unwrap(), None);
    assert_eq!(store.get(b"refused").await.unwrap(), Some("1".into()));
}

#[tokio::test]
async fn updates_of_a_key_are_merged_over_a_store_that_takes_one_operation_at_a_time_too() {
    let faults = Faults::new();
    let below = Arc::new(Singly(FaultStore::new(Memory::new(), &faults)));
    let config = WriteBackConfig { ack: Ack::Memory, ..WriteBackConfig::default() };
    let layer = WriteBackLayer::open(&config, &Context::default()).await.unwrap();
    let (store, mut flusher) = layer.pair(below).await.unwrap();
    for n in 0..100 {
        for key in ["a", "b"] {
            drop(store.put(key, n.to_string()).await.unwrap());
        }
    }
    assert_eq!(flusher.step().await, Step::Flushed);
    assert_eq!(flusher.step().await, Step::Idle);
    assert_eq!(faults.calls(Operation::Write), 2);
    assert_eq!(store.get(b"a").await.unwrap(), Some("99".into()));
}
