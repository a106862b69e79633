//! Databases that are damaged.

use super::*;

/// A copy of a sound database with one file changed.
fn damaged(
    files: &BTreeMap<String, Vec<u8>>,
    name: &str,
    change: impl FnOnce(&mut Vec<u8>),
) -> TempDir {
    let copy = folder();
    for (file, bytes) in files {
        fs::write(copy.path().join(file), bytes).unwrap();
    }
    let mut bytes = files[name].clone();
    change(&mut bytes);
    fs::write(copy.path().join(name), bytes).unwrap();
    copy
}

fn sound() -> BTreeMap<String, Vec<u8>> {
    let folder = folder();
    foreign(folder.path(), &creating(), 200);
    image(folder.path())
}

fn named(files: &BTreeMap<String, Vec<u8>>, what: &str) -> String {
    files.keys().rfind(|name| name.contains(what)).unwrap().clone()
}

#[tokio::test]
async fn a_damaged_database_is_refused_with_what_to_do() {
    let files = sound();
    let (manifest, table) = (named(&files, "MANIFEST"), named(&files, ".sst"));
    let empty: fn(&mut Vec<u8>) = Vec::clear;
    let garbage: fn(&mut Vec<u8>) = |bytes| bytes.fill(b'x');
    let halved: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() / 2);
    for (name, change) in [
        ("CURRENT", empty),
        ("CURRENT", garbage),
        (&manifest, empty),
        (&manifest, garbage),
        (&table, empty),
        (&table, halved),
    ] {
        let folder = damaged(&files, name, change);
        let error = refusal(RocksDbConfig::new(folder.path())).await;
        assert_eq!(error.kind(), ErrorKind::Corruption, "{name}: {error:?}");
        assert!(error.message().contains("restore it from a backup"), "{error}");
    }
}

/// A part of a database, an incomplete copy, or one with folders that are not known here.
#[tokio::test]
async fn what_is_not_there_is_not_called_damaged() {
    let files = sound();
    let table = named(&files, ".sst");
    let astray = damaged(&files, "CURRENT", |bytes| *bytes = b"MANIFEST-999999\n".to_vec());
    let headless = damaged(&files, &table, |_| ());
    fs::remove_file(headless.path().join("CURRENT")).unwrap();
    let lost = damaged(&files, &table, |_| ());
    fs::remove_file(lost.path().join(&table)).unwrap();
    for (folder, kind) in [
        (astray, ErrorKind::Unsupported),
        (headless, ErrorKind::Config),
        (lost, ErrorKind::Unsupported),
    ] {
        let error = refusal(RocksDbConfig::new(folder.path())).await;
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(!error.message().contains("damaged"), "{error}");
    }
}

#[tokio::test]
async fn damage_within_the_log_is_refused_and_a_cut_off_end_is_not() {
    // All entries are in the log: what a crash leaves.
    let folder = folder();
    let db = DB::open(&creating(), folder.path()).unwrap();
    for entry in 0..2000 {
        db.put(key(entry), format!("value-{entry}")).unwrap();
    }
    let files = image(folder.path());
    drop(db);
    let log = named(&files, ".log");
    let middle = files[&log].len() / 2;

    let hurt = damaged(&files, &log, |bytes| bytes[middle] ^= 0x10);
    for _ in 0..2 {
        let error = refusal(RocksDbConfig::new(hurt.path())).await;
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error:?}");
    }
    assert_eq!(fs::read(hurt.path().join(&log)).unwrap()[..middle], files[&log][..middle]);
    fs::write(hurt.path().join(&log), &files[&log]).unwrap();
    let cut = damaged(&files, &log, |bytes| bytes.truncate(bytes.len() - 5));
    for (folder, entries) in [(&hurt, 2000), (&cut, 1999)] {
        let store = RocksDb::open(RocksDbConfig::new(folder.path())).await.unwrap();
        assert_eq!(all(&store, Scan::all()).await.len(), entries);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn without_an_options_file_nothing_is_guessed() {
    let folder = folder();
    foreign(folder.path(), &creating(), 1);
    for name in image(folder.path()).into_keys().filter(|name| name.starts_with("OPTIONS")) {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("OPTIONS"), "{error}");
}

#[tokio::test]
async fn a_format_from_the_future_is_named_as_one() {
    let files = sound();
    let options = named(&files, "OPTIONS");
    let folder = damaged(&files, &options, |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text
            .replace("rocksdb_version=11.8.1", "rocksdb_version=99.1.2")
            .replace("[DBOptions]", "[DBOptions]\n  telepathy=true")
            .into_bytes();
    });
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("99.1.2"), "{error}");
}

#[tokio::test]
async fn a_flipped_bit_gives_the_value_or_an_error_and_the_rest_stays_readable() {
    let files = sound();
    let table = named(&files, ".sst");
    let mut noticed = 0;
    for at in (0..files[&table].len()).step_by(41) {
        let folder = damaged(&files, &table, |bytes| bytes[at] ^= 0x10);
        let store = match RocksDb::open(RocksDbConfig::new(folder.path())).await {
            Ok(store) => store,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported),
                    "{error:?}"
                );
                noticed += 1;
                continue;
            }
        };
        match store.get(&key(7)).await {
            Ok(value) => assert_eq!(value, Some("value-7".into()), "byte {at}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error:?}");
                assert!(!format!("{error:?}").contains("key-0"), "{error:?}");
                noticed += 1;
            }
        }
        for page in store.scan(Scan::all()).collect::<Vec<_>>().await {
            if let Err(error) = page {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error:?}");
            }
        }
        store.put("written", "after").await.unwrap().durable().await.unwrap();
        assert_eq!(store.get(b"written").await.unwrap(), Some("after".into()));
        store.close().await.unwrap();
    }
    assert!(noticed > 0, "no flip hit the block that was read");
}
