//! The second level of a cache through a configured stack: what it saves the store below, and what a restart
//! leaves of it.

#![cfg(all(unix, feature = "cache", feature = "config", feature = "file"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use futures_util::StreamExt as _;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tierstack::config::{Config, Format, Registry};
use tierstack::{ErrorKind, OpenOptions, Scope, Stack, StoreExt};
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
    tierstack::telemetry::gather();
    snapshotter.snapshot();
    (turn, snapshotter.clone())
}

/// Counters since the last time, of that name and with all of these labels.
fn count(snapshotter: &Snapshotter, name: &str, labels: &[(&str, &str)]) -> Vec<u64> {
    tierstack::telemetry::gather();
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

/// What is guaranteed of the disk holds whatever becomes of what is written.
const MODES: [&str; 2] = ["keep", "drop"];

fn config(folder: &Path, on_write: &str, cache: &str) -> Config {
    writing(folder, &format!("on_write: {on_write}, {cache}"))
}

fn writing(folder: &Path, cache: &str) -> Config {
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
    for on_write in MODES {
        let folder = tempfile::tempdir().unwrap();
        let disk = "capacity: 64KiB, disk: { path: disk, capacity: 64MiB, warm: true }";
        let config = config(folder.path(), on_write, disk);
        let stack = open(&config).await;
        count(&counts, "tierstack_cache_requests_total", &RESULTS);
        fill(&stack).await;
        read_all(&stack).await;
        let _ = stack.delete(key(0)).await.unwrap();
        let _ = stack.put(key(1), "1:new").await.unwrap();
        stack.close().await.unwrap();
        // What was written is found, in memory or on the disk.
        let loaded = if on_write == "keep" { 0 } else { u64::from(KEYS) };
        assert_eq!(count(&counts, "tierstack_cache_requests_total", &RESULTS)[2], loaded);

        let stack = open(&config).await;
        for n in 2..KEYS {
            stack.get(&key(n)).await.unwrap().unwrap();
        }
        let [disk, hit, miss] = count(&counts, "tierstack_cache_requests_total", &RESULTS)[..]
        else {
            panic!("three")
        };
        assert_eq!((disk + hit, miss), (u64::from(KEYS) - 2, 0));
        assert!(disk > 150, "{disk}");
        assert_eq!(stack.get(&key(0)).await.unwrap(), None, "deleted before the restart");
        assert_eq!(stack.get(&key(1)).await.unwrap(), Some("1:new".into()));
        stack.close().await.unwrap();
    }
}

/// What was written and never read, or read from memory only, is on the disk as well as what was loaded.
#[tokio::test]
async fn what_was_written_is_there_after_a_warm_restart() {
    const WRITTEN: u32 = 60;
    let (_turn, counts) = counted().await;
    // Everything is in memory at the close, or hardly anything.
    for (policy, capacity) in [("s3_fifo", "64MiB"), ("s3_fifo", "64KiB"), ("tiny_lfu", "64KiB")] {
        let folder = tempfile::tempdir().unwrap();
        let disk = format!(
            "on_write: keep, policy: {policy}, capacity: {capacity}, disk: {{ path: disk, capacity: 64MiB, warm: true }}"
        );
        let config = writing(folder.path(), &disk);
        let stack = open(&config).await;
        for n in 0..WRITTEN {
            let _ = stack.put(key(n), format!("{n}:{}", "x".repeat(1500))).await.unwrap();
        }
        stack.close().await.unwrap();
        // What was on the disk before is replaced, or gone.
        let stack = open(&config).await;
        stack.get(&key(1)).await.unwrap();
        let _ = stack.put(key(1), "1:new").await.unwrap();
        let _ = stack.delete(key(0)).await.unwrap();
        stack.close().await.unwrap();

        let stack = open(&config).await;
        count(&counts, "tierstack_cache_requests_total", &RESULTS);
        for n in 2..WRITTEN {
            let value = stack.get(&key(n)).await.unwrap().unwrap();
            assert!(value.bytes.starts_with(format!("{n}:").as_bytes()));
        }
        assert_eq!(stack.get(&key(1)).await.unwrap(), Some("1:new".into()));
        let missed = count(&counts, "tierstack_cache_requests_total", &RESULTS)[2];
        assert_eq!(missed, 0, "{policy}, {capacity}");
        assert_eq!(stack.get(&key(0)).await.unwrap(), None, "deleted before the restart");
        stack.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_refused_after_a_close_takes_nothing_from_the_next_open() {
    let (_turn, counts) = counted().await;
    for on_write in MODES {
        let folder = tempfile::tempdir().unwrap();
        let disk = "capacity: 64KiB, disk: { path: disk, capacity: 64MiB, warm: true }";
        let config = config(folder.path(), on_write, disk);
        let stack = open(&config).await;
        fill(&stack).await;
        read_all(&stack).await;
        stack.close().await.unwrap();
        assert_eq!(stack.put(key(1), "late").await.unwrap_err().kind(), ErrorKind::Closed);
        let run = futures_util::stream::empty().boxed();
        assert_eq!(stack.ingest(run).await.unwrap_err().kind(), ErrorKind::Closed);
        let stack = open(&config).await;
        count(&counts, "tierstack_cache_requests_total", &RESULTS);
        read_all(&stack).await;
        assert_eq!(count(&counts, "tierstack_cache_requests_total", &RESULTS)[2], 0);
        stack.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_was_dropped_can_be_opened_at_once() {
    let _turn = counted().await;
    for on_write in MODES {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), on_write, "disk: { path: disk, capacity: 64MiB }");
        for _ in 0..50 {
            let stack = open(&config).await;
            let _ = stack.put("k", "v").await.unwrap();
            stack.get(b"k").await.unwrap();
        }
    }
}

/// The same names, and another place.
#[tokio::test]
async fn what_a_stack_over_another_backend_left_is_not_served() {
    let (_turn, _) = counted().await;
    let folder = tempfile::tempdir().unwrap();
    let config = |backend: &str, ttl: &str| {
        let text = format!(
            "stores: {{ main: {{ layers: [{{ cache: {{ ttl: {ttl}, disk: {{ path: disk, capacity: 64MiB, warm: true }} }} }}], backend: {{ file: {{ path: {backend} }} }} }} }}"
        );
        Config::parse(&text, Format::Yaml, folder.path().join("tierstack.yaml")).unwrap()
    };
    let first = config("staging", "1h");
    let stack = open(&first).await;
    fill(&stack).await;
    read_all(&stack).await;
    stack.close().await.unwrap();
    let stack = open(&config("production", "1h")).await;
    assert_eq!(stack.get(&key(1)).await.unwrap(), None);
    stack.close().await.unwrap();
    let stack = open(&first).await;
    assert!(stack.get(&key(1)).await.unwrap().is_some(), "from below");
    stack.close().await.unwrap();
}

/// The config says the same, and its link leads elsewhere.
#[tokio::test]
async fn what_was_left_over_other_data_is_not_served() {
    let (_turn, counts) = counted().await;
    for on_write in MODES {
        let folder = tempfile::tempdir().unwrap();
        let disk = "capacity: 64KiB, disk: { path: disk, capacity: 64MiB, warm: true }";
        let config = config(folder.path(), on_write, disk);
        let link_to = |target: &str| {
            let (link, target) = (folder.path().join("data"), folder.path().join(target));
            let _ = std::fs::remove_file(&link);
            std::fs::create_dir_all(&target).unwrap();
            std::os::unix::fs::symlink(target, link).unwrap();
        };
        link_to("staging");
        let stack = open(&config).await;
        fill(&stack).await;
        read_all(&stack).await;
        stack.close().await.unwrap();
        link_to("production");
        let stack = open(&config).await;
        assert_eq!(stack.get(&key(1)).await.unwrap(), None);
        fill(&stack).await;
        read_all(&stack).await;
        stack.close().await.unwrap();
        let stack = open(&config).await;
        count(&counts, "tierstack_cache_requests_total", &RESULTS);
        read_all(&stack).await;
        assert_eq!(count(&counts, "tierstack_cache_requests_total", &RESULTS)[2], 0);
        stack.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_opening_that_fails_leaves_what_was_warm() {
    let (_turn, counts) = counted().await;
    for on_write in MODES {
        let folder = tempfile::tempdir().unwrap();
        let disk = "capacity: 64KiB, disk: { path: disk, capacity: 64MiB, warm: true }";
        let config = config(folder.path(), on_write, disk);
        let stack = open(&config).await;
        fill(&stack).await;
        read_all(&stack).await;
        stack.close().await.unwrap();
        let data = folder.path().join("data");
        std::fs::rename(&data, folder.path().join("aside")).unwrap();
        std::fs::write(&data, "no folder").unwrap();
        let (registry, options) = (Registry::standard(), OpenOptions::default());
        let error = Stack::open(&config, None, &registry, &options).await.unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Conflict, "{error}");
        std::fs::remove_file(&data).unwrap();
        std::fs::rename(folder.path().join("aside"), &data).unwrap();
        count(&counts, "tierstack_cache_requests_total", &RESULTS);
        let stack = Stack::open(&config, None, &registry, &options).await.unwrap();
        read_all(&stack).await;
        let asked = count(&counts, "tierstack_cache_requests_total", &RESULTS)[2];
        assert_eq!(asked, 0, "everything was on the disk");
        stack.close().await.unwrap();
    }
}

#[tokio::test]
async fn without_warm_a_restart_begins_empty_and_a_drop_leaves_nothing() {
    let (_turn, counts) = counted().await;
    for on_write in MODES {
        let folder = tempfile::tempdir().unwrap();
        for (warm, closes) in [(false, true), (true, false)] {
            let text =
                format!("capacity: 64KiB, disk: {{ path: disk, capacity: 64MiB, warm: {warm} }}");
            let config = config(folder.path(), on_write, &text);
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
}

/// Its marks are gone, and the keys of what is there are not known.
#[tokio::test]
async fn after_an_invalidation_of_a_prefix_a_restart_begins_empty() {
    let (_turn, counts) = counted().await;
    for on_write in MODES {
        let folder = tempfile::tempdir().unwrap();
        let disk = "capacity: 64KiB, disk: { path: disk, capacity: 64MiB, warm: true }";
        let config = config(folder.path(), on_write, disk);
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
}

#[tokio::test]
async fn two_stacks_do_not_share_a_folder() {
    let _turn = counted().await;
    for on_write in MODES {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), on_write, "disk: { path: disk, capacity: 64MiB }");
        let text = "stores: { main: { layers: [{ cache: { disk: { path: disk, capacity: 64MiB } } }], backend: memory } }";
        let other = Config::parse(text, Format::Yaml, folder.path().join("other.yaml")).unwrap();
        let stack = open(&config).await;
        let error = Stack::open(&other, None, &Registry::standard(), &OpenOptions::default()).await;
        let error = error.err().unwrap();
        assert_eq!(error.kind(), tierstack::ErrorKind::Conflict);
        assert!(error.to_string().contains("disk.path is in use"), "{error}");
        stack.close().await.unwrap();
        open(&other).await.close().await.unwrap();
    }
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
    let cache = "{ cache: { disk: { path: disk, capacity: 64MiB } } }";
    let encrypt = "{ encrypt: { keys: { env: KEYS } } }";
    let error = check(&format!("{cache}, {encrypt}")).unwrap_err().to_string();
    assert!(error.contains("disk cache"), "{error}");
    check(&format!("{encrypt}, {cache}")).unwrap();
    check(&format!("{{ cache: {{ warm_start: {{ path: keys }} }} }}, {encrypt}")).unwrap();
}

#[test]
fn a_store_that_forgets_cannot_have_a_warm_folder() {
    let text = "stores: { main: { layers: [{ cache: { disk: { path: disk, capacity: 64MiB, warm: true } } }], backend: memory } }";
    let config = Config::parse(text, Format::Yaml, "tierstack.yaml").unwrap();
    let error = Stack::check(&config, None, &Registry::standard()).unwrap_err().to_string();
    assert!(error.contains("disk.warm"), "{error}");
}
