//! Keys that are numbers, or of several columns, with another program at the same time.

use proptest::prelude::*;

use super::*;
use crate::Condition;
use crate::error::ErrorKind;
use crate::keys::{Part, pack, range, unpack};

/// The table `t` with the value `v`.
fn of(folder: &Folder, keys: Keys, names: &[&str]) -> SqliteConfig {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let columns = Columns { key: KeyColumns::Several(names), ..columns("k", "v") };
    SqliteConfig { keys, columns, ..folder.plain() }
}

fn keys_of(entries: &[Entry]) -> Vec<Bytes> {
    entries.iter().map(|entry| entry.key.clone()).collect()
}

#[tokio::test]
async fn numbers_are_keys() {
    for (table, keys, [nine, ten]) in [
        ("k INTEGER PRIMARY KEY, v, note", Keys::Tuple, [pack(&9).unwrap(), pack(&10).unwrap()]),
        ("k BIGINT PRIMARY KEY, v, note", Keys::Tuple, [pack(&9).unwrap(), pack(&10).unwrap()]),
        (
            "k INTEGER PRIMARY KEY DESC, v, note",
            Keys::Tuple,
            [pack(&9).unwrap(), pack(&10).unwrap()],
        ),
        ("k INTEGER PRIMARY KEY, v, note", Keys::Text, ["9".into(), "10".into()]),
    ] {
        let folder = Folder::new();
        folder.foreign_did(&format!(
            "CREATE TABLE t ({table}); INSERT INTO t VALUES (10, 'ten', 'kept'), (9, 'nine', 'kept')"
        ));
        let config = of(&folder, keys, &["k"]);
        let config = SqliteConfig { scans: keys == Keys::Tuple, ..config };
        let store = open(config.clone()).await;
        assert_eq!(store.get(&nine).await.unwrap(), Some("nine".into()), "{table}");
        let both = store.get_many(&[ten.clone(), nine.clone()]).await.unwrap();
        assert_eq!(both, [Some("ten".into()), Some("nine".into())]);
        let held = Condition::equals(ten.clone(), "ten");
        store.write(Batch::new().put(ten.clone(), "new").require(held)).await.unwrap();
        let absent = Batch::new().put(nine.clone(), "other").if_absent();
        assert_eq!(store.write(absent).await.unwrap_err().kind(), ErrorKind::Conflict);
        let asked = "SELECT count(*) FROM t WHERE k = 10 AND typeof(k) = 'integer' AND v = x'6e6577' AND note = 'kept'";
        assert_eq!(number(&folder.foreign(), asked), 1, "{table}");
        if keys == Keys::Tuple {
            let found = all(&store, Scan::all().page_entries(1)).await;
            assert_eq!(keys_of(&found), [nine.clone(), ten.clone()], "{table}");
            assert_eq!(store.count(b"").await.unwrap(), Some(2));
        } else {
            let refused = store.collect(Scan::all()).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported);
            assert!(refused.message().contains("`keys: tuple`"), "{refused}");
            assert_eq!(store.count(b"").await.unwrap(), None);
            let refused = refusal(SqliteConfig { scans: true, ..config }).await;
            assert!(refused.message().contains("`scans: false`"), "{refused}");
            for other in ["09", "+9", "9.0", "x", "9223372036854775808"] {
                let refused = store.get(other.as_bytes()).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{other}");
                assert!(store.put(other, "v").await.is_err() && store.delete(other).await.is_err());
            }
        }
        store.delete(nine.clone()).await.unwrap();
        assert_eq!(number(&folder.foreign(), "SELECT count(*) FROM t"), 1);
        // A restore looks for its mark, and cannot write one.
        assert_eq!(store.get(b"\0tierstack/restore").await.unwrap(), None);
        let refused = store.put("\0tierstack/restore", "v").await.unwrap_err();
        assert!(refused.message().contains("restore into another store"), "{refused}");
    }
}

