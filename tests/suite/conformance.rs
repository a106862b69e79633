//! The conformance suite over every backend, every layer over each backend, and every pair of layers.
//!
//! The last test fails when a module of `src/backends/` or `src/layers/` is not among them.
//! Below the layers is a fault store, so that what is below them can become unreachable.

#![cfg(all(feature = "cli", feature = "rocksdb"))]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::stacks::{self, BACKENDS, LAYERS, Opened};
use tempfile::TempDir;
use tierstack::backends::Memory;
use tierstack::config::{Config, Format, Registry};
use tierstack::testing::conformance::{self, Fixture};
use tierstack::testing::{FaultStore, Faults};
use tierstack::{ManualClock, OpenOptions, Stack};

async fn conforms(layers: &[&'static str], backend: &'static str) {
    conformance::assert_conforms(|| async { Ok(fixture(layers.to_vec(), backend).await) }).await;
}

async fn fixture(layers: Vec<&'static str>, backend: &'static str) -> Fixture {
    let clock = ManualClock::new();
    let faults = Faults::new();
    let mut layers: Vec<String> = layers.into_iter().map(str::to_owned).collect();
    let alone = layers.is_empty();
    if !alone {
        layers.push(stacks::failing(&faults));
    }
    let Opened { stack, folder } = stacks::open(&layers, backend, &clock).await;
    let fixture = Fixture::new(stack.store()).with_clock(&clock);
    let fixture = if alone {
        fixture.never_cut_off(always_there(backend))
    } else {
        fixture.cut_off_by(move |reachable| {
            if reachable {
                faults.heal()
            } else {
                faults.cut()
            }
            async { Ok(()) }
        })
    };
    let fixture = if name(backend) == "memory" {
        fixture
    } else {
        let (folder, clock) = (Arc::clone(&folder), clock.clone());
        fixture.reopened_by(move || {
            let (folder, layers, clock) = (Arc::clone(&folder), layers.clone(), clock.clone());
            async move { Ok(stacks::reopen(&folder, &layers, backend, &clock).await?.store()) }
        })
    };
    fixture.keeping((folder, stack))
}

/// Why the data of a backend cannot become unreachable while it is open.
fn always_there(backend: &str) -> &'static str {
    match name(backend) {
        "memory" => "the entries are in the process",
        "file" => "the folder is held open: moving it or taking rights away changes nothing",
        // What a lock of another program does, `tests/sqlite.rs` looks at.
        "rocksdb" | "sqlite" => "the files are held open, and no server is asked",
        other => panic!("say how {other} becomes unreachable"),
    }
}

