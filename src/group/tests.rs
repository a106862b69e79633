use super::*;
use crate::backends::Memory;
use crate::error::{ErrorKind, Outcome};
use crate::ext::ReadExt;
use crate::types::{Condition, Scan};

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
