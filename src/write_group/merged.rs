//! Batches of a group as one: for stores whose answer takes a round trip.

use std::collections::HashSet;

use super::in_order::{complete, write_in_order};
use crate::error::{Outcome, Result};
use crate::store::Store;
use crate::types::{Batch, Commit, Op};

/// Bytes of batches that are merged, and their operations.
const MERGED_BYTES: usize = 1 << 20;
const MERGED_OPS: usize = 1024;

/// Writes a group over a store with atomic batches whose answer takes a round trip: batches that follow each
/// other are merged into one, which takes effect wholly or not at all. So does a prefix of the group. Where the
/// store refuses it, they are written one after the other, to find out which it is.
pub(crate) async fn write_merged<S: Store + ?Sized>(
    store: &S,
    group: Vec<Batch>,
) -> Vec<Result<Commit>> {
    let guarantees = store.profile().guarantees;
    let most = guarantees.batch_ops().unwrap_or(MERGED_OPS).min(MERGED_OPS);
    let batches = group.len();
    let mut answers: Vec<Result<Commit>> = Vec::with_capacity(batches);
    let mut rest = group.as_slice();
    while answers.iter().all(Result::is_ok) && !rest.is_empty() {
        let (merged, taken) = merge(rest, most, |batch| guarantees.check_batch(batch).is_ok());
        let (run, behind) = rest.split_at_checked(taken.max(1)).unwrap_or((rest, &[]));
        rest = behind;
        match if run.len() > 1 { Some(store.write(merged).await) } else { None } {
            Some(Ok(_)) => answers.extend(run.iter().map(|_| Ok(Commit::done()))),
            Some(Err(error)) if error.outcome() == Outcome::Unknown => {
                answers.extend(run.iter().map(|_| Err(error.clone())));
            }
            Some(Err(_)) | None => answers.append(&mut write_in_order(store, run.to_vec()).await),
        }
    }
    complete(answers, batches)
}

/// The first batches of a group as one, and how many they are: those whose conditions are on keys that no batch
/// before them writes, and that all write new values, or all the ones that are there in another form.
pub(super) fn merge(group: &[Batch], most: usize, fits: impl Fn(&Batch) -> bool) -> (Batch, usize) {
    let (mut ops, mut conditions, mut durability) = (Vec::new(), Vec::new(), None);
    let (mut written, mut bytes, mut taken) = (HashSet::new(), 0, 0);
    let rewrites = group.first().is_some_and(Batch::is_rewrite);
    for batch in group {
        bytes += batch.bytes();
        let met = batch.conditions().iter().any(|condition| written.contains(condition.key()));
        let differs = batch.is_rewrite() != rewrites;
        if met || differs || !fits(batch) || bytes > MERGED_BYTES || ops.len() + batch.len() > most
        {
            break;
        }
        written.extend(batch.ops().iter().map(Op::key));
        ops.extend(batch.ops().iter().cloned());
        conditions.extend(batch.conditions().iter().cloned());
        durability = durability.max(batch.requested_durability());
        taken += 1;
    }
    let merged = ops.into_iter().collect::<Batch>().with_conditions(conditions);
    let merged = if rewrites { merged.rewriting() } else { merged };
    let merged = match durability {
        Some(durability) => merged.durability(durability),
        None => merged,
    };
    (merged, taken)
}
