//! The second level of a cache through a configured stack: what it saves the store below, and what a restart
//! leaves of it.

#![cfg(all(unix, feature = "cache", feature = "config", feature = "file"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tierstack::config::{Config, Format, Registry};
use tierstack::{OpenOptions, Scope, Stack, StoreExt};
use tokio::sync::{Mutex, MutexGuard};

/// What this process counts. One test at a time looks at it.
async fn counted() -> (MutexGuard<'static, ()>, Snapshotter) {
    static TURN: Mutex<()> = Mutex::const_new(());
    static RECORDED: OnceLock<Snapshotter> = OnceLock::new();
    let turn = TURN.lock().await;
    let snapshotter = RECORDED.get_or_init(|| {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().unwrap();
        snapshotter
    });
    snapshotter.snapshot();
    (turn, snapshotter.clone())
}

/// Counters since the last time, of that name and with all of these labels.
fn count(snapshotter: &Snapshotter, name: &str, labels: &[(&str, &str)]) -> Vec<u64> {
    let series = snapshotter.snapshot().into_vec();
    labels
        .iter()
        .map(|wanted| {
            let matching = series.iter().filter(|(key, ..)| {
                let mut found = key.key().labels().map(|label| (label.key(), label.value()));
                key.key().name() == name && found.any(|found| found == *wanted)
            });
            matching
                .map(|(.., value)| if let DebugValue::Counter(count) = value { *count } else { 0 })
                .sum()
        })
        .collect()
}

const RESULTS: [(&str, &str); 3] = [("result", "disk"), ("result", "hit"), ("result", "miss")];

fn config(folder: &Path, cache: &str) -> Config {
    let text = format!(
        "stores: {{ main: {{ layers: [{{ cache: {{ {cache} }} }}], backend: {{ file: {{ path: data }} }} }} }}"
    );
    Config::parse(&text, Format::Yaml, folder.join("tierstack.yaml")).unwrap()
}

async fn open(config: &Config) -> Stack {
    Stack::open(config, None, &Registry::standard(), &OpenOptions::default()).await.unwrap()
}

const KEYS: u32 = 200;

fn key(n: u32) -> Bytes {
    format!("key:{n}").into()
}

async fn fill(stack: &Stack) {
    for n in 0..KEYS {
        let value = format!("{n}:{}", "x".repeat(1000));
        let _ = stack.put(key(n), value).await.unwrap();
    }
}

async fn read_all(stack: &Stack) {
    for n in 0..KEYS {
        let value = stack.get(&key(n)).await.unwrap().unwrap();
        assert!(value.bytes.starts_with(format!("{n}:").as_bytes()));
    }
}

#[tokio::test]
async fn after_a_warm_restart_the_store_below_is_not_asked() {
    let (_turn, counts) = counted().await;
    let folder = tempfile::tempdir().unwrap();
    let disk = "capacity: 64KiB, disk: { path: tier, capacity: 64MiB, warm: true }";
    let config = config(folder.path(), disk);
    let stack = open(&config).await;
    fill(&stack).await;
    read_all(&stack).await;
    let _ = stack.delete(key(0)).await.unwrap();
    let _ = stack.put(key(1), "1:new").await.unwrap();
    stack.close().await.unwrap();
    assert_eq!(count(&counts, "tierstack_cache_requests_total", &RESULTS)[2], u64::from(KEYS));

    let stack = open(&config).await;
    for n in 2..KEYS {
        stack.get(&key(n)).await.unwrap().unwrap();
    }
    let [disk, hit, miss] = count(&counts, "tierstack_cache_requests_total", &RESULTS)[..] else {
        panic!("three")
    };
    assert_eq!((disk + hit, miss), (u64::from(KEYS) - 2, 0));
    assert!(disk > 150, "{disk}");
    assert_eq!(stack.get(&key(0)).await.unwrap(), None, "deleted before the restart");
    assert_eq!(stack.get(&key(1)).await.unwrap(), Some("1:new".into()));
    stack.close().await.unwrap();
}

