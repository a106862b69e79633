//! When bases are taken: words or cron expressions, in UTC.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds};
use croner::{CivilDateTime, Cron, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Timestamp;

/// `hourly`, `daily`, `weekly`, or a cron expression of five fields, in UTC.
///
/// ```
/// use tierstack::Timestamp;
/// use tierstack::backup::Schedule;
///
/// let daily: Schedule = "daily".parse().unwrap();
/// let noon: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
/// assert_eq!(daily.next(noon).unwrap().to_string(), "2026-02-01T00:00:00Z");
/// assert!("every day".parse::<Schedule>().is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// Days with moments of the schedule that are looked at to find the longest time between two.
const DAYS: usize = 1000;
const DAY: u64 = 86_400_000;
/// Just before 2024-01-01T00:00:00Z: from there the longest time between two is looked for.
const FROM: Timestamp = Timestamp::from_millis(1_704_067_199_999);

impl Schedule {
    /// The first moment of the schedule after that one. `None`: there is none.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = Utc::of(after)?;
        self.cron.find_next_occurrence(&after, false).ok()?.timestamp()
    }

    /// Whether a base is due: there is none yet, or a moment of the schedule has passed since the last.
    /// So a moment that was missed is made up for, once.
    #[must_use]
    pub fn is_due(&self, last: Option<Timestamp>, now: Timestamp) -> bool {
        last.is_none_or(|last| self.next(last).is_some_and(|next| next <= now))
    }

    /// The longest time between two moments of the schedule. `None`: it has fewer than two.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        let day = |at: &Timestamp| at.as_millis() / DAY;
        let first = self.next(FROM)?;
        // Every day that has moments has the same ones, so one day is looked at closely.
        let within: Vec<Timestamp> = std::iter::successors(Some(first), |last| self.next(*last))
            .take_while(|at| day(at) == day(&first))
            .collect();
        let last = within.last()?.since(first);
        let days = std::iter::successors(Some(first), |at| {
            self.next(Timestamp::from_millis((day(at) + 1) * DAY - 1))
        });
        let days: Vec<Timestamp> = days.take(DAYS).collect();
        let gap = |pair: &[Timestamp]| match pair {
            [a, b] => Some(b.since(*a)),
            _ => None,
        };
        let within = within.windows(2).filter_map(gap).max();
        let between = days.windows(2).filter_map(gap).max().map(|gap| gap.saturating_sub(last));
        within.max(between)
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pattern = match text {
            "hourly" => "0 * * * *",
            "daily" => "0 0 * * *",
            "weekly" => "0 0 * * 1",
            other => other,
        };
        let cron = CronParser::builder().seconds(Seconds::Disallowed).build().parse(pattern);
        let cron = cron.map_err(|error| {
            format!(
                "'{text}' is not a schedule ({error}); write hourly, daily, weekly or a cron \
                 expression such as '30 2 * * *'"
            )
        })?;
        let schedule = Self { text: text.to_owned(), cron };
        match schedule.next(FROM) {
            Some(_) => Ok(schedule),
            None => Err(format!("'{text}' never comes; write a schedule with a date that exists")),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(feature = "config")]
impl schemars::JsonSchema for Schedule {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Schedule".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "examples": ["hourly", "daily", "weekly", "30 2 * * *"],
        })
    }
}

/// A moment in UTC, as croner asks about it. UTC has neither gaps nor moments that come twice.
#[derive(Clone, Copy)]
struct Utc(DateTime);

impl Utc {
    fn of(time: Timestamp) -> Option<Self> {
        let millis = i64::try_from(time.as_millis()).ok()?;
        let time = jiff::Timestamp::from_millisecond(millis).ok()?;
        Some(Self(time.to_zoned(TimeZone::UTC).datetime()))
    }

    fn timestamp(self) -> Option<Timestamp> {
        let time = self.0.to_zoned(TimeZone::UTC).ok()?.timestamp();
        u64::try_from(time.as_millisecond()).ok().map(Timestamp::from_millis)
    }
}

impl CronDateTime for Utc {
    #[expect(clippy::expect_used, reason = "jiff holds only dates that exist")]
    fn to_civil(&self) -> CivilDateTime {
        let part = |part: i8| u32::try_from(part).unwrap_or_default();
        let Self(at) = self;
        CivilDateTime::from_ymd_hms_opt(
            at.year().into(),
            part(at.month()),
            part(at.day()),
            part(at.hour()),
            part(at.minute()),
            part(at.second()),
        )
        .expect("jiff holds only dates that exist")
    }

    fn civil_weekday(&self) -> Weekday {
        const DAYS: [Weekday; 7] = [
            Weekday::Sunday,
            Weekday::Monday,
            Weekday::Tuesday,
            Weekday::Wednesday,
            Weekday::Thursday,
            Weekday::Friday,
            Weekday::Saturday,
        ];
        let day = usize::try_from(self.0.weekday().to_sunday_zero_offset()).unwrap_or_default();
        DAYS.get(day).copied().unwrap_or(Weekday::Sunday)
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let part = |part: u32| i8::try_from(part).map_err(|_| CronError::InvalidDate);
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        DateTime::new(
            year,
            part(civil.month())?,
            part(civil.day())?,
            part(civil.hour())?,
            part(civil.minute())?,
            part(civil.second())?,
            0,
        )
        .map(|at| Resolution::Single(Self(at)))
        .map_err(|_| CronError::InvalidDate)
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(jiff::SignedDuration::from_secs(seconds)).ok().map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn words_and_expressions_name_their_moments() {
        for (text, after, next) in [
            ("hourly", "2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"),
            ("hourly", "2026-01-31T12:59:59.999Z", "2026-01-31T13:00:00Z"),
            ("daily", "2026-02-28T00:00:00.001Z", "2026-03-01T00:00:00Z"),
            ("weekly", "2026-11-20T08:00:00Z", "2026-11-23T00:00:00Z"),
            ("30 2 * * 1-5", "2026-11-20T08:00:00Z", "2026-11-23T02:30:00Z"),
        ] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.next(at(after)).unwrap().to_string(), next, "{text}");
        }
    }

    #[test]
    fn the_longest_gap_counts() {
        for (text, hours) in [
            ("hourly", 1),
            ("daily", 24),
            ("weekly", 168),
            ("0 0 * * 1-5", 72),
            ("0 8,20 * * *", 12),
            ("0 8,18 * * 1-5", 62),
            ("0 * 1 * *", 30 * 24 + 1),
            ("0 0 1 1 *", 366 * 24),
            ("0 0 29 2 *", (8 * 365 + 1) * 24),
        ] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.interval(), Some(Duration::from_secs(hours * 3600)), "{text}");
        }
    }

    #[test]
    fn what_never_comes_or_is_no_schedule_is_refused() {
        for text in ["", "sometimes", "* * * * * *", "61 * * * *", "0 0 30 2 *"] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert!(error.contains(text) && error.contains("write"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_base_is_due_exactly_once_for_each_moment(last in 0u64..4_000_000_000, wait in 0u64..200_000) {
            let schedule: Schedule = "15 */6 * * *".parse().unwrap();
            let last = Timestamp::from_millis(last * 1000);
            let now = last + Duration::from_secs(wait);
            let next = schedule.next(last).unwrap();
            prop_assert!(next > last);
            prop_assert_eq!(schedule.is_due(Some(last), now), next <= now);
            prop_assert!(!schedule.is_due(Some(now), now), "just taken");
            prop_assert!(schedule.is_due(None, now));
        }
    }
}
