//! The cache: what a hit costs, how it scales, how many loads are kept concurrently with writes, what an entry takes of memory, and
//! how often each policy hits, with and without writes.
//!
//! `cargo bench --features full --bench cache`
//!
//! `TIERSTACK_TRACE=FILE` adds the hit ratios on a trace (big-endian 32-bit ids, plain or xz). Words
//! after `--` choose from `hit`, `threads`, `writes`, `on_write`, `memory` and `ratio`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a benchmark"
)]

#[path = "harness/cache_memory.rs"]
mod cache_memory;
#[path = "harness/cache_writes.rs"]
mod cache_writes;
mod harness;
#[path = "harness/requests.rs"]
mod requests;

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use quick_cache::OptionsBuilder;
use quick_cache::sync::DefaultLifecycle;
use tierstack::backends::Memory;
use tierstack::config::{Config, Format, Registry};
use tierstack::layers::cache::{CacheConfig, CacheLayer, Policy};
use tierstack::testing::{FaultStore, Faults};
use tierstack::{
    Batch, Context, Layer as _, Op, OpenOptions, Operation, Read as _, Reply, Stack, StoreExt as _,
    SystemClock, Value,
};
use tokio::runtime::Runtime;

use crate::harness::{compare, heading};
use crate::requests::Requests;

fn main() {
    // Instrumentation is on, and somebody listens.
    metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let runtime = Runtime::new().unwrap();
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    if wanted("hit") {
        heading();
        hit(&runtime);
    }
    if wanted("threads") {
        threads(&runtime);
    }
    if wanted("writes") {
        writes(&runtime);
    }
    if wanted("on_write") {
        after_a_write(&runtime);
        cache_writes::on_write(&runtime);
    }
    if wanted("memory") {
        cache_memory::memory(&runtime);
    }
    if wanted("ratio") {
        ratios(&runtime);
    }
}

const ENTRIES: usize = 10_000;
const VALUE_BYTES: usize = 100;

type Moka = moka::sync::Cache<Bytes, Value, foldhash::quality::RandomState>;
type Quick =
    quick_cache::sync::Cache<Bytes, Value, quick_cache::UnitWeighter, foldhash::fast::RandomState>;

fn quick(capacity: usize, ghosts: f64) -> Quick {
    let options = OptionsBuilder::new()
        .shards(8)
        .estimated_items_capacity(capacity)
        .weight_capacity(capacity as u64)
        .ghost_allocation(ghosts)
        .build()
        .unwrap();
    Quick::with_options(
        options,
        quick_cache::UnitWeighter,
        foldhash::fast::RandomState::default(),
        DefaultLifecycle::default(),
    )
}

/// Keys in an order that no prefetching guesses.
struct Keys {
    keys: Vec<Bytes>,
    at: Cell<usize>,
}

impl Keys {
    fn new(entries: usize) -> Self {
        let keys =
            (0..entries).map(|n| format!("user:{:012}", n * 7919 % entries).into()).collect();
        Self { keys, at: Cell::new(0) }
    }

    fn next(&self) -> &[u8] {
        let at = self.at.get();
        self.at.set(if at + 1 == self.keys.len() { 0 } else { at + 1 });
        &self.keys[at]
    }
}

fn value() -> Value {
    Value::new(vec![7; VALUE_BYTES])
}

fn now(reply: Reply<'_, Option<Value>>) -> Value {
    match reply {
        Reply::Now(value) => value.unwrap().unwrap(),
        Reply::Later(_) => panic!("an answer from memory is there at once"),
    }
}

/// A configured stack with all keys in its cache.
fn stack(runtime: &Runtime, cache: &str, keys: &[Bytes]) -> Stack {
    let text = format!("stores: {{ main: {{ layers: [cache: {{ {cache} }}], backend: memory }} }}");
    let config = Config::parse(&text, Format::Yaml, "bench.yaml").unwrap();
    let options = OpenOptions::default();
    runtime.block_on(async {
        let stack = Stack::open(&config, None, &Registry::standard(), &options).await.unwrap();
        for chunk in keys.chunks(1000) {
            let ops = chunk.iter().map(|key| Op::Put(key.clone(), value()));
            let _ = stack.write(ops.collect::<Batch>()).await.unwrap();
        }
        for key in keys {
            stack.get(key).await.unwrap();
        }
        stack
    })
}