#[tokio::test]
async fn several_columns_are_a_key() {
    for rowid in ["", " WITHOUT ROWID"] {
        for keys in [Keys::Tuple, Keys::Text] {
            let folder = Folder::new();
            folder.foreign_did(&format!(
                "CREATE TABLE t (org TEXT, id INTEGER, part BLOB, v TEXT, PRIMARY KEY (org, id, part)){rowid};
                 INSERT INTO t VALUES ('a/b', 10, x'00ff', 'ten'), ('a/b', 9, x'', 'nine'), ('a', 1, x'01', 'one')"
            ));
            let config = of(&folder, keys, &["org", "id", "part"]);
            let config =
                SqliteConfig { scans: keys == Keys::Tuple, values: Storage::Text, ..config };
            let store = open(config).await;
            let key = |org: &str, id: i64, part: &[u8]| match keys {
                Keys::Tuple => {
                    let part = Part::Bytes(Bytes::copy_from_slice(part));
                    pack(&vec![Part::from(org), Part::from(id), part]).unwrap()
                }
                _ => {
                    let part: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
                    format!("{}/{id}/{part}", org.replace('/', "%2F")).into()
                }
            };
            let ten = key("a/b", 10, &[0, 0xff]);
            assert_eq!(store.get(&ten).await.unwrap(), Some("ten".into()), "{keys:?}");
            store.put(ten.clone(), "new").await.unwrap();
            store.put(key("z", -1, b"p"), "put").await.unwrap();
            let asked = "SELECT count(*) FROM t WHERE (org, id, part, v) IN (VALUES ('a/b', 10, x'00ff', 'new'), ('z', -1, x'70', 'put'))";
            assert_eq!(number(&folder.foreign(), asked), 2, "{keys:?}");
            if keys == Keys::Tuple {
                let found = all(&store, Scan::range(range(&"a/b").unwrap())).await;
                assert_eq!(keys_of(&found), [key("a/b", 9, b""), ten.clone()]);
                let found = all(&store, Scan::all().reverse().page_entries(2)).await;
                assert_eq!(found.len(), 4);
                assert!(keys_of(&found).is_sorted_by(|a, b| a > b));
            }
            store.delete(ten.clone()).await.unwrap();
            assert_eq!(store.get(&ten).await.unwrap(), None);
            assert_eq!(number(&folder.foreign(), "SELECT count(*) FROM t"), 3);
            assert!(store.get(b"a").await.is_err());
        }
    }
}

#[tokio::test]
async fn several_columns_are_found_by_their_index() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (org TEXT COLLATE NOCASE NOT NULL, id INTEGER NOT NULL, v); CREATE UNIQUE INDEX i ON t (org COLLATE BINARY, id)",
    );
    let config = of(&folder, Keys::Tuple, &["org", "id"]);
    let mut layout = Layout::new(&config);
    let store = open(config.clone()).await;
    let db = folder.foreign();
    layout.adapt(&config, &db).unwrap();
    let mut queries = vec![layout.get.clone(), layout.delete.clone()];
    for scan in [Scan::range(pack(&"a").unwrap()..pack(&"b").unwrap()), Scan::all().reverse()] {
        queries.push(layout.scan(&scan, &layout.key.range(&scan).unwrap()));
    }
    for sql in queries {
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let bounds = rusqlite::params_from_iter(vec![1; statement.parameter_count()]);
        let steps: Vec<String> =
            statement.query_map(bounds, |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        let by_index = steps.iter().all(|step| step.contains("INDEX i"));
        assert!(by_index && steps.len() == 1, "{sql}: {steps:?}");
    }
    store
        .write(Batch::new().put(pack(&("a", 1)).unwrap(), "v").put(pack(&("A", 1)).unwrap(), "w"))
        .await
        .unwrap();
    let found = all(&store, Scan::all()).await;
    assert_eq!(unpack::<(String, i64)>(&found[0].key).unwrap(), ("A".to_owned(), 1));
}

