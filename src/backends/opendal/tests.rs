//! Settings, and operators that are there already.

use ::opendal::Operator;
use ::opendal::services::Memory;

use super::*;
use crate::error::ErrorKind;
use crate::ext::{ReadExt, StoreExt};
use crate::store::Read;
use crate::types::Scan;

#[test]
fn every_service_that_is_compiled_in_has_its_promises() {
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

#[tokio::test]
async fn the_capabilities_of_an_operator_are_compared_with_the_promises() {
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
