//! Rows whose columns are read and written as one JSON object, with another program at the same time.

use tierstack::backends::postgres::{
    All, Columns, Fields, Keys, RowColumns, RowForm, ValueColumns, Values,
};
use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::keys::pack;
use tierstack::{Batch, Condition, ErrorKind, Read, ReadExt, Scan, Store, StoreExt};

use super::open;
use super::tables::{of, schema, table, text};

fn row(columns: Fields) -> ValueColumns {
    ValueColumns::Row(RowColumns { columns, form: RowForm::Json })
}

const PEOPLE: &str = "id bigint PRIMARY KEY, name varchar(10) NOT NULL, email text, tags text[], born date, score numeric(6,2), more jsonb, note text DEFAULT 'new', whole text GENERATED ALWAYS AS (name || '!') STORED";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_a_json_object() {
    let named =
        Fields::Named(["name", "email", "tags", "born", "score", "more"].map(Into::into).to_vec());
    let with = of(Keys::Tuple, Values::Bytea, "id", "name");
    let with = |config| {
        let config = with(config);
        let columns = Columns { value: row(named.clone()), ..config.columns };
        PostgresConfig { columns, change_feed: true, ..config }
    };
    let Some((config, sql, _dropped)) = table(PEOPLE, with).await else { return };
    let name = &config.table;
    let printed = config.schema().unwrap();
    sql.batch_execute(printed.split("run only what is below.").nth(1).unwrap()).await.unwrap();
    let before = schema(&sql, name).await;
    let store = open(&config).await;
    sql.batch_execute(&format!("INSERT INTO {name} VALUES (7, 'Ada', NULL, '{{a,\"b c\"}}', '1815-12-10', 1.5, '{{\"x\":[1]}}', 'kept')")).await.unwrap();
    let seven = pack(&7).unwrap();
    let ada = store.get(&seven).await.unwrap().unwrap().bytes;
    assert_eq!(
        ada,
        r#"{"name":"Ada","email":null,"tags":["a","b c"],"born":"1815-12-10","score":1.50,"more":{"x": [1]}}"#
    );
    // What was read is written: the same row again, its other columns untouched, under another key with their defaults.
    let eight = pack(&8).unwrap();
    store
        .write(Batch::new().put(seven.clone(), ada.clone()).put(eight.clone(), ada.clone()))
        .await
        .unwrap();
    let asked = format!(
        "SELECT string_agg(concat_ws(' ', id, name, tags, born, score, more, note, whole), ',' ORDER BY id) FROM {name}"
    );
    let rest = "Ada {a,\"b c\"} 1815-12-10 1.50 {\"x\": [1]}";
    assert_eq!(text(&sql, &asked).await.unwrap(), format!("7 {rest} kept Ada!,8 {rest} new Ada!"));
    let found = store.collect(Scan::all()).await.unwrap();
    assert!(found.iter().all(|entry| entry.value.bytes == ada) && found.len() == 2);
    let held =
        Batch::new().delete(eight.clone()).require(Condition::equals(seven.clone(), ada.clone()));
    store.write(held).await.unwrap();
    for (object, says) in [
        (r#"{"name":"Ada"}"#, "lacks the field"),
        (
            r#"{"name":"Ada","email":null,"tags":null,"born":null,"score":null,"more":null,"whole":"x"}"#,
            "no column of the value",
        ),
        (
            r#"{"name":"Ada","email":null,"tags":null,"born":null,"score":null,"more":null,"name":"Ada"}"#,
            "twice",
        ),
        (
            r#"{"name":null,"email":null,"tags":null,"born":null,"score":null,"more":null}"#,
            "NOT NULL",
        ),
        (r#"{"name":"Ada","email":null,"tags":null,"born":"soon","score":null,"more":null}"#, ""),
        (
            r#"{"name":"longer than ten","email":null,"tags":null,"born":null,"score":null,"more":null}"#,
            "",
        ),
    ] {
        let refused = store.put(seven.clone(), object).await.unwrap_err();
        assert!(
            refused.kind() == ErrorKind::InvalidInput && refused.message().contains(says),
            "{refused}"
        );
        // The server names no key.
        assert!(says.is_empty() || refused.key() == Some(&seven[..]), "{refused}");
        assert!(
            !refused.to_string().contains("Ada") && !refused.to_string().contains("soon"),
            "{refused}"
        );
    }
    assert_eq!(store.get(&seven).await.unwrap().unwrap().bytes, ada, "nothing of it was written");
    // Any statement of another program is reported by the row's key.
    use futures_util::StreamExt;
    let mut changes = store.changes().await.unwrap();
    sql.batch_execute(&format!("UPDATE {name} SET email = 'a@b' WHERE name = 'Ada'"))
        .await
        .unwrap();
    loop {
        match changes.next().await.unwrap() {
            tierstack::Change::Keys(keys) => break assert_eq!(keys, std::slice::from_ref(&seven)),
            tierstack::Change::All => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(schema(&sql, name).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_columns_are_those_that_can_be_written() {
    let with = of(Keys::Tuple, Values::Bytea, "id", "name");
    let with = |columns: Fields| {
        let config = with.clone();
        move |settings| {
            let settings = config(settings);
            let columns = Columns { value: row(columns.clone()), ..settings.columns };
            PostgresConfig { columns, ..settings }
        }
    };
    let Some((config, sql, _dropped)) = table(PEOPLE, with(Fields::All(All::All))).await else {
        return;
    };
    let store = open(&config).await;
    let object = r#"{"name":"Ada","email":null,"tags":null,"born":null,"score":null,"more":null,"note":null}"#;
    let key = pack(&1).unwrap();
    store.write(Batch::new().put(key.clone(), object).if_absent()).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().bytes, object);
    // A column that came later is left alone.
    sql.batch_execute(&format!("ALTER TABLE {} ADD later text DEFAULT 'l'", config.table))
        .await
        .unwrap();
    store.put(key.clone(), object).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().bytes, object);
    let asked = format!("SELECT later FROM {}", config.table);
    assert_eq!(text(&sql, &asked).await.unwrap(), "l");
    for (fields, says) in [("whole", "computes the column"), ("nmae", "has no column \"nmae\"")] {
        let made = table(PEOPLE, with(Fields::Named(vec![fields.into()]))).await;
        let Some((config, _sql, _dropped)) = made else { return };
        let refused = Postgres::open(config).await.map(drop).unwrap_err();
        assert!(
            refused.kind() == ErrorKind::Config && refused.message().contains(says),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_row_has_the_constants_of_the_config() {
    let with = of(Keys::Tuple, Values::Text, "id", "body");
    let with = |constants: &'static [(&str, &str)]| {
        let with = with.clone();
        move |config| {
            let config = with(config);
            let constants = constants.iter().map(|(name, text)| ((*name).into(), (*text).into()));
            let columns = Columns { constants: constants.collect(), ..config.columns };
            PostgresConfig { columns, ..config }
        }
    };
    let people =
        "id bigint PRIMARY KEY, body text NOT NULL, kind varchar(5) NOT NULL, at timestamp";
    let Some((config, sql, _dropped)) =
        table(people, with(&[("kind", "it's"), ("at", "2026-01-31 12:00")])).await
    else {
        return;
    };
    let store = open(&config).await;
    let name = &config.table;
    sql.batch_execute(&format!("INSERT INTO {name} VALUES (1, 'a', 'old')")).await.unwrap();
    let (one, two, three) = (pack(&1).unwrap(), pack(&2).unwrap(), pack(&3).unwrap());
    store.put(one.clone(), "b").await.unwrap();
    store.write(Batch::new().put(one.clone(), "c").put(two.clone(), "c")).await.unwrap();
    let entries = vec![tierstack::Entry { key: three, value: "c".into() }];
    let run = futures_util::stream::iter([Ok(tierstack::Page { entries })]);
    store.ingest(Box::pin(run)).await.unwrap();
    let asked = format!(
        "SELECT string_agg(concat_ws(' ', id, body, kind, at), ',' ORDER BY id) FROM {name}"
    );
    assert_eq!(
        text(&sql, &asked).await.unwrap(),
        "1 c old,2 c it's 2026-01-31 12:00:00,3 c it's 2026-01-31 12:00:00"
    );
    for (constants, says) in [
        (&[][..], "`columns.constants`"),
        (&[("kind", "k"), ("at", "soon")], "the type of the column, timestamp without time zone"),
        (&[("kind", "k"), ("ta", "x")], "has no column \"ta\""),
        (&[("kind", "k"), ("body", "x")], "another column already"),
    ] {
        let Some((config, _sql, _dropped)) = table(people, with(constants)).await else { return };
        let refused = Postgres::open(config).await.map(drop).unwrap_err();
        assert!(
            refused.kind() == ErrorKind::Config && refused.message().contains(says),
            "{refused}"
        );
    }
}
