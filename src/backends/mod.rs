//! Backends: stores that hold data themselves. One module each, none imports another.

pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;

pub use self::memory::{Memory, MemoryConfig};
#[cfg(feature = "postgres")]
pub use self::postgres::{Postgres, PostgresConfig};
#[cfg(feature = "rocksdb")]
pub use self::rocksdb::{RocksDb, RocksDbConfig};