#[tokio::test]
async fn what_has_no_order_or_no_key_is_refused_with_the_index_that_would_help() {
    for (sql, keys, names, helps) in [
        (
            "CREATE TABLE t (a INTEGER, b TEXT, v, PRIMARY KEY (b, a))",
            Keys::Tuple,
            &["a", "b"][..],
            "CREATE INDEX \"t_order\" ON \"t\" (\"a\" COLLATE BINARY, \"b\" COLLATE BINARY)",
        ),
        (
            "CREATE TABLE t (a INTEGER, b TEXT, v); CREATE UNIQUE INDEX i ON t (a, b DESC)",
            Keys::Tuple,
            &["a", "b"],
            "CREATE INDEX \"t_order\" ON \"t\" (\"a\" COLLATE BINARY, \"b\" COLLATE BINARY)",
        ),
        (
            "CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY, v)",
            Keys::Text,
            &["a"],
            "CREATE UNIQUE INDEX \"t_key\" ON \"t\" (\"a\" COLLATE BINARY)",
        ),
    ] {
        let folder = Folder::new();
        folder.foreign_did(sql);
        let config = of(&folder, keys, names);
        let refused = refusal(config.clone()).await;
        assert!(
            refused.kind() == ErrorKind::Config && refused.message().contains(helps),
            "{refused}"
        );
        if keys == Keys::Tuple {
            let without = SqliteConfig { scans: false, ..config.clone() };
            assert!(!without.profile().unwrap().guarantees.ordered_scans);
            let store = open(without).await;
            let key = pack(&(1, "b")).unwrap();
            store.put(key.clone(), "v").await.unwrap();
            assert_eq!(store.get(&key).await.unwrap(), Some("v".into()));
            let refused = store.collect(Scan::all()).await.unwrap_err();
            assert!(refused.message().contains(helps), "{refused}");
            store.close().await.unwrap();
        }
        folder.foreign_did(helps);
        let store = open(config).await;
        let _ = all(&store, Scan::all()).await;
    }
    for (sql, words) in [
        ("CREATE TABLE t (k REAL PRIMARY KEY, v)", "it must be INTEGER, TEXT or BLOB"),
        ("CREATE TABLE t (k PRIMARY KEY, v)", "it must be INTEGER, TEXT or BLOB"),
        (
            "CREATE TABLE t (k INT PRIMARY KEY, v); INSERT INTO t VALUES ('x', 1)",
            "of type text and not integer",
        ),
        (
            "CREATE TABLE t (k INT PRIMARY KEY, v); INSERT INTO t VALUES (1.5, 1)",
            "of type real and not integer",
        ),
        (
            "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES (NULL, 1)",
            "of type null and not text",
        ),
        ("CREATE TABLE t (k INTEGER PRIMARY KEY, v, w); DROP TABLE t", "their types are not known"),
    ] {
        let folder = Folder::new();
        folder.foreign_did(sql);
        let refused = refusal(of(&folder, Keys::Tuple, &["k"])).await;
        assert_eq!(refused.kind(), ErrorKind::Config);
        assert!(refused.message().contains(words), "{sql}: {refused}");
    }
}

#[tokio::test]
async fn a_text_with_a_nul_is_no_key() {
    for keys in [Keys::Tuple, Keys::Text] {
        let folder = Folder::new();
        folder.foreign_did(
            "CREATE TABLE t (a TEXT, b TEXT, v, PRIMARY KEY (a, b)); INSERT INTO t VALUES ('x' || char(0), 'y', 'v')",
        );
        let config = of(&folder, keys, &["a", "b"]);
        let store = open(SqliteConfig { scans: keys == Keys::Tuple, ..config }).await;
        if keys == Keys::Tuple {
            let refused = store.collect(Scan::all()).await.unwrap_err();
            assert!(
                refused.kind() == ErrorKind::Corruption && refused.message().contains("NUL"),
                "{refused}"
            );
        }
        // A key of tierstack's own is in no row, however it is looked for.
        let mark = Bytes::from_static(b"\0tierstack/restore");
        assert_eq!(store.get(&mark).await.unwrap(), None);
        assert_eq!(store.get_many(std::slice::from_ref(&mark)).await.unwrap(), [None]);
        let refused = store.put(mark, "v").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }
}

