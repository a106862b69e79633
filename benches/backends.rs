//! Each backend through a bare stack, instrumentation on, against its client library called directly,
//! on the same server or file system. Then a scan of a million entries, and the memory that it took.
//!
//! `scripts/test-servers run cargo bench --features full --bench backends`
//!
//! Names as arguments choose backends: `... --bench backends -- redis postgres`.
//! `TIERSTACK_SCAN_ENTRIES=N` scans another number of entries.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

mod harness;

use std::cell::Cell;
use std::fs;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use tempfile::TempDir;
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::config::{Config, Format, Registry};
use tierstack::{
    Batch, Change, Entry, Op, OpenOptions, Page, Pages, Scan, Stack, Store, StoreExt, Value,
};
use tokio::runtime::Runtime;

use crate::harness::{compare, heading};

const VALUE_BYTES: usize = 1024;
const KEYS: usize = 2_000;
const BULK: usize = 100;
const GROUP: usize = 64;

fn main() {
    metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let runtime = Runtime::new().unwrap();
    let bench = Bench { runtime: &runtime, keys: keys(), at: Cell::new(0), written: Cell::new(0) };
    heading();
    for (name, run) in [
        ("file", file as fn(&Bench<'_>)),
        ("rocksdb", rocksdb),
        ("sqlite", sqlite),
        ("postgres", postgres),
        ("redis", redis),
        ("object", object),
        ("opendal", opendal),
    ] {
        if wanted(name) {
            run(&bench);
        }
    }
    println!("\n{:<44} {:>12} {:>14}", "scan", "entries/s", "memory grew by");
    for (name, backend) in scanned() {
        if wanted(name) {
            bench.scan(name, &backend);
        }
    }
}

fn keys() -> Vec<Bytes> {
    (0..KEYS).map(|n| format!("user:{:08}", n * 7919 % KEYS).into()).collect()
}

fn value() -> Bytes {
    vec![b'v'; VALUE_BYTES].into()
}

struct Bench<'r> {
    runtime: &'r Runtime,
    keys: Vec<Bytes>,
    at: Cell<usize>,
    written: Cell<u64>,
}

impl Bench<'_> {
    fn next(&self) -> &Bytes {
        let at = self.at.get();
        self.at.set((at + 1) % KEYS);
        &self.keys[at]
    }

    /// A value that was not written before: SQLite writes nothing where nothing changes.
    fn another(&self) -> Bytes {
        let written = self.written.get();
        self.written.set(written + 1);
        let mut value = vec![b'v'; VALUE_BYTES];
        value[..8].copy_from_slice(&written.to_be_bytes());
        value.into()
    }

    fn open(&self, name: &str, backend: &str) -> (Stack, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("stores: {{ {name}: {{ backend: {{ {backend} }} }} }}");
        let config = Config::parse(&text, Format::Yaml, folder.path().join("bench.yaml")).unwrap();
        let (registry, options) = (Registry::standard(), OpenOptions::default());
        let stack = self.runtime.block_on(Stack::open(&config, None, &registry, &options));
        (stack.unwrap(), folder)
    }

    /// Puts every key, so that each read finds one.
    fn fill(&self, store: &Stack) {
        let mut sorted = self.keys.clone();
        sorted.sort_unstable();
        let entries = sorted.into_iter().map(|key| Entry { key, value: Value::new(value()) });
        let run: Pages<'_> =
            futures_util::stream::iter([Ok(Page { entries: entries.collect() })]).boxed();
        assert_eq!(self.runtime.block_on(store.load(run)).unwrap(), KEYS as u64);
    }

    /// Compares get and write of one entry, one after another.
    fn singles<'a, G, W>(
        &'a self,
        name: &str,
        store: &'a Stack,
        get: impl Fn(&'a Bytes) -> G,
        write: impl Fn(&'a Bytes, Bytes) -> W,
    ) where
        G: Future<Output = usize>,
        W: Future<Output = ()>,
    {
        compare(
            &format!("{name}: get"),
            |times| {
                self.runtime.block_on(async {
                    for _ in 0..times {
                        assert_eq!(get(self.next()).await, VALUE_BYTES);
                    }
                });
            },
            |times| {
                self.runtime.block_on(async {
                    for _ in 0..times {
                        let value = store.get(self.next()).await.unwrap().unwrap();
                        assert_eq!(value.bytes.len(), VALUE_BYTES);
                    }
                });
            },
        );
        self.writes(&format!("{name}: write"), store, write);
    }

    fn writes<'a, W: Future<Output = ()>>(
        &'a self,
        name: &str,
        store: &'a Stack,
        write: impl Fn(&'a Bytes, Bytes) -> W,
    ) {
        compare(
            name,
            |times| {
                self.runtime.block_on(async {
                    for _ in 0..times {
                        write(self.next(), self.another()).await;
                    }
                });
            },
            |times| {
                self.runtime.block_on(async {
                    for _ in 0..times {
                        let batch = Batch::new().put(self.next().clone(), self.another());
                        let _ = black_box(store.write(batch).await.unwrap());
                    }
                });
            },
        );
    }

    /// A group of batches against as many writes one after the other, by batches.
    fn groups(&self, name: &str, store: &Stack) {
        let put = || Batch::new().put(self.next().clone(), self.another());
        compare(
            &format!("{name}: {GROUP} batches, as a group"),
            |times| {
                self.runtime.block_on(async {
                    for _ in 0..times {
                        for _ in 0..GROUP {
                            let _ = black_box(store.write(put()).await.unwrap());
                        }
                    }
                });
            },
            |times| {
                self.runtime.block_on(async {
                    for _ in 0..times {
                        let answers = store.write_group((0..GROUP).map(|_| put()).collect()).await;
                        assert!(answers.len() == GROUP && answers.iter().all(Result::is_ok));
                    }
                });
            },
        );
    }

    fn bulk<'a, G>(&'a self, name: &str, store: &'a Stack, get_many: impl Fn(&'a [Bytes]) -> G)
    where
        G: Future<Output = usize>,
    {
        let keys = &self.keys[..BULK];
        compare(
            &format!("{name}: get_many of {BULK}"),
            |times| {
                self.runtime.block_on(async {
                    for _ in 0..times {
                        assert_eq!(get_many(keys).await, BULK);
                    }
                });
            },
            |times| {
                self.runtime.block_on(async {
                    for _ in 0..times {
                        let values = store.get_many(keys).await.unwrap();
                        assert_eq!(values.iter().flatten().count(), BULK);
                    }
                });
            },
        );
    }

    fn scan(&self, name: &str, backend: &str) {
        let (store, _folder) = self.open(name, backend);
        let entries: u64 = std::env::var("TIERSTACK_SCAN_ENTRIES")
            .map_or(1_000_000, |entries| entries.parse().unwrap());
        let pages = futures_util::stream::iter((0..entries.div_ceil(1000)).map(|page| {
            let numbers = page * 1000..entries.min((page + 1) * 1000);
            let entry = |n: u64| Entry {
                key: format!("entry:{n:012}").into(),
                value: Value::new(vec![n as u8; 100]),
            };
            Ok(Page { entries: numbers.map(entry).collect() })
        }));
        self.runtime.block_on(async {
            assert_eq!(store.load(pages.boxed()).await.unwrap(), entries);
            // The first pages bring the memory that a scan needs to its height.
            let warm: u64 = count(store.scan(Scan::all().limit(10_000)), &mut |_| ()).await;
            assert_eq!(warm, 10_000.min(entries));
            let (before, mut most) = (resident(), 0_u64);
            let begun = std::time::Instant::now();
            let mut watch = |_: &Page| most = most.max(resident());
            assert_eq!(count(store.scan(Scan::prefix("entry:")), &mut watch).await, entries);
            let rate = entries as f64 / begun.elapsed().as_secs_f64();
            let grew = most.saturating_sub(before) as f64 / f64::from(1 << 20);
            println!("{name:<44} {rate:>12.0} {grew:>10.1} MiB");
            let begun = std::time::Instant::now();
            let keys = Scan::prefix("entry:").keys_only();
            assert_eq!(count(store.scan(keys), &mut |_| ()).await, entries);
            let rate = entries as f64 / begun.elapsed().as_secs_f64();
            println!("{:<44} {rate:>12.0}", format!("{name}, keys only"));
            store.close().await.unwrap();
        });
    }
}

