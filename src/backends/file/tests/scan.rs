use std::collections::BTreeMap;

use tempfile::tempdir;

use super::{Bytes, entries, open_core};
use crate::backends::file::config::FileConfig;
use crate::backends::file::names::Names;
use crate::backends::file::open;
use crate::backends::file::scan::Walk;
use crate::testing::Random;
use crate::types::{Batch, Op, Scan};

/// Random keys of few letters, in every layout, against a map.
#[test]
fn scans_are_those_of_an_ordered_map() {
    let mut random = Random::new(7);
    for (names, fan_out) in [
        (Names::Plain, vec![]),
        (Names::Portable, vec![]),
        (Names::Portable, vec![1, 2]),
        (Names::Plain, vec![3]),
    ] {
        let folder = tempdir().unwrap();
        let core = open::open(
            &FileConfig {
                sync: false,
                names: Some(names),
                fan_out: Some(fan_out),
                ..FileConfig::new(folder.path())
            },
            true,
        )
        .unwrap();
        let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let letters = b"ab/./%A!0\xff\x00";
        for round in 0..240 {
            let length = 1 + random.below(7);
            let mut key: Vec<u8> =
                (0..length).map(|_| letters[random.below(letters.len())]).collect();
            if round % 20 == 0 {
                key = key.repeat(50);
            }
            let key = Bytes::from(key);
            if random.below(4) == 0 {
                core.write(&Batch::new().delete(key.clone())).unwrap();
                model.remove(&key);
            } else {
                core.write(&Batch::new().put(key.clone(), round.to_string())).unwrap();
                model.insert(key.clone(), round.to_string().into());
            }
            if round % 12 == 0 {
                let all: Vec<_> = model.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                let scan = Scan::all().page_entries(1 + random.below(20));
                assert_eq!(entries(&core, &scan), all);
                let mut reversed = all.clone();
                reversed.reverse();
                assert_eq!(entries(&core, &scan.reverse()), reversed);
                let (from, to) = (key.slice(..key.len() / 2 + 1), Bytes::from("b"));
                let within: Vec<_> =
                    all.into_iter().filter(|(k, _)| *k >= from && *k < to).collect();
                assert_eq!(entries(&core, &Scan::range::<Bytes>(&from..&to)), within);
            }
        }
        core.write(&model.into_keys().map(Op::Delete).collect()).unwrap();
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "only .tierstack is left: empty folders go away");
    }
}

/// More names than are kept of one folder.
#[test]
fn a_folder_that_is_too_large_to_keep_is_listed_again() {
    let folder = tempdir().unwrap();
    let core = open_core(folder.path(), false).unwrap();
    drop(core);
    // Names as long as they get, so that few files are many bytes.
    let count = super::super::scan::MOST_BYTES / 250;
    for number in 0..count {
        let name = format!("{number:0>240}");
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let core = open_core(folder.path(), false).unwrap();
    for scan in [Scan::all(), Scan::all().reverse()] {
        let found = entries(&core, &scan.page_entries(5000));
        assert_eq!(found.len(), count);
        let mut keys: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "each once");
    }
}

/// A file that was opened is one that an entry's name stands for: folders are passed over.
#[cfg(target_os = "linux")]
#[test]
fn a_scan_of_keys_only_opens_no_file() {
    use std::mem::MaybeUninit;

    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

    let folder = tempdir().unwrap();
    let core = open_core(folder.path(), false).unwrap();
    for n in 0..40 {
        core.write(&Batch::new().put(format!("{n:02}"), vec![b'v'; 1000])).unwrap();
    }
    let watch = init(CreateFlags::NONBLOCK).unwrap();
    add_watch(&watch, folder.path(), WatchFlags::OPEN | WatchFlags::ACCESS).unwrap();
    let opened = || {
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let (mut events, mut files) = (Reader::new(&watch, &mut buffer), 0);
        while let Ok(event) = events.next() {
            let file = event.file_name().is_some() && !event.events().contains(ReadFlags::ISDIR);
            files += usize::from(file);
        }
        files
    };
    for scan in [Scan::all().page_entries(7), Scan::all().reverse()] {
        opened();
        assert_eq!(entries(&core, &scan.clone().keys_only()).len(), 40);
        assert_eq!(opened(), 0, "{scan:?}");
        assert_eq!(entries(&core, &scan).len(), 40);
        assert!(opened() >= 40, "the watch sees what is opened");
    }
}

#[test]
fn what_is_removed_between_two_pages_is_not_in_the_next_one() {
    for all in [Scan::all(), Scan::all().keys_only()] {
        let folder = tempdir().unwrap();
        let core = open_core(folder.path(), false).unwrap();
        for key in ["a", "b", "c", "d", "e/f", "g"] {
            core.write(&Batch::new().put(key, "v")).unwrap();
        }
        let (mut walk, mut scan) = (Walk::default(), all.page_entries(2));
        let mut next = || {
            let page = core.reading(|tree| walk.page(tree, &scan)).unwrap();
            let keys: Vec<_> = page.entries.into_iter().map(|entry| entry.key).collect();
            scan.resume_after(keys.last().unwrap().clone());
            keys
        };
        assert_eq!(next(), ["a", "b"]);
        core.write(&Batch::new().delete("c").delete("e/f")).unwrap();
        assert_eq!(next(), ["d", "g"]);
    }
}

#[test]
fn what_comes_between_two_pages_is_in_the_next_one() {
    for all in [Scan::all(), Scan::all().keys_only()] {
        comes_between_two_pages(all);
    }
}

fn comes_between_two_pages(all: Scan) {
    let folder = tempdir().unwrap();
    let core = open_core(folder.path(), false).unwrap();
    let put = |key: &'static str| core.write(&Batch::new().put(key, "v")).unwrap();
    ["a", "d/a", "d/x", "z"].into_iter().for_each(put);
    let (mut walk, mut scan) = (Walk::default(), all.page_entries(2));
    let mut next = || {
        let page = core.reading(|tree| walk.page(tree, &scan)).unwrap();
        let keys: Vec<_> = page.entries.into_iter().map(|entry| entry.key).collect();
        scan.resume_after(keys.last().unwrap().clone());
        keys
    };
    assert_eq!(next(), ["a", "d/a"]);
    ["b", "d/b", "e", "d"].into_iter().for_each(put);
    core.write(&Batch::new().delete("d/x").put("d/y", "v")).unwrap();
    assert_eq!(next(), ["d/b", "d/y"]);
    core.write(&Batch::new().delete("d/a").delete("d/b").delete("d/y")).unwrap();
    assert_eq!(next(), ["e", "z"]);
}