fn hit(runtime: &Runtime) {
    let keys = Keys::new(ENTRIES);
    let map: HashMap<Bytes, Value> = keys.keys.iter().map(|k| (k.clone(), value())).collect();
    let quick = quick(ENTRIES * 2, 0.5);
    let moka: Moka = moka::sync::Cache::builder()
        .max_capacity(ENTRIES as u64 * 2)
        .build_with_hasher(foldhash::quality::RandomState::default());
    let foyer: foyer_memory::Cache<Bytes, Value> =
        foyer_memory::CacheBuilder::new(ENTRIES * 2).build();
    let opendal = opendal::Operator::new(opendal::services::Memory::default()).unwrap();
    for key in &keys.keys {
        quick.insert(key.clone(), value());
        moka.insert(key.clone(), value());
        foyer.insert(key.clone(), value());
        let path = std::str::from_utf8(key).unwrap();
        runtime.block_on(opendal.write(path, vec![7; VALUE_BYTES])).unwrap();
    }
    let fast = stack(runtime, "capacity: 256MiB", &keys.keys);
    let expiring = stack(runtime, "capacity: 256MiB, ttl: 10m", &keys.keys);
    let tiny = stack(runtime, "capacity: 256MiB, policy: tiny_lfu", &keys.keys);
    let of_map =
        |times| (0..times).for_each(|_| drop(black_box(map.get(keys.next()).cloned().unwrap())));
    let of_quick =
        |times| (0..times).for_each(|_| drop(black_box(quick.get(keys.next()).unwrap())));
    let of_moka = |times| (0..times).for_each(|_| drop(black_box(moka.get(keys.next()).unwrap())));
    let of_fast = |times| (0..times).for_each(|_| drop(black_box(now(fast.get(keys.next())))));
    let of_expiring =
        |times| (0..times).for_each(|_| drop(black_box(now(expiring.get(keys.next())))));
    let of_tiny = |times| (0..times).for_each(|_| drop(black_box(now(tiny.get(keys.next())))));
    let of_foyer =
        |times| (0..times).for_each(|_| drop(black_box(foyer.get(keys.next()).unwrap())));
    let of_opendal = |times| {
        (0..times).for_each(|_| {
            let path = std::str::from_utf8(keys.next()).unwrap();
            drop(black_box(opendal.read(path).now_or_never().unwrap().unwrap()));
        });
    };
    compare("HashMap and clone -> quick_cache alone", of_map, of_quick);
    compare("HashMap and clone -> moka alone", of_map, of_moka);
    compare("HashMap and clone -> stack, s3_fifo", of_map, of_fast);
    compare("HashMap and clone -> stack, s3_fifo, ttl", of_map, of_expiring);
    compare("quick_cache alone -> stack, s3_fifo", of_quick, of_fast);
    compare("moka alone -> stack, tiny_lfu", of_moka, of_tiny);
    compare("foyer's memory, get -> stack, s3_fifo", of_foyer, of_fast);
    compare("OpenDAL's memory, read -> stack, s3_fifo", of_opendal, of_fast);
}

/// Reads that one thread and two threads make in the same time.
fn threads(runtime: &Runtime) {
    let requests = Requests::zipf(ENTRIES as u32, 1 << 20);
    let keys: Vec<Bytes> = (0..ENTRIES).map(|n| format!("user:{n:012}").into()).collect();
    let map: HashMap<Bytes, Value> = keys.iter().map(|k| (k.clone(), value())).collect();
    let quick = quick(ENTRIES * 2, 0.5);
    let moka: Moka = moka::sync::Cache::builder()
        .max_capacity(ENTRIES as u64 * 2)
        .build_with_hasher(foldhash::quality::RandomState::default());
    for key in &keys {
        quick.insert(key.clone(), value());
        moka.insert(key.clone(), value());
    }
    let foyer: foyer_memory::Cache<Bytes, Value> =
        foyer_memory::CacheBuilder::new(ENTRIES * 2).build();
    for key in &keys {
        foyer.insert(key.clone(), value());
    }
    let fast = stack(runtime, "capacity: 256MiB", &keys);
    let tiny = stack(runtime, "capacity: 256MiB, policy: tiny_lfu", &keys);
    println!("two threads against one, {}", requests.origin);
    let scaled = |name, read: &(dyn Fn(&[u8]) + Sync)| scaling(name, read, &keys, &requests);
    scaled("HashMap, nothing but the hash", &|key| {
        black_box(map.contains_key(key));
    });
    scaled("HashMap and clone", &|key| drop(black_box(map.get(key).cloned())));
    scaled("quick_cache alone", &|key| drop(black_box(quick.get(key))));
    scaled("moka alone", &|key| drop(black_box(moka.get(key))));
    scaled("foyer alone", &|key| drop(black_box(foyer.get(key))));
    scaled("stack, s3_fifo", &|key| drop(black_box(now(fast.get(key)))));
    scaled("stack, tiny_lfu", &|key| drop(black_box(now(tiny.get(key)))));
}

