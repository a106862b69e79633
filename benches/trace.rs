//! A real trace of reads against stores with and without the cache in front: median and 99th
//! percentile, and the queries that the store was spared: RocksDB, a store that is simulated to be 2 ms away, and
//! PostgreSQL (entries, and rows of a table as JSON) and Redis where their servers are there. Draws the picture of the README.
//!
//! `scripts/test-servers run cargo bench --features full --bench trace`
//!
//! `TIERSTACK_TRACE=FILE` replays a trace (big-endian 32-bit ids, plain or xz), otherwise a skewed pattern.
//! `TIERSTACK_PICTURE=FILE` says where the picture goes; the default is `docs/pictures/trace.svg`. Words after
//! `--` choose from `rocksdb`, `remote`, `postgres` and `redis`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a benchmark"
)]

#[path = "harness/picture.rs"]
mod picture;
#[path = "harness/requests.rs"]
mod requests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tierstack::backends::MemoryConfig;
use tierstack::config::{Config, Format, Registry};
use tierstack::testing::{FaultStore, Faults};
use tierstack::{
    BackendConfig, Batch, Context, Op, OpenOptions, Operation, Profile, Result, Stack, Store,
    SystemClock, Value,
};
use tokio::runtime::Runtime;

use self::picture::{Replayed, draw, in_words};
use self::requests::Requests;

/// Requests that are replayed against each store, with the cache and without it.
const MOST: usize = 200_000;
const VALUE_BYTES: usize = 1024;
/// Of the bytes of all entries, the cache holds a tenth.
const CACHE_SHARE: f64 = 0.1;

fn main() {
    let metrics = PrometheusBuilder::new().install_recorder().unwrap();
    let runtime = Runtime::new().unwrap();
    let requests = Requests::given(MOST);
    println!("{}: {} reads of {} keys", requests.origin, requests.order.len(), requests.keys);
    let mut replays = Vec::new();
    let folder = tempfile::tempdir().unwrap();
    for (name, backend) in stores(&runtime, folder.path()) {
        let replay = runtime.block_on(replay(name, &backend, &requests, &metrics));
        println!(
            "{name:<12} median {} -> {}, 99th percentile {} -> {}, queries {} -> {}",
            in_words(replay.p50.0),
            in_words(replay.p50.1),
            in_words(replay.p99.0),
            in_words(replay.p99.1),
            replay.queries.0,
            replay.queries.1,
        );
        replays.push(replay);
    }
    let path = std::env::var_os("TIERSTACK_PICTURE")
        .map_or_else(|| PathBuf::from("docs/pictures/trace.svg"), PathBuf::from);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let title = format!(
        "{}, {} reads of {} keys; grey: the store alone, blue: with a cache for a tenth of the data",
        requests.origin,
        requests.order.len(),
        requests.keys
    );
    draw(&path, &title, "queries", &replays);
    println!("{}", path.display());
}

/// Memory behind a wait of two milliseconds for each read, as for a store in another data centre.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Remote {}

#[async_trait]
impl BackendConfig for Remote {
    const NAME: &'static str = "remote";

    fn profile(&self) -> Result<Profile> {
        MemoryConfig::default().profile()
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        let memory = MemoryConfig::default().open(context).await?;
        let faults = Faults::seeded(0, SystemClock::shared());
        faults.on(Operation::Get).delay(Duration::from_millis(2));
        Ok(Arc::new(FaultStore::new(memory, &faults)))
    }
}

/// RocksDB, a store that is 2 ms away, and the stores whose servers are there.
fn stores(runtime: &Runtime, folder: &Path) -> Vec<(&'static str, String)> {
    // Each side has one of its own: one process has a database open once.
    let database = folder.join("rocksdb-SIDE");
    let mut stores = vec![
        ("RocksDB", format!("rocksdb: {{ path: '{}' }}", database.display())),
        ("A store 2 ms away", "remote: {}".to_owned()),
    ];
    match std::env::var("TIERSTACK_TEST_POSTGRES") {
        Ok(url) => {
            stores
                .push(("PostgreSQL", format!("postgres: {{ url: '{url}', table: trace_bench }}")));
            runtime.block_on(table_of_rows(&url));
            let columns = "columns: { key: id, value: { columns: [name, body], as: json } }";
            let rows = format!("postgres: {{ url: '{url}', table: trace_rows, {columns} }}");
            stores.push(("Rows of a table", rows));
        }
        Err(_) => println!("TIERSTACK_TEST_POSTGRES names no PostgreSQL server: left out"),
    }
    match std::env::var("TIERSTACK_TEST_REDIS") {
        Ok(url) => stores.push(("Redis", format!("redis: {{ url: '{url}' }}"))),
        Err(_) => println!("TIERSTACK_TEST_REDIS names no Redis server: left out"),
    }
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    stores.retain(|(_, backend)| {
        chosen.is_empty() || chosen.iter().any(|it| backend.starts_with(it))
    });
    stores
}

