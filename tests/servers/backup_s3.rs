//! Backups in a real S3 server: `TIERSTACK_TEST_S3=http://127.0.0.1:PORT`, such as moto's.
#![cfg(feature = "cloud")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use tierstack::backends::Memory;
use tierstack::backup::{self, Level, Repository, Restore, Target};
use tierstack::layers::backup::BackupConfig;
use tierstack::{Context, ErrorKind, ReadExt, Retry, Scan, StoreExt, SystemClock};

/// The server, or `None` with a printed reason: then there is nothing to test.
fn server() -> Option<String> {
    match std::env::var("TIERSTACK_TEST_S3") {
        Ok(url) => Some(url),
        Err(_) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "TIERSTACK_TEST_S3 must name an S3 server in CI"
            );
            eprintln!("skipped: TIERSTACK_TEST_S3 names no S3 server (scripts/test starts one)");
            None
        }
    }
}

/// `object_store` makes no buckets. Where this is refused, the bucket must be there already.
fn make_bucket(server: &str) {
    let host = server.trim_start_matches("http://").trim_end_matches('/');
    let mut line = TcpStream::connect(host).unwrap();
    let head = format!("PUT /tierstack-test HTTP/1.1\r\nHost: {host}\r\n");
    write!(line, "{head}Content-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    line.read_to_end(&mut Vec::new()).unwrap();
}

/// A place of its own in the bucket `tierstack-test`.
fn place(server: &str, name: &str) -> Arc<dyn ObjectStore> {
    make_bucket(server);
    let s3 = AmazonS3Builder::new()
        .with_endpoint(server)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name("tierstack-test")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .build()
        .unwrap();
    Arc::new(PrefixStore::new(s3, format!("{name}-{}", uuid::Uuid::new_v4())))
}

async fn filled(entries: u32) -> Memory {
    let store = Memory::new();
    for number in 0..entries {
        let value: Vec<u8> = (0..200u32).map(|at| ((at * number) >> 3) as u8).collect();
        let _ = store.put(format!("key-{number:06}"), value).await.unwrap();
    }
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn bases_in_s3_are_verified_and_restored() {
    let Some(server) = server() else { return };
    let objects = place(&server, "round-trip");
    let repository =
        Repository::create_or_open(Arc::clone(&objects), SystemClock::shared()).await.unwrap();
    let store = filled(5000).await;
    backup::run(&store, &repository, &|_| ()).await.unwrap();
    let _ = store.put("key-002500", "changed").await.unwrap();
    let second = backup::run(&store, &repository, &|_| ()).await.unwrap();
    assert!(second.progress.reused_bytes > second.progress.uploaded_bytes);

    let again = Repository::open(Arc::clone(&objects), SystemClock::shared()).await.unwrap();
    let report = again.verify(Level::All, &|_| ()).await.unwrap();
    assert!(report.is_intact() && report.bases == 2, "{report:?}");
    let plan = again.plan(Target::Latest).await.unwrap();
    let target = Memory::new();
    backup::restore(&again, &plan, &target, &Restore::default(), &|_| ()).await.unwrap();
    let everything = Scan::all;
    assert_eq!(
        target.collect(everything()).await.unwrap(),
        store.collect(everything()).await.unwrap()
    );

    // A pack that ends too early is damage, not a failure of the network.
    let data = objects.list_with_delimiter(Some(&Path::from("data"))).await.unwrap();
    let pack = objects.list_with_delimiter(data.common_prefixes.first()).await.unwrap();
    let pack = pack.objects[0].location.clone();
    let bytes = objects.get(&pack).await.unwrap().bytes().await.unwrap();
    objects.put(&pack, bytes.slice(..20).into()).await.unwrap();
    let report = again.verify(Level::All, &|_| ()).await.unwrap();
    assert!(!report.is_intact());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_race_in_s3_each_base_is_kept_or_refused() {
    let Some(server) = server() else { return };
    let objects = place(&server, "race");
    let store = Arc::new(filled(100).await);
    let racers = (0..8).map(|_| {
        let (objects, store) = (Arc::clone(&objects), Arc::clone(&store));
        tokio::spawn(async move {
            let repository = Repository::create_or_open(objects, SystemClock::shared()).await?;
            backup::run(&store, &repository, &|_| ()).await
        })
    });
    let racers: Vec<_> = racers.collect();
    let mut kept = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Ok(taken) => kept.push(taken.base.id),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
        }
    }
    let first = Repository::open(Arc::clone(&objects), SystemClock::shared()).await.unwrap();
    let mut bases: Vec<_> = first.bases().await.unwrap().into_iter().map(|base| base.id).collect();
    kept.sort();
    bases.sort();
    assert!(!kept.is_empty());
    assert_eq!(kept, bases);
    assert!(first.verify(Level::All, &|_| ()).await.unwrap().is_intact());
}

/// The environment belongs to the process, so the test runs itself once more with another.
#[test]
fn a_url_and_the_environment_name_a_repository() {
    let Some(server) = server() else { return };
    make_bucket(&server);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "backup_s3::with_the_environment", "--ignored", "--nocapture"])
        .env("AWS_ENDPOINT", &server)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "run by a_url_and_the_environment_name_a_repository"]
async fn with_the_environment() {
    let to = format!("s3://tierstack-test/a path/{}", uuid::Uuid::new_v4());
    let config = BackupConfig { to, base: None };
    let context = Context::default();
    let missing = config.repository(&context).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidInput, "{missing:?}");
    let repository = config.create_repository(&context).await.unwrap();
    backup::run(&filled(10).await, &repository, &|_| ()).await.unwrap();
    let again = config.repository(&context).await.unwrap();
    assert_eq!(again.bases().await.unwrap().len(), 1);

    let to = "s3://tierstack-no-such-bucket/path".to_owned();
    let nowhere = BackupConfig { to, base: None };
    for error in [
        nowhere.repository(&context).await.unwrap_err(),
        nowhere.create_repository(&context).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert_eq!(error.retry(), Retry::Never, "{error:?}");
        assert!(error.message().contains("bucket"), "{error:?}");
    }
}
