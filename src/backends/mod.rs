//! Backends: stores that hold data themselves. One module each, none imports another.

pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;

pub use self::memory::{Memory, MemoryConfig};
#[cfg(feature = "redis")]
pub use self::redis::{Redis, RedisConfig};
#[cfg(feature = "rocksdb")]
pub use self::rocksdb::{RocksDb, RocksDbConfig};
