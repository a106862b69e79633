//! A server that is killed, stopped, restarted, cut off and slowed while it is in use.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tierstack::backends::redis::Survives;
use tierstack::testing::conformance::Fixture;
use tierstack::{Batch, Outcome, Read, ReadExt, Retry, Scan, StoreExt};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::support::{self, Proxy, Way};

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_is_never_absent() {
    let Some(server) = server().await else { return };
    support::unreachable::is_never_absent(async || {
        let proxy = Proxy::to(server.addr()).await;
        let url = proxy.url(&server.fresh_url());
        let store = open(hasty(RedisConfig { index: true, ..on(url) })).await;
        Ok(support::cut_off::by_proxy(Fixture::new(store), proxy))
    })
    .await;
}

const TASKS: usize = 8;

/// Tasks that write batches of two keys and read them back, until they are told to stop. Each gives the
/// number of the last batch that was acknowledged, for every key.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<(Vec<usize>, usize)>>,
}

impl Load {
    pub(super) fn begin(store: &Arc<Redis>) -> Self {
        let (stop, all) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let task = |task: usize| {
            let (store, stop, all) = (Arc::clone(store), Arc::clone(&stop), Arc::clone(&all));
            tokio::spawn(async move {
                let (mut acknowledged, mut failed) = (Vec::new(), 0);
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let [a, b] = names(task, number);
                    let begun = Instant::now();
                    match store.write(Batch::new().put(a.clone(), "1").put(b, "1")).await {
                        Ok(_) => {
                            acknowledged.push(number);
                            all.fetch_add(1, Ordering::Relaxed);
                            match store.get(a.as_bytes()).await {
                                Ok(found) => assert!(found.is_some(), "{a} was acknowledged"),
                                Err(error) => expected(&error),
                            }
                        }
                        Err(error) => {
                            expected(&error);
                            failed += 1;
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                    assert!(begun.elapsed() < Duration::from_secs(20), "a deadline of 1 s passed");
                }
                (acknowledged, failed)
            })
        };
        let tasks = (0..TASKS).map(task).collect();
        Self { stop, acknowledged: all, tasks }
    }

    /// Waits for so many acknowledgements more, however slow the machine is.
    pub(super) async fn more(&self, count: usize) {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + count;
        let reached = async {
            while self.acknowledged.load(Ordering::Relaxed) < wanted {
                pause(10).await;
            }
        };
        in_time(reached).await;
    }

    /// Ends it. What was acknowledged, as keys, and how many writes failed.
    pub(super) async fn end(self) -> (Vec<[String; 2]>, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut keys, mut failed) = (Vec::new(), 0);
        for (task, done) in self.tasks.into_iter().enumerate() {
            let (numbers, failures) = in_time(done).await.unwrap();
            keys.extend(numbers.into_iter().map(|number| names(task, number)));
            failed += failures;
        }
        (keys, failed)
    }
}

/// In a cluster both are in one slot.
fn names(task: usize, number: usize) -> [String; 2] {
    ["a", "b"].map(|half| format!("{half}-{{{task}-{number}}}"))
}

#[track_caller]
fn expected(error: &tierstack::Error) {
    let passing = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
    assert!(passing && error.retry() == Retry::Later, "{error:?}");
}

pub(super) async fn all_there(store: &Redis, acknowledged: &[[String; 2]]) {
    let keys: Vec<bytes::Bytes> = acknowledged.iter().flatten().cloned().map(Into::into).collect();
    for keys in keys.chunks(1000) {
        for (key, found) in keys.iter().zip(store.get_many(keys).await.unwrap()) {
            assert!(found.is_some(), "{key:?} was acknowledged, and is lost");
        }
    }
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let settings = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut server) = Server::start(&settings).await else { return };
    let config = RedisConfig { durability: Survives::PowerCut, index: true, ..on(server.url()) };
    let store = open(hasty(config)).await;
    let load = Load::begin(&store);
    for _ in 0..4 {
        load.more(251).await;
        server.kill();
        pause(200).await;
        server.restart().await;
        // The server has forgotten its scripts: they are loaded again.
        soon(|| store.put("probe", "1")).await;
    }
    let (acknowledged, failed) = load.end().await;
    assert!(acknowledged.len() > 1000 && failed > 0, "{} {failed}", acknowledged.len());
    all_there(&store, &acknowledged).await;
    // Batches that were not acknowledged are there wholly or not at all, and all are in the index.
    let found = store.collect(Scan::all()).await.unwrap();
    let half =
        |half: &str| found.iter().filter(|entry| entry.key.starts_with(half.as_bytes())).count();
    assert_eq!(half("a-"), half("b-"));
    assert!(half("a-") >= acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_and_goes_on() {
    let Some(server) = server().await else { return };
    let store = open(hasty(on(server.url()))).await;
    let load = Load::begin(&store);
    for _ in 0..2 {
        load.more(51).await;
        server.stop();
        let begun = Instant::now();
        assert_eq!(kind(in_time(store.get(b"k")).await), ErrorKind::Timeout);
        // Now it is a new connection that gets no answer.
        let kinds =
            [kind(in_time(store.get(b"k")).await), kind(in_time(store.put("k", "v")).await)];
        assert!(kinds.iter().all(|kind| *kind != ErrorKind::Access), "{kinds:?}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        server.cont();
        soon(|| store.put("probe", "1")).await;
    }
    let (acknowledged, failed) = load.end().await;
    assert!(acknowledged.len() > 100 && failed > 0);
    all_there(&store, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_hung_up_and_slow() {
    let Some(server) = server().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let store = open(hasty(on(proxy.url(&server.url())))).await;
    let load = Load::begin(&store);
    for round in 0..6 {
        load.more(20).await;
        match round % 6 {
            0 => proxy.cut().await,
            1 => proxy.hang(),
            2 => proxy.cut_after_bytes(Way::Up, 1111),
            3 => proxy.cut_after_bytes(Way::Down, 777),
            4 => proxy.delay(Duration::from_millis(80)),
            _ => {
                // A cable that is pulled and back, with what was on its way lost.
                proxy.hang();
                pause(1500).await;
                proxy.reset().await;
            }
        }
        pause(1500).await;
        proxy.heal().await;
        proxy.delay(Duration::ZERO);
        soon(|| store.put("probe", "1")).await;
    }
    let (acknowledged, failed) = load.end().await;
    assert!(acknowledged.len() > 100 && failed > 0);
    all_there(&store, &acknowledged).await;
}

/// So that `retry` may repeat it.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_finds_no_server_says_that_nothing_happened() {
    let Some(mut server) = server().await else { return };
    let store = open(hasty(on(server.url()))).await;
    store.put("k", "v").await.unwrap();
    server.kill();
    // The first may be sent before the end of the connection is noticed.
    let _ = store.put("k", "1").await;
    let error = store.put("k", "2").await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Nothing));
}

/// Everybody waits for the same attempt, not one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn many_callers_of_a_server_that_is_down_fail_together() {
    let Some(server) = server().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let store = open(hasty(on(proxy.url(&server.url())))).await;
    store.put("k", "v").await.unwrap();
    proxy.hang();
    proxy.reset().await;
    let begun = Instant::now();
    let calls = (0..200).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { kind(store.get(b"k").await) })
    });
    for call in calls.collect::<Vec<_>>() {
        let kind = in_time(call).await.unwrap();
        assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout), "{kind:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "one after the other it would be a minute");
    proxy.heal().await;
    assert_eq!(soon(|| store.get(b"k")).await, Some("v".into()));
}

