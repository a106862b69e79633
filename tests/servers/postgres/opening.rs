//! Tables that are there already, and what cannot be opened: a clear error before anything is written.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use tempfile::tempdir;
use tierstack::backends::postgres::{Columns, ExpiresUnit, Tls};
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::units::Secret;
use tierstack::{
    Batch, Durability, Error, ErrorKind, Read, ReadExt, Scan, Store, StoreExt, Timestamp, Value,
};

use super::{Dropped, config, connect, fresh_table, open};
use crate::support::{self, Certificates, Postgres as Server};

async fn refused(config: &PostgresConfig) -> Error {
    let error = Postgres::open(config.clone()).await.map(drop).unwrap_err();
    assert_eq!(error.layer(), Some("postgres"), "{error:?}");
    error
}

/// Columns of another program's table.
fn columns(expires: Option<&str>) -> Columns {
    Columns {
        key: "Session id".into(),
        value: "body".into(),
        expires: expires.map(str::to_owned),
        expires_unit: ExpiresUnit::Milliseconds,
        created: None,
        updated: Some("changed".into()),
        constants: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_program_is_used_as_it_is() {
    let Some(config) = config() else { return };
    let columns = columns(Some("ends"));
    let config = PostgresConfig { columns, ..config };
    let dropped = Dropped::after(&config);
    let (sql, table) = (connect(&dropped.url).await, &config.table);
    sql.batch_execute(&format!(
        "CREATE TABLE {table} (id serial UNIQUE, \"Session id\" bytea PRIMARY KEY, body bytea, ends timestamptz, changed timestamp, note text NOT NULL DEFAULT 'x');
         INSERT INTO {table} (\"Session id\", body, ends, note) VALUES
            ('stays', 'one', NULL, 'mine'), ('ended', 'two', '2020-01-01', 'mine'),
            ('for ever', 'three', 'infinity', 'mine'), ('later', 'four', '2100-01-01 00:00:00.123Z', 'mine')"
    ))
    .await
    .unwrap();
    let store = open(&config).await;
    assert_eq!(store.get(b"stays").await.unwrap(), Some("one".into()));
    assert_eq!(store.get(b"for ever").await.unwrap(), Some("three".into()));
    assert_eq!(store.get(b"ended").await.unwrap(), None);
    let later = Timestamp::from_millis(4_102_444_800_123);
    let want = Value::new("four").expiring_at(later);
    assert_eq!(store.get(b"later").await.unwrap(), Some(want));
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 3);

    let value = Value::new("five").expiring_at(later);
    store.write(Batch::new().put("stays", value.clone()).put("new", value.clone())).await.unwrap();
    assert_eq!(store.get(b"new").await.unwrap(), Some(value.clone()));
    let query = format!(
        "SELECT note, ends = '2100-01-01 00:00:00.123Z', changed IS NOT NULL FROM {table} WHERE body = 'five' ORDER BY note"
    );
    let rows = sql.query(&query, &[]).await.unwrap();
    let rows: Vec<(String, bool, bool)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(rows, [("mine".into(), true, true), ("x".into(), true, true)]);
    let never = Value::new("v").expiring_at(Timestamp::from_millis(u64::MAX));
    assert_eq!(store.put("k", never).await.unwrap_err().kind(), ErrorKind::InvalidInput);

    let before = format!("SELECT count(*) FROM {table} WHERE \"Session id\" = 'ended'");
    assert_eq!(sql.query_one(&before, &[]).await.unwrap().get::<_, i64>(0), 1, "it was swept");
    store.compact().await.unwrap();
    assert_eq!(sql.query_one(&before, &[]).await.unwrap().get::<_, i64>(0), 1, "it was swept");
    let swept = open(&PostgresConfig { sweep: Some(true), ..config.clone() }).await;
    swept.compact().await.unwrap();
    assert_eq!(sql.query_one(&before, &[]).await.unwrap().get::<_, i64>(0), 0);
    let nulls = format!("UPDATE {table} SET body = NULL WHERE \"Session id\" = 'new'");
    sql.batch_execute(&nulls).await.unwrap();
    assert_eq!(store.get(b"new").await.unwrap_err().kind(), ErrorKind::Corruption);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_fit_is_refused_and_left_alone() {
    let Some(config) = config() else { return };
    let sql = connect(&Dropped::after(&config).url).await;
    let config = PostgresConfig { columns: columns(Some("ends")), ..config };
    let fits =
        "\"Session id\" bytea PRIMARY KEY, body bytea, ends timestamptz, changed timestamptz";
    for (table, says) in [
        (fits.replace("bytea PRIMARY", "text PRIMARY"), &["Session id", "text", "bytea"][..]),
        (fits.replace(", body bytea", ", body jsonb"), &["body", "jsonb", "columns.value"]),
        (fits.replace("PRIMARY KEY", "NOT NULL"), &["Session id", "unique index"]),
        (fits.replace("PRIMARY KEY", "UNIQUE"), &["Session id", "NOT NULL"]),
        (fits.replace(", ends timestamptz", ""), &["\"ends\"", "columns.expires"]),
        (fits.replace("ends timestamptz", "ends integer"), &["ends", "integer", "timestamptz"]),
        (format!("{fits}, more text NOT NULL"), &["\"more\"", "default"]),
        (format!("{fits}) PARTITION BY HASH (\"Session id\""), &[]),
    ] {
        let config = PostgresConfig { table: fresh_table(), ..config.clone() };
        let dropped = Dropped::after(&config);
        sql.batch_execute(&format!("CREATE TABLE {} ({table})", dropped.table)).await.unwrap();
        if says.is_empty() {
            open(&config).await;
            let announced = PostgresConfig { change_feed: true, ..config };
            assert!(refused(&announced).await.message().contains("partitioned"));
            continue;
        }
        let error = refused(&config).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        for word in says {
            assert!(error.message().contains(word), "{word}: {error}");
        }
    }
    let dropped = Dropped::after(&config);
    sql.batch_execute(&format!("CREATE UNLOGGED TABLE {} ({fits})", dropped.table)).await.unwrap();
    assert!(refused(&config).await.message().contains("unlogged"));
    let config = PostgresConfig { columns: Columns::default(), ..config };
    let view = format!("DROP TABLE {0}; CREATE VIEW {0} AS SELECT 1", dropped.table);
    sql.batch_execute(&view).await.unwrap();
    assert!(refused(&config).await.message().contains("is not a table"));
    sql.batch_execute(&format!("DROP VIEW {}", dropped.table)).await.unwrap();

    // Triggers are not made on a table of somebody else, but those that are printed fit.
    let columns = columns(None);
    let config = PostgresConfig { columns, change_feed: true, ..config };
    sql.batch_execute(&format!("CREATE TABLE {} ({fits})", dropped.table)).await.unwrap();
    let error = refused(&config).await;
    assert!(error.message().contains("tierstack schema postgres"), "{error}");
    let printed = config.schema().unwrap();
    let triggers = printed.split_once("\n\n").unwrap().1;
    sql.batch_execute(&format!("COMMENT ON TABLE {} IS 'of the shop'", dropped.table))
        .await
        .unwrap();
    sql.batch_execute(triggers).await.unwrap();
    let store = open(&config).await;
    let _changes = store.changes().await.unwrap();
    store.put("k", "v").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_the_table() {
    let Some(config) = config() else { return };
    let dropped = Dropped::after(&config);
    let (sql, table) = (connect(&dropped.url).await, &config.table);
    let missing = PostgresConfig { create: false, ..config.clone() };
    let error = refused(&missing).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("`create` is false"), "{error}");

    let fixture = include_str!("../../fixtures/postgres/v1.sql").replace("\"tierstack\"", table);
    sql.batch_execute(&fixture).await.unwrap();
    let store = open(&missing).await;
    let entries = store.collect(Scan::all()).await.unwrap();
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_ref()).collect();
    assert_eq!(keys, [&b"\x00\xff"[..], b"later", b"never", b"plain"]);
    assert_eq!(entries[0].value, Value::new(vec![0xfe, 0x00]));
    assert_eq!(entries[1].value.expires_at, Some(Timestamp::from_millis(4_102_444_800_123)));
    assert_eq!(entries[2].value.expires_at, Some(Timestamp::from_millis(u64::MAX)));
    assert_eq!(entries[3].value, "".into());
    assert_eq!(store.get(b"expired").await.unwrap(), None);

    let newer = format!("COMMENT ON TABLE {table} IS 'tierstack schema 2'");
    sql.batch_execute(&newer).await.unwrap();
    let error = refused(&config).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("version 2") && error.message().contains("newer"), "{error}");
}

/// What is printed is what is made.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_schema_is_taken_for_ones_own() {
    let Some(config) = config() else { return };
    let config = PostgresConfig { change_feed: true, ..config };
    let dropped = Dropped::after(&config);
    let sql = connect(&dropped.url).await;
    sql.batch_execute(&config.schema().unwrap()).await.unwrap();
    let config = PostgresConfig { create: false, ..config };
    let _changes = open(&config).await.changes().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_keep_what_is_guaranteed_is_refused() {
    let options = Server::options().set("fsync", "off").set("full_page_writes", "off");
    let Some(server) = options.start().await else { return };
    let mut config = PostgresConfig::new(server.url());
    let error = refused(&config).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.message().contains("`fsync`") && error.message().contains("process_crash"),
        "{error}"
    );
    config.durability = Durability::ProcessCrash;
    let store = open(&config).await;
    store.put("k", "v").await.unwrap();
    let batch = Batch::new().put("k", "v").durability(Durability::PowerCut);
    assert_eq!(store.write(batch).await.unwrap_err().kind(), ErrorKind::Unsupported);
    config.durability = Durability::MachineLoss;
    assert!(refused(&config).await.message().contains("fsync"));
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_rights_and_names() {
    let Some(server) = Server::options().password("hunter2").start().await else { return };
    server.sql("CREATE ROLE app LOGIN PASSWORD 'hunter3'").await;
    let folder = tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(Secret::File(path))
    };
    let at = |user: &str, database: &str| format!("postgres://{user}@{}/{database}", server.addr());
    let admin = PostgresConfig {
        password: secret("right", "hunter2"),
        ..PostgresConfig::new(at("postgres", "postgres"))
    };
    let store = open(&admin).await;
    store.put("k", "v").await.unwrap();
    let whole = secret("url", &server.url()).unwrap();
    assert_eq!(open(&PostgresConfig::new(whole)).await.get(b"k").await.unwrap(), Some("v".into()));
    let plain = PostgresConfig::new(server.url());
    let mut errors = vec![(ErrorKind::Config, "`password: { env: NAME }`", refused(&plain).await)];

    let wrong = PostgresConfig { password: secret("wrong", "hunter4"), ..admin.clone() };
    errors.push((ErrorKind::Access, "password", refused(&wrong).await));
    let none = PostgresConfig { password: None, ..admin.clone() };
    errors.push((ErrorKind::Access, "`password`", refused(&none).await));
    let elsewhere = PostgresConfig { url: at("postgres", "nowhere").into(), ..admin.clone() };
    errors.push((ErrorKind::Config, "nowhere", refused(&elsewhere).await));
    let mut app = PostgresConfig {
        password: secret("app", "hunter3"),
        ..PostgresConfig::new(at("app", "postgres"))
    };
    errors.push((ErrorKind::Access, "GRANT SELECT", refused(&app).await));
    app.table = "mine".into();
    errors.push((ErrorKind::Access, "GRANT", refused(&app).await));
    app.table = "nowhere.mine".into();
    errors.push((ErrorKind::Config, "nowhere", refused(&app).await));
    server.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON tierstack TO app").await;
    app.table = "public.tierstack".into();
    open(&app).await.put("k", "w").await.unwrap();
    server.sql("ALTER ROLE app SET default_transaction_read_only = on").await;
    errors.push((ErrorKind::Access, "takes no writes", refused(&app).await));
    // While it is open.
    server.sql("REVOKE INSERT ON tierstack FROM app; ALTER ROLE app RESET default_transaction_read_only").await;
    app.create = false;
    errors.push((ErrorKind::Access, "GRANT SELECT", refused(&app).await));
    server.sql("ALTER DATABASE postgres SET default_transaction_read_only = on").await;
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tierstack'").await;
    let error = loop {
        let error = store.put("k", "secret-value").await.unwrap_err();
        if error.kind() != ErrorKind::Unavailable {
            break error;
        }
    };
    errors.push((ErrorKind::Access, "takes no writes", error));
    assert_eq!(store.get(b"k").await.unwrap(), Some("w".into()), "reads go on");
    for (kind, word, error) in errors {
        let text = format!("{error:?}");
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(word), "{word}: {text}");
        assert!(!text.contains("hunter") && !text.contains("secret-value"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_needs_a_certificate_that_is_trusted() {
    let Some(certificates) = Certificates::make().await else { return };
    let certificates = Arc::new(certificates);
    let Some(other) = Certificates::make().await else { return };
    let Some(server) = Server::options().tls(&certificates).start().await else { return };
    let url = format!("postgres://postgres@{}/postgres", server.addr());
    let config = PostgresConfig {
        tls: Some(Tls::Require),
        ca: Some(certificates.ca()),
        ..PostgresConfig::new(url)
    };
    let store = open(&config).await;
    store.put("k", "v").await.unwrap();
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'tierstack'";
    let admin = PostgresConfig { ca: Some(certificates.ca()), ..PostgresConfig::new(server.url()) };
    open(&admin).await.get(b"k").await.unwrap();
    let _ = encrypted;
    for config in [
        PostgresConfig { ca: Some(other.ca()), ..config.clone() },
        PostgresConfig { ca: None, ..config.clone() },
        PostgresConfig { tls: None, ..config.clone() },
    ] {
        let error = refused(&config).await;
        assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    }
    let no_file = PostgresConfig { ca: Some("no/such/file".into()), ..config.clone() };
    assert!(refused(&no_file).await.message().contains("no/such/file"));
    let no_certificate = PostgresConfig { ca: Some(certificates.key()), ..config };
    assert!(refused(&no_certificate).await.message().contains("no certificate"));
}

/// A trigger that tells what was written.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_of_an_entry_is_not_passed_on() {
    let Some(config) = config() else { return };
    let dropped = Dropped::after(&config);
    let store = open(&config).await;
    let sql = connect(&dropped.url).await;
    let table = &config.table;
    sql.batch_execute(&format!(
        "ALTER TABLE {table} ADD CONSTRAINT no_secret CHECK (value <> 'secret-value');
         CREATE FUNCTION {table}_tells() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not % with %', convert_from(NEW.key, 'utf8'), convert_from(NEW.value, 'utf8') USING ERRCODE = 'insufficient_privilege'; END $$;
         CREATE TRIGGER tells BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.key = 'secret-key') EXECUTE FUNCTION {table}_tells()"
    ))
    .await
    .unwrap();
    for key in ["secret-key", "other"] {
        for batch in [
            Batch::new().put(key, "secret-value"),
            Batch::new().put(key, "secret-value").delete("k"),
        ] {
            let error = store.write(batch).await.unwrap_err();
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
    store.put("k", "v").await.unwrap();
    sql.batch_execute(&format!("DROP FUNCTION {table}_tells() CASCADE")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_writes_and_not_reads() {
    let folder = tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=6m,mode=777", "tmpfs"])
        .arg(folder.path())
        .output();
    let mounted = mounted.is_ok_and(|output| output.status.success());
    if support::required(mounted.then_some(()), "mounting a tmpfs does not work here").is_none() {
        return;
    }
    let _unmounted = Unmounted(folder.path().to_owned());
    let place = folder.path().join("space");
    std::fs::create_dir(&place).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let Some(server) = Server::start().await else { return };
    let chown = Command::new("chown").arg("postgres").arg(&place).status().unwrap();
    assert!(chown.success());
    server.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", place.display())).await;
    server.sql("ALTER DATABASE postgres SET default_tablespace = small").await;
    let store = open(&PostgresConfig::new(server.url())).await;
    let value = |number: usize| -> Vec<u8> {
        (0..60_000).map(|at: usize| ((at * 7919 + number * 104_729) >> 5) as u8).collect()
    };
    let mut written = 0;
    let error = loop {
        match store.put(format!("key-{written}"), value(written)).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the disk does not get full");
    };
    assert_eq!(error.kind(), ErrorKind::Capacity, "{error:?}");
    assert!(error.message().contains("disk of the server is full"), "{error}");
    assert!(written > 5);
    for number in 0..written {
        let found = store.get(format!("key-{number}").as_bytes()).await.unwrap().unwrap();
        assert!(found.bytes == value(number), "{number}");
    }
}

struct Unmounted(std::path::PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Of each millisecond, also of those that a floating-point number of seconds falls short of.
#[tokio::test(flavor = "multi_thread")]
async fn deadlines_of_a_timestamptz_are_exact() {
    let Some(config) = config() else { return };
    let config = PostgresConfig { columns: columns(Some("ends")), ..config };
    let dropped = Dropped::after(&config);
    let table = format!(
        "CREATE TABLE {} (\"Session id\" bytea PRIMARY KEY, body bytea, ends timestamptz, changed timestamp)",
        dropped.table
    );
    connect(&dropped.url).await.batch_execute(&table).await.unwrap();
    let store = open(&config).await;
    let entries: Vec<_> = (0..2000u64)
        .map(|n| {
            let at = Timestamp::from_millis(2_147_483_648_000 + n * 7_919_003);
            (bytes::Bytes::from(format!("{n:04}")), Value::new("v").expiring_at(at))
        })
        .collect();
    let batch =
        entries.iter().cloned().fold(Batch::new(), |batch, (key, value)| batch.put(key, value));
    store.write(batch).await.unwrap();
    let keys: Vec<_> = entries.iter().map(|(key, _)| key.clone()).collect();
    for (found, (_, value)) in store.get_many(&keys).await.unwrap().into_iter().zip(entries) {
        assert_eq!(found, Some(value));
    }
}
