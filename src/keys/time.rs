//! A moment as a part of a key.

use std::borrow::Cow;
use std::fmt;
use std::io;

use foundationdb_tuple::{PackResult, TupleDepth, TuplePack, TupleUnpack, VersionstampOffset};

use super::error::malformed;
use crate::clock::Timestamp;
use crate::error::Error;

/// The first part of the nested tuple that a time is written as.
pub(super) const TAG: &str = "@time";

/// A moment, to the nanosecond, from the year -9999 to 9999. Sorts by time.
///
/// ```
/// use tierstack::keys::{self, Time};
///
/// let landing: Time = "1969-07-20T20:17:40Z".parse().unwrap();
/// let key = keys::pack(&("events", landing))?;
/// assert_eq!(keys::unpack::<(String, Time)>(&key)?.1, landing);
/// assert_eq!(keys::unpack::<(String, (String, i64))>(&key)?.1.0, "@time");
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub jiff::Timestamp);

impl Time {
    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub fn as_nanos(self) -> i128 {
        self.0.as_nanosecond()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Time {
    type Err = jiff::Error;

    /// Reads RFC 3339.
    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse().map(Self)
    }
}

impl TryFrom<Timestamp> for Time {
    type Error = Error;

    /// Fails with `InvalidInput` after the year 9999.
    fn try_from(at: Timestamp) -> Result<Self, Error> {
        let millis = i64::try_from(at.as_millis()).ok();
        millis
            .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
            .map(Self)
            .ok_or_else(|| Error::invalid("a time in a key lies before the end of the year 9999"))
    }
}

impl TuplePack for Time {
    fn pack<W: io::Write>(&self, to: &mut W, depth: TupleDepth) -> io::Result<VersionstampOffset> {
        (TAG, self.as_nanos()).pack(to, within_tuple(depth))
    }
}

impl<'k> TupleUnpack<'k> for Time {
    fn unpack(input: &'k [u8], depth: TupleDepth) -> PackResult<(&'k [u8], Self)> {
        let (rest, (tag, nanos)) = <(Cow<'k, str>, i128)>::unpack(input, within_tuple(depth))?;
        if tag != TAG {
            return Err(malformed("a nested tuple that is not a time"));
        }
        let time = jiff::Timestamp::from_nanosecond(nanos)
            .map_err(|_| malformed("a time before the year -9999 or after 9999"))?;
        Ok((rest, Self(time)))
    }
}

/// The depth inside a tuple: the encoder leaves the brackets off at the root, and a part that is
/// there alone must not lose its own.
pub(super) fn within_tuple(depth: TupleDepth) -> TupleDepth {
    if depth.depth() == 0 { depth.increment() } else { depth }
}
