//! The stores of a config, opened and closed together.

use super::probe::{config, happened, registry};
use super::*;
use crate::config::Config;
use crate::error::ErrorKind;
use crate::ext::StoreExt;

/// Three stores; what fails in each.
fn three(log: &str, fails: [&str; 3]) -> Config {
    let stores = ["a", "b", "c"].into_iter().zip(fails).map(|(name, fail)| {
        let fail = if fail.is_empty() { "null" } else { fail };
        format!("{name}: {{ backend: {{ probe: {{ log: {log}, name: {name}, fail: {fail} }} }} }}")
    });
    let stores: Vec<_> = stores.collect();
    config(&format!("stores: {{ {} }}\ndefault: a", stores.join(", ")))
}

async fn open_all(config: &Config) -> Result<Stacks> {
    Stacks::open_all(config, &registry(), &OpenOptions::default()).await
}

#[tokio::test]
async fn all_stores_are_open_or_none() {
    let stacks = open_all(&three("all", ["", "", ""])).await.unwrap();
    assert_eq!(stacks.iter().map(Stack::name).collect::<Vec<_>>(), ["a", "b", "c"]);
    stacks["b"].put("k", "v").await.unwrap();
    assert!(stacks.get("d").is_none() && stacks.failed().is_none());
    stacks.close_all().await.unwrap();
    assert_eq!(stacks["c"].get(b"k").await.unwrap_err().kind(), ErrorKind::Closed);

    let error = open_all(&three("none", ["", "open", "close"])).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("the store 'b' was not opened: "), "{text}");
    assert!(text.contains("test.yaml: stores.b.backend.probe: the probe fails"), "{text}");
    assert!(!text.contains("does not close"), "{text}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let happened = happened("none");
    for closed in ["a closed", "c closed", "a store dropped", "c store dropped"] {
        assert!(happened.iter().any(|what| what == closed), "{closed}: {happened:?}");
    }
}

#[tokio::test]
async fn a_store_that_fails_stands_beside_one_that_opens() {
    let config = three("each", ["", "open", "open"]);
    let (registry, options) = (registry(), OpenOptions::default());
    let stacks = Stacks::open_each(&config, None, &registry, &options).await.unwrap();
    stacks["a"].put("k", "v").await.unwrap();
    let failed = stacks.failed().unwrap();
    assert_eq!(failed.by_store().keys().collect::<Vec<_>>(), ["b", "c"]);
    let text = failed.to_string();
    assert!(text.contains("the store 'b' was not opened") && text.contains("; the store 'c' was"));
    stacks.close_all().await.unwrap();

    let stacks = Stacks::open_each(&config, Some(&["a"]), &registry, &options).await.unwrap();
    assert!(stacks.failed().is_none() && stacks.iter().count() == 1);
    stacks.close_all().await.unwrap();
    let unknown = Stacks::open_each(&config, Some(&["z"]), &registry, &options).await.unwrap_err();
    assert!(unknown.to_string().contains("unknown store 'z'. Allowed: a, b, c"), "{unknown}");
}

#[tokio::test]
async fn every_store_is_closed_and_every_error_told() {
    let stacks = open_all(&three("closing", ["close", "", "close"])).await.unwrap();
    let errors = stacks.close_all().await.unwrap_err();
    assert_eq!(errors.by_store().keys().collect::<Vec<_>>(), ["a", "c"]);
    assert!(errors.by_store().values().all(|error| error.kind() == ErrorKind::Capacity));
    let text = errors.into_error().to_string();
    assert!(text.contains("the store 'a' was not closed: "), "{text}");
    let happened = happened("closing");
    assert_eq!(happened.iter().filter(|what| what.ends_with(" closed")).count(), 3);
}

/// One that never ends keeps no other from its turn.
#[tokio::test]
async fn stores_are_opened_and_closed_at_the_same_time() {
    let config = three("waiting", ["open_for_ever", "", ""]);
    let mut opening = Box::pin(open_all(&config));
    assert!(futures_util::poll!(&mut opening).is_pending());
    drop(opening);
    let so_far = happened("waiting");
    assert!(["b opened", "c opened"].iter().all(|one| so_far.iter().any(|what| what == one)));
    // The dropped future has let go of them.
    assert!(so_far.iter().any(|what| what == "c store dropped"), "{so_far:?}");

    let stacks = open_all(&three("slow", ["close_for_ever", "", ""])).await.unwrap();
    let mut closing = Box::pin(stacks.close_all());
    assert!(futures_util::poll!(&mut closing).is_pending());
    let so_far = happened("slow");
    assert!(["b closed", "c closed"].iter().all(|one| so_far.iter().any(|what| what == one)));
}

