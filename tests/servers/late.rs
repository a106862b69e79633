//! Stacks with `write_back` that are opened while a real server is away, behind a proxy that cuts it off.
#![cfg(all(feature = "config", feature = "cache"))]

use std::time::Duration;

use tierstack::config::{Config, Format, Registry};
use tierstack::{ErrorKind, OpenOptions, ReadExt, Scan, Stack, StoreExt};
use tokio::time::{sleep, timeout};

use crate::support::Proxy;

/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(100);

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("it does not come to hold: {what}"));
}

async fn opens_without_its_server(backend: &str, proxy: &Proxy) {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "stores: {{ main: {{ layers: [ write_back: {{ path: journal, flush_after: 1ms }}, retry ], backend: {backend} }} }}"
    );
    let config = Config::parse(&text, Format::Yaml, folder.path().join("test.yaml")).unwrap();
    let (registry, options) = (Registry::standard(), OpenOptions::default());
    let open = || Stack::open(&config, None, &registry, &options);
    proxy.cut().await;
    let error = open().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    assert!(error.to_string().contains("at its first opening"), "{error}");

    proxy.heal().await;
    let stack = open().await.unwrap();
    stack.put("old", "1").await.unwrap();
    let identity = stack.identity();
    stack.close().await.unwrap();

    proxy.cut().await;
    let stack = open().await.unwrap();
    assert_eq!(stack.identity(), identity);
    stack.put("new", "2").await.unwrap();
    stack.delete("old").await.unwrap();
    assert_eq!(stack.get(b"new").await.unwrap(), Some("2".into()));
    assert_eq!(stack.get(b"old").await.unwrap(), None);
    for error in [
        stack.get(b"never").await.unwrap_err(),
        stack.collect(Scan::all()).await.unwrap_err(),
        stack.flush().await.unwrap_err(),
    ] {
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    }
    drop(stack);
    // What was acknowledged is there after a crash too.
    until("the journal is given up", async || {
        let Ok(stack) = open().await else { return false };
        assert_eq!(stack.get(b"new").await.unwrap(), Some("2".into()));
        proxy.heal().await;
        until("the store has come", async || stack.get(b"never").await.is_ok()).await;
        until("it is flushed", async || stack.flush().await.is_ok()).await;
        stack.close().await.unwrap();
        true
    })
    .await;

    let command = OpenOptions { late: false, ..OpenOptions::default() };
    let stack = Stack::open(&config, None, &registry, &command).await.unwrap();
    let entries = stack.collect(Scan::all()).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((&*entries[0].key, &*entries[0].value.bytes), (&b"new"[..], &b"2"[..]));
    stack.close().await.unwrap();
    proxy.cut().await;
    let error = Stack::open(&config, None, &registry, &command).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn postgres_may_be_away() {
    let Some(server) = crate::support::Postgres::start().await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let url = proxy.url(&server.url());
    let backend = format!(
        "{{ postgres: {{ url: '{url}', table: late, connect_timeout: 1s, timeout: 2s }} }}"
    );
    opens_without_its_server(&backend, &proxy).await;
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread")]
async fn redis_may_be_away() {
    let Some(server) = crate::support::Redis::start(&[]).await else { return };
    let proxy = Proxy::to(server.addr()).await;
    let url = proxy.url(&server.url());
    let backend = format!(
        "{{ redis: {{ url: '{url}', index: true, durability: nothing, connect_timeout: 1s, timeout: 2s }} }}"
    );
    opens_without_its_server(&backend, &proxy).await;
}

#[cfg(all(feature = "object", feature = "cloud", feature = "testing"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_may_be_away() {
    let Some(server) = crate::support::var("TIERSTACK_TEST_S3") else { return };
    let proxy = Proxy::to(server.trim_start_matches("http://")).await;
    let config = crate::object::s3_through(&server, &format!("http://{}", proxy.addr()));
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "test").unwrap();
    let backend = format!(
        "{{ object: {{ url: '{}', timeout: 2s, options: {{ endpoint: 'http://{}', region: us-east-1, access_key_id: test, allow_http: 'true', secret_access_key: {{ file: '{}' }} }} }} }}",
        config.url,
        proxy.addr(),
        secret.display()
    );
    opens_without_its_server(&backend, &proxy).await;
}
