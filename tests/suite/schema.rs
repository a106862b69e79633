//! What the schema takes and what the loader takes is the same, and what is refused is refused with
//! words that help.

#![cfg(feature = "config")]

use crate::stand_ins::registry;
use jsonschema::Validator;
use serde_json::{Value, json};
use tierstack::config::{Config, Format, Registry, schema};
use tierstack::{ErrorKind, Stack};

const FILE: &str = "conf/tierstack.yaml";

fn validator(registry: &Registry) -> Validator {
    jsonschema::draft202012::new(&schema(registry)).unwrap()
}

/// A text as the tree that an editor validates.
fn tree(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// The error of loading and of checking every store.
fn load(text: &str) -> Result<(), String> {
    let checked = Config::parse(text, Format::Yaml, FILE)
        .and_then(|config| Stack::check_all(&config, &registry()));
    checked.map(drop).map_err(|error| {
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    })
}

#[test]
fn the_schema_is_one() {
    let schema = schema(&registry());
    assert!(jsonschema::meta::is_valid(&schema), "{schema:#}");
    let level = &schema["$defs"]["ShrinkConfig"]["properties"]["level"];
    assert_eq!(level["description"], "From 1 to 22.", "what an editor shows");
}

/// As a user writes the first lines of a config.
#[cfg(all(feature = "postgres", feature = "redis"))]
#[test]
fn an_address_is_a_text_or_where_it_stands() {
    let standard = Registry::standard();
    let validator = validator(&standard);
    let check = |backend: &str| {
        let text = format!("stores: {{ a: {{ backend: {backend} }} }}");
        let checked = Config::parse(&text, Format::Yaml, FILE)
            .and_then(|config| Stack::check_all(&config, &standard));
        (validator.is_valid(&tree(&text)), checked.map(drop).map_err(|error| error.to_string()))
    };
    for backend in [
        "{ postgres: { url: 'postgres://app@db/orders' } }",
        "{ postgres: { url: { env: DATABASE_URL } } }",
        "{ redis: { url: 'redis://me@db' } }",
        "{ redis: { url: { env: REDIS_URL } } }",
        "{ redis: { cluster: [ 'redis://a', { file: url } ] } }",
        "{ postgres: { url: { env: U }, columns: { key: [tenant, id] }, keys: tuple, values: text, scans: false } }",
    ] {
        assert_eq!(check(backend), (true, Ok(())), "{backend}");
    }
    for (backend, words) in [
        ("{ postgres: {} }", "stores.a.backend.postgres: the setting 'url' is missing"),
        ("postgres", "stores.a.backend.postgres: the setting 'url' is missing"),
        ("{ postgres: { url: 5 } }", "stores.a.backend.postgres.url: an address is a text such"),
        ("{ postgres: { url: { env: U }, columns: { key: 5 } } }", "a key is a column, or several"),
        ("{ redis: { url: { hunter2: x } } }", "stores.a.backend.redis.url: an address is a text"),
        ("{ redis: { cluster: [ 5 ] } }", "stores.a.backend.redis.cluster[0]: an address is"),
    ] {
        let (valid, checked) = check(backend);
        let error = checked.unwrap_err();
        assert!(!valid && error.contains(words) && !error.contains("hunter2"), "{error}");
    }
    let (_, checked) = check("redis");
    assert!(checked.unwrap_err().contains("`url` is missing"));
}

#[test]
fn every_example_validates() {
    let standard = Registry::standard();
    let names: Vec<_> = standard.layer_names().chain(standard.backend_names()).collect();
    let validator = validator(&standard);
    for entry in std::fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        let Ok(format) = Format::of(&path) else { continue };
        let text = std::fs::read_to_string(&path).unwrap();
        let tree: Value = match format {
            Format::Yaml => tree(&text),
            Format::Toml => toml::from_str(&text).unwrap(),
            Format::Json => serde_json::from_str(&text).unwrap(),
        };
        let config = Config::parse(&text, format, &path).unwrap();
        let parts = config.stores.values().flat_map(|s| s.layers.iter().chain([&s.backend]));
        let parts = parts.filter(|part| part.name != "shared").chain(config.backends.values());
        // Of the light build: the schema describes what this build takes.
        let whole = parts.into_iter().all(|part| names.contains(&part.name.as_str()));
        let errors: Vec<_> = validator.iter_errors(&tree).map(|e| e.to_string()).collect();
        assert_eq!(errors.is_empty(), whole, "{}: {errors:?}", path.display());
    }
}

