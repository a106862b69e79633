//! What was backed up comes back, and what did not change is not uploaded again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use tierstack::backends::Memory;
use tierstack::backup::{
    self, Level, Location, RESERVED_PREFIX, Repository, Restore, Target, unfinished_restore,
};
use tierstack::{
    Batch, Clock, Entry, ErrorKind, Guarantees, ManualClock, Read, Store, StoreExt, SystemClock,
    Timestamp, Value,
};

use super::support::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_entries_come_back_exactly(
        entries in prop::collection::btree_map(
            prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1..20),
            (prop::collection::vec(any::<u8>(), 0..300), prop::option::of(1u64..1000)),
            0..120,
        ),
    ) {
        tokio_test::block_on(async {
            let time = ManualClock::new();
            let store = Memory::with_clock(clock(&time));
            for (key, (value, expiry)) in entries {
                let mut value = Value::new(value);
                value.expires_at = expiry.map(|s| time.now() + Duration::from_secs(s));
                let _ = store.put(key, value).await.unwrap();
            }
            let objects = Arc::new(InMemory::new());
            let repository = repository(&objects, &time).await;
            let taken = take(&store, &repository).await;
            assert_intact(&repository).await;
            let (back, restored) = restore(&repository, Target::Latest).await.unwrap();
            assert_eq!(all(&back).await, all(&store).await);
            assert!(restored.proven);
            assert_eq!(restored.entries, taken.base.entries);
        });
    }
}

#[tokio::test]
async fn a_large_value_and_the_longest_key_come_back() {
    let store = Memory::new();
    let large: Vec<u8> =
        (0..5_500_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let _ = store.put("large", large.clone()).await.unwrap();
    let _ = store.put(vec![0xffu8; 65_536], "at the longest key").await.unwrap();
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository = Repository::create_or_open(objects, SystemClock::shared()).await.unwrap();
    let taken = take(&store, &repository).await;
    assert_eq!(taken.base.longest_value, 5_500_000);
    let (back, _) = restore(&repository, Target::Latest).await.unwrap();
    assert_eq!(all(&back).await, all(&store).await);
    assert_eq!(back.get(b"large").await.unwrap(), Some(large.into()));
}

#[tokio::test]
async fn what_did_not_change_is_not_uploaded_again() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    let store = filled(2000).await;
    let first = take(&store, &repository).await.base;
    assert!(first.uploaded_bytes > 40_000);

    let same = take(&store, &repository).await;
    assert_eq!(same.base.uploaded_bytes, 0);
    assert_eq!(same.base.digest, first.digest);
    assert_eq!(same.base.parent, Some(first.id));

    put(&store, 1000, 7).await;
    let _ = store.delete("key-000500").await.unwrap();
    let changed = take(&store, &repository).await.base;
    assert!(changed.uploaded_bytes > 0);
    assert!(changed.uploaded_bytes * 20 < first.uploaded_bytes, "{}", changed.uploaded_bytes);
    assert_intact(&repository).await;
    let (back, _) = restore(&repository, Target::Latest).await.unwrap();
    assert_eq!(all(&back).await, all(&store).await);
}

#[tokio::test]
async fn each_base_is_of_its_moment() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    let store = filled(50).await;
    let mut moments: Vec<(Timestamp, Vec<Entry>)> = Vec::new();
    for version in 100..104 {
        time.advance(Duration::from_secs(60));
        put(&store, version % 50, version).await;
        let base = take(&store, &repository).await.base;
        moments.push((base.time, all(&store).await));
    }
    assert_eq!(repository.bases().await.unwrap().len(), 4);
    for (moment, entries) in &moments {
        for after in [0, 1, 59_999] {
            let target = Target::At(*moment + Duration::from_millis(after));
            let (back, restored) = restore(&repository, target).await.unwrap();
            assert_eq!(restored.reached, *moment);
            assert_eq!(all(&back).await, *entries);
        }
    }
    let before = Timestamp::from_millis(moments[0].0.as_millis() - 1);
    let error = restore(&repository, Target::At(before)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_and_is_set_again_hides_no_base() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let ahead = ManualClock::new();
    ahead.jump(Duration::from_secs(10 * 365 * 86_400));
    let repository_at = async |clock: &ManualClock| repository(&objects, clock).await;
    let mut moments = Vec::new();
    for (version, wrong) in [(0, false), (1, true), (2, false), (3, false)] {
        let clock = if wrong { &ahead } else { &time };
        let base = take(&filled(3 + version).await, &repository_at(clock).await).await.base;
        moments.push((time.now(), base));
        time.advance(Duration::from_secs(3600));
    }
    let repository = repository_at(&time).await;
    for at in [0, 2, 3] {
        let (moment, base) = &moments[at];
        assert_eq!(base.time, *moment, "as the clock said");
        let target = Target::At(*moment + Duration::from_secs(1800));
        let (back, restored) = restore(&repository, target.clone()).await.unwrap();
        assert_eq!((restored.reached, all(&back).await.len()), (*moment, 3 + at));
        let doubtful = repository.plan(target).await.unwrap().doubtful;
        let expected = if at == 0 { std::slice::from_ref(&moments[1].1) } else { &[] };
        assert_eq!(doubtful, expected, "the clock of the second base was wrong");
    }
    let latest = repository.plan(Target::Latest).await.unwrap();
    assert_eq!(latest.base, moments[3].1);
}

