//! The conformance suite over every backend and every layer.
//!
//! To add one: a line in the table, named after its module. The last test fails when a module of
//! `src/backends/` or `src/layers/` is not in the table.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tierstack::backends::Memory;
use tierstack::testing::conformance::{self, Fixture};
use tierstack::testing::{FaultStore, Faults};
use tierstack::{ManualClock, Store};

/// Modules that have no line in the table yet.
const PENDING: &[&str] = &[
    "backup",
    "cache",
    "compress",
    "encrypt",
    "expire",
    "limit",
    "metrics",
    "prefix",
    "read_only",
    "retry",
    "rocksdb",
    "timeout",
];

/// `test_name: [modules that it covers] => expression of a Fixture;`
macro_rules! table {
    ($($name:ident: [$($module:literal),*] => $fixture:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            conformance::assert_conforms(|| async { Ok($fixture) }).await;
        })+

        const COVERED: &[&str] = &[$($($module),*),+];
    };
}

table! {
    memory_on_a_manual_clock: ["memory"] => memory();
    memory_on_the_systems_clock: ["memory"] => Fixture::new(Memory::new());
    a_fault_plan_without_rules: [] => over_memory(|below, _| FaultStore::new(below, &Faults::new()));
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