#[test]
fn what_is_right_is_taken_by_both() {
    let validator = validator(&registry());
    for text in [
        "stores: { a: { backend: memory } }",
        "stores: { a: { backend: { memory: } } }",
        "stores: { a: { backend: { memory: {} } } }",
        "{ $schema: ./schema.json, stores: { a: { backend: memory } } }",
        "stores: { a: { layers: [], backend: memory } }",
        "stores: { a: { layers: [ watch, loose, shrink: ], backend: memory } }",
        "stores: { a: { layers: [ hold: { capacity: 1.5 GB, ttl: 1h 30m } ], backend: memory } }",
        "stores: { a: { layers: [ hold: { capacity: 4096, ttl: null } ], backend: memory } }",
        "stores: { a: { layers: [ seal: { keys: { file: k.txt } } ], backend: memory } }",
        "stores: { a: { layers: [ record: { to: x, keep: { daily: 7 } } ], backend: memory } }",
        "stores: { a: { layers: [ seal: { keys: { env: K } } ], backend: { disk: { path: d } }, sealed: required } }",
        "{ stores: { a: { backend: memory }, b-2: { backend: memory } }, default: b-2 }",
        "{ backends: { m-1: memory }, stores: { a: { backend: { shared: m-1 } } } }",
        "{ backends: {}, stores: { a: { backend: memory } } }",
        "{ backends: { m: { disk: { path: d } } }, stores: { a: { backend: { shared: m, prefix: a/ } }, b: { backend: { prefix: b/, shared: m } } }, default: a }",
        "{ stores: { a: { backend: memory } }, telemetry: { listen: '127.0.0.1:9187' } }",
        "{ stores: { a: { backend: memory } }, telemetry: { listen: '[::1]:0' } }",
        "{ stores: { a: { backend: memory } }, telemetry: { listen: '0.0.0.0:9187', anyone: true } }",
    ] {
        load(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let errors: Vec<_> = validator.iter_errors(&tree(text)).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{text}: {errors:?}");
    }
}

/// Whether an editor can see it too, from the schema.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    ByBoth,
    /// It takes more than one place of the file, or what is registered, to see it.
    ByLoader,
}

