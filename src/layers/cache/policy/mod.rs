//! What an entry is, how long it is served, and when it is loaded again: pure decisions, without a clock.

mod coarse_time;
mod entry;
mod freshness;

pub(super) use self::coarse_time::CoarseTime;
#[cfg(test)]
pub(super) use self::entry::Extra;
pub(super) use self::entry::{Answer, Cached};
pub(super) use self::freshness::{Age, Times, is_outage};
