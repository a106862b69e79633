//! Databases with a time to live (`DBWithTTL`).

use std::time::Duration;

use super::*;
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::types::Condition;
use crate::types::units::Span;

const TTL: Duration = Duration::from_secs(3600);

fn config(path: &Path, ttl: Duration) -> RocksDbConfig {
    RocksDbConfig { ttl: Some(Span(ttl)), inline_reads: false, ..RocksDbConfig::new(path) }
}

async fn open_at(clock: &ManualClock, path: &Path, ttl: Duration) -> RocksDb {
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    RocksDb::open_with(config(path, ttl), &context).await.unwrap()
}

/// An owner's database, with entries in a table and in the log.
fn owned(path: &Path, options: &Options, ttl: Duration) {
    let db = DB::open_with_ttl(options, path, ttl).unwrap();
    for number in 0..100 {
        db.put(key(number), format!("value-{number}")).unwrap();
    }
    db.flush().unwrap();
    db.put("in the log", "").unwrap();
}

#[tokio::test]
async fn values_are_read_and_written_without_their_stamps_and_end_as_for_the_owner() {
    let folder = folder();
    owned(folder.path(), &creating(), TTL);
    let before = latest_options(folder.path());
    let began = SystemClock::shared().now();
    let clock = ManualClock::new();
    let store = open_at(&clock, folder.path(), TTL).await;
    let found = store.get(&key(7)).await.unwrap().unwrap();
    assert_eq!(found.bytes, "value-7");
    let ends = found.expires_at.unwrap();
    let left = ends.since(began);
    assert!(
        left > TTL - Duration::from_secs(600) && left <= TTL + Duration::from_secs(1),
        "{left:?}"
    );
    assert_eq!(store.get_many(&[key(7), key(500)]).await.unwrap(), [Some(found.clone()), None]);
    let all_of_them = all(&store, Scan::all()).await;
    assert_eq!(all_of_them.len(), 101);
    assert_eq!(all_of_them[0].value.bytes, "", "an empty value");
    assert_eq!(all_of_them[8].value, found);

    // Ours get a stamp of the clock.
    let same = Condition::Equals(key(7), found.clone());
    store
        .write(Batch::new().require(same).put("ours", "v"))
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    let ours = store.get(b"ours").await.unwrap().unwrap();
    assert_eq!(ours.expires_at.unwrap().since(clock.now()), TTL + Duration::from_secs(1));
    let entry = |n: usize| Entry { key: key(1000 + n), value: vec![7; 100_000].into() };
    let page = Page { entries: (0..60).map(entry).collect() };
    store.ingest(futures_util::stream::iter([Ok(page)]).boxed()).await.unwrap();
    assert_eq!(store.get(&key(1001)).await.unwrap().unwrap().bytes.len(), 100_000);
    assert_eq!(store.count(b"").await.unwrap(), Some(162));

    // When its time is over, an entry is gone, whether a compaction has removed it or not.
    clock.advance(TTL + Duration::from_secs(1));
    assert_eq!(store.get(b"ours").await.unwrap(), None);
    assert_eq!(store.get_many(&["ours".into()]).await.unwrap(), [None]);
    assert_eq!(all(&store, Scan::all()).await.len(), 101);
    assert_eq!(store.count(b"").await.unwrap(), Some(101));
    store.close().await.unwrap();

    assert_eq!(latest_options(folder.path()), before);
    let db = DB::open_with_ttl(&creating(), folder.path(), TTL).unwrap();
    assert_eq!(db.get("ours").unwrap(), Some(b"v".to_vec()));
    assert_eq!(db.get(key(7)).unwrap(), Some(b"value-7".to_vec()));
    assert_eq!(db.get(key(1001)).unwrap().unwrap().len(), 100_000);
}

/// The clock of the test is years behind that of the machine, by which RocksDB tells what is old.
#[tokio::test]
async fn a_compaction_removes_what_is_over_as_that_of_the_owner_does() {
    let folder = folder();
    owned(folder.path(), &creating(), TTL);
    let store = open_at(&ManualClock::new(), folder.path(), TTL).await;
    store.put("old", "v").await.unwrap().durable().await.unwrap();
    assert!(store.get(b"old").await.unwrap().is_some());
    store.compact().await.unwrap();
    assert_eq!(store.get(b"old").await.unwrap(), None);
    assert!(store.get(&key(7)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_merge_operator_below_a_time_to_live_is_known() {
    let folder = folder();
    let options = creating()
        .get_options_from_string("create_if_missing=true;merge_operator=uint64add")
        .unwrap();
    let db = DB::open_with_ttl(&options, folder.path(), Duration::ZERO).unwrap();
    let number = |number: u64| number.to_le_bytes();
    db.merge("k", number(40)).unwrap();
    db.flush().unwrap();
    db.merge("k", number(2)).unwrap();
    drop(db);
    let store = RocksDb::open(config(folder.path(), Duration::ZERO)).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some(number(42).to_vec().into()));
    store.compact().await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some(number(42).to_vec().into()));
}

#[tokio::test]
async fn a_time_to_live_is_named_as_it_is() {
    let (with, without) = (folder(), folder());
    owned(with.path(), &creating(), TTL);
    foreign(without.path(), &creating(), 10);
    let before = (image(with.path()), image(without.path()));
    let error = refusal(RocksDbConfig::new(with.path())).await;
    assert!(error.message().contains("set `ttl: 1h`"), "{error}");
    let error = refusal(config(with.path(), Duration::from_secs(60))).await;
    assert!(error.message().contains("set `ttl: 1h`"), "{error}");
    let error = refusal(config(without.path(), TTL)).await;
    assert!(error.message().contains("leave `ttl` out"), "{error}");
    let named = |path: &Path, ttl| RocksDbConfig {
        column_family: "new".into(),
        ttl,
        ..RocksDbConfig::new(path)
    };
    for refused in [named(with.path(), None), named(with.path(), Some(Span(TTL)))] {
        let error = refusal(refused).await;
        assert!(error.message().contains("'new'"), "{error}");
    }
    assert!((image(with.path()), image(without.path())) == before);
    let error = refusal(config(&without.path().join("new"), TTL)).await;
    assert!(error.message().contains("`expire`"), "{error}");
    assert!(!without.path().join("new").exists());
}

/// What an owner has put without a time to live, by mistake.
#[tokio::test]
async fn a_value_without_a_stamp_is_no_entry_and_no_panic() {
    let folder = folder();
    owned(folder.path(), &creating(), TTL);
    let db = DB::open(&creating(), folder.path()).unwrap();
    db.put("short", "abc").unwrap();
    db.put("early", [b'v', 0, 0, 0, 0]).unwrap();
    drop(db);
    let newest =
        names(folder.path()).into_iter().rfind(|name| name.starts_with("OPTIONS-")).unwrap();
    fs::remove_file(folder.path().join(newest)).unwrap();
    let store = RocksDb::open(config(folder.path(), TTL)).await.unwrap();
    for key in [&b"short"[..], b"early"] {
        assert_eq!(store.get(key).await.unwrap_err().kind(), ErrorKind::Corruption);
    }
    let pages: Vec<_> = store.scan(Scan::prefix("short")).collect().await;
    assert_eq!(pages[0].as_ref().unwrap_err().kind(), ErrorKind::Corruption);
    assert!(store.get(&key(7)).await.unwrap().is_some());
}
