//! The helpers that other tests rely on: servers that start, die and come back, and a line that fails.
#![cfg(feature = "full")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::support::{
    self, Certificates, Counters, Kept, Load, Postgres, Proxy, Redis, RedisCluster, Way,
};
use async_trait::async_trait;
use tierstack::backends::Memory;
use tierstack::testing::{FaultStore, Faults};
use tierstack::{Batch, Commit, ErrorKind, Operation, Read, Result, Store, forward};

/// Long enough for a frozen server not to have answered, however busy the machine.
const A_WHILE: Duration = Duration::from_millis(300);

#[test]
fn what_is_there_is_not_skipped() {
    assert_eq!(support::required(Some(1), "nothing"), Some(1));
    assert!(support::var("PATH").is_some());
}

// --- Redis ---------------------------------------------------------------------------------------

fn ping(addr: &str) -> std::io::Result<String> {
    let mut line = TcpStream::connect(addr)?;
    line.set_read_timeout(Some(A_WHILE))?;
    line.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    line.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn redis_dies_and_comes_back_with_its_data() {
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut redis) = Redis::start(&durable).await else { return };
    assert_eq!(redis.cli(&["set", "k", "v"]).await, "OK");
    redis.kill();
    assert!(!redis.is_running() && ping(&redis.addr()).is_err());
    let before = redis.addr();
    redis.restart().await;
    assert_eq!((redis.addr(), redis.cli(&["get", "k"]).await), (before, "v".into()));
    redis.shutdown().await;
    assert!(ping(&redis.addr()).is_err());
    redis.restart().await;
    redis.restart().await;
    assert_eq!(redis.cli(&["get", "k"]).await, "v");
    assert_ne!(redis.fresh_url(), redis.fresh_url());
}

#[tokio::test]
async fn a_stopped_redis_hangs_until_it_goes_on() {
    let Some(redis) = Redis::start(&[]).await else { return };
    redis.stop();
    assert!(ping(&redis.addr()).is_err());
    redis.cont();
    assert_eq!(redis.cli(&["ping"]).await, "PONG");
    redis.stop();
    let addr = redis.addr();
    drop(redis);
    assert!(TcpStream::connect(addr).is_err(), "a stopped server is ended too");
}

#[tokio::test]
async fn redis_with_tls_takes_no_plain_connections() {
    let Some(certificates) = Certificates::make().await else { return };
    let Some(redis) = Redis::start_tls(&Arc::new(certificates), &[]).await else { return };
    assert_eq!(redis.cli(&["ping"]).await, "PONG");
    assert!(redis.url().starts_with("rediss://"));
    assert!(ping(&redis.addr()).is_err());
}

#[tokio::test]
async fn a_replica_takes_over_from_a_killed_master() {
    let Some(mut cluster) = RedisCluster::start(3, 1).await else { return };
    assert_eq!(cluster.urls().len(), 6);
    // A node that the system lets wait for longer than its neighbours do is replaced as a dead one is, at any time: so
    // each step asks which one is the master.
    let first = loop {
        let master = cluster.master_of("k").await;
        // Over one connection, or it would not be this write that is waited for.
        let answers = cluster.nodes[master].cli_lines("SET k v\nWAIT 1 10000\n").await;
        if answers == "OK\n1" {
            break master;
        }
    };
    cluster.nodes[first].kill();
    // Only what the others have noticed can heal.
    let second = loop {
        cluster.wait_until_ok().await;
        match cluster.master_of("k").await {
            same if same == first => tokio::time::sleep(A_WHILE).await,
            other => break other,
        }
    };
    assert_ne!(second, first);
    assert_eq!(value_in(&cluster, "k").await, "v");
    cluster.nodes[first].restart().await;
    // It has nothing, and takes itself for the master until it is told.
    cluster.wait_until_ok().await;
    assert_eq!(value_in(&cluster, "k").await, "v");
}

