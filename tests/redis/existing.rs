//! A database that is there already, and what another program sees of ours.

use tierstack::{Batch, Clock, Read, ReadExt, Scan, StoreExt, SystemClock, Value};

use super::servers::Proxy;
use super::*;

fn words(error: &tierstack::Error) -> String {
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn strings_are_entries_and_other_types_are_left_alone() {
    let Some(server) = server().await else { return };
    server.cli(&["set", "name", "Ada"]).await;
    server.cli(&["set", "session", "x", "px", "100000"]).await;
    server.cli(&["rpush", "list", "1", "2"]).await;
    let before: i64 = server.cli(&["pexpiretime", "session"]).await.parse().unwrap();
    for index in [false, true] {
        let store = open(RedisConfig { index, ..on(server.url()) }).await;
        assert_eq!(store.get(b"name").await.unwrap(), Some("Ada".into()));
        let session = store.get(b"session").await.unwrap().unwrap();
        // Redis keeps an entry through the millisecond of its deadline.
        assert_eq!(session.expires_at.unwrap().as_millis() as i64, before + 1);
        assert!(words(&store.get(b"list").await.unwrap_err()).contains("holds a list"));
        let keys = ["name", "list", "none"].map(bytes::Bytes::from);
        assert!(words(&store.get_many(&keys).await.unwrap_err()).contains("holds a list"));
        for batch in [
            Batch::new().put("list", "overwritten"),
            Batch::new().put("list", vec![0; 100_000]),
            Batch::new().put("list", "overwritten").if_absent(),
            Batch::new().delete("list"),
            Batch::new().put("other", "1").put("list", "overwritten").delete("name"),
        ] {
            assert!(words(&store.write(batch).await.unwrap_err()).contains("holds a list"));
        }
        assert_eq!(server.cli(&["lrange", "list", "0", "-1"]).await, "1\n2");
        assert_eq!(store.get(b"other").await.unwrap(), None);
        assert_eq!(store.get(b"name").await.unwrap(), Some("Ada".into()));
        if index {
            let found = store.collect(Scan::all()).await.unwrap();
            let keys: Vec<_> = found.iter().map(|entry| &*entry.key).collect();
            assert_eq!(keys, [&b"name"[..], b"session"]);
        }
        close(&store).await;
    }
}

#[tokio::test]
async fn other_programs_read_what_was_written() {
    let Some(server) = server().await else { return };
    let store = open(on(server.url())).await;
    let at = SystemClock.now() + Duration::from_secs(3600);
    store.put("plain", "1").await.unwrap();
    store.put("expiring", Value::new("2").expiring_at(at)).await.unwrap();
    assert_eq!(server.cli(&["mget", "plain", "expiring"]).await, "1\n2");
    assert_eq!(server.cli(&["pexpiretime", "expiring"]).await, (at.as_millis() - 1).to_string());
    assert_eq!(server.cli(&["pexpiretime", "plain"]).await, "-1");
    assert_eq!(server.cli(&["dbsize"]).await, "2", "and nothing else was written");
    let tagged = open(RedisConfig { hash_tag: Some("t".into()), ..on(server.url()) }).await;
    tagged.put("k", "3").await.unwrap();
    assert_eq!(server.cli(&["get", "{t}k"]).await, "3");
    assert_eq!(tagged.get(b"plain").await.unwrap(), None);
}

#[tokio::test]
async fn the_index_is_built_once_and_again_when_that_was_given_up() {
    let Some(server) = server().await else { return };
    for n in 0..3000 {
        if n % 1000 == 0 {
            server
                .cli(&[
                    "eval",
                    "for n = ARGV[1], ARGV[1] + 999 do redis.call('set', 'k' .. n, n) end",
                    "0",
                    &n.to_string(),
                ])
                .await;
        }
    }
    server.cli(&["sadd", "set", "x"]).await;
    let config = RedisConfig { index: true, ..on(server.url()) };
    let store = open(config.clone()).await;
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 3000);
    assert_eq!(store.usage().await.unwrap().entries, Some(3000));
    // What others write is not seen, until somebody asks for a new index.
    server.cli(&["set", "foreign", "1"]).await;
    server.cli(&["del", "k7"]).await;
    close(&store).await;
    let store = open(config.clone()).await;
    assert_eq!(store.collect(Scan::prefix("foreign")).await.unwrap().len(), 0);
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 2999);
    close(&store).await;
    // As a build that did not come to its end leaves it.
    server.cli(&["zrem", "tierstack:index", ""]).await;
    let store = open(config.clone()).await;
    assert_eq!(store.collect(Scan::prefix("foreign")).await.unwrap().len(), 1);
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 3000);
    close(&store).await;
    server.cli(&["flushall"]).await;
    server.cli(&["set", "tierstack:index", "mine"]).await;
    let error = Redis::open(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert_eq!(server.cli(&["get", "tierstack:index"]).await, "mine");
}

