//! A cache, compression, encryption, expiry and backups in front of any key-value store, as layers that fit together.
//!
//! A *backend* holds data: a RocksDB or SQLite database, a table of PostgreSQL, a Redis server, a bucket, a folder. A
//! *layer* wraps a store and is a store itself. A *stack* is layers over a backend. tierstack checks that the parts of a
//! stack fit together, computes what the whole of it guarantees, and runs it. Data that are there already are opened as
//! they are. It is a library, and a command on top of the library; it is no database and no distributed cache.
//!
//! # A stack in Rust
//!
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::layers::cache::{CacheConfig, CacheLayer};
//! use tierstack::layers::compress::{CompressConfig, CompressLayer};
//! use tierstack::telemetry::Labels;
//! use tierstack::{Batch, Context, Layer, Read, Store, StoreExt};
//!
//! let compress = CompressLayer::new(&CompressConfig::default(), &Labels::default())?;
//! let cache = CacheLayer::new(&CacheConfig::default(), &Context::default())?;
//! let store = cache.layer(compress.layer(Memory::new()));
//!
//! store.put("user:1", "Ada").await?;
//! store.write(Batch::new().put("user:2", "Bob").delete("user:1")).await?;   // both, or neither
//! assert_eq!(store.get(b"user:2").await?, Some("Bob".into()));
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```
//!
//! [`Read`] and [`Store`] are the contract; [`ReadExt`] and [`StoreExt`] have what is convenient. A read answers with a
//! [`Reply`], and every [`Error`] has an [`ErrorKind`].
//!
//! # The same from a file
//!
//! ```yaml
//! # tierstack.yaml
//! stores:
//!   orders:
//!     layers:                              # outermost first: a read enters at the top
//!       - cache:    { capacity: 256MiB, ttl: 10m }
//!       - compress: { codec: zstd, level: 3 }
//!       - encrypt:  { keys: { env: ORDERS_KEYS } }
//!       - backup:   { to: "s3://acme-backups/orders", base: daily }
//!     backend:
//!       rocksdb: { path: ./data/orders }
//! default: orders
//! ```
//!
//! ```no_run
//! use tierstack::config::{Config, Registry};
//! use tierstack::{OpenOptions, Stack, Store, StoreExt};
//!
//! # async fn run() -> tierstack::Result<()> {
//! let config = Config::load("tierstack.yaml")?;
//! let service = OpenOptions::service();   // runs the schedules, here `base: daily`
//! let orders = Stack::open(&config, None, &Registry::standard(), &service).await?;
//! orders.put("order:1", "three apples").await?;
//! orders.close().await?;
//! # Ok(()) }
//! ```
//!
//! # Layers
//!
//! From the outside in: `cache`, `compress`, `encrypt`, `expire`, `write_back`, `backup`. The others may be anywhere.
//!
//! | layer | what it does | feature |
//! |---|---|---|
//! | [`cache`](layers::cache) | answers from memory, and from a folder on disk; one load per key | `cache` |
//! | [`compress`](layers::compress) | compresses values by zstd or lz4 | `compress` |
//! | [`encrypt`](layers::encrypt) | seals values by XAES-256-GCM, with keys that can be rotated | `encrypt` |
//! | [`expire`](layers::expire) | gives entries a deadline, over backends that have none | |
//! | [`write_back`](layers::write_back) | acknowledges writes once they are in a journal, and brings them to the store below in order | |
//! | [`backup`](layers::backup) | takes consistent backups into a folder or a bucket | `backup` |
//! | [`retry`](layers::retry) | repeats what failed for a moment | |
//! | [`timeout`](layers::timeout) | gives every operation a deadline | |
//! | [`limit`](layers::limit) | bounds the operations that run at once | |
//! | [`read_only`](layers::read_only) | refuses writes | |
//! | [`prefix`](layers::prefix) | puts one keyspace inside another | |
//! | [`metrics`](layers::metrics) | counts and times every operation; a stack from a config has it at every boundary | |
//!
//! # Backends
//!
//! | backend | what it is | feature |
//! |---|---|---|
//! | [`file`](backends::file) | a folder with a file for each entry (Unix) | `file` |
//! | [`memory`](backends::memory) | an ordered map in the process | |
//! | [`object`](backends::object) | a bucket of S3, Google Cloud Storage or Azure, or a folder | `object`, and `cloud` for buckets |
//! | [`opendal`](backends::opendal) | a service of Apache OpenDAL, such as WebDAV or memcached | `opendal` |
//! | [`postgres`](backends::postgres) | a table of PostgreSQL | `postgres` |
//! | [`redis`](backends::redis) | a Redis or Valkey server, or a cluster | `redis` |
//! | [`rocksdb`](backends::rocksdb) | a RocksDB database, or one of its column families | `rocksdb` |
//! | [`sqlite`](backends::sqlite) | a table of a SQLite database | `sqlite` |
//!
//! # Features
//!
//! The layers and backends above, and these. A feature makes names available and changes nothing else.
//!
//! | feature | what it adds |
//! |---|---|
//! | `default` | `cache`, `compress`, `encrypt`, `backup`, `config`: no C++ build, no network client |
//! | `full` | everything |
//! | `config` | stacks from YAML, TOML or JSON ([`config`], [`Stack`]), [`control`], [`status`], [`jsonl`] |
//! | `cloud` | buckets, for `backup` and `object` |
//! | `serve` | the HTTP server ([`serve`]) |
//! | `telemetry` | metrics for Prometheus, at an address of their own |
//! | `cli` | the command `tierstack` |
//! | `testing` | the conformance suite, the model test and the fault store ([`testing`]) |
//!
//! # Guides
//!
//! | page | |
//! |---|---|
//! | [The config file](https://docs.rs/crate/tierstack/latest/source/docs/config.md) | every key, sizes and durations, the order of layers |
//! | [The command](https://docs.rs/crate/tierstack/latest/source/docs/command.md) | every command, and what an interruption leaves |
//! | [The cache](https://docs.rs/crate/tierstack/latest/source/docs/cache.md) | times, policies, memory, the disk, figures |
//! | [Transactions](https://docs.rs/crate/tierstack/latest/source/docs/transactions.md) | optimistic, up to `SERIALIZABLE` for keys ([`Transaction`]) |
//! | [Typed keys](https://docs.rs/crate/tierstack/latest/source/docs/keys.md) | tuple keys that sort as their parts do ([`keys`]) |
//! | [Serving](https://docs.rs/crate/tierstack/latest/source/docs/serve.md), [HTTP](https://docs.rs/crate/tierstack/latest/source/docs/http.md) | listeners, tokens, TLS; the routes |
//! | [Metrics](https://docs.rs/crate/tierstack/latest/source/docs/metrics.md), [the runbook](https://docs.rs/crate/tierstack/latest/source/docs/runbook.md) | every family; what to do about each alert |
//! | [Performance](https://docs.rs/crate/tierstack/latest/source/docs/performance.md) | what a layer and a backend cost |
//! | [Decisions](https://docs.rs/crate/tierstack/latest/source/docs/decisions/README.md) | why the code is as it is |
//! | [Glossary](https://docs.rs/crate/tierstack/latest/source/docs/glossary.md) | each term of these pages, once |
//! | [Security](https://docs.rs/crate/tierstack/latest/source/SECURITY.md) | what is protected, and against what |
//!
//! A backend or a layer of your own implements the contract, passes the [`testing`] suite, and can be registered under a name
//! for the config file: see `examples/custom_backend.rs` and `examples/custom_layer.rs`.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
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
mod encoded_conditions;
mod error;
mod ext;
mod filesystem;
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
mod thread_slot;
mod transaction;
mod types;
mod write_group;

pub use crate::clock::{Clock, ManualClock, Stopwatch, SystemClock, Timestamp};
pub use crate::error::{Error, ErrorKind, Operation, Outcome, Result, Retry};
pub use crate::ext::{ReadExt, StoreExt};
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
    Identity, Inspection, Limits, Op, Order, Page, Place, Presence, Profile, ProfileKind,
    RESERVED_PREFIX, Recovery, RunOrder, Scan, Scope, Usage, Value, survey, units,
};
pub use crate::write_group::{write_admitted, write_in_order};

/// The code of the README compiles.
#[cfg(all(doctest, feature = "config"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// The code of the page on transactions compiles, and holds.
#[cfg(doctest)]
#[doc = include_str!("../docs/transactions.md")]
struct Transactions;
