//! A hit in the cache of the configured stack allocates nothing that the bare engine does not.

#![cfg(feature = "full")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use allocation_counter::measure;
use bytes::Bytes;
use tierstack::codec::KeyRing;
use tierstack::config::{Config, Format, Registry};
use tierstack::{OpenOptions, Reply, Stack, Value};

const KEYS: usize = 1000;

fn key(number: usize) -> Bytes {
    format!("user:{number:08}").into()
}

/// The allocations of reading every key once.
fn allocations(mut get: impl FnMut(&[u8]) -> Option<Value>, keys: &[Bytes]) -> u64 {
    let counted = measure(|| {
        for key in keys {
            assert!(get(key).is_some());
        }
    });
    counted.count_total
}

/// The engine does its housekeeping on some reads and allocates for it, so both are measured many
/// times, and the quietest of each are compared: what a hit itself allocates, it always does.
fn fewest(mut get: impl FnMut(&[u8]) -> Option<Value>, keys: &[Bytes]) -> u64 {
    (0..50).map(|_| allocations(&mut get, keys)).min().unwrap()
}

#[tokio::test]
async fn a_hit_allocates_no_more_than_the_bare_engine() {
    // Instrumentation is on.
    metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keys"), KeyRing::generate().unwrap().expose()).unwrap();
    let text = include_str!("../examples/quickstart.yaml")
        .replace("{ env: QUICKSTART_KEYS }", "{ file: keys }");
    let config = Config::parse(&text, Format::Yaml, folder.path().join("tierstack.yaml")).unwrap();
    let options = OpenOptions::default();
    let stack = Stack::open(&config, None, &Registry::standard(), &options).await.unwrap();

    let keys: Vec<Bytes> = (0..KEYS).map(key).collect();
    let bare: moka::sync::Cache<Bytes, Value> = moka::sync::Cache::new(1 << 20);
    for key in &keys {
        let value = Value::new(vec![7; 100]);
        bare.insert(key.clone(), value.clone());
        let batch = tierstack::Batch::new().put(key.clone(), value);
        let _ = stack.write(batch).await.unwrap();
        stack.get(key).await.unwrap().unwrap();
    }
    let through_the_stack = |key: &[u8]| match stack.get(key) {
        Reply::Now(value) => value.unwrap(),
        Reply::Later(_) => panic!("a hit is answered at once"),
    };

    let engine = fewest(|key| bare.get(key), &keys);
    let hits = fewest(through_the_stack, &keys);
    assert!(hits <= engine, "{hits} allocations in {KEYS} hits, the engine alone makes {engine}");
    // A hit that allocated once would be seen: the measure counts each one.
    let boxed = fewest(|key| *Box::new(bare.get(key)), &keys);
    assert_eq!(boxed - engine, KEYS as u64);
    stack.close().await.unwrap();
}