#[tokio::test]
async fn an_empty_store_is_backed_up_too() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    take(&Memory::new(), &repository).await;
    assert_intact(&repository).await;
    let (back, restored) = restore(&repository, Target::Latest).await.unwrap();
    assert!(all(&back).await.is_empty() && restored.proven);
}

#[tokio::test]
async fn a_prefix_restores_what_begins_with_it() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    let store = filled(300).await;
    let _ = store.put("kez", "after").await.unwrap();
    let _ = store.put("a", "before").await.unwrap();
    take(&store, &repository).await;
    let plan = repository.plan(Target::Latest).await.unwrap();
    for prefix in ["key-0001", "key-000", "a", "kez", "z", "", "key-000299", "\u{0}"] {
        let options = Restore { prefix: prefix.into(), ..Restore::default() };
        let target = Memory::new();
        backup::restore(&repository, &plan, &target, &options, &|_| ()).await.unwrap();
        let expected: Vec<Entry> = all(&store)
            .await
            .into_iter()
            .filter(|entry| entry.key.starts_with(prefix.as_bytes()))
            .collect();
        assert_eq!(all(&target).await, expected, "{prefix}");
    }
}

#[cfg(unix)]
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let within = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path) } else { vec![path] }
    };
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().flat_map(within).collect();
    found.push(folder.to_owned());
    found
}

/// A list of chunks names what a run begins with, and no more of it than that takes.
#[tokio::test]
async fn long_keys_do_not_make_a_long_list() {
    let (objects, store) = (Arc::new(InMemory::new()), Memory::new());
    let repository = Repository::create_or_open(objects.clone() as _, SystemClock::shared());
    let repository = repository.await.unwrap();
    for number in 0..200 {
        let own = format!("{number:03}{}", "k".repeat(60_000));
        let _ = store.put(own, "1").await.unwrap();
        let shared = format!("x{}{number:03}", "k".repeat(60_000));
        let _ = store.put(shared, "2").await.unwrap();
    }
    take(&store, &repository).await;
    for (path, bytes) in objects_of(&*objects).await {
        let limit = if path.as_ref().starts_with("data/") { 17 << 20 } else { 20_000 };
        assert!(bytes.len() < limit, "{path}: {}", bytes.len());
    }
    assert_intact(&repository).await;
    let plan = repository.plan(Target::Latest).await.unwrap();
    let long = format!("x{}1", "k".repeat(60_000));
    for (prefix, entries) in
        [("", 400), ("x", 200), ("0", 100), ("07", 10), (long.as_str(), 100), ("y", 0)]
    {
        let options = Restore { prefix: prefix.to_owned().into(), ..Restore::default() };
        let target = Memory::new();
        backup::restore(&repository, &plan, &target, &options, &|_| ()).await.unwrap();
        assert_eq!(all(&target).await.len(), entries, "{:.9}", prefix);
    }
}