/// What the master of a key has.
async fn value_in(cluster: &RedisCluster, key: &str) -> String {
    loop {
        let master = cluster.master_of(key).await;
        let answer = cluster.nodes[master].cli(&["get", key]).await;
        if !answer.starts_with("MOVED") && !answer.starts_with("CLUSTERDOWN") {
            return answer;
        }
        tokio::time::sleep(A_WHILE).await;
    }
}

// --- PostgreSQL ----------------------------------------------------------------------------------

#[tokio::test]
async fn postgres_dies_and_comes_back_with_its_data() {
    let Some(mut postgres) = Postgres::start().await else { return };
    postgres.sql("CREATE TABLE t (v text); INSERT INTO t VALUES ('kept')").await;
    let pid = postgres.sql("SELECT pg_backend_pid()").await;
    assert!(pid.parse::<u32>().is_ok());
    assert_eq!(postgres.sql("SHOW fsync").await, "on");
    postgres.kill();
    assert!(!postgres.is_running() && TcpStream::connect(postgres.addr()).is_err());
    let before = postgres.url();
    postgres.restart().await;
    assert_eq!((postgres.url(), postgres.sql("SELECT v FROM t").await), (before, "kept".into()));
    postgres.shutdown().await;
    assert!(TcpStream::connect(postgres.addr()).is_err());
    postgres.restart().await;
    assert_eq!(postgres.sql("SELECT v FROM t").await, "kept");
    assert_ne!(postgres.fresh_url().await, postgres.fresh_url().await);
    // What it leaves in shared memory goes with it.
    postgres.kill();
}

#[tokio::test]
async fn a_stopped_postgres_hangs_until_it_goes_on() {
    let Some(postgres) = Postgres::options().set("max_connections", "7").start().await else {
        return;
    };
    postgres.stop();
    let mut late = Box::pin(postgres.sql("SHOW max_connections"));
    assert!(tokio::time::timeout(A_WHILE, &mut late).await.is_err());
    postgres.cont();
    assert_eq!(late.await, "7");
    postgres.stop();
    let addr = postgres.addr();
    drop(postgres);
    assert!(TcpStream::connect(addr).is_err(), "a stopped server is ended too");
}

#[tokio::test]
async fn postgres_with_tls_and_a_password() {
    let Some(certificates) = Certificates::make().await else { return };
    let options = Postgres::options().tls(&Arc::new(certificates)).password("s3cret");
    let Some(postgres) = options.start().await else { return };
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(postgres.sql(sql).await, "t");
    assert!(postgres.url().contains(":s3cret@"));
}

// --- The proxy -----------------------------------------------------------------------------------

