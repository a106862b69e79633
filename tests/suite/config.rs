//! What a config may say, what is refused, and with which words.

#![cfg(feature = "config")]

#[allow(unreachable_pub, reason = "it is a program of its own")]
#[path = "../../examples/custom_layer.rs"]
mod custom_layer;

use std::path::Path;

use crate::stand_ins::{DISKS, RecordConfig, ShrinkConfig, registry};
use tierstack::backends::MemoryConfig;
use tierstack::config::{Config, Format, Registry};
use tierstack::{Error, ErrorKind, OpenOptions, Read, Stack, StoreExt};

fn yaml(text: &str) -> Result<Config, Error> {
    Config::parse(text, Format::Yaml, "conf/tierstack.yaml")
}

/// What is wrong in the light build with a config that needs more.
fn lacks_a_feature(error: &Error) -> bool {
    error.to_string().contains("build tierstack with the cargo feature")
}

/// The error of parsing or of checking every store.
fn refused(text: &str) -> String {
    let checked = yaml(text).and_then(|config| Stack::check_all(&config, &registry()));
    let error = checked.expect_err(text);
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

/// A registry without names is what a build without features has of them.
#[test]
fn a_name_that_is_not_compiled_in_names_its_feature() {
    for (text, feature) in [
        ("{ backend: { rocksdb: { path: data } } }", "rocksdb"),
        ("{ layers: [ encrypt: { keys: { env: K } } ], backend: memory }", "encrypt"),
    ] {
        let config = yaml(&format!("stores: {{ main: {text} }}")).unwrap();
        let mut bare = tierstack::config::Registry::new();
        bare.backend::<tierstack::backends::MemoryConfig>().unwrap();
        let error = Stack::check(&config, None, &bare).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let hint = format!("`--features {feature}`");
        assert!(lacks_a_feature(&error) && error.to_string().contains(&hint), "{error}");
        assert!(
            error.to_string().starts_with("config: conf/tierstack.yaml: stores.main."),
            "{error}"
        );
    }
}

const FULL: &str = "
stores:
  orders:
    sealed: required
    layers:
      - hold: { capacity: 256MiB, ttl: 10m }
      - watch
      - shrink:
      - seal: { keys: { env: PATH } }
      - watch: { loud: true }
      - record: { to: ./backups, keep: { daily: 30 } }
    backend:
      disk: { path: ./data }
";

#[test]
fn the_three_formats_say_the_same() {
    let toml = r#"
        [stores.orders]
        sealed = "required"
        layers = [
            { hold = { capacity = "256MiB", ttl = "10m" } },
            "watch",
            { shrink = {} },
            { seal = { keys = { env = "PATH" } } },
            { watch = { loud = true } },
            { record = { to = "./backups", keep = { daily = 30 } } },
        ]
        backend.disk.path = "./data"
    "#;
    let json = r#"{ "stores": { "orders": {
        "sealed": "required",
        "layers": [
            { "hold": { "capacity": "256MiB", "ttl": "10m" } },
            "watch",
            { "shrink": null },
            { "seal": { "keys": { "env": "PATH" } } },
            { "watch": { "loud": true } },
            { "record": { "to": "./backups", "keep": { "daily": 30 } } }
        ],
        "backend": { "disk": { "path": "./data" } }
    } } }"#;
    let facts = |text, format| {
        let config = Config::parse(text, format, "a").unwrap();
        let store = &config.stores["orders"];
        assert_eq!(store.layers.len(), 6);
        let checked = Stack::check(&config, None, &registry()).unwrap();
        (store.layers.clone(), store.backend.clone(), checked.to_string())
    };
    let from_yaml = facts(FULL, Format::Yaml);
    assert_eq!(from_yaml, facts(toml, Format::Toml));
    assert_eq!(from_yaml, facts(json, Format::Json));
}

