//! `write_back`: writes are acknowledged before the store below has them, and are kept.
//!
//! # Guarantees
//! - A write that was acknowledged under `ack: journal` is on the disk, in a [journal](crate::journal). It survives a crash and
//!   a power cut, and so does a batch as a whole.
//! - Every read through the stack sees the acknowledged writes at once, in their order: `get`, `get_many`, scans and snapshots.
//!   A page of a scan and a snapshot are of one moment.
//! - What is acknowledged leaves memory and the journal only once the store below has it. At `max_dirty`, writers wait.
//! - A run is one batch below, with the last write of each key. Its first write sets the moment of its flush. Runs are written
//!   in order, and again until the store below takes them.
//! - Conditions are checked against what is acknowledged, together with the acknowledgement.
//!
//! # Gives up
//! - Other readers of the store below see writes about `flush_after` later. What they write there meanwhile is overwritten.
//! - A batch that the store below refuses for good stops the layer: it acknowledges nothing more, and keeps the journal.
//! - Over a store without atomic batches, readers below can see a part of a run. Readers of the stack cannot.
//! - A write whose outcome was unknown, such as after a timeout, may replace a newer one below if it arrives much later.
//! - A stack that may write flushes what an earlier process left in the journal. One that only reads
//!   ([`OpenOptions::reading`](crate::OpenOptions::reading)) shows it, and leaves it there until its first write or `flush`.
//! - Keys that begin with [`RESERVED_PREFIX`](crate::RESERVED_PREFIX) cannot be written. `docs/write-back.md` has the other limits.
//!
//! # Position
//! Inside `cache` and `expire`, and outside `backup`. Inside `encrypt`, the journal holds sealed values.
//!
//! # Cancellation
//! A dropped write is taken wholly or not at all. A dropped `close` can be called again.
//!
//! # Errors
//! `Capacity` if a writer waited `max_wait` for room, `Unavailable` if that is because the store below fails. After a failure
//! of the journal, or of a batch for good, every write, `flush` and `close` gives that error. `flush`, `compact`, `count` and
//! [`Commit::durable`](crate::Commit::durable) wait until nothing is dirty, and fail with an attempt's first error.
//!
//! # Metrics
//! `tierstack_writeback_*`: dirty bytes, waiting writers, flushes, the journal, failures. `docs/metrics.md` has them.
//!
//! # Configuration
//! `write_back: { path: journal, ack: journal, flush_after: 500ms, flush_bytes: 1MiB, max_dirty: 64MiB, max_wait: 30s, open: later }`
//!
//! # Example
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use tierstack::backends::Memory;
//! use tierstack::layers::write_back::WriteBackConfig;
//! use tierstack::{Context, LayerConfig, Read, Store, StoreExt};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! let path = Some(folder.path().join("journal"));
//! let config = WriteBackConfig { path, ..WriteBackConfig::default() };
//! let below: Arc<dyn Store> = Arc::new(Memory::new());
//! let store = config.open(&Context::default()).await?.wrap(below.clone()).await?;
//!
//! let commit = store.put("user:1", "Ada").await?;
//! assert_eq!(store.get(b"user:1").await?, Some("Ada".into()));
//! commit.durable().await?;
//! assert_eq!(below.get(b"user:1").await?, Some("Ada".into()));
//! store.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod backpressure;
mod commit;
mod config;
mod counters;
mod filter;
mod flush;
mod layer;
#[cfg(test)]
mod model_tests;
mod offline;
mod overlay;
mod refusal;
mod replay;
mod run;
mod scan;
mod shared;
#[cfg(test)]
mod simulation;
mod state;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod view;

pub use self::config::{Ack, Opening, WriteBackConfig};
pub use self::layer::WriteBackLayer;
#[cfg(feature = "config")]
pub(crate) use self::offline::hold;
pub use self::offline::{JournalContent, WaitingBatch, drain, drain_to_other, inspect, skip};
pub use self::store::WriteBack;