async fn count(mut pages: Pages<'_>, each: &mut dyn FnMut(&Page)) -> u64 {
    let mut entries = 0;
    while let Some(page) = pages.try_next().await.unwrap() {
        entries += page.len() as u64;
        each(&page);
    }
    entries
}

/// Bytes of memory that the process occupies.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn server(name: &str) -> Option<String> {
    let url = std::env::var(name).ok();
    if url.is_none() {
        println!("{name} is not set, so its server is left out: run it by scripts/test-servers");
    }
    url
}

fn scanned() -> Vec<(&'static str, String)> {
    let mut scanned = vec![
        ("rocksdb", "rocksdb: { path: data }".to_owned()),
        ("sqlite", "sqlite: { path: data.db }".to_owned()),
    ];
    if let Some(url) = server("TIERSTACK_TEST_POSTGRES") {
        scanned.push(("postgres", format!("postgres: {{ url: '{url}', table: scan_bench }}")));
    }
    if let Some(url) = server("TIERSTACK_TEST_REDIS") {
        scanned.push(("redis", format!("redis: {{ url: '{url}/7', index: true }}")));
    }
    scanned
}

// --- The backends ----------------------------------------------------------------------------------

fn file(bench: &Bench<'_>) {
    let (store, _folder) = bench.open("file", "file: { path: data }");
    bench.fill(&store);
    let folder = tempfile::tempdir().unwrap();
    for key in &bench.keys {
        fs::write(folder.path().join(name(key)), value()).unwrap();
    }
    let get = |key: &Bytes| {
        let path = folder.path().join(name(key));
        async move { tokio::fs::read(path).await.unwrap().len() }
    };
    let write = |key: &Bytes, value: Bytes| {
        let (folder, name) = (folder.path().to_owned(), name(key));
        async move {
            tokio::task::spawn_blocking(move || replace(&folder, &name, &value)).await.unwrap()
        }
    };
    bench.singles("file", &store, get, write);
    bench.runtime.block_on(store.close()).unwrap();
}

