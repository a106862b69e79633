//! Backends that several stores of a config use.

use super::probe::{config, happened, registry};
use super::*;
use crate::config::Config;
use crate::error::ErrorKind;
use crate::ext::{ReadExt, StoreExt};
use crate::types::Scan;

/// Three stores over one probe: two with prefixes in one part, one in another.
fn shared(log: &str) -> Config {
    config(&format!(
        "
backends: {{ main: {{ probe: {{ log: {log}, name: main }} }} }}
stores:
  a: {{ backend: {{ shared: main, prefix: a/ }} }}
  b: {{ layers: [ cache: {{}} ], backend: {{ prefix: b/, shared: main }} }}
  c: {{ backend: {{ shared: main, part: other }} }}
default: a
"
    ))
}

async fn open(config: &Config, name: &str) -> Stack {
    Stack::open(config, Some(name), &registry(), &OpenOptions::default()).await.unwrap()
}

fn count(happened: &[String], what: &str) -> usize {
    happened.iter().filter(|happened| *happened == what).count()
}

#[tokio::test]
async fn a_shared_backend_is_opened_with_the_first_store_and_closed_with_the_last() {
    let config = shared("first");
    // A clone of the config is the same.
    let (a, b, c) =
        (open(&config, "a").await, open(&config.clone(), "b").await, open(&config, "c").await);
    // Each part is opened once.
    assert_eq!(happened("first"), ["main opened", "main opened"]);
    a.put("k", "of a").await.unwrap();
    b.put("k", "of b").await.unwrap();
    c.put("k", "of c").await.unwrap();
    for (store, value) in [(&a, "of a"), (&b, "of b"), (&c, "of c")] {
        assert_eq!(store.get(b"k").await.unwrap(), Some(value.into()));
        assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 1);
    }
    a.close().await.unwrap();
    assert_eq!(happened("first"), ["main flushed"], "what a has written is covered");
    assert_eq!(a.get(b"k").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(a.put("k", "v").await.unwrap_err().kind(), ErrorKind::Closed);
    a.close().await.unwrap();
    assert_eq!(happened("first"), [""; 0], "the second call does nothing");
    assert_eq!(b.get(b"k").await.unwrap(), Some("of b".into()));

    // While one is open, a store comes back to the same data.
    let a = open(&config, "a").await;
    assert_eq!(a.get(b"k").await.unwrap(), Some("of a".into()));
    b.close().await.unwrap();
    a.close().await.unwrap();
    assert_eq!(happened("first"), ["main flushed", "main closed"]);
    c.close().await.unwrap();
    assert_eq!(happened("first"), ["main closed"]);

    // The stores that were closed are still held, and the backend is opened again.
    let again = open(&config, "a").await;
    again.put("k", "v").await.unwrap();
    assert_eq!(a.get(b"k").await.unwrap_err().kind(), ErrorKind::Closed);
    again.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_dropped_or_fails_to_open_counts_no_more() {
    let config = shared("dropped");
    let (a, b) = (open(&config, "a").await, open(&config, "b").await);
    drop(a);
    assert_eq!(happened("dropped"), ["main opened"]);
    b.close().await.unwrap();
    drop(b);
    assert_eq!(happened("dropped"), ["main closed", "main store dropped"]);
    let a = open(&config, "a").await;
    drop(a);
    assert_eq!(happened("dropped"), ["main opened", "main store dropped"]);

    let text = "
backends: { main: { probe: { log: beside, name: main } } }
stores:
  a: { layers: [ probe: { log: beside, name: layer, fail: wrap } ], backend: { shared: main, prefix: a/ } }
  b: { backend: { shared: main, prefix: b/ } }
default: a
";
    let config = super::probe::config(text);
    let b = open(&config, "b").await;
    let failed = Stack::open(&config, Some("a"), &registry(), &OpenOptions::default()).await;
    let text = failed.unwrap_err().to_string();
    assert!(text.contains("stores.a.layers[0].probe: the probe fails"), "{text}");
    b.put("k", "v").await.unwrap();
    assert_eq!(count(&happened("beside"), "main closed"), 0);
    b.close().await.unwrap();
    assert_eq!(count(&happened("beside"), "main closed"), 1);
}

#[tokio::test]
async fn closing_that_was_given_up_is_done_before_the_backend_is_opened_again() {
    let text = "
backends: { main: { probe: { log: given-up, name: main, fail: close_for_ever } } }
stores: { a: { backend: { shared: main, prefix: a/ } } }
";
    let config = super::probe::config(text);
    let a = open(&config, "a").await;
    let mut closing = Box::pin(a.close());
    assert!(futures_util::poll!(&mut closing).is_pending());
    drop(closing);
    assert_eq!(happened("given-up"), ["main opened", "main closed"]);
    // The same store goes on closing, and so does one that comes.
    let mut closing = Box::pin(a.close());
    assert!(futures_util::poll!(&mut closing).is_pending());
    drop(closing);
    let mut opening = Box::pin(open(&config, "a"));
    assert!(futures_util::poll!(&mut opening).is_pending());
    assert_eq!(happened("given-up"), ["main closed", "main closed"]);
}

#[tokio::test]
async fn scans_and_announcements_end_when_their_store_is_closed() {
    let config = super::probe::config(
        "
backends: { main: { probe: { log: scans, name: main } } }
stores: { a: { backend: { shared: main, prefix: a/ } }, b: { backend: { shared: main, prefix: b/ } } }
default: a
",
    );
    let (a, b) = (open(&config, "a").await, open(&config, "b").await);
    for key in ["1", "2", "3"] {
        a.put(key, "v").await.unwrap();
    }
    use futures_util::StreamExt;
    let mut pages = a.scan(Scan::all().page_entries(1));
    assert_eq!(pages.next().await.unwrap().unwrap().len(), 1);
    let snapshot = a.snapshot().await.unwrap();
    a.close().await.unwrap();
    assert_eq!(pages.next().await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(pages.next().await.is_none());
    assert_eq!(a.scan(Scan::all()).next().await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(snapshot.get(b"1").await.unwrap(), Some("v".into()));
    b.close().await.unwrap();
}

#[tokio::test]
async fn the_size_of_a_prefix_is_not_that_of_the_whole() {
    let config = shared("usage");
    let (a, c) = (open(&config, "a").await, open(&config, "c").await);
    a.put("k", "v").await.unwrap();
    c.put("k", "v").await.unwrap();
    let usage = a.usage().await.unwrap();
    assert_eq!((usage.entries, usage.memory_bytes, usage.stored_bytes), (None, None, None));
    assert_eq!(c.usage().await.unwrap().entries, Some(1));
    for stack in [&a, &c] {
        assert_eq!(stack.profile(), *stack.checked().profile());
        stack.close().await.unwrap();
    }
}

#[test]
fn a_share_that_cannot_be_is_refused_with_words_that_help() {
    let store = |own: &str| format!("{{ backend: {{ shared: main{own} }} }}");
    let two = |a: &str, b: &str| {
        format!(
            "{{ backends: {{ main: {{ probe: {{ log: x, name: x }} }} }}, stores: {{ a: {}, b: {} }}, default: a }}",
            store(a),
            store(b)
        )
    };
    let check = |text: &str| {
        let checked = Config::parse(text, Format::Yaml, "test.yaml")
            .and_then(|config| Stack::check(&config, Some("a"), &registry()));
        checked.map(drop).map_err(|error| error.to_string())
    };
    for (text, words) in [
        (two("", ""), "stores.a.backend and stores.b.backend are the same data, all of `backends.main.probe`; give each a `prefix` of its own, or a `part`"),
        (two(", prefix: x", ", prefix: x"), "are the same data, as their prefixes are the same"),
        (two(", prefix: x", ""), "one of stores.a.backend and stores.b.backend has no prefix, so that it holds the data of the other one too"),
        (two(", prefix: x", ", prefix: xy"), "the prefix of one of stores.a.backend and stores.b.backend begins with that of the other"),
        (two(", prefix: x/, fail: close", ", prefix: y/"), "are in the same part of `backends.main.probe`, which is opened once, but `fail` differs"),
        (two(", prefix: ''", ", part: y"), "stores.a.backend.prefix: prefix is empty; it must have at least 1 byte"),
        (two(", prefix: 5", ", part: y"), "stores.a.backend.prefix: expected text"),
        (two(", part: 5", ", part: y"), "stores.a.backend.part: expected text"),
        (two(", log: y", ", part: y"), "stores.a.backend.log: unknown setting 'log'. Allowed: prefix, part, fail; what is for all stores is under `backends.main.probe`"),
        (two(", prefxi: y", ", part: y"), "stores.a.backend.prefxi: unknown setting 'prefxi'; did you mean 'prefix'?"),
        (
            "{ backends: { main: memory }, stores: { a: { backend: { shared: mian } } } }".to_owned(),
            "stores.a.backend.shared: unknown shared backend 'mian'; did you mean 'main'? Allowed: main",
        ),
        (
            "stores: { a: { backend: { shared: main } } }".to_owned(),
            "stores.a.backend.shared: there is no shared backend in this file; write it at the top",
        ),
        (
            "stores: { a: { backend: { shared: 5 } } }".to_owned(),
            "stores.a.backend.shared: expected the name of one of `backends`, as text",
        ),
        (
            "stores: { a: { backend: shared } }".to_owned(),
            "stores.a.backend.shared: expected the name of one of `backends`, as text",
        ),
        (
            "{ backends: { main: memory }, stores: { a: { backend: memory } } }".to_owned(),
            "backends.main: no store uses it; write `backend: { shared: main }` in a store, or take it out",
        ),
        (
            "{ backends: { a/b: memory }, stores: { a: { backend: memory } } }".to_owned(),
            "backends: 'a/b' is not a name for a backend",
        ),
        (
            "{ backends: { main: { shared: main } }, stores: { a: { backend: { shared: main } } } }".to_owned(),
            "backends.main: this is a backend that stores share, so it cannot be `shared` itself",
        ),
        (
            "{ backends: { main: { memroy: {} } }, stores: { a: { backend: { shared: main } } } }".to_owned(),
            "backends.main: unknown backend 'memroy'; did you mean 'memory'?",
        ),
        (
            "stores: { a: { backend: { shraed: main } } }".to_owned(),
            "stores.a.backend: unknown backend 'shraed'; did you mean 'shared'?",
        ),
    ] {
        let refused = check(&text).unwrap_err();
        assert!(refused.contains("test.yaml: ") && refused.contains(words), "{text}: {refused}");
    }
    for (a, b) in [
        (", prefix: x/", ", prefix: xy/"),
        (", part: x", ", part: y"),
        ("", ", part: y"),
        (", part: x, prefix: k", ", part: y, prefix: k"),
        (", part: x, fail: close", ", part: y"),
    ] {
        check(&two(a, b)).unwrap();
    }
}

/// Reads the last OPTIONS file: `key` of each column family.
#[cfg(feature = "rocksdb")]
fn recorded(folder: &std::path::Path, key: &str) -> std::collections::BTreeMap<String, String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_options = |path: &std::path::PathBuf| path.to_string_lossy().contains("OPTIONS-");
    let text = std::fs::read_to_string(names.filter(is_options).max().unwrap()).unwrap();
    let mut found = std::collections::BTreeMap::new();
    let mut family = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            let name = line.strip_prefix("[CFOptions \"");
            family = name.and_then(|name| name.strip_suffix("\"]")).map(str::to_owned);
        }
        if let (Some(family), Some((name, value))) = (&family, line.split_once('='))
            && name == key
        {
            found.insert(family.clone(), value.to_owned());
        }
    }
    found
}

