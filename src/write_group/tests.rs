use super::*;
use crate::backends::Memory;
use crate::error::Operation;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::ext::ReadExt;
use crate::store::Store;
use crate::testing::{Call, FaultStore, Faults};
use crate::types::{Batch, Commit, Condition, Durability, Scan};

fn kinds(answers: &[Result<Commit>]) -> Vec<Option<ErrorKind>> {
    answers.iter().map(|answer| answer.as_ref().err().map(Error::kind)).collect()
}

fn puts(keys: &[&'static str]) -> Vec<Batch> {
    keys.iter().map(|key| Batch::new().put(*key, "v")).collect()
}

async fn keys(store: &Memory) -> Vec<bytes::Bytes> {
    let entries = store.collect(Scan::all()).await.unwrap();
    entries.into_iter().map(|entry| entry.key).collect()
}

#[tokio::test]
async fn a_group_ends_at_the_first_batch_that_fails_and_later_ones_say_so() {
    let store = Memory::new();
    let mut group = puts(&["a", "b"]);
    group.push(Batch::new().put("c", "v").require(Condition::absent("a")));
    group.extend(puts(&["d", "e"]));
    let answers = write_in_order(&store, group).await;
    let aborted = Some(ErrorKind::Aborted);
    assert_eq!(kinds(&answers), [None, None, Some(ErrorKind::Conflict), aborted, aborted]);
    let last = answers.last().unwrap().as_ref().unwrap_err();
    assert_eq!(last.outcome(), Outcome::Nothing);
    assert_eq!(keys(&store).await, ["a", "b"]);
}

#[tokio::test]
async fn what_a_layer_refuses_ends_a_group_behind_what_it_let_pass() {
    let store = Memory::new();
    let admit = |batch: Batch| match batch.ops()[0].key().as_ref() {
        b"c" => Err(Error::unsupported("no")),
        _ => Ok(batch),
    };
    let answers = write_admitted(&store, puts(&["a", "b", "c", "d"]), admit).await;
    let (refused, aborted) = (Some(ErrorKind::Unsupported), Some(ErrorKind::Aborted));
    assert_eq!(kinds(&answers), [None, None, refused, aborted]);
    assert_eq!(keys(&store).await, ["a", "b"]);

    // The store below refuses an earlier one: the layer's refusal comes too late.
    let answers = write_admitted(&store, puts(&["", "b", "c", "d"]), admit).await;
    let refused = Some(ErrorKind::InvalidInput);
    assert_eq!(kinds(&answers), [refused, aborted, aborted, aborted]);
}

/// The batches that a store of which each answer takes a round trip is asked for, and the answers.
async fn merged(
    store: &FaultStore<Memory>,
    faults: &Faults,
    group: Vec<Batch>,
) -> (Vec<usize>, Vec<Option<ErrorKind>>) {
    faults.record();
    let answers = write_merged(store, group).await;
    let ops = |call| match call {
        Call::Write(batch) => batch.len(),
        call => panic!("{call:?}"),
    };
    (faults.record().into_iter().map(ops).collect(), kinds(&answers))
}

#[tokio::test]
async fn merged_batches_are_one_request() {
    let faults = Faults::new();
    let store = FaultStore::new(Memory::new(), &faults);
    let (asked, answers) = merged(&store, &faults, puts(&["a", "b", "a"])).await;
    assert_eq!((asked, answers), (vec![3], vec![None; 3]));

    // A condition on what an earlier batch writes begins another one; on other keys it does not.
    let mut group = puts(&["c"]);
    group.push(Batch::new().put("d", "v").if_absent());
    group.push(Batch::new().put("c", "2").require(Condition::equals("c", "v")));
    group.extend(puts(&["e"]));
    let (asked, answers) = merged(&store, &faults, group).await;
    assert_eq!((asked, answers), (vec![2, 2], vec![None; 4]));

    // What is too large for one.
    let (asked, answers) =
        merged(&store, &faults, (0..2500).map(|n| Batch::new().put(n.to_string(), "v")).collect())
            .await;
    assert_eq!((asked, answers), (vec![1024, 1024, 452], vec![None; 2500]));
    let large = || Batch::new().put("l", vec![0; 700 << 10]);
    let (asked, _) = merged(&store, &faults, vec![large(), large(), large()]).await;
    assert_eq!(asked, [1, 1, 1]);
    assert_eq!(merged(&store, &faults, Vec::new()).await, (vec![], vec![]));
}

#[tokio::test]
async fn merged_batches_that_are_refused_are_written_one_by_one() {
    let faults = Faults::new();
    let store = FaultStore::new(Memory::new(), &faults);
    let mut group = puts(&["a", "b"]);
    group.push(Batch::new().put("d", "v").require(Condition::equals("z", "v")));
    group.extend(puts(&["e"]));
    let (asked, answers) = merged(&store, &faults, group).await;
    let aborted = Some(ErrorKind::Aborted);
    assert_eq!(answers, [None, None, Some(ErrorKind::Conflict), aborted]);
    assert_eq!(asked, [4, 1, 1, 1], "together, and then up to the one that is refused");
    assert_eq!(keys(store.inner()).await, ["a", "b"]);

    // What can never be written does not disturb those before it.
    let mut group = puts(&["f", "g"]);
    group.push(Batch::new().put("h", "v").durability(Durability::PowerCut));
    let (asked, answers) = merged(&store, &faults, group).await;
    assert_eq!((asked, answers), (vec![2, 1], vec![None, None, Some(ErrorKind::Unsupported)]));

    // Whether it is there, nobody knows: so it is with all of them.
    faults.on(Operation::Write).after_effect().times(1).fail(ErrorKind::Unavailable);
    let answers = write_merged(&store, puts(&["i", "j"])).await;
    for answer in answers {
        assert_eq!(answer.unwrap_err().outcome(), Outcome::Unknown);
    }
}

/// Above such a store a layer that adds deadlines would give one to what was there before.
#[tokio::test]
async fn what_is_written_in_another_form_stays_apart_from_what_is_new() {
    let faults = Faults::new();
    let store = FaultStore::new(Memory::new(), &faults);
    let old = || Batch::new().put("old", "v").rewriting();
    let new = || Batch::new().put("new", "v");
    faults.record();
    assert_eq!(kinds(&write_merged(&store, vec![old(), old(), new(), old()]).await), [None; 4]);
    let asked = faults.record().into_iter().map(|call| match call {
        Call::Write(batch) => (batch.len(), batch.is_rewrite()),
        call => panic!("{call:?}"),
    });
    assert_eq!(asked.collect::<Vec<_>>(), [(2, true), (1, false), (1, true)]);
}

/// Conditions of two batches on one key, of which not both can hold.
#[tokio::test]
async fn a_merged_batch_hides_no_condition_of_a_part() {
    let faults = Faults::new();
    let store = FaultStore::new(Memory::new(), &faults);
    for held in [false, true] {
        let batch = if held { Batch::new().put("z", "v") } else { Batch::new().delete("z") };
        assert!(store.write(batch).await.is_ok());
        let absent = Batch::new().put("a", "v").require(Condition::absent("z"));
        let there = Batch::new().put("b", "v").require(Condition::equals("z", "v"));
        let (conflict, aborted) = (Some(ErrorKind::Conflict), Some(ErrorKind::Aborted));
        let answers = write_merged(&store, vec![absent, there]).await;
        let want = if held { [conflict, aborted] } else { [None, conflict] };
        assert_eq!(kinds(&answers), want);
    }
    assert_eq!(keys(store.inner()).await, ["a", "z"]);
}