#[tokio::test]
async fn a_folder_holds_a_repository() {
    let folder = tempfile::tempdir().unwrap();
    let place: Location = folder.path().join("a b/ü").to_str().unwrap().parse().unwrap();
    let error = Repository::open_at(&place, SystemClock::shared()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let repository = Repository::create_or_open_at(&place, SystemClock::shared()).await.unwrap();
    let store = filled(500).await;
    take(&store, &repository).await;
    put(&store, 3, 9).await;
    take(&store, &repository).await;
    #[cfg(unix)]
    for found in walk(&folder.path().join("a b")) {
        use std::os::unix::fs::PermissionsExt;
        let mode = found.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is for its owner alone", found.display());
    }
    let again = Repository::open_at(&place, SystemClock::shared()).await.unwrap();
    assert_eq!(again.id(), repository.id());
    assert_eq!(again.bases().await.unwrap().len(), 2);
    let report = again.verify(Level::All, &|_| ()).await.unwrap();
    assert!(report.is_intact() && report.orphans == 0 && report.bases == 2, "{report:?}");
    let (back, _) = restore(&again, Target::Latest).await.unwrap();
    assert_eq!(all(&back).await, all(&store).await);
}

#[tokio::test]
async fn only_an_empty_target_is_restored_into() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    take(&filled(10).await, &repository).await;
    let plan = repository.plan(Target::Latest).await.unwrap();
    let target = Memory::new();
    let _ = target.put("mine", "1").await.unwrap();
    for resume in [false, true] {
        let options = Restore { resume, ..Restore::default() };
        let result = backup::restore(&repository, &plan, &target, &options, &|_| ()).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert_eq!(all(&target).await.len(), 1, "nothing was written");
}

#[tokio::test]
async fn a_target_that_cannot_keep_an_expiry_is_refused_before_anything_is_written() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    let store = Memory::with_clock(clock(&time));
    let expiring = Value::new("v").expiring_at(time.now() + Duration::from_secs(60));
    let _ = store.write(Batch::new().put("a", "1").put("b", expiring)).await.unwrap();
    take(&store, &repository).await;
    let plan = repository.plan(Target::Latest).await.unwrap();
    type Change = fn(&mut Guarantees);
    let refusals: [(Change, &str); 4] = [
        (|g| g.expiry = false, "has an expiry"),
        (|g| g.writable = false, "writes"),
        (|g| g.ordered_scans = false, "ordered scans"),
        (|g| g.limits.value_bytes = Some(0), "limit of 0 bytes"),
    ];
    for (change, word) in refusals {
        let target = Lesser::new(change);
        let options = Restore::default();
        let result = backup::restore(&repository, &plan, &target, &options, &|_| ()).await;
        let error = result.unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert!(all(&target).await.is_empty());
    }
}

#[tokio::test]
async fn an_entry_that_has_expired_since_stays_gone() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    let store = Memory::with_clock(clock(&time));
    let expiring = Value::new("v").expiring_at(time.now() + Duration::from_secs(60));
    let _ = store.write(Batch::new().put("a", "1").put("b", expiring)).await.unwrap();
    take(&store, &repository).await;
    time.advance(Duration::from_secs(61));
    let target = Memory::with_clock(clock(&time));
    let plan = repository.plan(Target::Latest).await.unwrap();
    let restored =
        backup::restore(&repository, &plan, &target, &Restore::default(), &|_| ()).await.unwrap();
    assert_eq!((restored.entries, restored.expired, restored.proven), (1, 1, true));
}

#[tokio::test]
async fn a_target_without_batches_is_filled_one_by_one() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    let store = filled(30).await;
    take(&store, &repository).await;
    let target = Lesser::new(|g| (g.atomic_batches, g.ingest) = (false, false));
    let plan = repository.plan(Target::Latest).await.unwrap();
    backup::restore(&repository, &plan, &target, &Restore::default(), &|_| ()).await.unwrap();
    assert_eq!(all(&target).await, all(&store).await);
}

#[tokio::test]
async fn an_interrupted_restore_is_visible_and_can_be_gone_on_with() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    let store = filled(30).await;
    take(&store, &repository).await;
    let plan = repository.plan(Target::Latest).await.unwrap();
    put(&store, 40, 1).await;
    take(&store, &repository).await;
    let other = repository.plan(Target::Latest).await.unwrap();

    let target = Lesser::new(|g| (g.atomic_batches, g.ingest) = (false, false));
    for left in [1, 5, 30, 31] {
        target.writes_left.store(left, Ordering::SeqCst);
        let options = Restore { resume: left != 1, ..Restore::default() };
        let error =
            backup::restore(&repository, &plan, &target, &options, &|_| ()).await.unwrap_err();
        assert!(error.to_string().contains("part of it"), "{left}: {error}");
        assert_eq!(unfinished_restore(&target).await.unwrap().unwrap().base, plan.base.id);
    }
    target.writes_left.store(i64::MAX, Ordering::SeqCst);
    let restore = |plan, resume| {
        let options = Restore { resume, ..Restore::default() };
        let (repository, target) = (&repository, &target);
        async move { backup::restore(repository, plan, target, &options, &|_| ()).await }
    };
    assert_eq!(restore(&plan, false).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(restore(&other, true).await.unwrap_err().kind(), ErrorKind::Conflict);
    let error = backup::run(&target, &repository, &|_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "half a store is not backed up");
    restore(&plan, true).await.unwrap();
    assert!(unfinished_restore(&target).await.unwrap().is_none());
    assert_eq!(all(&target).await.len(), 30);
}

