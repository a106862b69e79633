//! PgBouncer in between.

use tierstack::backends::postgres::Pooler;
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::testing::conformance::{self, Fixture};
use tierstack::{Durability, ErrorKind, Read, Store, StoreExt};

use super::{connect, fresh_table, open};
use crate::support::{PgBouncer, Postgres as Server};

/// What another program sees of the settings of its sessions.
async fn settings(pooler: &PgBouncer) -> Vec<String> {
    let other = connect(&pooler.url()).await;
    let mut all = Vec::new();
    for name in ["statement_timeout", "synchronous_commit", "enable_seqscan", "tierstack.origin"] {
        let sql = format!("SELECT coalesce(current_setting('{name}', true), '')");
        for message in other.simple_query(&sql).await.unwrap() {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                all.push(row.get(0).unwrap().to_owned());
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn is_noticed_and_named_and_left_as_it_was() {
    let Some(server) = Server::start().await else { return };
    for extra in ["", "server_round_robin = 1", "default_pool_size = 1"] {
        let Some(pooler) = PgBouncer::to(&server, "transaction", extra).await else { return };
        let before = settings(&pooler).await;
        let config = PostgresConfig {
            durability: Durability::ProcessCrash,
            ..PostgresConfig::new(pooler.url())
        };
        let error = Postgres::open(config.clone()).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(error.message().contains("`pooler: transaction`"), "{error}");
        assert_eq!(settings(&pooler).await, before);

        let config = PostgresConfig { pooler: Some(Pooler::Transaction), ..config };
        let store = open(&config).await;
        store.put("k", "v").await.unwrap();
        assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
        store.write(tierstack::Batch::new().put("k", "w").delete("l")).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(settings(&pooler).await, before);
        server.sql("DROP TABLE tierstack").await;
    }
    let Some(pooler) = PgBouncer::to(&server, "statement", "").await else { return };
    let config = PostgresConfig::new(pooler.url());
    let error = Postgres::open(config).await.map(drop).unwrap_err();
    assert!(error.message().contains("statement mode"), "{error}");
    let Some(pooler) = PgBouncer::to(&server, "session", "default_pool_size = 20").await else {
        return;
    };
    open(&PostgresConfig::new(pooler.url())).await.put("k", "v").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_transaction_mode_conforms() {
    let Some(server) = Server::start().await else { return };
    let Some(pooler) =
        PgBouncer::to(&server, "transaction", "default_pool_size = 70\nserver_round_robin = 1")
            .await
    else {
        return;
    };
    let url = pooler.url();
    let fixture = || async {
        let config = PostgresConfig {
            table: fresh_table(),
            pooler: Some(Pooler::Transaction),
            ..PostgresConfig::new(url.clone())
        };
        let store = Postgres::open(config.clone()).await?;
        let reopen = move || {
            let config = config.clone();
            async move { Ok(std::sync::Arc::new(open(&config).await) as std::sync::Arc<dyn Store>) }
        };
        Ok(Fixture::new(store).reopened_by(reopen))
    };
    conformance::assert_conforms(fixture).await;
}
