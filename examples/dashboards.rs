//! A service under load, to look at: `scripts/dashboards` runs it next to Prometheus.
//!
//! ```sh
//! cargo run --release --features full --example dashboards -- examples/dashboards.yaml
//! ```
//!
//! Opens and serves every store of the config, and reads and writes them in waves until ctrl-C.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use tierstack::config::{Config, Registry};
use tierstack::serve::{Server, Stores};
use tierstack::testing::Random;
use tierstack::{
    Clock, OpenOptions, Result, Scan, Stack, Stacks, StoreExt, SystemClock, Timestamp,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Keys of each store.
const KEYS: u64 = 3000;
/// Tasks that use each store.
const TASKS: u64 = 4;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(config) = std::env::args().nth(1) else {
        eprintln!("usage: dashboards CONFIG");
        return ExitCode::from(2);
    };
    match run(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the stores of that config under load, until ctrl-C.
///
/// # Errors
/// What opening or closing them fails with.
pub async fn run(config: &str) -> Result<()> {
    let config = Config::load(config)?;
    config.listen()?;
    let options = OpenOptions { clock: Arc::new(Hasty(SystemClock)), ..OpenOptions::service() };
    let stacks = Arc::new(Stacks::open_all(&config, &Registry::standard(), &options).await?);
    for name in config.stores.keys() {
        for task in 0..TASKS {
            let (stacks, name) = (Arc::clone(&stacks), name.clone());
            tokio::spawn(async move {
                if let Some(stack) = stacks.get(&name) {
                    load(stack, task).await;
                }
            });
        }
    }
    let mut server = None;
    if let Some(serve) = &config.serve {
        let server = server.insert(Server::listen(serve, config.folder()).await?);
        server.open(Stores::of(&stacks));
        if let Some(address) = server.addresses().next().flatten() {
            tokio::spawn(ask(address));
        }
    }
    // Without a terminal there is no ctrl-C to wait for.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    stacks.close_all().await.map_err(|errors| errors.into_error())
}

/// Reads and writes without an end. Errors are what the boards are there for.
async fn load(stack: &Stack, task: u64) {
    let mut random = Random::new(task);
    // Few keys are used often, and many seldom.
    let mut key = move || {
        let part = random.next_u64() as f64 / u64::MAX as f64;
        format!("key:{:05}", (KEYS as f64).powf(part) as u64)
    };
    let value = |size: usize| "three apples and a pear; ".repeat(size).into_bytes();
    if task == 0 {
        for number in 0..KEYS {
            let _ = stack.put(format!("key:{number:05}"), value(20)).await;
        }
    }
    for round in 0_u64.. {
        // Waves of two minutes, so that there is something to see.
        let wave = 1.5 + (round as f64 * std::f64::consts::TAU / 1200.0).sin();
        for _ in 0..(40.0 * wave) as u64 {
            let _ = stack.get(key().as_bytes()).await;
        }
        let many: Vec<_> = (0..10).map(|_| key().into()).collect();
        let _ = stack.get_many(&many).await;
        let _ = stack.put(key(), value(30)).await;
        match round % 50 {
            0 => {
                let mut pages = stack.scan(Scan::prefix("key:000"));
                while let Some(Ok(_)) = pages.next().await {}
            }
            10 => drop(stack.get(b"no such key").await),
            20 => drop(stack.delete(key()).await),
            // Larger than the store takes.
            30 => drop(stack.put("large", value(8000)).await),
            40 => drop(stack.flush().await),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks over HTTP, without an end: a value that is there, one that is not, a scan, and a write.
async fn ask(address: SocketAddr) {
    let get = "GET /v1/stores/shop/kv/key%3A00001";
    for line in
        [get, "GET /v1/stores/shop/kv/none", "GET /v1/stores/shop/kv?limit=10", get].iter().cycle()
    {
        let _ = send(address, line, "").await;
        let _ = send(address, "PUT /v1/stores/shop/kv/pears", "a pear and three apples").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a request, and waits for the whole answer.
async fn send(address: SocketAddr, line: &str, body: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

/// The time as it is, with pauses of a few seconds at most: nobody waits a minute for the first backup.
#[derive(Debug)]
struct Hasty(SystemClock);

#[async_trait]
impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn coarse(&self) -> Duration {
        self.0.coarse()
    }

    async fn sleep(&self, span: Duration) {
        self.0.sleep(span.min(Duration::from_secs(3))).await;
    }
}
