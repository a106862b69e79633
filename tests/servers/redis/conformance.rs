//! The conformance suite.

use std::sync::Arc;

use tierstack::backends::redis::ScanBy;
use tierstack::config::{Config, Format, Registry};
use tierstack::testing::conformance::{Fixture, assert_conforms};
use tierstack::{
    BackendConfig, Clock, Context, Op, OpenOptions, Result, Stack, StoreExt, SystemClock,
};

use super::*;
use crate::support::{self, Certificates, RedisCluster, var};

/// A store, what opens it again, and another one that writes behind its back.
async fn fixture(config: RedisConfig) -> Result<Fixture> {
    let store = Redis::open(config.clone()).await?;
    assert_eq!(store.profile(), config.profile()?, "known before it is opened");
    let other = Arc::new(Redis::open(config.clone()).await?);
    let reopened = move || {
        let config = config.clone();
        async move { config.open(&Context::default()).await }
    };
    Ok(Fixture::new(store).reopened_by(reopened).changed_by(move |op| {
        let other = Arc::clone(&other);
        async move {
            match op {
                Op::Put(key, value) => other.put(key, value).await.map(drop),
                Op::Delete(key) => other.delete(key).await.map(drop),
            }
        }
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let Some(server) = server().await else { return };
    let config = || RedisConfig { change_feed: true, ..on(server.fresh_url()) };
    assert_conforms(|| fixture(config())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_with_an_index() {
    let Some(server) = server().await else { return };
    let config = || RedisConfig { index: true, ..on(server.fresh_url()) };
    assert_conforms(|| fixture(config())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_with_sorted_scans() {
    let Some(server) = server().await else { return };
    let config = || RedisConfig { scan: Some(ScanBy::Sorted), ..on(server.fresh_url()) };
    assert_conforms(|| fixture(config())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_under_a_hash_tag() {
    let Some(server) = server().await else { return };
    let config = || RedisConfig {
        hash_tag: Some("a*b[".into()),
        index: true,
        change_feed: true,
        ..on(server.fresh_url())
    };
    assert_conforms(|| fixture(config())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_with_tls() {
    let Some(certificates) = Certificates::make().await.map(Arc::new) else { return };
    let Some(server) = Server::start_tls(&certificates, &[]).await else { return };
    let config =
        || RedisConfig { ca: Some(certificates.ca()), change_feed: true, ..on(server.fresh_url()) };
    assert_conforms(|| fixture(config())).await;
    // A certificate of an unknown authority is not trusted.
    assert_eq!(kind(Redis::open(on(server.url())).await), ErrorKind::Access);
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_in_a_cluster() {
    let Some(cluster) = RedisCluster::start(3, 0).await else { return };
    let empty = async |config: RedisConfig| {
        for node in &cluster.nodes {
            node.cli(&["flushall"]).await;
        }
        fixture(config).await
    };
    let config = || RedisConfig { change_feed: true, ..RedisConfig::cluster(cluster.urls()) };
    assert_conforms(|| empty(config())).await;
    let tagged = || RedisConfig { hash_tag: Some("orders".into()), index: true, ..config() };
    assert_conforms(|| empty(tagged())).await;
    let sorted = || RedisConfig { scan: Some(ScanBy::Sorted), ..config() };
    assert_conforms(|| empty(sorted())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_conform_over_it() {
    let Some(server) = server().await else { return };
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let ring = tierstack::codec::KeyRing::generate().unwrap();
    std::fs::write(folder.path().join("keys"), ring.expose()).unwrap();
    let layers = "{ cache: { capacity: 1MiB, ttl: 1m } }, { compress: { min_size: 0 } }, { encrypt: { keys: { file: keys } } }";
    assert_conforms(|| async {
        let backend = format!("redis: {{ url: '{}', index: true }}", server.fresh_url());
        let text =
            format!("stores: {{ main: {{ layers: [{layers}], backend: {{ {backend} }} }} }}");
        let open = {
            let folder = Arc::clone(&folder);
            move || {
                let (text, folder) = (text.clone(), Arc::clone(&folder));
                async move {
                    let path = folder.path().join("tierstack.yaml");
                    let config = Config::parse(&text, Format::Yaml, path)?;
                    let options = OpenOptions { seed: 1, ..OpenOptions::default() };
                    Stack::open(&config, None, &Registry::standard(), &options).await
                }
            }
        };
        let stack = open().await?;
        Ok(Fixture::new(stack.store())
            .reopened_by(move || {
                let open = open.clone();
                async move { Ok(open().await?.store()) }
            })
            .keeping(stack))
    })
    .await;
}

/// Servers of other versions, perhaps. Each store has a tag of its own there, and leaves the rest alone.
#[tokio::test(flavor = "multi_thread")]
async fn conforms_on_the_servers_that_are_named() {
    let single = |name: &str| var(name).map(on);
    let cluster = var("TIERSTACK_TEST_REDIS_CLUSTER");
    let cluster = cluster.map(|urls| RedisConfig::cluster(urls.split(',')));
    let tls = single("TIERSTACK_TEST_REDIS_TLS").zip(var("TIERSTACK_TEST_CA"));
    let tls = tls.map(|(config, ca)| RedisConfig { ca: Some(ca.into()), ..config });
    for config in [single("TIERSTACK_TEST_REDIS"), tls, cluster].into_iter().flatten() {
        assert_conforms(|| {
            let (now, tick) = (SystemClock.now(), SystemClock.monotonic().as_nanos());
            let tag = format!("test-{}-{tick}", now.as_millis());
            fixture(RedisConfig {
                hash_tag: Some(tag),
                index: true,
                change_feed: true,
                ..config.clone()
            })
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_lose_no_increment() {
    let mut server = None;
    let place = async || {
        server = super::server().await;
        server.as_ref().map(|server| server.fresh_url())
    };
    let open = async |url: String| Ok(open(on(url)).await as Arc<dyn Store>);
    let test = "redis::conformance::two_processes_lose_no_increment";
    support::processes::no_increment_is_lost(test, 100, place, open).await;
}
