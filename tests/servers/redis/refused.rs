//! What is refused, with words, before anything is written.

use tierstack::backends::redis::Survives;
use tierstack::units::Secret;
use tierstack::{
    BackendConfig, Batch, Context, Durability, Entry, Operation, Page, Read, ReadExt, Scan,
    StoreExt,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
    refuses(&on("redis://:s3cr3t@localhost"), "must not be in the address");
    refuses(&on("redis://me:s3cr3t@localhost"), "password: { env: NAME }");
    refuses(&on("unix:///run/redis?pass=s3cr3t"), "must not be in the address");
    refuses(&on("http://s3cr3t"), "must look like");
    refuses(&on("redis://localhost/s3cr3t"), "not understood");
    refuses(&RedisConfig { ca: Some("ca.pem".into()), ..local() }, "rediss://");
    refuses(&RedisConfig { hash_tag: Some("{a}".into()), ..local() }, "no braces");
    refuses(&RedisConfig { timeout: Span(Duration::ZERO), ..local() }, "`timeout`");
    let cluster = RedisConfig::cluster(["redis://a:1"]);
    refuses(&RedisConfig { index: true, ..cluster }, "needs a `hash_tag`");
    refuses(&RedisConfig::cluster(["redis://a:1/3"]), "database 0 only");
    refuses(&RedisConfig::cluster(["redis://a:1", "redis://:s3cr3t@b:1"]), "{ env: NAME }");
}

#[test]
fn a_password_that_is_refused_is_not_printed_with_its_address() {
    for url in ["redis://me:s3cr3t@localhost", "unix:///run/redis?pass=s3cr3t"] {
        let config = on(url);
        refuses(&config, "must not be in the address");
        assert_eq!(format!("{:?}", config.url), "Some(Plain(<redacted>))");
    }
}

const NOWHERE: &str = "TIERSTACK_NO_SUCH_VARIABLE";

/// What it says is known when the store is opened.
#[tokio::test]
async fn an_address_that_is_elsewhere_is_not_read_by_a_check() {
    let config = on(Secret::Env(NOWHERE.into()));
    assert!(!config.profile().unwrap().guarantees.ordered_scans);
    let cluster = RedisConfig::cluster([Secret::Env(NOWHERE.into())]);
    cluster.profile().unwrap();
    for config in [config, cluster] {
        let error = Redis::open(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(NOWHERE), "{error}");
    }
}

#[tokio::test]
async fn an_address_that_is_elsewhere_is_checked_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context { folder: folder.path().into(), ..Context::default() };
    let url = || Secret::File("url".into());
    for (text, config, words) in [
        ("http://:s3cr3t@h", on(url()), "must look like"),
        ("redis://:s3cr3t@h/x", on(url()), "not understood"),
        ("redis://:s3cr3t@h/3", RedisConfig::cluster([url()]), "database 0 only"),
        ("redis://:s3cr3t@h", RedisConfig { ca: Some("url".into()), ..on(url()) }, "rediss://"),
        ("redis://:s3cr3t@h", RedisConfig { password: Some(url()), ..on(url()) }, "both hold"),
    ] {
        std::fs::write(folder.path().join("url"), text).unwrap();
        config.profile().unwrap();
        let error = config.open(&context).await.map(drop).unwrap_err();
        assert_eq!(error.operation(), Some(Operation::Open));
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(kind(Err::<(), _>(error)), ErrorKind::Config);
    }
}

const ADDRESS: &str = "TIERSTACK_REDIS_TEST_ADDRESS";