#[test]
fn what_is_wrong_is_refused_by_both_with_words_that_help() {
    use Seen::{ByBoth, ByLoader};
    let layer =
        |layer: &str| format!("stores: {{ a: {{ layers: [ {layer} ], backend: memory }} }}");
    let backend = |backend: &str| format!("stores: {{ a: {{ backend: {backend} }} }}");
    let shared = |store: &str, shared: &str| {
        format!(
            "{{ backends: {{ m: {shared} }}, stores: {{ a: {{ backend: {{ shared: m }} }}, b: {{ backend: {store} }} }}, default: a }}"
        )
    };
    let cases: Vec<(String, Seen, &[&str])> = vec![
        // The file as a whole.
        ("".into(), ByBoth, &["the file is empty", "stores"]),
        ("# nothing\n".into(), ByBoth, &["the file is empty"]),
        ("[]".into(), ByBoth, &["expected a map of settings, found a list"]),
        ("hello".into(), ByBoth, &["expected a map of settings, found text"]),
        ("stores: {}".into(), ByBoth, &["stores: the map is empty"]),
        ("stores:".into(), ByBoth, &["stores: expected a map, found nothing"]),
        ("{}".into(), ByBoth, &["the setting 'stores' is missing"]),
        (
            "{ storse: {}, stores: { a: { backend: memory } } }".into(),
            ByBoth,
            &["storse: unknown setting 'storse'; did you mean 'stores'?", "Allowed:", "telemetry"],
        ),
        (
            "{ stores: { a: { backend: memory }, b: { backend: memory } } }".into(),
            ByBoth,
            &["default:", "several stores", "Allowed: a, b"],
        ),
        (
            "{ stores: { order: { backend: memory } }, default: orders }".into(),
            ByLoader,
            &["default: unknown store 'orders'; did you mean 'order'?"],
        ),
        (
            "{ stores: { a: { backend: memory } }, default: }".into(),
            ByBoth,
            &["default: expected text, found nothing"],
        ),
        (
            "stores: { a.b: { backend: memory } }".into(),
            ByBoth,
            &["stores: 'a.b' is not a name", "letters, digits, '_' and '-'"],
        ),
        (
            "{ stores: { a: { backend: memory } }, telemetry: { listen: here } }".into(),
            ByBoth,
            &["telemetry.listen: this is not an address", "127.0.0.1:9187"],
        ),
        (
            "{ stores: { a: { backend: memory } }, telemetry: { listen: '0.0.0.0:9187' } }".into(),
            ByLoader,
            &["telemetry: 0.0.0.0:9187 is reached from other machines", "`anyone: true`"],
        ),
        (
            "{ stores: { a: { backend: memory } }, telemetry: { listen: '[::ffff:10.0.0.1]:9187', anyone: false } }".into(),
            ByLoader,
            &["is reached from other machines, and any client there can read the metrics"],
        ),
        (
            "{ stores: { a: { backend: memory } }, telemetry: {} }".into(),
            ByBoth,
            &["telemetry: the setting 'listen' is missing"],
        ),
        // A store.
        ("stores: { a: {} }".into(), ByBoth, &["stores.a: the setting 'backend' is missing"]),
        ("stores: { a: memory }".into(), ByBoth, &["stores.a: expected a map of settings, found text"]),
        ("stores: { a: [ [], memory ] }".into(), ByBoth, &["stores.a: expected a map of settings, found a list"]),
        (
            "stores: { a: { backends: memory } }".into(),
            ByBoth,
            &["stores.a.backends: unknown setting 'backends'; did you mean 'backend'?"],
        ),
        (
            "stores: { a: { layers: { watch: {} }, backend: memory } }".into(),
            ByBoth,
            &["stores.a.layers: expected a list, found a map"],
        ),
        (
            "stores: { a: { layers:, backend: memory } }".into(),
            ByBoth,
            &["stores.a.layers: expected a list, found nothing"],
        ),
        (
            "stores: { a: { sealed: yes, backend: memory } }".into(),
            ByBoth,
            &["stores.a.sealed:", "Allowed: required"],
        ),
        (
            "stores: { a: { sealed:, backend: memory } }".into(),
            ByBoth,
            &["stores.a.sealed: expected"],
        ),
        (
            "stores: { a: { sealed: required, backend: { disk: { path: d } } } }".into(),
            ByLoader,
            &["stores.a.sealed: values would rest plain in disk (database)", "'encrypt'"],
        ),
        (
            "stores: { a: { sealed: required, layers: [ record: { to: x }, seal: { keys: { env: K } } ], backend: memory } }".into(),
            ByLoader,
            &["stores.a.layers: 'record' is outside 'seal'", "put 'seal' before 'record'"],
        ),
        // Backends.
        (backend("{ memory: {}, disk: { path: d } }"), ByBoth, &["stores.a.backend: there are two names, 'memory' and 'disk'"]),
        (backend("[ memory ]"), ByBoth, &["stores.a.backend: expected a name", "found a list"]),
        (backend(""), ByBoth, &["stores.a.backend: expected a name", "found nothing"]),
        (backend("{}"), ByBoth, &["stores.a.backend: the map is empty"]),
        (backend("memroy"), ByBoth, &["stores.a.backend: unknown backend 'memroy'; did you mean 'memory'? Allowed: disk, "]),
        (backend("watch"), ByBoth, &["'watch' is a layer", "`layers`"]),
        (backend("disk"), ByBoth, &["stores.a.backend.disk: the setting 'path' is missing"]),
        (backend("{ disk: { path: 5 } }"), ByBoth, &["stores.a.backend.disk.path: expected text, found a number; put it in quotes"]),
        (backend("{ memory: { size: 1 } }"), ByBoth, &["stores.a.backend.memory.size: unknown setting 'size'"]),
        // A backend that stores share.
        (shared("{ shared: m }", "memory"), ByLoader, &["stores.a.backend and stores.b.backend are the same data, all of `backends.m.memory`; give each a `prefix` of its own"]),
        (shared("{ shared: m, prefix: b }", "memory"), ByLoader, &["one of stores.a.backend and stores.b.backend has no prefix"]),
        (shared("{ shared: other, prefix: b }", "memory"), ByLoader, &["stores.b.backend.shared: unknown shared backend 'other'. Allowed: m"]),
        (shared("{ shared: m, prefix: 5 }", "memory"), ByBoth, &["stores.b.backend.prefix: expected text"]),
        (shared("{ shared: m, prefix: '' }", "memory"), ByBoth, &["stores.b.backend"]),
        (shared("{ shared: 5 }", "memory"), ByBoth, &["stores.b.backend.shared: expected the name of one of `backends`, as text"]),
        (shared("shared", "memory"), ByBoth, &["stores.b.backend.shared: expected the name of one of `backends`, as text"]),
        (shared("{ shared: m, path: x }", "{ disk: { path: d } }"), ByBoth, &["stores.b.backend.path: unknown setting 'path'. Allowed: prefix; what is for all stores is under `backends.m.disk`"]),
        (shared("memory", "{ shared: m }"), ByBoth, &["backends.m: this is a backend that stores share"]),
        (shared("memory", "{ disk: { path: 5 } }"), ByBoth, &["backends.m.disk.path: expected text, found a number"]),
        (shared("memory", "dsik"), ByBoth, &["backends.m: unknown backend 'dsik'; did you mean 'disk'?"]),
        ("{ backends: { m: memory }, stores: { a: { backend: memory } } }".into(), ByLoader, &["backends.m: no store uses it"]),
        ("{ backends: { m/1: memory }, stores: { a: { backend: memory } } }".into(), ByBoth, &["backends: 'm/1' is not a name for a backend"]),
        ("{ backends:, stores: { a: { backend: memory } } }".into(), ByBoth, &["backends: expected a map, found nothing"]),
        // Layers.
        (layer("wacth"), ByBoth, &["stores.a.layers[0]: unknown layer 'wacth'; did you mean 'watch'? Allowed: ", "shrink"]),
        (layer("turbo"), ByBoth, &["unknown layer 'turbo'. Allowed: "]),
        (layer("memory"), ByBoth, &["'memory' is a backend", "`backend`"]),
        (layer("watch, { watch: {}, shrink: {} }"), ByBoth, &["stores.a.layers[1]: there are two names, 'watch' and 'shrink'", "an item of the list"]),
        (layer("{}"), ByBoth, &["stores.a.layers[0]: the map is empty"]),
        (layer("5"), ByBoth, &["stores.a.layers[0]: expected a name"]),
        (layer("[ watch ]"), ByBoth, &["stores.a.layers[0]: expected a name", "found a list"]),
        (layer("hold"), ByBoth, &["stores.a.layers[0].hold: the setting 'capacity' is missing"]),
        (layer("hold: "), ByBoth, &["stores.a.layers[0].hold: the setting 'capacity' is missing"]),
        (layer("hold: { capacity: 256 megs }"), ByBoth, &["stores.a.layers[0].hold.capacity: '256 megs' is not a size", "256MiB"]),
        (layer("hold: { capacity: 1MiB, ttl: 10 }"), ByBoth, &["layers[0].hold.ttl: '10' has no unit", "10s"]),
        (layer("hold: { capacity: 1MiB, ttl: soon }"), ByBoth, &["layers[0].hold.ttl: 'soon' is not a duration", "10m"]),
        (layer("hold: { capacity: true }"), ByBoth, &["layers[0].hold.capacity:", "a size such as 256MiB"]),
        (layer("shrink: { levl: 3 }"), ByBoth, &["layers[0].shrink.levl: unknown setting 'levl'; did you mean 'level'? Allowed: codec, level, min_size"]),
        (layer("shrink: { codec: zsdt }"), ByBoth, &["layers[0].shrink.codec: unknown value 'zsdt'; did you mean 'zstd'? Allowed: zstd, lz4"]),
        (layer("shrink: { level: three }"), ByBoth, &["layers[0].shrink.level: expected a whole number, found text; write it without quotes"]),
        (layer("shrink: { level: -1 }"), ByBoth, &["layers[0].shrink.level: expected a whole number from 0 to 255, found -1"]),
        (layer("shrink: { level: 300 }"), ByBoth, &["layers[0].shrink.level: expected a whole number from 0 to 255, found 300"]),
        (layer("shrink: { level: 3.5 }"), ByBoth, &["layers[0].shrink.level: expected a whole number"]),
        (layer("shrink: { level: 99 }"), ByLoader, &["stores.a.layers[0].shrink.level: 99 is not from 1 to 22"]),
        (layer("shrink: [ zstd, 3 ]"), ByBoth, &["layers[0].shrink: expected a map of settings, found a list"]),
        (layer("record: { to: x, keep: { dayly: 3 } }"), ByBoth, &["layers[0].record.keep.dayly: unknown setting 'dayly'; did you mean 'daily'?"]),
        (layer("record: { to: x, keep: [ 3, 4 ] }"), ByBoth, &["layers[0].record.keep: expected a map of settings, found a list"]),
        (layer("record: { to: 5 }"), ByBoth, &["layers[0].record.to: expected text, found a number; put it in quotes"]),
        (layer("seal: { keys: hunter2 }"), ByBoth, &["layers[0].seal.keys: a secret must not be in the config", "{ env: NAME }"]),
        (layer("seal: { keys: { env: 5 } }"), ByBoth, &["layers[0].seal.keys: a secret must not be in the config"]),
        (layer("loose: { fnie: true }"), ByBoth, &["layers[0].loose.fnie: unknown setting 'fnie'; did you mean 'fine'? Allowed: fine"]),
        (layer("seal: { keys: { env: K } }, shrink"), ByLoader, &["stores.a.layers: 'seal' is outside 'shrink'", "do not compress", "put 'shrink' before 'seal'"]),
        (layer("shrink, watch, shrink"), ByLoader, &["stores.a.layers[2]: 'shrink' is here for the second time"]),
    ];
    let validator = validator(&registry());
    for (text, seen, words) in &cases {
        let error = load(text).expect_err(text);
        for word in ["conf/tierstack.yaml: "].iter().chain(*words) {
            assert!(error.contains(word), "{text}\n  says: {error}\n  not: {word}");
        }
        assert!(!error.contains("hunter2"), "{error}");
        assert_eq!(!validator.is_valid(&tree(text)), *seen == ByBoth, "the schema on {text}");
    }
}