#[cfg(all(
    feature = "rocksdb",
    feature = "sqlite",
    feature = "file",
    feature = "object",
    feature = "cache",
    unix
))]
#[test]
fn two_stores_with_the_same_files_are_refused_with_both_names() {
    let check = |one: &str, two: &str| {
        let text = format!("stores: {{ one: {{ {one} }}, two: {{ {two} }} }}\ndefault: one");
        let config = Config::parse(&text, Format::Yaml, "conf/test.yaml").unwrap();
        for name in ["one", "two"] {
            Stack::check(&config, Some(name), &Registry::standard()).unwrap();
        }
        Stack::check_all(&config, &Registry::standard()).map(drop).map_err(|e| e.to_string())
    };
    let cached = |cache: &str, path: &str| {
        format!("layers: [ cache: {{ {cache} }} ], backend: {{ rocksdb: {{ path: {path} }} }}")
    };
    let backed_up = |to: &str, path: &str| {
        format!("layers: [ backup: {{ to: {to} }} ], backend: {{ rocksdb: {{ path: {path} }} }}")
    };
    let disk = "disk: { path: cache, capacity: 16MiB }";
    for (one, two, words) in [
        (
            "backend: { rocksdb: { path: data } }".to_owned(),
            "backend: { rocksdb: { path: ./x/../data, column_family: other } }".to_owned(),
            "conf/test.yaml: stores.one.backend.rocksdb and stores.two.backend.rocksdb both use the database ",
        ),
        (
            "backend: { sqlite: { path: data, table: mine } }".to_owned(),
            "backend: { sqlite: { path: data, table: MINE } }".to_owned(),
            "stores.one.backend.sqlite and stores.two.backend.sqlite both use a table of the database ",
        ),
        (
            "backend: { sqlite: { path: data } }".to_owned(),
            "backend: { file: { path: data } }".to_owned(),
            "stores.one.backend.sqlite and stores.two.backend.file both use a table of the database ",
        ),
        (
            cached(disk, "a"),
            cached(disk, "b"),
            "stores.one.layers[0].cache and stores.two.layers[0].cache both use the folder ",
        ),
        (
            cached("warm_start: { path: keys }", "a"),
            cached("warm_start: { path: keys }", "b"),
            "stores.one.layers[0].cache and stores.two.layers[0].cache both use the file ",
        ),
        (
            backed_up("./backups", "a"),
            backed_up("x/../backups", "b"),
            "stores.one.layers[0].backup and stores.two.layers[0].backup both use the place of backups ",
        ),
        // What lies in a folder of files is an entry.
        (
            "backend: { file: { path: data } }".to_owned(),
            "backend: { file: { path: ./data/more } }".to_owned(),
            "stores.one.backend.file and stores.two.backend.file both use the folder ",
        ),
        (
            backed_up("data/backups", "a"),
            "backend: { object: { url: ./data } }".to_owned(),
            "stores.one.layers[0].backup and stores.two.backend.object both use the place of backups ",
        ),
        (
            backed_up("data/backups", "a"),
            "backend: { file: { path: data } }".to_owned(),
            "stores.one.layers[0].backup and stores.two.backend.file both use the place of backups ",
        ),
    ] {
        let refused = check(&one, &two).unwrap_err();
        assert!(refused.contains(words) && refused.contains("only one store can"), "{refused}");
    }
    check("backend: { sqlite: { path: data } }", "backend: { sqlite: { path: data, table: b } }")
        .unwrap();
    check("backend: memory", "backend: memory").unwrap();
    check(&backed_up("data/one", "data/a"), &backed_up("data/two", "data/b")).unwrap();
    check("backend: { file: { path: data } }", "backend: { file: { path: data2 } }").unwrap();
}

