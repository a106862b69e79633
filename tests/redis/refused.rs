//! What is refused, with words, before anything is written.

use tierstack::backends::redis::Survives;
use tierstack::units::Secret;
use tierstack::{BackendConfig, Batch, Durability, Read, StoreExt};

use super::*;

#[track_caller]
fn refuses(config: &RedisConfig, words: &str) {
    let error = config.profile().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(words), "{error}");
    assert!(!format!("{error:?} {config:?}").contains("s3cr3t"), "{error:?} {config:?}");
}

#[test]
fn settings_are_checked_before_anything_is_opened() {
    let local = || on("redis://localhost");
    refuses(&RedisConfig::default(), "`url` is missing");
    refuses(&RedisConfig { cluster: vec!["redis://a".into()], ..local() }, "exclude each other");
    refuses(&on("redis://:s3cr3t@localhost"), "does not stand in the address");
    refuses(&on("redis://me:s3cr3t@localhost"), "password: { env: NAME }");
    refuses(&on("unix:///run/redis?pass=s3cr3t"), "does not stand in the address");
    refuses(&on("http://s3cr3t"), "must look like");
    refuses(&on("redis://localhost/s3cr3t"), "not understood");
    refuses(&RedisConfig { ca: Some("ca.pem".into()), ..local() }, "rediss://");
    refuses(&RedisConfig { hash_tag: Some("{a}".into()), ..local() }, "no braces");
    refuses(&RedisConfig { timeout: Span(Duration::ZERO), ..local() }, "`timeout`");
    let cluster = RedisConfig::cluster(["redis://a:1"]);
    refuses(&RedisConfig { index: true, ..cluster }, "needs a `hash_tag`");
    refuses(&RedisConfig::cluster(["redis://a:1/3"]), "database 0 only");
}

