//! The command, run as a user runs it: every message that it promises, and what it leaves behind.

#![cfg(all(feature = "cli", feature = "rocksdb"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod backup;
mod config;
mod copy;
mod demo;
mod entries;
mod export;
mod folder;
mod import;
mod output;
