//! The change feed of what others change.

use futures_util::StreamExt;
use tierstack::config::{Config, Format, Registry};
use tierstack::{Change, Changes, Clock, OpenOptions, Read, Stack, StoreExt, SystemClock, Value};
use tokio::time::Instant;

use super::meddler::Meddler;
use super::*;
use crate::support::{Proxy, RedisCluster};

async fn next(changes: &mut Changes) -> Change {
    in_time(changes.next()).await.expect("the change feed ends when the store is closed")
}

/// Waits until a change of the key is reported, by name or as one of all.
async fn about(changes: &mut Changes, key: &str) {
    loop {
        match next(changes).await {
            Change::Keys(keys) if keys.iter().any(|found| found == key) => return,
            Change::All => return,
            _ => {}
        }
    }
}

/// Waits for exactly that, past changes of keys.
async fn until(changes: &mut Changes, want: &Change) {
    loop {
        let change = next(changes).await;
        if change == *want {
            return;
        }
        assert!(matches!(change, Change::Keys(_)), "{change:?} in place of {want:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_and_another_program() {
    // With thousands of databases, as other tests use, it takes minutes until one is searched for what has
    // expired.
    let Some(server) = Server::start(&["--databases", "16"]).await else { return };
    let config = || RedisConfig { change_feed: true, ..on(server.url()) };
    let (one, other) = (open(config()).await, open(config()).await);
    let mut changes = one.changes().await.unwrap();
    let mut late = Vec::new();
    for n in 0..200 {
        let key = format!("key-{n}");
        let begun = Instant::now();
        other.put(key.clone(), "v").await.unwrap();
        about(&mut changes, &key).await;
        late.push(begun.elapsed());
        assert_eq!(one.get(key.as_bytes()).await.unwrap(), Some("v".into()));
    }
    late.sort();
    println!("write to report: median {:?}, longest {:?}", late[100], late[199]);
    server.cli(&["set", "key-1", "w"]).await;
    about(&mut changes, "key-1").await;
    server.cli(&["del", "key-2"]).await;
    about(&mut changes, "key-2").await;
    server.cli(&["pexpire", "key-3", "100"]).await;
    about(&mut changes, "key-3").await;
    // And when it is over: the server looks for what has expired by itself.
    about(&mut changes, "key-3").await;
    let soon = SystemClock.now() + Duration::from_millis(50);
    other.put("brief", Value::new("v").expiring_at(soon)).await.unwrap();
    about(&mut changes, "brief").await;
    server.cli(&["flushdb"]).await;
    until(&mut changes, &Change::All).await;
    one.close().await.unwrap();
    assert_eq!(in_time(changes.collect::<Vec<_>>()).await.last(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_stores_that_share_a_server_each_hears_of_its_own_keys() {
    let Some(server) = Server::start(&["--databases", "16"]).await else { return };
    let backend = format!("redis: {{ url: '{}', change_feed: true }}", server.url());
    support::sharing::each_hears_of_its_own(&backend, async |key, value| {
        server.cli(&["set", key, value]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_and_made_again() {
    let Some(server) = server().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let config = RedisConfig { change_feed: true, ..on(proxy.url(&server.url())) };
    let store = open(hasty(config)).await;
    let within = store.profile().guarantees.change_feed.unwrap();
    let mut changes = store.changes().await.unwrap();
    for silent in [false, true] {
        let begun = Instant::now();
        if silent {
            proxy.hang();
        } else {
            proxy.cut().await;
        }
        until(&mut changes, &Change::Lost).await;
        println!("lost after {:?} of {within:?}, silent: {silent}", begun.elapsed());
        server.cli(&["set", "missed", "1"]).await;
        proxy.heal().await;
        until(&mut changes, &Change::All).await;
        assert_eq!(soon(|| store.get(b"missed")).await, Some("1".into()));
        server.cli(&["set", "seen", "1"]).await;
        about(&mut changes, "seen").await;
    }
}

/// The connection answers, and says nothing of changes any more.
#[tokio::test(flavor = "multi_thread")]
async fn tracking_that_somebody_ended_is_told_and_begun_again() {
    let Some(server) = server().await else { return };
    let proxy = Meddler::to(server.addr()).await;
    let store = open(RedisConfig { change_feed: true, ..on(proxy.url()) }).await;
    let mut changes = store.changes().await.unwrap();
    for (command, answer) in
        [("CLIENT TRACKING OFF\r\n", "+OK\r\n".len()), ("RESET\r\n", "+RESET\r\n".len())]
    {
        proxy.say(command, answer).await;
        until(&mut changes, &Change::Lost).await;
        until(&mut changes, &Change::All).await;
        server.cli(&["set", "seen", "1"]).await;
        about(&mut changes, "seen").await;
    }
}

/// An address that is given to another server takes the reads there, while the old one reports nothing that
/// concerns them.
#[tokio::test(flavor = "multi_thread")]
async fn reads_that_lead_to_another_server_are_noticed() {
    let (Some(old), Some(new)) = (server().await, server().await) else { return };
    let proxy = Meddler::to(old.addr()).await;
    let store = open(RedisConfig { change_feed: true, ..on(proxy.url()) }).await;
    let mut changes = store.changes().await.unwrap();
    proxy.lead_to(new.addr());
    proxy.cut_reads();
    new.cli(&["set", "k", "new"]).await;
    soon(|| async {
        let found = store.get(b"k").await.unwrap_or_default();
        (found == Some("new".into())).then_some(()).ok_or(found)
    })
    .await;
    until(&mut changes, &Change::Lost).await;
    until(&mut changes, &Change::All).await;
    new.cli(&["set", "k", "newer"]).await;
    about(&mut changes, "k").await;
    assert_eq!(soon(|| store.get(b"k")).await, Some("newer".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_became_a_replica_announces_nothing() {
    let (Some(server), Some(other)) = (server().await, server().await) else { return };
    let store = open(hasty(RedisConfig { change_feed: true, ..on(server.url()) })).await;
    let mut changes = store.changes().await.unwrap();
    server.cli(&["replicaof", "127.0.0.1", &other.port().to_string()]).await;
    while next(&mut changes).await != Change::Lost {}
    server.cli(&["replicaof", "no", "one"]).await;
    while next(&mut changes).await != Change::All {}
    server.cli(&["set", "seen", "1"]).await;
    about(&mut changes, "seen").await;
}

/// Of which the server reports nothing.
#[tokio::test(flavor = "multi_thread")]
async fn swapped_databases_are_told() {
    let Some(server) = server().await else { return };
    server.cli(&["swapdb", "1", "2"]).await;
    let store = open(RedisConfig { change_feed: true, ..on(server.url()) }).await;
    let mut changes = store.changes().await.unwrap();
    server.cli(&["-n", "1", "set", "k", "other"]).await;
    for _ in 0..2 {
        server.cli(&["swapdb", "0", "1"]).await;
        until(&mut changes, &Change::All).await;
    }
    assert_eq!(store.get(b"k").await.unwrap(), None);
}

/// What moves to a node that has no slot yet is there before the slot is.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_slots_announces_what_moves_there() {
    let Some(cluster) = RedisCluster::start(3, 0).await else { return };
    let settings = ["--databases", "1", "--cluster-enabled", "yes"];
    let Some(empty) = Server::start(&settings).await else { return };
    let config = RedisConfig { change_feed: true, ..RedisConfig::cluster(cluster.urls()) };
    let store = open(hasty(config)).await;
    store.put("k", "1").await.unwrap();
    let mut changes = store.changes().await.unwrap();
    let from = &cluster.nodes[cluster.master_of("k").await];
    empty.cli(&["cluster", "meet", "127.0.0.1", &from.port().to_string()]).await;
    until(&mut changes, &Change::Lost).await;
    until(&mut changes, &Change::All).await;
    let (slot, ids) = (
        from.cli(&["cluster", "keyslot", "k"]).await,
        [from.cli(&["cluster", "myid"]).await, empty.cli(&["cluster", "myid"]).await],
    );
    // The two may not have shaken hands yet.
    for (node, what, other) in [(&empty, "importing", &ids[0]), (from, "migrating", &ids[1])] {
        soon(|| async {
            let said = node.cli(&["cluster", "setslot", &slot, what, other]).await;
            (said == "OK").then_some(()).ok_or(said)
        })
        .await;
    }
    let port = empty.port().to_string();
    soon(|| async {
        let said = from.cli(&["migrate", "127.0.0.1", &port, "k", "0", "5000"]).await;
        (said == "OK").then_some(()).ok_or(said)
    })
    .await;
    about(&mut changes, "k").await;
    // It is redirected there, though the slot is not.
    store.put("{k}new", "2").await.unwrap();
    about(&mut changes, "{k}new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_falls_behind_is_told_to_drop_everything() {
    let Some(server) = server().await else { return };
    let store = open(RedisConfig { change_feed: true, ..on(server.url()) }).await;
    let mut changes = store.changes().await.unwrap();
    let script = "for n = 1, 50000 do redis.call('set', 'k' .. n, n) end";
    server.cli(&["eval", script, "0"]).await;
    // On a slow machine the server is busy for so long that it seems to be lost.
    while next(&mut changes).await != Change::All {}
    server.cli(&["set", "seen", "1"]).await;
    about(&mut changes, "seen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_of_a_cluster_announces_and_so_does_its_successor() {
    let Some(mut cluster) = RedisCluster::start(3, 1).await else { return };
    let config = RedisConfig { change_feed: true, ..RedisConfig::cluster(cluster.urls()) };
    let store = open(hasty(config)).await;
    let mut changes = store.changes().await.unwrap();
    for key in ["a", "b", "c", "d", "e", "f"] {
        let node = &cluster.nodes[cluster.master_of(key).await];
        node.cli(&["set", key, "1"]).await;
        about(&mut changes, key).await;
    }
    let gone = cluster.master_of("a").await;
    cluster.nodes[gone].kill();
    until(&mut changes, &Change::Lost).await;
    until(&mut changes, &Change::All).await;
    soon(|| async {
        let node = cluster.master_of("a").await;
        (node != gone).then_some(()).ok_or("the replica has not taken over")
    })
    .await;
    let node = &cluster.nodes[cluster.master_of("a").await];
    node.cli(&["set", "a", "2"]).await;
    about(&mut changes, "a").await;
    cluster.nodes[gone].restart().await;
}

/// A cache above drops what another program changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_above_hears_of_it() {
    let Some(server) = server().await else { return };
    let text = format!(
        "stores: {{ main: {{ layers: [{{ cache: {{ capacity: 1MiB, ttl: 1h }} }}], backend: {{ redis: {{ url: '{}', change_feed: true }} }} }} }}",
        server.url()
    );
    let config = Config::parse(&text, Format::Yaml, "tierstack.yaml").unwrap();
    let options = OpenOptions { seed: 1, ..OpenOptions::default() };
    let stack = Stack::open(&config, None, &Registry::standard(), &options).await.unwrap();
    for round in 0..20 {
        let now = round.to_string();
        server.cli(&["set", "k", &now]).await;
        soon(|| async {
            let found = stack.get(b"k").await.unwrap();
            (found == Some(now.clone().into())).then_some(()).ok_or(found)
        })
        .await;
    }
    let read = async || -> u64 {
        let told = server.cli(&["info", "commandstats"]).await;
        let (_, rest) = told.split_once("cmdstat_get:calls=").unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    };
    let before = read().await;
    for _ in 0..100 {
        stack.get(b"k").await.unwrap();
    }
    assert!(read().await < before + 50, "nothing was cached");
    stack.close().await.unwrap();
}