/// Opens the server by an address with a password: in a file, and in a process whose environment has it.
#[tokio::test]
async fn an_address_with_a_password_is_read_from_elsewhere() {
    let store = |config: RedisConfig, context: Context| async move {
        let store = config.open(&context).await.unwrap();
        assert_eq!(store.profile(), config.profile().unwrap());
        store
    };
    let env = || Secret::Env(ADDRESS.into());
    if std::env::var_os(ADDRESS).is_some() {
        store(on(env()), Context::default()).await.put("k", "by the child").await.unwrap();
        return;
    }
    let Some(server) = Server::start(&["--requirepass", "s3cr3t"]).await else { return };
    let url = server.url().replace("redis://", "redis://:s3cr3t@");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("url"), format!("{url}\n")).unwrap();
    let context = Context { folder: folder.path().into(), ..Context::default() };
    let store = store(on(Secret::File("url".into())), context).await;
    assert_eq!(store.get(b"k").await.unwrap(), None);
    let test = "redis::refused::an_address_with_a_password_is_read_from_elsewhere";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(ADDRESS, url);
    let ran = child.output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(store.get(b"k").await.unwrap(), Some("by the child".into()));
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    // Nobody listens on a port that was just given back.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    drop(listener);
    // It greets, and hangs up when it is asked something.
    let rude = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rude_url = format!("redis://{}", rude.local_addr().unwrap());
    let hanging_up = tokio::spawn(async move {
        while let Ok((mut socket, _)) = rude.accept().await {
            assert_ne!(socket.read(&mut [0; 4096]).await.unwrap(), 0);
            socket.write_all(b"%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n").await.unwrap();
            assert_ne!(socket.read(&mut [0; 4096]).await.unwrap(), 0);
        }
    });
    for url in [url, rude_url] {
        for config in [on(url.clone()), RedisConfig::cluster([url])] {
            let error = Redis::open(config).await.unwrap_err();
            assert_eq!(error.operation(), Some(Operation::Open), "{error}");
            assert_eq!(kind(Err::<(), _>(error)), ErrorKind::Unavailable);
        }
    }
    hanging_up.abort();
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
    let auth = ["--no-auth-warning", "-a", "s3cr3t"];
    let by = |user: &str| {
        let url = server.url().replace("redis://", &format!("redis://{user}@"));
        RedisConfig { password: secret("s3cr3t"), ..on(url) }
    };
    // What the page of the documentation asks for is enough.
    let rules = "+@read +@write +@scripting +@transaction +@connection +info +select";
    let rules: Vec<&str> = rules.split(' ').collect();
    let user = ["acl", "setuser", "least", "on", ">s3cr3t", "~*"];
    server.cli(&[&auth[..], &user, &rules].concat()).await;
    let least = open(RedisConfig { change_feed: true, index: true, ..by("least") }).await;
    least.write(Batch::new().put("k", "v").put("l", "w")).await.unwrap();
    least.delete("l").await.unwrap();
    assert_eq!(least.get_many(&["k".into(), "l".into()]).await.unwrap(), [Some("v".into()), None]);
    assert_eq!(least.collect(Scan::all()).await.unwrap().len(), 1);
    assert_eq!(least.usage().await.unwrap().entries, Some(1));
    drop(least.changes().await.unwrap());
    // What the settings guarantee is known when the store is opened.
    let rules = ["acl", "setuser", "deaf", "on", ">s3cr3t", "~*", "+@all", "-client|tracking"];
    server.cli(&[&auth[..], &rules[..]].concat()).await;
    open(by("deaf")).await;
    let error = Redis::open(RedisConfig { change_feed: true, ..by("deaf") }).await;
    assert_eq!(kind(error), ErrorKind::Access);
    // What an operation needs in addition to the obvious is looked up when the store is opened, and named.
    for (rules, index, lacks) in [
        ("~* +@all -pexpiretime", false, "+pexpiretime"),
        ("~* +@all -multi -mget", false, "+mget +multi"),
        ("~* +@all -info", false, "+info"),
        ("~* +@all -type -del", false, "+del +type"),
        ("~* +@all -evalsha", false, "+evalsha"),
        ("~* +@all -zadd -zrevrangebylex", true, "+zrevrangebylex +zadd"),
        ("~* +@all -set -del -scan", true, "+scan"),
        ("~app:* ~tierstack:* +@all", true, "every key"),
        ("~app:* +@all", true, "every key"),
    ] {
        let user = ["acl", "setuser", "lacking", "reset", "on", ">s3cr3t"];
        let rules: Vec<&str> = rules.split(' ').collect();
        server.cli(&[&auth[..], &user, &rules].concat()).await;
        let error = Redis::open(RedisConfig { index, ..by("lacking") }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Access, "{rules:?} {error:?}");
        assert!(error.to_string().contains(lacks), "{rules:?} {error}");
    }
    // A user with some keys only is told of another one when it comes.
    let user = ["acl", "setuser", "some", "on", ">s3cr3t", "~app:*", "+@all"];
    server.cli(&[&auth[..], &user].concat()).await;
    let some = open(by("some")).await;
    some.write(Batch::new().put("app:1", "1").delete("app:2")).await.unwrap();
    for error in [
        some.get(b"k").await.unwrap_err(),
        some.put("k", "1").await.unwrap_err(),
        some.write(Batch::new().put("app:1", "2").put("k", "1")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
        assert!(error.to_string().contains("may not use the key"), "{error}");
    }
    assert_eq!(some.get(b"app:1").await.unwrap(), Some("1".into()));
    // The user may read, and not write.
    let rules = ["acl", "setuser", "reader", "on", ">s3cr3t", "~*", "+@all", "-set", "-evalsha"];
    server.cli(&[&auth[..], &rules[..]].concat()).await;
    let store = open(by("reader")).await;
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
    // It would evict the index, too, and scans would not see what is there.
    let indexed = || RedisConfig { evicts: true, index: true, ..on(server.url()) };
    let error = Redis::open(indexed()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("volatile-"), "{error}");
    // These policies remove keys with a deadline only, which the index has not.
    server.cli(&["config", "set", "maxmemory-policy", "volatile-lru"]).await;
    open(indexed()).await;
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
    server.cli(&["config", "set", "no-appendfsync-on-rewrite", "yes"]).await;
    no(opened(Survives::PowerCut).await, "no-appendfsync-on-rewrite");
    server.cli(&["config", "set", "no-appendfsync-on-rewrite", "no"]).await;
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

/// The server closes the connection of a client that sends a value over `client-query-buffer-limit`.
#[tokio::test]
async fn more_than_the_server_reads_at_once() {
    let Some(server) = Server::start(&["--client-query-buffer-limit", "4mb"]).await else { return };
    let store = open(on(server.url())).await;
    assert_eq!(kind(store.put("k", vec![1; 4 << 20]).await), ErrorKind::InvalidInput);
    store.put("k", vec![1; 4_000_000]).await.unwrap();
    // Together they may be larger.
    let big = || vec![1; 1_000_000];
    let batch = (0..5).fold(Batch::new(), |batch, n| batch.put(format!("b{n}"), big()));
    store.write(batch).await.unwrap();
    // And a bulk load goes in steps, between which others are served.
    server.cli(&["config", "resetstat"]).await;
    let entry = |n: u32| Entry { key: format!("l{n}").into(), value: big().into() };
    let run = futures_util::stream::iter([Ok(Page { entries: (0..9).map(entry).collect() })]);
    assert_eq!(store.ingest(Box::pin(run)).await.unwrap(), 9);
    let told = server.cli(&["info", "commandstats"]).await;
    assert!(told.contains("cmdstat_evalsha:calls=9,"), "{told}");
    assert_eq!(server.cli(&["dbsize"]).await, "15");
}
