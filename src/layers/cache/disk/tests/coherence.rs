//! No copy that is not the last one of its key.

use super::*;

#[test]
fn an_offer_is_found_before_and_after_it_was_written() {
    let rig = Rig::new();
    let level = rig.open();
    let at = rig.clock.now() + Duration::from_secs(60);
    let value = Value::from("v").expiring_at(at);
    rig.put(&level, b"k", value.clone());
    assert_eq!(get(&level, b"k"), Some(value.clone()));
    assert_eq!(level.bytes(), 0);
    write_all(&level);
    assert_eq!(get(&level, b"k"), Some(value));
    assert!(level.bytes() > 0);
    assert_eq!(get(&level, b"other"), None);
}

#[test]
fn what_is_removed_while_it_waits_is_not_written() {
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    level.remove(b"k");
    assert_eq!(get(&level, b"k"), None);
    write_all(&level);
    assert_eq!((get(&level, b"k"), level.bytes(), entries(&level)), (None, 0, 0));
}

/// Between the moment when the thread takes an offer and the one when its record is in the file.
fn while_written(rig: &Rig, level: &DiskLevel, key: &[u8], meanwhile: impl FnOnce()) {
    rig.put(level, key, "first");
    let (offer, taken, copy) = level.table.lock().next().unwrap();
    meanwhile();
    let mut log = level.log.lock();
    let location = log.as_mut().unwrap().append(&taken, &copy, |_| ()).unwrap();
    level.table.lock().publish(offer, level.hash(key), key, location);
}

#[test]
fn what_is_removed_while_it_is_written_stays_removed() {
    let rig = Rig::new();
    let level = rig.open();
    while_written(&rig, &level, b"k", || {
        assert_eq!(get(&level, b"k"), Some("first".into()), "it can be read meanwhile");
        level.remove(b"k");
    });
    assert_eq!((get(&level, b"k"), entries(&level)), (None, 0));
}

#[test]
fn what_is_replaced_while_it_is_written_does_not_come_back() {
    let rig = Rig::new();
    let level = rig.open();
    while_written(&rig, &level, b"k", || rig.put(&level, b"k", "second"));
    assert_eq!(get(&level, b"k"), Some("second".into()));
    write_all(&level);
    assert_eq!((get(&level, b"k"), entries(&level)), (Some("second".into()), 1));
}

#[test]
fn what_is_forgotten_while_it_is_written_stays_forgotten() {
    let rig = Rig::new();
    let level = rig.open();
    while_written(&rig, &level, b"k", || level.forget(later_epoch()));
    assert!(found(&level, b"k").is_none());
    assert_eq!(entries(&level), 0);
}

#[test]
fn an_update_that_is_not_taken_leaves_no_older_copy() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new();
    for (value, cause) in [(vec![0; 2000], "large"), (vec![0; 500], "queue")] {
        let level = rig.open();
        rig.put(&level, b"k", "old");
        write_all(&level);
        for other in 0..SHAPE.waiting / 1000 {
            rig.put(&level, &other.to_be_bytes(), vec![0; 700]);
        }
        rig.put(&level, b"k", value);
        assert_eq!(get(&level, b"k"), None);
        write_all(&level);
        assert_eq!(get(&level, b"k"), None);
        let dropped = counted(&recorder)("disk_drops_total", cause);
        assert!(dropped >= 1.0, "{cause}: {dropped}");
        // There is room again.
        rig.put(&level, b"k", "new");
        assert_eq!(get(&level, b"k"), Some("new".into()));
    }
}

#[test]
fn what_waits_is_bounded_and_given_back() {
    let rig = Rig::new();
    let level = rig.open();
    for round in 0..20 {
        for key in 0..100u32 {
            rig.put(&level, &key.to_be_bytes(), vec![0; 100]);
            if key % 3 == 0 {
                level.remove(&key.to_be_bytes());
            }
        }
        assert!((5..=9).contains(&entries_waiting(&level)), "round {round}");
        level.forget(Epoch::FIRST);
        write_all(&level);
        assert_eq!(entries_waiting(&level), 0);
    }
}

fn entries_waiting(level: &DiskLevel) -> usize {
    let mut table = level.table.lock();
    let written = table.index().len();
    table.entries() - written
}

#[test]
fn what_was_found_is_not_the_copy_any_more_once_its_key_changed() {
    let rig = Rig::new();
    let level = rig.open();
    let read = || {
        rig.put(&level, b"k", "v");
        write_all(&level);
        found(&level, b"k").unwrap()
    };
    let copy = read();
    assert!(level.is_current(b"k", &copy));
    level.remove(b"k");
    assert!(!level.is_current(b"k", &copy), "deleted");

    let copy = read();
    rig.put(&level, b"k", "new");
    assert!(!level.is_current(b"k", &copy), "replaced");
    write_all(&level);
    assert!(!level.is_current(b"k", &copy), "replaced, and written");

    let copy = read();
    level.forget(later_epoch());
    assert!(!level.is_current(b"k", &copy), "forgotten");
}