#[tokio::test]
async fn the_proof_finds_an_entry_that_is_not_of_the_base() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    take(&filled(30).await, &repository).await;
    let plan = repository.plan(Target::Latest).await.unwrap();
    let target = Lesser::new(|g| (g.atomic_batches, g.ingest) = (false, false));
    target.writes_left.store(5, Ordering::SeqCst);
    let options = Restore::default();
    backup::restore(&repository, &plan, &target, &options, &|_| ()).await.unwrap_err();
    target.writes_left.store(i64::MAX, Ordering::SeqCst);
    let _ = target.put("stranger", "1").await.unwrap();
    let options = Restore { resume: true, ..Restore::default() };
    let result = backup::restore(&repository, &plan, &target, &options, &|_| ()).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Corruption);
    assert!(unfinished_restore(&target).await.unwrap().is_some(), "it stays marked");
}

#[tokio::test]
async fn a_store_without_snapshots_is_refused_by_what_it_lacks() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    let error =
        backup::run(&Lesser::new(|g| g.snapshots = false), &repository, &|_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("snapshots"), "{error}");
}

#[tokio::test]
async fn the_projects_own_keys_are_not_backed_up() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    let store = filled(3).await;
    let own = [RESERVED_PREFIX, b"sequence"].concat();
    let _ = store.put(own.clone(), "7").await.unwrap();
    assert_eq!(take(&store, &repository).await.base.entries, 3);
}

#[tokio::test]
async fn nothing_is_listed_in_steady_state() {
    let inner = Arc::new(InMemory::new());
    let time = ManualClock::new();
    // The first base looks once whether there are heads that are not found.
    take(&filled(100).await, &repository(&inner, &time).await).await;
    let counting = Faulty::new(inner, |_, _| Fault::None);
    let repository = Repository::open(counting.clone(), clock(&time)).await.unwrap();
    let store = filled(100).await;
    for _ in 0..5 {
        take(&store, &repository).await;
        restore(&repository, Target::Latest).await.unwrap();
    }
    let again = Repository::open(counting.clone(), clock(&time)).await.unwrap();
    assert_eq!(again.bases().await.unwrap().len(), 6);
    assert_eq!(counting.lists.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_place_with_backups_but_without_its_repository_file_is_refused() {
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    take(&filled(3).await, &repository(&objects, &time).await).await;
    objects.delete(&"repo.json".into()).await.unwrap();
    let result = Repository::create_or_open(objects, clock(&time)).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Corruption);
}

#[tokio::test]
async fn every_future_can_be_spawned() {
    fn spawnable<F: Future + Send>(future: F) -> F {
        future
    }
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    spawnable(backup::run(&filled(3).await, &repository, &|_| ())).await.unwrap();
    spawnable(repository.verify(Level::All, &|_| ())).await.unwrap();
    let plan = spawnable(repository.plan(Target::Latest)).await.unwrap();
    let (target, options) = (Memory::new(), Restore::default());
    spawnable(backup::restore(&repository, &plan, &target, &options, &|_| ())).await.unwrap();
}

#[cfg(feature = "rocksdb")]
#[tokio::test]
async fn a_base_of_one_backend_restores_into_another() {
    use tierstack::backends::RocksDbConfig;
    use tierstack::{BackendConfig, Context};

    let folder = tempfile::tempdir().unwrap();
    let rocksdb = async |name: &str| {
        RocksDbConfig::new(folder.path().join(name)).open(&Context::default()).await.unwrap()
    };
    let (objects, time) = (Arc::new(InMemory::new()), ManualClock::new());
    let repository = repository(&objects, &time).await;
    let original = filled(3000).await;
    take(&original, &repository).await;
    let (plan, options) = (repository.plan(Target::Latest).await.unwrap(), Restore::default());
    let second = rocksdb("second").await;
    backup::restore(&repository, &plan, &second, &options, &|_| ()).await.unwrap();
    assert_eq!(all(&second).await, all(&original).await);

    let again = take(&second, &repository).await.base;
    assert_eq!((again.digest, again.uploaded_bytes), (plan.base.digest, 0));
    let plan = repository.plan(Target::Latest).await.unwrap();
    let third = rocksdb("third").await;
    backup::restore(&repository, &plan, &third, &options, &|_| ()).await.unwrap();
    assert_eq!(all(&third).await, all(&original).await);
    second.close().await.unwrap();
    third.close().await.unwrap();
}
