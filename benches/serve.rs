//! What HTTP adds: a cached value against a handler that returns a constant, a scan against what `export` writes, and
//! `/metrics` under hits.
//!
//! `cargo bench --features full --bench serve`
//!
//! Words after `--` choose from `get`, `scan` and `metrics`. The client has a thread of its own, and the server the
//! threads of a runtime.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

mod harness;

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use tierstack::config::{Config, Format, Registry, ServeConfig};
use tierstack::serve::{Server, Stores};
use tierstack::telemetry::snapshot;
use tierstack::{Batch, Op, OpenOptions, Reply, Scan, Stack, StoreExt as _, Value, jsonl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Runtime};

use crate::harness::{compare, heading};

fn main() {
    let (client, server) = (
        runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        Runtime::new().unwrap(),
    );
    heading();
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    if wanted("get") {
        value(&client, &server);
    }
    if wanted("scan") {
        scan(&client, &server, "memory", "memory");
        let folder = tempfile::tempdir().unwrap();
        let rocksdb = format!("{{ rocksdb: {{ path: '{}' }} }}", folder.path().join("d").display());
        scan(&client, &server, &rocksdb, "RocksDB");
    }
    if wanted("metrics") {
        metrics(&client, &server);
    }
}

/// The stores of a config, served.
struct Served {
    stacks: Vec<Stack>,
    address: SocketAddr,
    _server: Server,
}

impl Served {
    fn open(runtime: &Runtime, stores: &str) -> Self {
        let (first, _) = stores.split_once(':').unwrap();
        let text = format!("default: {first}\nstores: {{ {stores} }}");
        let config = Config::parse(&text, Format::Yaml, "bench.yaml").unwrap();
        runtime.block_on(async {
            let mut stacks = Vec::new();
            for name in config.stores.keys() {
                let (registry, options) = (Registry::standard(), OpenOptions::default());
                stacks.push(Stack::open(&config, Some(name), &registry, &options).await.unwrap());
            }
            let at = ServeConfig::at("127.0.0.1:0".parse().unwrap());
            let server = Server::listen(&at, "").await.unwrap();
            let named = stacks.iter().map(|stack| (stack.name().to_owned(), stack.store()));
            server.open(Stores::new(named));
            let address = server.addresses().next().unwrap().unwrap();
            Self { stacks, address, _server: server }
        })
    }

    fn close(self, runtime: &Runtime) {
        for stack in &self.stacks {
            runtime.block_on(stack.close()).unwrap();
        }
    }
}

/// A connection that asks for one thing again and again.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
        Self { stream, request, answer: Vec::new() }
    }

    /// Asks, and reads until what was read ends so; how many bytes that were.
    async fn read_until(&mut self, end: &[u8]) -> usize {
        self.stream.write_all(&self.request).await.unwrap();
        let (mut bytes, mut part) = (0, vec![0; 256 << 10]);
        self.answer.clear();
        loop {
            let read = self.stream.read(&mut part).await.unwrap();
            assert_ne!(read, 0, "the server has closed the connection");
            bytes += read;
            self.answer.extend_from_slice(&part[..read]);
            if self.answer.ends_with(end) {
                return bytes;
            }
            let kept = self.answer.len().saturating_sub(end.len());
            self.answer.drain(..kept);
        }
    }

    /// Asks, and reads an answer as long as the first one was.
    async fn read_again(&mut self) {
        self.stream.write_all(&self.request).await.unwrap();
        self.stream.read_exact(&mut self.answer).await.unwrap();
        assert!(self.answer.starts_with(b"HTTP/1.1 200 "));
    }
}

const VALUE: &[u8] = &[b'v'; 1024];

/// A value of 1 KiB: at most 1.25 times as long as the constant, which is 0.8 of the requests a second.
fn value(client: &Runtime, server: &Runtime) {
    let served = Served::open(server, "main: { layers: [cache: {}], backend: memory }");
    let _ = server.block_on(served.stacks[0].put("k", VALUE)).unwrap();
    server.block_on(served.stacks[0].get(b"k")).unwrap();
    let path = "/v1/stores/main/kv/k";
    let bare = server.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route(path, get(async || Bytes::from_static(VALUE)));
        drop(tokio::spawn(async move { axum::serve(listener, router).await }));
        address
    });
    for connections in [1, 64] {
        let side = |address| {
            let clients = client.block_on(join_all((0..connections).map(async |_| {
                let mut client = Client::connect(address, path).await;
                let length = client.read_until(&VALUE[..8]).await;
                client.answer = vec![0; length];
                client
            })));
            let clients = RefCell::new(clients);
            move |times: u64| {
                let mut clients = clients.borrow_mut();
                let all = clients.iter_mut().map(async |client| {
                    for _ in 0..times.div_ceil(connections) {
                        client.read_again().await;
                    }
                });
                drop(client.block_on(join_all(all)));
            }
        };
        let name = format!("1 KiB, {connections} connections: bare axum -> served");
        let found = compare(&name, side(bare), side(served.address));
        println!("  {:.2} of the requests a second", 1.0 / found.ratio);
    }
    served.close(server);
}