fn name(key: &Bytes) -> String {
    String::from_utf8(key.to_vec()).unwrap()
}

/// What a program does that wants a file to be there whole, also after a power cut, and concurrently with other writers.
fn replace(folder: &Path, name: &str, value: &[u8]) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let draft = folder.join(format!(".draft-{:016x}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut file = fs::File::create_new(&draft).unwrap();
    file.write_all(value).unwrap();
    file.sync_all().unwrap();
    fs::rename(draft, folder.join(name)).unwrap();
    fs::File::open(folder).unwrap().sync_all().unwrap();
}

/// Its other rows are in the benchmark `rocksdb`.
fn rocksdb(bench: &Bench<'_>) {
    for sync in [true, false] {
        let (store, _folder) =
            bench.open("rocksdb", &format!("rocksdb: {{ path: data, sync: {sync} }}"));
        bench.groups(if sync { "rocksdb, synced" } else { "rocksdb, not synced" }, &store);
        bench.runtime.block_on(store.close()).unwrap();
    }
}

fn sqlite(bench: &Bench<'_>) {
    let (store, folder) = bench.open("sqlite", "sqlite: { path: data.db }");
    bench.fill(&store);
    // Its log as large as that of the direct client below: where it still grows, an fsync takes many times as
    // long.
    for key in &bench.keys {
        let _ = bench.runtime.block_on(store.put(key.clone(), value())).unwrap();
    }
    let client = rusqlite::Connection::open(folder.path().join("direct.db")).unwrap();
    client.pragma_update(None, "journal_mode", "wal").unwrap();
    client.pragma_update(None, "synchronous", "full").unwrap();
    client
        .execute_batch("CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        .unwrap();
    let put =
        "INSERT INTO kv VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    for key in &bench.keys {
        client.prepare_cached(put).unwrap().execute((&**key, &*value())).unwrap();
    }
    let get = |key: &Bytes| {
        let mut get = client.prepare_cached("SELECT value FROM kv WHERE key = ?1").unwrap();
        let value: Vec<u8> = get.query_row([&**key], |row| row.get(0)).unwrap();
        std::future::ready(value.len())
    };
    let write = |key: &Bytes, value: Bytes| {
        client.prepare_cached(put).unwrap().execute((&**key, &*value)).unwrap();
        std::future::ready(())
    };
    bench.singles("sqlite", &store, get, write);
    // A program with other tasks cannot wait for the disk on their thread.
    let client = Arc::new(Mutex::new(client));
    bench.writes("sqlite: write, on a blocking thread", &store, |key: &Bytes, value: Bytes| {
        let (client, key) = (Arc::clone(&client), key.clone());
        async move {
            let work = move || {
                let client = client.lock().unwrap();
                client.prepare_cached(put).unwrap().execute((&*key, &*value)).unwrap();
            };
            tokio::task::spawn_blocking(work).await.unwrap();
        }
    });
    bench.groups("sqlite", &store);
    bench.runtime.block_on(store.close()).unwrap();
}

fn postgres(bench: &Bench<'_>) {
    let Some(url) = server("TIERSTACK_TEST_POSTGRES") else { return };
    let (store, _folder) =
        bench.open("postgres", &format!("postgres: {{ url: '{url}', table: singles_bench }}"));
    bench.fill(&store);
    let client = bench.runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        // The same columns and indexes, so that the server does the same work.
        let table = "DROP TABLE IF EXISTS direct_bench;
            CREATE TABLE direct_bench (LIKE singles_bench INCLUDING ALL)";
        client.batch_execute(table).await.unwrap();
        client
    });
    let prepare = |sql| bench.runtime.block_on(client.prepare(sql)).unwrap();
    let select = prepare("SELECT value FROM direct_bench WHERE key = $1");
    let many = prepare("SELECT key, value FROM direct_bench WHERE key = ANY($1)");
    let insert = prepare(
        "INSERT INTO direct_bench (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = NULL, updated = now()",
    );
    let write = |key: &Bytes, value: Bytes| {
        let (client, insert, key) = (&client, &insert, key.clone());
        async move {
            client.execute(insert, &[&&*key, &&*value]).await.unwrap();
        }
    };
    for key in &bench.keys {
        bench.runtime.block_on(write(key, value()));
    }
    let get = |key: &Bytes| {
        let (client, select, key) = (&client, &select, key.clone());
        async move {
            let row = client.query_opt(select, &[&&*key]).await.unwrap().unwrap();
            row.get::<_, &[u8]>(0).len()
        }
    };
    bench.singles("postgres", &store, get, write);
    bench.groups("postgres", &store);
    bench.bulk("postgres", &store, |keys| {
        let (client, many) = (&client, &many);
        let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
        async move { client.query(many, &[&keys]).await.unwrap().len() }
    });
    rows(bench, &url, &client);
    bench.runtime.block_on(async {
        store.close().await.unwrap();
        loading(&url, &client).await;
        announcing(&url, &client).await;
    });
}