/// A server that answers each byte with the next one.
fn successor() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for line in listener.incoming() {
            let mut line = line.unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 1024];
                while let Ok(count @ 1..) = line.read(&mut bytes) {
                    let answer: Vec<u8> = bytes[..count].iter().map(|byte| byte + 1).collect();
                    if line.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

fn client(proxy: &Proxy) -> TcpStream {
    let line = TcpStream::connect(proxy.addr()).unwrap();
    line.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    line
}

fn ask(line: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    line.write_all(bytes)?;
    let mut answer = vec![0; bytes.len()];
    line.read_exact(&mut answer)?;
    Ok(answer)
}

#[tokio::test]
async fn the_proxy_passes_and_counts() {
    let server = successor();
    let proxy = Proxy::to(server.to_string()).await;
    assert_eq!(proxy.url(&format!("redis://{server}/1")), format!("redis://{}/1", proxy.addr()));
    let mut line = client(&proxy);
    for _ in 0..5 {
        assert_eq!(ask(&mut line, b"abc").unwrap(), b"bcd");
    }
    let first = proxy.counters();
    let expected = Counters { connections: 1, bytes_up: 15, bytes_down: 15, round_trips: 5 };
    assert_eq!(first, expected);
    assert_eq!(ask(&mut client(&proxy), b"x").unwrap(), b"y");
    let more = Counters { connections: 1, bytes_up: 1, bytes_down: 1, round_trips: 1 };
    assert_eq!(proxy.counters() - first, more);
}

#[tokio::test]
async fn a_cut_line_is_closed_and_refused_until_it_heals() {
    let proxy = Proxy::to(successor().to_string()).await;
    let mut line = client(&proxy);
    assert_eq!(ask(&mut line, b"a").unwrap(), b"b");
    proxy.cut().await;
    assert!(ask(&mut line, b"a").is_err());
    assert!(TcpStream::connect(proxy.addr()).is_err());
    proxy.heal().await;
    let mut line = client(&proxy);
    assert_eq!(ask(&mut line, b"a").unwrap(), b"b");
    proxy.reset().await;
    assert!(ask(&mut line, b"a").is_err());
    assert_eq!(ask(&mut client(&proxy), b"a").unwrap(), b"b");
    let addr = proxy.addr();
    drop(proxy);
    assert!(TcpStream::connect(addr).is_err());
}

#[tokio::test]
async fn a_hanging_line_delivers_late() {
    let proxy = Proxy::to(successor().to_string()).await;
    let mut line = client(&proxy);
    assert_eq!(ask(&mut line, b"a").unwrap(), b"b");
    proxy.hang();
    line.set_read_timeout(Some(A_WHILE)).unwrap();
    let mut new = client(&proxy);
    new.set_read_timeout(Some(A_WHILE)).unwrap();
    let waits = std::io::ErrorKind::WouldBlock;
    assert_eq!(ask(&mut line, b"1").unwrap_err().kind(), waits);
    assert_eq!(ask(&mut new, b"2").unwrap_err().kind(), waits);
    proxy.heal().await;
    for (mut line, late) in [(line, b'2'), (new, b'3')] {
        line.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut answer = [0];
        line.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [late]);
    }
}

#[tokio::test]
async fn a_line_is_cut_after_exactly_so_many_bytes() {
    let proxy = Proxy::to(successor().to_string()).await;
    let mut line = client(&proxy);
    proxy.cut_after_bytes(Way::Down, 2);
    line.write_all(b"abcd").unwrap();
    let mut answer = Vec::new();
    let _ = line.read_to_end(&mut answer);
    assert_eq!(answer, b"bc");
    assert_eq!(proxy.counters().bytes_down, 2);
    proxy.heal().await;

    let mut line = client(&proxy);
    proxy.cut_after_bytes(Way::Up, 3);
    assert!(ask(&mut line, b"abcd").is_err());
    assert_eq!(proxy.counters().bytes_up, 4 + 3);
    assert!(TcpStream::connect(proxy.addr()).is_err() || ask(&mut client(&proxy), b"a").is_err());
    proxy.heal().await;
    assert_eq!(ask(&mut client(&proxy), b"a").unwrap(), b"b");
}

#[tokio::test]
async fn a_slow_line_delays_each_way() {
    let proxy = Proxy::to(successor().to_string()).await;
    let mut line = client(&proxy);
    proxy.delay(A_WHILE);
    line.set_read_timeout(Some(A_WHILE)).unwrap();
    // Not a time but an order: the answer is never there before the delay of one way is over.
    assert_eq!(ask(&mut line, b"a").unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    line.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut answer = [0];
    line.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [b'b']);
}

// --- The load that runs through a fault ----------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_recovers_passes() {
    let faults = Faults::new();
    let store: Arc<dyn Store> = Arc::new(FaultStore::new(Memory::new(), &faults));
    let report = Load::default()
        .run(&store, async |progress| {
            faults.on(Operation::Write).after_effect().chance(0.5).fail(ErrorKind::Timeout);
            faults.on(Operation::Write).chance(0.5).fail(ErrorKind::Unavailable);
            faults.on(Operation::Scan).at_page(1).fail(ErrorKind::Unavailable);
            progress.failures(50).await;
            progress.writes(10).await;
            faults.clear();
        })
        .await;
    assert!(report.failed_writes > 0 && report.failed_reads > 0 && report.acknowledged > 10);
    assert_eq!(report.errors.keys().copied().collect::<Vec<_>>(), ["timeout", "unavailable"]);
}