/// A whole store: at most 1.43 times as long as the lines of `export`, which is 0.7 of the entries a second.
fn scan(client: &Runtime, server: &Runtime, backend: &str, name: &str) {
    let served =
        Served::open(server, &format!("main: {{ layers: [cache: {{}}], backend: {backend} }}"));
    let stack = &served.stacks[0];
    let entries: usize = 20_000;
    for from in (0..entries).step_by(1000) {
        let put = |n| Op::Put(format!("user:{n:012}").into(), Value::new(text(n)));
        let _ =
            server.block_on(stack.write((from..from + 1000).map(put).collect::<Batch>())).unwrap();
    }
    server.block_on(stack.flush()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let export = || {
        let mut out = BufWriter::new(std::fs::File::create(folder.path().join("lines")).unwrap());
        client.block_on(async {
            let mut pages = stack.scan(Scan::all());
            while let Some(page) = pages.try_next().await.unwrap() {
                for entry in &page.entries {
                    jsonl::write(&mut out, &entry.key, Some(&entry.value)).unwrap();
                }
            }
        });
        out.flush().unwrap();
    };
    let connection = client.block_on(Client::connect(served.address, "/v1/stores/main/kv"));
    let connection = RefCell::new(connection);
    let lines = || {
        // No line has these bytes.
        let read = client.block_on(connection.borrow_mut().read_until(b"\r\n0\r\n\r\n"));
        assert!(read > entries * text(0).len());
    };
    let found = compare(
        &format!("scan of {name}: export -> lines over HTTP"),
        |times| (0..times).for_each(|_| export()),
        |times| (0..times).for_each(|_| lines()),
    );
    println!("  {:.2} of the entries a second", 1.0 / found.ratio);
    served.close(server);
}

/// 500 bytes of text.
fn text(number: usize) -> Vec<u8> {
    format!("{number:08} the quick brown fox jumps over the lazy dog;").repeat(10)[..500].into()
}

/// `/metrics` of 20 stacks of 6 layers: at most 10 ms. And what a hit sees of it.
fn metrics(client: &Runtime, server: &Runtime) {
    let layers = "metrics, { retry: {} }, { timeout: { after: 5s } }, { limit: {} }, { cache: {} }, { compress: {} }";
    let stores: Vec<_> =
        (0..20).map(|n| format!("s{n}: {{ layers: [{layers}], backend: memory }}")).collect();
    let served = Served::open(server, &stores.join(", "));
    server.block_on(async {
        for stack in &served.stacks {
            let _ = stack.put("k", "v").await.unwrap();
            for _ in 0..200 {
                stack.get(b"k").await.unwrap();
            }
        }
    });
    let scrape = |times: usize| {
        let mut scraper = client.block_on(Client::connect(served.address, "/metrics"));
        let mut took: Vec<Duration> = (0..times)
            .map(|_| {
                let begun = Instant::now();
                client.block_on(scraper.read_until(b"\n"));
                begun.elapsed()
            })
            .collect();
        took.sort();
        took
    };
    let took = scrape(50);
    println!(
        "/metrics of 20 stacks of 6 layers: {} series, {:.1} ms (at best {:.1}, at worst {:.1})",
        snapshot().series(),
        took[25].as_secs_f64() * 1e3,
        took[0].as_secs_f64() * 1e3,
        took[49].as_secs_f64() * 1e3,
    );
    let hits = |scraped: bool| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let hitting = scope.spawn(|| {
                let mut took: Vec<Duration> = (0..2_000_000)
                    .map(|_| {
                        let begun = Instant::now();
                        let _ = black_box(matches!(served.stacks[0].get(b"k"), Reply::Now(_)));
                        begun.elapsed()
                    })
                    .collect();
                stop.store(true, Ordering::Relaxed);
                took.sort();
                took
            });
            while scraped && !stop.load(Ordering::Relaxed) {
                scrape(1);
                std::thread::sleep(Duration::from_millis(20));
            }
            let took = hitting.join().unwrap();
            [took[took.len() / 2], took[took.len() / 100 * 99], took[took.len() / 1000 * 999]]
        })
    };
    println!("a hit, half, 99 % and 99.9 % of them, alone:         {:?}", hits(false));
    println!("a hit, half, 99 % and 99.9 % of them, while scraped: {:?}", hits(true));
    served.close(server);
}
