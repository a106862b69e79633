//! Backups: consistent bases in object storage, verified and restored without any layer.
//!
//! A [`Repository`] is a folder or a bucket. [`run`] takes a *base* into it: an image of one moment of a
//! store, cut into chunks that a later base shares where nothing changed. [`Repository::verify`] reads
//! every byte of it, and [`restore`] writes a base into an empty store of any kind. The bytes and names
//! of every object are drawn in `docs/formats/backup.md`.
//!
//! # Guarantees
//! - A base is of one moment, and visible wholly or not at all: packs are uploaded first, then the
//!   manifest that names them, then the head that names the manifest. A crash or a dropped future at any
//!   step leaves the former state, and at most objects that nothing refers to.
//! - Two writers to one repository: one wins, the other gets `Conflict`, and no base is lost.
//! - Every byte that is read is checked against a hash; damage is a `Corruption` error that names the
//!   object, never another value.
//! - A restore proves itself: the target is read back and compared, entry for entry, by digest.
//!
//! # Limits
//! - There is no log between bases yet: a restore reaches the moments at which a base was taken.
//! - Nothing is deleted yet: what no base refers to is counted by `verify`, and stays.
//! - Keys that begin with [`RESERVED_PREFIX`] are the project's own and are not part of a base.
//! - A base, a verification and a restore need memory for a few packs and pages, for the longest value
//!   (a verification does not), and for the lists of chunks of the base and the one before: about 250 bytes
//!   for each 80 entries or 1 MiB of a large value.
//!
//! ```
//! # tokio_test::block_on(async {
//! use std::sync::Arc;
//! use object_store::memory::InMemory;
//! use tierstack::backends::Memory;
//! use tierstack::backup::{self, Repository, Restore, Target};
//! use tierstack::{Read, StoreExt, SystemClock};
//!
//! let store = Memory::new();
//! store.put("user:1", "Ada").await?;
//!
//! let repository =
//!     Repository::create_or_open(Arc::new(InMemory::new()), SystemClock::shared()).await?;
//! backup::run(&store, &repository, &|_| ()).await?;
//!
//! let copy = Memory::new();
//! let plan = repository.plan(Target::Latest).await?;
//! backup::restore(&repository, &plan, &copy, &Restore::default(), &|_| ()).await?;
//! assert_eq!(copy.get(b"user:1").await?, Some("Ada".into()));
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod base;
mod chunk;
mod chunking_settings;
mod content_digest;
mod documents;
mod folder;
mod manifest;
mod objects;
mod progress;
mod read;
mod recovery_target;
mod repository;
mod restore;
mod restore_check;
mod schedule;
mod verify;

pub use self::base::{BackupReport, run, run_whole};
pub use self::chunking_settings::Chunking;
pub use self::documents::{BaseInfo, Hash};
pub use self::progress::{OnProgress, Progress};
pub use self::recovery_target::{Plan, Target, plan};
pub use self::repository::{Repository, RepositoryOptions};
pub use self::restore::{Restore, Restored, UnfinishedRestore, restore, unfinished_restore};
pub use self::schedule::Schedule;
pub use self::verify::{Finding, Level, Report};
pub use crate::objects::Location;

/// Keys that begin with this are the project's own, such as the mark of a restore that has not finished. They
/// are not part of a base.
pub use crate::types::RESERVED_PREFIX;
