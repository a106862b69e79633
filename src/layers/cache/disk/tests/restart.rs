//! What is left for the next open, and whose folder it is.

use super::*;
use crate::error::ErrorKind;

#[test]
fn a_warm_level_has_its_entries_again() {
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"written", "a");
    write_all(&level);
    rig.put(&level, b"waiting", "b");
    close(&level);
    rig.clock.advance(Duration::from_secs(1));
    let level = rig.open();
    assert_eq!(get(&level, b"written"), Some("a".into()));
    assert_eq!(get(&level, b"waiting"), Some("b".into()));
    // It goes on where it was.
    rig.put(&level, b"written", "c");
    write_all(&level);
    close(&level);
    assert_eq!(get(&rig.open(), b"written"), Some("c".into()));
}

/// Earlier epochs are numbers that mean nothing any more.
#[test]
fn what_was_there_before_a_restart_is_of_the_first_epoch() {
    let rig = Rig::new();
    let level = rig.open();
    level.offer(b"k", &"v".into(), CoarseTime::NEVER, later_epoch());
    close(&level);
    let level = rig.open();
    level.offer(b"new", &"v".into(), CoarseTime::NEVER, later_epoch());
    write_all(&level);
    assert_eq!(found(&level, b"k").unwrap().began, Epoch::FIRST);
    assert_eq!(found(&level, b"new").unwrap().began, later_epoch());
}

#[test]
fn without_warm_nothing_is_left_and_nothing_is_taken_over() {
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    close(&level);
    let level = rig.try_open(&rig.path(), false).unwrap();
    assert_eq!((entries(&level), segments(&rig.path()).len()), (0, 0));
    rig.put(&level, b"k", "v");
    close(&level);
    assert_eq!(segments(&rig.path()).len(), 0, "its place on the disk is free");
    assert_eq!(entries(&rig.open()), 0);
}

#[test]
fn after_a_crash_it_is_empty() {
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    close(&level);
    let level = rig.open();
    assert_eq!(entries(&rig.after_crash().1), 0, "before anything was written");
    rig.put(&level, b"k", "new");
    write_all(&level);
    let (copy, crashed) = rig.after_crash();
    assert_eq!((entries(&crashed), segments(copy.path()).len()), (0, 0));
    drop(level);
    assert_eq!(entries(&rig.open()), 0, "a drop is no close");
}

#[test]
fn what_was_deleted_does_not_come_back_with_a_restart() {
    let rig = Rig::new();
    let level = rig.open();
    for key in [b"a", b"b"] {
        rig.put(&level, key, "v");
    }
    write_all(&level);
    level.remove(b"a");
    close(&level);
    let level = rig.open();
    assert_eq!((get(&level, b"a"), get(&level, b"b")), (None, Some("v".into())));
    close(&level);
    // By a caller that did not wait for the close.
    level.remove(b"b");
    assert_eq!(entries(&rig.open()), 0);
}

#[test]
fn what_is_deleted_while_the_index_is_saved_does_not_come_back() {
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    write_all(&level);
    // Between the two steps of the thread.
    let mut table = level.table.lock();
    let index = std::mem::take(table.index());
    table.state = State::Saved;
    drop(table);
    level.remove(b"k");
    let mut log = level.log.lock().take().unwrap();
    level.save(&mut log, index, 1).unwrap();
    level.folder.leave();
    assert_eq!(entries(&rig.open()), 0);
}

#[test]
fn time_goes_on_while_it_is_closed() {
    let rig = Rig::new();
    let level = rig.open();
    level.offer(b"k", &"v".into(), rig.after(100), Epoch::FIRST);
    // While it is open the wall clock does not matter, in whichever direction it is set.
    rig.clock.jump(Duration::from_secs(1000));
    close(&level);
    // Another machine start: the steady clock begins again.
    let rig = Rig { clock: ManualClock::new(), folder: rig.folder };
    rig.clock.jump(Duration::from_secs(1040));
    let level = rig.open();
    let until = found(&level, b"k").unwrap().until;
    assert!(until <= rig.after(60) && until > rig.after(59));
    rig.clock.advance(Duration::from_secs(60));
    assert_eq!(get(&level, b"k"), None);
}

