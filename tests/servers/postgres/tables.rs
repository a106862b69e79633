//! Tables with keys and values of other types than `bytea`, with another program at the same time.

use bytes::Bytes;
use tierstack::backends::postgres::{Columns, KeyColumns, Keys, Values};
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::keys::{Part, Time, Uuid, pack, unpack};
use tierstack::{Batch, Condition, ErrorKind, Read, ReadExt, Scan, Store, StoreExt};
use tokio_postgres::Client;

use super::{Dropped, config, connect, open};

/// A table of the test's own, with its settings and a client of its owner.
pub(super) async fn table(
    columns: impl Into<String>,
    change: impl Fn(PostgresConfig) -> PostgresConfig,
) -> Option<(PostgresConfig, Client, Dropped)> {
    let columns: String = columns.into();
    let config = change(PostgresConfig { create: false, ..config()? });
    let dropped = Dropped::after(&config);
    let sql = connect(&dropped.url).await;
    sql.batch_execute(&format!("CREATE TABLE {} ({columns})", config.table)).await.unwrap();
    Some((config, sql, dropped))
}

fn columns(key: &str, value: &str) -> Columns {
    let key = match key.split_once(',') {
        None => key.into(),
        Some((one, other)) => KeyColumns::Several(vec![one.into(), other.into()]),
    };
    Columns {
        key,
        value: value.into(),
        expires: None,
        created: None,
        updated: None,
        ..Columns::default()
    }
}

pub(super) fn of(
    keys: Keys,
    values: Values,
    key: &str,
    value: &str,
) -> impl Fn(PostgresConfig) -> PostgresConfig + Clone {
    let columns = columns(key, value);
    move |config| PostgresConfig { columns: columns.clone(), keys, values, ..config }
}

/// What the owner has: columns, constraints, indexes, triggers, comments, rights.
pub(super) async fn schema(sql: &Client, table: &str) -> String {
    let asked = format!(
        "SELECT concat_ws(E'\\n', c.relacl::text, c.reloptions::text, obj_description(c.oid),
            (SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, attcollation), ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid),
            (SELECT string_agg(pg_get_constraintdef(oid), ',' ORDER BY oid) FROM pg_constraint WHERE conrelid = c.oid),
            (SELECT string_agg(pg_get_indexdef(indexrelid), ',' ORDER BY indexrelid) FROM pg_index WHERE indrelid = c.oid),
            (SELECT string_agg(pg_get_triggerdef(oid), ',' ORDER BY oid) FROM pg_trigger WHERE tgrelid = c.oid))
         FROM pg_class c WHERE c.oid = '{table}'::regclass"
    );
    sql.query_one(&asked, &[]).await.unwrap().get(0)
}

pub(super) async fn text(sql: &Client, asked: &str) -> Option<String> {
    sql.query_one(asked, &[]).await.unwrap().get(0)
}