#[test]
fn nothing_of_before_everything_was_forgotten_comes_back() {
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"written", "old");
    write_all(&level);
    rig.put(&level, b"waiting", "old");
    level.offer(b"k", &"newer".into(), CoarseTime::NEVER, later_epoch());
    level.forget(later_epoch());
    // Behind it, of a load that began before it.
    rig.put(&level, b"late", "old");
    level.offer(b"new", &"new".into(), CoarseTime::NEVER, later_epoch());
    rig.put(&level, b"new", "old");
    level.forget(Epoch::FIRST);
    rig.put(&level, b"late", "old");
    write_all(&level);
    for key in [b"written".as_slice(), b"waiting", b"k", b"late", b"new"] {
        assert!(found(&level, key).is_none());
    }
    level.offer(b"new", &"new".into(), CoarseTime::NEVER, later_epoch());
    for _ in 0..2 {
        assert_eq!(found(&level, b"new").unwrap().began, later_epoch());
        write_all(&level);
    }
}

#[test]
fn another_key_of_the_same_hash_is_a_miss_and_no_damage() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"a", "of a");
    write_all(&level);
    let mut table = level.table.lock();
    let location = table.index().get(level.hash(b"a")).unwrap();
    table.index().insert(level.hash(b"b"), location);
    drop(table);
    assert_eq!(get(&level, b"b"), None);
    assert_eq!(get(&level, b"a"), Some("of a".into()));
    assert_eq!(counted(&recorder)("disk_drops_total", "damaged"), 0.0);
}

#[test]
fn a_deadline_stands_whatever_the_wall_clock_does() {
    let rig = Rig::new();
    rig.clock.advance(Duration::from_secs(5));
    let level = rig.open();
    rig.clock.advance(Duration::from_secs(10));
    let until = rig.after(30);
    level.offer(b"k", &"v".into(), until, Epoch::FIRST);
    for seconds in [10, 19] {
        assert_eq!(found(&level, b"k").unwrap().until, until);
        write_all(&level);
        rig.clock.jump(Duration::from_secs(1000));
        rig.clock.advance(Duration::from_secs(seconds));
        assert_eq!(found(&level, b"k").unwrap().until, until);
    }
    rig.clock.advance(Duration::from_secs(1));
    assert!(found(&level, b"k").is_none());
    assert_eq!(entries(&level), 0, "it makes room");
}

#[test]
fn an_entry_whose_own_expiry_has_come_is_not_served() {
    let rig = Rig::new();
    let level = rig.open();
    for key in [b"waiting", b"written"] {
        let at = rig.clock.now() + Duration::from_secs(1);
        rig.put(&level, key, Value::from("v").expiring_at(at));
        if key == b"written" {
            write_all(&level);
        }
        assert!(get(&level, key).is_some());
        rig.clock.jump(Duration::from_secs(1));
        assert_eq!(get(&level, key), None);
    }
}

#[test]
fn the_files_never_take_more_than_the_capacity_and_the_oldest_go_first() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new();
    let level = rig.open();
    let mut evicted = 0.0;
    for key in 0..500u32 {
        rig.put(&level, &key.to_be_bytes(), vec![0; (key % 700) as usize]);
        write_all(&level);
        let files: u64 =
            segments(&rig.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
        assert_eq!(files, level.bytes());
        assert!(files <= SHAPE.capacity);
        let count = counted(&recorder);
        assert_eq!(count("disk_bytes", ""), files as f64);
        assert_eq!(count("disk_entries", ""), entries(&level) as f64);
        evicted += count("evictions_total", "disk");
    }
    let there: Vec<u32> =
        (0..500).filter(|key: &u32| get(&level, &key.to_be_bytes()).is_some()).collect();
    let newest: Vec<u32> = (500 - there.len() as u32..500).collect();
    assert_eq!(there, newest);
    assert!(there.len() >= 8, "{}", there.len());
    assert_eq!(evicted, 500.0 - there.len() as f64);
}

#[test]
fn a_reader_of_a_segment_that_is_evicted_misses_and_sees_no_damage() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    write_all(&level);
    let held = level.table.lock().find(level.hash(b"k"), b"k").unwrap();
    for key in 0..100u32 {
        rig.put(&level, &key.to_be_bytes(), vec![0; 700]);
        write_all(&level);
    }
    assert!(level.read(b"k", held).is_none());
    let count = counted(&recorder);
    assert_eq!(count("disk_drops_total", "damaged"), 0.0);
    assert_eq!(count("disk_active", ""), 1.0);
}

#[test]
fn what_the_memory_evicts_is_written_unless_it_is_here() {
    let rig = Rig::new();
    let level = rig.open();
    let evict = |value: &str| {
        level.offer_evicted(b"k", &value.to_owned().into(), CoarseTime::NEVER, Epoch::FIRST);
    };
    evict("v");
    write_all(&level);
    let written = level.bytes();
    assert!(written > 0);
    evict("v");
    write_all(&level);
    assert_eq!(level.bytes(), written);
    level.remove(b"k");
    evict("w");
    write_all(&level);
    assert_eq!(get(&level, b"k"), Some("w".into()));
}