/// What the load finds broken in a store to which this is done.
async fn found(
    load: Load,
    store: Arc<dyn Store>,
    fault: impl AsyncFnOnce(&support::Progress),
) -> String {
    load.try_run(&store, fault).await.expect_err("the load finds it").join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_another_kind_and_hangs_are_found() {
    let faults = Faults::new();
    let store: Arc<dyn Store> = Arc::new(FaultStore::new(Memory::new(), &faults));
    let broken = found(Load::default(), Arc::clone(&store), async |progress| {
        faults.on(Operation::GetMany).times(1).fail(ErrorKind::Internal);
        progress.failures(1).await;
    });
    assert!(broken.await.contains("a get_many may not fail so"));

    let load = Load { deadline: A_WHILE, patience: A_WHILE * 2, ..Load::default() };
    let broken = found(load, store, async |_| {
        let _ = faults.on(Operation::Write).hold();
    });
    let broken = broken.await;
    assert!(broken.contains("a write hangs") && broken.contains("not every writer"), "{broken}");
}

/// Does to writes what a broken store might, once armed.
struct Broken {
    inner: Memory,
    how: How,
    armed: Arc<std::sync::atomic::AtomicBool>,
    kept: std::sync::Mutex<Option<Batch>>,
}

#[derive(Clone, Copy)]
enum How {
    Forgets,
    KeepsHalf,
    /// A write times out, and arrives after the next one of its keys.
    Late,
}

#[async_trait]
impl Store for Broken {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        if !self.armed.load(std::sync::atomic::Ordering::SeqCst) {
            return self.inner.write(batch).await;
        }
        match self.how {
            How::Forgets => Ok(Commit::done()),
            How::KeepsHalf => {
                self.inner.write(batch.into_ops().into_iter().take(1).collect()).await
            }
            How::Late => {
                let late = {
                    let mut kept = self.kept.lock().unwrap();
                    let same = |kept: &Batch| kept.ops()[0].key() == batch.ops()[0].key();
                    match kept.take_if(|kept| same(kept)) {
                        Some(late) => Some(late),
                        None if kept.is_none() => {
                            *kept = Some(batch);
                            return Err(tierstack::Error::new(ErrorKind::Timeout, "late"));
                        }
                        None => None,
                    }
                };
                let commit = self.inner.write(batch).await?;
                if let Some(late) = late {
                    self.inner.write(late).await?;
                }
                Ok(commit)
            }
        }
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        tierstack::write_in_order(self, group).await
    }

    forward!(self => self.inner; ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, close, profile, identity);
}

impl Read for Broken {
    forward!(self => self.inner; get, get_many, scan);
}

async fn found_in(load: Load, how: How) -> std::result::Result<support::Report, Vec<String>> {
    let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let kept = std::sync::Mutex::new(None);
    let store = Broken { inner: Memory::new(), how, armed: Arc::clone(&armed), kept };
    let store: Arc<dyn Store> = Arc::new(store);
    load.try_run(&store, async |progress| {
        armed.store(true, std::sync::atomic::Ordering::SeqCst);
        progress.writes(200).await;
        progress.reads(200).await;
        if matches!(how, How::Late) {
            progress.failures(100).await;
        }
        armed.store(false, std::sync::atomic::Ordering::SeqCst);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_halved_and_late_writes_are_found() {
    let broken = found_in(Load::default(), How::Forgets).await.unwrap_err().join("\n");
    assert!(broken.contains("was acknowledged before it began"), "{broken}");
    found_in(Load::default().keeps(Kept::Anything), How::Forgets).await.unwrap();

    let broken = found_in(Load::default().keeps(Kept::Anything), How::KeepsHalf)
        .await
        .unwrap_err()
        .join("\n");
    assert!(broken.contains("one half of a batch"), "{broken}");

    let broken = found_in(Load::default(), How::Late).await.unwrap_err().join("\n");
    assert!(broken.contains("(Some(Unknown)) though"), "{broken}");
    found_in(Load::default().late_writes(), How::Late).await.unwrap();
}