/// A table as a program has it.
async fn table_of_rows(url: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let table = "DROP TABLE IF EXISTS trace_rows; CREATE TABLE trace_rows (
        id text COLLATE \"C\" PRIMARY KEY, name text NOT NULL, body text, created_at timestamptz NOT NULL DEFAULT now())";
    client.batch_execute(table).await.unwrap();
}

async fn open(name: &str, layers: &str, backend: &str) -> Stack {
    let text = format!("stores: {{ {name}: {{ layers: [{layers}], backend: {{ {backend} }} }} }}",);
    let config = Config::parse(&text, Format::Yaml, "bench.yaml").unwrap();
    let mut registry = Registry::standard();
    registry.backend::<Remote>().unwrap();
    Stack::open(&config, None, &registry, &OpenOptions::default()).await.unwrap()
}

async fn replay(
    name: &str,
    backend: &str,
    requests: &Requests,
    metrics: &PrometheusHandle,
) -> Replayed {
    let stem = name.to_lowercase().replace(' ', "-");
    let bytes = f64::from(requests.keys) * (VALUE_BYTES + 12) as f64 * CACHE_SHARE;
    let cache = format!("{{ cache: {{ capacity: '{}B' }} }}", bytes as u64);
    let mut sides = Vec::new();
    for (side, layers) in [("bare", ""), ("cached", cache.as_str())] {
        let backend = backend.replace("SIDE", side);
        // Filled by another opening: neither side finds in memory what was just written.
        let filled = open(&format!("{stem}-{side}-fill"), "", &backend).await;
        fill(&*filled, requests.keys).await;
        filled.close().await.unwrap();
        let stack = open(&format!("{stem}-{side}"), layers, &backend).await;
        if backend.starts_with("remote") {
            // It is memory.
            fill(&*stack, requests.keys).await;
        }
        sides.push(stack);
    }
    let ((p50_without, p99_without), (p50_with, p99_with)) =
        reads(&*sides[0], &*sides[1], requests).await;
    for side in &sides {
        side.close().await.unwrap();
    }
    tierstack::telemetry::gather();
    let asked = |stack: &str| gets(&metrics.render(), &format!("{stem}-{stack}"), backend);
    Replayed {
        store: name.to_owned(),
        p50: (p50_without, p50_with),
        p99: (p99_without, p99_with),
        queries: (asked("bare"), asked("cached")),
    }
}

/// The reads that the backend of a stack was asked for, as its boundary counted them.
fn gets(rendered: &str, stack: &str, backend: &str) -> u64 {
    let layer = backend.split(':').next().unwrap();
    let wanted =
        [format!("stack=\"{stack}\""), format!("layer=\"{layer}\""), "op=\"get\"".to_owned()];
    let lines = rendered.lines().filter(|line| {
        line.starts_with("tierstack_ops_total{") && wanted.iter().all(|label| line.contains(label))
    });
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn key(number: u32) -> Bytes {
    format!("item:{number:08}").into()
}

/// A JSON object, so that a table of rows takes it too.
fn value(number: u32) -> Bytes {
    let named = format!(r#"{{"name":"item {number:08}","body":""#);
    format!("{named}{}\"}}", "x".repeat(VALUE_BYTES - named.len() - 2)).into()
}

async fn fill(store: &dyn Store, keys: u32) {
    let numbers: Vec<u32> = (0..keys).collect();
    for numbers in numbers.chunks(500) {
        let put = |number: &u32| Op::Put(key(*number), Value::new(value(*number)));
        let _ = store.write(numbers.iter().map(put).collect::<Batch>()).await.unwrap();
    }
}

/// Reads of one store before the other has its turn.
const TURN: usize = 500;

/// Microseconds, of each: the median and the 99th percentile of the reads, one after another. The stores take turns, and the
/// first place in turns, so that whatever else the machine does meets both.
async fn reads(
    bare: &dyn Store,
    cached: &dyn Store,
    requests: &Requests,
) -> ((f64, f64), (f64, f64)) {
    let keys: Vec<Bytes> = (0..requests.keys).map(key).collect();
    let mut took = [Vec::new(), Vec::new()];
    for (round, turn) in requests.order.chunks(TURN).enumerate() {
        for at in [round % 2, 1 - round % 2] {
            let store = [bare, cached][at];
            for number in turn {
                let begun = Instant::now();
                let value = store.get(&keys[*number as usize]).await.unwrap();
                took[at].push(begun.elapsed().as_secs_f64() * 1e6);
                assert!(value.is_some());
            }
        }
    }
    let [bare, cached] = took.map(|mut took| {
        took.sort_by(f64::total_cmp);
        let share = |share: f64| took[((took.len() as f64 * share) as usize).min(took.len() - 1)];
        (share(0.5), share(0.99))
    });
    (bare, cached)
}
