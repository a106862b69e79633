//! `cache`: answers kept in memory, so that a key that is read again costs nothing below.
//!
//! # Guarantees
//! 1. After a write through this stack is acknowledged, no read through it returns an older value,
//!    under any interleaving with loads, refreshes, failures, expiry and eviction.
//! 2. One load per key at a time, bulk reads included: however many ask for a key that is not there, the
//!    store below is asked once. A load goes on in a task of its own with a deadline; a reader may leave. A load that
//!    waits for its turn under `max_loads` is skipped when the turn comes and no reader waits for it any more. An
//!    error reaches all who wait, and is kept only for `error_ttl`. What the store below answers at once
//!    needs no task; what it does not is waited for with the future that it answered with, so a miss calls it once.
//! 3. An entry is served for at most `ttl` after the store below was asked for it. Past that only a value is,
//!    and only for what `stale_while_refresh` and `stale_if_error` add. Both ends are fixed by the load
//!    that brought it: no failure and no read moves them. Nothing is served past its own expiry, and nothing
//!    that a write, an announcement or a run has dropped is served late to who comes afterwards.
//! 4. Entries and loads under way never take more than `capacity`. An entry is counted as its key, its value and
//!    what keeping them takes: with `s3_fifo` 98 to 113 bytes where both have up to 500 together, up to 161 below 1 KiB,
//!    and 257 above; with `tiny_lfu` and `lru` 576. A load is counted as its key and 1 KiB. Loads have a share of
//!    their own, so that neither a burst of reads nor an outage takes the place of entries: a 32nd of the capacity, but
//!    at least 512 KiB where that is no more than a quarter, and at most 64 MiB. An entry of more than
//!    an eighth of `capacity`, or of 22 MiB, passes by; with those policies one of more than a 32nd. With `s3_fifo`,
//!    once a second thread reads, a 32nd of the capacity is for copies that threads make of what they read most, so
//!    that they do not wait for each other.
//! 5. Where the store below [announces](Store::changes) what others change, an entry is dropped when its change
//!    is announced. Before the announcements have begun, and while they are interrupted, nothing is kept
//!    and every read goes below. A listener of this cache hears of a change once it is dropped here.
//! 6. [`invalidate`](Store::invalidate) drops keys, the keys of a prefix, or everything, without looking for
//!    them: the invalidation of a prefix is remembered, and what began before it is refused when it is read. First the store
//!    below is told, then this cache forgets, then its listeners are told. What loads under way bring is
//!    not kept, and who comes afterwards does not wait for them.
//! 7. With `disk`, what the memory has no room for is kept in a folder, and 1, 3, 5 and 6 hold there as well: a
//!    copy keeps the end of its ttl, also through a restart, and is gone before a write of its key is
//!    acknowledged. Its files never take more than its `capacity`. What is damaged there is not served, and a
//!    disk that fails is not used any more; no read and no write fails because of it. After a crash it is empty,
//!    and after a clean close as well, unless it is `warm`.
//! 8. With `on_write: keep`, the default, what an acknowledged write put is served to the reads that follow, and that a key
//!    was deleted where `negative_ttl` is set. It is kept only if since the beginning of the write nothing else touched its key:
//!    no other write, also one whose outcome is unknown, no announcement, invalidation or run; and only where the
//!    store below [gives back](crate::Guarantees::verbatim) what was put. Its ttl counts from the beginning of the write.
//!    What began a load before does not bring back what was there before.
//!
//! # Gives up
//! Freshness against writes that bypass this stack: such a write is seen when it is announced, and after
//! `ttl`, with what may be served late, at the latest; without either when the entry is evicted. `idle` does
//! not help there: a key that is read all the time stays. A thread may serve its copy of an evicted entry for
//! 31 reads more. Announcements are dealt with by a task in
//! the runtime of the first read that missed, so while that runtime stands still they wait. Writes
//! through this stack that the store below announces as well cost a load each, also with `on_write: keep`: its
//! announcement drops what was kept. A foreign write that lands between the store's answer and the keeping, unannounced,
//! is seen after `ttl` like any other.
//!
//! With the policies `tiny_lfu` and `lru` the capacity cannot be changed, a 32nd of it stays free, what was just
//! removed may take a 128th beside it, and what finds no room while other threads take it is not kept. A value that
//! is a part of a larger buffer of the store below is counted as that part. What has expired or was idle takes
//! memory until it is looked for, or evicted.
//!
//! A bulk read asks for what is missing, and not under way, in one call, so who joins it waits for all of
//! it, and an outage is the answer of each of its keys. An error of another kind may be about one of
//! them: it is the answer of who asked in bulk, and those who joined ask again for theirs alone. A bulk read of more
//! keys than there is room for loads asks in several calls.
//!
//! Keys share what tells a load that a write came between: 1,024 slots below a capacity of 512 KiB, and 65,536 from
//! 16 MiB on. A load is not kept, and no refresh begins, where a write of any key of its slot came between, or is under
//! way.
//!
//! After a write whose outcome is unknown, as it failed or its future was dropped, its keys are not kept
//! for the length of `load_timeout`, in which it may still arrive. That many such keys are remembered: 64 of each
//! 1,024th of all keys; one more, and none of that part is kept. After a run that failed or was dropped,
//! no key is. While a run is taken every read goes below.
//!
//! Up to 4096 prefixes are remembered, of up to 64 lengths and 1 MiB together: meanwhile a hit on an entry that
//! is older than the newest of them costs a hash for each length. The call with which they are full removes
//! what they match, in time that grows with the number of entries, and loads that began before it are not kept.
//!
//! On the disk an entry ends with its ttl, and `idle` counts from when it was written. Only values are there.
//! With the policies `tiny_lfu` and `lru` a copy that the disk has evicted is not written again when the memory
//! evicts its entry. What is loaded faster than the disk takes it is not kept there. With `warm`, what changes
//! the store while it is closed is not seen before the ttl, whoever does it; and while it is closed only the
//! wall clock tells the time, so a clock that was wrong at the close, or is at the open, makes the ttl longer by as
//! much.
//!
//! # Position
//! Outside `compress` and `encrypt`, so that a hit is decoded already. Inside them it holds more, or
//! only sealed bytes, and pays for decoding on each hit; so does its folder.
//!
//! # Cancellation
//! A dropped read leaves its load running for others, until its deadline, and so does a dropped bulk read.
//! A dropped write is dropped below as well.
//!
//! # Errors
//! `Capacity`, to be tried again, where there is no room for another load, and no old value for `stale_if_error`;
//! `Timeout` when a load takes longer than `load_timeout`; `Internal` when it panics, or the store below
//! answers a bulk read with another number of values than keys; `Unsupported`
//! for a load outside a tokio runtime. A subscription that cannot be made, within `load_timeout`, is logged,
//! counted in `tierstack_errors_total`, and made again after pauses of 0.1 s to 10 s; reads
//! do not fail because of it, and `changes` gives the error of the last attempt.
//!
//! Opening fails with `Config` if the folder of `disk` or the file of `warm_start` holds something else, or a
//! newer format, and with `Conflict` if the folder is in use.
//!
//! `stale_if_error` hides `Unavailable`, `Timeout` and `Capacity`, which speak of the store below being
//! unwell, and no other kind. A refresh that fails is counted and tells nobody.
//!
//! # Metrics
//! | name | type | labels | a rise means |
//! |---|---|---|---|
//! | `tierstack_cache_requests_total` | counter | result: hit | more reads |
//! | | | result: negative | more reads of keys that do not exist |
//! | | | result: stale | answers from past their ttl: failures below, or rare reads |
//! | | | result: error | reads of keys whose load has just failed |
//! | | | result: disk | reads of what the memory has no room for |
//! | | | result: miss | more loads |
//! | | | result: coalesced | reads that joined a load under way |
//! | | | result: bypass | values that are too large, or nothing is kept at present |
//! | `tierstack_cache_refreshes_total` | counter | outcome: kept, dropped, failed | more refreshes |
//! | `tierstack_cache_writes_total` | counter | outcome: kept | more keys written, with `on_write: keep` |
//! | | | outcome: dropped | writes of one key that overlap, large values, changes by others |
//! | `tierstack_cache_load_duration_seconds` | histogram | | a slower store below, or too few `max_loads` |
//! | `tierstack_cache_bytes` | gauge | | more memory in use |
//! | `tierstack_cache_entries` | gauge | | more entries kept |
//! | `tierstack_cache_evictions_total` | counter | cause: size | the capacity is too small for what is read |
//! | | | cause: expired | more entries that were looked for after their time |
//! | | | cause: idle | more entries that were looked for after nobody had read them for long |
//! | | | cause: disk | the capacity of the disk is too small for what is loaded |
//! | `tierstack_cache_disk_bytes` | gauge | | more of the disk in use |
//! | `tierstack_cache_disk_entries` | gauge | | more entries there, and memory for their index |
//! | `tierstack_cache_disk_active` | gauge | | 1: the disk is in use; 0: it failed, see the log |
//! | `tierstack_cache_disk_drops_total` | counter | cause: queue | values are loaded faster than they are written |
//! | | | cause: busy | no thread is free to read it with: the store below is asked |
//! | | | cause: large | values that fit into no segment |
//! | | | cause: damaged | the disk gives back what was not written |
//! | | | cause: io | the disk failed, or is full |
//! | `tierstack_cache_warm_start_keys_total` | counter | | more keys loaded by a warm start |
//! | `tierstack_cache_invalidations_total` | counter | cause: key | more keys were invalidated |
//! | | | cause: prefix | more prefixes were |
//! | | | cause: all | everything was, or everything was dropped, as announcements were missed |
//!
//! Each read is counted once, a bulk read once for each key; by a cache below another one, the hits of a bulk
//! read twice where a load of another of its keys is under way. What the store below answers at once is not
//! measured, and is no refresh but a miss.
//!
//! Only where the store below announces changes:
//!
//! | name | type | labels | a rise means |
//! |---|---|---|---|
//! | `tierstack_cache_invalidations_total` | counter | cause: announced | more keys and prefixes that others changed |
//! | | | cause: lost | the connection was lost, and everything was dropped |
//! | `tierstack_cache_listening` | gauge | | 1: changes are heard of; 0: nothing is kept |
//!
//! # Configuration
//! `cache: { capacity: 256MiB, ttl: 10m, negative_ttl: 10s, stale_if_error: 1h }`
//!
//! `cache: { disk: { path: ./cache, capacity: 10GiB }, warm_start: { path: ./orders.keys } }`
//!
//! The life of an entry, the second level, the warm start, what the policies cost, and how often they hit: `docs/cache.md`.
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
mod shared;
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
pub use self::shared::Cache;
