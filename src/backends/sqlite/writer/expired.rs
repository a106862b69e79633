//! Removing the rows of expired entries: some along with writes, all by `compact`.

use bytes::Bytes;
use rusqlite::{Transaction, TransactionBehavior};

use super::super::error::is_refused;
use super::{Engine, Failed};
use crate::clock::Timestamp;
use crate::error::{Operation, Result};

/// Expired entries that are removed along with other writes, at most every second.
const SWEEP: i64 = 256;
const SWEEP_EVERY: u64 = 1000;

impl Engine {
    /// Whether the rows of expired entries are removed: those of others only if the settings say so.
    fn sweeps(&self) -> bool {
        self.manner.sweep.unwrap_or(self.found.get().made)
    }

    pub(super) fn sweep_is_due(&self, now: Timestamp) -> bool {
        self.manner.background
            && self.sweeps()
            && self.found.get().expiry_is_indexed
            && now.since(self.swept.get()).as_millis() >= u128::from(SWEEP_EVERY)
    }

    /// Removes some entries that have expired, if it is time. In a transaction of its own, so that what
    /// goes wrong here fails no write.
    pub(super) fn sweep(&self) {
        let now = self.base.clock.now();
        let Some(expired) = self.base.layout.expired.as_ref().filter(|_| self.sweep_is_due(now))
        else {
            return;
        };
        let removed = self.removing(|| self.remove(&expired.any, now, SWEEP, None));
        // Again with the next write, where there are more.
        if !removed.is_ok_and(|removed| removed.is_some_and(|(_, rows)| rows >= SWEEP)) {
            self.swept.set(now);
        }
    }

    /// Removes in a transaction. `None`: the table is one whose rows stay.
    fn removing<T>(&self, remove: impl FnOnce() -> Result<T, Failed>) -> Result<Option<T>, Failed> {
        let begun = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate);
        let removed = begun.map_err(Failed::from).and_then(|transaction| {
            self.heed_schema()?;
            let removed = if self.sweeps() { Some(remove()?) } else { None };
            transaction.commit()?;
            Ok(removed)
        });
        removed.inspect_err(|failed| self.heed(failed))
    }

    /// Removes what a query finds, except what the rules of the table keep, such as a foreign key. Gives the
    /// last key, and how many were removed.
    fn remove(
        &self,
        query: &str,
        now: Timestamp,
        most: i64,
        behind: Option<&Bytes>,
    ) -> Result<(Option<Bytes>, i64), Failed> {
        let layout = &self.base.layout;
        let Some(expired) = &layout.expired else { return Ok((None, 0)) };
        let mut statement = self.db.prepare_cached(query)?;
        let passed = layout.unit().passed(now);
        statement.raw_bind_parameter(1, passed)?;
        statement.raw_bind_parameter(2, most)?;
        if let Some(behind) = behind {
            let cells = layout.key.cells(behind).map_err(Failed::Refused)?;
            layout.key.bind(&mut statement, 3, &cells)?;
        }
        let mut found = Vec::new();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            // What is no key is left to the program that wrote it.
            found.extend(layout.key.read(row));
        }
        drop(rows);
        let mut delete = self.db.prepare_cached(&expired.delete)?;
        let mut removed = 0;
        for key in &found {
            delete.raw_bind_parameter(1, passed)?;
            let cells = layout.key.cells(key).map_err(Failed::Refused)?;
            layout.key.bind(&mut delete, 2, &cells)?;
            match delete.raw_execute() {
                Ok(rows) => removed += i64::from(rows > 0),
                Err(error) if is_refused(&error) && !self.db.is_autocommit() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((found.pop(), removed))
    }

    /// Removes the next expired entries behind a key. Gives the last of them; `None`: there are no more.
    pub(in crate::backends::sqlite) fn expire(&self, behind: &Bytes) -> Result<Option<Bytes>> {
        let Some(expired) = self.base.layout.expired.as_ref().filter(|_| self.sweeps()) else {
            return Ok(None);
        };
        let now = self.base.clock.now();
        let _turn = self.base.site.writing();
        let removed = self.base.site.patient(&self.db, |_| {
            let (query, behind) = match behind.is_empty() {
                true => (&expired.first, None),
                false => (&expired.behind, Some(behind)),
            };
            let removing = || self.remove(query, now, super::STEP, behind);
            let removed = self.removing(removing)?;
            self.look_after_log();
            Ok::<_, Failed>(removed.and_then(|(last, _)| last))
        });
        removed.map_err(|failed| failed.into_error().with_operation(Operation::Compact))
    }
}
