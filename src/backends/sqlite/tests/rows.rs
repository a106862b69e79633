//! Rows whose columns are read and written as one JSON object, with another program at the same time.

use proptest::prelude::*;
use rusqlite::types::Value as Cell;

use super::*;
use crate::Condition;
use crate::error::ErrorKind;
use crate::keys::pack;

/// The table `t` with the key `id`.
fn of(folder: &Folder, fields: Fields) -> SqliteConfig {
    let value = ValueColumns::Row(RowColumns { columns: fields, form: RowForm::Json });
    let columns = Columns { value, ..columns("id", "v") };
    SqliteConfig { keys: Keys::Tuple, columns, ..folder.plain() }
}

fn named(names: &[&str]) -> Fields {
    Fields::Named(names.iter().map(|name| (*name).to_owned()).collect())
}

fn text(db: &Connection, sql: &str) -> String {
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

const PEOPLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (length(name) < 10), email VARCHAR(80), born DATE, score REAL, photo BLOB, note TEXT DEFAULT 'new', whole TEXT NOT NULL AS (name || '!'))";

#[tokio::test]
async fn a_row_is_a_json_object() {
    let folder = Folder::new();
    folder.foreign_did(PEOPLE);
    folder.foreign_did(
        "INSERT INTO t (id, name, born, score, photo, note) VALUES (7, 'Ada \"A\"', '1815-12-10', 2.0, x'00ff', 'kept')",
    );
    let store = open(of(&folder, named(&["name", "email", "born", "score", "photo"]))).await;
    let (seven, eight) = (pack(&7).unwrap(), pack(&8).unwrap());
    let ada = store.get(&seven).await.unwrap().unwrap().bytes;
    assert_eq!(
        ada,
        r#"{"name":"Ada \"A\"","email":null,"born":"1815-12-10","score":2.0,"photo":"00ff"}"#
    );
    // What was read is written: the same row again, its other columns untouched, under another key with their defaults.
    let both = Batch::new().put(seven.clone(), ada.clone()).put(eight.clone(), ada.clone());
    store.write(both).await.unwrap();
    let db = folder.foreign();
    let asked = "SELECT group_concat(concat_ws(' ', id, name, email IS NULL, born, typeof(score), hex(photo), note, whole), ',' ORDER BY id) FROM t";
    let rest = "Ada \"A\" 1 1815-12-10 real 00FF";
    assert_eq!(text(&db, asked), format!("7 {rest} kept Ada \"A\"!,8 {rest} new Ada \"A\"!"));
    let found = all(&store, Scan::all()).await;
    assert!(found.iter().all(|entry| entry.value.bytes == ada) && found.len() == 2);
    let keys = all(&store, Scan::all().keys_only()).await;
    assert!(keys.iter().all(|entry| entry.value.bytes.is_empty()) && keys.len() == 2);
    let held =
        Batch::new().delete(eight.clone()).require(Condition::equals(seven.clone(), ada.clone()));
    store.write(held).await.unwrap();
    for (object, says) in [
        (r#"{"name":"Ada"}"#, "lacks the field"),
        (
            r#"{"name":"Ada","email":null,"born":null,"score":null,"photo":null,"whole":"x"}"#,
            "no column of the value",
        ),
        (
            r#"{"name":"Ada","email":null,"born":null,"score":null,"photo":null,"name":"Ada"}"#,
            "twice",
        ),
        (r#"{"name":null,"email":null,"born":null,"score":null,"photo":null}"#, "NOT NULL"),
        (r#"{"name":"Ada","email":["x"],"born":null,"score":null,"photo":null}"#, "an array"),
        (r#"{"name":"Ada","email":null,"born":null,"score":null,"photo":"0F"}"#, "hexadecimal"),
        (r#"{"name":"Ada","email":null,"born":null,"score":null,"photo":"0"}"#, "hexadecimal"),
        (r#"{"name":"longer than ten","email":null,"born":null,"score":null,"photo":null}"#, ""),
        ("Ada", "must be a JSON object"),
    ] {
        let refused = store.put(seven.clone(), object).await.unwrap_err();
        let message = refused.to_string();
        assert!(refused.kind() == ErrorKind::InvalidInput && message.contains(says), "{refused}");
        assert!(!message.contains("Ada") && !message.contains("longer"), "{refused}");
    }
    assert_eq!(store.get(&seven).await.unwrap().unwrap().bytes, ada, "nothing of it was written");
}

#[tokio::test]
async fn all_columns_are_those_that_can_be_written() {
    let folder = Folder::new();
    folder.foreign_did(PEOPLE);
    let store = open(of(&folder, Fields::All(All::All))).await;
    let object = r#"{"name":"Ada","email":null,"born":null,"score":null,"photo":null,"note":null}"#;
    let key = pack(&1).unwrap();
    store.write(Batch::new().put(key.clone(), object).if_absent()).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), Some(object.into()));
    // A column that came later is left alone.
    folder.foreign_did("ALTER TABLE t ADD later TEXT DEFAULT 'l'");
    store.put(key.clone(), object).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), Some(object.into()));
    assert_eq!(text(&folder.foreign(), "SELECT later FROM t"), "l");
    store.close().await.unwrap();
    for (fields, says) in [
        (named(&["whole"]), "computes its column \"whole\""),
        (named(&["nmae"]), "has no column \"nmae\" (`columns.value`)"),
        (named(&["id"]), "`columns.key` and `columns.value` name the same column"),
        (named(&[]), "names no column"),
    ] {
        let refused = refusal(of(&folder, fields)).await;
        assert!(
            refused.kind() == ErrorKind::Config && refused.message().contains(says),
            "{refused}"
        );
    }
    let text = SqliteConfig { values: Storage::Text, ..of(&folder, named(&["name"])) };
    assert!(refusal(text).await.message().contains("leave `values` out"));
    folder.foreign_did("DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let refused = refusal(of(&folder, Fields::All(All::All))).await;
    assert!(refused.message().contains("nothing for a value"), "{refused}");
}

#[tokio::test]
async fn a_new_row_has_the_constants_of_the_config() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, kind TEXT NOT NULL, rank INTEGER NOT NULL); INSERT INTO t VALUES (1, 'a', 'old', 1)",
    );
    let with = |constants: &[(&str, &str)]| {
        let config = of(&folder, named(&["name"]));
        let texts = constants.iter().map(|(name, text)| ((*name).into(), (*text).into()));
        let columns = Columns { constants: texts.collect(), ..config.columns };
        SqliteConfig { columns, ..config }
    };
    let store = open(with(&[("kind", "it's"), ("rank", "5")])).await;
    for id in [1, 2, 2] {
        store.put(pack(&id).unwrap(), r#"{"name":"new"}"#).await.unwrap();
    }
    let asked = "SELECT group_concat(concat_ws(' ', id, name, kind, typeof(rank), rank), ',' ORDER BY id) FROM t";
    assert_eq!(text(&folder.foreign(), asked), "1 new old integer 1,2 new it's integer 5");
    store.close().await.unwrap();
    for (constants, says) in [
        (&[("kind", "k")][..], "name what a new row has there with `columns.constants`"),
        (&[("kind", "k"), ("rnak", "1")], "has no column \"rnak\" (`columns.constants`)"),
        (&[("kind", "k"), ("NAME", "1")], "name the same column"),
        (&[("kind", "\0"), ("rank", "1")], "without NUL"),
    ] {
        let refused = refusal(with(constants)).await;
        assert!(
            refused.kind() == ErrorKind::Config && refused.message().contains(says),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn what_no_object_can_hold_is_named_where_it_is_read() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b BLOB);
         INSERT INTO t VALUES (1, x'00', NULL), (2, 9e999, NULL), (3, 1, 'text'), (4, CAST(x'ff' AS TEXT), NULL), (5, 1, 2)",
    );
    let store = open(of(&folder, Fields::All(All::All))).await;
    for (id, says) in
        [(1, "not declared as BLOB"), (2, "infinite"), (3, "declared as BLOB"), (4, "UTF-8")]
    {
        let refused = store.get(&pack(&id).unwrap()).await.unwrap_err();
        assert!(
            refused.kind() == ErrorKind::Corruption && refused.message().contains(says),
            "{refused}"
        );
    }
    assert_eq!(store.get(&pack(&5).unwrap()).await.unwrap(), Some(r#"{"a":1,"b":2}"#.into()));
    // The columns are no longer what they were.
    folder.foreign_did("DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, a BLOB, b TEXT)");
    let refused = store.put(pack(&6).unwrap(), r#"{"a":1,"b":"00"}"#).await.unwrap_err();
    assert!(refused.message().contains("other types in its columns"), "{refused}");
}

#[tokio::test]
async fn a_trigger_that_changes_a_row_is_noticed() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, n INTEGER);
         CREATE TRIGGER low AFTER INSERT ON t BEGIN UPDATE t SET name = lower(name) WHERE id = new.id; END",
    );
    let store = open(of(&folder, named(&["name", "n"]))).await;
    store.put(pack(&1).unwrap(), r#"{"name":"ada","n":"7"}"#).await.unwrap();
    let read = store.get(&pack(&1).unwrap()).await.unwrap();
    assert_eq!(read, Some(r#"{"name":"ada","n":7}"#.into()), "as SQLite casts it");
    let refused = store.put(pack(&2).unwrap(), r#"{"name":"Ada","n":7}"#).await.unwrap_err();
    assert!(
        refused.kind() == ErrorKind::InvalidInput && refused.message().contains("trigger"),
        "{refused}"
    );
    assert_eq!(store.get(&pack(&2).unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn a_column_of_json_holds_any_json() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v JSON);
         INSERT INTO t VALUES ('a', '{\"x\": [1]}'), ('n', 4.5), ('z', NULL)",
    );
    let config = SqliteConfig { keys: Keys::Text, values: Storage::Text, ..folder.plain() };
    let store = open(config).await;
    assert_eq!(store.get(b"a").await.unwrap(), Some("{\"x\": [1]}".into()));
    assert_eq!(store.get(b"n").await.unwrap(), Some("4.5".into()));
    assert!(store.get(b"z").await.unwrap_err().message().contains("NULL"));
    for (written, read) in [("[1]", "[1]"), ("42", "42"), ("1.0", "1"), ("\"7\"", "\"7\"")] {
        store.put("a", written).await.unwrap();
        assert_eq!(store.get(b"a").await.unwrap(), Some(read.into()), "{written}");
    }
    let refused = store.put("a", "{secret").await.unwrap_err();
    assert!(
        refused.kind() == ErrorKind::InvalidInput && !refused.to_string().contains("secret"),
        "{refused}"
    );
}

async fn is_refused(store: &Sqlite, key: Bytes, value: &[u8], says: &str) {
    let value = Bytes::copy_from_slice(value);
    let refused = store.put(key, value.clone()).await.unwrap_err();
    assert!(
        refused.kind() == ErrorKind::InvalidInput && refused.message().contains(says),
        "{value:?}: {refused}"
    );
}

#[tokio::test]
async fn a_number_that_would_be_another_one_is_refused() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, i INTEGER, r REAL, n NUMERIC, s TEXT);
         CREATE TRIGGER log AFTER INSERT ON t BEGIN SELECT 1; END",
    );
    let store = open(of(&folder, Fields::All(All::All))).await;
    let key = pack(&1).unwrap();
    let object = |at: usize, cell: &str| {
        let cells = (0..5).map(|column| if column == at { cell } else { "null" });
        let fields = ["a", "i", "r", "n", "s"].into_iter().zip(cells);
        let fields: Vec<_> = fields.map(|(name, cell)| format!("\"{name}\":{cell}")).collect();
        format!("{{{}}}", fields.join(","))
    };
    for number in ["1e400", "-1e400", "12345678901234567890123", "9223372036854775809", "1e-400"] {
        for column in 0..4 {
            is_refused(&store, key.clone(), object(column, number).as_bytes(), "up to 15 digits")
                .await;
        }
        for column in 1..4 {
            let text = object(column, &format!("\" {number}\""));
            is_refused(&store, key.clone(), text.as_bytes(), "up to 15 digits").await;
        }
        // A column without a type, and one of texts, keep a text.
        for column in [0, 4] {
            let text = object(column, &format!("\" {number}\""));
            store.put(key.clone(), text.clone()).await.unwrap();
            assert_eq!(store.get(&key).await.unwrap(), Some(text.into()));
        }
    }
    let above = "9007199254740993";
    is_refused(&store, key.clone(), object(2, above).as_bytes(), "2^53").await;
    for (column, put, read) in [
        (1, above, above),
        (2, "9007199254740992", "9007199254740992.0"),
        (2, "0.10000000000000001", "0.1"),
        (2, "\"94.52706955539223\"", "94.52706955539223"),
        (3, "\"1e5\"", "100000"),
        (3, "\"1e5x\"", "\"1e5x\""),
        (4, "94.52706955539223", "\"94.52706955539223\""),
    ] {
        store.put(key.clone(), object(column, put)).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap(), Some(object(column, read).into()), "{put}");
    }
    is_refused(&store, key.clone(), object(3, "\"5\\u0000x\"").as_bytes(), "up to a NUL").await;
    is_refused(&store, key, object(0, "\"\\ud800\"").as_bytes(), "half a character").await;
}

#[tokio::test]
async fn a_column_of_json_refuses_what_it_would_change() {
    let folder = Folder::new();
    folder.foreign_did("CREATE TABLE t (k TEXT PRIMARY KEY, v JSON)");
    let config = SqliteConfig { keys: Keys::Text, values: Storage::Text, ..folder.plain() };
    let store = open(config).await;
    for number in [&b"1e400"[..], b"12345678901234567890123", b" -1e999 "] {
        is_refused(&store, "a".into(), number, "up to 15 digits").await;
    }
    is_refused(&store, "a".into(), b"\"\xff\"", "not UTF-8").await;
    for text in ["[1e400]", "\"1e400\"", "94.52706955539223"] {
        store.put("a", text).await.unwrap();
        assert_eq!(store.get(b"a").await.unwrap(), Some(text.into()));
    }
}

#[tokio::test]
async fn a_put_gives_no_row_another_number() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT);
         INSERT INTO t VALUES (7, 'a@x', 'a'), (9, 'b@x', 'b')",
    );
    let config = of(&folder, Fields::All(All::All));
    let columns = Columns { key: "email".into(), ..config.columns };
    let store = open(SqliteConfig { keys: Keys::Text, columns, ..config }).await;
    is_refused(&store, "a@x".into(), br#"{"id":null,"name":"new"}"#, "\"id\" is null").await;
    let object = r#"{"id":7,"name":"new"}"#;
    store.put("a@x", object).await.unwrap();
    assert_eq!(store.get(b"a@x").await.unwrap(), Some(object.into()));
}

