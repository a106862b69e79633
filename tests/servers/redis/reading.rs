//! Scans without an index, and stores that only read.

use std::collections::BTreeSet;

use tierstack::backends::redis::{Foreign, ScanBy};
use tierstack::units::Secret;
use tierstack::{BackendConfig, Batch, Freshness, Read, ReadExt, Scan, StoreExt};

use super::*;
use crate::support::RedisCluster;

fn sorted(config: RedisConfig) -> RedisConfig {
    RedisConfig { scan: Some(ScanBy::Sorted), ..config }
}

async fn keys(store: &Redis, scan: Scan) -> Vec<String> {
    let found = store.collect(scan).await.unwrap();
    found.into_iter().map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()).collect()
}

/// Every key of the database, with what it holds.
async fn contents(server: &Server) -> String {
    let keys = server.cli(&["keys", "*"]).await;
    let keys: BTreeSet<&str> = keys.lines().collect();
    let lines = keys.iter().map(|key| format!("pexpiretime {key}\ndump {key}\n"));
    let told = server.cli_lines(&lines.collect::<String>()).await;
    format!("{keys:?}: {told}")
}

#[tokio::test]
async fn a_sorted_scan_changes_nothing_and_counts_what_is_no_entry() {
    let Some(server) = server().await else { return };
    let mut lines = String::new();
    for n in 0..3000 {
        lines += &format!("set key-{n:05} {n}\n");
    }
    server.cli_lines(&lines).await;
    server.cli(&["rpush", "list", "1"]).await;
    server.cli(&["hset", "hash", "name", "Ada"]).await;
    let before = contents(&server).await;
    let store = open(sorted(on(server.url()))).await;
    assert!(store.profile().guarantees.ordered_scans);
    let error = store.collect(Scan::all()).await.unwrap_err();
    assert!(error.to_string().contains("2 keys of another type than a string"), "{error}");
    server.cli(&["config", "resetstat"]).await;
    let range = Scan::range("key-00100".."key-00200").reverse().page_entries(7);
    let found = keys(&store, range).await;
    let mut want: Vec<_> = (100..200).map(|n| format!("key-{n:05}")).collect();
    want.reverse();
    assert_eq!(found, want);
    assert_eq!(keys(&store, Scan::prefix("key-0001").keys_only().limit(3)).await.len(), 3);
    let told = server.cli(&["info", "commandstats"]).await;
    assert!(told.contains("cmdstat_scan") && !told.contains("cmdstat_eval"), "{told}");

    let skipping = open(sorted(RedisConfig { foreign: Foreign::Skip, ..on(server.url()) })).await;
    let all = skipping.collect(Scan::all()).await.unwrap();
    assert_eq!(all.len(), 3000);
    assert!(all.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(all[42].value, "42".into());
    assert!(contents(&server).await == before, "the database was changed");
}

#[tokio::test]
async fn a_sorted_scan_under_a_tag_gives_its_own_entries() {
    let Some(server) = server().await else { return };
    server.cli(&["set", "other", "x"]).await;
    let store = open(sorted(RedisConfig { hash_tag: Some("a*".into()), ..on(server.url()) })).await;
    for key in ["b", "a", "c"] {
        store.put(key, "v").await.unwrap();
    }
    assert_eq!(keys(&store, Scan::all()).await, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_scanned_without_a_tag() {
    let Some(cluster) = RedisCluster::start(3, 0).await else { return };
    let store = open(sorted(RedisConfig::cluster([cluster.nodes[1].url()]))).await;
    let mut want: Vec<String> = (0..2000).map(|n| format!("key-{n}")).collect();
    for key in &want {
        store.put(key.clone(), key.clone()).await.unwrap();
    }
    want.sort();
    assert_eq!(keys(&store, Scan::all()).await, want);
    want.reverse();
    assert_eq!(keys(&store, Scan::all().reverse().page_entries(300)).await, want);

    // Of a slot that is on its way, keys could be missed.
    let owner = cluster.master_of("probe").await;
    let slot = cluster.nodes[owner].cli(&["cluster", "keyslot", "probe"]).await;
    let id = cluster.nodes[(owner + 1) % 3].cli(&["cluster", "myid"]).await;
    cluster.nodes[owner].cli(&["cluster", "setslot", &slot, "migrating", &id]).await;
    let error = store.collect(Scan::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("slots of the cluster are moving"), "{error}");
    cluster.nodes[owner].cli(&["cluster", "setslot", &slot, "stable"]).await;
    assert_eq!(keys(&store, Scan::all()).await.len(), 2000);
}

#[track_caller]
fn refused(error: &tierstack::Error) {
    assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    assert!(error.message().contains("`read_only"), "{error}");
}

async fn only_reads(store: &Redis) {
    refused(&store.put("k", "w").await.unwrap_err());
    refused(&store.write_group(vec![Batch::new().delete("k")]).await.remove(0).unwrap_err());
    refused(&store.compact().await.unwrap_err());
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
    assert_eq!(store.get_many(&["k".into(), "no".into()]).await.unwrap(), [Some("v".into()), None]);
    assert_eq!(keys(store, Scan::all()).await, ["k", "l"]);
    assert_eq!(store.usage().await.unwrap().entries, Some(2));
}

#[tokio::test]
async fn a_user_who_only_reads_scans_and_changes_nothing() {
    let Some(server) = server().await else { return };
    server.cli_lines("set k v\nset l w\n").await;
    let rights = "reader on >pass ~* +@read +@connection +multi +exec +info +select";
    server.cli(&[&["acl", "setuser"], &rights.split(' ').collect::<Vec<_>>()[..]].concat()).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "pass").unwrap();
    let url = server.url().replace("redis://", "redis://reader@");
    let config =
        RedisConfig { read_only: true, password: Some(Secret::File(password)), ..sorted(on(url)) };
    let before = contents(&server).await;
    let store = open(config).await;
    only_reads(&store).await;
    assert!(contents(&server).await == before);
    // What the server's largest value is, is asked of every server, and need not be answered.
    let denied = server.cli(&["acl", "log"]).await;
    let lines: Vec<&str> = denied.lines().collect();
    let objects = lines.windows(2).filter(|pair| pair[0] == "object").map(|pair| pair[1]);
    let objects: BTreeSet<&str> = objects.collect();
    assert!(objects.iter().all(|object| *object == "config|get"), "{objects:?}");
}

#[tokio::test]
async fn a_replica_is_read_where_that_was_asked_for() {
    let (Some(primary), Some(replica)) = (server().await, server().await) else { return };
    primary.cli_lines("set k v\nset l w\n").await;
    replica.cli(&["replicaof", "127.0.0.1", &primary.port().to_string()]).await;
    let config = || RedisConfig { read_only: true, ..sorted(on(replica.url())) };
    assert_eq!(config().profile().unwrap().guarantees.freshness, Freshness::Unbounded);
    let store = open(config()).await;
    soon(|| async {
        match store.get(b"l").await.unwrap() {
            Some(_) => Ok(()),
            None => Err("it is not there yet"),
        }
    })
    .await;
    only_reads(&store).await;
    let error = Redis::open(on(replica.url())).await.unwrap_err();
    refused(&error);
    // One that lost its primary may be behind by any time.
    replica.cli(&["replicaof", "127.0.0.1", "1"]).await;
    let error = Redis::open(config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let on = || on("redis://127.0.0.1:1");
    for (config, word) in [
        (sorted(RedisConfig { index: true, ..on() }), "leave `scan: sorted` out"),
        (RedisConfig { index: true, read_only: true, ..on() }, "`scan: sorted`"),
        (RedisConfig { change_feed: true, read_only: true, ..on() }, "`change_feed`"),
    ] {
        let error = config.profile().unwrap_err();
        assert!(error.message().contains(word), "{error}");
    }
}