/// A connection that the server closes while nothing is under way costs nobody an error.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_made_again() {
    let Some(mut server) = server().await else { return };
    let store = open(on(server.url())).await;
    for _ in 0..5 {
        store.put("k", "v").await.unwrap();
        server.cli(&["client", "kill", "type", "normal"]).await;
        pause(50).await;
        store.put("k", "w").await.unwrap();
        server.cli(&["client", "kill", "type", "normal"]).await;
        // Also at once: a read is repeated.
        assert_eq!(store.get(b"k").await.unwrap(), Some("w".into()));
    }
    server.restart().await;
    soon(|| store.write(Batch::new().put("a", "1").put("b", "2"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_waited_for() {
    let (Some(primary), Some(replica)) = (server().await, server().await) else { return };
    replica.cli(&["replicaof", "127.0.0.1", &primary.port().to_string()]).await;
    let store = open(hasty(RedisConfig { wait_replicas: 1, ..on(primary.url()) })).await;
    soon(|| store.put("k", "v")).await;
    assert_eq!(replica.cli(&["get", "k"]).await, "v");
    store.write(Batch::new().put("a", "1").put("b", "2")).await.unwrap();
    assert_eq!(replica.cli(&["mget", "a", "b"]).await, "1\n2");
    replica.stop();
    let error = in_time(store.put("k", "w")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("0 replicas"), "{error}");
    replica.cont();
}

/// A name that follows the primary is looked up again when a server says that it is none any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_became_a_replica_is_left() {
    let (Some(other), Some(server)) = (server().await, server().await) else { return };
    let proxy = Proxy::to(server.addr()).await;
    for wait_replicas in [0, 1] {
        let config = RedisConfig { wait_replicas, ..on(proxy.url(&server.url())) };
        let store = open(hasty(config)).await;
        let _ = store.put("k", "v").await;
        server.cli(&["replicaof", "127.0.0.1", &other.port().to_string()]).await;
        let before = proxy.counters();
        for _ in 0..3 {
            pause(1100).await;
            assert_eq!(kind(store.put("k", "w").await), ErrorKind::Access);
            // And not with every write.
            assert_eq!(kind(store.put("k", "w").await), ErrorKind::Access);
        }
        assert_eq!((proxy.counters() - before).connections, 3);
        server.cli(&["replicaof", "no", "one"]).await;
        close(&store).await;
    }
}

/// A read is made again. A write is not: the server has done it, and somebody may have written since.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost() {
    let Some(server) = server().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let store = open(on(proxy.url(&server.url()))).await;
    store.put("old", "1").await.unwrap();
    let slow = Duration::from_millis(700);
    proxy.delay(slow);
    let (reader, writer) = (Arc::clone(&store), Arc::clone(&store));
    let read = tokio::spawn(async move { reader.get(b"old").await });
    let write = tokio::spawn(async move {
        writer.write(Batch::new().put("new", "1").if_absent()).await.map(drop)
    });
    soon(|| async { (server.cli(&["exists", "new"]).await == "1").then_some(()).ok_or("not yet") })
        .await;
    proxy.delay(Duration::ZERO);
    proxy.reset().await;
    assert_eq!(in_time(read).await.unwrap().unwrap(), Some("1".into()));
    assert_eq!(kind(in_time(write).await.unwrap()), ErrorKind::Unavailable);
}
