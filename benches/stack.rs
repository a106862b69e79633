//! The stack of `examples/quickstart.yaml` against the engines that it is made of, used directly.
//!
//! `cargo bench --features full --bench stack`
//!
//! Words after `--` choose from `hit`, `metrics`, `miss`, `scan` and `import`.
//! `TIERSTACK_FILES=FOLDER` imports the files of a folder; the default is the sources of this project's
//! dependencies in cargo's registry.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

mod harness;
#[path = "harness/metrics.rs"]
mod metrics;

use std::cell::Cell;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use futures_util::TryStreamExt;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, IteratorMode, Options, WriteBatch,
    WriteOptions,
};
use tempfile::TempDir;
use tierstack::codec::{Codec, Compressor, KeyRing};
use tierstack::config::{Config, Format, Registry};
use tierstack::{Batch, Op, OpenOptions, Reply, Scan, Stack, Store, Value};
use tokio::runtime::Runtime;

use crate::harness::{compare, heading};

fn main() {
    // Instrumentation is on, and somebody listens.
    ::metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    heading();
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    if wanted("hit") {
        hit(&runtime);
    }
    if wanted("metrics") {
        metrics::hit(&runtime);
    }
    if wanted("miss") {
        miss(&runtime);
    }
    if wanted("scan") {
        scan(&runtime);
    }
    if wanted("import") {
        import(&runtime);
    }
}

/// Opens the quickstart's stack with another cache, in a folder of its own.
fn quickstart(runtime: &Runtime, cache: &str, rocksdb: &str) -> (Stack, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keys"), KeyRing::generate().unwrap().expose()).unwrap();
    let text = include_str!("../examples/quickstart.yaml")
        .replace("capacity: 256MiB", cache)
        .replace("{ env: QUICKSTART_KEYS }", "{ file: keys }")
        .replace("path: ./data ", &format!("path: ./data{rocksdb} "));
    let config = Config::parse(&text, Format::Yaml, folder.path().join("tierstack.yaml")).unwrap();
    (open(runtime, &config), folder)
}

fn open(runtime: &Runtime, config: &Config) -> Stack {
    let (registry, options) = (Registry::standard(), OpenOptions::default());
    runtime.block_on(Stack::open(config, None, &registry, &options)).unwrap()
}

const ENTRIES: usize = 10_000;

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

/// Text that compresses to about a half, as values do.
fn value(number: usize, bytes: usize) -> Vec<u8> {
    let mut state = number as u64 | 1;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 60) as u8
        })
        .collect()
}

fn fill(runtime: &Runtime, store: &dyn Store, keys: &Keys) {
    for (number, chunk) in keys.keys.chunks(1000).enumerate() {
        let ops = chunk.iter().map(|key| Op::Put(key.clone(), Value::new(value(number, 100))));
        let _ = runtime.block_on(store.write(ops.collect::<Batch>())).unwrap();
    }
}

fn now(reply: Reply<'_, Option<Value>>) -> Value {
    match reply {
        Reply::Now(value) => value.unwrap().unwrap(),
        Reply::Later(_) => panic!("an answer from memory is there at once"),
    }
}

/// At most 1.25 times the bare engine.
fn hit(runtime: &Runtime) {
    let keys = Keys::new(ENTRIES);
    let moka: moka::sync::Cache<Bytes, Value> = moka::sync::Cache::builder()
        .max_capacity(256 << 20)
        .weigher(|key: &Bytes, value: &Value| (key.len() + value.bytes.len()) as u32)
        .build();
    let (stack, _folder) = quickstart(runtime, "capacity: 256MiB", "");
    fill(runtime, &*stack, &keys);
    for key in &keys.keys {
        moka.insert(key.clone(), Value::new(value(1, 100)));
        runtime.block_on(stack.get(key)).unwrap();
    }
    compare(
        "hit: moka's get -> configured stack",
        |times| (0..times).for_each(|_| drop(black_box(moka.get(keys.next())))),
        |times| (0..times).for_each(|_| drop(black_box(now(stack.get(keys.next()))))),
    );
    runtime.block_on(stack.close()).unwrap();
}

fn bare(path: &Path, compression: DBCompressionType) -> DB {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(256 << 20));
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(compression);
    options.set_block_based_table_factory(&table);
    DB::open(&options, path).unwrap()
}

/// At most 2 times the bare `get`, through cache and instrumentation alone.
fn miss(runtime: &Runtime) {
    let entries = 100_000;
    let keys = Keys::new(entries);
    let folder = tempfile::tempdir().unwrap();
    let db = bare(&folder.path().join("bare"), DBCompressionType::Lz4);
    for (number, key) in keys.keys.iter().enumerate() {
        db.put(key, value(number, 100)).unwrap();
    }
    db.compact_range(None::<&[u8]>, None::<&[u8]>);
    let text = "stores: { main: { layers: [cache: { capacity: 64KiB, ttl: 10m }], backend: { rocksdb: { path: data } } } }";
    let config = Config::parse(text, Format::Yaml, folder.path().join("tierstack.yaml")).unwrap();
    let stack = open(runtime, &config);
    fill(runtime, &*stack, &keys);
    runtime.block_on(stack.flush()).unwrap();
    runtime.block_on(stack.compact()).unwrap();
    for key in &keys.keys {
        db.get(key).unwrap();
        runtime.block_on(stack.get(key)).unwrap();
    }
    compare(
        "miss: RocksDB's get, block cached -> cache over it",
        |times| (0..times).for_each(|_| drop(black_box(db.get(keys.next()).unwrap().unwrap()))),
        |times| (0..times).for_each(|_| drop(black_box(now(stack.get(keys.next()))))),
    );
    runtime.block_on(stack.close()).unwrap();
}

