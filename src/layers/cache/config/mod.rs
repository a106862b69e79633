//! The settings, their checks, and what a cache with them guarantees.

mod check;
mod disk;
mod profile;
mod settings;
mod warm_start;

pub(super) use self::check::check_capacity;
pub use self::disk::DiskConfig;
pub use self::settings::{CacheConfig, OnWrite, Policy};
pub use self::warm_start::WarmStartConfig;