#[test]
fn a_name_that_is_not_in_this_build_names_the_feature() {
    let bare = Registry::new();
    for (text, feature) in [
        ("stores: { a: { backend: rocksdb } }", "rocksdb"),
        ("stores: { a: { layers: [ backup: { to: x } ], backend: memory } }", "backup"),
    ] {
        let mut registry = Registry::new();
        registry.backend::<tierstack::backends::MemoryConfig>().unwrap();
        let config = Config::parse(text, Format::Yaml, FILE).unwrap();
        let error = Stack::check(&config, None, &registry).unwrap_err().to_string();
        assert!(error.contains(&format!("`--features {feature}`")), "{error}");
        assert!(!validator(&registry).is_valid(&tree(text)));
    }
    let config = Config::parse("stores: { a: { backend: memory } }", Format::Yaml, FILE).unwrap();
    let error = Stack::check(&config, None, &bare).unwrap_err().to_string();
    assert!(error.contains("None is allowed here"), "{error}");
}

#[test]
fn a_name_twice_in_a_map_is_refused_in_every_format() {
    for (text, format) in [
        ("stores:\n  a: { backend: memory }\n  a: { backend: memory }\n", Format::Yaml),
        ("[stores.a]\nbackend = 'memory'\n[stores.a]\nbackend = 'memory'\n", Format::Toml),
        (
            "{\"stores\": {\"a\": {\"backend\": \"memory\"},\n\"a\": {\"backend\": \"memory\"}}}",
            Format::Json,
        ),
    ] {
        let error = Config::parse(text, format, FILE).unwrap_err().to_string();
        assert!(error.contains("conf/tierstack.yaml: line "), "{format:?}: {error}");
    }
}

