//! Servers that are killed, stopped, restarted, cut off and slow, during load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::testing::conformance::Fixture;
use tierstack::units::Span;
use tierstack::{
    Batch, Change, Condition, ErrorKind, Op, Outcome, Read, ReadExt, Scan, Store, StoreExt,
};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{connect, fresh_table, open};
use crate::support::{self, Postgres as Server, Proxy, Way};

/// Short deadlines, so that what is stuck is given up soon.
fn config(url: &str) -> PostgresConfig {
    PostgresConfig {
        timeout: Span(Duration::from_secs(2)),
        connect_timeout: Span(Duration::from_secs(1)),
        pool: 4,
        ..PostgresConfig::new(url)
    }
}

/// Nothing here may take longer: then it hangs.
async fn ends<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work).await.expect("it hangs")
}

/// Writers of a counter each, and of a second key with the same number in the same batch.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Counts>>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    acknowledged: u64,
    /// The last that was tried, which may be there as well.
    tried: u64,
    failed: BTreeMap<&'static str, u64>,
}

fn keys(writer: usize) -> [Bytes; 2] {
    [format!("{writer}-a").into(), format!("{writer}-b").into()]
}

impl Load {
    fn begin(store: &Arc<Postgres>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..4).map(|writer| {
            let (store, stop) = (Arc::clone(store), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut counts = Counts::default();
                let [a, b] = keys(writer);
                while !stop.load(Ordering::Relaxed) {
                    counts.tried += 1;
                    let number = counts.tried.to_string();
                    let batch = Batch::new().put(a.clone(), number.clone()).put(b.clone(), number);
                    // A third of them with a delete, which is another way to the server.
                    let batch =
                        if counts.tried.is_multiple_of(3) { batch.delete("gone") } else { batch };
                    match ends(store.write(batch)).await {
                        Ok(_) => counts.acknowledged = counts.tried,
                        Err(error) => {
                            let kind = error.kind();
                            assert!(
                                matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout),
                                "{error:?}"
                            );
                            *counts.failed.entry(kind.as_str()).or_default() += 1;
                            sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
                counts
            })
        });
        let readers = (0..2).map(|_| {
            let (store, stop) = (Arc::clone(store), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let read = ends(store.get_many(&keys(0))).await;
                    let scanned = ends(store.collect(Scan::all().limit(10))).await;
                    for error in read.err().into_iter().chain(scanned.err()) {
                        let kind = error.kind();
                        assert!(
                            matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout),
                            "{error:?}"
                        );
                        sleep(Duration::from_millis(20)).await;
                    }
                }
            })
        });
        Self { writers: writers.collect(), readers: readers.collect(), stop }
    }

    /// Ends the load, and looks whether all is there that was acknowledged.
    async fn check(self, store: &Postgres) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for reader in self.readers {
            reader.await.unwrap();
        }
        let mut failures = 0;
        for (writer, task) in self.writers.into_iter().enumerate() {
            let counts = task.await.unwrap();
            assert!(counts.acknowledged > 0, "nothing was ever written");
            let found = store.snapshot().await.unwrap().get_many(&keys(writer)).await.unwrap();
            assert_eq!(found[0], found[1], "a batch is torn");
            let found = String::from_utf8(found[0].clone().unwrap().bytes.to_vec()).unwrap();
            let found: u64 = found.parse().unwrap();
            assert!(
                (counts.acknowledged..=counts.tried).contains(&found),
                "{found} is there, but {} was acknowledged of {}",
                counts.acknowledged,
                counts.tried
            );
            failures += counts.failed.values().sum::<u64>();
        }
        failures
    }
}

