//! Histories of transactions, and the anomalies in them.
//!
//! Each write of a history has a number of its own, so that a read tells which write it saw, and the order in which
//! the writes of a key took effect is known. From these follow the dependencies between transactions (Adya 1999):
//! one overwrote another (ww), read what another wrote (wr), or read what another then overwrote (rw). An anomaly is a
//! cycle of such dependencies, or a read of what should not have been seen.

mod anomalies;
mod interleave;
#[cfg(test)]
mod tests;

pub(super) use self::anomalies::allowed;
pub(super) use self::interleave::{Plain, interleave};
