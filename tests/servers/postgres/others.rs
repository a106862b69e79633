//! Tables of other programs: what they mean by a time, what keeps rows as they are, and names.

use tierstack::backends::postgres::{Columns, ExpiresUnit};
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::{
    BackendConfig, Batch, Context, Entry, Error, ErrorKind, Page, Read, ReadExt, Scan, Store,
    StoreExt,
};
use tierstack::{Timestamp, Value};
use tokio_postgres::Client;

use super::{Dropped, config, connect, fresh_table, open};
use crate::support::Postgres as Server;

async fn refused(config: &PostgresConfig) -> Error {
    let error = Postgres::open(config.clone()).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    error
}

fn with_expires(unit: ExpiresUnit) -> Columns {
    Columns { expires_unit: unit, created: None, updated: None, ..Columns::default() }
}

/// A table of 100 keys, with that as the time of each.
async fn table(sql: &Client, name: &str, kind: &str, time: &str) {
    sql.batch_execute(&format!(
        "CREATE TABLE {name} (key bytea PRIMARY KEY, value bytea NOT NULL, expires {kind});
         INSERT INTO {name} SELECT ('k' || n)::bytea, 'v', {time} FROM generate_series(1, 100) n"
    ))
    .await
    .unwrap();
}

const SECONDS: &str = "extract(epoch FROM now())::bigint + 3600";