/// Values of every kind that somebody may write, right and wrong.
fn kinds() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "x",
        "true",
        "null",
        "~",
        "0",
        "1",
        "10",
        "-1",
        "1.5",
        "1e3",
        "0x10",
        "1_000",
        "256MiB",
        "256 mib",
        "1 KB",
        "10iB",
        "10K",
        "10M",
        ".5MB",
        "1.MB",
        "1.5MB",
        "1.5.2MB",
        "-1MB",
        "1,5MB",
        "18446744073709551615",
        "18446744073709551616",
        "99999999TiB",
        "16777215TiB",
        "16TiB",
        " 1MiB ",
        "1 Mi B",
        "\u{a0}1MiB",
        "0B",
        "10s",
        "10 s",
        "10m",
        "10min",
        "10 minutes",
        "1h 30m",
        "1h30m",
        "7d",
        "1w",
        "1y",
        "0s",
        "0",
        "1.5s",
        "-5s",
        "5 parsecs",
        "s",
        "10s 5",
        "500ms",
        "10us",
        "99999999999999999999s",
        " 10s ",
        "10S",
        "1month",
        "10%",
        "0%",
        "100%",
        "110%",
        "-10%",
        "0.1",
        "1.0",
        ".5",
        "5e-1",
        "10 %",
        "%",
        "NaN",
        "inf",
        "127.0.0.1:9187",
        "[::1]:1",
        "1.2.3.4:99999",
        "999.1.1.1:80",
        "localhost:80",
        "here",
        "é",
        "a\nb",
        "a\u{0}b",
        "./x",
        "~/x",
        "/abs",
        "s3://b/x",
        "file:///x",
        "gs:b/x",
        "redis://h",
        "rediss://h:1/0",
        "postgres://h/db",
        "https://h",
        "://",
        "daily",
        "@daily",
        "hourly",
        "*/15 * * * *",
        "* * * *",
        "lru",
        "LRU",
        "zstd",
        "lz4",
        "snappy",
        "off",
        "on",
        "yes",
        "text",
        "bytes",
        "journal",
        "required",
    ];
    let numbers = [
        0_i64,
        1,
        2,
        3,
        19,
        22,
        23,
        100,
        255,
        256,
        1024,
        65_535,
        65_536,
        1 << 31,
        1 << 32,
        1 << 53,
        i64::MAX,
        -1,
        -128,
        i64::MIN,
    ];
    let mut kinds: Vec<Value> = texts.into_iter().map(Value::from).collect();
    kinds.extend(numbers.map(Value::from));
    kinds.extend([0.0, 0.5, 1.0, 1.5, -0.5, 3.0, 1e3, 1e300].map(Value::from));
    kinds.extend([
        json!(u64::MAX),
        json!(null),
        json!(true),
        json!(false),
        json!([]),
        json!(["a"]),
        json!(["a", "a"]),
        json!([1]),
        json!([null]),
        json!([[]]),
        json!(["redis://h"]),
        json!({}),
        json!({"env": "K"}),
        json!({"file": "k"}),
        json!({"env": 5}),
        json!({"env": ""}),
        json!({"env": "K", "file": "k"}),
        json!({"path": "x"}),
        json!({"path": ""}),
        json!({"path": "x", "capacity": "1MiB"}),
        json!({"a": 1}),
        json!({"a": "b"}),
        json!({"": "b"}),
        json!({"key": "k"}),
        json!({"daily": 3}),
        json!({"a": {"env": "K"}}),
    ]);
    kinds
}

