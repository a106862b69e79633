//! A batch within a transaction: its conditions, its operations, and whether the table holds them afterwards.

use super::super::rows::{self, Miss, millis};
use super::{Engine, Failed, overruled};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::types::{Batch, Op, Value};
use crate::write_group::complete;

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
            let cells = layout.key.cells(op.key()).map_err(Failed::Refused)?;
            let values = layout.key.width() + 1;
            let behind = values + layout.value.width();
            match op {
                Op::Put(_, value) => {
                    let expires = layout.expired.as_ref().and(value.expires_at);
                    let mut put = self.db.prepare_cached(&layout.put)?;
                    layout.key.bind(&mut put, 1, &cells)?;
                    let cells = layout.value.cells(&value.bytes).map_err(Failed::Refused)?;
                    for (at, cell) in (values..).zip(cells) {
                        put.raw_bind_parameter(at, cell)?;
                    }
                    // The next two are there only where a column takes them.
                    if layout.expired.is_some() {
                        put.raw_bind_parameter(behind, layout.unit().deadline_cell(expires))?;
                    }
                    if put.parameter_count() > behind {
                        put.raw_bind_parameter(behind + 1, millis(now))?;
                    }
                    if put.raw_execute()? == 0 {
                        return Err(Failed::Refused(overruled()));
                    }
                }
                Op::Delete(_) => {
                    let mut delete = self.db.prepare_cached(&layout.delete)?;
                    layout.key.bind(&mut delete, 1, &cells)?;
                    delete.raw_execute()?;
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
            let kept = |value: &Value| value.expires_at.map(|at| layout.unit().kept(at));
            let is_written = match (op.value(), there) {
                (None, there) => there.is_none(),
                (Some(_), None) => false,
                (Some(value), Some(there)) if there.expires_at != kept(value) => false,
                (Some(value), Some(there)) if layout.value.is_verbatim() => {
                    there.bytes == value.bytes
                }
                (Some(value), Some(_)) => self.holds(op.key(), &value.bytes)?,
            };
            if !is_written {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the row of a key has that value, as SQLite writes it.
    fn holds(&self, key: &[u8], value: &[u8]) -> Result<bool, Failed> {
        let layout = &self.base.layout;
        let mut asked = self.db.prepare_cached(&layout.holds)?;
        layout.key.bind(&mut asked, 1, &layout.key.cells(key).map_err(Failed::Refused)?)?;
        let cells = layout.value.cells(value).map_err(Failed::Refused)?;
        for (at, cell) in (layout.key.width() + 1..).zip(cells) {
            asked.raw_bind_parameter(at, cell)?;
        }
        Ok(asked.raw_query().next()?.is_some())
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
