//! What write-back costs and saves: against the disk, RocksDB's own log, memory, and stores that are far away. Draws
//! a picture of the latencies of writes with and without it.
//!
//! `scripts/test-servers run cargo bench --features full --bench write_back`. The folder is made where `TMPDIR` says: a disk,
//! not a memory. Words after `--` choose from `disk`, `memory`, `reads`, `recovery` and `far`. `TIERSTACK_PICTURE=FILE` says where
//! the picture goes; the default is `docs/pictures/write_back.svg`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a benchmark"
)]

mod harness;
#[path = "harness/picture.rs"]
mod picture;
#[path = "harness/synced_writers.rs"]
mod synced_writers;

use std::cell::Cell;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tierstack::backends::Memory;
use tierstack::config::{Config, Format, Registry};
use tierstack::layers::write_back::{Ack, WriteBackConfig};
use tierstack::testing::{Call, FaultStore, Faults};
use tierstack::units::{ByteSize, Span};
use tierstack::{
    Context, LayerConfig as _, OpenOptions, Operation, Reply, Stack, Store, StoreExt as _,
    SystemClock,
};
use tokio::runtime::Runtime;

use self::picture::{Replayed, draw, in_words};
use self::synced_writers::{VALUE, WRITERS};
use crate::harness::{compare, heading};

/// What the journal adds to a batch of one put with a key of 8 bytes, about.
const RECORD: usize = 50;

fn main() {
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    heading();
    if wanted("disk") {
        one_writer(&runtime, folder.path());
        many_writers(&runtime, folder.path());
    }
    if wanted("memory") {
        in_memory(&runtime);
    }
    if wanted("reads") {
        reads(&runtime);
    }
    if wanted("recovery") {
        recovery(&runtime, folder.path());
    }
    if wanted("far") {
        far(&runtime, folder.path());
    }
}

fn layer(runtime: &Runtime, config: &WriteBackConfig, below: Arc<dyn Store>) -> Arc<dyn Store> {
    runtime.block_on(async {
        let layer = config.open(&Context::default()).await.unwrap();
        layer.wrap(below).await.unwrap()
    })
}

/// Over RocksDB, which flushes go to meanwhile.
fn over_rocksdb(runtime: &Runtime, folder: &Path) -> Stack {
    let text = format!(
        "stores: {{ main: {{ layers: [ write_back: {{ path: '{0}/journal' }} ], backend: {{ rocksdb: {{ path: '{0}/data' }} }} }} }}",
        folder.display()
    );
    let config = Config::parse(&text, Format::Yaml, "bench.yaml").unwrap();
    let options = OpenOptions::default();
    runtime.block_on(Stack::open(&config, None, &Registry::standard(), &options)).unwrap()
}

fn one_writer(runtime: &Runtime, folder: &Path) {
    let stack = over_rocksdb(runtime, &folder.join("one"));
    let mut file = File::create(folder.join("plain")).unwrap();
    let bytes = [7; VALUE + RECORD];
    let next = Cell::new(0u64);
    compare(
        "one writer, 256 B, by a write and an fsync",
        |times| {
            for _ in 0..times {
                file.write_all(&bytes).unwrap();
                file.sync_data().unwrap();
            }
        },
        |times| {
            runtime.block_on(async {
                for _ in 0..times {
                    let key = next.replace(next.get() + 1).to_be_bytes().to_vec();
                    let _ = stack.put(key, vec![7; VALUE]).await.unwrap();
                }
            });
        },
    );
    runtime.block_on(stack.close()).unwrap();
}

fn many_writers(runtime: &Runtime, folder: &Path) {
    let stack = Arc::new(over_rocksdb(runtime, &folder.join("many")));
    let writing = Arc::clone(&stack);
    synced_writers::many_writers(runtime, folder, move |number| {
        let stack = Arc::clone(&writing);
        async move {
            let key = number.to_be_bytes().to_vec();
            let _ = stack.put(key, vec![7; VALUE]).await.unwrap();
        }
    });
    runtime.block_on(stack.close()).unwrap();
}

fn memory_config() -> WriteBackConfig {
    WriteBackConfig { ack: Ack::Memory, ..WriteBackConfig::default() }
}

/// Puts of a thousand keys again and again, so that most are merged.
fn in_memory(runtime: &Runtime) {
    let plain = Memory::new();
    let store = layer(runtime, &memory_config(), Arc::new(Memory::new()));
    let keys: Vec<Bytes> = (0..1000).map(|key: u64| key.to_be_bytes().to_vec().into()).collect();
    let value = Bytes::from(vec![7; 100]);
    let put = |store: &dyn Store, times: u64| {
        runtime.block_on(async {
            for key in keys.iter().cycle().take(times as usize) {
                let _ = store.put(key.clone(), value.clone()).await.unwrap();
            }
        });
    };
    compare(
        "a put of 100 B, ack: memory, by memory itself",
        |times| put(&plain, times),
        |times| put(&*store, times),
    );
    runtime.block_on(store.close()).unwrap();
}

