//! Times in cells: what their numbers count, and whether those of a table look like it.

use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension};

use super::error::{kind, opening, wrong_cell};
use super::key::quoted;
use super::statements::Layout;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::types::ExpiresUnit;

impl ExpiresUnit {
    const fn per_second(self) -> i64 {
        match self {
            Self::Seconds => 1,
            Self::Milliseconds => 1000,
        }
    }

    const fn millis(self) -> u64 {
        match self {
            Self::Seconds => 1000,
            Self::Milliseconds => 1,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
        }
    }

    /// The types of its numbers, as SQLite spells them.
    pub(super) const fn types(self) -> &'static str {
        match self {
            Self::Seconds => "('integer', 'real')",
            Self::Milliseconds => "('integer')",
        }
    }

    const fn type_names(self) -> &'static str {
        match self {
            Self::Seconds => "INTEGER or REAL",
            Self::Milliseconds => "INTEGER",
        }
    }

    /// A deadline as it is read back: rounded up, so that nothing goes too early.
    pub(super) const fn kept(self, at: Timestamp) -> Timestamp {
        let whole = at.as_millis().div_ceil(self.millis());
        Timestamp::from_millis(whole.saturating_mul(self.millis()))
    }

    pub(super) fn deadline_cell(self, at: Option<Timestamp>) -> ToSqlOutput<'static> {
        let number = |at: Timestamp| at.as_millis().div_ceil(self.millis()).cast_signed();
        ToSqlOutput::Borrowed(at.map_or(ValueRef::Null, |at| ValueRef::Integer(number(at))))
    }

    /// The deadlines up to this one have passed at that moment.
    pub(super) const fn passed(self, now: Timestamp) -> i64 {
        (now.as_millis() / self.millis()).cast_signed()
    }

    pub(super) fn deadline(self, cell: ValueRef<'_>) -> Result<Option<Timestamp>> {
        match (self, cell) {
            (_, ValueRef::Null) => Ok(None),
            // Beyond the year 292 million they are negative, as SQLite's integers have a sign.
            (Self::Milliseconds, ValueRef::Integer(millis)) => {
                Ok(Some(Timestamp::from_millis(millis.cast_unsigned())))
            }
            (Self::Seconds, ValueRef::Integer(seconds @ 0..)) => {
                Ok(Some(Timestamp::from_millis(seconds.cast_unsigned().saturating_mul(1000))))
            }
            (Self::Seconds, ValueRef::Real(seconds)) if seconds >= 0.0 => {
                // A fraction of milliseconds may be a little less than what was meant.
                let span = Duration::try_from_secs_f64(seconds + 0.0005).unwrap_or(Duration::MAX);
                Ok(Some(Timestamp::default() + span))
            }
            (Self::Milliseconds, other) => Err(wrong_cell(
                "an expiry",
                kind(other),
                "it must be NULL or an INTEGER, milliseconds since 1970",
            )),
            (Self::Seconds, ValueRef::Integer(_) | ValueRef::Real(_)) => Err(wrong_cell(
                "an expiry",
                "negative",
                "it must be NULL or a number, seconds since 1970",
            )),
            (Self::Seconds, other) => Err(wrong_cell(
                "an expiry",
                kind(other),
                "it must be NULL or a number, seconds since 1970",
            )),
        }
    }
}

/// Seconds since 1970: the years 2000 and 2100.
const FROM: i64 = 946_684_800;
const TO: i64 = 4_102_444_800;

/// What numbers of today's times count, as a number of them makes a second. Their ranges from 2000 to 2100
/// have nothing in common.
const SCALES: [(&str, i64); 4] = [
    ("seconds", 1),
    ("milliseconds", 1000),
    ("microseconds", 1_000_000),
    ("nanoseconds", 1_000_000_000),
];

/// Rows at either end of a table that are looked at where no index leads to the times.
const SAMPLE: u32 = 100;

impl Layout {
    /// Refuses columns of times whose values are none, or of another unit: what is alive would count as
    /// expired, or other programs would misread what is written.
    pub(super) fn check_times(&self, db: &Connection, made: bool, indexed: bool) -> Result<()> {
        if let Some(column) = &self.columns.expires {
            let unit = self.columns.expires_unit;
            let times = Times { layout: self, db, column, setting: "expires", unit };
            times.check(made, indexed)?;
        }
        let stamps = [(&self.columns.created, "created"), (&self.columns.updated, "updated")];
        for (column, setting) in stamps {
            if let Some(column) = column {
                let unit = ExpiresUnit::Milliseconds;
                Times { layout: self, db, column, setting, unit }.check(made, false)?;
            }
        }
        Ok(())
    }
}

/// A column of times.
struct Times<'a> {
    layout: &'a Layout,
    db: &'a Connection,
    column: &'a str,
    setting: &'static str,
    unit: ExpiresUnit,
}