fn cells() -> impl Strategy<Value = Cell> {
    prop_oneof![
        Just(Cell::Null),
        any::<i64>().prop_map(Cell::Integer),
        any::<f64>().prop_filter("JSON has no others", |n| n.is_finite()).prop_map(Cell::Real),
        "[a-z0-9\"\\\\\u{0}\u{1}é/.]{0,6}"
            .prop_filter("JSON has no infinite numbers", |text| {
                let number = text.split('\0').next().unwrap_or_default();
                !number.parse().is_ok_and(f64::is_infinite)
            })
            .prop_map(Cell::Text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// A text is a number to tierstack where it is one to SQLite.
    #[test]
    fn texts_are_numbers_where_sqlite_says_so(
        texts in proptest::collection::vec("[0-9e.+\\- \u{b}\u{a0}xinf]{0,6}", 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = Folder::new();
            folder.foreign_did("CREATE TABLE t (id INTEGER PRIMARY KEY, c REAL, d NUMERIC)");
            let (db, store) = (folder.foreign(), open(of(&folder, Fields::All(All::All))).await);
            for (at, text) in (0_i64..).zip(&texts) {
                // Those that are no numbers that JSON has are refused.
                let object = serde_json::json!({ "c": text, "d": text }).to_string();
                if store.put(pack(&(at + 1000)).unwrap(), object).await.is_ok() {
                    db.execute("INSERT INTO t VALUES (?1, ?2, ?2)", rusqlite::params![at, text]).unwrap();
                } else {
                    let number: f64 = text.trim().parse().unwrap();
                    assert!(number.is_infinite() || number == 0.0, "{text:?}");
                }
            }
            let differ = "SELECT count(*) FROM t AS x JOIN t AS y ON y.id = x.id + 1000
                WHERE x.c IS NOT y.c OR x.d IS NOT y.d OR typeof(x.c) <> typeof(y.c) OR typeof(x.d) <> typeof(y.d)";
            assert_eq!(number(&db, differ), 0);
            store.close().await.unwrap();
        });
    }

    /// What was read and is put under another key is the same row, as SQLite compares it.
    #[test]
    fn a_row_that_is_put_as_it_was_read_is_the_same(
        rows in proptest::collection::vec((cells(), cells(), cells(), cells(), proptest::collection::vec(any::<u8>(), 0..4)), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = Folder::new();
            folder.foreign_did("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b TEXT, c REAL, d NUMERIC, e BLOB)");
            let db = folder.foreign();
            for (at, (a, b, c, d, e)) in (0_i64..).zip(&rows) {
                db.execute("INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5, ?6)", rusqlite::params![at, a, b, c, d, e]).unwrap();
            }
            let store = open(of(&folder, Fields::All(All::All))).await;
            for entry in all(&store, Scan::all()).await {
                let id: i64 = crate::keys::unpack(&entry.key).unwrap();
                store.put(pack(&(id + 1000)).unwrap(), entry.value.clone()).await.unwrap();
                let again = store.get(&pack(&(id + 1000)).unwrap()).await.unwrap();
                assert_eq!(again, Some(entry.value));
            }
            let same = "SELECT count(*) FROM t AS x JOIN t AS y ON y.id = x.id + 1000
                WHERE x.a IS y.a AND x.b IS y.b AND x.c IS y.c AND x.d IS y.d AND x.e IS y.e
                AND typeof(x.a) = typeof(y.a) AND typeof(x.b) = typeof(y.b) AND typeof(x.c) = typeof(y.c)
                AND typeof(x.d) = typeof(y.d) AND typeof(x.e) = typeof(y.e)";
            assert_eq!(number(&db, same), i64::try_from(rows.len()).unwrap());
            store.close().await.unwrap();
        });
    }
}
