//! Locks by key, which all tierstack processes take that write the table.
//!
//! A delete of a key that is not there locks no row, and neither does a condition that it is absent. So batches
//! that delete or depend take a lock for each of their keys, alone, and puts take it shared. They are
//! advisory locks of PostgreSQL: other programs know nothing of them, and they are gone when their
//! transaction ends. Keys share [`COUNT`] locks, as the server has room for a few thousand.

use super::own_table::Table;

/// Locks of a table.
const COUNT: u32 = 256;

/// The first half of a lock's number: the table, by its name, which stays when another takes its place.
pub(super) fn class(table: &Table) -> i32 {
    crc32fast::hash(table.to_string().as_bytes()).cast_signed()
}

/// The second half.
pub(super) fn of_key(key: &[u8]) -> i32 {
    (crc32fast::hash(key) % COUNT).cast_signed()
}

/// The locks of some keys, in the order in which everybody takes them.
pub(super) fn of_keys<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<i32> {
    let mut locks: Vec<i32> = keys.map(of_key).collect();
    locks.sort_unstable();
    locks.dedup();
    locks
}
