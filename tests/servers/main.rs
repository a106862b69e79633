//! Tests that need servers, or programs of others: `cargo test --test servers postgres::` runs those of one module.
//! docs/servers.md tells how to have the servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

mod adopt;
mod backup_s3;
mod buckets_only_read;
mod dashboards;
mod late;
mod live;
mod object;
mod opendal;
mod postgres;
mod programs;
mod redis;
mod rocksdb;
mod schemathesis;
mod test_servers;
