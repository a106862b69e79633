//! How the moment of expiry is kept.
//!
//! A deadline is sent to the server, and comes from it, as a `bigint`: the milliseconds since 1970 as 64 bits,
//! of which PostgreSQL takes the highest for a sign. In a column of milliseconds it is kept like that, so
//! a negative number there is a moment in 292 million years or later. In the other columns a negative
//! number and `infinity` are no deadline.

use crate::error::{Error, Result};
use crate::types::ExpiresUnit;
use crate::types::Value;

/// The column of deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expires {
    /// `bigint` in milliseconds.
    Millis,
    /// `bigint` or `integer` in seconds.
    Seconds,
    /// `timestamptz`.
    Timestamp,
    /// `timestamp`, which is taken for UTC.
    Utc,
}

/// The moment of the transaction in milliseconds. Computed for entries that expire only; a subquery that
/// computed it once would cost each `get` more.
const NOW: &str = "floor(date_part('epoch', now()) * 1000)::bigint";

/// The last that a timestamp holds, at the end of the year 294,276.
const LAST_TIMESTAMP: u64 = 9_224_318_015_999_999;

impl Expires {
    /// By the type of the column. `None`: no such type is taken.
    pub(super) fn of(kind: &str, unit: ExpiresUnit) -> Option<Self> {
        match (kind, unit) {
            ("bigint", ExpiresUnit::Milliseconds) => Some(Self::Millis),
            ("bigint" | "integer", ExpiresUnit::Seconds) => Some(Self::Seconds),
            ("timestamp with time zone", _) => Some(Self::Timestamp),
            ("timestamp without time zone", _) => Some(Self::Utc),
            _ => None,
        }
    }

    /// As it is sent to the server.
    pub(super) fn of_value(self, value: &Value) -> Result<Option<i64>> {
        let Some(at) = value.expires_at else { return Ok(None) };
        let millis = at.as_millis();
        match self {
            Self::Timestamp | Self::Utc if millis > LAST_TIMESTAMP => Err(Error::invalid(
                "a deadline that far away does not fit into the column, a timestamp; leave it out",
            )),
            Self::Seconds if millis > LAST_TIMESTAMP => Err(Error::invalid(
                "a deadline that far away does not fit into the column of seconds; leave it out",
            )),
            _ => Ok(Some(millis.cast_signed())),
        }
    }

    /// What is written of a deadline that was sent.
    pub(super) fn written(self, sent: &str) -> String {
        // By way of whole days, as `bigint * interval` is a floating-point number.
        let utc = || {
            format!(
                "timestamp 'epoch' + make_interval(days => ({sent} / 86400000)::int) + ({sent} % 86400000) * interval '1 millisecond'"
            )
        };
        match self {
            Self::Millis => sent.to_owned(),
            // An entry does not expire before its time.
            Self::Seconds => format!("({sent} + 999) / 1000"),
            Self::Timestamp => format!("({}) AT TIME ZONE 'UTC'", utc()),
            Self::Utc => utc(),
        }
    }

    /// The deadline in a column, as it is sent here.
    pub(super) fn in_millis(self, column: &str) -> String {
        match self {
            Self::Millis => column.to_owned(),
            Self::Seconds => format!(
                "CASE WHEN {column} BETWEEN 0 AND {} THEN {column}::bigint * 1000 END",
                LAST_TIMESTAMP / 1000
            ),
            // By way of a number that is exact, as the milliseconds in a floating-point number are not.
            Self::Timestamp | Self::Utc => format!(
                "CASE WHEN isfinite({column}) THEN floor(extract(epoch FROM {column})::numeric * 1000)::bigint END"
            ),
        }
    }

    /// What is there at the moment of the transaction.
    pub(super) fn live(self, column: &str) -> String {
        let now = self.now();
        match self {
            Self::Millis | Self::Seconds => {
                format!("({column} IS NULL OR {column} < 0 OR {column} > {now})")
            }
            Self::Timestamp | Self::Utc => format!("({column} IS NULL OR {column} > {now})"),
        }
    }

    pub(super) fn expired(self, column: &str) -> String {
        let now = self.now();
        match self {
            Self::Millis | Self::Seconds => format!("{column} >= 0 AND {column} <= {now}"),
            Self::Timestamp | Self::Utc => format!("{column} <= {now}"),
        }
    }

    fn now(self) -> String {
        match self {
            Self::Millis => NOW.to_owned(),
            Self::Seconds => "floor(date_part('epoch', now()))::bigint".to_owned(),
            Self::Timestamp => "now()".to_owned(),
            Self::Utc => "now() AT TIME ZONE 'UTC'".to_owned(),
        }
    }

    /// What is true of a number that stands for no moment in this unit that a program may mean: before 1973
    /// (such as a 0 for "never"), or after 33,000, but for the largest numbers. `None`: any moment may be meant.
    pub(super) fn odd(self, column: &str) -> Option<String> {
        let (least, most) = match self {
            Self::Millis => ("100000000000", "1000000000000000"),
            Self::Seconds => ("100000000", "1000000000000"),
            Self::Timestamp | Self::Utc => return None,
        };
        Some(format!(
            "({column} >= 0 AND ({column} < {least} OR {column} BETWEEN {most} AND 9000000000000000000))"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::error::ErrorKind;

    #[test]
    fn a_deadline_beyond_the_column_is_refused() {
        let late = Value::new("v").expiring_at(Timestamp::from_millis(u64::MAX));
        assert_eq!(Expires::Millis.of_value(&late).unwrap(), Some(-1));
        for kept in [Expires::Seconds, Expires::Timestamp, Expires::Utc] {
            assert_eq!(kept.of_value(&late).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}