impl Times<'_> {
    fn check(&self, made: bool, indexed: bool) -> Result<()> {
        let own = self.unit.per_second();
        for (scale, per_second) in SCALES {
            if per_second != own
                && self.has(indexed, (FROM * per_second, (TO - 1).saturating_mul(per_second)))?
            {
                return Err(self.objection(
                    &format!("times that look like {scale}, not {}", self.unit.name()),
                    scale,
                ));
            }
        }
        // A table that tierstack made holds what tierstack put there.
        if made {
            return Ok(());
        }
        if let Some(is) = self.foreign_type()? {
            let (unit, types) = (self.unit.name(), self.unit.type_names());
            return Err(self.objection(&format!("{is}, but {unit} are {types}"), ""));
        }
        let first = if self.unit == ExpiresUnit::Seconds { i64::MIN } else { 0 };
        if self.has(indexed, (first, FROM * own - 1))? {
            let what = format!(
                "numbers below {}, which in {} lie before the year 2000 and are no times",
                FROM * own,
                self.unit.name()
            );
            return Err(self.objection(&what, ""));
        }
        Ok(())
    }

    /// Whether there are numbers in a range; of a column that no index leads to, in some rows.
    fn has(&self, indexed: bool, (from, to): (i64, i64)) -> Result<bool> {
        let rows = if indexed { self.rows() } else { self.sample() };
        let sql = format!("SELECT 1 FROM {rows} WHERE x BETWEEN ?1 AND ?2 LIMIT 1");
        let found = self.db.query_row(&sql, [from, to], |_| Ok(())).optional();
        Ok(found.map_err(opening)?.is_some())
    }

    /// The type of a cell that is no number, if there is one.
    fn foreign_type(&self) -> Result<Option<String>> {
        let sql = format!(
            "SELECT upper(typeof(x)) FROM {} WHERE x IS NOT NULL AND typeof(x) NOT IN {} LIMIT 1",
            self.sample(),
            self.unit.types()
        );
        self.db.query_row(&sql, [], |row| row.get(0)).optional().map_err(opening)
    }

    fn rows(&self) -> String {
        format!("(SELECT t.{} AS x FROM {} AS t)", quoted(self.column), self.layout.full)
    }

    fn sample(&self) -> String {
        let end = |order: &str| {
            format!(
                "SELECT x FROM (SELECT t.{} AS x FROM {} AS t ORDER BY {} LIMIT {SAMPLE})",
                quoted(self.column),
                self.layout.full,
                self.layout.key.order(order)
            )
        };
        format!("({} UNION ALL {})", end("ASC"), end("DESC"))
    }

    fn objection(&self, what: &str, scale: &str) -> Error {
        let advice = match (self.setting, scale) {
            ("expires", "seconds" | "milliseconds") => {
                format!("set `columns.expires_unit: {scale}`")
            }
            ("expires", _) => "NULL means that an entry never expires. Leave `columns.expires` out, and the table's expiry is left to its own program".to_owned(),
            (setting, _) => format!("leave `columns.{setting}` out, or other programs would misread what is written there"),
        };
        self.layout.objection(format!(
            "holds, in its column {} (`columns.{}`), {what}; {advice}",
            quoted(self.column),
            self.setting
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_rounded_up_and_read_back_as_they_were_kept() {
        use ExpiresUnit::{Milliseconds, Seconds};
        for (unit, at, cell, kept) in [
            (Milliseconds, 1_700_000_000_001, 1_700_000_000_001, 1_700_000_000_001),
            (Milliseconds, u64::MAX, -1, u64::MAX),
            (Seconds, 1_700_000_000_000, 1_700_000_000, 1_700_000_000_000),
            (Seconds, 1_700_000_000_001, 1_700_000_001, 1_700_000_001_000),
            (Seconds, u64::MAX, 18_446_744_073_709_552, u64::MAX),
        ] {
            let at = Timestamp::from_millis(at);
            let written = unit.deadline_cell(Some(at));
            assert_eq!(written, ToSqlOutput::Borrowed(ValueRef::Integer(cell)));
            let read = unit.deadline(ValueRef::Integer(cell)).unwrap();
            assert_eq!(read, Some(Timestamp::from_millis(kept)));
            assert_eq!(read, Some(unit.kept(at)));
        }
    }

    #[test]
    fn fractions_of_seconds_are_read_to_the_millisecond() {
        for (seconds, millis) in [(0.0, 0), (1_700_000_000.123, 1_700_000_000_123), (0.9999, 1000)]
        {
            let read = ExpiresUnit::Seconds.deadline(ValueRef::Real(seconds)).unwrap();
            assert_eq!(read, Some(Timestamp::from_millis(millis)), "{seconds}");
        }
        for wrong in [ValueRef::Real(-1.0), ValueRef::Real(f64::NAN), ValueRef::Integer(-1)] {
            assert!(ExpiresUnit::Seconds.deadline(wrong).is_err());
        }
        assert!(ExpiresUnit::Milliseconds.deadline(ValueRef::Real(1.0)).is_err());
    }
}
