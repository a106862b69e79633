//! The backend `object` against real services: `TIERSTACK_TEST_S3=http://127.0.0.1:PORT`, such as moto's, and
//! `TIERSTACK_TEST_AZURE=http://127.0.0.1:PORT`, Azurite's blob service.
#![cfg(all(feature = "object", feature = "cloud", feature = "testing"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tierstack::backends::object::{Names, Setting};
use tierstack::backends::{Object, ObjectConfig};
use tierstack::testing::conformance::{self, Fixture};
use tierstack::units::Span;
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

const BUCKET: &str = "tierstack-object";

/// A place of its own in the bucket.
fn s3(server: &str) -> ObjectConfig {
    request(server, &format!("PUT /{BUCKET}"));
    let mut config = ObjectConfig::new(format!("s3://{BUCKET}/{}", uuid::Uuid::new_v4()));
    for (name, value) in [
        ("endpoint", server),
        ("region", "us-east-1"),
        ("access_key_id", "test"),
        ("allow_http", "true"),
    ] {
        config.options.insert(name.to_owned(), value.into());
    }
    let secret = std::env::temp_dir().join(format!("tierstack-object-{}", std::process::id()));
    std::fs::write(&secret, "test").unwrap();
    config
        .options
        .insert("secret_access_key".into(), tierstack::units::Secret::File(secret).into());
    config.timeout = Span(Duration::from_secs(10));
    config
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
    let Some(server) = server("TIERSTACK_TEST_S3") else { return };
    let config = s3(&server);
    conformance::assert_conforms(|| {
        let config = ObjectConfig {
            url: format!("{}/{}", config.url, &uuid::Uuid::new_v4().to_string()[..8]),
            conditional_writes: true,
            ..config.clone()
        };
        reopenable(config)
    })
    .await;
}