#[tokio::test(flavor = "multi_thread")]
async fn times_that_do_not_look_like_their_unit_are_refused() {
    let Some(config) = config() else { return };
    use ExpiresUnit::{Milliseconds, Seconds};
    for (unit, kind, time, says) in [
        (Milliseconds, "bigint", SECONDS, "look like seconds, not milliseconds"),
        (Seconds, "bigint", "1700000000000", "look like milliseconds, not seconds"),
        (Milliseconds, "bigint", "0", "no time in milliseconds"),
        (Milliseconds, "bigint", "1700000000000000", "no time in milliseconds"),
        (Milliseconds, "integer", "1700000000", "`columns.expires_unit: seconds`"),
        (Seconds, "bigint", "253402300799", ""),
        (Seconds, "integer", SECONDS, ""),
        (Milliseconds, "bigint", "253402300799999", ""),
        (Milliseconds, "bigint", "9223372036854775807", ""),
        (Milliseconds, "bigint", "NULL", ""),
        (Milliseconds, "timestamptz", "now() + interval '1 hour'", ""),
        (Milliseconds, "timestamp", "now() AT TIME ZONE 'UTC' + interval '1 hour'", ""),
    ] {
        let columns = with_expires(unit);
        let config = PostgresConfig { columns, table: fresh_table(), ..config.clone() };
        let dropped = Dropped::after(&config);
        let sql = connect(&dropped.url).await;
        table(&sql, &dropped.table, kind, time).await;
        if says.is_empty() {
            let store = open(&config).await;
            assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 100, "{kind} {time}");
            store.compact().await.unwrap();
            assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 100, "{kind} {time}");
        } else {
            let error = refused(&config).await;
            assert!(error.message().contains(says), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_of_every_type_of_column() {
    let Some(config) = config() else { return };
    let moments =
        [1, 1_700_000_000_001, 4_102_444_800_123, 253_402_300_799_999, 9_224_318_015_999_000];
    for (kind, unit) in [
        ("bigint", ExpiresUnit::Milliseconds),
        ("bigint", ExpiresUnit::Seconds),
        ("timestamptz", ExpiresUnit::Milliseconds),
        ("timestamp", ExpiresUnit::Milliseconds),
    ] {
        let columns = with_expires(unit);
        let config = PostgresConfig { columns, table: fresh_table(), ..config.clone() };
        let dropped = Dropped::after(&config);
        let sql = connect(&dropped.url).await;
        table(&sql, &dropped.table, kind, "NULL").await;
        let store = open(&config).await;
        for millis in moments {
            let at = Timestamp::from_millis(millis);
            store.put("k", Value::new("w").expiring_at(at)).await.unwrap();
            let whole =
                if unit == ExpiresUnit::Seconds { millis.div_ceil(1000) * 1000 } else { millis };
            let want = (millis > 2_000_000_000_000)
                .then(|| Value::new("w").expiring_at(Timestamp::from_millis(whole)));
            assert_eq!(store.get(b"k").await.unwrap(), want, "{kind} {unit:?} {millis}");
        }
        if kind.starts_with("timestamp") {
            for (time, there) in
                [("infinity", true), ("-infinity", false), ("0044-03-15 BC", false)]
            {
                let set =
                    format!("UPDATE {} SET expires = '{time}' WHERE key = 'k1'", dropped.table);
                sql.batch_execute(&set).await.unwrap();
                let want = there.then(|| Value::from("v"));
                assert_eq!(store.get(b"k1").await.unwrap(), want, "{time}");
            }
            // The last one that the column holds is read, and can be written back.
            let last = format!(
                "UPDATE {} SET expires = '294276-12-31 23:59:59.999' WHERE key = 'k1'",
                dropped.table
            );
            sql.batch_execute(&format!("SET timezone = 'UTC'; {last}")).await.unwrap();
            let read = store.get(b"k1").await.unwrap().unwrap();
            store.put("k2", read.clone()).await.unwrap();
            assert_eq!(store.get(b"k2").await.unwrap(), Some(read));
            let far = Value::new("v").expiring_at(Timestamp::from_millis(9_224_318_016_000_000));
            let refused = store.put("k2", far).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        }
    }
}

/// What is acknowledged was written, whatever the table does with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_trigger_or_a_rule_keeps_from_being_written_is_an_error() {
    let Some(config) = config() else { return };
    let dropped = Dropped::after(&config);
    let (store, sql, table) = (open(&config).await, connect(&dropped.url).await, &config.table);
    store.write(Batch::new().put("held", "old").put("a", "old")).await.unwrap();
    let function = format!(
        "CREATE FUNCTION {table}_skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF coalesce(NEW.key, OLD.key) = 'held' THEN RETURN NULL; END IF;
            RETURN coalesce(NEW, OLD); END $$;
         CREATE TRIGGER skip BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_skip()"
    );
    sql.batch_execute(&function).await.unwrap();
    let all = || Batch::new().put("held", "new").put("a", "new");
    for batch in [
        Batch::new().put("held", "new"),
        Batch::new().delete("held"),
        all(),
        all().delete("b"),
        Batch::new().put("a", "new").delete("held"),
    ] {
        let error = store.write(batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.message().contains("trigger"), "{error}");
        assert_eq!(store.get(b"held").await.unwrap(), Some("old".into()));
        assert_eq!(store.get(b"a").await.unwrap(), Some("old".into()), "the rest is undone");
    }
    store.delete("none").await.unwrap();
    store.delete("a").await.unwrap();
    sql.batch_execute(&format!("DELETE FROM {table}; ALTER TABLE {table} DISABLE TRIGGER skip; DELETE FROM {table}; ALTER TABLE {table} ENABLE TRIGGER skip"))
        .await
        .unwrap();
    let run = ["a", "held"].map(|key| Entry { key: key.into(), value: "v".into() });
    let run = futures_util::stream::iter([Ok(Page { entries: run.to_vec() })]);
    let error = store.ingest(futures_util::StreamExt::boxed(run)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");

    // One that writes something else.
    sql.batch_execute(&format!(
        "CREATE OR REPLACE FUNCTION {table}_skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.value = 'loud' THEN NEW.value := 'LOUD'; END IF; RETURN NEW; END $$"
    ))
    .await
    .unwrap();
    sql.batch_execute(&format!("TRUNCATE {table}")).await.unwrap();
    let store = open(&config).await;
    for batch in [
        Batch::new().put("b", "loud"),
        Batch::new().put("b", "loud").if_absent(),
        Batch::new().put("a", "soft").put("b", "loud"),
        Batch::new().put("a", "soft").put("b", "loud").delete("c"),
    ] {
        let error = store.write(batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert_eq!(store.get_many(&["a".into(), "b".into()]).await.unwrap(), [None, None]);
    }
    store.put("b", "soft").await.unwrap();
    store.write(Batch::new().put("b", "softer").put("a", "soft")).await.unwrap();
    sql.batch_execute(&format!(
        "DROP FUNCTION {table}_skip() CASCADE; DELETE FROM {table}; INSERT INTO {table} VALUES ('k', 'v');
         CREATE RULE keep AS ON DELETE TO {table} DO INSTEAD NOTHING"
    ))
    .await
    .unwrap();
    let (one, two) = (Batch::new().delete("k"), Batch::new().delete("k").delete("l"));
    for (batch, kind) in [(one, ErrorKind::Config), (two, ErrorKind::InvalidInput)] {
        let error = store.write(batch).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.message().contains("rule"), "{error}");
    }
    sql.batch_execute(&format!("CREATE RULE none AS ON INSERT TO {table} DO INSTEAD NOTHING"))
        .await
        .unwrap();
    let error = store.put("l", "v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.message().contains("rule"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_level_security_hides_no_half_of_a_snapshot() {
    let Some(server) = Server::start().await else { return };
    let store = open(&PostgresConfig::new(server.url())).await;
    for key in ["mine", "hidden"] {
        store.put(key, "v").await.unwrap();
    }
    server
        .sql(
            "CREATE ROLE app LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON tierstack TO app;
             ALTER TABLE tierstack ENABLE ROW LEVEL SECURITY;
             CREATE POLICY part ON tierstack USING (key <> 'hidden');
             CREATE POLICY kept ON tierstack AS RESTRICTIVE FOR DELETE USING (key <> 'mine')",
        )
        .await;
    let url = format!("postgres://app@{}/postgres", server.addr());
    let part = open(&PostgresConfig::new(url)).await;
    let error = part.snapshot().await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    assert!(error.message().contains("BYPASSRLS"), "{error}");
    let error = part.put("hidden", "w").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    let error = part.delete("mine").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    part.put("more", "v").await.unwrap();
    part.delete("more").await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().collect(Scan::all()).await.unwrap().len(), 2);
}

/// The server knows which columns a statement reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_of_keys_only_needs_no_right_to_the_values() {
    let Some(server) = Server::start().await else { return };
    let store = open(&PostgresConfig::new(server.url())).await;
    for key in ["a", "b", "c"] {
        store.put(key, "v".repeat(100_000)).await.unwrap();
    }
    server
        .sql("CREATE ROLE app LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON tierstack TO app")
        .await;
    let url = format!("postgres://app@{}/postgres", server.addr());
    let part = open(&PostgresConfig::new(url)).await;
    let all = Scan::all();
    assert_eq!(part.collect(all.clone()).await.unwrap().len(), 3);
    server
        .sql("REVOKE SELECT ON tierstack FROM app; GRANT SELECT (key, expires) ON tierstack TO app")
        .await;
    for scan in
        [all.clone(), all.clone().reverse().limit(2), Scan::range("b"..="c").page_entries(1)]
    {
        let error = part.collect(scan.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
        let keys = part.collect(scan.clone().keys_only()).await.unwrap();
        assert_eq!(keys, store.collect(scan.clone().keys_only()).await.unwrap());
        assert_eq!(keys.len(), store.collect(scan.clone()).await.unwrap().len());
        let frozen = part.snapshot().await.unwrap();
        assert_eq!(keys, frozen.collect(scan.keys_only()).await.unwrap());
    }
}

/// In lots of 10,000.
#[tokio::test(flavor = "multi_thread")]
async fn entries_are_counted_by_the_server() {
    let Some(server) = Server::start().await else { return };
    let store = open(&PostgresConfig::new(server.url())).await;
    server
        .sql("INSERT INTO tierstack (key, value) SELECT convert_to(lpad(i::text, 6, '0'), 'UTF8'), 'v' FROM generate_series(0, 24999) i")
        .await;
    store.put("gone", Value::new("v").expiring_at(Timestamp::from_millis(1))).await.unwrap();
    for (prefix, entries) in [("", 25_000), ("01", 10_000), ("02", 5000), ("024999", 1), ("x", 0)] {
        assert_eq!(store.count(prefix.as_bytes()).await.unwrap(), Some(entries), "{prefix}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_dots_and_quotes() {
    let Some(server) = Server::start().await else { return };
    server.sql("CREATE SCHEMA \"my.schema\"").await;
    for table in ["\"my.table\"", "public.\"a.\"\"b\"\".c\"", "\"my.schema\".\"my.table\""] {
        let config = PostgresConfig {
            table: table.into(),
            change_feed: true,
            ..PostgresConfig::new(server.url())
        };
        let store = open(&config).await;
        let _changes = store.changes().await.unwrap();
        store.write(Batch::new().put("k", table).delete("l")).await.unwrap();
        let found = server.sql(&format!("SELECT convert_from(value, 'utf8') FROM {table}")).await;
        assert_eq!(found, table);
        store.usage().await.unwrap();
        store.compact().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_reads_makes_nothing_and_names_what_is_there() {
    let Some(server) = Server::start().await else { return };
    let config = PostgresConfig { change_feed: true, ..PostgresConfig::new(server.url()) };
    let reading = Context { may_create: false, ..Context::default() };
    let error = config.open(&reading).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert_eq!(server.sql("SELECT to_regclass('tierstack') IS NULL").await, "t");
    open(&PostgresConfig { change_feed: false, ..config.clone() }).await;
    // Nor are triggers made.
    assert!(config.open(&reading).await.map(drop).unwrap_err().message().contains("triggers"));
    for table in ["tierstock", "Tierstack", "public.tierstac"] {
        let config = PostgresConfig { table: table.into(), ..config.clone() };
        let error = config.open(&reading).await.map(drop).unwrap_err();
        assert!(error.message().contains("did you mean \"tierstack\"?"), "{error}");
    }
    config.open(&Context::default()).await.unwrap();
    config.open(&reading).await.unwrap();
    server.sql("CREATE TABLE \"a.b\" (key bytea PRIMARY KEY, value bytea NOT NULL)").await;
    let dotted = PostgresConfig { table: "a.b".into(), create: false, ..config };
    let error = dotted.open(&Context::default()).await.map(drop).unwrap_err();
    assert!(error.message().contains("did you mean `\"a.b\"`, with the quotes?"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_is_that_of_the_table() {
    let Some(server) = Server::start().await else { return };
    let config = PostgresConfig::new(server.url());
    let identity = open(&config).await.identity().unwrap();
    let qualified = PostgresConfig { table: "public.tierstack".into(), ..config.clone() };
    assert_eq!(open(&qualified).await.identity().as_ref(), Some(&identity));
    let other = PostgresConfig { table: "other".into(), ..config.clone() };
    assert_ne!(open(&other).await.identity().as_ref(), Some(&identity));
    let elsewhere = PostgresConfig::new(server.fresh_url().await);
    assert_ne!(open(&elsewhere).await.identity().as_ref(), Some(&identity));
    server.sql("ALTER TABLE tierstack RENAME TO old; ALTER TABLE other RENAME TO tierstack").await;
    assert_ne!(open(&config).await.identity(), Some(identity), "another table has the name");
}
