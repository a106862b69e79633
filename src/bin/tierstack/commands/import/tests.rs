//! What is said to be in the store, for inputs and stores that fail.

use std::io::Cursor;

use async_trait::async_trait;
use tierstack::backends::Memory;
use tierstack::jsonl::Rules;
use tierstack::testing::{FaultStore, Faults};
use tierstack::{Batch, Commit, Limits, Operation, Pages, Profile, Read, forward};

use super::writes::WRITERS;
use super::*;

/// A store without batches.
struct Single(FaultStore<Memory>);

impl Read for Single {
    forward!(self => self.0; get, get_many, scan);
}

#[async_trait]
impl Store for Single {
    async fn write(&self, batch: Batch) -> Result<Commit, Error> {
        self.profile().guarantees.check_batch(&batch)?;
        self.0.write(batch).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit, Error>> {
        tierstack::write_in_order(self, group).await
    }

    async fn ingest(&self, _: Pages<'_>) -> Result<u64, Error> {
        Err(Error::unsupported("no runs"))
    }

    fn profile(&self) -> Profile {
        self.0.profile().changed(|guarantees| {
            guarantees.atomic_batches = false;
            guarantees.ingest = false;
        })
    }

    forward!(self => self.0; changes, invalidate, inspect, snapshot, flush, compact, usage, count, close, identity);
}

/// Imports ten lines, two a batch, from a pipe.
async fn import(faults: &Faults, from_line: u64) -> (Arc<dyn Store>, Outcome<Imported>) {
    let store: Arc<dyn Store> = Arc::new(FaultStore::new(Memory::new(), faults));
    let source = Source {
        name: "-".to_owned(),
        from_line,
        max_line: 100,
        rules: Rules { limits: Limits::default(), expiry: false },
        batch_ops: 2,
    };
    let lines: String =
        (1..=10).map(|n| format!("{{\"key\":\"{n:02}\",\"value\":\"\"}}\n")).collect();
    let progress = Progress::new("importing", None, Unit::Bytes);
    let reader = Box::new(Cursor::new(lines));
    let done = write_all(&store, &source, reader, &progress, &Shutdown::listen(2)).await;
    (store, done)
}

#[tokio::test]
async fn a_failing_batch_says_what_is_in_and_the_line_to_go_on_with() {
    let faults = Faults::new();
    faults.on(Operation::Write).skip(2).times(1).fail(ErrorKind::Capacity);
    let (store, done) = import(&faults, 1).await;
    let said = done.err().unwrap().to_string();
    assert!(said.contains("next: free space"), "{said}");
    assert!(said.contains("4 entries are in the store, up to line 4"), "{said}");
    assert!(said.contains("`tierstack import - --from-line 5`"), "{said}");
    assert!(store.get(b"04").await.unwrap().is_some());
    assert!(store.get(b"05").await.unwrap().is_none());
    assert_eq!(faults.calls(Operation::Flush), 1, "what is said to be in is flushed");
}

/// A store without batches: every line is a write, many of which are under way.
async fn import_one_by_one(faults: &Faults, lines: &str) -> (Arc<dyn Store>, Outcome<Imported>) {
    let store = FaultStore::new(Memory::new(), faults);
    let store: Arc<dyn Store> = Arc::new(Single(store));
    let source = Source {
        name: "-".to_owned(),
        from_line: 1,
        max_line: 100,
        rules: Rules { limits: Limits::default(), expiry: false },
        batch_ops: 1,
    };
    let progress = Progress::new("importing", None, Unit::Bytes);
    let reader = Box::new(Cursor::new(lines.to_owned()));
    let done = write_all(&store, &source, reader, &progress, &Shutdown::listen(2)).await;
    (store, done)
}

fn numbered(count: usize) -> String {
    (1..=count).map(|n| format!("{{\"key\":\"{n:03}\",\"value\":\"v\"}}\n")).collect()
}

#[tokio::test]
async fn a_store_without_batches_is_written_many_lines_at_a_time() {
    let faults = Faults::new();
    let gate = faults.on(Operation::Write).hold();
    let lines = numbered(100);
    let import = import_one_by_one(&faults, &lines);
    let opened = async {
        gate.reached(WRITERS).await;
        gate.open();
    };
    let ((store, done), ()) = tokio::join!(import, opened);
    assert_eq!(done.ok().map(|done| (done.entries, done.last_line)), Some((100, 100)));
    assert!(store.get(b"100").await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_said_to_be_in_ends_before_the_first_line_that_failed() {
    let faults = Faults::new();
    faults.on(Operation::Write).skip(6).times(1).fail(ErrorKind::Capacity);
    // The line before it takes long, and those behind it do not.
    let gate = faults.on(Operation::Write).skip(5).times(1).hold();
    let lines = numbered(40);
    let import = import_one_by_one(&faults, &lines);
    let opened = async {
        gate.reached(1).await;
        tokio::task::yield_now().await;
        gate.open();
    };
    let ((store, done), ()) = tokio::join!(import, opened);
    let said = done.err().unwrap().to_string();
    assert!(said.contains("6 entries are in the store, up to line 6"), "{said}");
    assert!(said.contains("--from-line 7"), "{said}");
    assert!(store.get(b"006").await.unwrap().is_some());
    assert!(store.get(b"007").await.unwrap().is_none());
}

#[tokio::test]
async fn of_lines_with_the_same_key_the_last_counts() {
    let faults = Faults::new();
    // Were the two under way at once, the first would win.
    let gate = faults.on(Operation::Write).times(1).hold();
    let line = |value: &str| format!("{{\"key\":\"k\",\"value\":\"{value}\"}}\n");
    let lines = line("first") + &numbered(5) + &line("last");
    let import = import_one_by_one(&faults, &lines);
    let opened = async {
        gate.reached(1).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        gate.open();
    };
    let ((store, done), ()) = tokio::join!(import, opened);
    assert_eq!(done.ok().map(|done| done.entries), Some(7));
    assert_eq!(store.get(b"k").await.unwrap(), Some("last".into()));
}

#[tokio::test]
async fn lines_before_the_first_are_passed_over() {
    let (store, done) = import(&Faults::new(), 9).await;
    assert_eq!(done.ok().map(|done| (done.entries, done.last_line)), Some((2, 10)));
    assert!(store.get(b"08").await.unwrap().is_none());
}

#[tokio::test]
async fn a_failing_flush_is_a_failure() {
    let faults = Faults::new();
    faults.on(Operation::Flush).fail(ErrorKind::Unavailable);
    let said = import(&faults, 3).await.1.err().unwrap().to_string();
    assert!(said.contains("may not survive a crash"), "{said}");
    assert!(said.contains("import them again, from line 3"), "{said}");
}
