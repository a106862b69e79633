//! A group of which a layer checks or changes each batch.

use super::in_order::complete;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::types::{Batch, Commit};

/// Writes a group of which a layer checks or changes each batch first. At the first batch that it refuses the
/// group ends: the ones before it are written, and the later ones are not.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Batch, Error, ErrorKind, write_admitted};
///
/// let short = |batch: Batch| match batch.bytes() {
///     0..100 => Ok(batch),
///     _ => Err(Error::new(ErrorKind::Capacity, "batches are below 100 bytes here")),
/// };
/// let group = vec![Batch::new().put("a", "1"), Batch::new().put("b", vec![0; 500])];
/// let answers = write_admitted(&Memory::new(), group, short).await;
/// assert!(answers[0].is_ok() && answers[1].is_err());
/// # });
/// ```
pub async fn write_admitted<S: Store + ?Sized>(
    below: &S,
    group: Vec<Batch>,
    admit: impl FnMut(Batch) -> Result<Batch>,
) -> Vec<Result<Commit>> {
    let (admitted, rest) = admitted(group, admit);
    rest.after(below.write_group(admitted).await)
}

/// The batches of a group up to the first that is refused, and what is left.
pub(crate) fn admitted(
    group: Vec<Batch>,
    mut admit: impl FnMut(Batch) -> Result<Batch>,
) -> (Vec<Batch>, Rest) {
    let mut rest = Rest { batches: group.len(), refused: None };
    let mut admitted = Vec::with_capacity(group.len());
    for batch in group {
        match admit(batch) {
            Ok(batch) => admitted.push(batch),
            Err(error) => {
                rest.refused = Some(error);
                break;
            }
        }
    }
    (admitted, rest)
}

/// What is left of a group behind the batches that were admitted.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Of the whole group.
    batches: usize,
    refused: Option<Error>,
}

impl Rest {
    /// The answers of the whole group, given those of the admitted batches.
    pub(crate) fn after(self, mut answers: Vec<Result<Commit>>) -> Vec<Result<Commit>> {
        if let Some(refused) = self.refused
            && answers.iter().all(Result::is_ok)
        {
            answers.push(Err(refused));
        }
        complete(answers, self.batches)
    }
}
