//! A batch within a transaction: its conditions, its operations, and whether the table holds them afterwards.

use super::super::rows::{self, Miss, millis};
use super::{Engine, Failed, overruled};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::group::complete;
use crate::types::{Batch, Op, Value};

impl Engine {
    /// Applies the batches of a group up to the first that is refused.
    pub(super) fn in_savepoints(
        &self,
        group: &[Batch],
        now: Timestamp,
    ) -> Result<Vec<Result<()>>, Failed> {
        let mut answers = Vec::with_capacity(group.len());
        for batch in group {
            answers.push(self.in_savepoint(batch, now)?);
            if answers.last().is_some_and(Result::is_err) {
                break;
            }
        }
        Ok(complete(answers, group.len()))
    }

    /// Applies a batch wholly or not at all. An error of the outer kind has ended the transaction.
    fn in_savepoint(&self, batch: &Batch, now: Timestamp) -> Result<Result<()>, Failed> {
        let run = |sql| self.db.prepare_cached(sql)?.raw_execute();
        run("SAVEPOINT batch")?;
        let applied = match self.apply(batch, now) {
            Ok(()) => Ok(()),
            // A full disk, for one, makes SQLite roll back all of it.
            Err(failed) if self.db.is_autocommit() => return Err(failed),
            Err(failed) => {
                run("ROLLBACK TO batch")?;
                Err(failed.into_error())
            }
        };
        run("RELEASE batch")?;
        Ok(applied)
    }

    pub(super) fn apply(&self, batch: &Batch, now: Timestamp) -> Result<(), Failed> {
        self.check_conditions(batch, now)?;
        let layout = &self.base.layout;
        for op in batch.ops() {
            let key = layout.key_cell(op.key());
            match op {
                Op::Put(_, value) => {
                    let expires = layout.expired.as_ref().and(value.expires_at);
                    let mut put = self.db.prepare_cached(&layout.put)?;
                    put.raw_bind_parameter(1, key)?;
                    put.raw_bind_parameter(2, layout.value_cell(&value.bytes))?;
                    // Parameters 3 and 4 are there only where a column takes them.
                    if layout.expired.is_some() {
                        put.raw_bind_parameter(3, layout.unit().deadline_cell(expires))?;
                    }
                    if put.parameter_count() > 3 {
                        put.raw_bind_parameter(4, millis(now))?;
                    }
                    if put.raw_execute()? == 0 {
                        return Err(Failed::Refused(overruled()));
                    }
                }
                Op::Delete(_) => {
                    self.db.prepare_cached(&layout.delete)?.execute([key])?;
                }
            }
        }
        if self.found.get().has_triggers && !self.is_as_written(batch)? {
            return Err(Failed::Refused(overruled()));
        }
        Ok(())
    }

    /// Whether the table holds what a batch has written: a trigger may have passed it over, changed it or
    /// undone it.
    pub(super) fn is_as_written(&self, batch: &Batch) -> Result<bool, Failed> {
        let layout = &self.base.layout;
        for op in batch.last_ops() {
            let there = match rows::get(&self.db, layout, op.key()) {
                Ok(there) => there,
                Err(Miss::Engine(error)) => return Err(error.into()),
                // It is neither key, value nor time, and so nothing that was written.
                Err(Miss::Cell(_)) => return Ok(false),
            };
            let kept = |value: &Value| Value {
                bytes: value.bytes.clone(),
                expires_at: value.expires_at.map(|at| layout.unit().kept(at)),
            };
            if there != op.value().map(kept) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check_conditions(&self, batch: &Batch, now: Timestamp) -> Result<(), Failed> {
        for condition in batch.conditions() {
            let found = match rows::get(&self.db, &self.base.layout, condition.key()) {
                Ok(found) => found.filter(|value| !value.is_expired(now)),
                Err(Miss::Engine(error)) => return Err(error.into()),
                Err(Miss::Cell(error)) => return Err(Failed::Refused(error)),
            };
            if !condition.holds(found.as_ref()) {
                return Err(Failed::Refused(condition.unmet()));
            }
        }
        Ok(())
    }
}
