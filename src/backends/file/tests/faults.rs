//! A disk that fails once, and what others have put where an entry should go.

use std::fs;

use tempfile::tempdir;

use super::{Bytes, entries, open_core};
use crate::backends::file::core::Core;
use crate::backends::file::fault;
use crate::error::ErrorKind;
use crate::types::{Batch, Scan};

fn known(core: &Core) -> Vec<(Bytes, Bytes)> {
    entries(core, &Scan::all())
}

fn before() -> Batch {
    Batch::new().put("a", "1").put("gone/x", "1").put("kept", "1").put("both", "1")
}

fn batch() -> Batch {
    Batch::new().put("a/b", "2").delete("gone/x").put("kept", "2").put("new/y", "2")
}

/// Each step of a write fails once, and the process goes on: nobody sees half of it, nothing hangs, and the
/// folder can be opened again.
#[test]
fn one_failure_at_any_step_leaves_a_write_whole() {
    let writes = [
        batch(),
        Batch::new().put("kept", "2"),
        Batch::new().put("a/b", "2"),
        Batch::new().delete("gone/x"),
        Batch::new().delete("a").put("kept", "2"),
    ];
    for write in writes {
        let (mut old_ones, mut new_ones) = (0, 0);
        for step in 0.. {
            let folder = tempdir().unwrap();
            let core = open_core(folder.path(), true).unwrap();
            core.write(&before()).unwrap();
            let old = known(&core);
            let new = {
                let folder = tempdir().unwrap();
                let core = open_core(folder.path(), false).unwrap();
                core.write(&before()).unwrap();
                core.write(&write).unwrap();
                known(&core)
            };
            fault::fail_at(step);
            let result = core.write(&write);
            let failed = fault::failed();
            let seen = known(&core);
            assert!(seen == old || seen == new, "half a write after {step} steps");
            assert!(result.is_err() || seen == new, "what was acknowledged is not there");
            // The disk works again.
            let next = core.write(&Batch::new().put("next", "1"));
            drop(core);
            let core = open_core(folder.path(), true)
                .unwrap_or_else(|error| panic!("not opened after step {step}: {error}"));
            let mut now = known(&core);
            if next.is_ok() {
                assert!(now.contains(&("next".into(), "1".into())), "step {step}");
            }
            now.retain(|(key, _)| key != "next");
            assert!(now == old || now == new, "half a write is left by step {step}");
            assert!(result.is_err() || now == new, "what was acknowledged is lost");
            if now == old {
                old_ones += 1;
            } else {
                new_ones += 1;
            }
            if !failed {
                break;
            }
        }
        assert!(old_ones + new_ones > 2 && new_ones > 0, "{old_ones} {new_ones}");
    }
}

/// The other one may be between its removal and its sync.
#[test]
fn a_delete_of_what_is_gone_already_is_synced_as_well() {
    let folder = tempdir().unwrap();
    let core = open_core(folder.path(), true).unwrap();
    core.write(&Batch::new().put("x/kept", "1")).unwrap();
    for key in ["x/none", "none", "none/none"] {
        fault::record();
        core.write(&Batch::new().delete(key)).unwrap();
        assert_eq!(fault::recorded(), ["sync folder"], "{key}");
    }
}

/// "remove that file to give the rest of the batch up", as an error says.
#[test]
fn a_batch_that_is_given_up_by_hand_lets_the_store_go_on() {
    let folder = tempdir().unwrap();
    let core = open_core(folder.path(), false).unwrap();
    core.write(&before()).unwrap();
    for steps in 0.. {
        fault::crash_after(steps);
        let result = core.write(&batch());
        assert!(fault::revive() && result.is_err());
        let intent = folder.path().join(".tierstack/intent-unsynced");
        if result.unwrap_err().message().contains("could not be finished") && intent.exists() {
            fs::remove_file(intent).unwrap();
            break;
        }
    }
    assert!(known(&core).len() > 2);
    core.write(&Batch::new().put("next", "1")).unwrap();
}

#[test]
fn a_folder_of_others_in_the_place_of_an_entry_is_refused_before_anything_is_done() {
    let folder = tempdir().unwrap();
    let core = open_core(folder.path(), true).unwrap();
    core.write(&Batch::new().put("a/b", "1")).unwrap();
    fs::create_dir(folder.path().join("a%=")).unwrap();
    let error = core.write(&Batch::new().put("a", "1").put("first", "1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.message().contains("%="), "{error}");
    let error = core.write(&Batch::new().put("0", "1").put("a", "1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(!folder.path().join("first").exists() && !folder.path().join("0").exists());
    fs::remove_dir(folder.path().join("a%=")).unwrap();
    core.write(&Batch::new().put("a", "1").put("first", "1")).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_may_not_be_changed_refuses_a_batch_before_anything_is_done() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

    let folder = tempdir().unwrap();
    let core = open_core(folder.path(), true).unwrap();
    core.write(&Batch::new().put("locked/x", "1").put("kept", "1")).unwrap();
    let locked = fs::File::open(folder.path().join("locked")).unwrap();
    let Ok(flags) = ioctl_getflags(&locked) else { return };
    if ioctl_setflags(&locked, flags | IFlags::IMMUTABLE).is_err() {
        println!("skipped: this user, or the file system, cannot make a folder immutable");
        return;
    }
    let puts = core.write(&Batch::new().put("kept", "2").put("locked/y", "2"));
    let deletes = core.write(&Batch::new().put("kept", "2").delete("locked/x"));
    let absent = core.write(&Batch::new().put("kept", "3").delete("locked/none"));
    ioctl_setflags(&locked, flags).unwrap();
    assert_eq!(puts.unwrap_err().kind(), ErrorKind::Access);
    assert_eq!(deletes.unwrap_err().kind(), ErrorKind::Access);
    absent.unwrap();
    assert!(known(&core).contains(&("kept".into(), "3".into())));
}

/// What was in it may be in another folder by now: that it is not here says nothing.
#[test]
fn a_folder_that_was_removed_is_not_empty() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("data");
    let core = open_core(&path, false).unwrap();
    core.write(&Batch::new().put("a", "1").put("b/c", "1")).unwrap();
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let scan = |core: &Core| {
        core.reading(|tree| crate::backends::file::scan::Walk::default().page(tree, &Scan::all()))
    };
    let read = [
        core.reading(|tree| tree.get(b"a")).map(drop),
        core.reading(|tree| tree.get(b"missing")).map(drop),
        scan(&core).map(drop),
        core.write(&Batch::new().put("a", "2")),
        core.write(&Batch::new().delete("a")),
        core.write(&Batch::new().put("new", "2").if_absent()),
    ];
    for (number, done) in read.into_iter().enumerate() {
        let error = done.expect_err(&format!("operation {number}"));
        assert_eq!(error.kind(), ErrorKind::Unavailable, "operation {number}: {error:?}");
    }
    drop(core);
    let core = open_core(&path, false).unwrap();
    assert_eq!(known(&core), []);
}
