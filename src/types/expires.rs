//! How other programs keep deadlines.

use serde::{Deserialize, Serialize};

/// What the numbers in a column of deadlines count, from 1970 on.
///
/// ```
/// use tierstack::backends::sqlite::{Columns, ExpiresUnit};
///
/// let columns = Columns { expires_unit: ExpiresUnit::Seconds, ..Columns::default() };
/// assert_ne!(columns.expires_unit, ExpiresUnit::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExpiresUnit {
    /// Seconds, as `strftime('%s')` and `time.time()` give them. A deadline that is written is rounded up to a
    /// whole second.
    Seconds,
    /// Milliseconds.
    #[default]
    Milliseconds,
}
