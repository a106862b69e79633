//! A disk that fails: nothing is kept there any more, and nobody else notices.

use super::*;

#[test]
fn a_write_that_fails_ends_the_level_and_leaves_no_older_copy() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "old");
    rig.put(&level, b"other", "other");
    write_all(&level);
    level.folder.fault.after(0);
    rig.put(&level, b"k", "new");
    write_all(&level);
    level.folder.fault.after(i64::MAX);
    for key in [b"k".as_slice(), b"other"] {
        assert_eq!(get(&level, key), None);
        rig.put(&level, key, "later");
        assert_eq!(get(&level, key), None);
    }
    let count = counted(&recorder);
    assert_eq!((count("disk_drops_total", "io"), count("disk_active", "")), (1.0, 0.0));
    close(&level);
    let level = rig.open();
    assert_eq!(entries(&level), 0, "what a failed disk holds is not taken over");
    rig.put(&level, b"k", "v");
    write_all(&level);
    assert_eq!(get(&level, b"k"), Some("v".into()), "it is tried again");
}

#[test]
fn a_read_that_fails_is_a_miss_and_ends_the_level() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    write_all(&level);
    assert_eq!(counted(&recorder)("disk_active", ""), 1.0);
    level.folder.fault.after(0);
    assert_eq!(get(&level, b"k"), None);
    level.folder.fault.after(i64::MAX);
    assert_eq!(get(&level, b"k"), None);
    let count = counted(&recorder);
    assert_eq!((count("disk_drops_total", "io"), count("disk_active", "")), (1.0, 0.0));
}

/// Each step of writing, evicting, closing and opening fails once, and all that follow it.
#[test]
fn whichever_step_fails_an_answer_is_right_or_a_miss() {
    let mut failed_open = 0;
    for step in 0..130 {
        let rig = Rig::new();
        let level = rig.open();
        level.folder.fault.after(step);
        for round in 0..3u32 {
            for key in 0..8u32 {
                let value = vec![(round * 8 + key) as u8; 500];
                rig.put(&level, &key.to_be_bytes(), value.clone());
                write_all(&level);
                let copy = get(&level, &key.to_be_bytes());
                assert!(copy.is_none_or(|copy| copy == value.into()), "step {step}");
            }
        }
        level.remove(&0u32.to_be_bytes());
        close(&level);
        drop(level);
        let level = rig.open();
        failed_open += usize::from(entries(&level) == 0);
        for key in 0..8u32 {
            let copy = get(&level, &key.to_be_bytes());
            let right = (key > 0).then(|| vec![(16 + key) as u8; 500].into());
            assert!(copy.is_none() || copy == right, "step {step}");
        }
    }
    assert!((60..125).contains(&failed_open), "{failed_open}");
}

#[test]
fn a_thread_that_panics_ends_the_level() {
    let rig = Rig::new();
    let level = rig.open();
    rig.put(&level, b"k", "v");
    write_all(&level);
    level.folder.fault.after(-1);
    rig.put(&level, b"k", "new");
    level.run();
    assert_eq!(get(&level, b"k"), None);
    assert!(*level.closed.borrow(), "no task waits for it");
}
