//! Databases with the merge operators of RocksDB itself.

use super::*;
use crate::types::Condition;

fn with(operator: &str) -> Options {
    creating()
        .get_options_from_string(format!("create_if_missing=true;merge_operator={operator}"))
        .unwrap()
}

fn number(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

/// An operator, what is merged, and what comes out of it.
type Kind = (&'static str, [Vec<u8>; 3], Vec<u8>);

fn kinds() -> Vec<Kind> {
    let text = |text: &str| text.as_bytes().to_vec();
    let texts = || [text("b"), text("c"), text("a")];
    vec![
        ("uint64add", [number(40), number(1), number(1)], number(42)),
        ("{id=stringappend;delimiter=::}", texts(), text("b::c::a")),
        ("stringappendtest", texts(), text("b,c,a")),
        ("put", texts(), text("a")),
        ("put_v1", texts(), text("a")),
        ("max", texts(), text("c")),
        ("bytesxor", [text("a"), text("b"), text("c")], vec![b'a' ^ b'b' ^ b'c']),
    ]
}

#[tokio::test]
async fn what_was_merged_is_read_as_its_owner_reads_it() {
    for (operator, merged, expected) in kinds() {
        // In the log, in a table, and one in each.
        for flushed in [0, 3, 2] {
            let folder = folder();
            let db = DB::open(&with(operator), folder.path()).unwrap();
            for (at, operand) in merged.iter().enumerate() {
                db.merge("k", operand).unwrap();
                if at + 1 == flushed {
                    db.flush().unwrap();
                }
            }
            assert_eq!(db.get("k").unwrap(), Some(expected.clone()), "{operator}");
            drop(db);
            let before = latest_options(folder.path());

            let store = open(folder.path()).await;
            let value = Some(Value::from(expected.clone()));
            assert_eq!(store.get(b"k").await.unwrap(), value, "{operator}");
            assert_eq!(
                store.get_many(&[Bytes::from("k")]).await.unwrap(),
                std::slice::from_ref(&value)
            );
            let found = all(&store, Scan::all()).await;
            assert_eq!(Some(&found[0].value), value.as_ref(), "{operator}");
            store.compact().await.unwrap();
            assert_eq!(store.get(b"k").await.unwrap(), value, "{operator}");
            let same = Batch::new().require(Condition::Equals("k".into(), expected.clone().into()));
            store.write(same.put("checked", "1")).await.unwrap().durable().await.unwrap();
            store.put("ours", merged[0].clone()).await.unwrap().durable().await.unwrap();
            store.close().await.unwrap();
            assert_eq!(latest_options(folder.path()), before);

            let db = DB::open(&with(operator), folder.path()).unwrap();
            assert_eq!(db.get("k").unwrap(), Some(expected.clone()), "{operator}");
            for operand in &merged[1..] {
                db.merge("ours", operand).unwrap();
            }
            assert_eq!(db.get("ours").unwrap(), Some(expected.clone()), "{operator}");
        }
    }
}