/// At least half the entries a second of a bare iterator plus decode: at most 2.
fn scan(runtime: &Runtime) {
    let entries = 50_000;
    let keys = Keys::new(entries);
    let (stack, folder) = quickstart(runtime, "capacity: 64KiB", "");
    for (number, chunk) in keys.keys.chunks(1000).enumerate() {
        let ops = chunk.iter().map(|key| Op::Put(key.clone(), Value::new(value(number, 1000))));
        let _ = runtime.block_on(stack.write(ops.collect::<Batch>())).unwrap();
    }
    runtime.block_on(stack.flush()).unwrap();
    runtime.block_on(stack.close()).unwrap();
    drop(stack);
    // The same data, read by the bare iterator and decoded by the same functions.
    let ring = KeyRing::parse(std::fs::read_to_string(folder.path().join("keys")).unwrap().trim())
        .unwrap();
    let copy = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    copy_folder(&data, &copy.path().join("data"));
    let db = bare(&copy.path().join("data"), DBCompressionType::Lz4);
    let text = include_str!("../examples/quickstart.yaml")
        .replace("{ env: QUICKSTART_KEYS }", "{ file: keys }");
    let config = Config::parse(&text, Format::Yaml, folder.path().join("tierstack.yaml")).unwrap();
    let stack = open(runtime, &config);
    let codec = Compressor::new(Codec::Zstd, 3, 64).unwrap();
    let bare_scan = || {
        let mut bytes = 0;
        for entry in db.iterator(IteratorMode::Start) {
            let (key, sealed) = entry.unwrap();
            let frame = ring.open(&key, Bytes::from(sealed)).unwrap();
            bytes += codec.decode(frame.bytes).unwrap().len();
        }
        bytes
    };
    let stack_scan = || {
        runtime.block_on(async {
            let mut pages = stack.scan(Scan::all());
            let mut bytes = 0;
            while let Some(page) = pages.try_next().await.unwrap() {
                bytes += page.entries.iter().map(|entry| entry.value.bytes.len()).sum::<usize>();
            }
            bytes
        })
    };
    assert_eq!(bare_scan(), stack_scan());
    compare(
        "scan: bare iterator and decode -> whole stack",
        |times| (0..times).for_each(|_| assert_ne!(bare_scan(), 0)),
        |times| (0..times).for_each(|_| assert_ne!(stack_scan(), 0)),
    );
    runtime.block_on(stack.close()).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// At most 1.5 times writing the files straight into RocksDB with the same compression.
fn import(runtime: &Runtime) {
    let root = std::env::var_os("TIERSTACK_FILES").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        home.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"))
            .join("registry/src")
    });
    let mut files = Vec::new();
    collect(&root, &mut files, &mut (96 << 20));
    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
    println!("  import: {} files, {} MiB", files.len(), bytes >> 20);
    let mut ratios = Vec::new();
    for round in 0..5 {
        let (mut straight, mut layered) = (0.0, 0.0);
        for side in [round % 2, 1 - round % 2] {
            if side == 0 {
                let folder = tempfile::tempdir().unwrap();
                let db = bare(folder.path(), DBCompressionType::Zstd);
                let mut sync = WriteOptions::default();
                sync.set_sync(true);
                let begun = Instant::now();
                for chunk in batches(&files) {
                    let mut batch = WriteBatch::default();
                    chunk.iter().for_each(|(key, content)| batch.put(key, content));
                    db.write_opt(batch, &sync).unwrap();
                }
                db.flush().unwrap();
                straight = begun.elapsed().as_secs_f64();
            } else {
                let (stack, _folder) = quickstart(runtime, "capacity: 256MiB", "");
                let begun = Instant::now();
                for chunk in batches(&files) {
                    let ops = chunk
                        .iter()
                        .map(|(key, content)| Op::Put(key.clone(), content.clone().into()));
                    let _ = runtime.block_on(stack.write(ops.collect::<Batch>())).unwrap();
                }
                runtime.block_on(stack.flush()).unwrap();
                layered = begun.elapsed().as_secs_f64();
                runtime.block_on(stack.close()).unwrap();
            }
        }
        ratios.push((layered / straight, straight, layered));
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, straight, layered) = ratios[ratios.len() / 2];
    let rate = |seconds: f64| bytes as f64 / (1 << 20) as f64 / seconds;
    println!(
        "{:<44} {:>10.0} MiB/s {:>10.0} MiB/s  x {ratio:.2} in time",
        "import: straight into RocksDB, zstd -> whole stack",
        rate(straight),
        rate(layered)
    );
}

/// Batches of about a megabyte, as the command writes them.
fn batches(files: &[(Bytes, Bytes)]) -> Vec<&[(Bytes, Bytes)]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, (_, content)) in files.iter().enumerate() {
        bytes += content.len();
        if bytes > 1 << 20 {
            batches.push(&files[start..=at]);
            (start, bytes) = (at + 1, 0);
        }
    }
    batches.push(&files[start..]);
    batches
}

fn collect(folder: &Path, files: &mut Vec<(Bytes, Bytes)>, budget: &mut i64) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if *budget <= 0 {
            return;
        }
        if path.is_dir() {
            collect(&path, files, budget);
        } else if let Ok(content) = std::fs::read(&path) {
            *budget -= content.len() as i64;
            files.push((path.to_string_lossy().into_owned().into(), content.into()));
        }
    }
}
