//! Callers that wait: for a group, for room, and for nothing any more.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{join_all, poll_immediate};
use parking_lot::{Condvar, Mutex};
use tempfile::tempdir;
use tokio::task::JoinSet;

use super::basic::small;
use super::faulty::{End, Fault, Faulty};
use crate::error::{ErrorKind, Outcome, Result, Retry};
use crate::journal::core::{Core, Step};
use crate::journal::segment::{Entry, RESERVE};
use crate::journal::state::{Offer, OnFull, Shape};
use crate::journal::{Journal, Reader};

fn shape(on_full: OnFull) -> Shape {
    Shape { budget: 60_000, segment: RESERVE + 4_000, waiting: 100_000, on_full }
}

/// With the thread that writes.
pub(crate) async fn start(disk: &Faulty, on_full: OnFull) -> Journal {
    let disk = disk.clone();
    Journal::start(move || Ok(Arc::new(disk)), shape(on_full)).await.unwrap()
}

/// Holds syncs up until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<(bool, u64)>, Condvar)>);

impl Gate {
    fn on(disk: &Faulty) -> Self {
        let gate = Self::default();
        let held = gate.clone();
        disk.on_sync(Some(Box::new(move || {
            let mut state = held.0.0.lock();
            state.1 += 1;
            held.0.1.notify_all();
            while !state.0 {
                held.0.1.wait(&mut state);
            }
        })));
        gate
    }

    /// Returns when a sync has begun.
    fn reached(&self) {
        let mut state = self.0.0.lock();
        while state.1 == 0 {
            self.0.1.wait(&mut state);
        }
    }

    fn open(&self) {
        self.0.0.lock().0 = true;
        self.0.1.notify_all();
    }
}

async fn pending<T>(future: impl Future<Output = T>) -> bool {
    poll_immediate(pin!(future)).await.is_none()
}

#[tokio::test]
async fn one_sync_serves_all_that_wait_and_later_ones_are_the_next_group() {
    let disk = Faulty::new(1);
    let journal = start(&disk, OnFull::Block).await;
    let gate = Gate::on(&disk);
    let first = journal.append("first").await.unwrap();
    gate.reached();
    let before = disk.syncs();
    for number in 0..50u8 {
        journal.append(vec![number]).await.unwrap();
    }
    assert!(pending(journal.durable(first)).await, "its sync has not ended");
    gate.open();
    let all = join_all((first..=first + 50).map(|sequence| journal.durable(sequence))).await;
    assert!(all.into_iter().all(|done| done.is_ok()));
    assert_eq!(disk.syncs() - before, 2, "the first, and one for the other fifty");
    journal.close().await.unwrap();
}

#[tokio::test]
async fn all_that_wait_are_told_of_a_failed_sync_and_nothing_is_written_after_it() {
    for fault in [Fault::Io, Fault::Full] {
        let disk = Faulty::new(1);
        let journal = start(&disk, OnFull::Block).await;
        let mut reader = journal.reader("r", 0).await.unwrap();
        let kept = journal.append("kept").await.unwrap();
        journal.durable(kept).await.unwrap();
        let gate = Gate::on(&disk);
        let first = journal.append("first").await.unwrap();
        gate.reached();
        let later = journal.append("later").await.unwrap();
        let waits = [journal.durable(first), journal.durable(first), journal.durable(later)];
        disk.plan(0, fault);
        gate.open();
        let told = join_all(waits).await;
        let changes = disk.changes();
        let said: Vec<_> = told.into_iter().map(|told| told.unwrap_err()).collect();
        assert!(
            said[0].message().contains("syncing disk/journal-0000000000000001"),
            "{:?}",
            said[0]
        );
        assert_eq!(said[0].retry(), Retry::Never);
        let refused = journal.append("x").await.unwrap_err();
        assert_eq!(refused.outcome(), Outcome::Nothing);
        for error in said.iter().chain([&refused, &journal.close().await.unwrap_err()]) {
            assert_eq!(error.to_string(), said[0].to_string());
        }
        assert_eq!((disk.changes(), disk.wrong()), (changes, vec![]));
        // What is on the disk can be read on.
        assert_eq!(reader.read(1 << 20).await.unwrap().len(), 1);
        journal.durable(kept).await.unwrap();
        drop(journal);

        // The system shows what the disk does not have.
        disk.restart(End::Kill);
        let journal = start(&disk, OnFull::Block).await;
        let mut reader = journal.reader("r", 0).await.unwrap();
        let there = reader.read(1 << 20).await.unwrap().len();
        disk.restart(End::PowerCut);
        let core = Core::open(Arc::new(disk.clone()), shape(OnFull::Block)).unwrap();
        assert!(core.with(|state| state.next) > there as u64, "what was read is gone");
    }
}

async fn fill(journal: &Journal) -> u64 {
    let mut last = 0;
    loop {
        let mut append = Box::pin(journal.append(vec![7; 3_000]));
        match poll_immediate(&mut append).await {
            Some(Ok(sequence)) => last = sequence,
            Some(Err(error)) => {
                assert_eq!(
                    (error.kind(), error.outcome()),
                    (ErrorKind::Capacity, Outcome::Nothing)
                );
                return last;
            }
            // It waits for a segment, or for room.
            None if journal.usage().bytes > 55_000 => return last,
            None => last = append.await.unwrap(),
        }
    }
}