#[test]
fn a_wall_clock_that_went_back_empties_it() {
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    rig.clock.jump(Duration::from_secs(1));
    close(&level);
    let rig = Rig { clock: ManualClock::new(), folder: rig.folder };
    assert_eq!(entries(&rig.open()), 0);
}

#[test]
fn the_entries_of_another_stack_are_not_served() {
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    close(&level);
    let level = rig.open();
    level.belongs_to(Some("another"));
    assert_eq!(get(&level, b"k"), None);
}

#[test]
fn a_smaller_capacity_keeps_the_newest() {
    let rig = Rig::new();
    let level = rig.open();
    for key in 0..8u8 {
        rig.put(&level, &[key], vec![key; 900]);
        write_all(&level);
    }
    close(&level);
    let shape = Shape { capacity: 3 << 10, ..SHAPE };
    let level = rig.open_with(&rig.path(), true, shape).unwrap();
    let there: Vec<u8> = (0..8).filter(|key| get(&level, &[*key]).is_some()).collect();
    assert_eq!(there, [5, 6, 7]);
    assert!(level.bytes() <= 3 << 10);
}

#[test]
fn the_index_takes_its_place_from_the_capacity() {
    let rig = Rig::new();
    let level = rig.open();
    for key in 0..2000u32 {
        rig.put(&level, &key.to_be_bytes(), "");
        write_all(&level);
    }
    assert!(level.bytes() > SHAPE.capacity - 2 * SHAPE.segment);
    close(&level);
    assert!(bytes(&rig.path()) <= SHAPE.capacity + 64, "with the small files");
    assert!(entries(&rig.open()) > 0);
}

/// Small entries fill the memory of the index before the disk.
#[test]
fn the_index_holds_no_more_than_its_memory_allows() {
    let rig = Rig::new();
    let shape = Shape { capacity: 1 << 20, segment: 64 << 10, entries: 640, ..SHAPE };
    let level = rig.open_with(&rig.path(), true, shape).unwrap();
    level.belongs_to(Some("stack"));
    for key in 0..5000u32 {
        rig.put(&level, &key.to_be_bytes(), "v");
        write_all(&level);
        assert!(entries(&level) <= 640);
    }
    let kept = |level: &DiskLevel| {
        (0..5000u32).filter(|key| get(level, &key.to_be_bytes()).is_some()).count()
    };
    assert!(kept(&level) > 600, "the oldest go, a few at a time: {} are there", kept(&level));
    assert!(get(&level, &4999u32.to_be_bytes()).is_some());
    close(&level);
    let level = rig.open_with(&rig.path(), true, Shape { entries: 100, ..shape }).unwrap();
    level.belongs_to(Some("stack"));
    assert!((80..=100).contains(&kept(&level)), "with less memory fewer are taken over");
}

#[test]
fn an_index_of_version_1_is_an_empty_level() {
    let rig = Rig::new();
    copy_fixture(&rig, "tests/fixtures/cache-disk/v1");
    assert_eq!(entries(&rig.open()), 0);
}

#[cfg(unix)]
#[test]
fn a_folder_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new();
    for ours in [false, true] {
        for mode in [0o777, 0o770, 0o702, 0o1777] {
            let path = rig.folder.path().join(format!("{ours} {mode:o}"));
            if ours {
                close(&rig.try_open(&path, true).unwrap());
            } else {
                std::fs::create_dir(&path).unwrap();
            }
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let before = listing(&path);
            let error = rig.try_open(&path, true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(&format!("has the mode {mode:04o}")), "{error}");
            assert_eq!(listing(&path), before);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            close(&rig.try_open(&path, true).unwrap());
        }
    }
}

/// Only the superuser can give a folder away.
#[cfg(unix)]
#[test]
fn a_folder_of_another_user_is_refused() {
    let rig = Rig::new();
    close(&rig.open());
    if std::os::unix::fs::chown(rig.path(), Some(65_534), None).is_ok() {
        let error = rig.try_open(&rig.path(), true).unwrap_err();
        assert!(error.message().contains("belongs to the user 65534"), "{error}");
    }
}

