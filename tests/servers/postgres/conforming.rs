//! The conformance suite, alone and below layers.

use std::sync::Arc;

use tempfile::tempdir;
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::codec::KeyRing;
use tierstack::config::{Config, Format, Registry};
use tierstack::testing::conformance::{self, Fixture};
use tierstack::{Durability, OpenOptions, Stack, Store};

use super::{Dropped, config, open};

async fn conforms(change: impl Fn(PostgresConfig) -> PostgresConfig) {
    let Some(_) = config() else { return };
    let fixture = || async {
        let config = change(config().unwrap());
        let dropped = Dropped::after(&config);
        let store = Postgres::open(config.clone()).await?;
        let reopen = move || {
            let config = config.clone();
            async move { Ok(Arc::new(open(&config).await) as Arc<dyn Store>) }
        };
        Ok(Fixture::new(store).reopened_by(reopen).keeping(dropped))
    };
    conformance::assert_conforms(fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default() {
    conforms(|config| config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_connection() {
    conforms(|config| PostgresConfig { pool: 1, ..config }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sync_and_with_announcements() {
    let durability = Durability::ProcessCrash;
    conforms(|config| PostgresConfig { durability, change_feed: true, ..config }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_layers() {
    let Some(_) = config() else { return };
    let fixture = || async {
        let config = config().unwrap();
        let folder = tempdir().unwrap();
        std::fs::write(folder.path().join("keys"), KeyRing::generate().unwrap().expose()).unwrap();
        let text = format!(
            "stores: {{ main: {{ layers: [{{ cache: {{ capacity: 1MiB, ttl: 1m }} }}, {{ compress: {{ min_size: 0 }} }}, {{ encrypt: {{ keys: {{ file: keys }} }} }}], backend: {{ postgres: {{ url: '{}', table: {}, timeout: 100s, connect_timeout: 100s }} }} }} }}",
            std::env::var("TIERSTACK_TEST_POSTGRES").unwrap(),
            config.table,
        );
        let dropped = Dropped::after(&config);
        let config = Config::parse(&text, Format::Yaml, folder.path().join("tierstack.yaml"))?;
        let options = OpenOptions::default();
        let stack = Stack::open(&config, None, &Registry::standard(), &options).await?;
        Ok(Fixture::new(stack.store()).keeping((dropped, folder, stack)))
    };
    conformance::assert_conforms(fixture).await;
}