#[tokio::test]
async fn the_index_lets_go_of_what_is_gone() {
    let Some(server) = server().await else { return };
    let store = open(RedisConfig { index: true, ..on(server.url()) }).await;
    let soon = SystemClock.now() + Duration::from_millis(50);
    for n in 0..2500 {
        let value = Value::new("v");
        let value = if n % 5 == 0 { value } else { value.expiring_at(soon) };
        store.put(format!("{n:05}"), value).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let members =
        async || -> u32 { server.cli(&["zcard", "tierstack:index"]).await.parse().unwrap() };
    assert_eq!(members().await, 2501);
    // A scan takes away what it passes by, and `compact` the rest.
    let first = Scan::range("00000".."00010");
    assert_eq!(store.collect(first).await.unwrap().len(), 2);
    assert_eq!(members().await, 2493);
    store.compact().await.unwrap();
    assert_eq!(members().await, 501);
    assert_eq!(store.collect(Scan::all().reverse()).await.unwrap().len(), 500);
    assert_eq!(store.usage().await.unwrap().entries, Some(500));
}

#[tokio::test]
async fn round_trips() {
    let Some(server) = server().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let store = open(RedisConfig { index: true, ..on(proxy.url(&server.url())) }).await;
    let keys: Vec<bytes::Bytes> = (0..100).map(|n| format!("key-{n}").into()).collect();
    let mut before = proxy.counters();
    let mut trips = || {
        let passed = proxy.counters() - before;
        before = proxy.counters();
        passed.round_trips
    };
    store.put("one", "1").await.unwrap();
    assert_eq!(trips(), 1, "a put");
    let batch = keys.iter().map(|key| tierstack::Op::Put(key.clone(), "v".into())).collect();
    store.write(batch).await.unwrap();
    assert_eq!(trips(), 1, "a batch");
    store.get(b"one").await.unwrap();
    assert_eq!(trips(), 1, "a get");
    let found = store.get_many(&keys).await.unwrap();
    assert!(found.iter().all(Option::is_some));
    assert_eq!(trips(), 1, "100 keys");
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 101);
    assert_eq!(trips(), 1, "a page");
}

/// A scan of an index that somebody removed would not see what is there.
#[tokio::test]
async fn an_index_that_was_removed_is_built_again() {
    let Some(server) = server().await else { return };
    let store = open(RedisConfig { index: true, ..on(server.url()) }).await;
    for n in 0..10 {
        store.put(format!("{n}"), "1").await.unwrap();
    }
    server.cli(&["del", "tierstack:index"]).await;
    store.put("new", "1").await.unwrap();
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 11);
    server.cli(&["del", "tierstack:index"]).await;
    assert_eq!(store.collect(Scan::all().reverse()).await.unwrap().len(), 11);
    server.cli(&["flushall"]).await;
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 0);
}

/// Its key is not one of the entries', also while there is no index.
#[tokio::test]
async fn the_key_of_the_index_is_no_entry() {
    let Some(server) = server().await else { return };
    let store = open(RedisConfig { index: true, ..on(server.url()) }).await;
    server.cli(&["flushall"]).await;
    for batch in [
        Batch::new().put("tierstack:index", "1"),
        Batch::new().put("a", "1").put("tierstack:index", "1"),
        Batch::new().delete("tierstack:index"),
    ] {
        assert_eq!(kind(store.write(batch).await), ErrorKind::InvalidInput);
    }
    assert_eq!(server.cli(&["dbsize"]).await, "0");
    store.put("a", "1").await.unwrap();
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 1);
    // Without an index it is a key like any other.
    server.cli(&["flushall"]).await;
    open(on(server.url())).await.put("tierstack:index", "1").await.unwrap();
}

/// What a put replaces does not come over the line each time.
#[tokio::test]
async fn large_values_that_are_replaced_stay_where_they_are() {
    let Some(server) = server().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    for n in 0..20 {
        server.cli(&["setrange", &format!("k{n}"), "1000000", "x"]).await;
    }
    let store = open(on(proxy.url(&server.url()))).await;
    let before = proxy.counters();
    for n in 0..20 {
        store.put(format!("k{n}"), "small").await.unwrap();
    }
    let passed = (proxy.counters() - before).bytes_down;
    assert!(passed < 2_000_000, "{passed} bytes came back");
}