fn scaling(name: &str, read: &(dyn Fn(&[u8]) + Sync), keys: &[Bytes], requests: &Requests) {
    let run = |threads: usize| {
        let barrier = Barrier::new(threads + 1);
        let begun = std::thread::scope(|scope| {
            for thread in 0..threads {
                let barrier = &barrier;
                scope.spawn(move || {
                    let half = requests.order.len() / 2;
                    let (left, right) = requests.order.split_at(half * thread);
                    barrier.wait();
                    for number in right.iter().chain(left) {
                        read(&keys[*number as usize]);
                    }
                });
            }
            barrier.wait();
            Instant::now()
        });
        (threads * requests.order.len()) as f64 / begun.elapsed().as_secs_f64()
    };
    let mut rounds: Vec<(f64, f64)> = (0..9).map(|_| (run(1), run(2))).collect();
    rounds.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let (one, two) = rounds[rounds.len() / 2];
    let best = rounds[rounds.len() - 1];
    println!(
        "{name:<32} {:>6.1} -> {:>6.1} million reads a second, x {:.2} (best x {:.2})",
        one / 1e6,
        two / 1e6,
        two / one,
        best.1 / best.0
    );
}

/// Loads of 20 ms, and writes of other keys meanwhile.
fn writes(runtime: &Runtime) {
    const LOADS: usize = 4000;
    const LOAD: Duration = Duration::from_millis(20);

    println!("\nloads that are kept, each of 20 ms, concurrently with writes of other keys");
    for capacity in ["4MiB", "256MiB"] {
        for rate in [0, 10_000, 50_000] {
            let config =
                CacheConfig { capacity: capacity.parse().unwrap(), ..CacheConfig::default() };
            let faults = Faults::seeded(0, SystemClock::shared());
            let store = FaultStore::new(Memory::new(), &faults);
            let cache = CacheLayer::new(&config, &Context::default()).unwrap().layer(store);
            let keys: Vec<Bytes> = (0..LOADS).map(|n| format!("read:{n}").into()).collect();
            runtime.block_on(async {
                for key in &keys {
                    let _ = cache.put(key.clone(), value()).await.unwrap();
                }
                faults.on(Operation::Get).delay(LOAD);
                let writer = tokio::spawn({
                    let cache = cache.clone();
                    async move {
                        let mut tick = tokio::time::interval(Duration::from_millis(1));
                        for n in 0_u64.. {
                            tick.tick().await;
                            for m in 0..rate / 1000 {
                                let key = format!("write:{}", n * rate / 1000 + m);
                                let _ = cache.put(key, value()).await.unwrap();
                            }
                        }
                    }
                });
                for keys in keys.chunks(100) {
                    join_all(keys.iter().map(|key| cache.get(key))).await;
                }
                writer.abort();
            });
            let kept = keys.iter().filter(|key| matches!(cache.get(key), Reply::Now(_))).count();
            println!("{capacity:>7}, {rate:>6} writes a second: {:>5.1} %", percent(kept, LOADS));
        }
    }
}

