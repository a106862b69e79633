//! Layered caching and tiering in front of any key-value store, with backups that restore.
//!
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::{Batch, Read, Store};
//!
//! let store = Memory::new();
//! store.write(Batch::new().put("a", "1").put("b", "2")).await?;
//! assert_eq!(store.get(b"a").await?, Some("1".into()));
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod backends;
#[cfg(feature = "backup")]
pub mod backup;
mod clock;
pub mod codec;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "config")]
pub mod control;
mod decoded;
mod disk;
mod error;
mod ext;
mod group;
mod hash;
pub mod journal;
#[cfg(feature = "config")]
pub mod jsonl;
pub mod keys;
mod layer;
pub mod layers;
#[cfg(any(feature = "backup", feature = "object", feature = "opendal"))]
mod objects;
mod reply;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(any(
    feature = "backup",
    feature = "config",
    feature = "file",
    feature = "object",
    feature = "opendal",
    feature = "sqlite"
))]
mod spelling;
#[cfg(feature = "config")]
mod stack;
#[cfg(feature = "config")]
pub mod status;
mod store;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod threads;
mod transaction;
mod types;

pub use crate::clock::{Clock, ManualClock, Stopwatch, SystemClock, Timestamp};
pub use crate::error::{Error, ErrorKind, Operation, Outcome, Result, Retry};
pub use crate::ext::{ReadExt, StoreExt};
pub use crate::group::{write_admitted, write_in_order};
pub use crate::layer::{
    BackendConfig, Claim, Common, Context, Layer, LayerConfig, Resize, Rewrite, RewriteReport,
    StackLayer, Zone,
};
pub use crate::reply::Reply;
#[cfg(feature = "config")]
pub use crate::stack::{Checked, OpenOptions, Stack, Stacks, StoreErrors};
pub use crate::store::{Change, Changes, Pages, Read, Store};
pub use crate::transaction::{Isolation, Savepoint, Transact, Transaction};
pub use crate::types::{
    Batch, Commit, Condition, Conditions, Counting, Durability, Entry, Freshness, Guarantees,
    Identity, Limits, Op, Order, Page, Place, Presence, Profile, ProfileKind, RESERVED_PREFIX,
    Recovery, RunOrder, Scan, Scope, Sighting, Usage, Value, units,
};

/// The code of the README compiles.
#[cfg(all(doctest, feature = "config"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// The code of the page on transactions compiles, and holds.
#[cfg(doctest)]
#[doc = include_str!("../docs/transactions.md")]
struct Transactions;
