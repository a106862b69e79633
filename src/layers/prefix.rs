//! `prefix`: one keyspace inside another.
