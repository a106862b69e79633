//! Repositories written by earlier versions are read for ever.

use std::path::PathBuf;
use std::time::Duration;

use object_store::ObjectStoreExt;
use tierstack::backends::Memory;
use tierstack::backup::{self, Level, Location, Repository, RepositoryOptions, Restore, Target};
use tierstack::{Batch, Clock, ManualClock, Store, Value};

use super::support::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/backup").join(name)
}

/// What each fixture holds: an empty value, keys at the ends of the order, an expiry in the
/// year 2999, and a value in pieces; in the second base one is changed, one added and one gone.
fn expected(second: bool) -> Batch {
    let far = "2999-01-01T00:00:00Z".parse().unwrap();
    let mut batch = Batch::new()
        .put(vec![0u8], "first")
        .put(vec![0xffu8; 3], "last")
        .put("empty", "")
        .put("expiring", Value::new("until 2999").expiring_at(far));
    for number in 0..40u32 {
        let value = format!("value {} ", number * 7).repeat(number as usize);
        batch = batch.put(format!("key-{number:03}"), value);
    }
    if second {
        batch = batch.put("key-010", "changed").put("new", "added").delete("key-020");
    }
    batch
}

#[tokio::test]
async fn every_format_is_read() {
    for version in ["v1", "v2"] {
        read(version).await;
    }
}

async fn read(version: &str) {
    let clock_at = ManualClock::new();
    let place = Location::Folder(fixture(version));
    let repository = Repository::open_at(&place, clock(&clock_at)).await.unwrap();
    let bases = repository.bases().await.unwrap();
    assert_eq!(bases.len(), 2);
    let report = repository.verify(Level::All, &|_| ()).await.unwrap();
    assert!(report.is_intact() && report.orphans == 0, "{report:?}");
    for (base, second) in [(&bases[0], false), (&bases[1], true)] {
        let original = Memory::with_clock(clock(&clock_at));
        let _ = original.write(expected(second)).await.unwrap();
        let (back, _) = restore(&repository, Target::Base(base.id.clone())).await.unwrap();
        assert_eq!(all(&back).await, all(&original).await);
    }
    let plan = repository.plan(Target::Latest).await.unwrap();
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["base"]["entries"], 44);
    for (prefix, entries) in [("key-00", 10), ("e", 2), ("key-0333", 0), ("key-039", 1)] {
        let options = Restore { prefix: prefix.into(), ..Restore::default() };
        let target = Memory::with_clock(clock(&clock_at));
        backup::restore(&repository, &plan, &target, &options, &|_| ()).await.unwrap();
        assert_eq!(all(&target).await.len(), entries, "{version}: {prefix}");
    }
}

/// A base goes on from one of an earlier version, and shares its packs.
#[tokio::test]
async fn a_base_on_top_of_format_1_uploads_nothing_again() {
    let objects = std::sync::Arc::new(object_store::memory::InMemory::new());
    let folder = object_store::local::LocalFileSystem::new_with_prefix(fixture("v1")).unwrap();
    for (path, bytes) in objects_of(&folder).await {
        objects.put(&path, bytes.into()).await.unwrap();
    }
    let clock_at = ManualClock::new();
    let repository = open(&objects).await.unwrap();
    let store = Memory::with_clock(clock(&clock_at));
    let _ = store.write(expected(true)).await.unwrap();
    assert_eq!(take(&store, &repository).await.base.uploaded_bytes, 0);
    assert_intact(&repository).await;
    let (back, _) = restore(&repository, Target::Latest).await.unwrap();
    assert_eq!(all(&back).await, all(&store).await);
}

/// Writes the fixture: only for a new format, into a new folder.
#[tokio::test]
#[ignore = "writes a fixture"]
async fn write_the_fixture() {
    let time = ManualClock::new();
    let place = fixture("new");
    std::fs::create_dir_all(&place).unwrap();
    let objects = object_store::local::LocalFileSystem::new_with_prefix(&place).unwrap();
    let options: RepositoryOptions = small();
    let repository =
        Repository::create_or_open_with(std::sync::Arc::new(objects), clock(&time), &options)
            .await
            .unwrap();
    for second in [false, true] {
        let store = Memory::with_clock(clock(&time));
        let _ = store.write(expected(second)).await.unwrap();
        backup::run(&store, &repository, &|_| ()).await.unwrap();
        time.advance(Duration::from_secs(3600));
    }
    let plan = repository.plan(Target::Latest).await.unwrap();
    let target = Memory::with_clock(clock(&time));
    backup::restore(&repository, &plan, &target, &Restore::default(), &|_| ()).await.unwrap();
    assert!(time.now() > plan.reached);
}
