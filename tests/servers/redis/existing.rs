//! A database that is there already, and what another program sees of ours.

use tierstack::backends::redis::Foreign;
use tierstack::{
    BackendConfig, Batch, Clock, Condition, Context, Read, ReadExt, Scan, Store, StoreExt,
    SystemClock, Timestamp, Value,
};

use super::*;
use crate::support::Proxy;

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
        let foreign = Foreign::Skip;
        let store = open(RedisConfig { index, foreign, ..on(server.url()) }).await;
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
async fn a_scan_of_keys_only_gets_no_value() {
    let Some(server) = server().await else { return };
    let store = open(RedisConfig { index: true, ..on(server.url()) }).await;
    let soon = SystemClock.now() + Duration::from_millis(50);
    for key in ["a", "b", "c", "gone", "list", "short"] {
        store.put(key, "v".repeat(10_000)).await.unwrap();
    }
    store.put("short", Value::from("v").expiring_at(soon)).await.unwrap();
    server.cli(&["del", "gone", "list"]).await;
    server.cli(&["rpush", "list", "1"]).await;
    while SystemClock.now() <= soon {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.cli(&["config", "resetstat"]).await;
    for (scan, want) in [
        (Scan::range("a"..), vec!["a", "b", "c"]),
        (Scan::range("a"..).reverse().page_entries(2), vec!["c", "b", "a"]),
    ] {
        let found = store.collect(scan.keys_only()).await.unwrap();
        let keys: Vec<_> = found.iter().map(|entry| &*entry.key).collect();
        assert_eq!(keys, want.iter().map(|key| key.as_bytes()).collect::<Vec<_>>());
        assert!(found.iter().all(|entry| entry.value == Value::default()));
    }
    let told = server.cli(&["info", "commandstats"]).await;
    assert!(told.contains("cmdstat_type") && !told.contains("cmdstat_get"), "{told}");
    // What is gone was taken out of the index on the way.
    assert_eq!(server.cli(&["zcard", "tierstack:index"]).await, "4");
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
    let config = RedisConfig { index: true, foreign: Foreign::Skip, ..on(server.url()) };
    let store = open(config.clone()).await;
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 3000);
    assert_eq!(store.usage().await.unwrap().entries, Some(3000));
    assert_eq!(store.count(b"k").await.unwrap(), Some(3000));
    assert_eq!(store.count(b"k7").await.unwrap(), Some(111));
    // The database is asked, and not the index.
    server.cli(&["zrem", "tierstack:index", "k7", "k8"]).await;
    assert_eq!(store.count(b"k").await.unwrap(), Some(3000));
    close(&store).await;
    // As a build that did not come to its end leaves it.
    server.cli(&["zrem", "tierstack:index", "", "k7"]).await;
    let store = open(config.clone()).await;
    assert_eq!(store.collect(Scan::prefix("k7")).await.unwrap().len(), 111);
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 3000);
    close(&store).await;
    server.cli(&["flushall"]).await;
    server.cli(&["set", "tierstack:index", "mine"]).await;
    let error = Redis::open(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert_eq!(server.cli(&["get", "tierstack:index"]).await, "mine");
}

fn names(found: &[tierstack::Entry]) -> Vec<String> {
    found.iter().map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()).collect()
}