/// Waits until the store answers again.
async fn recovered(store: &Postgres) {
    let answers = async {
        while store.put("recovered", "1").await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    ends(answers).await;
}

const A_WHILE: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_is_never_absent() {
    let Some(server) = Server::start().await else { return };
    support::unreachable::is_never_absent(async || {
        let proxy = Proxy::to(server.addr()).await;
        let config = PostgresConfig { table: fresh_table(), ..config(&proxy.url(&server.url())) };
        Ok(support::cut_off::by_proxy(Fixture::new(Postgres::open(config).await?), proxy))
    })
    .await;
}

/// A group is as many round trips as a batch, and not one for each of its batches.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_one_request() {
    let Some(server) = Server::start().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let store = open(&PostgresConfig { pool: 1, ..config(&proxy.url(&server.url())) }).await;
    let batch = |n: u32| Batch::new().put(n.to_string(), "v");
    let trips = async |write: Vec<Vec<Batch>>| {
        let before = proxy.counters();
        for group in write {
            assert!(store.write_group(group).await.iter().all(Result::is_ok));
        }
        (proxy.counters() - before).round_trips
    };
    // Statements are prepared once for a connection.
    trips(vec![vec![batch(0)], vec![batch(1), batch(2)]]).await;
    let one = trips(vec![(3..5).map(batch).collect()]).await;
    assert_eq!(trips(vec![(5..105).map(batch).collect()]).await, one);
    assert!(trips((105..205).map(|n| vec![batch(n)]).collect()).await >= 100);
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 205);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_again() {
    let Some(mut server) = Server::start().await else { return };
    let store = Arc::new(open(&config(&server.url())).await);
    let load = Load::begin(&store);
    for _ in 0..2 {
        sleep(A_WHILE).await;
        server.kill();
        sleep(A_WHILE).await;
        server.restart().await;
        recovered(&store).await;
    }
    sleep(A_WHILE).await;
    assert!(load.check(&store).await > 0, "nobody noticed");
}

