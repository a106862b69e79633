//! Everything that needs this process alone: `cargo test --test suite cli::` runs the tests of one module.
//!
//! One binary, as each links everything. A test that looks at the memory or the metrics of its whole process has
//! another (`tests/cache_memory.rs` and its neighbours), and one that needs servers is in `tests/servers/`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
#![allow(unreachable_pub, reason = "nothing here is reachable from outside")]

// Shared by several modules.
#[cfg(all(feature = "cache", feature = "testing"))]
mod cache_settings;
#[cfg(any(all(feature = "file", unix), feature = "sqlite"))]
#[path = "../servers/support/child.rs"]
mod child;
#[cfg(feature = "cli")]
mod folder;
#[cfg(any(all(feature = "file", unix), feature = "sqlite"))]
#[path = "../servers/support/mount.rs"]
mod mount;
#[cfg(feature = "sqlite")]
#[path = "../servers/support/processes.rs"]
mod processes;
#[cfg(all(feature = "cache", feature = "testing"))]
mod seeds;
#[cfg(all(feature = "cli", feature = "rocksdb"))]
mod stacks;
#[cfg(feature = "config")]
mod stand_ins;
#[cfg(all(feature = "sqlite", feature = "testing"))]
#[path = "../servers/support/unreachable.rs"]
mod unreachable;

mod architecture;
mod backup;
mod cache_coherence;
mod cache_history;
mod cache_model;
mod cli;
mod clock;
mod codec;
mod commits;
mod config;
mod conformance;
mod control;
mod crash;
mod dashboards;
mod docs;
mod file;
mod journal;
mod journal_strace;
mod metrics;
mod model;
mod prose;
mod schema;
mod serve;
mod sqlite;
mod sqlite_reading;
