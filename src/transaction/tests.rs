//! What a transaction sees, relies on and takes back, against a map; and how a run begins again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures_util::TryStreamExt;
use proptest::prelude::*;
use tokio_test::task::spawn;

use super::*;
use crate::backends::Memory;
use crate::clock::{ManualClock, Timestamp};
use crate::error::{Error, ErrorKind, Operation, Outcome, Result, Retry};
use crate::ext::{ReadExt, StoreExt};
use crate::store::{Read, Store};
use crate::testing::{Call, FaultStore, Faults};
use crate::types::{
    Batch, Commit, Condition, Durability, Guarantees, Limits, Op, Order, Page, Scan, Value,
};

async fn over(entries: &[(&'static str, &'static str)]) -> Arc<Memory> {
    let store = Arc::new(Memory::new());
    for (key, value) in entries {
        let _ = store.put(*key, *value).await.unwrap();
    }
    store
}

/// A step of a transaction. Keys are small, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Batch(Vec<(u8, Option<u8>)>),
    Savepoint,
    /// To one of the savepoints so far.
    RollbackTo(usize),
    Scan {
        from: u8,
        to: u8,
        reverse: bool,
        keys_only: bool,
        limit: Option<u64>,
        page_entries: usize,
        page_bytes: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..12u8;
    let scan = (key(), key(), any::<[bool; 2]>(), prop::option::of(0..9u64), 1..5usize, 1..40usize);
    let step = prop_oneof![
        3 => (key(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key().prop_map(Step::Delete),
        1 => prop::collection::vec((key(), prop::option::of(any::<u8>())), 0..4).prop_map(Step::Batch),
        1 => Just(Step::Savepoint),
        1 => (0..4usize).prop_map(Step::RollbackTo),
        3 => scan.prop_map(|(from, to, [reverse, keys_only], limit, page_entries, page_bytes)| Step::Scan {
            from, to, reverse, keys_only, limit, page_entries, page_bytes
        }),
    ];
    prop::collection::vec(step, 0..40)
}

type Model = BTreeMap<Bytes, Value>;

fn name(key: u8) -> Bytes {
    Bytes::from(format!("key-{key:02}"))
}

fn number(value: u8) -> Value {
    // Of different lengths, and some with an expiry.
    let value_of = Value::new(vec![value; usize::from(value % 7)]);
    if value.is_multiple_of(5) {
        value_of.expiring_at(Timestamp::from_millis(u64::MAX))
    } else {
        value_of
    }
}

fn scanned(model: &Model, scan: &Scan) -> Vec<(Bytes, Value)> {
    let mut found: Vec<_> = model
        .iter()
        .filter(|(key, _)| scan.contains(key))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if scan.keys_only {
        found.iter_mut().for_each(|(_, value)| *value = Value::default());
    }
    if scan.order == Order::Reverse {
        found.reverse();
    }
    found.truncate(scan.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap()));
    found
}

fn check_pages(scan: &Scan, pages: &[Page]) {
    for page in pages {
        let last = page.entries.last().unwrap();
        assert!(page.len() <= scan.page_entries, "{} entries in a page", page.len());
        let before = page.bytes() - last.key.len() - last.value.bytes.len();
        assert!(page.len() == 1 || before < scan.page_bytes, "a page goes on after {before} bytes");
    }
}

async fn run_beside_a_map(isolation: Isolation, there: &[(u8, u8)], steps: &[Step]) {
    let store = Arc::new(Memory::new());
    let mut model = Model::new();
    for (key, value) in there {
        let _ = store.put(name(*key), number(*value)).await.unwrap();
        model.insert(name(*key), number(*value));
    }
    let mut tx = store.begin(isolation).await.unwrap();
    let mut marks: Vec<(Savepoint, Model)> = Vec::new();
    for step in steps {
        match step.clone() {
            Step::Put(key, value) => {
                tx.put(name(key), number(value)).unwrap();
                model.insert(name(key), number(value));
            }
            Step::Delete(key) => {
                tx.delete(name(key)).unwrap();
                model.remove(&name(key));
            }
            Step::Batch(ops) => {
                let mut batch = Batch::new();
                for (key, value) in ops {
                    match value {
                        Some(value) => {
                            batch.push(Op::Put(name(key), number(value)));
                            model.insert(name(key), number(value));
                        }
                        None => {
                            batch.push(Op::Delete(name(key)));
                            model.remove(&name(key));
                        }
                    }
                }
                tx.write(batch).await.unwrap();
            }
            Step::Savepoint => marks.push((tx.savepoint(), model.clone())),
            Step::RollbackTo(at) => {
                if let Some((savepoint, then)) = marks.get(at).cloned() {
                    tx.rollback_to(savepoint).unwrap();
                    model = then;
                    for (ended, _) in marks.drain(at + 1..) {
                        let refused = tx.rollback_to(ended).unwrap_err();
                        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
                    }
                }
            }
            Step::Scan { from, to, reverse, keys_only, limit, page_entries, page_bytes } => {
                let mut scan = Scan::range(name(from)..name(to))
                    .page_entries(page_entries)
                    .page_bytes(page_bytes);
                scan.limit = limit;
                scan.keys_only = keys_only;
                if reverse {
                    scan = scan.reverse();
                }
                let pages: Vec<Page> = tx.scan(scan.clone()).try_collect().await.unwrap();
                check_pages(&scan, &pages);
                let found = pages.into_iter().flat_map(|page| page.entries);
                let found: Vec<_> = found.map(|entry| (entry.key, entry.value)).collect();
                assert_eq!(found, scanned(&model, &scan));
            }
        }
    }
    let keys: Vec<Bytes> = (0..12).map(name).collect();
    for (key, found) in keys.iter().zip(tx.get_many(&keys).await.unwrap()) {
        assert_eq!(found.as_ref(), model.get(key));
        assert_eq!(tx.get(key).await.unwrap().as_ref(), model.get(key));
    }
    tx.commit().await.unwrap();
    let left = store.collect(Scan::all()).await.unwrap();
    let left: Model = left.into_iter().map(|entry| (entry.key, entry.value)).collect();
    assert_eq!(left, model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_transaction_is_a_map_over_a_map(
        there in prop::collection::vec((0..12u8, any::<u8>()), 0..12),
        steps in steps(),
        level in 0..3usize,
    ) {
        tokio_test::block_on(run_beside_a_map(Isolation::ALL[level], &there, &steps));
    }
}

#[tokio::test]
async fn what_a_commit_relies_on_follows_from_the_level() {
    let faults = Faults::new();
    let memory = Memory::new();
    let _ =
        memory.write(Batch::new().put("a", "1").put("b", "2").put("c", "3").put("d", "4")).await;
    let store = Arc::new(FaultStore::new(memory, &faults));
    let mut relied_on = Vec::new();
    for isolation in Isolation::ALL {
        let mut tx = store.begin(isolation).await.unwrap();
        tx.get(b"a").await.unwrap();
        tx.get(b"absent").await.unwrap();
        // Of keys only, of which the commit needs the values.
        tx.collect(Scan::range("c"..="d").limit(1).keys_only()).await.unwrap();
        tx.put("a", "1").unwrap();
        tx.put("b", "2").unwrap();
        tx.get(b"b").await.unwrap();
        faults.record();
        tx.commit().await.unwrap();
        let written = faults.record().into_iter().find_map(|call| match call {
            Call::Write(batch) => Some(batch),
            _ => None,
        });
        relied_on.push(written.unwrap().conditions().to_vec());
    }
    let (a, b) = (Condition::equals("a", "1"), Condition::equals("b", "2"));
    assert_eq!(relied_on[0], []);
    assert_eq!(relied_on[1], [a.clone(), b], "what it writes, read before or not");
    // `b` was written before it was read, and `d` was not reached.
    assert_eq!(relied_on[2], [a, Condition::absent("absent"), Condition::equals("c", "3")]);
}

#[tokio::test]
async fn what_is_rolled_back_is_required_no_longer_and_what_was_read_is() {
    let store = over(&[("a", "1"), ("b", "1")]).await;
    for (isolation, commits) in [
        (Isolation::ReadCommitted, true),
        (Isolation::RepeatableRead, true),
        (Isolation::Serializable, false),
    ] {
        let _ = store.put("a", "1").await.unwrap();
        let mut tx = store.begin(isolation).await.unwrap();
        let mark = tx.savepoint();
        let durable = Batch::new().put("b", "2").durability(Durability::Nothing);
        tx.write(durable.require(Condition::equals("a", "1"))).await.unwrap();
        tx.rollback_to(mark).unwrap();
        tx.put("c", "3").unwrap();
        let _ = store.put("a", "changed").await.unwrap();
        assert_eq!(tx.commit().await.is_ok(), commits, "{isolation}");
    }
    assert_eq!(store.get(b"b").await.unwrap(), Some("1".into()));
}

#[tokio::test]
async fn a_savepoint_of_another_transaction_is_refused() {
    let store = over(&[]).await;
    let mut one = store.begin(Isolation::ReadCommitted).await.unwrap();
    let mut two = store.begin(Isolation::ReadCommitted).await.unwrap();
    one.put("k", "v").unwrap();
    let (mark, _) = (two.savepoint(), one.savepoint());
    assert_eq!(one.rollback_to(mark).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(one.get(b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn equal_bytes_that_were_put_back_are_unchanged_and_another_expiry_is_not() {
    let store = over(&[("k", "1")]).await;
    let begin = async || {
        let mut tx = store.begin(Isolation::Serializable).await.unwrap();
        tx.get(b"k").await.unwrap();
        tx.put("other", "v").unwrap();
        tx
    };
    let tx = begin().await;
    for value in ["2", "1"] {
        let _ = store.put("k", value).await.unwrap();
    }
    tx.commit().await.unwrap();
    let tx = begin().await;
    let _ = store
        .put("k", Value::from("1").expiring_at(Timestamp::from_millis(u64::MAX)))
        .await
        .unwrap();
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_read_only_transaction_writes_nothing() {
    let faults = Faults::new();
    let store = Arc::new(FaultStore::new(Memory::new(), &faults));
    for isolation in Isolation::ALL {
        let tx = store.begin(isolation).await.unwrap();
        tx.get(b"k").await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(faults.calls(Operation::Write), 0);
}

#[tokio::test]
async fn wrong_input_is_refused_where_it_is_written() {
    let store = over(&[]).await;
    let mut tx = store.begin(Isolation::Serializable).await.unwrap();
    assert_eq!(tx.put("", "v").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(tx.delete("").unwrap_err().kind(), ErrorKind::InvalidInput);
    let batch = Batch::new().put("k", "v").delete("");
    assert_eq!(tx.write(batch).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let rewrite = Batch::new().put("k", "v").rewriting();
    assert_eq!(tx.write(rewrite).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(tx.get(b"k").await.unwrap(), None, "nothing of a refused batch is there");
    assert_eq!(format!("{tx:?}"), "Transaction(SERIALIZABLE, 0 writes)");
}

#[test]
fn what_a_store_lacks_is_named() {
    let guarantees = |change: fn(&mut Guarantees)| {
        let mut guarantees = Memory::new().profile().guarantees;
        change(&mut guarantees);
        guarantees
    };
    let refused = |isolation: Isolation, guarantees: &Guarantees| {
        let error = isolation.check(guarantees).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        error.message().to_owned()
    };
    let no_writes = guarantees(|guarantees| guarantees.writable = false);
    let no_batches = guarantees(|guarantees| guarantees.atomic_batches = false);
    for isolation in Isolation::ALL {
        assert!(refused(isolation, &no_writes).contains("takes no writes"));
        assert!(refused(isolation, &no_batches).contains("no atomic batches"));
    }
    let no_snapshots = guarantees(|guarantees| guarantees.snapshots = false);
    let no_values =
        guarantees(|guarantees| guarantees.conditions = crate::types::Conditions::Absence);
    for isolation in [Isolation::RepeatableRead, Isolation::Serializable] {
        assert!(refused(isolation, &no_snapshots).contains("snapshot, and this store has none"));
        assert!(refused(isolation, &no_values).contains("cannot compare values"));
    }
    assert!(Isolation::ReadCommitted.check(&no_snapshots).is_ok());
    assert!(Isolation::ReadCommitted.check(&no_values).is_ok());
}

/// Lets time pass until the operation ends.
fn patiently<T>(clock: &ManualClock, operation: impl Future<Output = T>) -> T {
    let mut operation = spawn(operation);
    for _ in 0..1_000_000 {
        if let Poll::Ready(done) = operation.poll() {
            return done;
        }
        assert_eq!(clock.sleepers(), 1, "it waits for the clock and nothing else");
        clock.advance(std::time::Duration::from_millis(1));
    }
    panic!("no end");
}

/// A run whose first attempts are each met by another writer.
fn run(conflicts: usize, attempts: usize) -> (Result<(usize, Commit)>, usize, Arc<Memory>) {
    let (clock, store, ran) = (ManualClock::new(), Arc::new(Memory::new()), AtomicUsize::new(0));
    let transact = Transact::new(Isolation::Serializable)
        .attempts(attempts)
        .seed(7)
        .clock(Arc::new(clock.clone()));
    let (counter, other) = (&ran, &store);
    let body = |mut tx: Transaction| async move {
        let attempt = counter.fetch_add(1, Ordering::SeqCst);
        tx.get(b"k").await?;
        if attempt < conflicts {
            let _ = other.put("k", attempt.to_string()).await?;
        }
        tx.put("done", attempt.to_string())?;
        Ok((tx, attempt))
    };
    let came = patiently(&clock, transact.run(&store, body));
    let ran = ran.load(Ordering::SeqCst);
    (came, ran, store)
}

#[test]
fn a_conflict_begins_again() {
    let (came, ran, store) = run(3, 20);
    assert_eq!((came.unwrap().0, ran), (3, 4));
    assert_eq!(tokio_test::block_on(store.get(b"done")).unwrap(), Some("3".into()));
}

#[test]
fn after_the_last_attempt_it_gives_up() {
    for attempts in [1, 4] {
        let (came, ran, store) = run(usize::MAX, attempts);
        let error = came.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Conflict, Retry::GaveUp));
        assert_eq!(error.outcome(), Outcome::Nothing);
        assert!(
            error.message().starts_with(&format!("gave up after {attempts} attempt")),
            "{error}"
        );
        assert_eq!(ran, attempts);
        assert_eq!(tokio_test::block_on(store.get(b"done")).unwrap(), None);
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_said_and_not_tried_again() {
    let faults = Faults::new();
    let store = Arc::new(FaultStore::new(Memory::new(), &faults));
    faults.on(Operation::Write).after_effect().fail(ErrorKind::Unavailable);
    let count = |mut tx: Transaction| async move {
        tx.put("k", "v")?;
        Ok((tx, ()))
    };
    let error = store.transact(Isolation::Serializable, count).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
    assert!(error.message().contains("unknown whether the transaction was committed"), "{error}");
    assert_eq!(faults.calls(Operation::Write), 1);
    faults.clear();
    // A conflict after which an earlier attempt may still take effect.
    faults
        .on(Operation::Write)
        .fail_with(|| Error::new(ErrorKind::Conflict, "met").with_outcome(Outcome::Unknown));
    assert!(store.transact(Isolation::Serializable, count).await.is_err());
    assert_eq!(faults.calls(Operation::Write), 2);
}

#[tokio::test]
async fn other_errors_pass_at_once() {
    let (store, ran) = (over(&[]).await, AtomicUsize::new(0));
    let ran_again = &ran;
    let own = |mut tx: Transaction| async move {
        ran_again.fetch_add(1, Ordering::SeqCst);
        tx.put("k", "v")?;
        Err::<(Transaction, ()), _>(Error::new(ErrorKind::Conflict, "of the body"))
    };
    let error = store.transact(Isolation::Serializable, own).await.unwrap_err();
    assert_eq!((error.message(), ran.load(Ordering::SeqCst)), ("of the body", 1));
    assert_eq!(store.get(b"k").await.unwrap(), None);
}

/// It runs as a task of its own, also with what it borrows.
#[tokio::test]
async fn a_run_can_be_spawned() {
    async fn add(store: &Arc<dyn Store>, key: &str) -> Result<usize> {
        let count = |mut tx: Transaction| async move {
            let length = tx.get(key.as_bytes()).await?.map_or(0, |value| value.bytes.len()) + 1;
            tx.put(key.to_owned(), vec![b'x'; length])?;
            Ok((tx, length))
        };
        store.transact(Isolation::Serializable, count).await.map(|(length, _)| length)
    }
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let task = tokio::spawn(async move {
        let key = String::from("k");
        add(&store, &key).await.unwrap();
        add(&store, &key).await.unwrap()
    });
    assert_eq!(task.await.unwrap(), 2);
}

#[tokio::test]
async fn more_writes_than_a_batch_takes_are_refused_with_the_limit() {
    let store = over(&[]).await;
    let mut tx = store.begin(Isolation::Serializable).await.unwrap();
    tx.guarantees.limits = Limits { batch_ops: Some(2), ..Limits::default() };
    for key in ["a", "b", "c"] {
        tx.put(key, "v").unwrap();
    }
    let refused = tx.commit().await.unwrap_err();
    assert_eq!((refused.kind(), refused.outcome()), (ErrorKind::InvalidInput, Outcome::Nothing));
    assert!(
        refused.message().contains("a batch of 3 operations is over this store's limit of 2"),
        "{refused}"
    );
}