fn keys(entries: &[tierstack::Entry]) -> Vec<Bytes> {
    entries.iter().map(|entry| entry.key.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_and_tierstack_use_one_table() {
    for (key, form, some, other) in [
        ("text COLLATE \"C\"", Keys::Text, "users/7", "users/é"),
        ("text COLLATE \"C\"", Keys::Tuple, "users/7", "users/é"),
        ("varchar(20) COLLATE \"C\"", Keys::Text, "a'b\\", "b\"c"),
        (
            "uuid",
            Keys::Text,
            "67e55044-10b1-426f-9247-bb680e5fe0c8",
            "00000000-0000-0000-0000-000000000001",
        ),
        (
            "uuid",
            Keys::Tuple,
            "67e55044-10b1-426f-9247-bb680e5fe0c8",
            "00000000-0000-0000-0000-000000000001",
        ),
        ("smallint", Keys::Tuple, "-7", "32767"),
        ("integer", Keys::Tuple, "-7", "2147483647"),
        ("bigint", Keys::Tuple, "-9223372036854775808", "10"),
        ("timestamptz", Keys::Text, "2026-01-31T12:00:00.000001Z", "0001-01-01T00:00:00.000000Z"),
        ("timestamp", Keys::Tuple, "2026-01-31T12:00:00.000001Z", "9999-12-30T22:00:00.000000Z"),
    ] {
        for (value, values, some_value, other_value) in [
            ("bytea", Values::Bytea, "v1", "v2"),
            ("text", Values::Text, "v1", "é'\\"),
            ("json", Values::Text, "{ \"a\": 1 }", "[1,2]"),
            ("jsonb", Values::Text, "{\"a\": 1}", "[1, 2]"),
        ] {
            let with = of(form, values, "id", "body");
            let made =
                table(format!("id {key} PRIMARY KEY, body {value} NOT NULL, note text"), with);
            let Some((config, sql, _dropped)) = made.await else { return };
            let before = schema(&sql, &config.table).await;
            let store = open(&config).await;
            let packed = |text: &str| -> Bytes {
                match form {
                    Keys::Tuple if key == "uuid" => pack(&text.parse::<Uuid>().unwrap()).unwrap(),
                    Keys::Tuple if key.starts_with("time") => {
                        pack(&text.parse::<Time>().unwrap()).unwrap()
                    }
                    Keys::Tuple if key.contains("int") => {
                        pack(&text.parse::<i64>().unwrap()).unwrap()
                    }
                    Keys::Tuple => pack(&text).unwrap(),
                    _ => Bytes::copy_from_slice(text.as_bytes()),
                }
            };
            let (one, two) = (packed(some), packed(other));
            // The owner writes, tierstack reads and writes, the owner reads.
            let name = &config.table;
            sql.batch_execute("SET timezone = 'Asia/Tokyo'").await.unwrap();
            let quoted = |text: &str| text.replace('\'', "''");
            let body = |text: &str| match values {
                Values::Bytea => format!("'{}'::text::bytea", quoted(text)),
                Values::Text => format!("'{}'", quoted(text)),
            };
            let as_column = |text: &str| match key {
                "timestamp" => format!("'{text}'::timestamptz AT TIME ZONE 'UTC'"),
                _ => format!("'{}'", quoted(text)),
            };
            sql.batch_execute(&format!(
                "INSERT INTO {name} VALUES ({}, {}, 'kept')",
                as_column(some),
                body(some_value)
            ))
            .await
            .unwrap();
            let read = store.get(&one).await.unwrap().unwrap();
            assert_eq!(read.bytes, some_value, "{key} {form:?} {value}");
            store.put(one.clone(), other_value).await.unwrap();
            store.put(two.clone(), some_value).await.unwrap();
            let asked = format!(
                "SELECT string_agg(concat_ws(' ', coalesce(note, '-'), {}), ',' ORDER BY note) FROM {name}",
                if values == Values::Bytea { "convert_from(body, 'UTF8')" } else { "body::text" }
            );
            assert_eq!(
                text(&sql, &asked).await.unwrap(),
                format!("kept {other_value},- {some_value}")
            );
            // Many keys, scans in the order of keys, from anywhere, and conditions.
            let found = store.get_many(&[two.clone(), one.clone()]).await.unwrap();
            assert!(
                found[0].as_ref().unwrap().bytes == some_value
                    && found[1].as_ref().unwrap().bytes == other_value
            );
            let mut sorted = vec![one.clone(), two.clone()];
            sorted.sort();
            assert_eq!(keys(&store.collect(Scan::all()).await.unwrap()), sorted, "{key} {form:?}");
            assert_eq!(
                keys(&store.collect(Scan::all().reverse()).await.unwrap()),
                [sorted[1].clone(), sorted[0].clone()]
            );
            assert_eq!(
                keys(&store.collect(Scan::all().keys_only().page_entries(1)).await.unwrap()),
                sorted
            );
            assert_eq!(
                keys(&store.collect(Scan::range(sorted[1].clone()..)).await.unwrap()),
                sorted[1..]
            );
            assert_eq!(
                keys(&store.collect(Scan::range(..sorted[1].clone())).await.unwrap()),
                sorted[..1]
            );
            assert_eq!(
                keys(&store.collect(Scan::prefix(one.slice(..1))).await.unwrap()),
                sorted.iter().filter(|key| key[0] == one[0]).cloned().collect::<Vec<_>>()
            );
            assert_eq!(store.count(b"").await.unwrap(), Some(2));
            let moved = Batch::new().put(one.clone(), some_value).delete(two.clone());
            store
                .write(moved.clone().require(Condition::equals(one.clone(), other_value)))
                .await
                .unwrap();
            let unmet = store
                .write(moved.require(Condition::equals(one.clone(), other_value)))
                .await
                .unwrap_err();
            assert_eq!(
                (unmet.kind(), unmet.key()),
                (ErrorKind::Conflict, Some(&one[..])),
                "{unmet:?}"
            );
            let there = store
                .write(Batch::new().put(one.clone(), some_value).if_absent())
                .await
                .unwrap_err();
            assert_eq!((there.kind(), there.key()), (ErrorKind::Conflict, Some(&one[..])));
            let snapshot = store.snapshot().await.unwrap();
            store.delete(one.clone()).await.unwrap();
            assert_eq!(
                keys(&snapshot.collect(Scan::all()).await.unwrap()),
                std::slice::from_ref(&one)
            );
            assert!(store.collect(Scan::all()).await.unwrap().is_empty());
            let entries = snapshot.collect(Scan::all()).await.unwrap();
            let run = futures_util::stream::iter([Ok(tierstack::Page { entries })]);
            assert_eq!(store.ingest(Box::pin(run)).await.unwrap(), 1);
            assert_eq!(store.get(&one).await.unwrap().unwrap().bytes, some_value);
            assert_eq!(schema(&sql, name).await, before, "nothing of the owner's is altered");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn composite_keys() {
    for (form, key) in
        [(Keys::Text, Bytes::from("a%2Fb/7")), (Keys::Tuple, pack(&("a/b", 7)).unwrap())]
    {
        let with = of(form, Values::Text, "org,id", "body");
        let with = |config| PostgresConfig { scans: form == Keys::Tuple, ..with(config) };
        let made = table(
            "org text COLLATE \"C\", id bigint, body jsonb NOT NULL, PRIMARY KEY (org, id)",
            with,
        );
        let Some((config, sql, _dropped)) = made.await else { return };
        let store = open(&config).await;
        sql.batch_execute(&format!(
            "INSERT INTO {} VALUES ('a/b', 7, '{{}}'), ('a', 10, '1'), ('a', 9, '2')",
            config.table
        ))
        .await
        .unwrap();
        assert_eq!(store.get(&key).await.unwrap().unwrap().bytes, "{}");
        store.put(key.clone(), "[]").await.unwrap();
        let asked = format!("SELECT body::text FROM {} WHERE org = 'a/b' AND id = 7", config.table);
        assert_eq!(text(&sql, &asked).await.unwrap(), "[]");
        assert_eq!(store.get_many(&[key.clone(), key.clone()]).await.unwrap().len(), 2);
        let refused = store.get(b"a").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        if form == Keys::Tuple {
            let found = keys(
                &store.collect(Scan::range(tierstack::keys::range(&"a").unwrap())).await.unwrap(),
            );
            let found: Vec<(String, i64)> = found.iter().map(|key| unpack(key).unwrap()).collect();
            assert_eq!(found, [("a".to_owned(), 9), ("a".to_owned(), 10)]);
        } else {
            let refused = store.collect(Scan::all()).await.unwrap_err();
            assert!(
                refused.kind() == ErrorKind::Unsupported
                    && refused.message().contains("`keys: tuple`"),
                "{refused}"
            );
            assert_eq!(store.count(b"").await.unwrap(), None);
        }
        store
            .write(Batch::new().delete(key.clone()).put(key.clone(), "1").delete(key.clone()))
            .await
            .unwrap();
        assert_eq!(store.get(&key).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_key_in_the_order_of_a_language_has_scans_by_an_index() {
    let with = of(Keys::Text, Values::Bytea, "id", "body");
    let made = table("id text COLLATE \"und-x-icu\" PRIMARY KEY, body bytea NOT NULL", with);
    let Some((config, sql, _dropped)) = made.await else { return };
    let table = &config.table;
    sql.batch_execute(&format!("INSERT INTO {table} SELECT chr(65 + n % 26) || chr(97 + n % 25) || n, 'v' FROM generate_series(1, 5000) n; INSERT INTO {table} VALUES ('b', 'v'), ('B', 'v'), ('a', 'v'); ANALYZE {table}")).await.unwrap();
    let refused = Postgres::open(config.clone()).await.map(drop).unwrap_err();
    let index = format!("CREATE INDEX ON \"public\".\"{table}\" (\"id\" COLLATE \"C\")");
    assert!(
        refused.message().contains(&index) && refused.message().contains("`scans: false`"),
        "{refused}"
    );
    let without = PostgresConfig { scans: false, ..config.clone() };
    let store = open(&without).await;
    assert!(!store.profile().guarantees.ordered_scans);
    assert_eq!(store.get(b"a").await.unwrap().unwrap().bytes, "v");
    store.put("c", "v").await.unwrap();
    store.delete("c").await.unwrap();
    let refused = store.collect(Scan::all()).await.unwrap_err();
    assert!(refused.message().contains(&index), "{refused}");
    // The index that was named.
    sql.batch_execute(&index).await.unwrap();
    let store = open(&config).await;
    let found = keys(&store.collect(Scan::all().page_entries(700)).await.unwrap());
    assert!(found.is_sorted() && found.len() == 5003);
    let plan = plan(&sql, table).await;
    assert!(plan.contains("Index") && !plan.contains("Sort"), "{plan}");
}

/// The plan of a page.
async fn plan(sql: &Client, table: &str) -> String {
    sql.batch_execute(
        "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off",
    )
    .await
    .unwrap();
    let asked = format!(
        "EXPLAIN SELECT k FROM (SELECT k, o0, sum(octet_length(k)) OVER (ORDER BY o0 ASC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM (SELECT convert_to(\"id\"::text, 'UTF8') AS k, \"id\" COLLATE \"C\" AS o0 FROM {table} WHERE true AND \"id\" COLLATE \"C\" >= convert_from('b'::bytea, 'UTF8') ORDER BY \"id\" COLLATE \"C\" ASC LIMIT 100) AS page) AS sized WHERE before IS NULL OR before < 1000 ORDER BY o0 ASC"
    );
    let rows = sql.query(&asked, &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

/// Rows are not sorted apart from an index, so what no index has in one direction is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_two_directions_has_no_order_of_keys() {
    let table_of = "org text COLLATE \"C\" NOT NULL, id bigint NOT NULL, body text";
    let made = table(table_of, of(Keys::Tuple, Values::Text, "org,id", "body")).await;
    let Some((config, sql, _dropped)) = made else { return };
    let name = &config.table;
    for (index, opens) in [
        ("org, id DESC", false),
        ("id, org", false),
        ("org DESC NULLS LAST, id DESC NULLS LAST", false),
        ("org DESC, id DESC", true),
    ] {
        sql.batch_execute(&format!("CREATE UNIQUE INDEX {name}_i ON {name} ({index})"))
            .await
            .unwrap();
        match Postgres::open(config.clone()).await {
            Ok(store) => {
                assert!(opens, "{index}");
                assert!(store.collect(Scan::all()).await.unwrap().is_empty());
            }
            Err(refused) => {
                let says = format!("CREATE INDEX ON \"public\".\"{name}\" (\"org\", \"id\")");
                assert!(!opens && refused.message().contains(&says), "{index}: {refused}");
            }
        }
        sql.batch_execute(&format!("DROP INDEX {name}_i")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tuples_sort_as_the_server_sorts() {
    for (kind, make) in [
        ("bigint", "(('x' || substr(md5(n::text), 1, 16))::bit(64)::bigint >> (n % 60))"),
        ("uuid", "md5(n::text)::uuid"),
        ("text COLLATE \"C\"", "chr(1 + (n * 7919) % 55000) || chr(1 + n % 300)"),
        (
            "timestamptz",
            "timestamptz '2000-01-01' + (n - 250) * interval '17 days 3.000001 seconds'",
        ),
    ] {
        let with = of(Keys::Tuple, Values::Text, "id,part", "body");
        let made = table(
            format!("id {kind}, part smallint, body text NOT NULL, PRIMARY KEY (id, part)"),
            with,
        );
        let Some((config, sql, _dropped)) = made.await else { return };
        let name = &config.table;
        sql.batch_execute(&format!("INSERT INTO {name} SELECT {make}, n % 3 - 1, n::text FROM generate_series(1, 500) n ON CONFLICT DO NOTHING")).await.unwrap();
        let theirs =
            sql.query(&format!("SELECT body FROM {name} ORDER BY id, part"), &[]).await.unwrap();
        let theirs: Vec<String> = theirs.iter().map(|row| row.get(0)).collect();
        let store = open(&config).await;
        let found = store.collect(Scan::all().page_entries(97)).await.unwrap();
        let ours: Vec<_> = found
            .iter()
            .map(|entry| String::from_utf8(entry.value.bytes.to_vec()).unwrap())
            .collect();
        assert_eq!(ours, theirs, "{kind}");
        assert!(keys(&found).is_sorted());
        // From each key and up to it, also between two.
        for (at, entry) in found.iter().enumerate().step_by(23) {
            let between = Bytes::from([&entry.key[..], &[0]].concat());
            let parts: Vec<Part> = unpack(&entry.key).unwrap();
            assert_eq!(parts.len(), 2);
            for (bound, first) in [(entry.key.clone(), at), (between, at + 1)] {
                let behind = store.collect(Scan::range(bound.clone()..)).await.unwrap();
                assert_eq!(keys(&behind), keys(&found[first..]), "{kind}");
                let before = store.collect(Scan::range(..bound)).await.unwrap();
                assert_eq!(keys(&before), keys(&found[..first]), "{kind}");
            }
        }
        let asked: Vec<Bytes> = keys(&found);
        assert!(store.get_many(&asked).await.unwrap().iter().all(Option::is_some), "{kind}");
    }
}

/// Names that statements of a scan give to what they select.
#[tokio::test(flavor = "multi_thread")]
async fn columns_may_have_any_names() {
    for (key, kind, value) in
        [("k", "bigint", "v"), ("v", "bigint", "k"), ("e", "bigint", "t"), ("t", "smallint", "o0")]
    {
        let with = of(Keys::Tuple, Values::Text, key, value);
        let made = table(format!("{key} {kind} PRIMARY KEY, {value} text NOT NULL"), with).await;
        let Some((config, sql, _dropped)) = made else { return };
        let name = &config.table;
        sql.batch_execute(&format!(
            "INSERT INTO {name} ({key}, {value}) SELECT n, (1000 - n)::text FROM generate_series(1, 999) n"
        ))
        .await
        .unwrap();
        let store = open(&config).await;
        let wanted: Vec<Bytes> =
            (1..1000).map(|n: i64| pack(&n)).collect::<Result<_, _>>().unwrap();
        let mut found = store.collect(Scan::all().page_entries(97)).await.unwrap();
        assert_eq!(keys(&found), wanted, "{key}");
        assert_eq!(store.count(b"").await.unwrap(), Some(999), "{key}");
        let reverse = store.collect(Scan::all().page_entries(97).reverse()).await.unwrap();
        found.reverse();
        assert_eq!(found, reverse, "{key}");
    }
}

/// It would have the key of the same year after Christ.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_before_christ_is_no_key() {
    let with = of(Keys::Tuple, Values::Text, "id", "body");
    let made = table("id timestamptz PRIMARY KEY, body text NOT NULL", with).await;
    let Some((config, sql, _dropped)) = made else { return };
    let name = &config.table;
    sql.batch_execute(&format!(
        "INSERT INTO {name} VALUES ('0044-03-15 12:00:00+00 BC', 'a'), ('0044-03-15 12:00:00+00', 'b')"
    ))
    .await
    .unwrap();
    let store = open(&config).await;
    let error = store.collect(Scan::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_or_value_is_refused() {
    let with = of(Keys::Text, Values::Text, "id", "body");
    let with = |config| PostgresConfig { scans: false, ..with(config) };
    let made = table("id bigint PRIMARY KEY, body jsonb NOT NULL", with);
    let Some((config, sql, _dropped)) = made.await else { return };
    let store = open(&config).await;
    for key in ["042", "x", "9223372036854775808"] {
        for refused in [
            store.get(key.as_bytes()).await.map(drop),
            store.put(key, "{}").await.map(drop),
            store.delete(key).await.map(drop),
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(
                (refused.kind(), refused.key()),
                (ErrorKind::InvalidInput, Some(key.as_bytes()))
            );
            assert!(refused.message().contains("an integer of 64 bits"), "{refused}");
        }
    }
    // Of a restore, which looks for its mark in every store.
    assert_eq!(store.get(b"\0tierstack/restore").await.unwrap(), None);
    let refused = store.put("\0tierstack/restore", "{}").await.unwrap_err();
    assert!(refused.message().contains("restore into another store"), "{refused}");
    let refused = store.put("1", "{").await.unwrap_err();
    assert!(
        refused.kind() == ErrorKind::InvalidInput && refused.message().contains("not JSON"),
        "{refused}"
    );
    assert!(store.put("1", "\"\\u0000\"").await.is_err());
    assert_eq!(
        text(&sql, &format!("SELECT count(*)::text FROM {}", config.table)).await.unwrap(),
        "0"
    );
    for (columns, keys, says) in [
        ("id bigint PRIMARY KEY, body bytea", Keys::Bytea, "`keys: text`"),
        ("id numeric PRIMARY KEY, body bytea", Keys::Text, "is of type numeric"),
        ("id text, body bytea", Keys::Text, "a primary key"),
        ("id text COLLATE \"C\" PRIMARY KEY, body text", Keys::Text, "`values: text`"),
        ("id bigint PRIMARY KEY, body bytea", Keys::Text, "`keys: tuple`"),
    ] {
        let made = table(columns, of(keys, Values::Bytea, "id", "body")).await;
        let Some((config, _sql, _dropped)) = made else { return };
        let refused = Postgres::open(config).await.map(drop).unwrap_err();
        assert!(
            refused.kind() == ErrorKind::Config && refused.message().contains(says),
            "{refused}"
        );
    }
}

/// PostgreSQL cuts spaces off and rounds times to make them fit, so another row would be written.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_would_make_fit_is_refused() {
    for (kind, fits, too_long, says) in [
        ("varchar(3) COLLATE \"C\"", "ab ", "ab  ", "3 characters"),
        (
            "timestamptz(3)",
            "2026-01-31T12:00:00.001000Z",
            "2026-01-31T12:00:00.000900Z",
            "3 digits",
        ),
        ("timestamp(0)", "2026-01-31T12:00:01.000000Z", "2026-01-31T12:00:00.900000Z", "0 digits"),
    ] {
        let with = of(Keys::Text, Values::Text, "id", "body");
        let made = table(format!("id {kind} PRIMARY KEY, body varchar(5) NOT NULL"), with).await;
        let Some((config, sql, _dropped)) = made else { return };
        let store = open(&config).await;
        store.put(fits, "é    ").await.unwrap();
        for refused in [
            store.put(too_long, "other").await.map(drop).unwrap_err(),
            store.delete(too_long).await.map(drop).unwrap_err(),
            store.get(too_long.as_bytes()).await.map(drop).unwrap_err(),
        ] {
            assert!(
                refused.kind() == ErrorKind::InvalidInput && refused.message().contains(says),
                "{refused}"
            );
        }
        let refused = store.put(fits, "v     ").await.unwrap_err();
        assert!(
            refused.kind() == ErrorKind::InvalidInput
                && refused.message().contains("5 characters")
                && refused.key() == Some(fits.as_bytes()),
            "{refused}"
        );
        let asked = format!("SELECT string_agg(body, ',') FROM {}", config.table);
        assert_eq!(text(&sql, &asked).await.unwrap(), "é    ", "{kind}");
    }
    for (columns, says) in [
        (
            "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text",
            "SET GENERATED BY DEFAULT",
        ),
        ("id bigint PRIMARY KEY, body text GENERATED ALWAYS AS ('v') STORED", "computes"),
    ] {
        let made = table(columns, of(Keys::Tuple, Values::Text, "id", "body")).await;
        let Some((config, _sql, _dropped)) = made else { return };
        let refused = Postgres::open(config).await.map(drop).unwrap_err();
        assert!(
            refused.kind() == ErrorKind::Config && refused.message().contains(says),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_others_are_announced() {
    use futures_util::StreamExt;
    use tierstack::Change;
    for (key, form, wanted) in [
        ("id uuid PRIMARY KEY", Keys::Tuple, pack(&Uuid::from_u128(7)).unwrap()),
        ("id uuid PRIMARY KEY", Keys::Text, Bytes::from(Uuid::from_u128(7).to_string())),
    ] {
        let with = of(form, Values::Text, "id", "body");
        let with = |config| PostgresConfig { change_feed: true, ..with(config) };
        let Some((config, sql, _dropped)) = table(format!("{key}, body text"), with).await else {
            return;
        };
        let printed = config.schema().unwrap();
        let triggers = printed.split("run only what is below.").nth(1).unwrap();
        sql.batch_execute(triggers).await.unwrap();
        let store = open(&config).await;
        let mut changes = store.changes().await.unwrap();
        sql.batch_execute(&format!(
            "INSERT INTO {} VALUES ('{}', 'v')",
            config.table,
            Uuid::from_u128(7)
        ))
        .await
        .unwrap();
        loop {
            match changes.next().await.unwrap() {
                Change::Keys(keys) => {
                    assert_eq!(keys, std::slice::from_ref(&wanted));
                    break;
                }
                // Told when listening begins.
                Change::All => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