#[tokio::test]
async fn a_running_stack_guarantees_what_was_checked() {
    let config = yaml(FULL).unwrap();
    let stack = Stack::open(&config, None, &registry(), &OpenOptions::default()).await.unwrap();
    assert_eq!(stack.profile(), *stack.checked().profile());
    assert_eq!(stack.name(), "orders");
    stack.put("k", "v").await.unwrap().durable().await.unwrap();
    assert_eq!(stack.store().get(b"k").await.unwrap(), Some("v".into()));
    stack.close().await.unwrap();
}

#[tokio::test]
async fn what_is_below_a_layer_can_be_opened_alone_with_its_settings() {
    let config = yaml(FULL).unwrap();
    let options = OpenOptions::default();
    let stack = Stack::open_below(&config, None, "record", &registry(), &options).await.unwrap();
    assert_eq!(stack.profile().to_string(), "disk");
    assert_eq!(stack.checked().layer_config::<RecordConfig>().unwrap().keep.daily, 30);
    let context = stack.checked().layer_context("record", &options).unwrap();
    assert_eq!(context.folder, Path::new("conf"));
    stack.close().await.unwrap();

    let stack = Stack::open_below(&config, None, "shrink", &registry(), &options).await.unwrap();
    assert_eq!(stack.profile().to_string(), "seal(watch(record(disk)))");
    stack.close().await.unwrap();

    let error = Stack::open_below(&config, None, "loose", &registry(), &options).await.unwrap_err();
    assert!(error.to_string().contains("no layer 'loose'"), "{error}");
}

#[tokio::test]
async fn no_backend_is_opened_when_a_layer_fails() {
    let text = "
stores:
  orders:
    layers: [ watch, broken, shrink ]
    backend: { disk: { path: broken } }
";
    let config = yaml(text).unwrap();
    let opened = Stack::open(&config, None, &registry(), &OpenOptions::default()).await;
    let error = opened.unwrap_err();
    assert!(!DISKS.lock().unwrap().contains_key(Path::new("conf/broken")));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(
        text.contains("conf/tierstack.yaml: stores.orders.layers[1].broken: it never opens"),
        "{text}"
    );
}

#[tokio::test]
async fn a_missing_secret_names_the_variable_and_the_place() {
    let text = FULL.replace("env: PATH", "env: TIERSTACK_NOT_SET");
    let config = yaml(&text).unwrap();
    Stack::check(&config, None, &registry()).expect("checking needs no secret");
    let error = Stack::open(&config, None, &registry(), &OpenOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("stores.orders.layers[3].seal"), "{text}");
    assert!(text.contains("TIERSTACK_NOT_SET"), "{text}");
}

