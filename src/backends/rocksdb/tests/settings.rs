//! Settings, and what new databases get of them.

use super::*;

#[test]
fn settings_out_of_range_name_the_setting_and_the_range() {
    let good = || RocksDbConfig::new("x");
    for (config, words) in [
        (
            RocksDbConfig { block_cache_size: ByteSize(1), ..good() },
            ["block_cache_size", "1MiB to 1TiB"],
        ),
        (
            RocksDbConfig { write_buffer_size: Some(ByteSize(1)), ..good() },
            ["write_buffer_size", "64KiB to 64GiB"],
        ),
        (RocksDbConfig { write_buffers: Some(1), ..good() }, ["write_buffers", "2 to 64"]),
        (RocksDbConfig { bloom_bits: Some(33), ..good() }, ["bloom_bits", "0 to 32"]),
        (RocksDbConfig { background_jobs: Some(0), ..good() }, ["background_jobs", "1 to 256"]),
        (
            RocksDbConfig { column_family: String::new(), ..good() },
            ["column_family", "at least one"],
        ),
        (RocksDbConfig::new(""), ["path", "empty"]),
    ] {
        let error = config.profile().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
    }
}

#[test]
fn the_profile_follows_the_settings() {
    let profile = RocksDbConfig::new("x").profile().unwrap();
    assert_eq!(profile.guarantees.durability, Durability::PowerCut);
    assert_eq!(profile.guarantees.freshness, Freshness::Exclusive);
    assert!(profile.notes.is_empty());
    let fast =
        RocksDbConfig { sync: false, compaction: Some(Compaction::Off), ..RocksDbConfig::new("x") };
    let profile = fast.profile().unwrap();
    assert_eq!(profile.guarantees.durability, Durability::ProcessCrash);
    assert_eq!(profile.guarantees.durability_after_flush, Durability::PowerCut);
    assert_eq!(profile.notes.len(), 2);
}

#[cfg(feature = "config")]
#[test]
fn settings_are_read_from_a_file() {
    let text =
        r#"{"path": "d", "block_cache_size": "8MiB", "compression": "zstd", "compaction": "off"}"#;
    let config: RocksDbConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config.compression, Some(Compression::Zstd));
    assert_eq!(config.compaction, Some(Compaction::Off));
    assert!(config.create && config.sync && config.write_buffers.is_none());
    assert!(serde_json::from_str::<RocksDbConfig>("{}").is_err(), "`path` is required");
    assert!(serde_json::from_str::<RocksDbConfig>(r#"{"path": "d", "colour": 1}"#).is_err());
}

#[tokio::test]
async fn a_new_database_gets_the_settings_or_the_defaults() {
    let folder = folder();
    open(&folder.path().join("a/b")).await.close().await.unwrap();
    let options = latest_options(&folder.path().join("a/b"));
    for line in [
        "filter_policy=bloomfilter",
        "compression=kLZ4Compression",
        "disable_auto_compactions=false",
    ] {
        assert!(options.contains(line), "{line} in {options}");
    }
    let config = RocksDbConfig {
        write_buffer_size: Some(ByteSize(1 << 20)),
        write_buffers: Some(5),
        bloom_bits: Some(0),
        compression: Some(Compression::None),
        background_jobs: Some(3),
        compaction: Some(Compaction::Off),
        column_family: "mine".into(),
        ..RocksDbConfig::new(folder.path().join("c"))
    };
    RocksDb::open(config).await.unwrap().close().await.unwrap();
    let options = latest_options(&folder.path().join("c"));
    for line in [
        "write_buffer_size=1048576",
        "max_write_buffer_number=5",
        "filter_policy=nullptr",
        "compression=kNoCompression",
        "max_background_jobs=3",
        "disable_auto_compactions=true",
        "[CFOptions \"mine\"]",
    ] {
        assert!(options.contains(line), "{line} in {options}");
    }
}
