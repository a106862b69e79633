//! The backend `object` against real services: `TIERSTACK_TEST_S3=http://127.0.0.1:PORT`, such as moto's, and
//! `TIERSTACK_TEST_AZURE=http://127.0.0.1:PORT`, Azurite's blob service.
#![cfg(all(feature = "object", feature = "cloud", feature = "testing"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod servers;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use servers::Proxy;
use tempfile::TempDir;
use tierstack::backends::{Object, ObjectConfig};
use tierstack::testing::conformance::{self, Fixture};
use tierstack::units::{Secret, Span};
use tierstack::{Batch, Context, ErrorKind, Read, ReadExt, Scan, Store, StoreExt};

/// A request without a body, unsigned: moto does not look at signatures.
fn request(server: &str, line: &str) {
    let host = server.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

fn unique() -> String {
    uuid::Uuid::new_v4().to_string()[..8].to_owned()
}

/// Makes a container, by a signature for whatever container of Azurite's account.
fn make_container(server: &str, name: &str) {
    let (host, account) = server.trim_start_matches("http://").split_once('/').unwrap();
    request(
        host,
        &format!(
            "PUT /{account}/{name}?restype=container&sv=2019-12-12&ss=b&srt=c&sp=c&se=2099-01-01T00%3A00%3A00Z&sig=gtLKHeoHHaSXKYUU7mB05BvFhjAn49dYycgdR%2BgWtiU%3D"
        ),
    );
}

/// A file with a secret, for as long as the process lives.
fn secret(text: &str) -> Secret {
    let path: PathBuf = TempDir::new().unwrap().keep().join("secret");
    std::fs::write(&path, text).unwrap();
    Secret::File(path)
}

fn with(
    mut config: ObjectConfig,
    options: &[(&str, &str)],
    secrets: &[(&str, &str)],
) -> ObjectConfig {
    for (name, value) in options {
        config.options.insert((*name).to_owned(), (*value).into());
    }
    for (name, value) in secrets {
        config.options.insert((*name).to_owned(), secret(value).into());
    }
    config
}

/// A path in a bucket of its own, since moto looks through all of a bucket for each listing, reached through
/// that address.
fn s3_through(server: &str, address: &str) -> ObjectConfig {
    let bucket = format!("tierstack-{}", unique());
    request(server, &format!("PUT /{bucket}"));
    with(
        ObjectConfig::new(format!("s3://{bucket}/a/path")),
        &[
            ("endpoint", address),
            ("region", "us-east-1"),
            ("access_key_id", "test"),
            ("allow_http", "true"),
        ],
        &[("secret_access_key", "test")],
    )
}

fn s3(server: &str) -> ObjectConfig {
    s3_through(server, server)
}

/// Azurite's well-known account, whose key is public.
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

fn azure(server: &str, key: &str) -> ObjectConfig {
    let container = format!("tierstack-{}", unique());
    make_container(server, &container);
    with(
        ObjectConfig::new(format!("az://{container}/a/path")),
        &[("account_name", "devstoreaccount1"), ("endpoint", server), ("allow_http", "true")],
        &[("account_key", key)],
    )
}

async fn open(config: &ObjectConfig) -> tierstack::Result<Object> {
    Object::open(config, &Context::default()).await
}

async fn reopenable(config: ObjectConfig) -> tierstack::Result<Fixture> {
    let again = move |config: ObjectConfig| async move {
        let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(open(&config).await?);
        Ok(store)
    };
    let fixture = Fixture::new(open(&config).await?);
    Ok(fixture.reopened_by(move || again(config.clone())))
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    let mut config = ObjectConfig::new("memory://");
    conformance::assert_conforms(async || Ok(Fixture::new(open(&config).await?))).await;
    config.conditional_writes = true;
    conformance::assert_conforms(async || Ok(Fixture::new(open(&config).await?))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_conforms() {
    conformance::assert_conforms(|| async {
        let folder = tempfile::tempdir().unwrap();
        let mut config = ObjectConfig::new(folder.path().to_str().unwrap());
        config.conditional_writes = true;
        Ok(reopenable(config).await?.keeping(folder))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let Some(server) = servers::var("TIERSTACK_TEST_S3") else { return };
    servers::conforms(|| reopenable(ObjectConfig { conditional_writes: true, ..s3(&server) }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_conforms() {
    let Some(server) = servers::var("TIERSTACK_TEST_AZURE") else { return };
    servers::conforms(|| {
        reopenable(ObjectConfig { conditional_writes: true, ..azure(&server, AZURITE_KEY) })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_place_is_said_when_it_is_opened() {
    if let Some(server) = servers::var("TIERSTACK_TEST_S3") {
        let missing = ObjectConfig { url: "s3://tierstack-no-such-bucket/x".into(), ..s3(&server) };
        for config in [missing.clone(), ObjectConfig { scans: Some(false), ..missing }] {
            let refused = open(&config).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Config, "{refused:?}");
            assert!(refused.to_string().contains("the bucket does not exist"), "{refused}");
        }
        let unknown = with(s3(&server), &[("regoin", "x")], &[]);
        let refused = open(&unknown).await.unwrap_err();
        assert!(refused.to_string().contains("`options.regoin`"), "{refused}");
    }
    if let Some(server) = servers::var("TIERSTACK_TEST_AZURE") {
        let wrong = azure(&server, "bm90IHRoZSBrZXk=");
        let refused = open(&wrong).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Access, "{refused:?}");
        let missing =
            ObjectConfig { url: "az://no-such-container".into(), ..azure(&server, AZURITE_KEY) };
        let refused = open(&missing).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config, "{refused:?}");
    }
    let config = with(
        ObjectConfig::new("s3://tierstack-test"),
        &[
            ("endpoint", "http://127.0.0.1:1"),
            ("region", "x"),
            ("access_key_id", "x"),
            ("allow_http", "true"),
        ],
        &[("secret_access_key", "x")],
    );
    let config = ObjectConfig { timeout: Span(Duration::from_secs(1)), ..config };
    let refused = open(&config).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_or_hangs_fails_with_its_kind_and_works_again() {
    let Some(server) = servers::var("TIERSTACK_TEST_S3") else { return };
    let proxy = Proxy::to(server.trim_start_matches("http://")).await;
    let config = ObjectConfig {
        timeout: Span(Duration::from_secs(1)),
        ..s3_through(&server, &format!("http://{}", proxy.addr()))
    };
    let store = open(&config).await.unwrap();
    let _ = store.put("kept", "1").await.unwrap();

    proxy.cut().await;
    for failed in [
        store.put("secret-key", "2").await.unwrap_err(),
        store.get(b"secret-key").await.unwrap_err(),
        store.collect(Scan::all()).await.unwrap_err(),
    ] {
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
        assert!(!format!("{failed:?}").contains("secret-key"), "{failed:?}");
    }
    proxy.heal().await;
    assert_eq!(store.get(b"kept").await.unwrap(), Some("1".into()));

    proxy.hang();
    let failed = store.get(b"kept").await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Timeout, "{failed:?}");
    proxy.heal().await;
    assert_eq!(store.get(b"kept").await.unwrap(), Some("1".into()));
}

/// Every acknowledged write is there afterwards, though the line breaks again and again.
#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_on_a_line_that_breaks() {
    let Some(server) = servers::var("TIERSTACK_TEST_S3") else { return };
    let proxy = Proxy::to(server.trim_start_matches("http://")).await;
    let config = s3_through(&server, &format!("http://{}", proxy.addr()));
    let config = ObjectConfig { timeout: Span(Duration::from_secs(2)), ..config };
    let store = open(&config).await.unwrap();
    let mut acknowledged = Vec::new();
    for n in 0..60 {
        if n % 10 == 5 {
            proxy.reset().await;
        }
        let key = format!("key-{n}");
        if store.put(key.clone(), n.to_string()).await.is_ok() {
            acknowledged.push((key, n.to_string()));
        }
    }
    assert!(acknowledged.len() > 50, "what fails in passing is repeated");
    for (key, value) in acknowledged {
        assert_eq!(store.get(key.as_bytes()).await.unwrap(), Some(value.into()));
    }
}

/// Writers and readers go on while the line is cut, and while the server says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_goes_away_under_load_loses_nothing() {
    let Some(server) = servers::var("TIERSTACK_TEST_S3") else { return };
    let proxy = Proxy::to(server.trim_start_matches("http://")).await;
    let config = ObjectConfig {
        timeout: Span(Duration::from_secs(3)),
        ..s3_through(&server, &format!("http://{}", proxy.addr()))
    };
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(open(&config).await.unwrap());
    let load = servers::Load { writers: 3, readers: 2, ..servers::Load::default() };
    let load = load.allow(ErrorKind::Unavailable).allow(ErrorKind::Timeout).late_writes();
    let report = load
        .run(&store, async |progress: &servers::Progress| {
            progress.writes(20).await;
            proxy.cut().await;
            progress.failures(3).await;
            proxy.heal().await;
            // Counts are those since the beginning.
            progress.writes(60).await;
            proxy.hang();
            progress.failures(8).await;
            proxy.heal().await;
        })
        .await;
    assert!(report.errors.contains_key("unavailable") && report.errors.contains_key("timeout"));
}

/// Consoles mark folders by empty objects, also the one that the store is in.
#[tokio::test(flavor = "multi_thread")]
async fn marks_of_folders_are_no_entries() {
    let Some(server) = servers::var("TIERSTACK_TEST_S3") else { return };
    let config = s3(&server);
    let bucket = config.url.strip_prefix("s3://").unwrap();
    for name in ["", "users/", "users/1", "a-b/", "a/", "a/1"] {
        request(&server, &format!("PUT /{bucket}/{name}"));
    }
    let store = open(&config).await.unwrap();
    for scan in [Scan::all(), Scan::all().reverse(), Scan::prefix("a")] {
        let mut keys: Vec<_> =
            store.collect(scan.clone()).await.unwrap().into_iter().map(|entry| entry.key).collect();
        keys.sort();
        let users = (scan != Scan::prefix("a")).then_some("users/1");
        assert!(keys.iter().eq(["a/1"].iter().copied().chain(users)), "{keys:?}");
    }
    assert_eq!(store.get(b"users").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_go_through_s3_in_parts() {
    let Some(server) = servers::var("TIERSTACK_TEST_S3") else { return };
    let store = open(&s3(&server)).await.unwrap();
    let large: Vec<u8> = (0..(40u32 << 20) + 7).map(|at| (at >> 11) as u8).collect();
    let _ = store.put("large", large.clone()).await.unwrap();
    assert!(store.get(b"large").await.unwrap().unwrap().bytes == large);
    // A condition holds for a large value too, which then goes in one piece.
    let config = ObjectConfig { conditional_writes: true, ..s3(&server) };
    let store = open(&config).await.unwrap();
    let batch = || Batch::new().put("large", large.clone()).if_absent();
    let _ = store.write(batch()).await.unwrap();
    assert_eq!(store.write(batch()).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_error_and_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        let done = std::process::Command::new(args[0]).args(&args[1..]).arg(folder.path()).output();
        done.is_ok_and(|output| output.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]) {
        eprintln!("skipped: a file system of its own needs the right to mount one");
        return;
    }
    let store = open(&ObjectConfig::new(folder.path().to_str().unwrap())).await.unwrap();
    let kept = store.put("kept", "1").await.map(drop);
    let full = store.put("kept", vec![1; 2 << 20]).await.map(drop);
    let there = store.get(b"kept").await;
    let again = store.put("more", "2").await.map(drop);
    drop(store);
    assert!(mount(&["umount"]));
    kept.unwrap();
    assert_eq!(full.unwrap_err().kind(), ErrorKind::Capacity);
    assert_eq!(there.unwrap(), Some("1".into()));
    again.unwrap();
}