#[test]
fn a_secret_that_stands_in_the_config_is_never_printed() {
    for text in [
        FULL.replace("keys: { env: PATH }", "keys: hunter2"),
        FULL.replace("keys: { env: PATH }", "keys: [ hunter2 ]"),
        FULL.replace("keys: { env: PATH }", "keys: { hunter2: hunter2 }"),
        FULL.replace("keys: { env: PATH }", "keys: { hunter2 }"),
        FULL.replace("keys: { env: PATH }", "keys: { env: PATH, file: hunter2 }"),
        FULL.replace("{ keys: { env: PATH } }", "hunter2"),
        FULL.replace("{ keys: { env: PATH } }", "[ hunter2 ]"),
        FULL.replace("{ loud: true }", "hunter2"),
        FULL.replace("loud: true", "loud: hunter2"),
        FULL.replace("daily: 30", "daily: hunter2"),
        FULL.replace("{ daily: 30 }", "hunter2"),
        FULL.replace("sealed: required", "sealed: hunter2"),
        FULL.replace("- shrink:", "- shrink: { codec: hunter2 }"),
        // Damaged around the secret: what the parsers themselves say.
        FULL.replace("keys: { env: PATH }", "keys: hunter2 }"),
        FULL.replace("keys: { env: PATH }", "keys: \"hunter2"),
        FULL.replace("keys: { env: PATH }", "keys: !hunter2 x"),
        FULL.replace("keys: { env: PATH }", "keys: *hunter2"),
        FULL.replace("keys: { env: PATH }", "keys: \"hunter2\\q\""),
        FULL.replace("keys: { env: PATH }", "keys: !!int hunter2"),
        FULL.replace("keys: { env: PATH }", "<<: hunter2"),
    ] {
        let error = yaml(&text).and_then(|config| {
            let printed = format!("{config:?}");
            assert!(!printed.contains("hunter2"), "{printed}");
            Stack::check(&config, None, &registry())
        });
        let error = error.expect_err(&text);
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
    for (format, text) in [
        (Format::Toml, "stores = 1\nkeys = \"hunter2\nx"),
        (Format::Toml, "keys = hunter2"),
        (Format::Json, "{ \"keys\": hunter2 }"),
        (Format::Json, "{ \"keys\": \"hunter2 }"),
        (Format::Json, "{ \"stores\": \"hunter2\" }"),
        (Format::Toml, "stores = \"hunter2\""),
    ] {
        let error = Config::parse(text, format, "a").unwrap_err();
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

#[test]
fn an_example_of_each_format_is_what_this_build_can_run_or_says_what_it_lacks() {
    let mut formats = Vec::new();
    for entry in std::fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        if Format::of(&path).is_err() {
            continue;
        }
        formats.push(Format::of(&path).unwrap());
        let config = Config::load(&path).unwrap();
        match Stack::check_all(&config, &Registry::standard()) {
            Ok(checked) => assert!(!checked.is_empty()),
            Err(error) => assert!(lacks_a_feature(&error), "{error}"),
        }
    }
    for format in [Format::Yaml, Format::Toml, Format::Json] {
        assert!(formats.contains(&format), "no example in {format:?}");
    }
}

#[test]
fn the_example_of_a_layer_of_ones_own_runs() {
    custom_layer::main().unwrap();
}

#[test]
fn a_name_is_registered_once() {
    let mut registry = registry();
    let error = registry.layer::<ShrinkConfig>().unwrap_err();
    assert!(error.to_string().contains("'shrink'"), "{error}");
    let error = registry.backend::<MemoryConfig>().unwrap_err();
    assert!(error.to_string().contains("'memory'"), "{error}");
}

#[test]
fn a_missing_file_says_how_to_write_one() {
    let error = Config::load("no/such/tierstack.yaml").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    for part in ["no/such/tierstack.yaml", "quickstart.yaml", "tierstack schema", "--config"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_file_is_read_by_its_extension_and_only_if_it_is_a_config() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ini");
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("a.ini") && error.contains(".yaml, .yml, .toml or .json"), "{error}");

    let path = folder.path().join("a.yml");
    std::fs::write(&path, b"stores: { \xff }").unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("not text in UTF-8"));

    std::fs::write(&path, vec![b'#'; Config::MAX_BYTES as usize + 1]).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("at most 1 MiB"));

    std::fs::write(&path, "\u{feff}stores: { a: { backend: memory } }").unwrap();
    assert_eq!(Config::load(&path).unwrap().folder(), folder.path());
}

#[test]
fn stores_are_found_by_name_and_by_default() {
    let text = "
stores:
  orders: { backend: memory }
  users: { backend: memory }
default: users
";
    let config = yaml(text).unwrap();
    assert_eq!(config.store(None).unwrap().0, "users");
    assert_eq!(config.store(Some("orders")).unwrap().0, "orders");
    let error = config.store(Some("order")).unwrap_err().to_string();
    assert!(error.contains("did you mean 'orders'? Allowed: orders, users"), "{error}");
    assert!(error.contains("conf/tierstack.yaml"), "{error}");
}

#[test]
fn the_order_is_checked_and_a_costly_one_is_priced() {
    let text = "
stores:
  a:
    layers: [ shrink, hold: { capacity: 1MiB } ]
    backend: memory
";
    let checked = Stack::check(&yaml(text).unwrap(), None, &registry()).unwrap();
    assert_eq!(checked.trade_offs().len(), 1);
    assert!(checked.to_string().contains("What the order of the layers costs"));
}

