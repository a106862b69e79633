//! Settings, and operators that are there already.

use ::opendal::Operator;
use ::opendal::services::Memory;

use super::*;
use crate::error::ErrorKind;
use crate::ext::{ReadExt, StoreExt};
use crate::store::Read;
use crate::types::Scan;

#[test]
fn every_service_that_is_compiled_in_has_its_guarantees() {
    ::opendal::install_default();
    let mut schemes: Vec<_> = ::opendal::OperatorRegistry::get().schemes().into_iter().collect();
    // Other names of `cos` and `fs`.
    schemes.retain(|scheme| scheme != "cosn" && scheme != "file");
    schemes.sort();
    assert_eq!(schemes.join(", "), services::names());
}

#[test]
fn settings_that_cannot_be_are_refused_with_words() {
    let with = |scheme: &str, change: fn(&mut OpenDalConfig)| {
        let mut config = OpenDalConfig::new(scheme);
        change(&mut config);
        config
    };
    let wrong = [
        (with("s4", |_| ()), "s3, swift"),
        (with("fs", |config| config.scans = Some(true)), "`scans`"),
        (with("b2", |config| config.conditional_writes = true), "`conditional_writes`"),
        (
            with("s3", |config| {
                config.options.insert("secret_access_key".into(), "hunter2".into());
            }),
            "{ env: NAME }",
        ),
        (
            with("s3", |config| {
                config.options.insert("regoin".into(), "x".into());
            }),
            "`options.regoin` is not known",
        ),
        (
            with("memory", |config| config.durability = Some(crate::types::Durability::PowerCut)),
            "`durability`",
        ),
    ];
    for (config, word) in wrong {
        let error = config.profile().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(word), "{error}");
        assert!(!format!("{error:?} {config:?}").contains("hunter2"));
    }
}

#[test]
fn the_options_of_each_service_are_known() {
    for (scheme, options) in [
        ("s3", &["bucket", "aws_region", "ROOT", "disable_config_load"][..]),
        ("azblob", &["container", "account_name"]),
        ("webdav", &["endpoint", "username"]),
        ("memcached", &["endpoint", "root"]),
        ("fs", &["root", "atomic_write_dir"]),
    ] {
        for name in options {
            let mut config = OpenDalConfig::new(scheme);
            config.options.insert((*name).to_owned(), "x".into());
            assert!(config.profile().is_ok(), "{scheme} {name}");
        }
    }
    let scheme =
        |name: &&str| services::find(name).is_none_or(|found| (found.options)().is_empty());
    let names = services::names();
    let without: Vec<_> = names.split(", ").filter(scheme).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn names_fit_each_service_once_they_are_escaped() {
    let limit = |scheme: &str, root: &str| {
        let mut config = OpenDalConfig::new(scheme);
        config.options.insert("root".into(), root.into());
        config.profile().unwrap().guarantees.limits.key_bytes
    };
    for root in ["", "a", "tenants/7", "a:b:c"] {
        for byte in *b" /.\\:\xff\x00" {
            let key = vec![byte; limit("memcached", root)];
            let name = crate::objects::Naming::Ordered.of(&key).unwrap().into_owned();
            let bytes = super::services::memcached_bytes(&format!("{root}/{name}"));
            assert!(bytes <= 250, "{root} {byte} {bytes}");
            let segments = format!("{root}/").split('/').count() - 1;
            let key = vec![byte; limit("azblob", root)];
            let name = crate::objects::Naming::Ordered.of(&key).unwrap().into_owned();
            assert!(segments + name.split('/').count() <= 254 && name.len() + root.len() < 1024);
            let key = vec![byte; limit("b2", root)];
            let name = crate::objects::Naming::Ordered.of(&key).unwrap().into_owned();
            assert!(name.split('/').all(|segment| segment.len() <= 250));
        }
    }
}

#[tokio::test]
async fn the_capabilities_of_an_operator_are_compared_with_the_guarantees() {
    let operator = || Operator::new(Memory::default()).unwrap();
    let refused = OpenDal::over(operator(), &OpenDalConfig::new("s3")).await.unwrap_err();
    assert!(refused.to_string().contains("the service 'memory'"), "{refused}");
    let less = |capability: &mut ::opendal::Capability| capability.list_with_recursive = false;
    let limited =
        operator().layer(::opendal::layers::CapabilityOverrideLayer::new(move |mut capability| {
            less(&mut capability);
            capability
        }));
    let refused = OpenDal::over(limited.clone(), &OpenDalConfig::new("memory")).await.unwrap_err();
    assert!(refused.to_string().contains("`scans: false`"), "{refused}");
    let config = OpenDalConfig { scans: Some(false), ..OpenDalConfig::new("memory") };
    let store = OpenDal::over(limited, &config).await.unwrap();
    assert!(store.collect(Scan::all()).await.is_err());
}

#[tokio::test]
async fn what_is_there_already_is_opened_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("users")).unwrap();
    std::fs::write(folder.path().join("users/Ada Lovelace"), "1815").unwrap();
    let mut config = OpenDalConfig { names: Names::Plain, ..OpenDalConfig::new("fs") };
    config.options.insert("root".into(), folder.path().to_str().unwrap().into());
    let store = OpenDal::open(&config, &Context::default()).await.unwrap();
    assert_eq!(store.get(b"users/Ada Lovelace").await.unwrap(), Some("1815".into()));
    assert_eq!(store.get(b"users").await.unwrap(), None, "a folder is no entry");
    assert_eq!(store.put("users", "1").await.unwrap_err().kind(), ErrorKind::Conflict);
    let _ = store.put("users/Bob", "1").await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("users/Bob")).unwrap(), b"1");
}
