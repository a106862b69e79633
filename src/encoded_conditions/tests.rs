use super::*;
use crate::backends::Memory;
use crate::error::Operation;
use crate::ext::StoreExt;
use crate::store::Read;
use crate::testing::{Call, FaultStore, Faults};

/// The value above is the first letter of what is stored.
fn decode(_: &[u8], stored: Value) -> Result<Option<Value>> {
    Ok(Some(Value::new(stored.bytes.slice(..1))))
}

fn group() -> Vec<Batch> {
    let step = |from: &'static str, to: &'static str| {
        Batch::new().put("n", to).require(Condition::equals("n", from))
    };
    vec![Batch::new().put("a", "first"), step("0", "1x"), step("1", "2x"), step("2", "3x")]
}

async fn write(store: &FaultStore<Memory>, group: Vec<Batch>) -> Vec<Option<ErrorKind>> {
    let answers = write_group_decoded(store, group, Absence::MayBeHidden, decode).await;
    answers.into_iter().map(|answer| answer.err().map(|error| error.kind())).collect()
}

#[tokio::test]
async fn a_condition_on_what_the_group_itself_writes_needs_no_other_read() {
    let faults = Faults::new();
    let store = FaultStore::new(Memory::new(), &faults);
    store.put("n", "0x").await.unwrap();
    faults.record();
    assert_eq!(write(&store, group()).await, [None; 4]);
    assert_eq!(store.inner().get(b"n").await.unwrap(), Some("3x".into()));
    let calls = faults.record();
    assert_eq!(calls[0].operation(), Operation::GetMany);
    let conditions = |call: &Call| match call {
        Call::Write(batch) => batch.conditions().to_vec(),
        call => panic!("{call:?}"),
    };
    let stated: Vec<_> = calls[1..].iter().flat_map(conditions).collect();
    let want = ["0x", "1x", "2x"].map(|stored| Condition::equals("n", stored));
    assert_eq!(stated, want);
}

/// Somebody else writes between the look at what is stored and the batch that depends on it.
#[tokio::test]
async fn what_changes_meanwhile_is_looked_at_again() {
    // The same value above, another one, and one of which the condition holds only now.
    let aborted = Some(ErrorKind::Aborted);
    for (before, meanwhile, want) in [
        ("0x", "0y", [None; 4]),
        ("0x", "7y", [None, Some(ErrorKind::Conflict), aborted, aborted]),
        ("7x", "0y", [None; 4]),
    ] {
        let faults = Faults::new();
        let store = FaultStore::new(Memory::new(), &faults);
        store.put("n", before).await.unwrap();
        let gate = faults.on(Operation::Write).times(1).hold();
        let writing = write(&store, group());
        let other = async {
            gate.reached(1).await;
            store.inner().put("n", meanwhile).await.unwrap();
            gate.open();
        };
        let (answers, ()) = futures_util::future::join(writing, other).await;
        assert_eq!(answers, want, "{before} and then {meanwhile}");
        let last = if want[3].is_none() { "3x" } else { meanwhile };
        assert_eq!(store.inner().get(b"n").await.unwrap(), Some(last.into()));
        assert!(store.inner().get(b"a").await.unwrap().is_some(), "what came before stays");
    }
}

#[tokio::test]
async fn what_cannot_be_read_fails_the_batch_that_needs_it() {
    let faults = Faults::new();
    let store = FaultStore::new(Memory::new(), &faults);
    store.put("n", "0x").await.unwrap();
    faults.on(Operation::GetMany).fail(ErrorKind::Corruption);
    let answers = write(&store, group()).await;
    let aborted = Some(ErrorKind::Aborted);
    assert_eq!(answers, [None, Some(ErrorKind::Corruption), aborted, aborted]);
    assert!(store.inner().get(b"a").await.unwrap().is_some());
}
