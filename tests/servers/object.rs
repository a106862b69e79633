//! The backend `object` against real services: `TIERSTACK_TEST_S3=http://127.0.0.1:PORT`, such as moto's, and
//! `TIERSTACK_TEST_AZURE=http://127.0.0.1:PORT`, Azurite's blob service.
#![cfg(all(feature = "object", feature = "cloud", feature = "testing"))]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{self, AZURITE_KEY, Container, Proxy, secret};
use futures_util::StreamExt as _;
use tierstack::backends::object::Names;
use tierstack::backends::{Object, ObjectConfig};
use tierstack::testing::conformance::{self, Fixture};
use tierstack::units::Span;
use tierstack::{Batch, Context, ErrorKind, Read, ReadExt, Scan, Store, StoreExt};

/// A request without a body, unsigned: moto does not look at signatures.
fn request(server: &str, line: &str) {
    let _ = send(server, line, "", "");
}

/// Moto looks at no signature, and wants one all the same where an object is meant.
const SIGNED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n";

fn request_with(server: &str, line: &str, headers: &str, body: &str) -> String {
    let answer = send(server, line, &format!("{SIGNED}{headers}"), body);
    assert!(answer.starts_with("HTTP/1.1 2"), "{line}: {answer}");
    answer
}

fn send(server: &str, line: &str, headers: &str, body: &str) -> String {
    let host = server.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn unique() -> String {
    uuid::Uuid::new_v4().to_string()[..8].to_owned()
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
pub(crate) fn s3_through(server: &str, address: &str) -> ObjectConfig {
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

pub(crate) fn s3(server: &str) -> ObjectConfig {
    s3_through(server, server)
}

fn azure(server: &str, container: &Container, key: &str) -> ObjectConfig {
    with(
        ObjectConfig::new(format!("az://{}/a/path", container.name)),
        &[("account_name", "devstoreaccount1"), ("endpoint", server), ("allow_http", "true")],
        &[("account_key", key)],
    )
}

async fn open(config: &ObjectConfig) -> tierstack::Result<Object> {
    Object::open(config, &Context::default()).await
}

async fn reopenable(config: ObjectConfig) -> tierstack::Result<Fixture> {
    let again = move |config: ObjectConfig| async move {
        let store: Arc<dyn Store> = Arc::new(open(&config).await?);
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
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    support::conforms(|| reopenable(ObjectConfig { conditional_values: true, ..s3(&server) }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_lose_no_increment() {
    let place = async || support::var("TIERSTACK_TEST_S3").map(|server| s3(&server).url);
    let open = async |url| {
        let server = support::var("TIERSTACK_TEST_S3").unwrap();
        let config = ObjectConfig { url, conditional_values: true, ..s3(&server) };
        Ok(Arc::new(open(&config).await?) as Arc<dyn Store>)
    };
    let test = "object::two_processes_lose_no_increment";
    support::processes::no_increment_is_lost(test, 10, place, open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_is_never_absent() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    support::unreachable::is_never_absent(async || {
        let proxy = Proxy::to(server.trim_start_matches("http://")).await;
        let config = ObjectConfig {
            timeout: Span(Duration::from_secs(2)),
            conditional_values: true,
            ..s3_through(&server, &format!("http://{}", proxy.addr()))
        };
        Ok(support::cut_off::by_proxy(Fixture::new(open(&config).await?), proxy))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_gone_is_not_empty() {
    support::unreachable::is_never_absent(async || {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("folder");
        let mut config = ObjectConfig::new(folder.to_str().unwrap());
        config.conditional_writes = true;
        Ok(support::cut_off::moved_away(Fixture::new(open(&config).await?), &folder).keeping(outer))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_conforms() {
    let Some(server) = support::var("TIERSTACK_TEST_AZURE") else { return };
    let _turn = support::azurite::TURN.lock().await;
    support::conforms(|| async {
        let container = Container::new(&server);
        let config = azure(&server, &container, AZURITE_KEY);
        let (conditional_writes, timeout) = (true, support::azurite::PATIENCE);
        let config = ObjectConfig { conditional_writes, timeout, ..config };
        let fixture = reopenable(config).await?;
        Ok(fixture.keeping(container))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_place_is_said_when_it_is_opened() {
    if let Some(server) = support::var("TIERSTACK_TEST_S3") {
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
    if let Some(server) = support::var("TIERSTACK_TEST_AZURE") {
        let container = Container::new(&server);
        let wrong = azure(&server, &container, "bm90IHRoZSBrZXk=");
        let refused = open(&wrong).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Access, "{refused:?}");
        let missing = ObjectConfig {
            url: "az://no-such-container".into(),
            ..azure(&server, &container, AZURITE_KEY)
        };
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
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
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
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
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
    assert!(acknowledged.len() > 50, "what fails for a moment is repeated");
    for (key, value) in acknowledged {
        assert_eq!(store.get(key.as_bytes()).await.unwrap(), Some(value.into()));
    }
}

/// Writers and readers go on while the line is cut, and while the server says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_goes_away_under_load_loses_nothing() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let proxy = Proxy::to(server.trim_start_matches("http://")).await;
    let config = ObjectConfig {
        timeout: Span(Duration::from_secs(3)),
        ..s3_through(&server, &format!("http://{}", proxy.addr()))
    };
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(open(&config).await.unwrap());
    let load = support::Load { writers: 3, readers: 2, ..support::Load::default() };
    let load = load.allow(ErrorKind::Unavailable).allow(ErrorKind::Timeout).late_writes();
    let report = load
        .run(&store, async |progress: &support::Progress| {
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
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let config = s3(&server);
    let bucket = config.url.strip_prefix("s3://").unwrap();
    for name in ["", "users/", "users/1", "a-b/", "a/", "a/1"] {
        let _ = request_with(&server, &format!("PUT /{bucket}/{name}"), "", "");
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

/// A URL has them, and the paths of the client library do not.
#[tokio::test(flavor = "multi_thread")]
async fn every_name_of_a_bucket_is_seen_and_carried() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let config = ObjectConfig { names: Names::Plain, ..s3(&server) };
    let place = config.url.strip_prefix("s3://").unwrap().to_owned();
    let make =
        |name: &str, body: &str| request_with(&server, &format!("PUT /{place}/{name}"), "", body);
    let mut names = [
        ("/lead", "/lead"),
        ("lead", "lead"),
        ("x/", "x/"),
        ("a//b", "a//b"),
        ("a/b", "a/b"),
        ("tab%09x", "tab\tx"),
        ("%20sp%20", " sp "),
        ("back%5Cslash", "back\\slash"),
        ("https://example.org/x%3Fy=1&z", "https://example.org/x?y=1&z"),
    ];
    names.sort_by_key(|(_, key)| *key);
    for (name, key) in names {
        let answer = make(name, key);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let _ = make("mark/", "");
    let store = open(&config).await.unwrap();
    let there = async |scan: Scan| -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let entries = store.collect(scan).await.unwrap();
        entries.into_iter().map(|entry| (text(&entry.key), text(&entry.value.bytes))).collect()
    };
    let all: Vec<_> = names.map(|(_, key)| (key.to_owned(), key.to_owned())).into();
    assert_eq!(there(Scan::all()).await, all);
    assert!(there(Scan::all().reverse()).await.into_iter().rev().eq(all));
    assert_eq!(there(Scan::prefix("a/")).await.len(), 2);
    for (_, key) in names {
        let _ = store.put(key, format!("new {key}")).await.unwrap();
        assert_eq!(store.get(key.as_bytes()).await.unwrap(), Some(format!("new {key}").into()));
    }
    assert_eq!(there(Scan::all()).await.len(), names.len(), "no object has another name now");
    let _ = store.put("large//", vec![7; 17 << 20]).await.unwrap();
    assert_eq!(store.get(b"large//").await.unwrap().unwrap().bytes.len(), 17 << 20);
    for (_, key) in names.into_iter().chain([("", "large//")]) {
        let _ = store.delete(key).await.unwrap();
        assert_eq!(store.get(key.as_bytes()).await.unwrap(), None);
    }
    assert_eq!(there(Scan::all()).await, []);

    // One that cannot be asked for is named, and stops a scan where it is.
    for name in ["a/b", "a/%2E/b", "c"] {
        let _ = make(name, "v");
    }
    let mut pages = store.scan(Scan::all());
    let refused = pages.next().await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    let mut behind = Scan::all();
    behind.resume_after("a/./b");
    assert_eq!(there(behind).await.len(), 2);
    assert_eq!(store.get(b"a/./b").await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// With escaped names no key has them, so that they are refused in words, and never passed over.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_key_has_are_not_passed_over() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    for name in ["/lead", "x/", "a//b", "tab%09x", "a%20b"] {
        let config = s3(&server);
        let place = config.url.strip_prefix("s3://").unwrap();
        let _ = request_with(&server, &format!("PUT /{place}/{name}"), "", "v");
        let refused = open(&config).await.unwrap().collect(Scan::all()).await.unwrap_err();
        assert!(refused.to_string().contains("`names: plain`"), "{name}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_keeps_what_an_object_of_others_has_beside_its_content() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let config = s3(&server);
    let place = config.url.strip_prefix("s3://").unwrap();
    let headers = [
        "content-type: text/html",
        "cache-control: max-age=60",
        "content-language: de",
        "content-disposition: inline",
        "x-amz-storage-class: STANDARD_IA",
        "x-amz-meta-owner: me",
    ];
    let sent: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let store = open(&config).await.unwrap();
    for (name, value) in [("page", vec![1; 10]), ("large", vec![2; 17 << 20])] {
        let _ = request_with(&server, &format!("PUT /{place}/{name}"), &sent, "old");
        let _ = store.put(name, value.clone()).await.unwrap();
        let answer = request_with(&server, &format!("HEAD /{place}/{name}"), "", "");
        for header in headers {
            assert!(
                answer.to_ascii_lowercase().contains(&header.to_ascii_lowercase()),
                "{name}: {header}: {answer}"
            );
        }
        assert!(store.get(name.as_bytes()).await.unwrap().unwrap().bytes == value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_encryption_is_refused_by_its_name() {
    let plain = [("endpoint", "http://127.0.0.1:1"), ("region", "x"), ("access_key_id", "x")];
    let config = with(ObjectConfig::new("s3://acme"), &plain, &[("secret_access_key", "x")]);
    let refused = open(&config).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused:?}");
    assert!(refused.to_string().contains("`allow_http: true`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_go_through_s3_in_parts() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
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
