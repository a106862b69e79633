//! The backend `opendal` against real services: `TIERSTACK_TEST_S3`, `TIERSTACK_TEST_MEMCACHED`,
//! `TIERSTACK_TEST_WEBDAV`, `TIERSTACK_TEST_AZURE` name their addresses.
#![cfg(all(feature = "opendal", feature = "testing"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tierstack::backends::opendal::Names;
use tierstack::backends::{OpenDal, OpenDalConfig};
use tierstack::testing::conformance::{self, Fixture};
use tierstack::units::{Secret, Span};
use tierstack::{Batch, Context, ErrorKind, Read, ReadExt, Scan, Store, StoreExt};

/// The server, or `None` with a printed reason: then there is nothing to test.
fn server(variable: &str) -> Option<String> {
    match std::env::var(variable) {
        Ok(url) => Some(url.trim_end_matches('/').to_owned()),
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "{variable} must name a server in CI");
            eprintln!("skipped: {variable} names no server");
            None
        }
    }
}

fn config(scheme: &str, options: &[(&str, &str)]) -> OpenDalConfig {
    let mut config = OpenDalConfig::new(scheme);
    for (name, value) in options {
        config.options.insert((*name).to_owned(), (*value).into());
    }
    config.timeout = Span(Duration::from_secs(10));
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

const BUCKET: &str = "tierstack-opendal";

/// A place of its own in the bucket of an S3 server, which looks at no signature.
fn s3(server: &str) -> OpenDalConfig {
    let host = server.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!("PUT /{BUCKET} HTTP/1.1\r\nHost: {host}\r\n");
    write!(stream, "{head}Content-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let root = uuid::Uuid::new_v4().to_string();
    let mut config = config(
        "s3",
        &[
            ("bucket", BUCKET),
            ("root", &root),
            ("endpoint", server),
            ("region", "us-east-1"),
            ("access_key_id", "test"),
            ("disable_config_load", "true"),
            ("disable_ec2_metadata", "true"),
        ],
    );
    let secret = std::env::temp_dir().join(format!("tierstack-opendal-{}", std::process::id()));
    std::fs::write(&secret, "test").unwrap();
    config.options.insert("secret_access_key".into(), Secret::File(secret).into());
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
    let Some(server) = server("TIERSTACK_TEST_MEMCACHED") else { return };
    conformance::assert_conforms(|| async {
        let root = uuid::Uuid::new_v4().to_string();
        reopenable(config("memcached", &[("endpoint", &server), ("root", &root[..8])])).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let Some(server) = server("TIERSTACK_TEST_S3") else { return };
    conformance::assert_conforms(|| {
        reopenable(OpenDalConfig { conditional_writes: true, ..s3(&server) })
    })
    .await;
}