/// What each layer and backend needs, so that one setting more is all that may be wrong.
fn least(name: &str) -> Value {
    match name {
        "cache" => json!({"capacity": "1MiB"}),
        "encrypt" => json!({"keys": {"env": "K"}}),
        "backup" => json!({"to": "./b"}),
        "timeout" => json!({"after": "2s"}),
        "limit" => json!({"operations": 10}),
        "prefix" => json!({"prefix": "p/"}),
        "rocksdb" | "file" | "sqlite" | "write_back" => json!({"path": "x"}),
        "postgres" => json!({"url": "postgres://h/db"}),
        "redis" => json!({"url": "redis://h"}),
        "object" => json!({"url": "s3://b/x"}),
        "opendal" => json!({"scheme": "memory"}),
        _ => json!({}),
    }
}

/// What only `check` can refuse: ranges that are in no type, settings that need or exclude another, and texts in a
/// grammar of their own. Everything else is refused by both.
const BY_CHECK: [(&str, &[&str]); 17] = [
    (
        "cache",
        &[
            "capacity",
            "disk",
            "error_ttl",
            "idle",
            "jitter",
            "load_timeout",
            "max_loads",
            "negative_ttl",
            "on_write",
            "refresh_ahead",
            "retry_after_error",
            "soft_timeout",
            "stale_if_error",
            "stale_while_refresh",
            "ttl",
            "warm_start",
        ],
    ),
    ("backup", &["base", "to"]),
    ("compress", &["max_value"]),
    ("expire", &["default_ttl"]),
    ("file", &["path"]),
    ("limit", &["operations", "queue", "wait"]),
    ("object", &["options", "timeout", "url"]),
    ("opendal", &["conditional_writes", "options", "scheme", "timeout"]),
    (
        "postgres",
        &["ca", "connect_timeout", "pool", "pooler", "snapshots", "table", "timeout", "url"],
    ),
    ("prefix", &["prefix"]),
    ("redis", &["ca", "cluster", "connect_timeout", "hash_tag", "timeout", "url"]),
    ("retry", &["attempts", "max_delay", "min_delay"]),
    (
        "rocksdb",
        &[
            "background_jobs",
            "block_cache_size",
            "bloom_bits",
            "column_family",
            "path",
            "wal_dir",
            "write_buffer_size",
            "write_buffers",
        ],
    ),
    ("sqlite", &["busy_timeout", "path", "table"]),
    ("timeout", &["after"]),
    ("metrics", &[]),
    ("write_back", &["flush_bytes", "max_dirty", "max_wait", "path"]),
];

