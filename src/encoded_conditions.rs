//! Conditions of a layer that decodes values, in the terms of the store below it.

use std::collections::HashMap;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::store::Store;
use crate::types::{Batch, Commit, Condition, Value};
use crate::write_group::complete;

/// What the absence of a key above the layer means below it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absence {
    /// The same: the key is absent.
    Passes,
    /// That the key is absent, or holds something that the layer hides.
    MayBeHidden,
}

impl Absence {
    /// Whether the condition says the same below the layer.
    fn passes(self, condition: &Condition) -> bool {
        self == Self::Passes && matches!(condition, Condition::Absent(_))
    }

    /// Conditions that are to be put in terms of what is stored.
    fn logical(self, batch: &Batch) -> impl Iterator<Item = &Condition> {
        batch.conditions().iter().filter(move |condition| !self.passes(condition))
    }
}

/// How often a condition is put in new terms, as what is stored was encoded again, before it is given up.
const ATTEMPTS: usize = 16;

/// Writes a batch of encoded values whose conditions are on decoded ones: what is stored for their keys is
/// read, compared, and required to be still there.
///
/// `decode` gives the value above of what is stored, or `None` where the layer hides it.
///
/// # Errors
/// `Conflict` if a condition does not hold; as reading and writing `below`.
pub(crate) async fn write_decoded<S: Store + ?Sized>(
    below: &S,
    batch: Batch,
    absence: Absence,
    decode: impl Fn(&[u8], Value) -> Result<Option<Value>> + Send + Sync,
) -> Result<Commit> {
    let passes = |condition: &&Condition| absence.passes(condition);
    let logical: Vec<&Condition> = batch.conditions().iter().filter(|c| !passes(c)).collect();
    if logical.is_empty() {
        return below.write(batch).await;
    }
    let keys: Vec<Bytes> = logical.iter().map(|condition| condition.key().clone()).collect();
    let passing: Vec<Condition> = batch.conditions().iter().filter(passes).cloned().collect();
    let mut refused: Option<(Vec<Option<Value>>, Error)> = None;
    for _ in 0..ATTEMPTS {
        // Of this write nothing happened yet.
        let found = below.get_many(&keys).await;
        let found = found.map_err(|error| error.with_outcome(Outcome::Nothing))?;
        if let Some((before, error)) = refused.take_if(|(before, _)| *before == found) {
            drop(before);
            return Err(error);
        }
        let mut stored = passing.clone();
        for (condition, found) in logical.iter().zip(&found) {
            stored.push(restate(condition, found.as_ref(), &decode)?);
        }
        match below.write(batch.clone().with_conditions(stored)).await {
            // What is stored changed. The value that it stands for may be the same.
            Err(error)
                if error.kind() == ErrorKind::Conflict && error.outcome() == Outcome::Nothing =>
            {
                refused = Some((found, error));
            }
            done => return done,
        }
    }
    Err(match refused {
        Some((_, error)) => error,
        None => {
            Error::internal("no attempt of a conditional write was refused, and none succeeded")
        }
    })
}

/// Writes a group of batches of encoded values whose conditions are on decoded ones.
///
/// The conditions of a batch are put in terms of what is stored, or of what the batches before it will have
/// stored; the store below checks that it is so. A batch of which that fails is written [alone](write_decoded),
/// once those before it are there: only then it is certain whether its conditions hold.
pub(crate) async fn write_group_decoded<S: Store + ?Sized>(
    below: &S,
    group: Vec<Batch>,
    absence: Absence,
    decode: impl Fn(&[u8], Value) -> Result<Option<Value>> + Send + Sync,
) -> Vec<Result<Commit>> {
    if group.iter().all(|batch| absence.logical(batch).next().is_none()) {
        return below.write_group(group).await;
    }
    let mut answers = Vec::with_capacity(group.len());
    let mut rest = group.iter();
    while rest.len() > 0 {
        let run = restate_run(below, rest.as_slice(), absence, &decode).await;
        let mut written = below.write_group(run).await;
        let done = written.iter().take_while(|answer| answer.is_ok()).count();
        let mut failed = written.split_off(done).into_iter();
        answers.append(&mut written);
        rest = rest.as_slice().get(done..).unwrap_or_default().iter();
        match failed.next() {
            Some(Err(error))
                if error.kind() != ErrorKind::Conflict || error.outcome() != Outcome::Nothing =>
            {
                answers.push(Err(error));
                answers.extend(failed);
                break;
            }
            _ => {}
        }
        // Of the next one, what is stored was not as expected.
        if let Some(batch) = rest.next() {
            answers.push(write_decoded(below, batch.clone(), absence, &decode).await);
            if answers.last().is_some_and(Result::is_err) {
                break;
            }
        }
    }
    complete(answers, group.len())
}

/// The batches, in terms of what is stored, up to the first whose conditions do not hold of it.
async fn restate_run<S: Store + ?Sized>(
    below: &S,
    group: &[Batch],
    absence: Absence,
    decode: impl Fn(&[u8], Value) -> Result<Option<Value>>,
) -> Vec<Batch> {
    let conditions = group.iter().flat_map(|batch| absence.logical(batch));
    let keys: Vec<Bytes> = conditions.map(|condition| condition.key().clone()).collect();
    // What cannot be read is an error of the batch that needs it, once its turn has come.
    let found = below.get_many(&keys).await.unwrap_or_default();
    let mut stored: HashMap<Bytes, Option<Value>> = keys.into_iter().zip(found).collect();
    let mut run = Vec::with_capacity(group.len());
    for batch in group {
        let restated = batch.conditions().iter().map(|condition| {
            if absence.passes(condition) {
                return Some(condition.clone());
            }
            restate(condition, stored.get(condition.key())?.as_ref(), &decode).ok()
        });
        let Some(conditions) = restated.collect::<Option<Vec<_>>>() else { break };
        run.push(batch.clone().with_conditions(conditions));
        for op in batch.ops() {
            stored.insert(op.key().clone(), op.value().cloned());
        }
    }
    run
}

/// The condition on what is stored that says the same as the one on what is read.
fn restate(
    condition: &Condition,
    found: Option<&Value>,
    decode: impl Fn(&[u8], Value) -> Result<Option<Value>>,
) -> Result<Condition> {
    let key = condition.key();
    let shown = match found {
        Some(stored) => {
            decode(key, stored.clone()).map_err(|error| error.with_outcome(Outcome::Nothing))?
        }
        None => None,
    };
    if !condition.holds(shown.as_ref()) {
        return Err(condition.unmet());
    }
    Ok(match found {
        Some(stored) => Condition::Equals(key.clone(), stored.clone()),
        None => Condition::Absent(key.clone()),
    })
}

#[cfg(test)]
mod tests;
