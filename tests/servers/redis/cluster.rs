//! A cluster: slots, nodes that fail and come back, slots that move.

use tierstack::backends::redis::Survives;
use tierstack::{Batch, Read, ReadExt, Scan, StoreExt};

use super::faults::{Load, all_there};
use super::*;
use crate::support::RedisCluster;

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_atomic_in_one_slot_and_refused_across() {
    let Some(cluster) = RedisCluster::start(3, 0).await else { return };
    let store = open(RedisConfig::cluster([cluster.nodes[1].url()])).await;
    store.write(Batch::new().put("{u}a", "1").put("{u}b", "2")).await.unwrap();
    assert_eq!(
        kind(store.write(Batch::new().put("{u}c", "1").put("{v}c", "2")).await),
        ErrorKind::Unsupported
    );
    let taken = Batch::new().put("{u}c", "1").put("{u}b", "3").if_absent();
    assert_eq!(kind(store.write(taken).await), ErrorKind::Conflict);
    let keys = ["{u}a", "{u}b", "{u}c", "{v}c"].map(bytes::Bytes::from);
    let found = store.get_many(&keys).await.unwrap();
    assert_eq!(found, [Some("1".into()), Some("2".into()), None, None]);
    // Bulk reads gather what the nodes have, in the order of the keys.
    let keys: Vec<bytes::Bytes> = (0..500).map(|n| format!("key-{n}").into()).collect();
    for key in &keys {
        store.put(key.clone(), key.clone()).await.unwrap();
    }
    let found = store.get_many(&keys).await.unwrap();
    assert!(found.iter().zip(&keys).all(|(found, key)| found.as_ref().unwrap().bytes == key));
    assert_eq!(store.usage().await.unwrap().entries, Some(502));
}

/// Without replicas: a node that was killed has what it acknowledged when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_killed_and_brought_back() {
    let settings = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut cluster) = RedisCluster::start_with(3, 0, &settings).await else { return };
    let config =
        RedisConfig { durability: Survives::PowerCut, ..RedisConfig::cluster(cluster.urls()) };
    let store = open(hasty(config)).await;
    let load = Load::begin(&store);
    load.more(301).await;
    let gone = cluster.master_of("probe").await;
    cluster.nodes[gone].kill();
    let error = soon(|| async {
        match store.put("probe", "1").await {
            Ok(_) => Err("it still works"),
            Err(error) => Ok(error),
        }
    })
    .await;
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    cluster.nodes[gone].restart().await;
    cluster.wait_until_ok().await;
    soon(|| store.put("probe", "2")).await;
    let (acknowledged, failed) = load.end().await;
    assert!(acknowledged.len() > 300 && failed > 0, "{} {failed}", acknowledged.len());
    all_there(&store, &acknowledged).await;
}

