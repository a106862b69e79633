//! Databases that are only read.

use std::time::SystemTime;

use super::*;
use crate::types::Conditions;

fn reading(path: &Path) -> RocksDbConfig {
    RocksDbConfig { read_only: true, inline_reads: false, ..RocksDbConfig::new(path) }
}

/// Each file with its bytes and the time of its last change, and that of the folder.
fn touched(path: &Path) -> (BTreeMap<String, Vec<u8>>, BTreeMap<String, SystemTime>) {
    let changed = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let image = image(path);
    let mut times: BTreeMap<_, _> =
        image.keys().map(|name| (name.clone(), changed(&path.join(name)))).collect();
    times.insert(".".into(), changed(path));
    (image, times)
}

/// Some entries are in a table, and some in the log.
fn others(path: &Path) {
    foreign(path, &creating(), 100);
    let db = DB::open(&creating(), path).unwrap();
    for number in 100..150 {
        db.put(key(number), format!("value-{number}")).unwrap();
    }
}

#[tokio::test]
async fn nothing_in_the_folder_is_touched() {
    let folder = folder();
    others(folder.path());
    fs::create_dir(folder.path().join("tierstack-ingest")).unwrap();
    let before = touched(folder.path());
    let store = RocksDb::open(reading(folder.path())).await.unwrap();
    assert_eq!(store.get(&key(7)).await.unwrap(), Some("value-7".into()));
    let many = store.get_many(&[key(120), key(500)]).await.unwrap();
    assert_eq!(many, [Some("value-120".into()), None]);
    assert_eq!(all(&store, Scan::all()).await.len(), 150);
    assert_eq!(store.count(b"key").await.unwrap(), Some(150));
    store.usage().await.unwrap();
    store.flush().await.unwrap();
    let run = futures_util::stream::iter([Ok(Page::default())]).boxed();
    let refused = [
        store.put("k", "v").await.unwrap_err(),
        store.write_group(vec![Batch::new().put("k", "v")]).await.remove(0).unwrap_err(),
        store.ingest(run).await.unwrap_err(),
        store.compact().await.unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Access, "{error}");
        assert!(error.message().contains("`read_only: true`"), "{error}");
    }
    assert!(touched(folder.path()) == before, "the folder was changed");
    store.close().await.unwrap();
    assert_eq!(store.get(&key(7)).await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(touched(folder.path()) == before, "closing changed the folder");
    open(folder.path()).await.close().await.unwrap();
    assert!(touched(folder.path()) != before, "the comparison sees an opening");
}

#[tokio::test]
async fn what_is_missing_is_not_made() {
    let folder = folder();
    let error = refusal(reading(&folder.path().join("db"))).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!folder.path().join("db").exists());
    others(folder.path());
    let before = touched(folder.path());
    let named = RocksDbConfig { column_family: "new".into(), ..reading(folder.path()) };
    let error = refusal(named).await;
    assert!(error.message().contains("'new'"), "{error}");
    assert!(touched(folder.path()) == before);
}

#[tokio::test]
async fn a_database_that_is_read_only_stays_as_it_was() {
    let folder = folder();
    let owner = DB::open(&creating(), folder.path()).unwrap();
    for number in 0..100 {
        owner.put(key(number), "old").unwrap();
    }
    owner.flush().unwrap();
    let store = RocksDb::open(reading(folder.path())).await.unwrap();
    for number in 0..100 {
        owner.put(key(number), "new").unwrap();
    }
    owner.flush().unwrap();
    owner.compact_range(None::<&[u8]>, None::<&[u8]>);
    let snapshot = store.snapshot().await.unwrap();
    for found in [all(&store, Scan::all()).await, all(&*snapshot, Scan::all()).await] {
        assert!(found.len() == 100 && found.iter().all(|entry| entry.value == "old".into()));
    }
}

#[test]
fn the_profile_says_that_nothing_is_written() {
    let guarantees = reading(Path::new("db")).profile().unwrap().guarantees;
    assert!(!guarantees.writable && !guarantees.ingest && guarantees.snapshots);
    assert_eq!(guarantees.conditions, Conditions::None);
    assert_eq!(guarantees.freshness, Freshness::Unbounded);
}