#[cfg(feature = "rocksdb")]
#[tokio::test]
async fn column_families_of_one_database_are_opened_once_each_with_settings_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let text = "
backends: { main: { rocksdb: { path: data, background_jobs: 3 } } }
stores:
  orders: { backend: { shared: main, column_family: orders, write_buffer_size: 1MiB } }
  users: { backend: { shared: main, column_family: users, write_buffer_size: 2MiB, sync: false } }
  left: { backend: { shared: main, prefix: l/ } }
  right: { backend: { shared: main, prefix: r/ } }
default: orders
";
    let parse = || Config::parse(text, Format::Yaml, folder.path().join("test.yaml")).unwrap();
    let names = ["left", "orders", "right", "users"];
    for round in 0..3 {
        let config = parse();
        let options = OpenOptions::default();
        // The others are in the file that is read when the database is opened, whichever is opened first.
        let first = open(&config, names[round]).await;
        let stacks = Stacks::open_each(&config, None, &registry(), &options).await.unwrap();
        assert!(stacks.failed().is_none(), "{:?}", stacks.failed());
        for (at, name) in names.iter().enumerate() {
            let stack = &stacks[name];
            assert_eq!(stack.profile(), *stack.checked().profile());
            if round > 0 {
                assert_eq!(stack.get(b"k").await.unwrap(), Some((*name).into()));
            }
            stack.put("k", *name).await.unwrap();
            for other in &names[..at] {
                let (mine, theirs) = (stack.identity().unwrap(), stacks[other].identity().unwrap());
                assert!(!mine.overlaps(&theirs), "{name} and {other}");
            }
            assert!(stack.identity().unwrap().overlaps(&stack.identity().unwrap()));
        }
        for name in names {
            // And what was loaded in the round before.
            let loaded = if round > 0 && matches!(name, "orders" | "users") { 6 } else { 0 };
            let entries = stacks[name].collect(Scan::all()).await.unwrap();
            assert_eq!(entries.len(), 1 + loaded, "{name}");
            assert_eq!(stacks[name].get(b"k").await.unwrap(), Some(name.into()));
        }
        let size =
            |name: &str| recorded(&folder.path().join("data"), "write_buffer_size")[name].clone();
        assert_eq!((size("orders"), size("users")), ("1048576".to_owned(), "2097152".to_owned()));

        // Runs of both are made into tables in one folder.
        let run = |first: u8| {
            let entry = move |at: u32| crate::types::Entry {
                key: [&[first], &at.to_be_bytes()[..]].concat().into(),
                value: crate::types::Value::from(vec![first; 1 << 20]),
            };
            let page = crate::types::Page { entries: (0..6).map(entry).collect() };
            Box::pin(futures_util::stream::iter([Ok(page)]))
        };
        let (orders, users) = (&stacks["orders"], &stacks["users"]);
        let (one, two) = tokio::join!(orders.ingest(run(1)), users.ingest(run(2)));
        assert_eq!((one.unwrap(), two.unwrap()), (6, 6));
        assert_eq!(users.collect(Scan::prefix([2])).await.unwrap().len(), 6);
        assert!(users.collect(Scan::prefix([1])).await.unwrap().is_empty());

        stacks["orders"].close().await.unwrap();
        stacks["users"].put("k", "users").await.unwrap();
        // Another config is another program: the database is locked while one store is open.
        let busy = Stack::open(&parse(), Some("orders"), &registry(), &options).await.unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Conflict, "{busy}");
        stacks.close_all().await.unwrap();
        // The first was opened a second time, so it is one more user, and a store of its own.
        if names[round] != "orders" {
            assert_eq!(first.get(b"k").await.unwrap(), Some(names[round].into()));
        }
        first.close().await.unwrap();
        let alone = open(&parse(), "orders").await;
        alone.close().await.unwrap();
    }
}

