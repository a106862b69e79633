//! What a running stack exports is what the table of families says, and as many series as `check` predicts.

#![cfg(feature = "full")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierstack::backup::{Level, Target};
use tierstack::config::{Config, Format, Registry};
use tierstack::layers::backup::BackupConfig;
use tierstack::telemetry::{Family, names, render, snapshot};
use tierstack::{ManualClock, OpenOptions, ReadExt as _, Scan, Stack, StoreExt as _};

use crate::stacks::{BACKENDS, LAYERS, layers_over};

/// A line of the text: the family, the labels and the value.
type Line<'a> = (&'a str, BTreeMap<&'a str, &'a str>, f64);

/// Reads the text as Prometheus does. The values of labels here have no quotes and no commas.
fn lines(text: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut types = BTreeMap::new();
    let mut helps = BTreeSet::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|s| s.split_once(' ')) {
            assert!(helps.insert(name), "{name} is here twice");
            if let Some(family) = Family::of(name) {
                assert_eq!(family.help, help);
            }
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|s| s.split_once(' ')) {
            assert!(types.insert(name, kind).is_none(), "{name} is here twice");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap().split("\",").filter(|l| !l.is_empty());
        let labels = labels.map(|label| {
            let (name, value) = label.split_once("=\"").unwrap();
            (name, value.trim_end_matches('"'))
        });
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| types.get(family) == Some(&"histogram"))
            .unwrap_or(name);
        assert!(types.contains_key(family), "{line} has no type");
        lines.push((family, labels.collect(), value.parse().unwrap()));
    }
    lines
}

fn config(layers: &[&str], backend: &str) -> (Config, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let keys = tierstack::codec::KeyRing::generate().unwrap();
    std::fs::write(folder.path().join("keys"), keys.expose()).unwrap();
    // A store whose name no other test of this process has.
    let name = format!("m{}", folder.path().file_name().unwrap().to_str().unwrap());
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let layers: Vec<_> = layers.iter().map(|layer| format!("      - {layer}")).collect();
    let layers =
        if layers.is_empty() { " []".to_owned() } else { format!("\n{}", layers.join("\n")) };
    let text = format!("stores:\n  {name}:\n    layers:{layers}\n    backend: {{ {backend} }}\n");
    let path = folder.path().join("tierstack.yaml");
    (Config::parse(&text, Format::Yaml, path).unwrap(), folder)
}

async fn scraped(layers: &[&str], backend: &str) -> usize {
    let (config, _folder) = config(layers, backend);
    let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
    let (predicted, name) = (checked.series(), checked.store().to_owned());
    let stack = checked.open(&OpenOptions::service()).await.unwrap();
    let _ = stack.put("k", "v").await.unwrap();
    for _ in 0..200 {
        stack.get(b"k").await.unwrap();
    }
    stack.get(b"").await.unwrap_err();
    stack.collect(Scan::all()).await.unwrap();
    stack.flush().await.unwrap();
    let text = render();
    let all = lines(&text);
    let ours: Vec<_> =
        all.iter().filter(|(_, labels, _)| labels.get("stack") == Some(&&*name)).collect();
    for (name, labels, _) in &ours {
        let family = Family::of(name).unwrap_or_else(|| panic!("{name} is in no table"));
        let expected: BTreeSet<_> = family.labels.iter().copied().collect();
        let found = labels.keys().copied().filter(|label| *label != "le").collect();
        assert_eq!(expected, found, "{name}");
        assert!(labels.values().all(|value| !value.is_empty()), "{name}");
    }
    assert_eq!(ours.len(), predicted, "{layers:?} over {backend}");
    stack.close().await.unwrap();
    let text = render();
    let left = lines(&text);
    let left: Vec<_> =
        left.iter().filter(|(_, labels, _)| labels.get("stack") == Some(&&*name)).collect();
    assert!(left.is_empty(), "{left:?}");
    predicted
}

#[tokio::test]
async fn each_layer_exports_what_the_table_and_check_say() {
    for layer in LAYERS {
        scraped(&[layer], "memory: {}").await;
    }
    let plain = scraped(&[], "memory: {}").await;
    let metrics = scraped(&["metrics: {}"], "memory: {}").await;
    assert!(plain < metrics && metrics < 2 * plain, "{plain} and {metrics}");
    // In these, a cache also listens, has a disk and is warmed up, and backups have a schedule.
    let cache = "cache: { disk: { path: disk, capacity: 64MiB }, warm_start: { path: warm } }";
    scraped(&[cache, "backup: { to: backups, base: daily }"], "rocksdb: { path: data }").await;
    scraped(&["cache: {}", "limit: {}", "limit: {}"], "sqlite: { path: data.db }").await;
}

#[tokio::test]
async fn every_layer_together_exports_what_the_table_and_check_say() {
    for backend in BACKENDS {
        scraped(&layers_over(backend), backend).await;
    }
}