#[test]
fn a_damaged_index_is_an_empty_level_and_counted() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new();
    close(&rig.open());
    std::fs::write(rig.path().join("index"), "what is this").unwrap();
    rig.open();
    assert_eq!(counted(&recorder)("disk_drops_total", "damaged"), 1.0);
}

#[test]
fn a_place_that_is_not_ours_is_refused_and_left_as_it_is() {
    let rig = Rig::new();
    let cases: [fn(&Path); 5] = [
        |path| std::fs::write(path, "a file").unwrap(),
        |path| {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("notes.txt"), "mine").unwrap();
        },
        |path| {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("segment-0000000000000000"), "mine").unwrap();
        },
        |path| {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("layout"), "tierstack file layout 1\n").unwrap();
        },
        |path| {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("layout"), "tierstack cache disk 1\n").unwrap();
            std::fs::create_dir(path.join("index")).unwrap();
        },
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let path = rig.folder.path().join(number.to_string());
        case(&path);
        let before = listing(&path);
        let error = rig.try_open(&path, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert_eq!(listing(&path), before);
    }
}

fn listing(path: &Path) -> Vec<(std::path::PathBuf, Option<Vec<u8>>)> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return vec![(path.to_owned(), std::fs::read(path).ok())];
    };
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).ok()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_newer_format_is_refused() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path()).unwrap();
    std::fs::write(rig.path().join("layout"), "tierstack cache disk 2\n").unwrap();
    let error = rig.try_open(&rig.path(), true).unwrap_err().to_string();
    assert!(error.contains("format 2") && error.contains("format 1"), "{error}");
}

#[test]
fn a_file_of_somebody_else_in_our_folder_stays() {
    let rig = Rig::new();
    close(&rig.open());
    let theirs = rig.path().join("segment-of-mine");
    std::fs::write(&theirs, "mine").unwrap();
    close(&rig.try_open(&rig.path(), false).unwrap());
    assert_eq!(std::fs::read(theirs).unwrap(), b"mine");
}

#[test]
fn a_crash_while_the_folder_is_made_leaves_it_usable() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path()).unwrap();
    std::fs::write(rig.path().join("layout.new"), "tiers").unwrap();
    rig.open();
}

#[test]
fn one_at_a_time() {
    let rig = Rig::new();
    let level = rig.open();
    let error = rig.try_open(&rig.path(), true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    close(&level);
    rig.open();
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    close(&level);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&rig.path()), 0o700);
    let files: Vec<_> = listing(&rig.path()).into_iter().map(|(path, _)| path).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

const INDEX_MEMORY: ByteSize = ByteSize(1 << 20);

fn config(rig: &Rig, warm: bool) -> DiskConfig {
    DiskConfig { path: rig.path(), capacity: ByteSize(16 << 20), index_memory: None, warm }
}

#[tokio::test]
async fn a_folder_that_was_dropped_can_be_opened_at_once() {
    let rig = Rig::new();
    for round in 0..50 {
        let disk = Disk::open(&config(&rig, false), INDEX_MEMORY, &Context::default()).unwrap();
        disk.level().belongs_to(Some("stack"));
        for key in 0..round {
            let value = vec![0; 10_000].into();
            disk.level().offer(&[key], &value, CoarseTime::NEVER, Epoch::FIRST);
        }
    }
}

/// Each of the threads that a runtime has for such things waits for something else.
#[test]
fn a_busy_thread_pool_is_no_failure_of_the_disk() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let recorder = DebuggingRecorder::new();
        let rig = Rig::new();
        let level = Arc::new(metrics::with_local_recorder(&recorder, || rig.open()));
        rig.put(&level, b"k", "v");
        write_all(&level);
        let keys = [Bytes::from("k")];
        let (wake, sleeps) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || sleeps.recv().is_ok());
        let mut asked = tokio_test::task::spawn(level.get_many(&keys, Duration::from_secs(15)));
        tokio_test::assert_pending!(asked.poll());
        rig.clock.advance(MOST_WAIT);
        let found = tokio_test::assert_ready!(asked.poll());
        assert!(found.iter().all(Option::is_none));
        drop(wake);
        busy.await.unwrap();
        drop(asked);
        let found = level.get_many(&keys, Duration::from_secs(15)).await;
        assert_eq!(found[0].as_ref().unwrap().value, "v".into());
        let count = counted(&recorder);
        assert_eq!(
            (count("disk_drops_total", "busy"), count("disk_drops_total", "io")),
            (1.0, 0.0)
        );
    });
}