/// So that `retry` may repeat it.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_finds_no_server_says_that_nothing_happened() {
    let Some(mut server) = Server::start().await else { return };
    let store = open(&config(&server.url())).await;
    store.put("k", "v").await.unwrap();
    server.kill();
    // The first may be sent before the end of the connection is noticed.
    let _ = ends(store.put("k", "1")).await;
    let error = ends(store.put("k", "2")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Nothing));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_continued() {
    let Some(server) = Server::start().await else { return };
    let store = Arc::new(open(&config(&server.url())).await);
    let load = Load::begin(&store);
    sleep(A_WHILE).await;
    server.stop();
    // Operations meet their deadlines, one after the other.
    let errors = ends(async {
        let mut kinds = Vec::new();
        for _ in 0..3 {
            kinds.push(store.get(b"k").await.unwrap_err().kind());
            kinds.push(store.snapshot().await.map(drop).unwrap_err().kind());
        }
        kinds
    })
    .await;
    for kind in errors {
        assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable), "{kind}");
    }
    server.cont();
    recovered(&store).await;
    sleep(A_WHILE).await;
    assert!(load.check(&store).await > 0, "nobody noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_reset_and_slow() {
    let Some(server) = Server::start().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let store = Arc::new(open(&config(&proxy.url(&server.url()))).await);
    let load = Load::begin(&store);
    for round in 0..6u64 {
        sleep(A_WHILE / 2).await;
        match round {
            0 => proxy.cut().await,
            1 => proxy.hang(),
            2 => proxy.cut_after_bytes(Way::Up, 500),
            3 => proxy.cut_after_bytes(Way::Down, 300),
            4 => proxy.reset().await,
            _ => proxy.delay(Duration::from_millis(20)),
        }
        sleep(A_WHILE * if round == 1 { 5 } else { 1 }).await;
        proxy.heal().await;
        recovered(&store).await;
    }
    proxy.delay(Duration::ZERO);
    assert!(load.check(&store).await > 0, "nobody noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_given_up_does_not_arrive_later() {
    let Some(server) = Server::start().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let store = open(&config(&proxy.url(&server.url()))).await;
    let (one, two) = (Batch::new().put("k", "old"), Batch::new().put("k", "old").delete("l"));
    // So that all statements are prepared.
    store.write(one.clone()).await.unwrap();
    store.write(two.clone()).await.unwrap();
    store.delete("k").await.unwrap();
    for batch in [one, two, Batch::new().delete("k")] {
        proxy.hang();
        let error = ends(store.write(batch)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
        let direct = open(&config(&server.url())).await;
        direct.put("k", "new").await.unwrap();
        proxy.heal().await;
        recovered(&store).await;
        assert_eq!(direct.get(b"k").await.unwrap(), Some("new".into()));
        sleep(A_WHILE).await;
        assert_eq!(direct.get(b"k").await.unwrap(), Some("new".into()), "it came back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_survive_a_restart_unnoticed() {
    let Some(mut server) = Server::start().await else { return };
    let store = open(&config(&server.url())).await;
    store.put("k", "v").await.unwrap();
    for _ in 0..3 {
        server.restart().await;
        assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
        server.restart().await;
        assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 1);
    }
    store.put("k", "w").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_listener_says_so_and_comes_back() {
    let Some(server) = Server::start().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let config = PostgresConfig { change_feed: true, ..config(&proxy.url(&server.url())) };
    let store = open(&config).await;
    let direct = connect(&server.url()).await;
    let mut changes = store.changes().await.unwrap();
    assert_eq!(ends(changes.next()).await, Some(Change::All));
    for round in 0..3 {
        match round {
            0 => proxy.cut().await,
            1 => proxy.hang(),
            _ => proxy.reset().await,
        }
        assert_eq!(ends(changes.next()).await, Some(Change::Lost));
        direct.batch_execute("DELETE FROM tierstack WHERE key = 'unseen'").await.unwrap();
        if round == 1 {
            // What hangs must not arrive late.
            proxy.reset().await;
        }
        proxy.heal().await;
        assert_eq!(ends(changes.next()).await, Some(Change::All), "round {round}");
        let insert = format!("INSERT INTO tierstack VALUES ('{round}', '')");
        direct.batch_execute(&insert).await.unwrap();
        let key = Bytes::from(round.to_string());
        assert_eq!(ends(changes.next()).await, Some(Change::Keys(vec![key])));
    }
    // Where the triggers are gone, nothing is reported any more.
    direct
        .batch_execute("ALTER TABLE tierstack DISABLE TRIGGER \"~tierstack_announce\"")
        .await
        .unwrap();
    assert_eq!(ends(changes.next()).await, Some(Change::Lost));
    direct
        .batch_execute("ALTER TABLE tierstack ENABLE ALWAYS TRIGGER \"~tierstack_announce\"")
        .await
        .unwrap();
    assert_eq!(ends(changes.next()).await, Some(Change::All));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_snapshot_and_a_lost_scan_say_so() {
    let Some(mut server) = Server::start().await else { return };
    let store = open(&config(&server.url())).await;
    for n in 0..10 {
        store.put(n.to_string(), "v").await.unwrap();
    }
    let snapshot = store.snapshot().await.unwrap();
    let mut pages = store.scan(Scan::all().page_entries(2));
    assert_eq!(pages.next().await.unwrap().unwrap().len(), 2);
    server.restart().await;
    let error = snapshot.get(b"1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("take another"), "{error}");
    let rest: usize = pages.map(|page| page.unwrap().len()).fold(0, async |a, b| a + b).await;
    assert_eq!(rest, 8, "a scan of the store holds nothing between its pages");
}

/// On one thread, so that all messages of an operation are there when the connection comes to write: on several
/// an answer may overtake the last of them, and is counted, though nothing waits for it.
#[tokio::test]
async fn round_trips() {
    let Some(server) = Server::start().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let config = PostgresConfig { pool: 1, ..config(&proxy.url(&server.url())) };
    let store = open(&config).await;
    let keys: Vec<Bytes> = (0..100).map(|n| Bytes::from(format!("key-{n:03}"))).collect();
    let all = || keys.iter().fold(Batch::new(), |batch, key| batch.put(key.clone(), "v"));
    let mixed = || all().delete("key-007").delete("no such key");
    let absent = || Batch::new().put("new", "v").if_absent();
    let required = || {
        let is = Condition::equals("key-001", "v");
        Batch::new().put("key-001", "v").put("key-002", "v").delete("no such key").require(is)
    };
    // The first time each statement is prepared.
    let others = [required(), Batch::new().delete("x"), Batch::new().put("x", "y"), absent()];
    for batch in [all(), mixed()].into_iter().chain(others) {
        store.write(batch).await.unwrap();
    }
    store.get(b"x").await.unwrap();
    store.get_many(&keys).await.unwrap();
    store.collect(Scan::prefix("key")).await.unwrap();
    let before = || proxy.counters().round_trips;
    let mut last = before();
    let mut took = || {
        let now = before();
        now - std::mem::replace(&mut last, now)
    };
    store.get(b"key-001").await.unwrap();
    assert_eq!(took(), 1, "a get");
    store.get_many(&keys).await.unwrap();
    assert_eq!(took(), 1, "a get of 100 keys");
    store.write(Batch::new().put("x", "y")).await.unwrap();
    assert_eq!(took(), 1, "a put");
    store.write(all()).await.unwrap();
    assert_eq!(took(), 1, "a batch of 100 puts");
    store.write(mixed()).await.unwrap();
    assert_eq!(took(), 1, "a batch of puts and deletes");
    store.write(required()).await.unwrap();
    assert_eq!(took(), 1, "a batch with conditions");
    store.write(absent()).await.unwrap_err();
    assert_eq!(took(), 1, "a put where nothing is");
    assert_eq!(store.collect(Scan::prefix("key")).await.unwrap().len(), 99);
    assert_eq!(took(), 1, "a page");
}

/// What the server is told to cancel may be the `BEGIN` of a batch that is sent whole. (Which takes longer
/// here, as the server logs how it is parsed.)
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_begin_tears_no_batch() {
    let options = Server::options().set("log_parser_stats", "on").set("log_statement", "all");
    let Some(server) = options.start().await else { return };
    let store = open(&PostgresConfig::new(server.url())).await;
    store.put("a", "0").await.unwrap();
    let cancel = "DO $$ BEGIN FOR i IN 1..500 LOOP
        PERFORM pg_stat_clear_snapshot();
        PERFORM pg_cancel_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'BEGIN ISOLATION%';
        END LOOP; END $$";
    let canceller = connect(&server.url()).await;
    let canceller = tokio::spawn(async move {
        loop {
            canceller.batch_execute(cancel).await.unwrap();
        }
    });
    let direct = connect(&server.url()).await;
    let count = direct.prepare("SELECT count(*) FROM tierstack").await.unwrap();
    let mut failed = 0;
    let begun = std::time::Instant::now();
    for n in 0.. {
        let (one, other) = if n % 2 == 0 { ("b", "a") } else { ("a", "b") };
        let batch = Batch::new().put(one, n.to_string()).delete(other);
        let mut writing = std::pin::pin!(store.write(batch));
        let error = loop {
            tokio::select! {
                done = &mut writing => break done.err(),
                found = direct.query_one(&count, &[]) => {
                    assert_eq!(found.unwrap().get::<_, i64>(0), 1, "a batch is torn");
                }
            }
        };
        failed += u32::from(error.is_some());
        if failed == 20 || begun.elapsed() > A_WHILE * 10 {
            break;
        }
    }
    canceller.abort();
    assert!(failed > 0, "nothing was cancelled");
}

/// A name that leads to a standby, as the old primary came back as one: what it says may be old.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_not_read() {
    let Some(mut server) = Server::start().await else { return };
    let store = open(&config(&server.url())).await;
    store.put("k", "v").await.unwrap();
    let data = server.sql("SHOW data_directory").await;
    server.shutdown().await;
    std::fs::write(std::path::Path::new(&data).join("standby.signal"), "").unwrap();
    server.restart().await;
    let error = ends(store.get(b"k")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    assert!(error.message().contains("standby"), "{error}");
    let error = Postgres::open(config(&server.url())).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    server.sql("SELECT pg_promote()").await;
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_set_takes_writes() {
    let Some(server) = Server::start().await else { return };
    // A server of which the clock can be set: its functions are found before those of the system.
    server
        .sql(
            "CREATE SCHEMA fake;
             CREATE TABLE fake.ahead AS SELECT interval '0' AS by;
             CREATE FUNCTION fake.now() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT pg_catalog.now() + by FROM fake.ahead';
             CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.clock_timestamp() + by FROM fake.ahead';
             ALTER DATABASE postgres SET search_path = fake, pg_catalog, public",
        )
        .await;
    let store = open(&PostgresConfig { table: "public.t".into(), ..config(&server.url()) }).await;
    let batches = [
        Batch::new().put("k", "v"),
        Batch::new().delete("k"),
        Batch::new().put("k", "v").put("l", "v"),
        Batch::new().put("k", "w").delete("l"),
        Batch::new().put("m", "v").put("n", "v").if_absent(),
    ];
    for (hours, batch) in (1..).zip(batches) {
        server.sql(&format!("UPDATE fake.ahead SET by = interval '{hours} hours'")).await;
        store.write(batch).await.unwrap();
    }
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 3);
}

/// The connection of a write that was given up in the middle of a transaction is never met again.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_write_leaves_no_transaction_behind() {
    let Some(server) = Server::start().await else { return };
    let store = open(&PostgresConfig { pool: 1, ..config(&server.url()) }).await;
    store.put("k", "v").await.unwrap();
    let direct = connect(&server.url()).await;
    let mixed = Batch::new().put("k", "w").put("l", "w").delete("m");
    let steps = Batch::new().put("a", "w").put("k", "w").if_absent();
    for batch in [Batch::new().put("k", "w"), mixed, steps] {
        direct.batch_execute("BEGIN; UPDATE tierstack SET value = 'held'").await.unwrap();
        let given_up = timeout(Duration::from_millis(200), store.write(batch)).await;
        assert!(given_up.is_err(), "it did not wait: {given_up:?}");
        // The pool has one connection, which is made again.
        assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
        direct.batch_execute("ROLLBACK").await.unwrap();
        recovered(&store).await;
        sleep(A_WHILE).await;
        let there = "SELECT count(*) FROM tierstack WHERE key = 'recovered'";
        assert_eq!(direct.query_one(there, &[]).await.unwrap().get::<_, i64>(0), 1);
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'";
        assert_eq!(direct.query_one(idle, &[]).await.unwrap().get::<_, i64>(0), 0);
        direct
            .batch_execute("DELETE FROM tierstack; INSERT INTO tierstack VALUES ('k', 'v')")
            .await
            .unwrap();
    }
}

/// Rows are locked in the order of their keys, whatever the order in the batch.
#[tokio::test(flavor = "multi_thread")]
async fn batches_in_any_order_do_not_deadlock() {
    let options =
        Server::options().set("deadlock_timeout", "20ms").set("synchronous_commit", "off");
    let Some(server) = options.start().await else { return };
    let store = Arc::new(open(&PostgresConfig::new(server.url())).await);
    let keys: Vec<Bytes> = (0..40).map(|n| Bytes::from(format!("key-{n:02}"))).collect();
    let batch = |step: usize| {
        let puts = (0..40).map(|at| Op::Put(keys[at * step % 40].clone(), "v".into()));
        puts.collect::<Batch>()
    };
    store.write(batch(1)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for step in [1, 39, 7, 13] {
        for batch in [batch(step), batch(step).delete("none")] {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                for _ in 0..60 {
                    // Others may get in the way, but not by a deadlock.
                    let _ = ends(store.write(batch.clone())).await;
                }
            });
        }
    }
    tasks.join_all().await;
    // The sessions tell their numbers when they end.
    drop(Arc::into_inner(store));
    sleep(A_WHILE * 2).await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'";
    assert_eq!(server.sql(deadlocks).await, "0");
}