#[tokio::test]
async fn of_two_stacks_in_one_process_each_has_its_own() {
    let mut opened = Vec::new();
    for reads in [3, 5] {
        let (config, folder) = config(&["cache: {}"], "memory: {}");
        let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
        let stack = checked.open(&OpenOptions::default()).await.unwrap();
        for _ in 0..reads {
            stack.get(b"k").await.unwrap();
        }
        opened.push((stack, folder, reads));
    }
    let seen = snapshot();
    for (stack, _, reads) in &opened {
        let ops = [("stack", stack.name()), ("layer", "cache"), ("op", "get")];
        assert_eq!(seen.counter(names::OPS, &ops), *reads);
        let requests = [("stack", stack.name()), ("result", "miss")];
        assert_eq!(seen.counter(names::CACHE_REQUESTS, &requests), *reads, "nothing is kept");
    }
    let (closed, open) = (&opened[0].0, &opened[1].0);
    closed.close().await.unwrap();
    let (closed, open) = ([("stack", closed.name())], [("stack", open.name())]);
    let seen = snapshot();
    assert_eq!(
        seen.families().filter(|(name, _)| seen.select(name, &closed).count() > 0).count(),
        0
    );
    assert_ne!(seen.select(names::OPS, &open).count(), 0);
    opened[1].0.close().await.unwrap();
}

#[tokio::test]
async fn what_a_store_holds_is_known_after_a_look() {
    let (config, _folder) = config(&["cache: {}"], "memory: {}");
    let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
    let clock = ManualClock::new();
    let options = OpenOptions { clock: Arc::new(clock.clone()), ..OpenOptions::service() };
    let stack = checked.open(&options).await.unwrap();
    let _ = stack.put("k", vec![7; 1000]).await.unwrap();
    let of_stack = [("stack", stack.name())];
    let memory = [("stack", stack.name()), ("place", "memory")];
    while snapshot().gauge(names::STORE_ENTRIES, &of_stack) != Some(1.0) {
        // Other tests look too, perhaps before the entry was there.
        clock.advance(Duration::from_secs(61));
        tokio::task::yield_now().await;
    }
    assert!(snapshot().gauge(names::STORE_BYTES, &memory) >= Some(1000.0));
    // Looks alone do not ask again: a store is asked once a minute. One question may be under way.
    let asked = || snapshot().counter(names::OPS, &[("stack", stack.name()), ("op", "usage")]);
    let before = asked();
    for _ in 0..100 {
        tokio::task::yield_now().await;
        // Two boundaries count each.
        assert!(asked() <= before + 2);
    }
    stack.close().await.unwrap();
    assert_eq!(snapshot().gauge(names::STORE_ENTRIES, &of_stack), None);
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_slow_is_a_span_without_a_key() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let layers = ["cache: {}", "compress: {}", "backup: { to: backups }"];
    let (config, folder) = config(&layers, "sqlite: { path: data.db }");
    let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
    let (below, backup) = (checked.store().to_owned(), checked.layer_config::<BackupConfig>());
    let backup = backup.unwrap().clone();
    let context = checked.layer_context("backup", &OpenOptions::default()).unwrap();
    let stack = checked.open(&OpenOptions::default()).await.unwrap();
    // So large that it is decoded concurrently with the tasks, for which the cache waits.
    let value = "secret value ".repeat(40_000);
    let _ = stack.put("secret-key", value).await.unwrap();
    stack.get(b"secret-key").await.unwrap();
    stack.rewriters()[0].rewrite(Scan::all(), &mut |_| {}).await.unwrap();
    stack.close().await.unwrap();
    let registry = Registry::standard();
    let options = OpenOptions::default();
    let source = Stack::open_below(&config, Some(&below), "backup", &registry, &options).await;
    let source = source.unwrap();
    let repository = backup.create_repository(&context).await.unwrap();
    tierstack::backup::run(&*source, &repository, &|_| {}).await.unwrap();
    repository.verify(Level::Structure, &|_| {}).await.unwrap();
    let plan = repository.plan(Target::Latest).await.unwrap();
    let target = tierstack::backends::Memory::new();
    let restore = tierstack::backup::Restore::default();
    tierstack::backup::restore(&repository, &plan, &target, &restore, &|_| {}).await.unwrap();
    source.close().await.unwrap();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for span in ["load{layer=", "rewrite{layer=", "backup", "upload{bytes=", "verify", "restore"] {
        assert!(
            log.lines().any(|line| line.contains(span) && line.contains("close")),
            "{span}: {log}"
        );
    }
    assert!(!log.contains("secret"), "{log}");
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_say_about_a_scrape_under_load() {
    let mut promtool = match Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(promtool) => promtool,
        Err(why) => {
            eprintln!("skipped: promtool: {why}");
            assert!(std::env::var_os("CI").is_none(), "nothing is skipped in CI: promtool: {why}");
            return;
        }
    };
    let (config, _folder) = config(&layers_over("rocksdb: {}"), "rocksdb: { path: data }");
    let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
    let stack = Arc::new(checked.open(&OpenOptions::service()).await.unwrap());
    let load = tokio::spawn({
        let stack = Arc::clone(&stack);
        async move {
            for n in 0_u64.. {
                let _ = stack.put(format!("k{}", n % 100), "v").await.unwrap();
                stack.get(format!("k{}", n % 1000).as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let writes = [("stack", stack.name()), ("op", "write")];
    while snapshot().counter(names::OPS, &writes) < 100 {
        tokio::task::yield_now().await;
    }
    let text = render();
    load.abort();
    // It ended here, not by an error.
    assert!(load.await.unwrap_err().is_cancelled());
    stack.close().await.unwrap();
    // Tests next to this one count under labels that the table does not have.
    let stack = format!("stack=\"{}\"", stack.name());
    let ours = text.lines().filter(|line| line.starts_with('#') || line.contains(&stack));
    let ours: String = ours.flat_map(|line| [line, "\n"]).collect();
    promtool.stdin.take().unwrap().write_all(ours.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    assert!(said.status.success() && words.is_empty(), "{words}");
}