#[tokio::test]
async fn the_thread_writes_and_a_close_waits_for_it() {
    let rig = Rig::new();
    let context = Context::default();
    let disk = Disk::open(&config(&rig, true), INDEX_MEMORY, &context).unwrap();
    disk.level().belongs_to(Some("stack"));
    for key in 0..1000u32 {
        let value = key.to_be_bytes().to_vec().into();
        disk.level().offer(&key.to_be_bytes(), &value, CoarseTime::NEVER, Epoch::FIRST);
    }
    disk.level().close(true, Duration::from_secs(60)).await;
    let again = Disk::open(&config(&rig, true), INDEX_MEMORY, &context).unwrap();
    again.level().belongs_to(Some("stack"));
    let keys = (0..1000u32).map(|key| key.to_be_bytes().to_vec().into());
    let keys: Vec<Bytes> = keys.collect();
    let found = again.level().get_many(&keys, Duration::from_secs(60)).await;
    for (key, found) in (0..1000u32).zip(found) {
        assert_eq!(found.unwrap().value.bytes, key.to_be_bytes().to_vec());
    }
    // Outside of a runtime a drop waits for the thread.
    std::thread::spawn(move || drop(again)).join().unwrap();
    Disk::open(&config(&rig, true), INDEX_MEMORY, &context).unwrap();
}

/// The thread does not go on, as on a disk that hangs.
#[tokio::test]
async fn a_close_does_not_wait_longer_than_it_was_told() {
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    let mut close = tokio_test::task::spawn(level.close(true, Duration::from_secs(30)));
    tokio_test::assert_pending!(close.poll());
    rig.clock.advance(Duration::from_secs(30));
    tokio_test::assert_ready!(close.poll());
    drop(close);
    write_all(&level);
    assert_eq!(entries(&rig.open()), 0, "nothing is left by halves");
}

fn copy_fixture(rig: &Rig, from: &str) {
    std::fs::create_dir(rig.path()).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), rig.path().join(file.file_name())).unwrap();
    }
}

#[test]
fn version_2_is_read_for_ever() {
    let rig = Rig::new();
    copy_fixture(&rig, "tests/fixtures/cache-disk/v2");
    let start = rig.clock.now();
    rig.clock.advance(Duration::from_secs(1));
    let level = rig.open();
    let copy = found(&level, b"user:1").unwrap();
    assert_eq!(copy.value, "Ada".into());
    assert!(copy.until <= rig.after(599) && copy.until > rig.after(598));
    let copy = found(&level, &[0xff, 0]).unwrap();
    assert_eq!(copy.value, Value::from("").expiring_at(start + Duration::from_secs(60)));
    assert_eq!(copy.until, CoarseTime::NEVER);
    assert_eq!(level.hash_key, FIXTURE_KEY);
}

const FIXTURE_KEY: HashKey = HashKey([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);

/// What is written now is what the fixture holds.
#[test]
fn version_2_is_what_is_written() {
    let start = ManualClock::new().now().as_millis();
    let copy =
        Copy { value: "Ada".into(), began: Epoch::FIRST, until: timeline::Tick(start + 600_000) };
    let mut record = Vec::new();
    record::encode(&mut record, 7, b"user:1", &copy);
    let folder = Path::new("tests/fixtures/cache-disk/v2");
    assert!(std::fs::read(folder.join("segment-0000000000000007")).unwrap().starts_with(&record));
    let index = std::fs::read(folder.join("index")).unwrap();
    let (saved, entries) = index_file::decode(&*index).unwrap().unwrap();
    let mut written = Vec::new();
    index_file::encode(&saved, &entries, &mut written).unwrap();
    // The order of the entries is that of the map.
    assert_eq!(written.len(), index.len());
    assert_eq!(written.len() as u64, index_file::length(saved.segments.len(), entries.len()));
    assert_eq!(written[..69], index[..69]);
}