/// A file of one part would be an entry of the other, or be removed by it.
#[cfg(all(
    feature = "rocksdb",
    feature = "file",
    feature = "cache",
    feature = "object",
    feature = "opendal",
    feature = "cloud",
    unix
))]
#[tokio::test]
async fn two_parts_of_one_store_with_the_same_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let parse = |text: &str| Config::parse(text, Format::Yaml, folder.path().join("t.yaml"));
    let cached = |disk: &str, backend: &str| {
        format!("{{ layers: [ cache: {{ {disk} }} ], backend: {{ {backend} }} }}")
    };
    let disk = |path: &str| format!("disk: {{ path: {path}, capacity: 16MiB }}");
    let refused = [
        (
            cached(&disk("data/cache"), "file: { path: data }"),
            "stores.main.layers[0].cache and stores.main.backend.file both use the folder ",
            "data/cache, which lies in the folder ",
        ),
        (
            cached(&disk("data"), "rocksdb: { path: x/../data }"),
            "stores.main.layers[0].cache and stores.main.backend.rocksdb both use the folder ",
            "data, and only one of them can",
        ),
        (
            cached(&disk("cache"), "rocksdb: { path: cache/data }"),
            "stores.main.layers[0].cache and stores.main.backend.rocksdb both use the database ",
            "cache/data, which lies in the folder ",
        ),
        (
            cached("warm_start: { path: data/keys }", "object: { url: data }"),
            "stores.main.layers[0].cache and stores.main.backend.object both use the file ",
            "data/keys, which lies in the objects in ",
        ),
        (
            cached(&disk("data/cache"), "opendal: { scheme: fs, options: { root: data } }"),
            "stores.main.layers[0].cache and stores.main.backend.opendal both use the folder ",
            "data/cache, which lies in the folder ",
        ),
        (
            cached(
                "disk: { path: tier, capacity: 16MiB }, warm_start: { path: tier/keys }",
                "file: { path: data }",
            ),
            "stores.main.layers[0].cache uses for two things the file ",
            "tier/keys, which lies in the folder ",
        ),
        (
            "{ layers: [ backup: { to: ./data } ], backend: { rocksdb: { path: data } } }"
                .to_owned(),
            "stores.main.layers[0].backup and stores.main.backend.rocksdb both use the place of backups ",
            "data, and only one of them can",
        ),
    ];
    let (registry, options) = (Registry::standard(), OpenOptions::default());
    for (store, words, place) in refused {
        let config = parse(&format!("stores: {{ main: {store} }}")).unwrap();
        let checked = Stack::check(&config, None, &registry).unwrap_err();
        let opened = Stack::open(&config, None, &registry, &options).await.unwrap_err();
        let below = Stack::open_below(&config, None, "cache", &registry, &options).await;
        let all = Stack::check_all(&config, &registry).unwrap_err();
        for error in [checked, opened, below.unwrap_err(), all] {
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(text.contains(words) && text.contains(place), "{text}");
            assert!(text.contains("t.yaml: "), "{text}");
            assert!(text.contains("; name another in one of them"), "{text}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
    }
    // A shared backend is what the store has, too.
    let shared = |disk: &str| {
        parse(&format!(
            "{{ backends: {{ main: {{ file: {{ path: data }} }} }}, stores: {{ a: {{ layers: [ cache: {{ disk: {{ path: {disk}, capacity: 16MiB }} }} ], backend: {{ shared: main, prefix: a/ }} }} }} }}"
        ))
        .unwrap()
    };
    let error = Stack::check(&shared("data/cache"), None, &registry).unwrap_err().to_string();
    assert!(
        error.contains("stores.a.layers[0].cache and backends.main.file both use the folder "),
        "{error}"
    );
    Stack::check(&shared("cache"), None, &registry).unwrap();

    // Several stores may use the objects of one place, and next to them is free.
    let two = |one: &str, two: &str| {
        let text = format!("stores: {{ one: {{ {one} }}, two: {{ {two} }} }}\ndefault: one");
        Stack::check_all(&parse(&text).unwrap(), &registry).map_err(|error| error.to_string())
    };
    let objects = |url: &str| format!("backend: {{ object: {{ url: '{url}' }} }}");
    two(&objects("data"), &objects("data")).unwrap();
    two(&objects("s3://b/x"), &objects("s3://b")).unwrap();
    let backed_up = "layers: [ backup: { to: s3://b/x/y } ], backend: memory";
    two(backed_up, &objects("s3://b/x")).map(drop).unwrap_err();
    two(backed_up, &objects("s3://b/xy")).unwrap();
    two(
        backed_up,
        "backend: { object: { url: s3://b/x, options: { endpoint: http://localhost:9000 } } }",
    )
    .unwrap();
}