#[cfg(feature = "sqlite")]
#[test]
fn a_layer_that_writes_no_text_is_refused_above_a_store_of_text() {
    let stack = |layer: &str, more: &str| {
        format!(
            "stores: {{ a: {{ layers: [ {layer} ], backend: {{ sqlite: {{ path: a.db, values: text{more} }} }} }} }}"
        )
    };
    for layer in [
        "compress: { codec: zstd, accept_plain: true }",
        "encrypt: { keys: { env: KEYS } }",
        "expire: {}",
    ] {
        let error = refused(&stack(layer, ""));
        assert!(error.contains("Set `values: blob`"), "{layer}: {error}");
        if !layer.starts_with("expire") {
            let reading = yaml(&stack(layer, ", read_only: true")).unwrap();
            assert!(Stack::check_all(&reading, &registry()).is_ok(), "{layer}");
        }
    }
    let plain = Stack::check(&yaml(&stack("", "")).unwrap(), None, &registry()).unwrap();
    assert!(plain.to_string().contains("Values must be UTF-8."), "{plain}");
}

#[test]
fn the_traps_of_yaml_are_closed() {
    let with =
        |settings: &str| format!("stores: {{ a: {{ layers: [ {settings} ], backend: memory }} }}");
    // The country problem: `no` is text in YAML 1.2, so it is no answer to a question of yes and no.
    for word in ["no", "on", "y", "Off"] {
        let error = refused(&with(&format!("watch: {{ loud: {word} }}")));
        assert!(
            error.contains("layers[0].watch.loud: expected true or false, found text"),
            "{error}"
        );
    }
    // A billion laughs.
    let mut bomb = String::from("a0: &a0 [x]\n");
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(",")));
    }
    let error = refused(&bomb);
    assert!(error.contains("total_replayed_events=20001"), "{error}");
    // Nesting that would overflow the stack.
    for (open, format) in
        [("[", Format::Yaml), ("[", Format::Json), ("{a: ", Format::Yaml), ("a = [[", Format::Toml)]
    {
        assert!(Config::parse(&open.repeat(50_000), format, "a").is_err());
    }
    // Tabs, two documents, an unknown tag, an unknown anchor.
    for text in [
        "stores:\n\ta: { backend: memory }\n",
        "stores: { a: { backend: memory } }\n---\nstores: {}\n",
        "stores: !ours { a: { backend: memory } }\n",
        "stores: *nowhere\n",
        "stores: { a: { backend: memory }",
    ] {
        let error = refused(text);
        assert!(error.contains("tierstack.yaml: line "), "{error}");
    }
    // Merge keys and anchors serve their purpose.
    let text = "
stores:
  a: &a { layers: [ watch ], backend: memory }
  b: { <<: *a, layers: [] }
default: a
";
    let config = yaml(text).unwrap();
    assert_eq!((config.stores["a"].layers.len(), config.stores["b"].layers.len()), (1, 0));
}

#[test]
fn a_date_of_toml_is_text() {
    let text =
        "stores.a.backend = 'memory'\nstores.a.layers = [ { hold = { capacity = 2026-01-01 } } ]";
    let config = Config::parse(text, Format::Toml, "a.toml").unwrap();
    let error = Stack::check(&config, None, &registry()).unwrap_err().to_string();
    assert!(error.contains("layers[0].hold.capacity: '2026-01-01' is not a size"), "{error}");
}

#[test]
fn a_checked_stack_is_drawn_with_what_each_level_changes() {
    let checked = Stack::check(&yaml(FULL).unwrap(), None, &registry()).unwrap();
    assert_eq!(checked.to_string(), DRAWN.trim_start());
    assert!(DRAWN.lines().all(|line| line.chars().count() <= 92));
}

