//! Several stores on one table, as several processes have them.

use std::sync::Arc;

use bytes::Bytes;
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::config::{Config, Format, Registry};
use tierstack::{
    Batch, Change, ErrorKind, OpenOptions, Read, ReadExt, Scan, Stack, Stacks, Store, StoreExt,
};
use tokio::task::JoinSet;

use super::{Dropped, config, connect, fresh_table, open};
use crate::support::processes;

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_made_once_by_eight_at_once() {
    let Some(config) = config() else { return };
    let config = PostgresConfig { change_feed: true, pool: 1, ..config };
    let _dropped = Dropped::after(&config);
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let config = config.clone();
        tasks.spawn(async move {
            let store = open(&config).await;
            store.put(task.to_string(), "v").await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(open(&config).await.collect(Scan::all()).await.unwrap().len(), 8);
}

/// Batches put and delete the same keys, in different orders. Whatever is seen is of one batch.
#[tokio::test(flavor = "multi_thread")]
async fn no_batch_is_torn() {
    let Some(config) = config() else { return };
    let _dropped = Dropped::after(&config);
    let stores = [Arc::new(open(&config).await), Arc::new(open(&config).await)];
    let keys: Vec<Bytes> = (0..6).map(|n| Bytes::from(format!("k{n}"))).collect();
    let mut tasks = JoinSet::new();
    for task in 0..6usize {
        let (store, keys) = (Arc::clone(&stores[task % 2]), keys.clone());
        tasks.spawn(async move {
            for n in 0..40usize {
                let mut batch = Batch::new();
                for at in 0..keys.len() {
                    let key = keys[(at * if task < 3 { 1 } else { 5 } + n) % keys.len()].clone();
                    // All of them, none of them, or every other one.
                    let there = match (task + n) % 3 {
                        0 => true,
                        1 => false,
                        _ => key[1] % 2 == 0,
                    };
                    let value = format!("{task}.{n}");
                    batch = if there { batch.put(key, value) } else { batch.delete(key) };
                }
                store.write(batch).await.unwrap();
            }
        });
    }
    let looking = async |store: &Postgres| {
        let found = store.snapshot().await.unwrap().get_many(&keys).await.unwrap();
        let there: Vec<bool> = found.iter().map(Option::is_some).collect();
        let values: std::collections::BTreeSet<_> =
            found.iter().flatten().map(|value| value.bytes.clone()).collect();
        assert!(values.len() <= 1, "of several batches: {found:?}");
        let whole = [[true; 6], [false; 6], [true, false, true, false, true, false]];
        assert!(whole.iter().any(|whole| whole[..] == there[..]), "torn: {there:?}");
    };
    while !tasks.is_empty() {
        looking(&stores[0]).await;
        while let Some(done) = tasks.try_join_next() {
            done.unwrap();
        }
    }
    looking(&stores[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_wins_where_the_keys_are_absent() {
    let Some(config) = config() else { return };
    let _dropped = Dropped::after(&config);
    let stores = [Arc::new(open(&config).await), Arc::new(open(&config).await)];
    for round in 0..10 {
        let mut tasks = JoinSet::new();
        for task in 0..6usize {
            let store = Arc::clone(&stores[task % 2]);
            tasks.spawn(async move {
                let (own, shared) = (format!("{round}-{task}"), format!("{round}-shared"));
                let batch = Batch::new().put(shared, task.to_string()).if_absent();
                let batch = if round % 2 == 0 { batch } else { batch.put(own, "v") };
                match store.write(batch).await {
                    Ok(_) => Some(task),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
                        None
                    }
                }
            });
        }
        let winners: Vec<usize> = tasks.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "round {round}");
        let shared = stores[0].get(format!("{round}-shared").as_bytes()).await.unwrap();
        assert_eq!(shared, Some(winners[0].to_string().into()));
        let found = stores[1].collect(Scan::prefix(format!("{round}-"))).await.unwrap();
        assert_eq!(found.len(), 1 + round % 2, "the losers wrote nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_absent() {
    let Some(config) = config() else { return };
    let _dropped = Dropped::after(&config);
    let store = open(&config).await;
    let past = tierstack::Timestamp::from_millis(1);
    for many in [false, true] {
        store.put("k", tierstack::Value::new("old").expiring_at(past)).await.unwrap();
        let batch = Batch::new().put("k", "new").if_absent();
        let batch = if many { batch.put("l", "new") } else { batch };
        store.write(batch.clone()).await.unwrap();
        assert_eq!(store.get(b"k").await.unwrap(), Some("new".into()));
        let error = store.write(batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    // What is put and deleted by one batch must have been absent as well.
    let batch = Batch::new().put("k", "1").delete("k").put("m", "1").if_absent();
    assert_eq!(store.write(batch).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.get(b"m").await.unwrap(), None);
    let batch = Batch::new().put("n", "1").delete("n").put("m", "1").delete("k").if_absent();
    store.write(batch).await.unwrap();
    let found = store.collect(Scan::all()).await.unwrap();
    let keys: Vec<_> = found.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, ["l", "m"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_finds_its_rows_by_the_index() {
    let Some(config) = config() else { return };
    let dropped = Dropped::after(&config);
    let store = open(&config).await;
    for lot in 0..5 {
        let puts = (0..2000)
            .map(|n| tierstack::Op::Put(format!("{lot}-{n:05}").into(), vec![7; 300].into()));
        store.write(puts.collect()).await.unwrap();
    }
    let sql = connect(&dropped.url).await;
    let table = &dropped.table;
    sql.batch_execute(&format!("ANALYZE {table}; SELECT pg_stat_force_next_flush()"))
        .await
        .unwrap();
    let scans = async || {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        let query = format!("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = '{table}'");
        sql.query_one(&query, &[]).await.unwrap().get::<_, i64>(0)
    };
    let before = scans().await;
    for round in 0..8 {
        let keys: Vec<Bytes> =
            (0..100).map(|n| format!("3-{:05}", n * 20 + round).into()).collect();
        assert_eq!(store.get_many(&keys).await.unwrap().iter().flatten().count(), 100);
        for scan in [Scan::all(), Scan::prefix("2"), Scan::range("1-00500"..)] {
            for scan in [scan.clone(), scan.reverse()] {
                assert!(
                    !store.collect(scan.limit(3000).page_entries(700)).await.unwrap().is_empty()
                );
            }
        }
        let batch = keys.iter().fold(Batch::new().delete("4-00000"), |batch, key| {
            batch.put(key.clone(), "v").delete("4-00001")
        });
        store.write(batch).await.unwrap();
        store.delete(keys[0].clone()).await.unwrap();
        store.put(keys[0].clone(), "w").await.unwrap();
    }
    drop(store);
    assert_eq!(scans().await, before, "the whole table was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_holds_what_it_may_of_large_values() {
    let Some(config) = config() else { return };
    let _dropped = Dropped::after(&config);
    let store = open(&config).await;
    for n in 0..12 {
        store.put(format!("{n:02}"), vec![n; 400_000]).await.unwrap();
    }
    let pages: Vec<_> =
        futures_util::TryStreamExt::try_collect(store.scan(Scan::all())).await.unwrap();
    let sizes: Vec<usize> = pages.iter().map(tierstack::Page::len).collect();
    assert_eq!(sizes, [3; 4], "each page ends after the entry with which it reaches 1 MiB");
    let keys = pages.iter().flat_map(|page| &page.entries).map(|entry| entry.value.bytes[0]);
    assert!(keys.eq(0..12));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_many_entries() {
    let Some(config) = config() else { return };
    let _dropped = Dropped::after(&config);
    let store = open(&config).await;
    // Larger than one statement takes, and with deletes among it.
    let mut batch = Batch::new().delete("none");
    for n in 0..20_000u32 {
        batch = batch.put(n.to_be_bytes().to_vec(), vec![1; 1000]);
    }
    batch = batch.put("large", vec![2; 40 << 20]);
    store.write(batch).await.unwrap();
    assert_eq!(store.get(b"large").await.unwrap().unwrap().bytes.len(), 40 << 20);
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 20_001);
    // Keys that do not compress, up to the limit.
    let mut state = 1u64;
    let key: Vec<u8> = (0..store.profile().guarantees.limits.key_bytes)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    store.put(key.clone(), "v").await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), Some("v".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_bounded_and_their_connections_end() {
    let Some(config) = config() else { return };
    let config = PostgresConfig { snapshots: 2, ..config };
    let _dropped = Dropped::after(&config);
    let store = open(&config).await;
    for _ in 0..5 {
        let (one, two) = (store.snapshot().await.unwrap(), store.snapshot().await.unwrap());
        let error = store.snapshot().await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Capacity);
        assert!(error.message().contains("`snapshots`"), "{error}");
        drop((one, two));
    }
}

/// A delete takes no lock on a row that is not there. Here another batch comes to be between the moments
/// at which the rows are locked and deleted; of it, one row would be deleted and the other not.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_deletes_sees_one_moment() {
    let Some(config) = config() else { return };
    let dropped = Dropped::after(&config);
    let store = Arc::new(open(&config).await);
    store.put("a", "0").await.unwrap();
    let (first, second) = (connect(&dropped.url).await, connect(&dropped.url).await);
    let table = &config.table;
    let slow = format!(
        "CREATE FUNCTION {table}_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN OLD; END $$;
         CREATE TRIGGER slow BEFORE DELETE ON {table} FOR EACH ROW WHEN (OLD.key = 'a') EXECUTE FUNCTION {table}_slow()"
    );
    first.batch_execute(&slow).await.unwrap();
    first
        .batch_execute(&format!(
            "BEGIN; UPDATE {table} SET value = '1' WHERE key = 'a'; INSERT INTO {table} VALUES ('b', '1')"
        ))
        .await
        .unwrap();
    let a_moment = || tokio::time::sleep(std::time::Duration::from_millis(300));
    let deleting = {
        let store = Arc::clone(&store);
        tokio::spawn(
            async move { store.write(Batch::new().delete("a").delete("b").delete("c")).await },
        )
    };
    a_moment().await;
    first.batch_execute("COMMIT").await.unwrap();
    a_moment().await;
    let both = format!(
        "INSERT INTO {table} VALUES ('b', '2'), ('c', '2') ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    );
    second.batch_execute(&both).await.unwrap();
    deleting.await.unwrap().unwrap();
    let left = store.collect(Scan::all()).await.unwrap().len();
    assert!(left == 0 || left == 2, "{left} entry is left of two");
    first.batch_execute(&format!("DROP FUNCTION {table}_slow() CASCADE")).await.unwrap();
}

/// In lots that are added, and in lots that replace.
#[tokio::test(flavor = "multi_thread")]
async fn runs_of_all_sorts() {
    let Some(config) = config() else { return };
    let config = PostgresConfig { change_feed: true, pool: 1, ..config };
    let dropped = Dropped::after(&config);
    let (store, other) = (open(&config).await, open(&config).await);
    let at = tierstack::Timestamp::from_millis(4_102_444_800_123);
    let value = |n: u32, round: u8| {
        let value = tierstack::Value::new(vec![round; (n % 300) as usize]);
        if n.is_multiple_of(3) { value.expiring_at(at) } else { value }
    };
    let run = |numbers: std::ops::Range<u32>, step: usize, round: u8| {
        let numbers: Vec<u32> = numbers.step_by(step).collect();
        let pages: Vec<_> = numbers
            .chunks(1000)
            .map(|page| {
                let entry = |n: &u32| tierstack::Entry {
                    key: n.to_be_bytes().to_vec().into(),
                    value: value(*n, round),
                };
                Ok(tierstack::Page { entries: page.iter().map(entry).collect() })
            })
            .collect();
        futures_util::StreamExt::boxed(futures_util::stream::iter(pages))
    };
    let mut changes = other.changes().await.unwrap();
    assert_eq!(store.ingest(run(0..40_000, 2, 1)).await.unwrap(), 20_000);
    // The last 10,000 are added, 5,000 replaced, and 15,000 put between the others.
    assert_eq!(store.ingest(run(20_000..50_000, 1, 2)).await.unwrap(), 30_000);
    let found = other.collect(Scan::all()).await.unwrap();
    assert_eq!(found.len(), 10_000 + 30_000);
    for entry in found {
        let n = u32::from_be_bytes(entry.key[..].try_into().unwrap());
        assert_eq!(entry.value, value(n, if n < 20_000 { 1 } else { 2 }), "{n}");
    }
    for _ in 0..2 {
        assert!(futures_util::StreamExt::next(&mut changes).await.is_some(), "it is reported");
    }
    let sql = connect(&dropped.url).await;
    let times = format!(
        "SELECT count(*) FROM {} WHERE created <= updated AND updated <= now()",
        dropped.table
    );
    assert_eq!(sql.query_one(&times, &[]).await.unwrap().get::<_, i64>(0), 40_000);

    // A table of another program, whose times are not filled by default.
    let config = PostgresConfig {
        table: super::fresh_table(),
        change_feed: false,
        columns: tierstack::backends::postgres::Columns { created: None, ..config.columns.clone() },
        ..config
    };
    let dropped = Dropped::after(&config);
    sql.batch_execute(&format!(
        "CREATE TABLE {} (key bytea PRIMARY KEY, value bytea, expires timestamptz, updated timestamptz NOT NULL)",
        dropped.table
    ))
    .await
    .unwrap();
    let store = open(&config).await;
    assert_eq!(store.ingest(run(0..10_000, 1, 1)).await.unwrap(), 10_000);
    let found = store.collect(Scan::all()).await.unwrap();
    assert!(found.iter().zip(0..).all(|(entry, n)| entry.value == value(n, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_lose_no_increment() {
    let at = |table: String| PostgresConfig { table, ..config().unwrap() };
    let mut dropped = None;
    let place = async || {
        let table = config().map(|_| fresh_table())?;
        dropped = Some(Dropped::after(&at(table.clone())));
        Some(table)
    };
    let open = async |table| Ok(Arc::new(open(&at(table)).await) as Arc<dyn Store>);
    let test = "postgres::sharing::two_processes_lose_no_increment";
    processes::no_increment_is_lost(test, 25, place, open).await;
}

/// Two tables over one pool, and two prefixes in one of them.
#[tokio::test(flavor = "multi_thread")]
async fn stores_of_one_config_share_the_connections() {
    let (Some(one), Some(two), Some(three)) = (config(), config(), config()) else { return };
    let _dropped = [&one, &two, &three].map(Dropped::after);
    let url = std::env::var("TIERSTACK_TEST_POSTGRES").unwrap();
    let name = format!("sharing_{}", one.table);
    let separator = if url.contains('?') { '&' } else { '?' };
    let text = format!(
        "
backends: {{ main: {{ postgres: {{ url: '{url}{separator}application_name={name}', pool: 2, timeout: 100s, connect_timeout: 100s }} }} }}
stores:
  orders: {{ backend: {{ shared: main, table: {} }} }}
  heard: {{ backend: {{ shared: main, table: {}, change_feed: true }} }}
  left: {{ backend: {{ shared: main, table: {}, prefix: l/ }} }}
  right: {{ layers: [ cache ], backend: {{ shared: main, table: {}, prefix: r/ }} }}
default: orders
",
        one.table, three.table, two.table, two.table
    );
    let config = Config::parse(&text, Format::Yaml, "tierstack.yaml").unwrap();
    let options = OpenOptions::service();
    let stacks = Stacks::open_all(&config, &Registry::standard(), &options).await.unwrap();
    // Ten at a time in each, through two connections.
    for name in ["orders", "left", "right"] {
        let puts = (0..10).map(|n| stacks[name].put(n.to_string(), name));
        for put in futures_util::future::join_all(puts).await {
            put.unwrap();
        }
    }
    for name in ["orders", "left", "right"] {
        assert_eq!(stacks[name].get(b"3").await.unwrap(), Some(name.into()));
        assert_eq!(stacks[name].collect(Scan::all()).await.unwrap().len(), 10);
    }
    let client = connect(&url).await;
    let connections = async || -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        client.query_one(sql, &[&name]).await.unwrap().get(0)
    };
    // Those that opened the tables end by and by. What stays is one pool of two, and that of the store that reports.
    stacks["heard"].put("own", "v").await.unwrap();
    while connections().await > 4 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    // The change feed of a store has its table alone, and what its table gets by way of another store.
    let mut changes = stacks["heard"].changes().await.unwrap();
    assert_eq!(futures_util::StreamExt::next(&mut changes).await, Some(Change::All));
    let passed_on = format!(
        "CREATE FUNCTION \"pass_{name}\"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO \"{}\" (key, value) VALUES (NEW.key, NEW.value); RETURN NEW; END $$;
         CREATE TRIGGER pass AFTER INSERT ON \"{}\" FOR EACH ROW WHEN (NEW.key = 'passed on')
           EXECUTE FUNCTION \"pass_{name}\"()",
        three.table, one.table
    );
    client.batch_execute(&passed_on).await.unwrap();
    stacks["orders"].put("of another", "v").await.unwrap();
    stacks["heard"].put("own again", "v").await.unwrap();
    stacks["orders"].put("passed on", "v").await.unwrap();
    match futures_util::StreamExt::next(&mut changes).await.unwrap() {
        Change::Keys(keys) => assert_eq!(keys[..], [Bytes::from("passed on")]),
        other => panic!("{other:?}"),
    }
    client.batch_execute(&format!("DROP FUNCTION \"pass_{name}\" CASCADE")).await.unwrap();
    stacks["heard"].close().await.unwrap();
    assert!(futures_util::StreamExt::next(&mut changes).await.is_none());
    stacks["orders"].close().await.unwrap();
    assert_eq!(stacks["orders"].get(b"3").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(stacks["left"].get(b"3").await.unwrap(), Some("left".into()));

    // The stores that were closed are still held, and the pool is made again.
    stacks.close_all().await.unwrap();
    let left = Stack::open(&config, Some("left"), &Registry::standard(), &options).await.unwrap();
    assert_eq!(left.get(b"3").await.unwrap(), Some("left".into()));
    left.close().await.unwrap();
    drop(stacks);
    while connections().await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
