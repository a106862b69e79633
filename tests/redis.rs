//! The Redis backend against real servers of the test's own.
#![cfg(all(feature = "redis", feature = "testing"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod servers;

use servers::RedisCluster;
use tierstack::backends::{Redis, RedisConfig};
use tierstack::testing::conformance::{self, Fixture};
use tierstack::{BackendConfig, Context, Store};

type Server = servers::Redis;

async fn server() -> Option<Server> {
    Server::start(&[]).await
}

fn on(url: impl Into<String>) -> RedisConfig {
    RedisConfig::new(url)
}

async fn fixture(config: RedisConfig) -> tierstack::Result<Fixture> {
    let store = Redis::open(config.clone()).await?;
    assert_eq!(store.profile(), config.profile()?, "known before it is opened");
    Ok(Fixture::new(store).reopened_by(move || {
        let config = config.clone();
        async move { config.open(&Context::default()).await }
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let Some(server) = server().await else { return };
    conformance::assert_conforms(|| fixture(on(server.fresh_url()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_with_an_index() {
    let Some(server) = server().await else { return };
    let config = || RedisConfig { index: true, ..on(server.fresh_url()) };
    conformance::assert_conforms(|| fixture(config())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_under_a_hash_tag() {
    let Some(server) = server().await else { return };
    let config = || RedisConfig {
        hash_tag: Some("a*b[".into()),
        index: true,
        announce: true,
        ..on(server.fresh_url())
    };
    conformance::assert_conforms(|| fixture(config())).await;
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
    let config = || RedisConfig::cluster(cluster.urls());
    conformance::assert_conforms(|| empty(config())).await;
    let config =
        || RedisConfig { hash_tag: Some("orders".into()), index: true, announce: true, ..config() };
    conformance::assert_conforms(|| empty(config())).await;
}
