//! `rocksdb`: a RocksDB database, or one column family of it.
