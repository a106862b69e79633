//! Metrics as Prometheus reads them: a real scrape of a running stack.

#![cfg(all(feature = "telemetry", feature = "config", feature = "cache"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;

use tierstack::config::{Config, Format, Registry};
use tierstack::{ErrorKind, OpenOptions, Stack, StoreExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn scrape(address: &str) -> BTreeMap<String, f64> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let (_, text) = text.split_once("\r\n\r\n").unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series.to_owned(), value.trim().parse().unwrap()))
        .collect()
}

/// One test, as a process has one recorder.
#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_measured_at_every_boundary() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap().to_string();
    let text = format!(
        "{{ telemetry: {{ listen: '{address}' }}, \
           stores: {{ orders: {{ layers: [cache: {{ on_write: drop }}], backend: memory }} }} }}"
    );
    let config = Config::parse(&text, Format::Yaml, "tierstack.yaml").unwrap();
    let taken = config.listen().unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Unavailable, "{taken}");
    assert!(taken.message().contains(&address), "{taken}");
    drop(free);
    config.listen().unwrap();
    assert_eq!(config.listen().unwrap_err().kind(), ErrorKind::Unavailable, "it listens already");
    metrics::counter!("visits_total").increment(3);

    let stack =
        Stack::open(&config, None, &Registry::standard(), &OpenOptions::default()).await.unwrap();
    let _ = stack.put("secret-key", "v").await.unwrap();
    for _ in 0..3 {
        stack.get(b"secret-key").await.unwrap();
    }
    let samples = scrape(&address).await;
    let find = |parts: &[&str]| {
        let found: Vec<_> = samples
            .iter()
            .filter(|(series, _)| parts.iter().all(|part| series.contains(part)))
            .collect();
        assert_eq!(found.len(), 1, "{parts:?} in {samples:#?}");
        *found[0].1
    };
    let orders = r#"stack="orders""#;
    let ops = ["tierstack_ops_total", orders, r#"op="get""#, r#"outcome="ok""#];
    assert_eq!(find(&[&ops[..], &[r#"layer="cache""#]].concat()), 3.0);
    assert_eq!(find(&[&ops[..], &[r#"layer="memory""#]].concat()), 1.0, "two were hits");
    assert_eq!(find(&["tierstack_cache_requests_total", orders, r#"result="hit""#]), 2.0);
    assert_eq!(find(&["tierstack_cache_requests_total", orders, r#"result="miss""#]), 1.0);
    assert_eq!(samples["visits_total"], 3.0, "what the program counts in addition to its stacks");
    assert!(samples.keys().any(|series| series.contains(r#"le="0.0000001""#)), "from 100 ns");
    let durations = ["tierstack_op_duration_seconds_count", orders, r#"layer="memory""#];
    find(&[&durations[..], &[r#"op="write""#]].concat());
    assert!(samples.keys().all(|series| !series.contains("secret")), "no key in a label");
    stack.close().await.unwrap();
    let samples = scrape(&address).await;
    assert!(samples.keys().all(|series| !series.contains("orders")), "{samples:#?}");
    assert_eq!(samples["visits_total"], 3.0);
}