#[tokio::test]
async fn without_warm_a_restart_begins_empty_and_a_drop_leaves_nothing() {
    let (_turn, counts) = counted().await;
    let folder = tempfile::tempdir().unwrap();
    for (warm, closes) in [(false, true), (true, false)] {
        let text =
            format!("capacity: 64KiB, disk: {{ path: tier, capacity: 64MiB, warm: {warm} }}");
        let config = config(folder.path(), &text);
        let stack = open(&config).await;
        fill(&stack).await;
        read_all(&stack).await;
        if closes {
            stack.close().await.unwrap();
        }
        drop(stack);
        let stack = open(&config).await;
        count(&counts, "tierstack_cache_requests_total", &RESULTS);
        read_all(&stack).await;
        let results = count(&counts, "tierstack_cache_requests_total", &RESULTS);
        assert_eq!(results, [0, 0, u64::from(KEYS)]);
        stack.close().await.unwrap();
    }
}

/// Its marks are gone, and the keys of what is there are not known.
#[tokio::test]
async fn after_an_invalidation_of_a_prefix_a_restart_begins_empty() {
    let (_turn, counts) = counted().await;
    let folder = tempfile::tempdir().unwrap();
    let disk = "capacity: 64KiB, disk: { path: tier, capacity: 64MiB, warm: true }";
    let config = config(folder.path(), disk);
    let stack = open(&config).await;
    fill(&stack).await;
    read_all(&stack).await;
    stack.invalidate(Scope::Prefix("key:1".into())).await.unwrap();
    stack.close().await.unwrap();
    let stack = open(&config).await;
    count(&counts, "tierstack_cache_requests_total", &RESULTS);
    read_all(&stack).await;
    let results = count(&counts, "tierstack_cache_requests_total", &RESULTS);
    assert_eq!(results, [0, 0, u64::from(KEYS)]);
    stack.close().await.unwrap();
}

#[tokio::test]
async fn two_stacks_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "disk: { path: tier, capacity: 64MiB }");
    let text = "stores: { main: { layers: [{ cache: { disk: { path: tier, capacity: 64MiB } } }], backend: memory } }";
    let other = Config::parse(text, Format::Yaml, folder.path().join("other.yaml")).unwrap();
    let stack = open(&config).await;
    let error = Stack::open(&other, None, &Registry::standard(), &OpenOptions::default()).await;
    let error = error.err().unwrap();
    assert_eq!(error.kind(), tierstack::ErrorKind::Conflict);
    assert!(error.to_string().contains("disk.path is in use"), "{error}");
    stack.close().await.unwrap();
    open(&other).await.close().await.unwrap();
}

#[cfg(feature = "encrypt")]
#[test]
fn a_plain_folder_is_refused_where_sealing_is_required() {
    let check = |layers: &str| {
        let text = format!(
            "stores: {{ main: {{ sealed: required, layers: [{layers}], backend: {{ file: {{ path: data }} }} }} }}"
        );
        let config = Config::parse(&text, Format::Yaml, "tierstack.yaml").unwrap();
        Stack::check(&config, None, &Registry::standard())
    };
    let cache = "{ cache: { disk: { path: tier, capacity: 64MiB } } }";
    let encrypt = "{ encrypt: { keys: { env: KEYS } } }";
    let error = check(&format!("{cache}, {encrypt}")).unwrap_err().to_string();
    assert!(error.contains("disk cache"), "{error}");
    check(&format!("{encrypt}, {cache}")).unwrap();
    check(&format!("{{ cache: {{ warm_start: {{ path: keys }} }} }}, {encrypt}")).unwrap();
}

#[test]
fn a_store_that_forgets_cannot_have_a_warm_folder() {
    let text = "stores: { main: { layers: [{ cache: { disk: { path: tier, capacity: 64MiB, warm: true } } }], backend: memory } }";
    let config = Config::parse(text, Format::Yaml, "tierstack.yaml").unwrap();
    let error = Stack::check(&config, None, &Registry::standard()).unwrap_err().to_string();
    assert!(error.contains("disk.warm"), "{error}");
}