const DRAWN: &str = "
orders, the default store of conf/tierstack.yaml

     read   write
     │  ▲     │
  ┌──▼──┴─────▼──────┐
  │ hold             │  as below
  ├──────────────────┤
  │ watch            │  as below
  ├──────────────────┤
  │ shrink           │  note      Values are smaller.
  ├──────────────────┤
  │ seal             │  at rest   Values are sealed by `seal` wherever they rest: disk
  │                  │            (database), record (folder). Keys are plain.
  ├──────────────────┤
  │ watch            │  as below
  ├──────────────────┤
  │ record           │  at rest   Values are plain in disk (database), record (folder).
  │                  │  recovery  If the store is lost, so is what was written since the
  │                  │            last backup; backups are taken by hand. Each backup that
  │                  │            is kept can be restored.
  ╞══════════════════╡
  │ disk             │  writes    An acknowledged write survives a power cut.
  │                  │  batches   A batch is applied wholly or not at all. It can be made to
  │                  │            depend on keys being absent, or holding given values.
  │                  │  isolation Transactions up to SERIALIZABLE, for keys. One that relies
  │                  │            on what others have changed since is refused and runs
  │                  │            again; one whose outcome is unknown does not. Keys that
  │                  │            others add to a range that it scanned go unnoticed.
  │                  │  loads     Sorted entries are taken in bulk.
  │                  │  reads     Never older than the last write acknowledged through this
  │                  │            stack. Only this process can write while it is open.
  │                  │  scans     In key order, forward and reverse. A snapshot shows one
  │                  │            moment.
  │                  │  counts    The number of entries is known roughly.
  │                  │  expiry    None: an entry with an expiry is refused. The layer
  │                  │            `expire` adds it.
  │                  │  at rest   Values are plain in disk (database).
  │                  │  recovery  None: without a backup, what is lost stays lost.
  │                  │  limits    Keys up to 64KiB; values and batches as large as memory
  │                  │            allows.
  └──────────────────┘

What the stack guarantees

  writes    An acknowledged write survives a power cut.
  batches   A batch is applied wholly or not at all. It can be made to depend on keys being
            absent, or holding given values.
  isolation Transactions up to SERIALIZABLE, for keys. One that relies on what others have
            changed since is refused and runs again; one whose outcome is unknown does not.
            Keys that others add to a range that it scanned go unnoticed.
  loads     Sorted entries are taken in bulk.
  reads     Never older than the last write acknowledged through this stack. Only this
            process can write while it is open.
  scans     In key order, forward and reverse. A snapshot shows one moment.
  counts    The number of entries is known roughly.
  expiry    None: an entry with an expiry is refused. The layer `expire` adds it.
  at rest   Values are sealed by `seal` wherever they rest: disk (database), record
            (folder). Keys are plain. The config requires that values are sealed.
  recovery  If the store is lost, so is what was written since the last backup; backups are
            taken by hand. Each backup that is kept can be restored.
  limits    Keys up to 64KiB; values and batches as large as memory allows.
";

#[test]
fn the_same_facts_are_there_as_data() {
    let checked = Stack::check(&yaml(FULL).unwrap(), None, &registry()).unwrap();
    let facts = serde_json::to_value(&checked).unwrap();
    assert_eq!(facts["store"], "orders");
    assert_eq!(facts["sentences"]["writes"], "An acknowledged write survives a power cut.");
    assert_eq!(facts["guarantees"]["durability"], "power_cut");
    let names: Vec<_> =
        facts["levels"].as_array().unwrap().iter().map(|level| &level["name"]).collect();
    assert_eq!(names, ["hold", "watch", "shrink", "seal", "watch", "record", "disk"]);
    let changes = facts["levels"][3]["changes"].as_object().unwrap();
    assert_eq!(changes.keys().collect::<Vec<_>>(), ["at_rest"]);
}

#[test]
fn the_configs_of_the_documentation_are_right() {
    let text = std::fs::read_to_string("docs/config.md").unwrap();
    let blocks: Vec<_> = text.split("```yaml\n").skip(1).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let config = yaml(block.split("```").next().unwrap()).unwrap();
        let checked = Stack::check_all(&config, &Registry::standard());
        assert!(checked.as_ref().err().is_none_or(lacks_a_feature), "{checked:?}");
    }
    for key in ["1 MiB", "64 levels", "1 to 64 letters"] {
        assert!(text.contains(key), "the limit '{key}' is documented");
    }
}