#[tokio::test]
async fn credentials() {
    let Some(server) = Server::start(&["--requirepass", "s3cr3t"]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let secret = |text: &str| {
        let path = folder.path().join("password");
        std::fs::write(&path, text).unwrap();
        Some(Secret::File(path))
    };
    assert_eq!(kind(Redis::open(on(server.url())).await), ErrorKind::Access);
    let wrong = RedisConfig { password: secret("s3cr3t-no"), ..on(server.url()) };
    assert_eq!(kind(Redis::open(wrong).await), ErrorKind::Access);
    let store = open(RedisConfig { password: secret("s3cr3t"), ..on(server.url()) }).await;
    store.put("k", "v").await.unwrap();
    // The user may read, and not write.
    let auth = ["--no-auth-warning", "-a", "s3cr3t"];
    let rules = ["acl", "setuser", "reader", "on", ">s3cr3t", "~*", "+@all", "-set", "-evalsha"];
    server.cli(&[&auth[..], &rules[..]].concat()).await;
    let url = server.url().replace("redis://", "redis://reader@");
    let store = open(RedisConfig { password: secret("s3cr3t"), ..on(url) }).await;
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
    assert_eq!(kind(store.put("k", "w").await), ErrorKind::Access);
    assert_eq!(kind(store.delete("k").await), ErrorKind::Access);
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn databases_and_servers_of_another_kind() {
    let Some(server) = server().await else { return };
    assert_eq!(kind(Redis::open(on(format!("{}/99999", server.url()))).await), ErrorKind::Config);
    assert_eq!(kind(Redis::open(RedisConfig::cluster([server.url()])).await), ErrorKind::Config);
    let Some(node) = Server::start(&["--cluster-enabled", "yes", "--databases", "1"]).await else {
        return;
    };
    assert_eq!(kind(Redis::open(on(node.url())).await), ErrorKind::Config);
}

#[tokio::test]
async fn a_replica() {
    let (Some(primary), Some(other)) = (server().await, server().await) else { return };
    let store = open(on(other.url())).await;
    store.put("k", "v").await.unwrap();
    other.cli(&["replicaof", "127.0.0.1", &primary.port().to_string()]).await;
    assert_eq!(kind(store.put("k", "w").await), ErrorKind::Access);
    assert_eq!(
        kind(store.write(Batch::new().put("k", "w").put("l", "w")).await),
        ErrorKind::Access
    );
    let error = Redis::open(on(other.url())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access);
    assert!(error.to_string().contains("name the primary"), "{error}");
}

#[tokio::test]
async fn a_full_memory_refuses_batches_as_a_whole() {
    let Some(server) = server().await else { return };
    let store = open(on(server.url())).await;
    store.put("first", "1").await.unwrap();
    server.cli(&["config", "set", "maxmemory", "24mb"]).await;
    let mut written = 0;
    let error = loop {
        match store.put(format!("k{written}"), vec![7; 10_000]).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 10_000, "it does not get full");
    };
    assert_eq!(error.kind(), ErrorKind::Capacity, "{error:?}");
    assert!(error.to_string().contains("maxmemory"), "{error}");
    // What the last put was made of is free again, which may be enough for a small one.
    server.cli(&["config", "set", "maxmemory", "20mb"]).await;
    for batch in [
        Batch::new().put("a", "1").put("b", "2"),
        Batch::new().put("a", vec![1; 100_000]),
        Batch::new().put("a", "1").if_absent(),
    ] {
        assert_eq!(kind(store.write(batch).await), ErrorKind::Capacity);
        assert_eq!(store.get_many(&["a".into(), "b".into()]).await.unwrap(), [None, None]);
    }
    assert_eq!(store.get(b"first").await.unwrap(), Some("1".into()));
    for n in 0..written {
        assert!(store.get(format!("k{n}").as_bytes()).await.unwrap().is_some(), "k{n}");
    }
    // Deleting works, and makes room.
    for n in 0..written {
        store.delete(format!("k{n}")).await.unwrap();
    }
    store.write(Batch::new().put("a", "1").put("b", "2")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_evicts() {
    let limits = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let Some(server) = Server::start(&limits).await else { return };
    let error = Redis::open(on(server.url())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("evicts: true"), "{error}");
    let store = open(RedisConfig { evicts: true, ..on(server.url()) }).await;
    assert!(store.profile().notes.iter().any(|note| note.contains("evict")));
}

#[tokio::test]
async fn what_the_server_does_not_keep() {
    let Some(server) = server().await else { return };
    let config = |durability| RedisConfig { durability, ..on(server.url()) };
    let opened = async |durability| Redis::open(config(durability)).await;
    let no = |result: Result<Redis>, words: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(words), "{error}");
    };
    no(opened(Survives::ProcessCrash).await, "appendonly yes");
    server.cli(&["config", "set", "appendonly", "yes"]).await;
    no(opened(Survives::ProcessCrash).await, "up to 2 seconds");
    no(opened(Survives::PowerCut).await, "appendfsync always");
    server.cli(&["config", "set", "appendfsync", "no"]).await;
    assert_eq!(
        opened(Survives::ProcessCrash).await.unwrap().profile().guarantees.durability,
        Durability::ProcessCrash
    );
    no(opened(Survives::PowerCut).await, "appendfsync always");
    server.cli(&["config", "set", "appendfsync", "always"]).await;
    let store = opened(Survives::PowerCut).await.unwrap();
    let batch = Batch::new().put("k", "v").durability(Durability::PowerCut);
    store.write(batch).await.unwrap();
}

#[tokio::test]
async fn a_value_over_the_servers_own_limit() {
    let Some(server) = Server::start(&["--proto-max-bulk-len", "2mb"]).await else { return };
    let store = open(on(server.url())).await;
    store.put("k", vec![1; 2_000_000]).await.unwrap();
    let error = store.put("k", vec![1; 3 << 20]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(store.get(b"k").await.unwrap().unwrap().bytes.len(), 2_000_000);
}
