//! The PostgreSQL backend beside its client library called directly, in the same run.
//!
//! `TIERSTACK_TEST_POSTGRES=postgres://... cargo bench --features full --bench postgres`; `scripts/test-servers
//! run` sets the variable. Prints medians in microseconds and their ratio; how late an announcement comes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::{Batch, Change, Op, Read, ReadExt, Scan, Store, StoreExt};
use tokio_postgres::{Client, NoTls};

const ENTRIES: usize = 10_000;
const ROUNDS: usize = 3000;

fn main() {
    let Ok(url) = std::env::var("TIERSTACK_TEST_POSTGRES") else {
        println!("TIERSTACK_TEST_POSTGRES is not set; nothing to measure");
        return;
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run(&url));
}

fn key(number: usize) -> Bytes {
    format!("key-{:06}", number % ENTRIES).into()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// Both in turn, so that whatever else the machine does happens to both.
async fn beside(what: &str, direct: impl AsyncFn(usize), ours: impl AsyncFn(usize), rounds: usize) {
    let (mut theirs, mut mine) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let begun = Instant::now();
        direct(round * 7919).await;
        theirs.push(begun.elapsed());
        let begun = Instant::now();
        ours(round * 7919).await;
        mine.push(begun.elapsed());
    }
    let (theirs, mine) = (median(theirs), median(mine));
    println!(
        "{what:<24} direct {theirs:8.1} µs   tierstack {mine:8.1} µs   ratio {:.2}",
        mine / theirs
    );
}

async fn run(url: &str) {
    let table = format!("bench_{}", std::process::id());
    let config = PostgresConfig { table: table.clone(), ..PostgresConfig::new(url) };
    let store = Postgres::open(config.clone()).await.unwrap();
    let puts = (0..ENTRIES).map(|n| Op::Put(key(n), vec![7; 200].into()));
    store.write(puts.collect()).await.unwrap();
    let client = connect(url).await;
    client.batch_execute(&format!("VACUUM ANALYZE {table}")).await.unwrap();

    let get = client.prepare(&format!("SELECT value FROM {table} WHERE key = $1")).await.unwrap();
    let direct = async |n: usize| {
        let found = client.query_opt(&get, &[&key(n).as_ref()]).await.unwrap();
        assert_eq!(found.unwrap().get::<_, &[u8]>(0).len(), 200);
    };
    let ours = async |n: usize| assert!(store.get(&key(n)).await.unwrap().is_some());
    beside("get", direct, ours, ROUNDS).await;

    let many = client
        .prepare(&format!("SELECT key, value FROM {table} WHERE key = ANY($1)"))
        .await
        .unwrap();
    let keys = |n: usize| (0..100).map(|at| key(n + at * 31)).collect::<Vec<_>>();
    let direct = async |n: usize| {
        let keys = keys(n);
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        assert_eq!(client.query(&many, &[&keys]).await.unwrap().len(), 100);
    };
    let ours = async |n: usize| drop(store.get_many(&keys(n)).await.unwrap());
    beside("get_many of 100", direct, ours, ROUNDS / 5).await;

    let upsert = format!(
        "INSERT INTO {table} (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated = now()"
    );
    let put = client.prepare(&upsert).await.unwrap();
    let value = vec![8; 200];
    let direct = async |n: usize| {
        client.execute(&put, &[&key(n).as_ref(), &value]).await.unwrap();
    };
    let ours = async |n: usize| drop(store.put(key(n + 1), value.clone()).await.unwrap());
    beside("write of one", direct, ours, ROUNDS / 3).await;

    let upsert = format!(
        "INSERT INTO {table} (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated = now()"
    );
    let put = client.prepare(&upsert).await.unwrap();
    let direct = async |n: usize| {
        let keys = keys(n);
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        client.execute(&put, &[&keys, &vec![&value; 100]]).await.unwrap();
    };
    let ours = async |n: usize| {
        let puts = keys(n).into_iter().map(|key| Op::Put(key, value.clone().into()));
        store.write(puts.collect::<Batch>()).await.map(drop).unwrap();
    };
    beside("write of 100", direct, ours, ROUNDS / 10).await;

    let begun = Instant::now();
    let found = store.collect(Scan::all()).await.unwrap().len();
    println!("scan: {:.0} entries a second", found as f64 / begun.elapsed().as_secs_f64());
    client.batch_execute(&format!("DROP TABLE {table}")).await.unwrap();
    lateness(url, PostgresConfig { announce: true, ..config }).await;
    client.batch_execute(&format!("DROP TABLE {table}")).await.unwrap();
}

/// From the acknowledgement of a foreign write to its announcement.
async fn lateness(url: &str, config: PostgresConfig) {
    let store = Postgres::open(config.clone()).await.unwrap();
    let mut changes = store.changes().await.unwrap();
    let client = connect(url).await;
    let table = &config.table;
    let upsert = format!(
        "INSERT INTO {table} (key, value) VALUES ($1, '') ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    );
    let put = client.prepare(&upsert).await.unwrap();
    assert_eq!(changes.next().await, Some(Change::All));
    let (mut late, mut writes) = (Vec::new(), Vec::new());
    for n in 0..ROUNDS / 3 {
        let begun = Instant::now();
        client.execute(&put, &[&key(n).as_ref()]).await.unwrap();
        let acknowledged = Instant::now();
        writes.push(acknowledged - begun);
        assert_eq!(changes.next().await, Some(Change::Keys(vec![key(n)])));
        late.push(acknowledged.elapsed());
    }
    late.sort();
    println!(
        "announced after the acknowledgement: p50 {:?}, p99 {:?}, at most {:?}; the write takes {:.1} µs",
        late[late.len() / 2],
        late[late.len() * 99 / 100],
        late[late.len() - 1],
        median(writes),
    );
}
