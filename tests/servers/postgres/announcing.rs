//! Writes of others are reported.

use std::time::Duration;

use futures_util::StreamExt;
use tierstack::backends::PostgresConfig;
use tierstack::layers::cache::{CacheConfig, CacheLayer};
use tierstack::{
    Batch, Change, Changes, Context, ErrorKind, Layer, Read, Reply, Scope, Store, StoreExt,
};
use tokio::time::timeout;

use super::{Dropped, config, connect, open};
use crate::support;

/// The next change. Generous: what is late is measured elsewhere.
pub(super) async fn next(changes: &mut Changes) -> Change {
    timeout(Duration::from_secs(30), changes.next()).await.expect("a change").expect("a stream")
}

/// The keys that are reported next, in lots as they come, until there are that many.
pub(super) async fn keys_of(changes: &mut Changes, count: usize) -> Vec<bytes::Bytes> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(changes).await {
            Change::Keys(keys) => all.extend(keys),
            other => panic!("{other:?} instead of keys"),
        }
    }
    all.sort();
    all
}

/// Many were changed: after the keys of the first, it is reported that all may have been.
pub(super) async fn everything(changes: &mut Changes) {
    while let Change::Keys(_) = next(changes).await {}
}

pub(super) fn keys(keys: &[&'static str]) -> Change {
    Change::Keys(keys.iter().map(|key| (*key).into()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_stores_that_share_a_table_each_hears_of_its_own_keys() {
    let Some(config) = config() else { return };
    let _dropped = Dropped::after(&config);
    let (url, table) = (support::var("TIERSTACK_TEST_POSTGRES").unwrap(), &config.table);
    let backend = format!(
        "postgres: {{ url: '{url}', table: {table}, change_feed: true, timeout: 100s, connect_timeout: 100s }}"
    );
    let client = connect(&url).await;
    let upsert = format!(
        "INSERT INTO \"{table}\" (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    );
    support::sharing::each_hears_of_its_own(&backend, async |key, value| {
        client.execute(&upsert, &[&key.as_bytes(), &value.as_bytes()]).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_another_store_and_not_of_ones_own() {
    let Some(config) = config() else { return };
    let config = PostgresConfig { change_feed: true, ..config };
    let _dropped = Dropped::after(&config);
    let (store, other) = (open(&config).await, open(&config).await);
    let mut changes = store.changes().await.unwrap();
    assert_eq!(next(&mut changes).await, Change::All, "it begins");
    store.put("mine", "1").await.unwrap();
    other.put("k", "1").await.unwrap();
    assert_eq!(next(&mut changes).await, keys(&["k"]));
    other.put("k", "2").await.unwrap();
    assert_eq!(next(&mut changes).await, keys(&["k"]));
    other.delete("k").await.unwrap();
    assert_eq!(next(&mut changes).await, keys(&["k"]));
    other.write(Batch::new().put("b", "1").delete("mine").put("a", "1")).await.unwrap();
    assert_eq!(keys_of(&mut changes, 3).await, ["a", "b", "mine"]);
    store.close().await.unwrap();
    assert!(changes.next().await.is_none(), "it ends when the store is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_who_writes_sql() {
    let Some(config) = config() else { return };
    let config = PostgresConfig { change_feed: true, ..config };
    let dropped = Dropped::after(&config);
    let store = open(&config).await;
    store.put("k", "v").await.unwrap();
    let mut changes = store.changes().await.unwrap();
    assert_eq!(next(&mut changes).await, Change::All);
    let (sql, table) = (connect(&dropped.url).await, &dropped.table);
    let run = async |text: &str| sql.batch_execute(&text.replace('@', table)).await.unwrap();
    run("UPDATE @ SET value = 'w' WHERE key = 'k'").await;
    assert_eq!(next(&mut changes).await, keys(&["k"]));
    run("UPDATE @ SET key = 'l' WHERE key = 'k'").await;
    assert_eq!(keys_of(&mut changes, 2).await, ["k", "l"], "the old key and the new one");
    run("DELETE FROM @ WHERE key = 'no such key'; DELETE FROM @ WHERE key = 'l'").await;
    assert_eq!(next(&mut changes).await, keys(&["l"]));

    run("INSERT INTO @ SELECT decode(lpad(n::text, 80, '0'), 'hex'), '' FROM generate_series(1, 500) n").await;
    let announced = keys_of(&mut changes, 500).await;
    assert!(announced.len() == 500 && announced.iter().all(|key| key.len() == 40));
    run("DELETE FROM @").await;
    assert_eq!(keys_of(&mut changes, 500).await, announced);
    run("INSERT INTO @ SELECT n::text::bytea, '' FROM generate_series(1, 1001) n").await;
    everything(&mut changes).await;
    run("INSERT INTO @ SELECT decode(repeat('00', 9000), 'hex'), ''").await;
    assert_eq!(next(&mut changes).await, Change::All, "too long to name");
    run("TRUNCATE @").await;
    assert_eq!(next(&mut changes).await, Change::All);
    run(
        "BEGIN; INSERT INTO @ VALUES ('rolled back', ''); ROLLBACK; INSERT INTO @ VALUES ('k', '')",
    )
    .await;
    assert_eq!(next(&mut changes).await, keys(&["k"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn to_all_who_subscribe_and_to_those_who_come_after_the_last_left() {
    let Some(config) = config() else { return };
    let config = PostgresConfig { change_feed: true, ..config };
    let _dropped = Dropped::after(&config);
    let (store, other) = (open(&config).await, open(&config).await);
    let mut first = store.changes().await.unwrap();
    let mut second = store.changes().await.unwrap();
    assert_eq!(next(&mut first).await, Change::All);
    other.put("k", "v").await.unwrap();
    assert_eq!(next(&mut first).await, keys(&["k"]));
    while next(&mut second).await != keys(&["k"]) {}
    drop(first);
    other.put("l", "v").await.unwrap();
    assert_eq!(next(&mut second).await, keys(&["l"]));
    drop(second);
    // As the listening task ends, and after it has.
    for pause in [0, 300] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let mut third = store.changes().await.unwrap();
        other.put("m", "v").await.unwrap();
        while next(&mut third).await != keys(&["m"]) {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_where_it_is_asked_for() {
    let Some(config) = config() else { return };
    let _dropped = Dropped::after(&config);
    let store = open(&config).await;
    let refused = store.changes().await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.message().contains("`change_feed: true`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_reaches_the_caches_of_every_process() {
    let Some(config) = config() else { return };
    let config = PostgresConfig { change_feed: true, ..config };
    let _dropped = Dropped::after(&config);
    let (store, other) = (open(&config).await, open(&config).await);
    let mut changes = [store.changes().await.unwrap(), other.changes().await.unwrap()];
    for changes in &mut changes {
        assert_eq!(next(changes).await, Change::All);
    }
    for (scope, change) in [
        (Scope::Keys(vec!["a".into(), "b".into()]), keys(&["a", "b"])),
        (Scope::Prefix("user:".into()), Change::Prefix("user:".into())),
        (Scope::All, Change::All),
    ] {
        store.invalidate(scope).await.unwrap();
        for changes in &mut changes {
            assert_eq!(next(changes).await, change);
        }
    }

    // Through caches, of which the other one keeps what nobody reports.
    let cached = async |store: tierstack::backends::Postgres| {
        let layer = CacheLayer::new(&CacheConfig::default(), &Context::default()).unwrap();
        let cache = layer.layer(store);
        while !matches!(cache.get(b"user:1"), Reply::Now(_)) {
            cache.get(b"user:1").await.unwrap();
            tokio::task::yield_now().await;
        }
        cache
    };
    store.put("user:1", "1").await.unwrap();
    let (here, there) = (cached(store).await, cached(other).await);
    here.invalidate(Scope::Prefix("user:".into())).await.unwrap();
    let gone = async {
        while matches!(there.get(b"user:1"), Reply::Now(_)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), gone).await.expect("the other cache has dropped it");
    assert_eq!(there.get(b"user:1").await.unwrap(), Some("1".into()));
    here.close().await.unwrap();
    there.close().await.unwrap();
}