/// A scan of everything has everything. One of a part has what others added, as the number of keys tells.
#[tokio::test]
async fn what_others_add_gets_into_the_index() {
    let Some(server) = server().await else { return };
    let config = RedisConfig { index: true, ..on(server.url()) };
    let store = open(config.clone()).await;
    store.put("k1", "1").await.unwrap();
    let all = async |scan: Scan| names(&store.collect(scan).await.unwrap());
    server.cli(&["mset", "k2", "2", "l1", "1"]).await;
    assert_eq!(all(Scan::prefix("k")).await, ["k1", "k2"]);
    server.cli(&["set", "k3", "3"]).await;
    assert_eq!(all(Scan::all().limit(3)).await, ["k1", "k2", "k3"]);
    // As many were removed as were added: the number tells nothing.
    server.cli(&["del", "k1", "l1"]).await;
    server.cli(&["mset", "k4", "4", "k5", "5"]).await;
    for scan in [Scan::all(), Scan::all().reverse(), Scan::prefix("")] {
        let mut found = all(scan).await;
        found.sort();
        assert_eq!(found, ["k2", "k3", "k4", "k5"]);
        server.cli(&["zrem", "tierstack:index", "k4"]).await;
    }
    // `compact` brings it up to date as well.
    server.cli(&["del", "k2"]).await;
    server.cli(&["set", "k6", "6"]).await;
    store.compact().await.unwrap();
    assert_eq!(all(Scan::prefix("k")).await, ["k3", "k4", "k5", "k6"]);
    // Under a tag there may be any number of other keys: only a scan of everything sees what is new.
    let tagged = open(RedisConfig { hash_tag: Some("t".into()), ..config }).await;
    server.cli(&["mset", "{t}a", "1", "other", "1"]).await;
    assert_eq!(names(&tagged.collect(Scan::all()).await.unwrap()), ["a"]);
}

/// As a version before this one left it: the score of the mark said nothing.
#[tokio::test]
async fn an_index_of_an_earlier_version_is_brought_up_to_date() {
    let Some(server) = server().await else { return };
    server.cli(&["mset", "a", "1", "b", "2"]).await;
    server.cli(&["zadd", "tierstack:index", "0", "", "0", "a", "0", "gone"]).await;
    let store = open(RedisConfig { index: true, ..on(server.url()) }).await;
    assert_eq!(names(&store.collect(Scan::all().limit(9)).await.unwrap()), ["a", "b"]);
    assert_eq!(server.cli(&["zscore", "tierstack:index", ""]).await, "-1");
}

