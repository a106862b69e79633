//! The backend `opendal` against real services: `TIERSTACK_TEST_S3`, `TIERSTACK_TEST_MEMCACHED`,
//! `TIERSTACK_TEST_WEBDAV`, `TIERSTACK_TEST_AZURE` name their addresses.
#![cfg(all(feature = "opendal", feature = "testing"))]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{self, AZURITE_KEY, Container, Proxy, secret};
use tierstack::backends::opendal::{Names, Setting};
use tierstack::backends::{OpenDal, OpenDalConfig};
use tierstack::testing::conformance::{self, Fixture};
use tierstack::units::Span;
use tierstack::{Context, ErrorKind, Read, ReadExt, Scan, Store, StoreExt};

fn config(scheme: &str, options: &[(&str, &str)]) -> OpenDalConfig {
    let mut config = OpenDalConfig::new(scheme);
    for (name, value) in options {
        config.options.insert((*name).to_owned(), (*value).into());
    }
    config
}

async fn open(config: &OpenDalConfig) -> tierstack::Result<OpenDal> {
    OpenDal::open(config, &Context::default()).await
}

async fn reopenable(config: OpenDalConfig) -> tierstack::Result<Fixture> {
    let again = move |config: OpenDalConfig| async move {
        let store: Arc<dyn Store> = Arc::new(open(&config).await?);
        Ok(store)
    };
    let fixture = Fixture::new(open(&config).await?);
    Ok(fixture.reopened_by(move || again(config.clone())))
}

fn unique() -> String {
    uuid::Uuid::new_v4().to_string()[..8].to_owned()
}

/// A request without a body.
fn request(host: &str, line: &str) {
    let _ = send(host, line, "", "");
}

/// Moto looks at no signature, and wants one all the same where an object is meant.
const SIGNED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n";

fn request_with(host: &str, line: &str, headers: &str, body: &str) -> String {
    let answer = send(host, line, &format!("{SIGNED}{headers}"), body);
    assert!(answer.starts_with("HTTP/1.1 2"), "{line}: {answer}");
    answer
}

