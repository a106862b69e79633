//! Backends: stores that hold data themselves. One module each, none imports another.

pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use self::memory::{Memory, MemoryConfig};
#[cfg(feature = "rocksdb")]
pub use self::rocksdb::{RocksDb, RocksDbConfig};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{Sqlite, SqliteConfig};
