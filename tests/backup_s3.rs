//! Backups in a real S3 server: `TIERSTACK_TEST_S3=http://127.0.0.1:PORT`, such as moto's.
#![cfg(feature = "cloud")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use tierstack::backends::Memory;
use tierstack::backup::{self, Level, Repository, Restore, Target};
use tierstack::{ErrorKind, ReadExt, Scan, StoreExt, SystemClock};

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

/// A place of its own in the bucket `tierstack-test`, which the server must have.
fn place(server: &str, name: &str) -> Arc<dyn ObjectStore> {
    let s3 = AmazonS3Builder::new()
        .with_endpoint(server)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name("tierstack-test")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .build()
        .unwrap();
    let mut random = [0u8; 8];
    getrandom(&mut random);
    Arc::new(PrefixStore::new(s3, format!("{name}-{:016x}", u64::from_le_bytes(random))))
}

fn getrandom(bytes: &mut [u8; 8]) {
    let id = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ());
    bytes.copy_from_slice(&id.to_le_bytes());
}

async fn filled(entries: u32) -> Memory {
    let store = Memory::new();
    for number in 0..entries {
        let value: Vec<u8> = (0..200u32).map(|at| (at * number >> 3) as u8).collect();
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
    let first =
        Repository::create_or_open(Arc::clone(&objects), SystemClock::shared()).await.unwrap();
    let store = Arc::new(filled(100).await);
    let racers = (0..8).map(|_| {
        let (objects, store) = (Arc::clone(&objects), Arc::clone(&store));
        tokio::spawn(async move {
            let repository = Repository::open(objects, SystemClock::shared()).await?;
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
    let mut bases: Vec<_> = first.bases().await.unwrap().into_iter().map(|base| base.id).collect();
    kept.sort();
    bases.sort();
    assert!(!kept.is_empty());
    assert_eq!(kept, bases);
    assert!(first.verify(Level::All, &|_| ()).await.unwrap().is_intact());
}
