//! Wide-column entities, which another program has put.

use ::rocksdb::WriteBatch;
use futures_util::stream;

use super::*;
use crate::types::Condition;

/// A batch with an entity for a key: columns in the order of their names.
fn entity(key: &[u8], columns: &[(&str, &str)]) -> WriteBatch {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let mut columned = vec![1, u8::try_from(columns.len()).unwrap()];
    for (name, value) in columns {
        columned.push(length(name.as_bytes()));
        columned.extend_from_slice(name.as_bytes());
        columned.push(length(value.as_bytes()));
    }
    columns.iter().for_each(|(_, value)| columned.extend_from_slice(value.as_bytes()));
    let mut batch = vec![0; 8];
    batch.extend_from_slice(&[1, 0, 0, 0, 0x16, length(key)]);
    batch.extend_from_slice(key);
    batch.push(length(&columned));
    batch.extend_from_slice(&columned);
    WriteBatch::from_data(&batch)
}

const PERSON: [(&str, &str); 2] = [("city", "London"), ("name", "Ada")];
const WITH_VALUE: [(&str, &str); 2] = [("", "Ada"), ("city", "London")];

fn options(compression: DBCompressionType) -> Options {
    let mut options = creating();
    options.set_compression_type(compression);
    options
}

#[tokio::test]
async fn a_database_with_entities_is_refused_whatever_its_compression() {
    for compression in [
        DBCompressionType::None,
        DBCompressionType::Snappy,
        DBCompressionType::Lz4,
        DBCompressionType::Zstd,
    ] {
        for columns in [PERSON, WITH_VALUE] {
            for flushed in [true, false] {
                let folder = folder();
                let db = DB::open(&options(compression), folder.path()).unwrap();
                for number in 0..20 {
                    db.put(key(number), format!("value-{number}")).unwrap();
                }
                db.write(entity(&key(20), &columns)).unwrap();
                if flushed {
                    db.flush().unwrap();
                }
                drop(db);
                let error = refusal(RocksDbConfig::new(folder.path())).await;
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{compression:?}");
                assert!(error.message().contains("wide columns"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn other_values_are_not_taken_for_entities() {
    for compression in [
        DBCompressionType::None,
        DBCompressionType::Snappy,
        DBCompressionType::Lz4,
        DBCompressionType::Zlib,
        DBCompressionType::Zstd,
    ] {
        let folder = folder();
        let db = DB::open(&options(compression), folder.path()).unwrap();
        let mut random = crate::testing::Random::new(7);
        for number in 0..2000 {
            let value = if number % 3 == 0 { Bytes::new() } else { random.bytes(number % 90) };
            db.put(key(number), value).unwrap();
            db.put([&[0x16; 9], &*key(number)].concat(), [0x16; 30]).unwrap();
        }
        db.flush().unwrap();
        db.put("empty", "").unwrap();
        drop(db);
        let store = open(folder.path()).await;
        assert_eq!(all(&store, Scan::all()).await.len(), 4001);
        for _ in 0..2 {
            assert_eq!(store.get(&key(3)).await.unwrap(), Some(Value::default()));
            let keys = [key(0), key(1500), "empty".into()];
            assert_eq!(store.get_many(&keys).await.unwrap(), vec![Some(Value::default()); 3]);
        }
        store.put(key(5), "").await.unwrap().durable().await.unwrap();
        assert_eq!(store.get(&key(5)).await.unwrap(), Some(Value::default()));
    }
}

/// Where opening did not see it.
#[tokio::test]
async fn an_entity_is_not_read_as_an_empty_value() {
    let folder = folder();
    let store = open(folder.path()).await;
    let (engine, person) = (store.reader.view().unwrap(), entity(b"person", &PERSON));
    engine.db().write(person).unwrap();
    engine.db().put("plain", "").unwrap();
    for flushed in [false, true] {
        if flushed {
            engine.db().flush().unwrap();
        }
        let snapshot = store.snapshot().await.unwrap();
        for view in [&store as &dyn Read, &*snapshot] {
            let errors = [
                view.get(b"person").await.unwrap_err(),
                view.get_many(&["plain".into(), "person".into()]).await.unwrap_err(),
                view.scan(Scan::all()).next().await.unwrap().unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
                assert!(error.message().contains("wide columns"), "{error}");
            }
            assert_eq!(view.get(b"plain").await.unwrap(), Some(Value::default()));
        }
    }
    drop(engine);
    store.close().await.unwrap();
}

/// Where opening did not meet it.
#[tokio::test]
async fn a_put_does_not_replace_an_entity() {
    let folder = folder();
    let db = DB::open(&creating(), folder.path()).unwrap();
    for number in 0..2000 {
        db.put(key(number), format!("value-{number}")).unwrap();
    }
    // In one table, behind its first block.
    db.write(entity(b"person", &PERSON)).unwrap();
    db.flush().unwrap();
    drop(db);
    for (sync, met) in [(true, false), (false, false), (false, true)] {
        // Says what the version in OPTIONS would: that another program wrote it.
        let config = RocksDbConfig { upgrade: true, sync, ..RocksDbConfig::new(folder.path()) };
        let store = RocksDb::open(config).await.unwrap();
        if met {
            // From now on it is in memory.
            assert!(store.get(b"person").await.is_err());
        }
        let run = |values: usize| {
            let put = |key: Bytes, bytes| Entry { key, value: Value::new(vec![b'v'; bytes]) };
            let mut entries: Vec<_> = (0..values).map(|n| put(key(n), 1 << 20)).collect();
            entries.push(put("person".into(), 1));
            stream::iter([Ok(Page { entries })]).boxed()
        };
        let both = Batch::new().put(key(5), "x").put("person", "x");
        let on_condition = both.clone().require(Condition::absent("new"));
        let group = store.write_group(vec![both.clone(), Batch::new().put(key(6), "x")]).await;
        let errors = [
            store.put("person", "x").await.map(drop).unwrap_err(),
            store.write(both).await.map(drop).unwrap_err(),
            store.write(on_condition).await.map(drop).unwrap_err(),
            group.into_iter().next().unwrap().map(drop).unwrap_err(),
            store.ingest(run(0)).await.map(drop).unwrap_err(),
            store.ingest(run(6)).await.map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert!(error.message().contains("wide columns"), "{error}");
            assert_eq!(error.key(), Some(&b"person"[..]));
        }
        assert!(store.get(b"person").await.is_err(), "it is there");
        assert_eq!(store.get(&key(5)).await.unwrap(), Some("value-5".into()));
        let others = Batch::new().put(key(6), "value-6").put("new", "x").delete("new");
        let _ = store.write(others).await.unwrap();
        store.close().await.unwrap();
    }
    let config = RocksDbConfig { upgrade: true, ..RocksDbConfig::new(folder.path()) };
    let store = RocksDb::open(config).await.unwrap();
    store.delete("person").await.unwrap().durable().await.unwrap();
    assert_eq!(store.get(b"person").await.unwrap(), None);
}

/// A put reads nothing where no entity can be.
#[tokio::test]
async fn a_database_of_ones_own_is_not_looked_at() {
    let folder = folder();
    open(folder.path()).await.close().await.unwrap();
    let store = open(folder.path()).await;
    let engine = store.reader.view().unwrap();
    engine.db().write(entity(b"person", &PERSON)).unwrap();
    drop(engine);
    store.put("person", "x").await.unwrap().durable().await.unwrap();
    assert_eq!(store.get(b"person").await.unwrap(), Some("x".into()));
}