#[test]
fn every_boundary_is_counted_under_its_own_name() {
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let options = OpenOptions::default();
            let stack =
                Stack::open(&yaml(FULL).unwrap(), None, &registry(), &options).await.unwrap();
            assert_eq!(stack.get(b"k").await.unwrap(), None);
            stack.close().await.unwrap();
        });
    });
    tierstack::telemetry::gather();
    let mut counted = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(|l| (l.key(), l.value())).collect();
        if key.key().name() == "tierstack_ops_total" && labels.contains(&("op", "get")) {
            assert!(labels.contains(&("stack", "orders")), "{labels:?}");
            // Next to the read above, opening looks once whether a restore was cut off.
            if !matches!(value, metrics_util::debugging::DebugValue::Counter(1..=2)) {
                continue;
            }
            counted.extend(labels.iter().filter(|l| l.0 == "layer").map(|l| l.1.to_owned()));
        }
    }
    counted.sort();
    counted.dedup();
    let boundaries = ["disk", "hold", "record", "seal", "shrink", "watch[1]", "watch[4]"];
    assert_eq!(counted, boundaries);
}

#[cfg(all(feature = "cache", feature = "compress", feature = "encrypt", feature = "backup"))]
#[tokio::test]
async fn each_layer_guarantees_the_same_checked_and_running() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tierstack.yaml");
    let text = "
stores:
  main:
    layers:
      - metrics
      - read_only
      - limit
      - cache: { ttl: 10m }
      - retry
      - timeout
      - compress
      - encrypt: { keys: { file: keys.txt } }
      - prefix: { prefix: 'a/' }
      - expire
      - write_back: { path: ./journal }
      - backup: { to: ./backups }
    backend: memory
";
    std::fs::write(&path, text).unwrap();
    let keys = tierstack::codec::KeyRing::generate().unwrap();
    std::fs::write(folder.path().join("keys.txt"), keys.expose()).unwrap();
    let config = Config::load(&path).unwrap();
    let registry = Registry::standard();
    let named: Vec<_> = config.stores["main"].layers.iter().map(|l| l.name.as_str()).collect();
    let missing: Vec<_> = registry.layer_names().filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "add {missing:?} to the stack of this test");
    let stack = Stack::open(&config, None, &registry, &OpenOptions::default()).await.unwrap();
    assert_eq!(stack.profile(), *stack.checked().profile());
    stack.close().await.unwrap();
}

/// What YAML takes for something else says that it wants quotes.
#[test]
fn a_value_that_means_something_to_the_format_says_so() {
    for value in ["*/15 * * * *", "* 2 * * *", "@daily", "`daily`", "%daily"] {
        let text = format!(
            "stores:\n  main:\n    layers:\n      - backup:\n          to: ./b\n          base: {value}\n    backend: memory\n"
        );
        let error = yaml(&text).unwrap_err().to_string();
        let mark = &value[..1];
        let said = format!(
            "a value that begins with '{mark}' means something else to YAML; put it in quotes"
        );
        assert!(error.contains(&said), "{value}: {error}");
        assert!(yaml(&text.replace(value, &format!("\"{value}\""))).is_ok());
        let flow = format!(
            "stores: {{ main: {{ layers: [ backup: {{ to: b, base: {value} }} ], backend: memory }} }}"
        );
        let error = yaml(&flow).unwrap_err().to_string();
        assert!(error.contains("put it in quotes"), "{flow}: {error}");
    }
    let two = "stores: { a: { backend: memory } }\n---\nstores: { b: { backend: memory } }\n";
    let error = yaml(two).unwrap_err().to_string();
    assert!(error.contains("a second document begins here") && error.contains("line 2"), "{error}");
    assert!(yaml("# first\n---\nstores: { a: { backend: memory } }\n").is_ok());
    for escape in [r"\ud800", r"\udc00"] {
        let json = format!("{{\"stores\": {{\"{escape}\": {{\"backend\": \"memory\"}}}}}}");
        let error = Config::parse(&json, Format::Json, "c.json").unwrap_err().to_string();
        assert!(error.contains("is half of a surrogate pair"), "{error}");
    }
}