/// For every setting of every layer and backend, and every kind of value.
#[test]
fn the_schema_and_the_loader_agree_on_every_kind_of_value() {
    let standard = Registry::standard();
    let schema = schema(&standard);
    let validator = validator(&standard);
    let mut told = Vec::new();
    let mut tried = 0;
    let layers = standard.layer_names().map(|name| (name, true));
    for (name, is_layer) in layers.chain(standard.backend_names().map(|name| (name, false))) {
        let kind = if is_layer { "layer" } else { "backend" };
        let forms = schema["$defs"][kind]["oneOf"].as_array().unwrap();
        let form = forms.iter().find(|form| form["title"] == name).unwrap();
        let settings = settings(&schema, &form["properties"][name]);
        for setting in settings.keys() {
            for value in kinds() {
                let mut settings = least(name);
                settings[setting] = value.clone();
                let part = json!({ name: settings });
                let store = match is_layer {
                    true => json!({ "layers": [part], "backend": "memory" }),
                    false => json!({ "backend": part }),
                };
                let tree = json!({ "stores": { "a": store } });
                let loaded = Config::parse(&tree.to_string(), Format::Json, "c.json")
                    .and_then(|config| Stack::check_all(&config, &standard));
                let valid = validator.is_valid(&tree);
                tried += 1;
                let by_check = BY_CHECK
                    .iter()
                    .any(|(of, some)| *of == name && some.contains(&setting.as_str()));
                if valid != loaded.is_ok() && !(valid && by_check) {
                    let why = loaded.err().map(|error| error.to_string()).unwrap_or_default();
                    told.push(format!("{name}.{setting}: {value}: schema {valid}: {why}"));
                }
            }
        }
    }
    assert!(tried > 10_000, "{tried}");
    assert!(told.is_empty(), "{} of {tried}:\n{}", told.len(), told.join("\n"));
}

/// The properties of a schema, or of the one that it names.
fn settings(schema: &Value, of: &Value) -> serde_json::Map<String, Value> {
    if let Some(target) = of["$ref"].as_str() {
        return settings(schema, &schema["$defs"][target.strip_prefix("#/$defs/").unwrap()]);
    }
    if let Some(any) = of["anyOf"].as_array() {
        return settings(schema, &any[0]);
    }
    of["properties"].as_object().cloned().unwrap_or_default()
}
