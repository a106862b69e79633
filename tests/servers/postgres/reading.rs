//! Stores that only read: views, partitioned tables, roles with SELECT alone, standbys.

use tierstack::backends::postgres::{Columns, ExpiresUnit};
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::{
    BackendConfig, Batch, Change, Durability, Error, ErrorKind, Freshness, Read, ReadExt, Scan,
    Store, StoreExt,
};

use super::announcing::{keys, next};
use super::open;
use crate::support::Postgres as Server;

fn reading(url: String, table: &str) -> PostgresConfig {
    let columns = Columns {
        key: "id".into(),
        value: "body".into(),
        expires: None,
        expires_unit: ExpiresUnit::Milliseconds,
        created: None,
        updated: None,
        constants: Default::default(),
    };
    PostgresConfig { table: table.into(), columns, read_only: true, ..PostgresConfig::new(url) }
}

async fn refused(config: PostgresConfig) -> Error {
    Postgres::open(config).await.map(drop).unwrap_err()
}

/// A table with a column that a put would have to fill, and what is made of it. No transaction but those of writes has a
/// number, so the next number tells that nothing was written.
const SHOP: &str = "
    CREATE TABLE shop (id bytea PRIMARY KEY, body bytea, note text NOT NULL);
    INSERT INTO shop SELECT convert_to(to_char(n, 'FM000'), 'UTF8'), 'v', 'mine' FROM generate_series(0, 99) AS n;
    CREATE VIEW seen AS SELECT id, body FROM shop;
    CREATE MATERIALIZED VIEW kept AS SELECT id, body FROM shop;
    CREATE TABLE parts (id bytea NOT NULL, body bytea, day date NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE part PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');
    INSERT INTO parts SELECT id, body, '2026-01-01' FROM shop;
    CREATE UNLOGGED TABLE fast AS SELECT id, body FROM shop;
    ALTER TABLE fast ADD PRIMARY KEY (id);
    CREATE VIEW doubled AS SELECT id, body FROM shop UNION ALL SELECT id, body FROM shop;
    CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader";

const WRITTEN: &str = "SELECT txid_snapshot_xmax(txid_current_snapshot()), (SELECT string_agg(concat(relname, xmin, relacl), ',' ORDER BY relname) FROM pg_class), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')";

async fn only_reads(store: &Postgres) {
    let guarantees = store.profile().guarantees;
    assert!(!guarantees.writable && !guarantees.ingest);
    let refused = [
        store.put("k", "v").await.unwrap_err(),
        store.write_group(vec![Batch::new().delete("000")]).await.remove(0).unwrap_err(),
        store.compact().await.unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
        assert!(error.message().contains("`read_only: true`"), "{error}");
    }
    assert_eq!(store.get(b"007").await.unwrap(), Some("v".into()));
    let found = store.get_many(&["no".into(), "099".into()]).await.unwrap();
    assert_eq!(found, [None, Some("v".into())]);
    let names = |found: Vec<tierstack::Entry>| -> Vec<_> {
        found.into_iter().map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()).collect()
    };
    let want: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
    assert_eq!(names(store.collect(Scan::all().page_entries(30)).await.unwrap()), want);
    let few = store.collect(Scan::prefix("09").reverse().keys_only()).await.unwrap();
    assert_eq!(names(few), want.iter().rev().take(10).cloned().collect::<Vec<_>>());
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.get(b"000").await.unwrap(), Some("v".into()));
    assert_eq!(store.count(b"").await.unwrap(), Some(100));
    store.usage().await.unwrap();
    store.flush().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_select_alone_reads_and_writes_nothing() {
    let Some(server) = Server::options().set("autovacuum", "off").start().await else { return };
    server.sql(SHOP).await;
    let url = server.url().replace("postgres://postgres@", "postgres://reader@");
    let before = server.sql(WRITTEN).await;
    for (table, refusal) in [
        ("shop", "or set `read_only: true`"),
        ("seen", "is not a table but a view; set `read_only: true`"),
        ("kept", "is not a table but a materialised view; set `read_only: true`"),
        ("parts", "or set `read_only: true`"),
        ("fast", "unlogged"),
    ] {
        let config = reading(url.clone(), table);
        only_reads(&open(&config).await).await;
        let fast = PostgresConfig { durability: Durability::ProcessCrash, ..config.clone() };
        only_reads(&open(&fast).await).await;
        let error = refused(PostgresConfig { read_only: false, ..config.clone() }).await;
        assert!(error.message().contains(refusal), "{table}: {error}");
        if ["seen", "kept"].contains(&table) {
            let error = refused(PostgresConfig { change_feed: true, ..config }).await;
            assert!(error.message().contains("leave `change_feed` out"), "{error}");
        }
    }
    let error = refused(reading(url.clone(), "missing")).await;
    assert!(error.message().contains("there is no table"), "{error}");

    let doubled = open(&reading(url, "doubled")).await;
    for error in [
        doubled.get(b"007").await.unwrap_err(),
        doubled.get_many(&["007".into()]).await.unwrap_err(),
        doubled.collect(Scan::all()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error:?}");
        assert!(error.message().contains("two rows have the same key"), "{error}");
    }
    assert_eq!(server.sql(WRITTEN).await, before);
    let admin = PostgresConfig { read_only: false, ..reading(server.url(), "kept") };
    assert!(refused(admin).await.message().contains("materialised"));
    server.sql("INSERT INTO shop VALUES ('x', 'y', 'z')").await;
    assert_ne!(server.sql(WRITTEN).await, before, "the comparison sees a write");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_read_where_that_was_asked_for() {
    let Some(primary) = Server::start().await else { return };
    primary.sql(SHOP).await;
    let Some(standby) = Server::options().standby_of(&primary).start().await else { return };
    let config = reading(standby.url(), "shop");
    assert_eq!(config.profile().unwrap().guarantees.freshness, Freshness::Unbounded);
    only_reads(&open(&config).await).await;
    for other in [
        PostgresConfig { read_only: false, ..config.clone() },
        PostgresConfig { change_feed: true, ..config.clone() },
    ] {
        let error = refused(other).await;
        assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
        assert!(error.message().contains("`read_only: true`"), "{error}");
    }
    // Of several hosts any will do.
    let two = format!("postgres://postgres@{},{}/postgres", standby.addr(), primary.addr());
    only_reads(&open(&reading(two, "shop")).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_only_reads_hears_what_others_write() {
    let Some(server) = Server::start().await else { return };
    let owner = PostgresConfig { change_feed: true, ..PostgresConfig::new(server.url()) };
    let owner = open(&owner).await;
    server.sql("CREATE ROLE reader LOGIN; GRANT SELECT ON tierstack TO reader").await;
    let url = server.url().replace("postgres://postgres@", "postgres://reader@");
    let config = PostgresConfig { change_feed: true, read_only: true, ..PostgresConfig::new(url) };
    assert_eq!(config.profile().unwrap().guarantees.freshness, Freshness::Immediate);
    let store = open(&config).await;
    let mut changes = store.changes().await.unwrap();
    assert_eq!(next(&mut changes).await, Change::All);
    owner.put("k", "v").await.unwrap();
    assert_eq!(next(&mut changes).await, keys(&["k"]));
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let config = PostgresConfig {
        read_only: true,
        sweep: Some(true),
        ..PostgresConfig::new("postgres://app@localhost/x")
    };
    let error = config.profile().unwrap_err();
    assert!(error.message().contains("`sweep: true` removes rows"), "{error}");
}
