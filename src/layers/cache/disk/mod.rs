//! The second level: what the memory has no room for, in a folder.
//!
//! A log of segment files, and an index in memory. Nothing that is read from the disk is believed: a record
//! carries a checksum, its key, its segment and its deadlines, and whatever is wrong with it makes it a miss.
//!
//! # Never an old answer
//! - An entry is [offered](disk_level::DiskLevel::offer) under the lock of its stripe, in the same step in which it is kept in
//!   memory; from then on the offer is what a reader finds, and the previous copy is gone, whether or not the
//!   offer is taken. The writer makes a record of it, and the record enters the index only if the offer is still
//!   that of its key.
//! - Whatever removes a key from memory [removes](disk_level::DiskLevel::remove) it here next, from the offers and from the
//!   index. A record that is in neither is dead, wherever it is.
//! - An entry carries the epoch in which its load began, and a reader that finds it asks the epochs whether it may be served.
//!   Where everything is forgotten the level is emptied, and takes nothing more from before.
//! - What was found is kept in memory only if it still is the copy of its key ([`DiskLevel::is_current`](disk_level::DiskLevel::is_current)), under
//!   the lock of the stripe, with a ticket from before the disk was read.
//!
//! # Restart
//! A folder that is opened is emptied, unless the last close left an index. That is deleted, and its deletion
//! synced, before anything is taken: after a crash there is none, so nothing comes back that was
//! deleted since.

mod counters;
mod disk_level;
mod folder;
mod hash;
mod index;
mod index_file;
mod log;
mod open;
mod read;
mod record;
mod table;
#[cfg(test)]
mod tests;
mod timeline;
mod writer;

pub(super) use self::counters::register_counters;
pub(super) use self::disk_level::DiskHit;
pub(super) use self::open::Disk;
