//! Optimistic transactions over any store with conditions and snapshots.
//!
//! A [`Transaction`] reads from a snapshot and keeps its writes to itself. [`commit`](Transaction::commit) writes
//! them as one batch, on the condition that what it relies on is unchanged. Nothing is locked meanwhile, in
//! no process; a commit that comes too late is refused with [`Conflict`](crate::ErrorKind::Conflict), and nothing of
//! it is written. [`StoreExt::transact`](crate::StoreExt::transact) runs the transaction again then.
//! [`Isolation`] says what is relied on.

mod isolation;
mod merge;
mod optimistic;
mod read_set;
mod retry;
#[cfg(test)]
mod tests;
mod writes;

pub use self::isolation::Isolation;
pub use self::optimistic::Transaction;
pub use self::retry::Transact;
pub use self::writes::Savepoint;
