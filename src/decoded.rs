//! Conditions of a layer that decodes values, in the terms of the store below it.

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::store::Store;
use crate::types::{Batch, Commit, Condition, Value};

/// What the absence of a key above the layer means below it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absence {
    /// The same: the key is absent.
    Passes,
    /// That the key is absent, or holds something that the layer hides.
    MayBeHidden,
}

/// How often a condition is put in new terms, as what is stored was encoded anew, before it is given up.
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
    let passes = |condition: &&Condition| {
        absence == Absence::Passes && matches!(condition, Condition::Absent(_))
    };
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
