//! A group written one batch after the other.

use crate::error::{Error, Result};
use crate::store::Store;
use crate::types::{Batch, Commit};

/// Writes a group one batch after the other, up to the first that fails: [`Store::write_group`] of a store that
/// has no faster way.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Batch, ErrorKind, Read, write_in_order};
///
/// let store = Memory::new();
/// let group = ["a", "", "c"].map(|key| Batch::new().put(key, "v"));
/// let answers = write_in_order(&store, group.into()).await;
/// let kinds = answers.iter().map(|answer| answer.as_ref().err().map(tierstack::Error::kind));
/// let want = [None, Some(ErrorKind::InvalidInput), Some(ErrorKind::Aborted)];
/// assert_eq!(kinds.collect::<Vec<_>>(), want);
/// assert_eq!(store.get(b"c").await?, None);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub async fn write_in_order<S: Store + ?Sized>(
    store: &S,
    group: Vec<Batch>,
) -> Vec<Result<Commit>> {
    let batches = group.len();
    let mut answers = Vec::with_capacity(batches);
    for batch in group {
        answers.push(store.write(batch).await);
        if answers.last().is_some_and(Result::is_err) {
            break;
        }
    }
    complete(answers, batches)
}

/// The answers of a group of so many batches that ended at the last of these.
pub(crate) fn complete<T>(mut answers: Vec<Result<T>>, batches: usize) -> Vec<Result<T>> {
    answers.resize_with(batches, || Err(Error::aborted()));
    answers
}
