//! An opening that fails, or is given up, leaves nothing open.

use std::task::Poll;

use super::probe::{config, happened, registry};
use super::*;
use crate::config::Config;
use crate::error::{ErrorKind, Operation, Result};

async fn open(config: &Config) -> Result<Stack> {
    Stack::open(config, None, &registry(), &OpenOptions::default()).await
}

/// A config of three probes over a probe; in each place what fails there.
fn probes(log: &str, [outer, middle, inner, backend]: [&str; 4]) -> Config {
    let probe = |name: &str, fail: &str| {
        let fail = if fail.is_empty() { "null" } else { fail };
        format!("{{ probe: {{ log: {log}, name: {name}, fail: {fail} }} }}")
    };
    config(&format!(
        "stores: {{ main: {{ layers: [ {}, {}, {} ], backend: {} }} }}",
        probe("outer", outer),
        probe("middle", middle),
        probe("inner", inner),
        probe("backend", backend)
    ))
}

#[tokio::test]
async fn a_layer_that_does_not_start_closes_what_is_below_and_lets_go_of_the_rest() {
    let error = open(&probes("wrap", ["", "wrap", "", ""])).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("test.yaml: stores.main.layers[1].probe: the probe fails"), "{text}");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Unavailable, Some(Operation::Open)));
    let opening = ["outer opened", "middle opened", "inner opened", "backend opened"];
    let mut expected = opening.to_vec();
    // What is in use is closed first, and through the layers above it; nothing that was not in use.
    expected.extend(["inner wrapped", "inner layer dropped", "inner closed", "backend closed"]);
    let happened = happened("wrap");
    assert_eq!(happened[..expected.len()], expected, "{happened:?}");
    let mut rest = happened[expected.len()..].to_vec();
    rest.sort();
    let dropped = ["backend store", "inner store", "middle layer", "outer layer"];
    assert_eq!(rest, dropped.map(|what| format!("{what} dropped")));
}

#[tokio::test]
async fn a_failure_to_close_does_not_hide_why_the_opening_failed() {
    let error = open(&probes("hide", ["wrap", "", "close", "close"])).await.unwrap_err();
    assert!(error.to_string().contains("stores.main.layers[0].probe: the probe fails"), "{error}");
    let happened = happened("hide");
    for closed in ["middle closed", "inner closed", "backend closed"] {
        assert!(happened.iter().any(|what| what == closed), "{closed}: {happened:?}");
    }
}

#[tokio::test]
async fn what_is_opened_before_the_backend_is_let_go_when_it_fails() {
    let error = open(&probes("backend", ["", "", "", "open"])).await.unwrap_err();
    assert!(error.to_string().contains("stores.main.backend.probe: the probe fails"), "{error}");
    let mut happened = happened("backend");
    assert_eq!(happened.split_off(3).len(), 3, "each of the three is dropped");
    assert_eq!(happened, ["outer opened", "middle opened", "inner opened"]);

    let error = open(&probes("layer", ["", "open", "", ""])).await.unwrap_err();
    assert!(error.to_string().contains("stores.main.layers[1].probe: the probe fails"), "{error}");
    assert_eq!(super::probe::happened("layer"), ["outer opened", "outer layer dropped"]);
}

/// Lets the opening go as far as it comes, and drops it.
async fn give_up(log: &str, config: &Config) {
    let (registry, options) = (registry(), OpenOptions::default());
    let mut opening = Box::pin(Stack::open(config, None, &registry, &options));
    while !super::probe::waits(log) {
        let polled = futures_util::poll!(&mut opening);
        assert!(matches!(polled, Poll::Pending), "it waits for ever");
        // What it waits for is in a thread.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_dropped_opening_leaves_nothing_open() {
    for (log, fails) in
        [("gone", ["", "wrap_for_ever", "", ""]), ("early", ["", "", "open_for_ever", ""])]
    {
        give_up(log, &probes(log, fails)).await;
        let happened = happened(log);
        let count = |end: &str| happened.iter().filter(|what| what.ends_with(end)).count();
        let dropped = count("layer dropped") + count("store dropped");
        assert_eq!(count(" opened") + count(" wrapped"), dropped, "{happened:?}");
    }
}

/// The lock of a database, and that of a cache's folder.
#[cfg(all(feature = "rocksdb", feature = "cache"))]
#[tokio::test]
async fn a_failed_or_dropped_opening_leaves_nothing_locked() {
    let folder = tempfile::tempdir().unwrap();
    let over = |outer: &str| {
        let text = format!(
            "stores: {{ main: {{ layers: [ {outer} cache: {{ disk: {{ path: cache, capacity: 16MiB }} }} ], backend: {{ rocksdb: {{ path: data }} }} }} }}"
        );
        Config::parse(&text, Format::Yaml, folder.path().join("test.yaml")).unwrap()
    };
    for _ in 0..3 {
        open(&over("probe: { log: fails, name: outer, fail: wrap },")).await.unwrap_err();
        give_up("locks", &over("probe: { log: locks, name: outer, fail: wrap_for_ever },")).await;
        happened("locks");
        let stack = open(&over("")).await.unwrap();
        stack.close().await.unwrap();
    }
}
