//! `cache`: answers kept in memory, so that a key that is read again costs nothing below.
//!
//! # Guarantees
//! 1. After a write through this stack is acknowledged, no read through it returns an older value, under any
//!    interleaving with loads, refreshes, failures, expiry and eviction. It holds for the disk and for stale answers too.
//! 2. One load of a key runs at a time, bulk reads included, and a miss calls the store below once. A reader may leave.
//!    An error reaches every reader that waits, and is kept only for `error_ttl`.
//! 3. An entry is served for `ttl` after the store below was asked for it, and a value after that only for what
//!    `stale_while_refresh` and `stale_if_error` add. No read and no failure moves these times. Nothing is served past its own expiry.
//! 4. Entries and loads never take more than `capacity`; the files of `disk` never take more than theirs.
//! 5. If the store below has a [change feed](crate::Store::changes), a change drops its entry before this cache passes it on. While
//!    the feed has not begun or is interrupted, nothing is kept and every read goes below.
//! 6. [`invalidate`](crate::Store::invalidate) drops keys, a prefix or everything: below first, then here, then in the feed of this cache.
//! 7. No read and no write fails because the disk does, and what is damaged there is not served.
//! 8. With `on_write: keep`, what an acknowledged write put is served afterwards, unless something else touched its key
//!    meanwhile. It needs a store below that [gives back](crate::Guarantees::verbatim) what was put.
//!
//! # Gives up
//! Freshness against writes that bypass this stack: they are seen when they are reported, or after `ttl`, or when the entry is
//! evicted. `idle` does not bound the age of a hot key. After a write whose outcome is unknown its keys are not kept for
//! `load_timeout`. Keys share slots, so a write can keep a load of another key from being kept. `docs/cache.md` has all limits
//! with their numbers.
//!
//! # Position
//! Outside `compress` and `encrypt`, so that a hit is decoded already. Inside them it holds more, or only sealed bytes, and
//! pays for decoding on each hit; so does its folder.
//!
//! # Cancellation
//! A dropped read, single or bulk, leaves its load running until its deadline. A dropped write is dropped below as well.
//!
//! # Errors
//! `Capacity` without room for a load, to be tried again; `Timeout` after `load_timeout`; `Internal` when a load panics or a
//! bulk read is answered with a wrong number of values; `Unsupported` for a load outside a tokio runtime. `Config` at open if
//! the folder or the file holds something else or a newer format, `Conflict` if the folder is in use.
//! `stale_if_error` hides `Unavailable`, `Timeout` and `Capacity`, and no other kind. A refresh that fails is only counted.
//!
//! # Metrics
//! `tierstack_cache_*`: requests by result, refreshes, loads, kept writes, evictions, invalidations, the disk. `docs/metrics.md` has them.
//!
//! # Configuration
//! `cache: { capacity: 256MiB, ttl: 10m, disk: { path: ./cache, capacity: 10GiB }, warm_start: { path: ./orders.keys } }`
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::layers::cache::{CacheConfig, CacheLayer};
//! use tierstack::{Context, Layer, Read, StoreExt};
//!
//! let layer = CacheLayer::new(&CacheConfig::default(), &Context::default())?;
//! let store = layer.layer(Memory::new());
//! store.put("k", "old").await?;
//! assert_eq!(store.get(b"k").await?, Some("old".into()));
//! store.put("k", "new").await?;
//! assert_eq!(store.get(b"k").await?, Some("new".into()));
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod bulk_read;
mod change_feed;
mod coherence;
mod config;
mod counters;
mod disk;
mod follow_changes;
mod inspect;
mod invalidate;
mod kept_writes;
mod layer;
mod levels;
mod load;
mod lookup;
mod memory;
mod open;
mod policy;
mod question;
mod read;
mod run_loads;
mod state;
mod store;
#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "tests/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests with the other engine")]
mod tests_with_moka;
mod unclaimed_disk;
mod warm_start;

pub use self::config::{CacheConfig, DiskConfig, OnWrite, Policy, WarmStartConfig};
pub use self::layer::CacheLayer;
pub use self::state::Cache;