#[cfg(feature = "rocksdb")]
#[tokio::test]
async fn a_reader_makes_no_column_family_and_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let text = "
backends: { main: { rocksdb: { path: data } } }
stores:
  orders: { backend: { shared: main, column_family: orders } }
  users: { backend: { shared: main, column_family: users } }
default: orders
";
    let config = Config::parse(text, Format::Yaml, folder.path().join("test.yaml")).unwrap();
    let reading = OpenOptions::reading();
    let error = Stack::open(&config, None, &registry(), &reading).await.unwrap_err();
    assert!(error.to_string().contains("stores.orders.backend: "), "{error}");
    assert!(error.to_string().contains("there is no database"), "{error}");
    assert!(!folder.path().join("data").exists());
    let orders = open(&config, "orders").await;
    let error = Stack::open(&config, Some("users"), &registry(), &reading).await.unwrap_err();
    assert!(error.to_string().contains("there is no column family 'users'"), "{error}");
    let users = open(&config, "users").await;
    orders.put("k", "orders").await.unwrap();
    users.put("k", "users").await.unwrap();
    orders.close().await.unwrap();
    users.close().await.unwrap();
    // A command opens one of them.
    let users = Stack::open(&config, Some("users"), &registry(), &reading).await.unwrap();
    assert_eq!(users.get(b"k").await.unwrap(), Some("users".into()));
    users.close().await.unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn stores_in_one_table_of_sqlite_keep_to_their_prefixes() {
    let folder = tempfile::tempdir().unwrap();
    let text = "
backends: { main: { sqlite: { path: data.db } } }
stores:
  orders: { layers: [ compress: {}, backup: { to: backups } ], backend: { shared: main, prefix: o/ } }
  users: { layers: [ expire: {} ], backend: { shared: main, prefix: u/ } }
default: orders
";
    let config = Config::parse(text, Format::Yaml, folder.path().join("test.yaml")).unwrap();
    let (registry, options) = (registry(), OpenOptions::service());
    for round in 0..2 {
        let stacks = Stacks::open_all(&config, &registry, &options).await.unwrap();
        for name in ["orders", "users"] {
            if round > 0 {
                assert_eq!(stacks[name].get(b"k").await.unwrap(), Some(name.into()));
            }
            stacks[name].put("k", name).await.unwrap();
            // What goes over everything below the layers meets no entry of the other's layers.
            stacks[name].compact().await.unwrap();
            for rewriter in stacks[name].rewriters() {
                let report = rewriter.rewrite(Scan::all(), &mut |_| ()).await.unwrap();
                assert_eq!((report.examined, report.damaged), (1, 0));
            }
        }
        stacks.close_all().await.unwrap();
    }
    let below = Stack::open_below(&config, None, "backup", &registry, &options).await.unwrap();
    assert_eq!(below.collect(Scan::all()).await.unwrap().len(), 1);
    below.close().await.unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_one_sqlite_database_are_stores_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let parse = |stores: &str| {
        let text = format!(
            "{{ backends: {{ main: {{ sqlite: {{ path: data.db, busy_timeout: 0s }} }} }}, stores: {{ {stores} }}, default: orders }}"
        );
        Config::parse(&text, Format::Yaml, folder.path().join("test.yaml")).unwrap()
    };
    let stores = "
orders: { layers: [ cache: {} ], backend: { shared: main, table: orders, keys: text } },
users: { backend: { shared: main, table: users, columns: { key: name, value: json } } },
left: { backend: { shared: main, prefix: l/ } },
right: { backend: { shared: main, prefix: r/ } }";
    let config = parse(stores);
    let names = ["left", "orders", "right", "users"];
    for round in 0..2 {
        let options = OpenOptions::default();
        let stacks = Stacks::open_all(&config, &registry(), &options).await.unwrap();
        for name in names {
            let stack = &stacks[name];
            assert_eq!(stack.profile(), *stack.checked().profile());
            if round > 0 {
                assert_eq!(stack.get(b"7").await.unwrap(), Some(name.into()), "{name}");
            }
            for other in names.into_iter().filter(|other| *other != name) {
                let (mine, theirs) = (stack.identity().unwrap(), stacks[other].identity().unwrap());
                assert!(!mine.overlaps(&theirs), "{name} and {other}");
            }
        }
        // All at once, and none waits for a lock of another.
        let puts = names.into_iter().flat_map(|name| {
            let stack = &stacks[name];
            (0..20).map(move |n| stack.put(n.to_string(), name))
        });
        for put in futures_util::future::join_all(puts).await {
            put.unwrap();
        }
        for name in names {
            let entries = stacks[name].collect(Scan::all()).await.unwrap();
            assert_eq!(entries.len(), 20, "{name}");
            assert!(entries.iter().all(|entry| entry.value == name.into()), "{name}");
        }
        // Each is closed for itself.
        stacks["orders"].close().await.unwrap();
        assert_eq!(stacks["orders"].put("7", "late").await.unwrap_err().kind(), ErrorKind::Closed);
        stacks["users"].put("7", "users").await.unwrap();
        stacks.close_all().await.unwrap();
    }
    let refused = |other: &str| {
        let config = parse(&format!(
            "orders: {{ backend: {{ shared: main, table: orders, prefix: o/ }} }}, other: {{ backend: {{ shared: main, {other} }} }}"
        ));
        Stack::check(&config, Some("other"), &registry()).unwrap_err().to_string()
    };
    let text = refused("table: ORDERS");
    assert!(
        text.contains("has no prefix, so that it holds the data of the other one too"),
        "{text}"
    );
    assert!(text.contains("give each a `prefix` of its own, or a `table`"), "{text}");
    let text = refused("table: orders, prefix: p/, values: text");
    assert!(text.contains("which is opened once, but `values` differs"), "{text}");
    let text = refused("table: users, sync: false");
    assert!(
        text.contains("stores.other.backend.sync: unknown setting 'sync'. Allowed: prefix, table, columns, keys, values, scans, create, sweep"),
        "{text}"
    );
}
