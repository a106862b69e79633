//! Backends: stores that hold data themselves. One module each, none imports another.

#[cfg(all(feature = "file", unix))]
pub mod file;
pub mod memory;
#[cfg(feature = "object")]
pub mod object;
#[cfg(feature = "opendal")]
pub mod opendal;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(all(feature = "file", unix))]
pub use self::file::{FileConfig, FileStore};
pub use self::memory::{Memory, MemoryConfig};
#[cfg(feature = "object")]
pub use self::object::{Object, ObjectConfig};
#[cfg(feature = "opendal")]
pub use self::opendal::{OpenDal, OpenDalConfig};
#[cfg(feature = "postgres")]
pub use self::postgres::{Postgres, PostgresConfig};
#[cfg(feature = "redis")]
pub use self::redis::{Redis, RedisConfig};
#[cfg(feature = "rocksdb")]
pub use self::rocksdb::{RocksDb, RocksDbConfig};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{Sqlite, SqliteConfig};
