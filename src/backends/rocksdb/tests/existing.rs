//! Databases that another program made.

use super::*;

/// A database with three column families and unusual settings.
fn others(path: &Path) {
    let options = |compression, buffer| {
        let mut options = Options::default();
        options.set_compression_type(compression);
        options.set_write_buffer_size(buffer);
        options
    };
    let families = [
        ColumnFamilyDescriptor::new("default", options(DBCompressionType::Zlib, 1 << 20)),
        ColumnFamilyDescriptor::new("orders", options(DBCompressionType::Zstd, 2 << 20)),
        ColumnFamilyDescriptor::new("odd \"name\" #1", options(DBCompressionType::Bz2, 3 << 20)),
    ];
    let mut options = creating();
    options.set_max_background_jobs(5);
    let db = DB::open_cf_descriptors(&options, path, families).unwrap();
    for name in ["default", "orders", "odd \"name\" #1"] {
        let family = db.cf_handle(name).unwrap();
        for number in 0..100 {
            db.put_cf(&family, key(number), format!("{name}-{number}")).unwrap();
        }
        db.flush_cf(&family).unwrap();
    }
}

#[tokio::test]
async fn another_programs_database_is_read_as_it_is_and_keeps_its_options() {
    let folder = folder();
    others(folder.path());
    let before = latest_options(folder.path());
    for name in ["default", "orders", "odd \"name\" #1"] {
        let config = RocksDbConfig {
            column_family: name.into(),
            create: false,
            ..RocksDbConfig::new(folder.path())
        };
        let store = RocksDb::open(config).await.unwrap();
        assert_eq!(store.get(&key(42)).await.unwrap(), Some(format!("{name}-42").into()));
        assert_eq!(all(&store, Scan::all()).await.len(), 100);
        store.put("ours", "1").await.unwrap().durable().await.unwrap();
        store.close().await.unwrap();
    }
    assert_eq!(before, latest_options(folder.path()));
    assert!(before.contains("max_background_jobs=5"));
    let db = DB::open_cf(
        &Options::default(),
        folder.path(),
        DB::list_cf(&Options::default(), folder.path()).unwrap(),
    )
    .unwrap();
    let orders = db.cf_handle("orders").unwrap();
    assert_eq!(db.get_cf(&orders, "ours").unwrap(), Some(b"1".to_vec()));
    assert_eq!(db.get_cf(&orders, key(7)).unwrap(), Some(b"orders-7".to_vec()));
}

#[tokio::test]
async fn settings_that_are_named_change_the_one_column_family() {
    let folder = folder();
    others(folder.path());
    let config = RocksDbConfig {
        column_family: "orders".into(),
        write_buffer_size: Some(ByteSize(7 << 20)),
        write_buffers: Some(6),
        bloom_bits: Some(12),
        compression: Some(Compression::Snappy),
        background_jobs: Some(7),
        compaction: Some(Compaction::Off),
        ..RocksDbConfig::new(folder.path())
    };
    RocksDb::open(config).await.unwrap().close().await.unwrap();
    let options = latest_options(folder.path());
    assert!(options.contains("max_background_jobs=7"));
    for line in [
        "write_buffer_size=7340032",
        "max_write_buffer_number=6",
        "filter_policy=bloomfilter:12:false",
        "compression=kSnappyCompression",
        "disable_auto_compactions=true",
    ] {
        assert_eq!(options.matches(line).count(), 1, "{line} in {options}");
    }
}

#[tokio::test]
async fn what_only_another_program_can_read_is_refused_and_left_alone() {
    let merging = || {
        let mut options = creating();
        options.set_merge_operator_associative("append", |_, _, _| Some(Vec::new()));
        options
    };
    let reversed = || {
        let mut options = creating();
        options.set_comparator("backwards", Box::new(|a, b| b.cmp(a)));
        options
    };
    for (options, word) in [(merging(), "append"), (reversed(), "backwards")] {
        for (name, used) in [("default", "default"), ("other", "other"), ("other", "default")] {
            let folder = folder();
            let families = [ColumnFamilyDescriptor::new(name, options.clone())];
            let db = DB::open_cf_descriptors(&creating(), folder.path(), families).unwrap();
            db.put_cf(&db.cf_handle(name).unwrap(), "k", "v").unwrap();
            drop(db);
            let before = image(folder.path());
            let config =
                RocksDbConfig { column_family: used.into(), ..RocksDbConfig::new(folder.path()) };
            let error = refusal(config).await;
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains(word) && text.contains(&format!("'{name}'")), "{text}");
            assert!(image(folder.path()) == before, "the folder was changed");
        }
    }
}