fn ratios(runtime: &Runtime) {
    let mut all = vec![
        Requests::zipf(50_000, 1_000_000),
        Requests::scans(50_000, 500_000),
        Requests::loops(50_000, 1_000_000),
    ];
    if std::env::var_os("TIERSTACK_TRACE").is_some() {
        all.push(Requests::given(5_000_000));
    }
    for requests in all {
        let (reads, keys) = (requests.order.len(), requests.keys);
        println!("\nhits in percent: {}, {reads} reads of {keys} keys", requests.origin);
        println!("| capacity | LRU | moka | quick_cache | tierstack, s3_fifo | Belady |");
        println!("|---|---|---|---|---|---|");
        let next = next_reads(&requests.order);
        for percent in [1, 5, 10, 20] {
            let entries = keys as usize * percent / 100;
            println!(
                "| {percent} % | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
                lru(&requests.order, entries),
                engine_moka(&requests.order, entries),
                engine_quick(&requests.order, entries, 0.3),
                cache_writes::hits(runtime, &requests, Policy::S3Fifo, entries),
                belady(&requests.order, &next, entries),
            );
        }
    }
}

/// A write, and a read of its key, over a store that answers at once.
fn after_a_write(runtime: &Runtime) {
    heading();
    let keys = Keys::new(ENTRIES);
    let [drop, keep] = ["drop", "keep"].map(|on_write| {
        stack(runtime, &format!("capacity: 256MiB, on_write: {on_write}"), &keys.keys)
    });
    let write = |stack: &Stack, reads: bool, times| {
        for _ in 0..times {
            let key = Bytes::copy_from_slice(keys.next());
            let _ = stack.put(key.clone(), value()).now_or_never().unwrap().unwrap();
            if reads {
                black_box(now(stack.get(&key)));
            }
        }
    };
    compare("a write, drop -> keep", |n| write(&drop, false, n), |n| write(&keep, false, n));
    compare(
        "a write and a read, drop -> keep",
        |n| write(&drop, true, n),
        |n| write(&keep, true, n),
    );
}

fn percent(hits: usize, reads: usize) -> f64 {
    hits as f64 * 100.0 / reads as f64
}

fn engine_moka(order: &[u32], entries: usize) -> f64 {
    let cache: moka::sync::Cache<u32, (), foldhash::quality::RandomState> =
        moka::sync::Cache::builder()
            .max_capacity(entries as u64)
            .build_with_hasher(foldhash::quality::RandomState::default());
    let mut hits = 0;
    for key in order {
        match cache.get(key) {
            Some(()) => hits += 1,
            None => cache.insert(*key, ()),
        }
    }
    percent(hits, order.len())
}

fn engine_quick(order: &[u32], entries: usize, ghosts: f64) -> f64 {
    let options = OptionsBuilder::new()
        .shards(4)
        .estimated_items_capacity(entries)
        .weight_capacity(entries as u64)
        .ghost_allocation(ghosts)
        .build()
        .unwrap();
    let cache = quick_cache::sync::Cache::<u32, (), _, _, _>::with_options(
        options,
        quick_cache::UnitWeighter,
        foldhash::fast::RandomState::default(),
        DefaultLifecycle::default(),
    );
    let mut hits = 0;
    for key in order {
        match cache.get(key) {
            Some(()) => hits += 1,
            None => cache.insert(*key, ()),
        }
    }
    percent(hits, order.len())
}

fn lru(order: &[u32], entries: usize) -> f64 {
    let mut last = HashMap::new();
    let mut kept = BTreeSet::new();
    let mut hits = 0;
    for (at, key) in order.iter().enumerate() {
        if let Some(before) = last.insert(*key, at)
            && kept.remove(&(before, *key))
        {
            hits += 1;
        } else if kept.len() == entries {
            kept.pop_first();
        }
        kept.insert((at, *key));
    }
    percent(hits, order.len())
}

/// For each read, when its key is read again.
fn next_reads(order: &[u32]) -> Vec<usize> {
    let mut next = vec![usize::MAX; order.len()];
    let mut later = HashMap::new();
    for (at, key) in order.iter().enumerate().rev() {
        next[at] = later.insert(*key, at).unwrap_or(usize::MAX);
    }
    next
}

/// Evicts what is read again last: no policy that does not know the future hits more often.
fn belady(order: &[u32], next: &[usize], entries: usize) -> f64 {
    let mut kept: BTreeSet<(usize, u32)> = BTreeSet::new();
    let mut hits = 0;
    for (at, key) in order.iter().enumerate() {
        if kept.remove(&(at, *key)) {
            hits += 1;
        }
        kept.insert((next[at], *key));
        if kept.len() > entries {
            kept.pop_last();
        }
    }
    percent(hits, order.len())
}
