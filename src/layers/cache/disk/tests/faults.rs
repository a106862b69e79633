//! A disk that fails: nothing is kept there any more, and nobody else notices.

use super::*;

#[test]
fn a_write_that_fails_ends_the_tier_and_leaves_no_older_copy() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new();
    let tier = rig.open();
    rig.put(&tier, b"k", "old");
    rig.put(&tier, b"other", "other");
    write_all(&tier);
    tier.folder.fault.after(0);
    rig.put(&tier, b"k", "new");
    write_all(&tier);
    tier.folder.fault.after(i64::MAX);
    for key in [b"k".as_slice(), b"other"] {
        assert_eq!(get(&tier, key), None);
        rig.put(&tier, key, "later");
        assert_eq!(get(&tier, key), None);
    }
    let count = counted(&recorder);
    assert_eq!((count("disk_drops_total", "io"), count("disk_active", "")), (1.0, 0.0));
    close(&tier);
    let tier = rig.open();
    assert_eq!(entries(&tier), 0, "what a failed disk holds is not taken over");
    rig.put(&tier, b"k", "v");
    write_all(&tier);
    assert_eq!(get(&tier, b"k"), Some("v".into()), "it is tried again");
}

#[test]
fn a_read_that_fails_is_a_miss_and_ends_the_tier() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new();
    let tier = rig.open();
    rig.put(&tier, b"k", "v");
    write_all(&tier);
    assert_eq!(counted(&recorder)("disk_active", ""), 1.0);
    tier.folder.fault.after(0);
    assert_eq!(get(&tier, b"k"), None);
    tier.folder.fault.after(i64::MAX);
    assert_eq!(get(&tier, b"k"), None);
    let count = counted(&recorder);
    assert_eq!((count("disk_drops_total", "io"), count("disk_active", "")), (1.0, 0.0));
}

/// Each step of writing, evicting, closing and opening fails once, and all that follow it.
#[test]
fn whichever_step_fails_an_answer_is_right_or_a_miss() {
    let mut failed_open = 0;
    for step in 0..130 {
        let rig = Rig::new();
        let tier = rig.open();
        tier.folder.fault.after(step);
        for round in 0..3u32 {
            for key in 0..8u32 {
                let value = vec![(round * 8 + key) as u8; 500];
                rig.put(&tier, &key.to_be_bytes(), value.clone());
                write_all(&tier);
                let copy = get(&tier, &key.to_be_bytes());
                assert!(copy.is_none_or(|copy| copy == value.into()), "step {step}");
            }
        }
        tier.remove(&0u32.to_be_bytes());
        close(&tier);
        drop(tier);
        let tier = rig.open();
        failed_open += usize::from(entries(&tier) == 0);
        for key in 0..8u32 {
            let copy = get(&tier, &key.to_be_bytes());
            let right = (key > 0).then(|| vec![(16 + key) as u8; 500].into());
            assert!(copy.is_none() || copy == right, "step {step}");
        }
    }
    assert!((60..125).contains(&failed_open), "{failed_open}");
}

#[test]
fn a_thread_that_panics_ends_the_tier() {
    let rig = Rig::new();
    let tier = rig.open();
    rig.put(&tier, b"k", "v");
    write_all(&tier);
    tier.folder.fault.after(-1);
    rig.put(&tier, b"k", "new");
    tier.run();
    assert_eq!(get(&tier, b"k"), None);
    assert!(*tier.closed.borrow(), "nobody waits for it");
}