/// A copy of a database whose OPTIONS file names the folder of its log would replay the original's
/// log, and delete it; where that folder is gone, the copy's own log would not be found.
#[tokio::test]
async fn a_copy_does_not_consume_the_log_of_the_original() {
    let (original, copy, log) = (folder(), folder(), folder());
    let mut options = creating();
    options.set_wal_dir(log.path());
    let db = DB::open(&options, original.path()).unwrap();
    db.put("k", "v").unwrap();
    drop(db);
    for (name, bytes) in image(original.path()) {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    let before = image(log.path());
    let error = refusal(RocksDbConfig::new(copy.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(log.path().to_str().unwrap()), "{error}");
    assert!(image(log.path()) == before, "the log of the original was changed");
    let db = DB::open(&options, original.path()).unwrap();
    assert_eq!(db.get("k").unwrap(), Some(b"v".to_vec()));
}

/// Older versions of RocksDB record the database's own folder.
#[tokio::test]
async fn a_log_in_the_folder_of_the_database_is_read() {
    let folder = folder();
    let db = DB::open(&creating(), folder.path()).unwrap();
    db.put("k", "v").unwrap();
    drop(db);
    let own = format!("{}/.", folder.path().display());
    for (name, bytes) in image(folder.path()) {
        if name.starts_with("OPTIONS-") {
            let text = String::from_utf8(bytes).unwrap();
            let text = text.replace("[DBOptions]\n", &format!("[DBOptions]\n  wal_dir={own}\n"));
            fs::write(folder.path().join(name), text).unwrap();
        }
    }
    let store = open(folder.path()).await;
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_database_with_a_time_to_live_is_refused() {
    let folder = folder();
    let db =
        DB::open_with_ttl(&creating(), folder.path(), std::time::Duration::from_secs(60)).unwrap();
    db.put("k", "v").unwrap();
    drop(db);
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// Makes the OPTIONS file one that RocksDB 6.1 could have written: without what came later.
fn age(path: &Path) -> String {
    let newest = names(path).into_iter().rfind(|name| name.starts_with("OPTIONS-")).unwrap();
    let newer =
        ["persist_user_defined_timestamps", "prefix_seek_opt_in_only", "daily_offpeak_time_utc"];
    let text: String = latest_options(path)
        .replace("rocksdb_version=11.8.1", "rocksdb_version=6.1.2")
        .replace("format_version=7", "format_version=4")
        .replace("checksum=kXXH3", "checksum=kCRC32c")
        .lines()
        .filter(|line| !newer.iter().any(|newer| line.contains(newer)))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(path.join(newest), &text).unwrap();
    text
}

/// The format version and the checksum type that the footer of each table names.
fn footers(path: &Path) -> Vec<(u8, u8)> {
    image(path)
        .into_iter()
        .filter(|(name, _)| name.ends_with(".sst"))
        .map(|(_, bytes)| (bytes[bytes.len() - 12], bytes[bytes.len() - 53]))
        .collect()
}

#[tokio::test]
async fn what_is_left_behind_is_in_the_format_that_the_options_file_says() {
    for named in [None, Some(Compression::Zstd)] {
        let folder = folder();
        drop(DB::open(&creating(), folder.path()).unwrap());
        let before = age(folder.path());
        let config = RocksDbConfig {
            compression: named,
            create: false,
            ..RocksDbConfig::new(folder.path())
        };
        let store = RocksDb::open(config.clone()).await.unwrap();
        store.put("k", "v").await.unwrap().durable().await.unwrap();
        // One table from the memory, and one from a run.
        store
            .reader
            .offload(|engine| {
                engine.db().flush_cf(engine.family()).unwrap();
                Ok(())
            })
            .await
            .unwrap();
        let entry = |n: usize| Entry { key: key(n), value: vec![7; 100_000].into() };
        let page = Page { entries: (0..60).map(entry).collect() };
        store.ingest(futures_util::stream::iter([Ok(page)]).boxed()).await.unwrap();
        let crc = 1;
        assert_eq!(footers(folder.path()), [(4, crc), (4, crc)]);
        store.close().await.unwrap();

        let after = latest_options(folder.path());
        let others = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
            lines.retain(|line| !line.starts_with("compression") && !line.is_empty());
            lines.sort();
            lines
        };
        assert_eq!(others(&after), others(&before));
        assert_eq!(after.contains("compression=kZSTD"), named.is_some());
        assert!(named.is_some() || after == before);
        let store = RocksDb::open(config).await.unwrap();
        assert_eq!(all(&store, Scan::all()).await.len(), 61);
    }
}

#[tokio::test]
async fn a_database_of_an_older_rocksdb_gets_no_column_family_unless_it_may_be_upgraded() {
    let folder = folder();
    others(folder.path());
    age(folder.path());
    let before = image(folder.path());
    let config = |upgrade| RocksDbConfig {
        column_family: "order".into(),
        upgrade,
        ..RocksDbConfig::new(folder.path())
    };
    let error = refusal(config(false)).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    for word in ["'order'", "default, orders", "6.1.2", "`upgrade: true`"] {
        assert!(error.message().contains(word), "{error}");
    }
    assert!(image(folder.path()) == before);
    RocksDb::open(config(true)).await.unwrap().close().await.unwrap();
    assert!(latest_options(folder.path()).contains("rocksdb_version=11.8"));
    let store = RocksDb::open(config(false)).await.unwrap();
    store.put("k", "v").await.unwrap().durable().await.unwrap();
}

/// With these settings RocksDB opens without what is missing.
#[tokio::test]
async fn what_another_program_would_pass_over_is_refused() {
    for setting in ["best_efforts_recovery=true", "paranoid_checks=false"] {
        let folder = folder();
        foreign(folder.path(), &creating(), 100);
        let (key, _) = setting.split_once('=').unwrap();
        for name in names(folder.path()) {
            let path = folder.path().join(&name);
            if name.starts_with("OPTIONS-") {
                let text = fs::read_to_string(&path).unwrap();
                let lines = text.lines().map(|line| {
                    let other = !line.trim().starts_with(key);
                    format!("{}\n", if other { line } else { setting })
                });
                let text: String = lines.collect();
                assert!(text.contains(setting));
                fs::write(&path, text).unwrap();
            } else if name.ends_with(".sst") {
                fs::remove_file(&path).unwrap();
            }
        }
        let error = refusal(RocksDbConfig::new(folder.path())).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{setting}: {error:?}");
    }
}

#[tokio::test]
async fn a_database_whose_tables_lie_in_several_folders_is_not_called_damaged() {
    let folder = folder();
    foreign(folder.path(), &creating(), 100);
    let elsewhere = tempfile::tempdir().unwrap();
    for name in names(folder.path()).into_iter().filter(|name| name.ends_with(".sst")) {
        fs::rename(folder.path().join(&name), elsewhere.path().join(&name)).unwrap();
    }
    for path in [folder.path(), elsewhere.path()] {
        let error = refusal(RocksDbConfig::new(path)).await;
        assert_ne!(error.kind(), ErrorKind::Corruption);
        assert!(error.message().contains("db_paths"), "{error}");
        let text = format!("{error:#?}");
        assert!(!text.contains("damaged") && !text.contains("repair"), "{text}");
    }
    for name in names(elsewhere.path()) {
        fs::rename(elsewhere.path().join(&name), folder.path().join(&name)).unwrap();
    }
    assert_eq!(all(&open(folder.path()).await, Scan::all()).await.len(), 100);
}

#[tokio::test]
async fn a_database_of_leveldb_is_named_as_one_and_left_alone() {
    let folder = folder();
    foreign(folder.path(), &creating(), 100);
    for name in names(folder.path()) {
        let path = folder.path().join(&name);
        if name == "IDENTITY" || name.starts_with("OPTIONS-") {
            fs::remove_file(path).unwrap();
        } else if name.ends_with(".sst") {
            fs::rename(&path, path.with_extension("ldb")).unwrap();
        }
    }
    let before = image(folder.path());
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("LevelDB"), "{error}");
    assert!(image(folder.path()) == before);
}

#[tokio::test]
async fn a_missing_column_family_is_made_only_if_that_is_allowed() {
    let folder = folder();
    others(folder.path());
    let config = |create| RocksDbConfig {
        column_family: "new".into(),
        create,
        ..RocksDbConfig::new(folder.path())
    };
    let error = refusal(config(false)).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.message().contains("'new'") && error.message().contains("default, orders"),
        "{error}"
    );
    let store = RocksDb::open(config(true)).await.unwrap();
    store.put("k", "v").await.unwrap().durable().await.unwrap();
    store.close().await.unwrap();
    let store = RocksDb::open(config(false)).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn a_folder_of_other_files_is_left_alone() {
    let folder = folder();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let before = image(folder.path());
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("'notes.txt'"), "{error}");
    assert!(image(folder.path()) == before);
    let file = refusal(RocksDbConfig::new(folder.path().join("notes.txt"))).await;
    assert_eq!(file.kind(), ErrorKind::InvalidInput);
    let below = refusal(RocksDbConfig::new(folder.path().join("notes.txt/below"))).await;
    assert_eq!(below.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn nothing_there_is_made_only_if_that_is_allowed() {
    let folder = folder();
    for path in [folder.path().to_owned(), folder.path().join("missing")] {
        let config = RocksDbConfig { create: false, ..RocksDbConfig::new(&path) };
        let error = refusal(config).await;
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("`create: false`"), "{error}");
    }
    assert!(image(folder.path()).is_empty());
    // What a failed attempt leaves behind is no obstacle.
    fs::write(folder.path().join("LOCK"), "").unwrap();
    fs::write(folder.path().join("LOG"), "").unwrap();
    open(folder.path()).await.close().await.unwrap();
}

#[tokio::test]
async fn a_database_whose_making_was_cut_off_is_made_again_and_no_other() {
    let left = |names: &[&str]| {
        let folder = folder();
        for name in names {
            fs::write(folder.path().join(name), "half").unwrap();
        }
        folder
    };
    // In the order in which RocksDB makes them, up to the name of the manifest in CURRENT.
    let making = ["LOCK", "LOG", "IDENTITY", "MANIFEST-000001", "000001.dbtmp"];
    for made in 0..=making.len() {
        let folder = left(&making[..made]);
        let store = open(folder.path()).await;
        store.put("k", "v").await.unwrap().durable().await.unwrap();
        store.close().await.unwrap();
        assert_eq!(open(folder.path()).await.get(b"k").await.unwrap(), Some("v".into()));
    }
    for rest in [
        &["MANIFEST-000001", "000009.sst"][..],
        &["MANIFEST-000001", "000004.log"],
        &["MANIFEST-000001", "MANIFEST-000005"],
        &["MANIFEST-000005"],
    ] {
        let folder = left(rest);
        let before = image(folder.path());
        let error = refusal(RocksDbConfig::new(folder.path())).await;
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("no CURRENT file"), "{rest:?}: {error}");
        assert!(image(folder.path()) == before);
    }
}

#[tokio::test]
async fn the_name_of_the_folder_may_be_relative_to_that_of_the_config() {
    let folder = folder();
    let context = Context { folder: folder.path().to_owned(), ..Context::default() };
    let store = RocksDbConfig::new("data/db").open(&context).await.unwrap();
    store.close().await.unwrap();
    assert!(folder.path().join("data/db/CURRENT").exists());
}

#[tokio::test]
async fn a_second_opener_is_told_and_the_first_is_not_disturbed() {
    let folder = folder();
    let store = open(folder.path()).await;
    store.put("k", "v").await.unwrap().durable().await.unwrap();
    let before = names(folder.path());
    let error = refusal(RocksDbConfig::new(folder.path())).await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("open elsewhere"), "{error}");
    assert_eq!(names(folder.path()), before, "a LOG file was renamed");
    store.put("k", "w").await.unwrap().durable().await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("w".into()));
    drop(store);
    open(folder.path()).await;
}
