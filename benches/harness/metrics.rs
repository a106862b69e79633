//! What it costs to measure, and to read what was measured.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tierstack::backends::Memory;
use tierstack::config::{Config, Format, Registry};
use tierstack::layers::cache::{CacheConfig, CacheLayer};
use tierstack::layers::metrics::MetricsLayer;
use tierstack::telemetry::{Labels, render, snapshot};
use tierstack::{
    Batch, Context, Layer as _, Op, OpenOptions, Read as _, Reply, Stack, Store, StoreExt as _,
    Value,
};
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

/// `/metrics` of 20 stacks of 6 layers: at most 10 ms. And what a hit sees of it.
pub(crate) fn scrape(runtime: &Runtime) {
    let layers = "metrics, { retry: {} }, { timeout: { after: 5s } }, { limit: {} }, { cache: {} }, { compress: {} }";
    let stores: Vec<_> =
        (0..20).map(|n| format!("s{n}: {{ layers: [{layers}], backend: memory }}")).collect();
    let text = format!("default: s0\nstores: {{ {} }}", stores.join(", "));
    let config = Config::parse(&text, Format::Yaml, "bench.yaml").unwrap();
    let stacks: Vec<Stack> = runtime.block_on(async {
        let mut stacks = Vec::new();
        for n in 0..20 {
            let (name, registry) = (format!("s{n}"), Registry::standard());
            let options = OpenOptions::default();
            let stack = Stack::open(&config, Some(&name), &registry, &options).await.unwrap();
            let _ = stack.put("k", "v").await.unwrap();
            for _ in 0..200 {
                stack.get(b"k").await.unwrap();
            }
            stacks.push(stack);
        }
        stacks
    });
    let text = render();
    let mut took: Vec<Duration> = (0..50)
        .map(|_| {
            let begun = Instant::now();
            drop(black_box(render()));
            begun.elapsed()
        })
        .collect();
    took.sort();
    println!(
        "scrape of 20 stacks of 6 layers: {} series, {} KiB, {:.1} ms (at best {:.1}, at worst {:.1})",
        snapshot().series(),
        text.len() >> 10,
        took[25].as_secs_f64() * 1e3,
        took[0].as_secs_f64() * 1e3,
        took[49].as_secs_f64() * 1e3,
    );
    let hits = |scraped: bool| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while scraped && !stop.load(Ordering::Relaxed) {
                    drop(black_box(render()));
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let mut took: Vec<Duration> = (0..2_000_000)
                .map(|_| {
                    let begun = Instant::now();
                    let _ = black_box(matches!(stacks[0].get(b"k"), Reply::Now(_)));
                    begun.elapsed()
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            took.sort();
            [took[took.len() / 2], took[took.len() / 100 * 99], took[took.len() / 1000 * 999]]
        })
    };
    println!("a hit, half, 99 % and 99.9 % of them, alone:         {:?}", hits(false));
    println!("a hit, half, 99 % and 99.9 % of them, while scraped: {:?}", hits(true));
    runtime.block_on(async {
        for stack in &stacks {
            stack.close().await.unwrap();
        }
    });
}