/// A user who only reads leaves the database as it is.
#[tokio::test]
async fn no_index_is_made_for_those_who_only_read() {
    let Some(server) = server().await else { return };
    server.cli(&["mset", "a", "1", "b", "2"]).await;
    let config = RedisConfig { index: true, ..on(server.url()) };
    let context = Context { may_create: false, ..Context::default() };
    let reader = config.open(&context).await.unwrap();
    assert_eq!(reader.get(b"a").await.unwrap(), Some("1".into()));
    assert_eq!(reader.compact().await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(server.cli(&["dbsize"]).await, "2");
    open(config).await;
    assert_eq!(reader.collect(Scan::all()).await.unwrap().len(), 2);
}

/// What only reads gathers the keys, and finds the same as with an index.
#[tokio::test]
async fn where_only_is_read_there_are_scans_without_an_index() {
    let Some(server) = server().await else { return };
    let fill = "for n = 1, 2500 do redis.call('set', ARGV[1] .. 'k' .. n, n) end";
    for hash_tag in [None, Some("t".to_owned())] {
        let prefix = if hash_tag.is_some() { "{t}" } else { "" };
        server.cli(&["flushall"]).await;
        server.cli(&["eval", fill, "0", prefix]).await;
        let full = |key: &str| format!("{prefix}{key}");
        server.cli(&["set", &full("session"), "Ada", "pxat", "4000000000000"]).await;
        let config = RedisConfig { index: true, hash_tag, ..on(server.url()) };
        let context = Context { may_create: false, ..Context::default() };
        let reader = config.open(&context).await.unwrap();
        let scans = [
            Scan::all(),
            Scan::all().reverse(),
            Scan::all().page_entries(7).limit(20),
            Scan::all().page_bytes(100),
            Scan::prefix("k24").page_bytes(0),
            Scan::prefix("k1"),
            Scan::range("k2".."k3").reverse().limit(5),
            Scan::range("x"..),
        ];
        let scans = scans.iter().flat_map(|scan| [scan.clone(), scan.clone().keys_only()]);
        let mut found = Vec::new();
        for scan in scans.clone() {
            found.push(reader.collect(scan).await.unwrap());
        }
        assert_eq!(found[0].len(), 2501);
        assert_eq!(server.cli(&["dbsize"]).await, "2501", "nothing was made");
        let indexed = open(config.clone()).await;
        for (scan, found) in scans.zip(found) {
            assert_eq!(indexed.collect(scan.clone()).await.unwrap(), found, "{scan:?}");
        }
        server.cli(&["del", &full("tierstack:index")]).await;
        server.cli(&["rpush", &full("list"), "1"]).await;
        let error = reader.collect(Scan::all()).await.unwrap_err();
        assert_eq!(error.name(), Some(full("list").as_bytes()), "{error}");
        assert_eq!(reader.collect(Scan::prefix("k1")).await.unwrap().len(), 1111);
    }
}

#[tokio::test]
async fn a_database_has_a_name_of_its_own() {
    let (Some(server), Some(other)) = (server().await, server().await) else { return };
    let of = async |config: RedisConfig| open(config).await.identity().unwrap();
    let tagged = |tag: &str| RedisConfig { hash_tag: Some(tag.into()), ..on(server.url()) };
    let known = of(on(server.url())).await;
    assert_eq!(of(RedisConfig { index: true, ..on(server.url()) }).await, known);
    assert_eq!(of(tagged("a")).await, of(tagged("a")).await);
    for config in [on(server.fresh_url()), on(other.url()), tagged("a"), tagged("b")] {
        assert_ne!(of(config).await, known);
    }
    assert_ne!(of(tagged("a")).await, of(tagged("b")).await);
}

/// What a condition compares with is what a read gave, also where a script cannot tell the deadline.
#[tokio::test]
async fn conditions_hold_for_what_was_read() {
    let Some(server) = server().await else { return };
    server.cli(&["set", "never", "v", "pxat", "9223372036854775807"]).await;
    server.cli(&["rpush", "list", "1"]).await;
    let soon = SystemClock.now() + Duration::from_secs(3600);
    for index in [false, true] {
        let store = open(RedisConfig { index, ..on(server.url()) }).await;
        store.put("plain", "v").await.unwrap();
        store.put("expiring", Value::new("v").expiring_at(soon)).await.unwrap();
        for key in ["never", "plain", "expiring"] {
            let seen = store.get(key.as_bytes()).await.unwrap().unwrap();
            let batch = |value: Value| {
                let equals = Condition::equals(key, value);
                Batch::new().put("a", "1").delete("b").require(equals)
            };
            store.write(batch(seen.clone())).await.unwrap();
            let later = seen.expires_at.map_or(soon, |at| at + Duration::from_millis(1));
            for other in [
                Value::new("w").expiring_at(soon),
                Value { expires_at: Some(later), ..seen.clone() },
                Value { bytes: "vv".into(), ..seen },
            ] {
                assert_eq!(kind(store.write(batch(other)).await), ErrorKind::Conflict, "{key}");
            }
        }
        // A batch that only checks writes nothing.
        let check = |condition| Batch::new().require(condition);
        store.write(check(Condition::absent("none"))).await.unwrap();
        store.write(check(Condition::equals("plain", "v"))).await.unwrap();
        for unmet in [Condition::absent("plain"), Condition::equals("none", "v")] {
            assert_eq!(kind(store.write(check(unmet)).await), ErrorKind::Conflict);
        }
        for on_list in [Condition::absent("list"), Condition::equals("list", "v")] {
            assert!(
                words(&store.write(check(on_list)).await.unwrap_err()).contains("holds a list")
            );
        }
    }
}

/// Keys that no entry can have would be left out of a copy.
#[tokio::test]
async fn what_no_entry_can_be_is_said_by_number() {
    let Some(server) = server().await else { return };
    let tag = || Some("t".to_owned());
    for hash_tag in [None, tag()] {
        let prefix = if hash_tag.is_some() { "{t}" } else { "" };
        let full = |key: &str| format!("{prefix}{key}");
        server.cli(&["flushall"]).await;
        let config = RedisConfig { index: true, hash_tag, ..on(server.url()) };
        let store = open(config.clone()).await;
        store.put("a", "1").await.unwrap();
        let long = "redis.call('set', ARGV[1] .. string.rep('x', 65537), 1)";
        let mut said = Vec::new();
        for (command, words) in [
            (vec!["set".into(), full(""), "1".into()], "the empty key"),
            (
                vec!["eval".into(), long.into(), "0".into(), prefix.into()],
                "1 key of more than 65536",
            ),
            (vec!["rpush".into(), full("list"), "1".into()], "1 key of another type"),
            (vec!["sadd".into(), full("set"), "1".into()], "2 keys of another type"),
        ] {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            server.cli(&command).await;
            said.push(words);
            let error = store.collect(Scan::all()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            for words in &said {
                let old = *words == "1 key of another type" && said.len() == 4;
                assert!(old || error.to_string().contains(words), "{error}");
            }
            assert!(error.to_string().contains("foreign: skip"), "{error}");
            assert!(error.name().unwrap().starts_with(prefix.as_bytes()), "{error}");
            // A part has none of them.
            assert_eq!(store.collect(Scan::prefix("a")).await.unwrap().len(), 1);
            assert_eq!(store.get(b"a").await.unwrap(), Some("1".into()));
        }
        let told = open(RedisConfig { foreign: Foreign::Skip, ..config }).await;
        assert_eq!(names(&told.collect(Scan::all()).await.unwrap()), ["a"]);
        assert!(told.profile().notes.iter().any(|note| note.contains("leave out")));
        // What it leaves out is counted nevertheless, and one of it is named.
        let error = told.count(b"").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        for words in ["the empty key", "1 key of more than 65536", "2 keys of another type"] {
            assert!(error.message().contains(words), "{error}");
        }
        assert!(error.name().unwrap().starts_with(prefix.as_bytes()), "{error}");
        assert_eq!(told.count(b"a").await.unwrap(), Some(1));
    }
}

/// Later than any script can tell, and later than the last that can be set.
#[tokio::test]
async fn deadlines_beyond_the_last_are_the_last() {
    let Some(server) = server().await else { return };
    server.cli(&["set", "k", "v", "pxat", "9223372036854775807"]).await;
    server.cli(&["set", "l", "v", "pxat", "9007199254740991"]).await;
    let store = open(RedisConfig { index: true, ..on(server.url()) }).await;
    let last = Some(Timestamp::from_millis(1 << 53));
    let found = store.collect(Scan::all()).await.unwrap();
    for entry in &found {
        assert_eq!(entry.value.expires_at, last);
        assert_eq!(store.get(&entry.key).await.unwrap().as_ref(), Some(&entry.value));
        store.put(entry.key.clone(), entry.value.clone()).await.unwrap();
        assert_eq!(store.get(&entry.key).await.unwrap().as_ref(), Some(&entry.value));
    }
    assert_eq!(found.len(), 2);
    let beyond = Value::new("v").expiring_at(Timestamp::from_millis((1 << 53) + 1));
    assert_eq!(kind(store.put("m", beyond).await), ErrorKind::InvalidInput);
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
    let group = keys.iter().map(|key| Batch::new().put(key.clone(), "v")).collect();
    assert!(store.write_group(group).await.iter().all(Result::is_ok));
    assert_eq!(trips(), 1, "a group of 100 batches");
    store.get(b"one").await.unwrap();
    assert_eq!(trips(), 1, "a get");
    let found = store.get_many(&keys).await.unwrap();
    assert!(found.iter().all(Option::is_some));
    assert_eq!(trips(), 1, "100 keys");
    assert_eq!(store.collect(Scan::prefix("")).await.unwrap().len(), 101);
    assert_eq!(trips(), 1, "a page of everything, and a look at every key before it");
    server.cli(&["set", "new", "by another"]).await;
    assert_eq!(store.collect(Scan::all().reverse()).await.unwrap().len(), 102);
    assert_eq!(trips(), 1, "which sees what another program put");
    assert_eq!(store.collect(Scan::prefix("key-")).await.unwrap().len(), 100);
    assert_eq!(trips(), 1, "a page of a part");
    // Of more keys than one step sees, each step is a round trip of its own.
    let many: Batch =
        (0..5000).map(|n| tierstack::Op::Put(format!("many-{n}").into(), "v".into())).collect();
    store.write(many).await.unwrap();
    for name in ["newer", "newest"] {
        server.cli(&["set", name, "by another"]).await;
        trips();
        let whole = store.collect(Scan::all().page_entries(10_000)).await.unwrap();
        assert!(whole.iter().any(|entry| entry.key == name) && whole.len() > 5102, "{name}");
        assert!(trips() > 5, "{name}");
    }
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
