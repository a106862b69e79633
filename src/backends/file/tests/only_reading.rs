//! A folder that is only read, and its owner.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::super::{FileConfig, FileStore};
use super::*;
use crate::error::ErrorKind;
use crate::ext::{ReadExt, StoreExt};
use crate::layer::BackendConfig;
use crate::store::{Read, Store};
use crate::types::Batch;

fn reading(path: &Path) -> FileConfig {
    FileConfig { read_only: true, ..FileConfig::new(path) }
}

/// What is in a folder, with times: a lock that was taken has written to its file.
fn things(path: &Path) -> BTreeMap<std::path::PathBuf, (Option<Vec<u8>>, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for thing in std::fs::read_dir(folder).unwrap() {
            let thing = thing.unwrap();
            let about = thing.metadata().unwrap();
            let content = about.is_file().then(|| std::fs::read(thing.path()).unwrap());
            folders.extend(about.is_dir().then(|| thing.path()));
            found.insert(thing.path(), (content, about.modified().unwrap()));
        }
    }
    found
}

#[tokio::test]
async fn a_folder_that_is_only_read_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("docs")).unwrap();
    std::fs::write(folder.path().join("docs/Read.me"), "hello").unwrap();
    let before = things(folder.path());
    let store = FileStore::open(reading(folder.path())).await.unwrap();
    assert_eq!(store.get(b"docs/Read.me").await.unwrap(), Some("hello".into()));
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 1);
    assert_eq!(store.count(b"").await.unwrap(), Some(1));
    for batch in [Batch::new().put("a", "1"), Batch::new().put("a", "1").delete("b")] {
        let refused = store.write(batch).await.unwrap_err();
        assert!(
            refused.kind() == ErrorKind::Access && refused.message().contains("`read_only: true`"),
            "{refused}"
        );
    }
    store.flush().await.unwrap();
    store.close().await.unwrap();
    assert!(things(folder.path()) == before);
    let missing = FileStore::open(reading(&folder.path().join("none"))).await.unwrap_err();
    assert!(missing.message().contains("`read_only: true`"), "{missing}");
    assert!(things(folder.path()) == before);
}

#[tokio::test]
async fn a_folder_is_read_beside_its_owner_as_that_named_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let owner =
        FileStore::open(FileConfig { fan_out: Some(vec![2]), ..FileConfig::new(folder.path()) });
    let owner = owner.await.unwrap();
    owner.write(Batch::new().put("abcd", "1").put("README.md", "2")).await.unwrap();
    let before = things(folder.path());
    let store = FileStore::open(reading(folder.path())).await.unwrap();
    let keys: Vec<_> =
        store.collect(Scan::all()).await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["README.md", "abcd"]);
    assert!(things(folder.path()) == before, "its lock and layout are the owner's");
    owner.put("abcd", "new").await.unwrap();
    assert_eq!(store.get(b"abcd").await.unwrap(), Some("new".into()));
    store.close().await.unwrap();
    owner.put("abcd", "newer").await.unwrap();
    owner.close().await.unwrap();
    let guarantees = reading(folder.path()).profile().unwrap().guarantees;
    assert!(!guarantees.writable && !guarantees.ingest && !guarantees.atomic_pages);
}
