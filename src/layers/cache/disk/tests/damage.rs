//! Whatever the disk holds, an answer is right or a miss.

use super::*;

/// A closed level of a few entries.
fn closed(rig: &Rig) -> Vec<(Vec<u8>, Value)> {
    let level = rig.open();
    let at = rig.clock.now() + Duration::from_secs(60);
    let entries = vec![
        (b"a".to_vec(), Value::from("of a")),
        (b"b".to_vec(), Value::from("").expiring_at(at)),
        (vec![7; 300], Value::from(vec![9; 400])),
        (b"c".to_vec(), Value::from(vec![1; 500])),
    ];
    for (key, value) in &entries {
        rig.put(&level, key, value.clone());
    }
    close(&level);
    entries
}

/// The folder as it was, each time.
fn with_file(
    rig: &Rig,
    file: &Path,
    damage: impl Fn(Vec<u8>) -> Vec<u8>,
    entries: &[(Vec<u8>, Value)],
) -> usize {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(rig.path()).unwrap() {
        let entry = entry.unwrap();
        let mut content = std::fs::read(entry.path()).unwrap();
        if entry.path() == file {
            content = damage(content);
        }
        std::fs::write(copy.path().join(entry.file_name()), content).unwrap();
    }
    let level = rig.try_open(copy.path(), true).unwrap();
    let mut hits = 0;
    for (key, value) in entries {
        if let Some(found) = get(&level, key) {
            assert_eq!(found, *value);
            hits += 1;
        }
    }
    // It goes on.
    rig.put(&level, b"new", "new");
    write_all(&level);
    assert_eq!(get(&level, b"new"), Some("new".into()));
    hits
}

#[test]
fn a_flipped_bit_makes_a_miss() {
    let rig = Rig::new();
    let entries = closed(&rig);
    let all = entries.len();
    let index = rig.path().join("index");
    assert_eq!(with_file(&rig, &index, |bytes| bytes, &entries), all, "without damage");
    let mut files = segments(&rig.path());
    assert!(files.len() > 1);
    files.push(index.clone());
    for file in files {
        for at in 0..file.metadata().unwrap().len() as usize {
            let flip = |mut bytes: Vec<u8>| {
                bytes[at] ^= 1 << (at % 8);
                bytes
            };
            let hits = with_file(&rig, &file, flip, &entries);
            let expected = if file == index { 0 } else { all - 1 };
            assert_eq!(hits, expected, "{} at {at}", file.display());
        }
    }
}

#[test]
fn a_file_that_was_cut_off_makes_misses() {
    let rig = Rig::new();
    let entries = closed(&rig);
    let mut files = segments(&rig.path());
    files.push(rig.path().join("index"));
    for file in files {
        for length in 0..file.metadata().unwrap().len() as usize {
            let cut = |mut bytes: Vec<u8>| {
                bytes.truncate(length);
                bytes
            };
            assert_eq!(with_file(&rig, &file, cut, &entries), 0, "{} to {length}", file.display());
        }
        let longer = |mut bytes: Vec<u8>| {
            bytes.push(0);
            bytes
        };
        assert_eq!(with_file(&rig, &file, longer, &entries), 0, "{} longer", file.display());
    }
}

#[test]
fn damage_under_an_open_level_is_a_miss_that_is_counted_once() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let damages: [fn(&Path); 3] = [
        |file| {
            let mut bytes = std::fs::read(file).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(file, bytes).unwrap();
        },
        |file| std::fs::write(file, b"short").unwrap(),
        |file| std::fs::remove_file(file).unwrap(),
    ];
    for damage in damages {
        let rig = Rig::new();
        let level = rig.open();
        rig.put(&level, b"k", "v");
        write_all(&level);
        damage(&segments(&rig.path())[0]);
        for _ in 0..2 {
            assert_eq!(get(&level, b"k"), None);
        }
        let count = counted(&recorder);
        assert_eq!(count("disk_drops_total", "damaged"), 1.0);
        assert_eq!(count("disk_active", ""), 1.0);
    }
}

/// An older record of the key, whole and of the same length, is where the newest should.
#[test]
fn a_record_of_another_segment_is_not_believed() {
    let rig = Rig::new();
    let level = rig.open();
    for value in [1, 2] {
        rig.put(&level, b"k", vec![value; 900]);
        write_all(&level);
    }
    let files = segments(&rig.path());
    let [older, newest] = &files[..] else { panic!("a segment each") };
    std::fs::copy(older, newest).unwrap();
    assert_eq!(get(&level, b"k"), None);
}