/// What is behind the first and before the last is found when it is read.
#[tokio::test]
async fn a_cell_that_is_no_key_is_named_where_it_is_read() {
    let folder = Folder::new();
    folder.foreign_did(
        "CREATE TABLE t (a TEXT, b INTEGER, v, PRIMARY KEY (a, b)); INSERT INTO t VALUES ('a', 1, 'v'), ('b', 'x', 'v'), ('c', 1, 'v')",
    );
    let store = open(of(&folder, Keys::Tuple, &["a", "b"])).await;
    let refused = store.collect(Scan::all()).await.unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Corruption && refused.message().contains("INTEGER"),
        "{refused}"
    );
    assert_eq!(all(&store, Scan::range(pack(&"c").unwrap()..)).await.len(), 1);
    // Another table takes its name.
    folder.foreign_did("DROP TABLE t; CREATE TABLE t (a TEXT, b TEXT, v, PRIMARY KEY (a, b))");
    assert!(store.put(pack(&("a", 1)).unwrap(), "v").await.is_err());
    let refused = store.put(pack(&("a", 2)).unwrap(), "v").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn what_has_expired_is_removed_by_any_key() {
    for (keys, names) in [(Keys::Tuple, &["a", "b"][..]), (Keys::Text, &["b"])] {
        let folder = Folder::new();
        folder.foreign_did("CREATE TABLE t (a TEXT DEFAULT 'x', b INTEGER, v, until INTEGER, PRIMARY KEY (a, b)); CREATE UNIQUE INDEX i ON t (b)");
        let config = of(&folder, keys, names);
        let columns = Columns { expires: Some("until".into()), ..config.columns };
        let clock = ManualClock::new();
        let config =
            SqliteConfig { columns, sweep: Some(true), scans: keys == Keys::Tuple, ..config };
        let store = open_at(config, &clock).await;
        for n in 0..600_i64 {
            let key = match keys {
                Keys::Tuple => pack(&("x", n)).unwrap(),
                _ => n.to_string().into(),
            };
            let mut value = Value::from("v");
            if n % 2 == 0 {
                value.expires_at = Some(clock.now() + Duration::from_millis(1 + n.unsigned_abs()));
            }
            store.put(key, value).await.unwrap();
        }
        clock.advance(Duration::from_secs(10));
        store.compact().await.unwrap();
        assert_eq!(number(&folder.foreign(), "SELECT count(*) FROM t"), 300);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// By SQLite's own comparison.
    #[test]
    fn tuples_sort_as_sqlite_sorts(
        rows in proptest::collection::btree_set(
            (
                prop_oneof![Just(i64::MIN), Just(-1), Just(0), Just(255), Just(256), Just(i64::MAX), any::<i64>()],
                "[a-c/%\u{1}\u{e9}\u{ffff}\u{10ffff}]{0,3}",
                proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 0..3),
            ),
            1..40,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for names in [["a", "b", "c"], ["c", "a", "b"]] {
                let folder = Folder::new();
                folder.foreign_did(&format!(
                    "CREATE TABLE t (a INTEGER, b TEXT, c BLOB, v BLOB, PRIMARY KEY ({}))", names.join(", ")
                ));
                let db = folder.foreign();
                for (a, b, c) in &rows {
                    db.execute("INSERT INTO t VALUES (?1, ?2, ?3, x'00')", rusqlite::params![a, b, c]).unwrap();
                }
                let asked = format!("SELECT a, b, c FROM t ORDER BY {}", names.join(", "));
                let mut statement = db.prepare(&asked).unwrap();
                let theirs: Vec<(i64, String, Vec<u8>)> = statement
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                    .unwrap()
                    .map(Result::unwrap)
                    .collect();
                let theirs: Vec<Bytes> = theirs
                    .into_iter()
                    .map(|(a, b, c)| {
                        let mut parts = vec![Part::from(a), Part::from(b.as_str()), Part::Bytes(c.into())];
                        if names[0] == "c" {
                            parts.rotate_right(1);
                        }
                        pack(&parts).unwrap()
                    })
                    .collect();
                let store = open(of(&folder, Keys::Tuple, &names)).await;
                assert_eq!(keys_of(&all(&store, Scan::all().page_entries(7)).await), theirs);
                for (at, key) in theirs.iter().enumerate() {
                    assert!(store.get(key).await.unwrap().is_some());
                    let between = Bytes::from([&key[..], &[0]].concat());
                    for (bound, first) in [(key.clone(), at), (between, at + 1)] {
                        assert_eq!(keys_of(&all(&store, Scan::range(bound.clone()..)).await), theirs[first..]);
                        assert_eq!(keys_of(&all(&store, Scan::range(..bound)).await), theirs[..first]);
                    }
                }
                store.close().await.unwrap();
            }
        });
    }
}