/// Reads of what is dirty, and of what is not while other keys are.
fn reads(runtime: &Runtime) {
    let keys =
        |of: char| -> Vec<Bytes> { (0..1000).map(|key| format!("{of}{key:07}").into()).collect() };
    let (clean, dirty) = (keys('c'), keys('d'));
    let (plain, below) = (Memory::new(), Memory::new());
    let never = WriteBackConfig { flush_after: Span(Duration::from_secs(3600)), ..memory_config() };
    runtime.block_on(async {
        for key in clean.iter().chain(&dirty) {
            let _ = plain.put(key.clone(), vec![7; 100]).await.unwrap();
        }
        for key in &clean {
            let _ = below.put(key.clone(), vec![7; 100]).await.unwrap();
        }
    });
    let store = layer(runtime, &never, Arc::new(below));
    let read = |store: &dyn Store, keys: &[Bytes], times: u64| {
        for key in keys.iter().cycle().take(times as usize) {
            match store.get(key) {
                Reply::Now(value) => drop(black_box(value.unwrap().unwrap())),
                Reply::Later(_) => panic!("an answer from memory is there at once"),
            }
        }
    };
    compare(
        "a read where nothing is dirty, by memory itself",
        |times| read(&plain, &clean, times),
        |times| read(&*store, &clean, times),
    );
    runtime.block_on(async {
        for key in &dirty {
            let _ = store.put(key.clone(), vec![7; 100]).await.unwrap();
        }
    });
    compare(
        "a read of a clean key with 1000 dirty ones",
        |times| read(&plain, &clean, times),
        |times| read(&*store, &clean, times),
    );
    compare(
        "a read of a dirty key, by memory itself",
        |times| read(&plain, &dirty, times),
        |times| read(&*store, &dirty, times),
    );
    read(&*store, &dirty, 1000);
    let counted = allocation_counter::measure(|| read(&*store, &dirty, 1000));
    println!("allocations of 1000 reads of dirty keys: {}", counted.count_total);
    runtime.block_on(store.close()).unwrap();
}