/// A row of a table as a JSON object, against the same query, and against one for the columns.
fn rows(bench: &Bench<'_>, url: &str, client: &tokio_postgres::Client) {
    let table = "DROP TABLE IF EXISTS rows_bench;
        CREATE TABLE rows_bench (id text COLLATE \"C\" PRIMARY KEY, name text NOT NULL, email text, notes text)";
    bench.runtime.block_on(client.batch_execute(table)).unwrap();
    let columns = "columns: { key: id, value: { columns: [name, email, notes], as: json } }";
    let config = format!("postgres: {{ url: '{url}', table: rows_bench, {columns} }}");
    let (store, _folder) = bench.open("rows", &config);
    let insert =
        "INSERT INTO rows_bench VALUES ($1, 'Ada Lovelace', 'ada@example.org', repeat('n', 900))";
    for key in &bench.keys {
        let key = std::str::from_utf8(key).unwrap();
        bench.runtime.block_on(client.execute(insert, &[&key])).unwrap();
    }
    let json = "SELECT (SELECT to_json(r)::text FROM (SELECT name, email, notes) AS r) FROM rows_bench WHERE id = $1";
    let plain = "SELECT name || email || notes FROM rows_bench WHERE id = $1";
    for (name, sql) in [("rows: get, the same query", json), ("rows: get, columns alone", plain)] {
        let select = bench.runtime.block_on(client.prepare(sql)).unwrap();
        compare(
            name,
            |times| {
                bench.runtime.block_on(async {
                    for _ in 0..times {
                        let key = std::str::from_utf8(bench.next()).unwrap();
                        let row = client.query_opt(&select, &[&key]).await.unwrap().unwrap();
                        assert!(row.get::<_, &str>(0).len() > 900);
                    }
                });
            },
            |times| {
                bench.runtime.block_on(async {
                    for _ in 0..times {
                        let value = store.get(bench.next()).await.unwrap().unwrap();
                        assert!(value.bytes.len() > 900);
                    }
                });
            },
        );
    }
    bench.runtime.block_on(store.close()).unwrap();
}

/// Loads an empty table: as a run, and by batches.
async fn loading(url: &str, client: &tokio_postgres::Client) {
    const ENTRIES: usize = 200_000;
    let config = PostgresConfig { table: "load_bench".into(), ..PostgresConfig::new(url) };
    let store = Postgres::open(config).await.unwrap();
    let entry = |n: usize| Entry {
        key: format!("entry:{n:012}").into(),
        value: Value::new(vec![n as u8; 100]),
    };
    for way in ["batches", "a run"] {
        client.batch_execute("TRUNCATE load_bench; CHECKPOINT").await.unwrap();
        let begun = std::time::Instant::now();
        let lots = (0..ENTRIES / 8000).map(|lot| (lot * 8000..(lot + 1) * 8000).map(entry));
        if way == "batches" {
            for lot in lots {
                let puts = lot.map(|entry| Op::Put(entry.key, entry.value));
                let _ = store.write(puts.collect()).await.unwrap();
            }
        } else {
            let pages = lots.map(|lot| Ok(Page { entries: lot.collect() })).collect::<Vec<_>>();
            store.ingest(futures_util::stream::iter(pages).boxed()).await.unwrap();
        }
        let rate = ENTRIES as f64 / begun.elapsed().as_secs_f64();
        println!("{:<44} {rate:>12.0} entries/s", format!("postgres: load by {way}"));
    }
    client.batch_execute("DROP TABLE load_bench").await.unwrap();
}

/// From the acknowledgement of a foreign write to its report.
async fn announcing(url: &str, client: &tokio_postgres::Client) {
    let config = PostgresConfig {
        table: "announce_bench".into(),
        change_feed: true,
        ..PostgresConfig::new(url)
    };
    let store = Postgres::open(config).await.unwrap();
    let mut changes = store.changes().await.unwrap();
    assert_eq!(changes.next().await, Some(Change::All));
    let put = "INSERT INTO announce_bench (key, value) VALUES ($1, '') ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    let put = client.prepare(put).await.unwrap();
    let mut late = Vec::new();
    for key in keys().into_iter().take(1000) {
        client.execute(&put, &[&&*key]).await.unwrap();
        let acknowledged = std::time::Instant::now();
        assert_eq!(changes.next().await, Some(Change::Keys(vec![key])));
        late.push(acknowledged.elapsed());
    }
    late.sort_unstable();
    println!("postgres: reported after p50 {:?}, p99 {:?}", late[500], late[990]);
    client.batch_execute("DROP TABLE announce_bench").await.unwrap();
}

fn redis(bench: &Bench<'_>) {
    let Some(url) = server("TIERSTACK_TEST_REDIS") else { return };
    let (store, _folder) = bench.open("redis", &format!("redis: {{ url: '{url}/8' }}"));
    bench.fill(&store);
    let client = bench.runtime.block_on(async {
        let client = ::redis::Client::open(format!("{url}/8")).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    });
    let get = |key: &Bytes| {
        let (mut client, key) = (client.clone(), key.clone());
        async move {
            let value: Vec<u8> =
                ::redis::cmd("GET").arg(&*key).query_async(&mut client).await.unwrap();
            value.len()
        }
    };
    let write = |key: &Bytes, value: Bytes| {
        let (mut client, key) = (client.clone(), key.clone());
        async move {
            let set = ::redis::cmd("SET").arg(&*key).arg(&*value).take();
            let _: () = set.query_async(&mut client).await.unwrap();
        }
    };
    bench.singles("redis", &store, get, write);
    bench.groups("redis", &store);
    bench.bulk("redis", &store, |keys| {
        let mut client = client.clone();
        let mut mget = ::redis::cmd("MGET");
        keys.iter().for_each(|key| {
            mget.arg(&**key);
        });
        async move {
            let values: Vec<Vec<u8>> = mget.query_async(&mut client).await.unwrap();
            values.len()
        }
    });
    bench.runtime.block_on(store.close()).unwrap();
}

fn object(bench: &Bench<'_>) {
    let client = object_store::memory::InMemory::new();
    objects(bench, "object (memory)", "object: { url: 'memory:///' }", &client);
    let Some(s3) = S3::new() else { return };
    let client = object_store::aws::AmazonS3Builder::new()
        .with_endpoint(&s3.server)
        .with_bucket_name(S3::DIRECT)
        .with_region(S3::REGION)
        .with_access_key_id(S3::CREDENTIAL)
        .with_secret_access_key(S3::CREDENTIAL)
        .with_allow_http(true)
        .build()
        .unwrap();
    let backend = format!(
        "object: {{ url: 's3://{}', options: {{ {}, allow_http: 'true' }} }}",
        S3::BUCKET,
        s3.options()
    );
    objects(bench, "object (S3)", &backend, &client);
}

fn objects(bench: &Bench<'_>, name: &str, backend: &str, client: &impl object_store::ObjectStore) {
    let (store, _folder) = bench.open("object", backend);
    bench.fill(&store);
    let write = |key: &Bytes, value: Bytes| {
        let path = object_store::path::Path::from(self::name(key));
        async move {
            client.put(&path, value.into()).await.unwrap();
        }
    };
    for key in &bench.keys {
        bench.runtime.block_on(write(key, value()));
    }
    let get = |key: &Bytes| {
        let path = object_store::path::Path::from(self::name(key));
        async move { client.get(&path).await.unwrap().bytes().await.unwrap().len() }
    };
    bench.singles(name, &store, get, write);
    bench.runtime.block_on(store.close()).unwrap();
}

fn opendal(bench: &Bench<'_>) {
    let client = ::opendal::Operator::new(::opendal::services::Memory::default()).unwrap();
    operators(bench, "opendal (memory)", "opendal: { scheme: memory }", &client);
    let Some(s3) = S3::new() else { return };
    let service = ::opendal::services::S3::default()
        .endpoint(&s3.server)
        .bucket(S3::DIRECT)
        .region(S3::REGION)
        .access_key_id(S3::CREDENTIAL)
        .secret_access_key(S3::CREDENTIAL)
        .disable_config_load()
        .disable_ec2_metadata();
    let client = ::opendal::Operator::new(service).unwrap();
    let backend = format!(
        "opendal: {{ scheme: s3, options: {{ bucket: {}, {}, disable_config_load: 'true', disable_ec2_metadata: 'true' }} }}",
        S3::BUCKET,
        s3.options()
    );
    operators(bench, "opendal (S3)", &backend, &client);
}

fn operators(bench: &Bench<'_>, name: &str, backend: &str, client: &::opendal::Operator) {
    let (store, _folder) = bench.open("opendal", backend);
    bench.fill(&store);
    let write = |key: &Bytes, value: Bytes| {
        let path = self::name(key);
        async move {
            client.write(&path, value).await.unwrap();
        }
    };
    for key in &bench.keys {
        bench.runtime.block_on(write(key, value()));
    }
    let get = |key: &Bytes| {
        let path = self::name(key);
        async move { client.read(&path).await.unwrap().len() }
    };
    bench.singles(name, &store, get, write);
    bench.runtime.block_on(store.close()).unwrap();
}

/// An S3 server that looks at no signature, with a bucket for each side.
struct S3 {
    server: String,
    secret: TempDir,
}

impl S3 {
    const BUCKET: &str = "tierstack-bench";
    const DIRECT: &str = "tierstack-direct";
    const REGION: &str = "us-east-1";
    const CREDENTIAL: &str = "test";

    fn new() -> Option<Self> {
        let server = server("TIERSTACK_TEST_S3")?;
        let host = server.trim_start_matches("http://").to_owned();
        for bucket in [Self::BUCKET, Self::DIRECT] {
            let mut stream = TcpStream::connect(&host).unwrap();
            write!(
                stream,
                "PUT /{bucket} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
        let secret = tempfile::tempdir().unwrap();
        fs::write(secret.path().join("secret"), Self::CREDENTIAL).unwrap();
        Some(Self { server, secret })
    }

    fn options(&self) -> String {
        format!(
            "endpoint: '{}', region: {}, access_key_id: {}, secret_access_key: {{ file: '{}' }}",
            self.server,
            Self::REGION,
            Self::CREDENTIAL,
            self.secret.path().join("secret").display()
        )
    }
}
