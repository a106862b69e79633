//! `write_back`: writes are acknowledged before the store below has them, and are kept.
//!
//! # Guarantees
//! - A write that was acknowledged under `ack: journal` is on the disk, in a [journal](crate::journal): it survives a crash
//!   and a power cut, and so does a batch as a whole.
//! - Every read through the stack sees every acknowledged write at once, in their order: `get`, `get_many`, scans and
//!   snapshots. A page of a scan and a snapshot are of one moment.
//! - What is acknowledged is never dropped. It leaves memory and the journal once the store below has it. When
//!   `max_dirty` is reached, writers wait.
//! - The first write of a run sets the moment at which it is flushed; later ones do not move it. Of the writes of one key in a run the
//!   last one is written. A run is written below as one batch, in the order of the sequence.
//! - Conditions are checked against what is acknowledged, together with the acknowledgement.
//! - A store below that fails is asked again, in order, until it takes the run.
//!
//! # Gives up
//! - Others that read the store below see writes later, by about `flush_after`, and what they write there meanwhile is overwritten.
//! - A batch that the store below refuses for good stops the layer: nothing is acknowledged any more. What is acknowledged stays
//!   in the journal.
//! - Over a store without atomic batches, the order of the operations of a run cannot be seen through the stack, but below it.
//! - An attempt to write whose outcome was unknown, such as after a timeout, and that arrives below much later, may
//!   replace a newer write there.
//! - What an earlier process left in the journal is flushed by a stack that may write. One that only reads
//!   ([`OpenOptions::reading`](crate::OpenOptions::reading)) shows it, and leaves it there until its first write or `flush`.
//! - A restore below a journal that still holds writes is refused, as they would be written over what was restored, unless
//!   [`OpenOptions::over_journal`](crate::OpenOptions::over_journal) asks for it.
//! - Keys that begin with [`RESERVED_PREFIX`](crate::RESERVED_PREFIX) cannot be written.
//! - A run of sorted entries is loaded in batches, which go through the journal as any other.
//!
//! # Position
//! Inside `cache` and `expire`, and outside `backup`. Inside `encrypt`, the journal holds sealed values.
//!
//! # Cancellation
//! A dropped write is taken wholly or not at all. A dropped `close` can be called again.
//!
//! # Errors
//! `Capacity` where a writer waited `max_wait` for room, and `Unavailable` where that is because the store below fails. After a
//! failure of the journal, and after the store below has refused a run for good, every write, `flush` and `close` gives that error. `flush`,
//! `compact`, `count` and [`Commit::durable`](crate::Commit::durable) need the store below to have what is dirty, and fail with the error of the first attempt that
//! fails. `close` tells what is left.
//!
//! # Metrics
//! `tierstack_writeback_*`: what is dirty and since when, writers that wait for room, flushes, the journal, and whether writes are
//! acknowledged. `docs/metrics.md` has them.
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
mod filter;
mod flush;
mod layer;
mod meters;
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
pub use self::offline::{Inspection, WaitingBatch, drain, inspect, skip};
pub use self::store::WriteBack;
