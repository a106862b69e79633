//! The conformance suite over every backend and every layer.
//!
//! To add one: a line in the table, named after its module. The last test fails when a module of
//! `src/backends/` or `src/layers/` is not in the table.

#![cfg(all(feature = "testing", feature = "compress", feature = "encrypt"))]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tierstack::backends::Memory;
use tierstack::codec::{Codec, KeyRing};
use tierstack::layers::compress::{CompressConfig, CompressLayer};
use tierstack::layers::encrypt::EncryptLayer;
use tierstack::telemetry::Labels;
use tierstack::testing::conformance::{self, Fixture};
use tierstack::testing::{FaultStore, Faults};
use tierstack::units::ByteSize;
use tierstack::{Layer, ManualClock, Store};

/// Modules that have no line in the table yet.
const PENDING: &[&str] = &[];

/// `test_name: [modules that it covers] => expression of a Fixture;`
macro_rules! table {
    ($($name:ident: [$($module:literal),*] => $fixture:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            conformance::assert_conforms(|| async { Ok($fixture) }).await;
        })+

        // RocksDB has a module of its own, behind its feature.
        const COVERED: &[&str] = &["rocksdb", $($($module,)*)+];
    };
}

table! {
    memory_on_a_manual_clock: ["memory"] => memory();
    memory_on_the_systems_clock: ["memory"] => Fixture::new(Memory::new());
    a_fault_plan_without_rules: [] => over_memory(|below, _| FaultStore::new(below, &Faults::new()));
    compress_by_zstd: ["compress"] => over_memory(|below, _| compress(Codec::Zstd).layer(below));
    compress_by_lz4: ["compress"] => over_memory(|below, _| compress(Codec::Lz4).layer(below));
    encrypt: ["encrypt"] => over_memory(|below, _| encrypt().layer(below));
    compress_over_encrypt: ["compress", "encrypt"] =>
        over_memory(|below, _| compress(Codec::Zstd).layer(encrypt().layer(below)));
}

#[cfg(feature = "rocksdb")]
mod rocksdb {
    use tempfile::tempdir;
    use tierstack::backends::{RocksDb, RocksDbConfig};

    use super::*;

    /// A new database in a folder of its own.
    async fn fixture(change: impl FnOnce(&mut RocksDbConfig)) -> Fixture {
        let folder = tempdir().unwrap();
        let mut config = RocksDbConfig::new(folder.path());
        change(&mut config);
        let store = RocksDb::open(config.clone()).await.unwrap();
        let reopen = move || {
            let opened = RocksDb::open(config.clone());
            async move { Ok(Arc::new(opened.await?) as Arc<dyn Store>) }
        };
        Fixture::new(store).reopened_by(reopen).keeping(folder)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn with_sync() {
        conformance::assert_conforms(|| async { Ok(fixture(|_| ()).await) }).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_sync_in_a_column_family() {
        let change = |config: &mut RocksDbConfig| {
            config.sync = false;
            config.column_family = "mine".into();
            // Small enough that the checks make it write tables.
            config.write_buffer_size = Some(tierstack::units::ByteSize(64 << 10));
        };
        conformance::assert_conforms(|| async { Ok(fixture(change).await) }).await;
    }
}

/// A memory store on a clock of its own.
fn memory() -> Fixture {
    over_memory(|below, _| below)
}

/// A layer over memory; the layer gets the same clock.
fn over_memory<S: Store>(layer: impl Fn(Arc<dyn Store>, &ManualClock) -> S) -> Fixture {
    let clock = ManualClock::new();
    let below = Arc::new(Memory::with_clock(Arc::new(clock.clone())));
    Fixture::new(layer(below, &clock)).with_clock(&clock)
}

fn compress(codec: Codec) -> CompressLayer {
    // Everything is compressed that can be, also the short values of the checks.
    let config = CompressConfig { codec, min_size: ByteSize(0), ..CompressConfig::default() };
    CompressLayer::new(&config, &Labels::default()).unwrap()
}

fn encrypt() -> EncryptLayer {
    let ring = KeyRing::parse(KeyRing::generate().unwrap().expose()).unwrap();
    EncryptLayer::new(ring, false, &Labels::default())
}

#[test]
fn every_module_is_in_the_table() {
    let modules: Vec<String> = ["backends", "layers"].into_iter().flat_map(modules).collect();
    assert!(modules.iter().any(|module| module == "memory"), "the walk finds no modules");
    for module in &modules {
        let (covered, pending) = (COVERED.contains(&&**module), PENDING.contains(&&**module));
        assert!(covered || pending, "'{module}' has no line in the table");
        assert!(!(covered && pending), "'{module}' is in the table: take it off PENDING");
    }
    for name in COVERED.iter().chain(PENDING) {
        assert!(modules.iter().any(|module| module == name), "there is no module '{name}'");
    }
}

/// The public modules that a folder of `src` declares.
fn modules(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder).join("mod.rs");
    let text = fs::read_to_string(path).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}
