//! An object per entry: what the backends `object` and `opendal` are made of, and how a folder or a
//! bucket is opened, which the backup engine shares.
//!
//! A service is reduced to [`Objects`]: get, put, create, delete, list. [`Entries`] makes a store of it.

#[cfg(all(feature = "cloud", any(feature = "backup", feature = "object")))]
mod bucket;
#[cfg(any(feature = "backup", feature = "object"))]
mod connection;
#[cfg(any(feature = "backup", feature = "object"))]
mod error;
#[cfg(any(feature = "backup", feature = "object"))]
#[cfg_attr(not(feature = "backup"), expect(unreachable_pub, reason = "`backup` offers it"))]
mod location;

#[cfg(any(feature = "object", feature = "opendal"))]
mod entries;
#[cfg(any(feature = "object", feature = "opendal"))]
mod folder;
#[cfg(all(unix, feature = "object"))]
mod local_folder;
#[cfg(any(feature = "object", feature = "opendal"))]
mod names;
#[cfg(any(feature = "object", feature = "opendal"))]
mod options;
#[cfg(feature = "object")]
mod paths;
#[cfg(any(feature = "object", feature = "opendal"))]
mod probe;
#[cfg(any(feature = "object", feature = "opendal"))]
mod scan;
#[cfg(any(feature = "object", feature = "opendal"))]
mod service;
#[cfg(all(feature = "object", feature = "cloud"))]
mod wire;

#[cfg(any(feature = "backup", feature = "object"))]
pub(crate) use self::connection::Connection;
#[cfg(any(feature = "object", feature = "opendal"))]
pub(crate) use self::entries::{Entries, Opening, StoreGuarantees, check_durability, delegate};
#[cfg(feature = "backup")]
pub(crate) use self::error::kind_of;
#[cfg(any(feature = "backup", feature = "object"))]
pub(crate) use self::error::lacks_a_bucket;
#[cfg(feature = "object")]
pub(crate) use self::error::redacted;
#[cfg(any(feature = "backup", feature = "object"))]
#[cfg_attr(not(feature = "backup"), expect(unreachable_pub, reason = "`backup` offers it"))]
pub use self::location::Location;
#[cfg(any(feature = "backup", feature = "object"))]
pub(crate) use self::location::Shown;
#[cfg(any(feature = "object", feature = "opendal"))]
pub use self::names::Names;
#[cfg(any(feature = "object", feature = "opendal"))]
pub(crate) use self::names::Naming;
#[cfg(any(feature = "object", feature = "opendal"))]
pub use self::options::{Options, Setting};
#[cfg(any(feature = "object", feature = "opendal"))]
pub(crate) use self::options::{READS_NO_CONDITIONS, check as check_options, read as read_options};
#[cfg(feature = "object")]
pub(crate) use self::paths::{to_name, to_path};
#[cfg(any(feature = "object", feature = "opendal"))]
pub(crate) use self::service::{Listed, MAX_VALUE_BYTES, Objects, too_large};
#[cfg(all(feature = "object", feature = "cloud"))]
pub(crate) use self::wire::{StorageClass, only_if};
