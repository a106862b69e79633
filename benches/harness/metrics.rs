//! What it costs to measure.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use tierstack::backends::Memory;
use tierstack::layers::cache::{CacheConfig, CacheLayer};
use tierstack::layers::metrics::MetricsLayer;
use tierstack::telemetry::Labels;
use tierstack::{Batch, Context, Layer as _, Op, Read as _, Reply, Store, Value};
use tokio::runtime::Runtime;

use crate::harness::compare;

fn read(store: &Arc<dyn Store>, keys: &[Bytes], times: u64) {
    let mut keys = keys.iter().cycle();
    for _ in 0..times {
        match store.get(keys.next().unwrap()) {
            Reply::Now(value) => drop(black_box(value.unwrap())),
            Reply::Later(_) => panic!("an answer from memory is there at once"),
        }
    }
}

/// A hit with the boundary over it, against the same hit without: at most 25 ns more.
pub(crate) fn hit(runtime: &Runtime) {
    let keys: Vec<Bytes> =
        (0..10_000).map(|n| format!("user:{:012}", n * 7919 % 10_000).into()).collect();
    let cache = CacheLayer::new(&CacheConfig::default(), &Context::default()).unwrap();
    let plain: Arc<dyn Store> = Arc::new(cache.layer(Memory::new()));
    runtime.block_on(async {
        for keys in keys.chunks(1000) {
            let ops = keys.iter().map(|key| Op::Put(key.clone(), Value::new(vec![7; 100])));
            let _ = plain.write(ops.collect::<Batch>()).await.unwrap();
        }
        for key in &keys {
            plain.get(key).await.unwrap();
        }
    });
    let layer = MetricsLayer::new(Labels::new("bench", "cache"));
    let measured: Arc<dyn Store> = Arc::new(layer.layer(Arc::clone(&plain)));
    let one = compare(
        "hit: without -> with instrumentation",
        |times| read(&plain, &keys, times),
        |times| read(&measured, &keys, times),
    );
    let two = |store: &Arc<dyn Store>, times: u64| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| read(store, &keys, times));
            }
        });
    };
    let both = compare(
        "hit on two threads: without -> with",
        |times| two(&plain, times),
        |times| two(&measured, times),
    );
    println!(
        "  {:.1} ns more on one thread, {:.1} ns on two",
        one.subject - one.baseline,
        both.subject - both.baseline
    );
}
