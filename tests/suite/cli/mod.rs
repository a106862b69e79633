//! The command, run as a user runs it: every message that is documented, and what it leaves behind.

#![cfg(all(feature = "cli", feature = "rocksdb"))]

#[cfg(all(feature = "sqlite", feature = "file"))]
mod adopt;
mod backup;
mod bench;
mod config;
mod copy;
mod demo;
mod entries;
mod export;
mod import;
mod journal;
#[cfg(all(target_os = "linux", feature = "sqlite"))]
mod memory;
mod output;
#[cfg(target_os = "linux")]
mod synced;