/// The name of a layer or backend in its config.
fn name(part: &str) -> &str {
    part.split(':').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_backend() {
    for backend in BACKENDS {
        conforms(&[], backend).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_on_the_systems_clock() {
    conformance::assert_conforms(|| async { Ok(Fixture::new(Memory::new())) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rocksdb_that_syncs_in_a_column_family() {
    conforms(&[], "rocksdb: { path: data, column_family: mine }").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_that_syncs() {
    conforms(&[], "sqlite: { path: data.db }").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_with_a_rollback_journal_and_two_columns() {
    conforms(
        &[],
        "sqlite: { path: data.db, journal: rollback, table: kv, columns: { key: k, value: v } }",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_synced_in_every_layout() {
    conforms(&[], "file: { path: data }").await;
    conforms(&[], "file: { path: data, sync: false, names: plain }").await;
    conforms(&[], "file: { path: data, sync: false, fan_out: [2, 3] }").await;
}

/// The folder of a check, and the config that names it.
type Begun = (Arc<TempDir>, Config);

/// Both stores over a shared backend pass the suite at the same time: the same checks, about in step.
async fn both_conform(backend: &'static str, one: &'static str, two: &'static str) {
    let text = format!(
        "backends: {{ main: {{ {backend} }} }}\nstores:\n  one: {{ backend: {{ shared: main, {one} }} }}\n  \
         two: {{ backend: {{ shared: main, {two} }} }}\ndefault: one\n"
    );
    // The config for each check, with which the first of the two begins.
    let configs: Arc<Mutex<Vec<Begun>>> = Arc::default();
    let suite = |name: &'static str| {
        let (text, configs) = (text.clone(), Arc::clone(&configs));
        let next = AtomicUsize::new(0);
        async move {
            let open = async |config: &Config| {
                let registry = Registry::standard();
                Stack::open(config, Some(name), &registry, &OpenOptions::service()).await
            };
            let fixture = || async {
                let (folder, config) = {
                    let mut configs = configs.lock().unwrap();
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at == configs.len() {
                        let folder = Arc::new(tempfile::tempdir().unwrap());
                        let file = folder.path().join("tierstack.yaml");
                        configs.push((folder, Config::parse(&text, Format::Yaml, file)?));
                    }
                    configs[at].clone()
                };
                let stack = open(&config).await?;
                let again = config.clone();
                let fixture = Fixture::new(stack.store()).reopened_by(move || {
                    let config = again.clone();
                    async move { Ok(open(&config).await?.store()) }
                });
                Ok(fixture.keeping((folder, config, stack)))
            };
            conformance::assert_conforms(fixture).await;
        }
    };
    tokio::join!(suite("one"), suite("two"));
    assert!(configs.lock().unwrap().len() > 20, "the suite has many checks");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_stores_over_a_shared_backend() {
    both_conform(
        "rocksdb: { path: data, sync: false }",
        "column_family: one",
        "column_family: two",
    )
    .await;
    both_conform("rocksdb: { path: data, sync: false }", "prefix: one/", "prefix: two/").await;
    both_conform("sqlite: { path: data.db, sync: false }", "prefix: one/", "prefix: two/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_plan_without_rules() {
    let faultless = || async {
        let clock = ManualClock::new();
        let below = Memory::with_clock(Arc::new(clock.clone()));
        Ok(Fixture::new(FaultStore::new(below, &Faults::new())).with_clock(&clock))
    };
    conformance::assert_conforms(faultless).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_layer_over_memory() {
    for layer in LAYERS {
        conforms(&[layer], "memory: {}").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_layer_over_rocksdb() {
    // Opening a database waits for the disk, so they are opened concurrently.
    let all =
        LAYERS.iter().map(|layer| tokio::spawn(async { conforms(&[layer], BACKENDS[1]).await }));
    for done in all.collect::<Vec<_>>() {
        done.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_layer_over_files() {
    // They wait for the disk, at the same time.
    let all = stacks::layers_over(BACKENDS[2]).into_iter();
    let all = all.map(|layer| tokio::spawn(async move { conforms(&[layer], BACKENDS[2]).await }));
    for done in all.collect::<Vec<_>>() {
        done.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_codec() {
    conforms(&["compress: { codec: lz4, min_size: 0 }"], "memory: {}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_policies_of_the_cache() {
    for layer in [
        "cache: { policy: tiny_lfu, capacity: 1MiB, ttl: 1m, negative_ttl: 5s }",
        "cache: { policy: lru, capacity: 1MiB, ttl: 1m, negative_ttl: 5s }",
    ] {
        conforms(&[layer], "memory: {}").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_writes() {
    conforms(&["read_only: {}"], "memory: {}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pair_of_layers() {
    for (at, outer) in LAYERS.iter().enumerate() {
        for inner in &LAYERS[at + 1..] {
            conforms(&[outer, inner], "memory: {}").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_layers_together() {
    for backend in BACKENDS {
        conforms(&stacks::layers_over(backend), backend).await;
    }
}

#[test]
fn every_module_is_tested() {
    // These backends have tests of their own, and servers: `tests/servers/object.rs` and so on.
    let elsewhere = ["object", "opendal", "postgres", "redis"];
    let here = LAYERS.iter().chain(BACKENDS).map(|part| name(part));
    let tested: BTreeSet<&str> = here.chain(["read_only"]).chain(elsewhere).collect();
    let modules: BTreeSet<String> = ["backends", "layers"].into_iter().flat_map(modules).collect();
    let modules: BTreeSet<&str> = modules.iter().map(String::as_str).collect();
    assert!(modules.contains("memory"), "the walk finds no modules");
    assert_eq!(tested, modules);
}

/// The public modules that a folder of `src` declares.
fn modules(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder).join("mod.rs");
    let text = fs::read_to_string(path).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}