/// With replicas that every write waits for, the successor of a node has what that acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_over() {
    let Some(mut cluster) = RedisCluster::start(3, 1).await else { return };
    let config = RedisConfig { wait_replicas: 1, ..RedisConfig::cluster(cluster.urls()) };
    let store = open(hasty(config)).await;
    soon(|| store.put("probe", "0")).await;
    let load = Load::begin(&store);
    load.more(301).await;
    let gone = cluster.master_of("probe").await;
    cluster.nodes[gone].kill();
    // Its successor has no replica until the node is back, so a write is done, and not acknowledged.
    soon(|| store.get(b"probe")).await;
    let node = cluster.master_of("probe").await;
    assert_ne!(node, gone);
    cluster.nodes[gone].restart().await;
    cluster.wait_until_ok().await;
    soon(|| store.put("probe", "2")).await;
    let (acknowledged, failed) = load.end().await;
    assert!(acknowledged.len() > 300 && failed > 0, "{} {failed}", acknowledged.len());
    all_there(&store, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_is_replaced() {
    let Some(cluster) = RedisCluster::start(3, 1).await else { return };
    let store = open(hasty(RedisConfig::cluster(cluster.urls()))).await;
    store.put("probe", "0").await.unwrap();
    let gone = cluster.master_of("probe").await;
    cluster.nodes[gone].stop();
    // The others are served meanwhile.
    let elsewhere = ["a", "b", "c", "d", "e"];
    let mut served = 0;
    for key in elsewhere {
        served += usize::from(in_time(store.put(key, "1")).await.is_ok());
    }
    assert!(served > 0);
    soon(|| store.put("probe", "1")).await;
    cluster.nodes[gone].cont();
    cluster.wait_until_ok().await;
    assert_eq!(soon(|| store.get(b"probe")).await, Some("1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_while_they_are_in_use() {
    let Some(cluster) = RedisCluster::start(3, 0).await else { return };
    let config = || RedisConfig::cluster(cluster.urls());
    let store = open(config()).await;
    let tagged = RedisConfig { hash_tag: Some("probe".into()), index: true, ..config() };
    let tagged = open(tagged).await;
    for n in 0..50 {
        store.put(format!("{{probe}}:{n}"), "1").await.unwrap();
        tagged.put(format!("{n}"), "1").await.unwrap();
    }
    let load = Load::begin(&store);
    let from = &cluster.nodes[cluster.master_of("probe").await];
    let to = &cluster.nodes[(cluster.master_of("probe").await + 1) % 3];
    let slot = from.cli(&["cluster", "keyslot", "probe"]).await;
    let (from_id, to_id) =
        (from.cli(&["cluster", "myid"]).await, to.cli(&["cluster", "myid"]).await);
    to.cli(&["cluster", "setslot", &slot, "importing", &from_id]).await;
    from.cli(&["cluster", "setslot", &slot, "migrating", &to_id]).await;
    // Half of the keys have moved: the one node asks for the other.
    let port = to.port().to_string();
    for n in 0..25 {
        let key = format!("{{probe}}:{n}");
        from.cli(&["migrate", "127.0.0.1", &port, &key, "0", "5000"]).await;
    }
    for n in [0, 24, 25, 49] {
        let key = format!("{{probe}}:{n}");
        assert_eq!(store.get(key.as_bytes()).await.unwrap(), Some("1".into()), "{key}");
        store.put(key.clone(), "2").await.unwrap();
        assert_eq!(store.get_many(&[key.clone().into()]).await.unwrap(), [Some("2".into())]);
    }
    // A batch of keys on both sides has to wait.
    let batch = || Batch::new().put("{probe}:0", "3").put("{probe}:49", "3");
    assert_eq!(kind(store.write(batch()).await), ErrorKind::Unavailable);
    let keys = from.cli(&["cluster", "getkeysinslot", &slot, "1000"]).await;
    for key in keys.lines() {
        from.cli(&["migrate", "127.0.0.1", &port, key, "0", "5000"]).await;
    }
    for node in [to, from] {
        node.cli(&["cluster", "setslot", &slot, "node", &to_id]).await;
    }
    store.write(batch()).await.unwrap();
    assert_eq!(store.get(b"{probe}:0").await.unwrap(), Some("3".into()));
    // What the other store wrote begins with the tag as well. Not every node knows at once where the slot is.
    let found = soon(|| tagged.collect(Scan::all())).await;
    assert_eq!(found.len(), 100);
    tagged.put("new", "1").await.unwrap();
    let (acknowledged, _) = load.end().await;
    all_there(&store, &acknowledged).await;
}

/// A node that has the index already, and entries not yet, takes them for gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_moves_loses_nothing() {
    let Some(cluster) = RedisCluster::start(3, 0).await else { return };
    let config = RedisConfig {
        hash_tag: Some("t".into()),
        index: true,
        ..RedisConfig::cluster(cluster.urls())
    };
    let store = open(hasty(config)).await;
    for n in 0..20 {
        store.put(format!("{n:02}"), "1").await.unwrap();
    }
    let at = cluster.master_of("t").await;
    let (from, to) = (&cluster.nodes[at], &cluster.nodes[(at + 1) % 3]);
    let slot = from.cli(&["cluster", "keyslot", "t"]).await;
    let (from_id, to_id) =
        (from.cli(&["cluster", "myid"]).await, to.cli(&["cluster", "myid"]).await);
    to.cli(&["cluster", "setslot", &slot, "importing", &from_id]).await;
    from.cli(&["cluster", "setslot", &slot, "migrating", &to_id]).await;
    let port = to.port().to_string();
    let migrate =
        async |key: &str| from.cli(&["migrate", "127.0.0.1", &port, key, "0", "5000"]).await;
    for first in ["{t}tierstack:index", "{t}07"] {
        assert_eq!(migrate(first).await, "OK");
        // It is said, or done wholly.
        for order in [Scan::all(), Scan::all().reverse()] {
            match store.collect(order).await {
                Ok(found) => assert_eq!(found.len(), 20),
                Err(error) => assert_eq!(
                    (error.kind(), error.retry()),
                    (ErrorKind::Unavailable, tierstack::Retry::Later),
                    "{error:?}"
                ),
            }
        }
        if let Err(error) = store.compact().await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        }
    }
    for n in 0..20 {
        migrate(&format!("{{t}}{n:02}")).await;
    }
    for node in [to, from] {
        node.cli(&["cluster", "setslot", &slot, "node", &to_id]).await;
    }
    assert_eq!(soon(|| store.collect(Scan::all())).await.len(), 20);
}

/// A node that was separated from the others does not know which node serves what.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_others_is_not_believed() {
    let Some(cluster) = RedisCluster::start(3, 0).await else { return };
    let alone = ["--cluster-enabled", "yes", "--databases", "1"];
    let Some(alone) = Server::start(&alone).await else { return };
    alone.cli(&["cluster", "addslotsrange", "0", "8000"]).await;
    let urls: Vec<String> = cluster.urls().into_iter().chain([alone.url()]).collect();
    for _ in 0..25 {
        let store = open(RedisConfig::cluster(urls.clone())).await;
        for key in ["a", "b", "c", "d"] {
            store.put(key, "1").await.unwrap();
        }
        close(&store).await;
    }
    let error = Redis::open(RedisConfig::cluster([alone.url()])).await;
    assert_eq!(kind(error), ErrorKind::Unavailable);
}