async fn release_all(journal: &Journal, reader: &Reader) -> Result<()> {
    let last = journal.usage().next - 1;
    journal.durable(last).await?;
    reader.release(last)
}

#[tokio::test]
async fn a_full_budget_blocks_in_order_until_readers_release() {
    let disk = Faulty::new(1);
    let journal = Arc::new(start(&disk, OnFull::Block).await);
    let reader = journal.reader("r", 0).await.unwrap();
    let last = fill(&journal).await;
    let mut large = Box::pin(journal.append(vec![8; 9_000]));
    assert!(poll_immediate(&mut large).await.is_none(), "there is no room");
    // A small one would fit, and does not go past it.
    let mut small = Box::pin(journal.append("small"));
    assert!(poll_immediate(&mut small).await.is_none(), "it waits behind the large one");
    {
        let mut gone = Box::pin(journal.append("gone"));
        assert!(poll_immediate(&mut gone).await.is_none());
    }
    release_all(&journal, &reader).await.unwrap();
    assert_eq!(large.await.unwrap(), last + 1);
    assert_eq!(small.await.unwrap(), last + 2);
    assert_eq!(
        journal.append("next").await.unwrap(),
        last + 3,
        "the one that was dropped is not there"
    );
    let blocked = fill(&journal).await;
    assert!(blocked > last);
    let mut waits = Box::pin(journal.append(vec![8; 9_000]));
    assert!(poll_immediate(&mut waits).await.is_none());
    journal.close().await.unwrap();
    assert_eq!(waits.await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_full_budget_refuses_where_it_is_told_to() {
    let disk = Faulty::new(1);
    let journal = start(&disk, OnFull::Refuse).await;
    let reader = journal.reader("r", 0).await.unwrap();
    let last = fill(&journal).await;
    let error = journal.append(vec![0; 9_000]).await.unwrap_err();
    assert!(error.message().contains("of at most 60000 bytes"), "{error}");
    release_all(&journal, &reader).await.unwrap();
    // Removed by its thread, a little later.
    loop {
        match journal.append("next").await {
            Ok(sequence) => break assert_eq!(sequence, last + 1),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Capacity),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(journal.append(vec![0; 60_000]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn one_large_record_after_the_other_fits_where_readers_keep_up() {
    let disk = Faulty::new(1);
    let journal = start(&disk, OnFull::Block).await;
    let reader = journal.reader("r", 0).await.unwrap();
    for _ in 0..10 {
        journal.append(vec![1; 50_000]).await.unwrap();
        release_all(&journal, &reader).await.unwrap();
    }
    journal.close().await.unwrap();
}

#[test]
fn a_full_disk_takes_nothing_that_it_cannot_write_and_goes_on_when_there_is_room() {
    let disk = Faulty::new(1);
    disk.set_room(20_000);
    let core = Core::open(Arc::new(disk.clone()), shape(OnFull::Refuse)).unwrap();
    core.with(|state| {
        state.save = true;
        state.positions.add("r", 0).unwrap();
    });
    let entry = Entry::data(vec![5; 900].into());
    let mut taken = 0;
    let refused = loop {
        match core.offer(&entry, true) {
            Ok(Offer::Taken(sequence)) => taken = sequence,
            Ok(Offer::Wait) => drop(core.step()),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Capacity);
    assert!(refused.message().contains("making disk/journal-"), "{refused}");
    while core.with(|state| state.has_work()) {
        assert_eq!(core.step(), Step::Worked);
    }
    assert_eq!(core.with(|state| state.durable), taken + 1, "what was taken is on the disk");
    // A release is written into the reserve of the segment, and makes room.
    core.advance("r", taken + 1).unwrap();
    core.step();
    while core.offer(&entry, false).unwrap() == Offer::Wait {
        core.step();
    }
    core.step();
    assert_eq!(core.with(|state| (state.durable, state.failed.is_some())), (taken + 2, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_and_readers_on_the_real_disk() {
    let folder = tempdir().unwrap();
    let journal = Arc::new(Journal::open(folder.path(), small(OnFull::Block)).await.unwrap());
    let mut readers = Vec::new();
    for name in ["a", "b"] {
        readers.push(journal.reader(name, 0).await.unwrap());
    }
    let (writers, each) = (16, 60);
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let journal = Arc::clone(&journal);
        tasks.spawn(async move {
            for number in 0..each {
                let record = [writer, number].repeat(1 + 400 * usize::from(number));
                let sequence = journal.append(record).await.unwrap();
                journal.durable(sequence).await.unwrap();
            }
        });
    }
    for mut reader in readers {
        let journal = Arc::clone(&journal);
        tasks.spawn(async move {
            let (mut next, mut seen) = (1, vec![0; writers as usize]);
            while next <= u64::from(writers) * u64::from(each) {
                for record in reader.read(30_000).await.unwrap() {
                    assert_eq!(record.sequence, next);
                    let (writer, number) = (usize::from(record.bytes[0]), record.bytes[1]);
                    assert_eq!(
                        (seen[writer], record.bytes.len()),
                        (number, 2 + 800 * usize::from(number))
                    );
                    seen[writer] += 1;
                    next += 1;
                }
                reader.release(next - 1).unwrap();
                tokio::task::yield_now().await;
            }
            drop(journal);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let usage = journal.usage();
    assert!(usage.bytes < 1 << 20 && usage.next == 961, "{usage:?}");
    journal.close().await.unwrap();
}
