//! `tierstack adopt` over servers: its output opens, and they are as they were.

#![cfg(all(
    feature = "cli",
    feature = "cloud",
    feature = "object",
    feature = "postgres",
    feature = "redis",
    feature = "testing"
))]

use std::path::Path;
use std::process::Command;

use tierstack::backends::Object;
use tierstack::{Context, StoreExt};

use crate::support::{self, Postgres, Redis};

/// What the command prints.
#[track_caller]
fn run(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tierstack"));
    if let Some(server) = support::var("TIERSTACK_TEST_S3") {
        command.env("AWS_ENDPOINT", server).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_REGION", "us-east-1").env("AWS_ACCESS_KEY_ID", "test");
        command.env("AWS_SECRET_ACCESS_KEY", "test");
    }
    let ran = command.args(args).env_remove("RUST_LOG").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, error) = (text(ran.stdout), text(ran.stderr));
    assert!(ran.status.success(), "{args:?}: {out}{error}");
    out
}

/// Adopts it, and makes the output a config.
async fn adopt(target: &str, folder: &Path) -> (String, String) {
    let config = folder.join("tierstack.yaml").to_str().unwrap().to_owned();
    let target = target.to_owned();
    let out = tokio::task::spawn_blocking(move || run(&["adopt", &target])).await.unwrap();
    std::fs::write(&config, &out).unwrap();
    run(&["check", "--config", &config]);
    (out, config)
}

async fn scan(config: &str, store: &str) -> String {
    let args = ["scan", "--config", config, "--store", store].map(str::to_owned);
    let scan = move || run(&args.each_ref().map(String::as_str));
    tokio::task::spawn_blocking(scan).await.unwrap()
}

const TABLES: &str = "
    CREATE TABLE blobs (id bytea PRIMARY KEY, body bytea);
    INSERT INTO blobs VALUES ('k', 'v');
    CREATE TABLE notes (id text COLLATE \"C\" PRIMARY KEY, note text, expires_at timestamptz);
    INSERT INTO notes VALUES ('n', 'hello', NULL);
    CREATE TABLE numbered (id bigint PRIMARY KEY, data jsonb NOT NULL, owner text NOT NULL);
    INSERT INTO numbered VALUES (7, '{}', 'me');
    CREATE VIEW seen AS SELECT id, body FROM blobs;
    CREATE TABLE heap (a int, b int);
    CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader";

const WRITTEN: &str = "SELECT txid_snapshot_xmax(txid_current_snapshot()), (SELECT string_agg(concat(relname, xmin, relacl), ',' ORDER BY relname) FROM pg_class)";

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_postgres_become_stores() {
    let Some(server) = Postgres::options().set("autovacuum", "off").start().await else { return };
    server.sql(TABLES).await;
    let folder = tempfile::tempdir().unwrap();
    let before = server.sql(WRITTEN).await;
    let (out, config) = adopt(&server.url(), folder.path()).await;
    for text in [
        "# - PostgreSQL ",
        "the database postgres as the role postgres sees it",
        "# - heap (table",
        "it has no primary key",
        "table: \"public.blobs\"\n",
        "expires: \"expires_at\" }",
        "read_only: true  # it is a view",
        "read_only: true  # it does not open to be written as it is",
    ] {
        assert!(out.contains(text), "{text}: {out}");
    }
    assert_eq!(scan(&config, "blobs").await, "{\"key\":\"k\",\"value\":\"v\"}\n");
    assert_eq!(scan(&config, "seen").await, "{\"key\":\"k\",\"value\":\"v\"}\n");
    assert_eq!(scan(&config, "notes").await, "{\"key\":\"n\",\"value\":\"hello\"}\n");
    assert!(scan(&config, "numbered").await.contains("\"value\":\"{}\""));
    let reader = server.url().replace("postgres://postgres@", "postgres://reader@");
    let (out, config) = adopt(&reader, folder.path()).await;
    assert!(out.contains("read_only: true  # reader may not write it"), "{out}");
    assert_eq!(scan(&config, "blobs").await, "{\"key\":\"k\",\"value\":\"v\"}\n");
    assert_eq!(server.sql(WRITTEN).await, before, "something was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_redis_becomes_a_store() {
    let Some(server) = Redis::start(&[]).await else { return };
    server.cli_lines("set a 1\nset b 2\nrpush list x\nhset hash f v\n").await;
    server.cli(&["script", "flush"]).await;
    let folder = tempfile::tempdir().unwrap();
    let (out, config) = adopt(&server.url(), folder.path()).await;
    for text in [
        "  db0:\n    # database, 4 keys, of those looked at: 1 hash, 1 list, 2 string\n",
        "scan: sorted  # scans without an index",
        "foreign: skip  # keys of other types",
    ] {
        assert!(out.contains(text), "{text}: {out}");
    }
    assert_eq!(server.cli(&["dbsize"]).await, "4");
    let scripts = server.cli(&["info", "memory"]).await;
    assert!(scripts.contains("number_of_cached_scripts:0"), "{scripts}");
    assert_eq!(
        scan(&config, "db0").await,
        "{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\",\"value\":\"2\"}\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_becomes_a_store() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let bucket = crate::object::s3(&server);
    let store = Object::open(&bucket, &Context::default()).await.unwrap();
    store.put("users/1", "Ada").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (out, config) = adopt(&bucket.url, folder.path()).await;
    assert!(out.contains("  path:\n    # bucket\n    backend:\n      object:\n"), "{out}");
    assert_eq!(scan(&config, "path").await, "{\"key\":\"users/1\",\"value\":\"Ada\"}\n");
}