fn send(host: &str, line: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{headers}");
    let length = body.len();
    write!(stream, "{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A folder in a bucket of its own, of an S3 server that looks at no signature.
fn s3(server: &str) -> OpenDalConfig {
    s3_through(server, server)
}

fn s3_through(server: &str, address: &str) -> OpenDalConfig {
    let bucket = format!("tierstack-{}", unique());
    request(server.trim_start_matches("http://"), &format!("PUT /{bucket}"));
    let mut config = config(
        "s3",
        &[
            ("bucket", &bucket),
            ("root", "a/folder"),
            ("endpoint", address),
            ("region", "us-east-1"),
            ("access_key_id", "test"),
            ("disable_config_load", "true"),
            ("disable_ec2_metadata", "true"),
        ],
    );
    config.options.insert("secret_access_key".into(), secret("test").into());
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    let config = config("memory", &[]);
    conformance::assert_conforms(async || Ok(Fixture::new(open(&config).await?))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_conforms() {
    conformance::assert_conforms(|| async {
        let folder = tempfile::tempdir().unwrap();
        let config = config("fs", &[("root", folder.path().to_str().unwrap())]);
        Ok(reopenable(config).await?.keeping(folder))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_conforms() {
    let Some(server) = support::var("TIERSTACK_TEST_MEMCACHED") else { return };
    support::conforms(|| async {
        let root = uuid::Uuid::new_v4().to_string();
        reopenable(config("memcached", &[("endpoint", &server), ("root", &root[..8])])).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    support::conforms(|| reopenable(OpenDalConfig { conditional_writes: true, ..s3(&server) }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_opendal_cannot_name_is_not_passed_over() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let host = server.trim_start_matches("http://");
    for (root, name) in [("/", "/lead"), ("/", "x/"), ("a/folder", "/lead"), ("a/folder", "a//b")] {
        let mut config = s3(&server);
        config.names = Names::Plain;
        config.options.insert("root".into(), root.into());
        let Some(Setting::Text(bucket)) = config.options.get("bucket") else { unreachable!() };
        let place = format!("{bucket}/{root}").trim_end_matches('/').to_owned();
        let _ = request_with(host, &format!("PUT /{place}/{name}"), "", "v");
        let _ = request_with(host, &format!("PUT /{place}/mark/"), "", "");
        let store = open(&config).await.unwrap();
        let refused = store.collect(Scan::all()).await.unwrap_err();
        assert!(refused.to_string().contains("name"), "{root} {name}: {refused}");
        let _ = request_with(host, &format!("DELETE /{place}/{name}"), "", "");
        assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 0, "{root} {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_keeps_what_an_object_of_others_has_beside_its_content() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let host = server.trim_start_matches("http://");
    let config = s3(&server);
    let Some(Setting::Text(bucket)) = config.options.get("bucket") else { unreachable!() };
    let headers = ["content-type: text/html", "cache-control: max-age=60", "x-amz-meta-owner: me"];
    let sent: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let store = open(&config).await.unwrap();
    for (name, value) in [("page", vec![1; 10]), ("large", vec![2; 17 << 20])] {
        let _ = request_with(host, &format!("PUT /{bucket}/a/folder/{name}"), &sent, "old");
        let _ = store.put(name, value).await.unwrap();
        let answer = request_with(host, &format!("HEAD /{bucket}/a/folder/{name}"), "", "");
        for header in headers {
            assert!(answer.to_ascii_lowercase().contains(header), "{name}: {header}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_lose_no_increment() {
    let bucket_of = |config: &OpenDalConfig| match config.options.get("bucket") {
        Some(Setting::Text(bucket)) => bucket.clone(),
        _ => unreachable!(),
    };
    let place = async || support::var("TIERSTACK_TEST_S3").map(|server| bucket_of(&s3(&server)));
    let open = async |bucket: String| {
        let server = support::var("TIERSTACK_TEST_S3").unwrap();
        let mut config = OpenDalConfig { conditional_writes: true, ..s3(&server) };
        config.options.insert("bucket".into(), bucket.as_str().into());
        Ok(Arc::new(open(&config).await?) as Arc<dyn Store>)
    };
    let test = "opendal::two_processes_lose_no_increment";
    support::processes::no_increment_is_lost(test, 5, place, open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_is_never_absent() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    support::unreachable::is_never_absent(async || {
        let proxy = Proxy::to(server.trim_start_matches("http://")).await;
        let config = OpenDalConfig {
            timeout: Span(Duration::from_secs(2)),
            conditional_writes: true,
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
        let config = config("fs", &[("root", folder.to_str().unwrap())]);
        Ok(support::cut_off::moved_away(Fixture::new(open(&config).await?), &folder).keeping(outer))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azblob_conforms() {
    let Some(server) = support::var("TIERSTACK_TEST_AZURE") else { return };
    let _turn = support::azurite::TURN.lock().await;
    support::conforms(|| async {
        let container = Container::new(&server);
        let options = [
            ("container", container.name.as_str()),
            ("root", "a/folder"),
            ("endpoint", &server),
            ("account_name", "devstoreaccount1"),
        ];
        let mut config = config("azblob", &options);
        config.options.insert("account_key".into(), secret(AZURITE_KEY).into());
        config.conditional_writes = true;
        config.timeout = support::azurite::PATIENCE;
        Ok(reopenable(config).await?.keeping(container))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_conforms() {
    let Some(server) = support::var("TIERSTACK_TEST_WEBDAV") else { return };
    support::conforms(|| async {
        let root = uuid::Uuid::new_v4().to_string();
        reopenable(config("webdav", &[("endpoint", &server), ("root", &root)])).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_missing_and_wrong_credentials_are_told_when_opening() {
    if let Some(server) = support::var("TIERSTACK_TEST_S3") {
        let mut config = s3(&server);
        config.options.insert("bucket".into(), "tierstack-no-such-bucket".into());
        for scans in [None, Some(false)] {
            let refused = open(&OpenDalConfig { scans, ..config.clone() }).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Config, "{refused:?}");
        }
    }
    if let Some(server) = support::var("TIERSTACK_TEST_AZURE") {
        let options = [
            ("container", "tierstack-test"),
            ("endpoint", server.as_str()),
            ("account_name", "devstoreaccount1"),
        ];
        let mut config = config("azblob", &options);
        config.options.insert("account_key".into(), secret("bm90IHRoZSBrZXk=").into());
        let refused = open(&config).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Access, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_or_hangs_fails_with_its_kind_and_works_again() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let proxy = Proxy::to(server.trim_start_matches("http://")).await;
    let config = OpenDalConfig {
        timeout: Span(Duration::from_secs(1)),
        ..s3_through(&server, &format!("http://{}", proxy.addr()))
    };
    breaks(&open(&config).await.unwrap(), &proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_gives_no_answer_to_another_question_after_a_line_hung() {
    let Some(server) = support::var("TIERSTACK_TEST_MEMCACHED") else { return };
    let proxy = Proxy::to(server.as_str()).await;
    let root = uuid::Uuid::new_v4().to_string();
    let address = proxy.addr().to_string();
    let mut config = config("memcached", &[("endpoint", &address), ("root", &root[..8])]);
    config.timeout = Span(Duration::from_secs(1));
    let store = open(&config).await.unwrap();
    breaks(&store, &proxy).await;
    for n in 0..50 {
        let _ = store.put(format!("key-{n}"), n.to_string()).await.unwrap();
        assert_eq!(
            store.get(format!("key-{n}").as_bytes()).await.unwrap(),
            Some(n.to_string().into())
        );
        assert_eq!(store.get(b"missing").await.unwrap(), None);
    }
}

async fn breaks(store: &OpenDal, proxy: &Proxy) {
    let _ = store.put("kept", "1").await.unwrap();
    proxy.cut().await;
    for failed in [
        store.put("secret-key", "2").await.unwrap_err(),
        store.get(b"secret-key").await.unwrap_err(),
    ] {
        // A client that goes on connecting until its time is up has no other answer.
        let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout];
        assert!(kinds.contains(&failed.kind()), "{failed:?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn large_values_go_through_s3_in_parts() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let store = open(&s3(&server)).await.unwrap();
    let large: Vec<u8> = (0..(20u32 << 20) + 7).map(|at| (at >> 11) as u8).collect();
    let _ = store.put("large", large.clone()).await.unwrap();
    assert!(store.get(b"large").await.unwrap().unwrap().bytes == large);
}
