use std::path::Path;

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
    let batch =
        Batch::new().put("a", "file, then folder").put("kept", "old").put("deep/er/gone", "1");
    batch.put("folder/x", "1").put("folder/y", "2")
}

/// Every kind of thing that a batch does.
fn batch() -> Batch {
    let batch = Batch::new().put("kept", "new").delete("deep/er/gone").put("a/b", "needs a folder");
    batch
        .put("folder", "file next to its folder")
        .put("new/er/x", "")
        .delete("folder/x")
        .delete("none")
}

/// What is in the folder of the store's own.
fn own(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = [".tierstack", ".tierstack/temporary"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(path.join(folder)).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The state after each step at which a write can be cut off, and after each at which the recovery from
/// that can be.
fn crash_everywhere(sync: bool, write: &Batch) {
    let (mut steps, mut acknowledged, mut undone, mut done) = (0, false, 0, 0);
    while !acknowledged {
        let mut again = 0;
        loop {
            let folder = tempdir().unwrap();
            let core = open_core(folder.path(), sync).unwrap();
            core.write(&before()).unwrap();
            let old = known(&core);
            fault::crash_after(steps);
            let result = core.write(write);
            acknowledged = !fault::revive() && result.is_ok();
            drop(core);

            fault::crash_after(again);
            let recovered = open_core(folder.path(), sync);
            let crashed = fault::revive();
            drop(recovered);

            let core = open_core(folder.path(), sync).unwrap();
            let new = {
                let folder = tempdir().unwrap();
                let core = open_core(folder.path(), false).unwrap();
                core.write(&before()).unwrap();
                core.write(write).unwrap();
                known(&core)
            };
            let now = known(&core);
            assert!(now == old || now == new, "half a batch after {steps} and {again} steps");
            assert!(now == new || result.is_err(), "an acknowledged batch is lost");
            assert_eq!(own(folder.path()), ["layout", "lock", "temporary"]);
            if now == old {
                undone += 1
            } else {
                done += 1
            }
            // The store works on.
            core.write(&Batch::new().put("after", "1").delete("kept")).unwrap();
            assert!(known(&core).contains(&("after".into(), "1".into())));
            core.close().unwrap();
            // Where the recovery stops is the same with syncs and without, and those take long.
            if !crashed || acknowledged || sync {
                break;
            }
            again += 1;
        }
        steps += 1;
    }
    assert!(steps > 5 && undone > 2 && done > 2, "{steps} steps, {undone} undone, {done} done");
}

#[test]
fn a_batch_is_whole_after_a_crash_at_any_step() {
    crash_everywhere(false, &batch());
}

#[test]
fn a_synced_batch_is_whole_after_a_crash_at_any_step() {
    crash_everywhere(true, &batch());
}

#[test]
fn a_single_write_is_whole_after_a_crash_at_any_step() {
    for write in [
        Batch::new().put("kept", "new"),
        Batch::new().put("a/b/c", "needs folders"),
        Batch::new().delete("deep/er/gone"),
        Batch::new().put("folder", "beside"),
    ] {
        let folder = tempdir().unwrap();
        for steps in 0.. {
            let path = folder.path().join(steps.to_string());
            let core = open_core(&path, true).unwrap();
            core.write(&before()).unwrap();
            let old = known(&core);
            fault::crash_after(steps);
            let result = core.write(&write);
            let crashed = fault::revive();
            drop(core);
            let core = open_core(&path, true).unwrap();
            let now = known(&core);
            core.write(&write).unwrap();
            assert!(now == old || now == known(&core), "half a write after {steps} steps");
            assert!(result.is_err() || now == known(&core), "an acknowledged write is lost");
            if !crashed {
                break;
            }
        }
    }
}

/// The disk fails, the process goes on: nobody reads half a batch, and the batch is finished once the disk
/// works again.
#[test]
fn a_failing_disk_shows_nobody_half_a_batch() {
    let (mut unfinished, mut refused) = (0, 0);
    for steps in 0.. {
        let folder = tempdir().unwrap();
        let core = open_core(folder.path(), true).unwrap();
        core.write(&before()).unwrap();
        let old = known(&core);
        fault::crash_after(steps);
        let result = core.write(&batch());
        let read = core.reading(|tree| {
            let keys = ["kept", "deep/er/gone", "a/b", "folder", "folder/x", "a"];
            keys.iter().map(|key| tree.get(key.as_bytes())).collect::<Result<Vec<_>, _>>()
        });
        if let Ok(values) = &read {
            let is_new = values[0].as_deref() == Some(b"new");
            let there: Vec<bool> = values.iter().map(Option::is_some).collect();
            assert_eq!(there[1..5], [!is_new, is_new, is_new, !is_new], "after {steps} steps");
            assert!(there[5], "what moved next to a folder is there");
        } else {
            assert_eq!(read.unwrap_err().kind(), ErrorKind::Unavailable);
            unfinished += 1;
        }
        if !fault::revive() {
            result.unwrap();
            break;
        }
        match core.write(&Batch::new().put("after", "1")) {
            Ok(()) => {
                let now = known(&core);
                assert!(now.contains(&("after".into(), "1".into())));
                let is_new = now.contains(&("kept".into(), "new".into()));
                assert!(is_new || now.len() == old.len() + 1);
            }
            // A sync failed: it is unknown what reached the disk.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                assert!(error.message().contains("open the store again"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(unfinished > 2 && refused > 2, "{unfinished} {refused}");
}

/// What has to be on the disk before the next thing happens.
#[test]
fn writes_are_synced_in_the_order_that_a_power_cut_needs() {
    let folder = tempdir().unwrap();
    let core = open_core(folder.path(), true).unwrap();
    let steps = |batch: Batch| {
        fault::record();
        core.write(&batch).unwrap();
        fault::recorded().join(", ")
    };
    let value = "create, write, sync file";
    assert_eq!(steps(Batch::new().put("k", "1")), format!("{value}, rename, sync folder"));
    assert_eq!(
        steps(Batch::new().put("x/y", "1")),
        format!("{value}, make folder, rename, sync folder, sync folder")
    );
    // `x` is empty, and goes.
    assert_eq!(
        steps(Batch::new().delete("x/y")),
        "remove, remove folder, sync folder, sync folder"
    );
    assert_eq!(
        steps(Batch::new().put("k", "2").put("z/k", "2")),
        format!(
            "{value}, {value}, make folder, sync folder, \
             sync folder, {value}, rename, sync folder, \
             rename, rename, sync folder, sync folder, remove, sync folder"
        )
    );
    drop(core);
    let core = open_core(folder.path(), false).unwrap();
    fault::record();
    core.write(&Batch::new().put("k", "3").put("new/k", "3")).unwrap();
    assert!(!fault::recorded().iter().any(|step| step.starts_with("sync")));
}

#[test]
fn a_torn_intent_was_never_acknowledged_and_a_damaged_one_is_an_error() {
    let folder = tempdir().unwrap();
    let intent = folder.path().join(".tierstack/intent");
    // Cut off where the intent has its name, before anything is done.
    let decided = |value: &'static str| {
        for steps in 0.. {
            let core = open_core(folder.path(), true).unwrap();
            fault::crash_after(steps);
            let _ = core.write(&Batch::new().put("a", value).put("b", value));
            fault::revive();
            if intent.exists() {
                return;
            }
        }
    };
    decided("1");
    let whole = std::fs::read(&intent).unwrap();
    let temporary = folder.path().join(".tierstack/temporary");
    let values: Vec<_> = std::fs::read_dir(&temporary)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| std::fs::read(path).unwrap() == b"1")
        .collect();
    assert_eq!(values.len(), 2);

    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&intent, &damaged).unwrap();
        let error = open_core(folder.path(), true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "byte {at}: {error:?}");
        std::fs::write(&intent, &whole[..at]).unwrap();
        assert_eq!(open_core(folder.path(), true).unwrap_err().kind(), ErrorKind::Corruption);
    }
    std::fs::write(&intent, &whole).unwrap();
    std::fs::write(&values[0], "2").unwrap();
    assert_eq!(open_core(folder.path(), true).unwrap_err().kind(), ErrorKind::Corruption);
    std::fs::remove_file(&values[0]).unwrap();
    assert_eq!(open_core(folder.path(), true).unwrap_err().kind(), ErrorKind::Corruption);
    std::fs::write(&values[0], "1").unwrap();
    assert_eq!(known(&open_core(folder.path(), true).unwrap()).len(), 2);

    // A store that does not sync guarantees nothing about a power cut: what it tears is given up.
    std::fs::write(folder.path().join(".tierstack/intent-unsynced"), &whole[..20]).unwrap();
    assert_eq!(known(&open_core(folder.path(), false).unwrap()).len(), 2);
    assert_eq!(own(folder.path()), ["layout", "lock", "temporary"]);
}