/// From the journal of a process that ended without its store below.
fn recovery(runtime: &Runtime, folder: &Path) {
    let config = WriteBackConfig {
        path: Some(folder.join("recovery")),
        max_dirty: ByteSize(1 << 30),
        ..WriteBackConfig::default()
    };
    for size in [VALUE, 16 << 10] {
        let faults = Faults::new();
        faults.cut();
        let memory = Arc::new(Memory::new());
        let away = || Arc::new(FaultStore::new(Arc::clone(&memory), &faults));
        let store = layer(runtime, &config, away());
        let puts = (128 << 20) / size as u64;
        runtime.block_on(async {
            let tasks: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move {
                        for number in 0..puts / WRITERS {
                            let key = (writer << 32 | number).to_be_bytes().to_vec();
                            let _ = store.put(key, vec![7; size]).await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        drop(store);
        let mut begun;
        let store = loop {
            // The one before is closed by its own thread.
            begun = Instant::now();
            match runtime.block_on(config.open(&Context::default())) {
                Ok(layer) => break runtime.block_on(layer.wrap(away())).unwrap(),
                Err(_) => std::thread::yield_now(),
            }
        };
        let mib = (puts * (size + RECORD) as u64) as f64 / f64::from(1 << 20);
        println!(
            "opening with {mib:.0} MiB in the journal, values of {size:>5} B: {:.0} MiB/s",
            mib / begun.elapsed().as_secs_f64()
        );
        faults.heal();
        runtime.block_on(store.close()).unwrap();
    }
}

/// Writes of skewed keys, one after the other, with and without write-back over stores that are far away.
fn far(runtime: &Runtime, folder: &Path) {
    let (median, p99) = quantiles(&mut fsyncs(folder));
    println!(
        "the disk alone     median {}, 99th percentile {}: a write of 1 KiB and an fsync",
        in_words(median),
        in_words(p99)
    );
    let mut replays = Vec::new();
    for (name, backend) in stores(folder) {
        let (replay, memory) = runtime.block_on(replay(name, &backend, &folder.join(name)));
        println!(
            "{name:<18} median {} -> {}, 99th percentile {} -> {} ({:.1} times), writes below {} -> {}; ack: memory {} and {} ({:.0} times)",
            in_words(replay.p50.0),
            in_words(replay.p50.1),
            in_words(replay.p99.0),
            in_words(replay.p99.1),
            replay.p99.0 / replay.p99.1,
            replay.queries.0,
            replay.queries.1,
            in_words(memory.0),
            in_words(memory.1),
            replay.p99.0 / memory.1,
        );
        replays.push(replay);
    }
    let path = std::env::var_os("TIERSTACK_PICTURE")
        .map_or_else(|| PathBuf::from("docs/pictures/write_back.svg"), PathBuf::from);
    let title = format!(
        "{WRITES} writes of 1 KiB to {HOT} keys, one after the other; grey: the store alone, blue: with write_back"
    );
    draw(&path, &title, "writes below", &replays);
    println!("{}", path.display());
    one_key(runtime, folder);
}

const WRITES: usize = 2000;
const HOT: usize = 50;

fn stores(folder: &Path) -> Vec<(&'static str, String)> {
    let mut stores = vec![("A store 2 ms away", String::new())];
    match std::env::var("TIERSTACK_TEST_POSTGRES") {
        Ok(url) => stores
            .push(("PostgreSQL", format!("postgres: {{ url: '{url}', table: write_back_bench }}"))),
        Err(_) => println!("TIERSTACK_TEST_POSTGRES names no PostgreSQL server: left out"),
    }
    match std::env::var("TIERSTACK_TEST_S3") {
        Ok(server) => stores.push(("S3", s3(&server, folder))),
        Err(_) => println!("TIERSTACK_TEST_S3 names no bucket: left out"),
    }
    stores
}

/// A bucket of its own there.
fn s3(server: &str, folder: &Path) -> String {
    let host = server.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    let head = "PUT /tierstack-write-back HTTP/1.1";
    write!(stream, "{head}\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let secret = folder.join("secret");
    std::fs::write(&secret, "test").unwrap();
    format!(
        "object: {{ url: 's3://tierstack-write-back', options: {{ endpoint: '{server}', region: us-east-1, access_key_id: test, secret_access_key: {{ file: '{}' }}, allow_http: 'true' }} }}",
        secret.display()
    )
}

/// Empty: memory that each write takes 2 ms to.
async fn backend(text: &str) -> Arc<dyn Store> {
    if text.is_empty() {
        return Arc::new(Memory::new());
    }
    let text = format!("stores: {{ main: {{ backend: {{ {text} }} }} }}");
    let config = Config::parse(&text, Format::Yaml, "bench.yaml").unwrap();
    let options = OpenOptions::default();
    let stack = Stack::open(&config, None, &Registry::standard(), &options).await.unwrap();
    stack.store()
}

/// What the disk of the journal takes by itself, in microseconds.
fn fsyncs(folder: &Path) -> Vec<f64> {
    let mut file = File::create(folder.join("fsyncs")).unwrap();
    file.write_all(&vec![0; WRITES * 1024]).unwrap();
    file.sync_all().unwrap();
    file.rewind().unwrap();
    let each = |_| {
        let begun = Instant::now();
        file.write_all(&[7; 1024]).unwrap();
        file.sync_data().unwrap();
        begun.elapsed().as_secs_f64() * 1e6
    };
    (0..WRITES).map(each).collect()
}

/// The median and the 99th percentile.
fn quantiles(took: &mut [f64]) -> (f64, f64) {
    took.sort_by(f64::total_cmp);
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

/// The store alone and with `ack: journal`; the latencies with `ack: memory`.
async fn replay(name: &str, text: &str, folder: &Path) -> (Replayed, (f64, f64)) {
    let (mut micros, mut queries) = (Vec::new(), Vec::new());
    for ack in [None, Some(Ack::Journal), Some(Ack::Memory)] {
        let faults = Faults::seeded(0, SystemClock::shared());
        if text.is_empty() {
            faults.on(Operation::Write).delay(Duration::from_millis(2));
        }
        let mut store: Arc<dyn Store> = Arc::new(FaultStore::new(backend(text).await, &faults));
        if let Some(ack) = ack {
            let path = Some(folder.into());
            let config = WriteBackConfig { path, ack, ..WriteBackConfig::default() };
            let layer = config.open(&Context::default()).await.unwrap();
            store = layer.wrap(store).await.unwrap();
        }
        faults.record();
        let mut random = tierstack::testing::Random::new(1);
        let mut took = Vec::with_capacity(WRITES);
        for _ in 0..WRITES {
            let key = format!("key-{:04}", random.below(HOT));
            let value = random.bytes(1024);
            let begun = Instant::now();
            let _ = store.put(key, value).await.unwrap();
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        store.flush().await.unwrap();
        micros.push(quantiles(&mut took));
        let operations = faults.record().into_iter().map(|call| match call {
            Call::Write(batch) => batch.len() as u64,
            _ => 0,
        });
        queries.push(operations.sum::<u64>());
        store.close().await.unwrap();
    }
    let replayed = Replayed {
        store: name.to_owned(),
        p50: (micros[0].0, micros[1].0),
        p99: (micros[0].1, micros[1].1),
        queries: (queries[0], queries[1]),
    };
    (replayed, micros[2])
}

/// A hundred updates of one key within the delay.
fn one_key(runtime: &Runtime, folder: &Path) {
    let faults = Faults::new();
    let config =
        WriteBackConfig { path: Some(folder.join("one-key")), ..WriteBackConfig::default() };
    let store = layer(runtime, &config, Arc::new(FaultStore::new(Memory::new(), &faults)));
    runtime.block_on(async {
        let puts = (0..100).map(|number: u64| store.put("key", number.to_string()));
        for put in futures_util::future::join_all(puts).await {
            let _ = put.unwrap();
        }
        store.flush().await.unwrap();
    });
    println!("100 updates of one key are {} writes below", faults.calls(Operation::Write));
    runtime.block_on(store.close()).unwrap();
}
