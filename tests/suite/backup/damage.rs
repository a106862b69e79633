//! Every byte of every object: changed, cut off, missing.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use tierstack::backup::{Level, Target};
use tierstack::{Entry, ErrorKind, ManualClock};

use super::support::*;

/// Two bases over a few packs.
async fn two_bases() -> (Arc<InMemory>, Vec<Entry>) {
    let objects = Arc::new(InMemory::new());
    let repository = repository(&objects, &ManualClock::new()).await;
    let store = filled(40).await;
    take(&store, &repository).await;
    put(&store, 5, 77).await;
    put(&store, 41, 78).await;
    take(&store, &repository).await;
    (objects, all(&store).await)
}

/// Whether the damage was noticed. A restore must fail, or give what was backed up.
async fn noticed(objects: &Arc<InMemory>, expected: &[Entry]) -> bool {
    let repository = match open(objects).await {
        Ok(repository) => repository,
        Err(error) => {
            assert!(matches!(
                error.kind(),
                ErrorKind::Corruption | ErrorKind::Unsupported | ErrorKind::InvalidInput
            ));
            return true;
        }
    };
    if let Ok((store, _)) = restore(&repository, Target::Latest).await {
        let found = all(&store).await;
        assert!(found == expected, "a restore must not give anything else");
    }
    !repository.verify(Level::All, &|_| ()).await.unwrap().is_intact()
}

fn superseded(path: &Path) -> bool {
    path.as_ref() == "head/00000000000000000001.json"
}

#[tokio::test]
async fn every_changed_byte_is_noticed() {
    let (objects, expected) = two_bases().await;
    assert!(!noticed(&objects, &expected).await);
    for (path, bytes) in objects_of(&*objects).await {
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= [0x01, 0x20, 0x80, 0xff][at % 4];
            objects.put(&path, damaged.into()).await.unwrap();
            let noticed = noticed(&objects, &expected).await;
            assert_eq!(noticed, !superseded(&path), "byte {at} of {path}");
        }
        objects.put(&path, bytes.into()).await.unwrap();
    }
    assert!(!noticed(&objects, &expected).await);
}

#[tokio::test]
async fn every_cut_is_noticed() {
    let (objects, expected) = two_bases().await;
    for (path, bytes) in objects_of(&*objects).await {
        let lengths = (0..bytes.len()).step_by(7).chain([bytes.len() - 1]);
        for length in lengths {
            objects.put(&path, bytes.slice(..length).into()).await.unwrap();
            let noticed = noticed(&objects, &expected).await;
            assert_eq!(noticed, !superseded(&path), "{path} cut at {length}");
        }
        objects.put(&path, [&bytes[..], b"x"].concat().into()).await.unwrap();
        assert_eq!(
            noticed(&objects, &expected).await,
            !superseded(&path),
            "{path} with a byte more"
        );
        objects.put(&path, bytes.into()).await.unwrap();
    }
}

#[tokio::test]
async fn every_missing_object_is_noticed() {
    let (objects, _) = two_bases().await;
    for (path, bytes) in objects_of(&*objects).await {
        objects.delete(&path).await.unwrap();
        // Without its last head, the repository cannot be told from one before its last base.
        if path.as_ref() != "head/00000000000000000002.json" {
            let repository = open(&objects).await;
            if let Ok(repository) = repository {
                let report = repository.verify(Level::All, &|_| ()).await.unwrap();
                assert!(!report.is_intact(), "{path}");
                let run = tierstack::backup::run(&filled(1).await, &repository, &|_| ()).await;
                assert_eq!(run.is_err(), path.as_ref().starts_with("head/"), "{path}");
                objects.delete(&"head/00000000000000000003.json".into()).await.unwrap();
            }
        }
        objects.put(&path, bytes.into()).await.unwrap();
    }
}

#[tokio::test]
async fn all_that_is_damaged_is_reported_with_its_name() {
    let (objects, _) = two_bases().await;
    let mut names = Vec::new();
    for (path, bytes) in objects_of(&*objects).await {
        if path.as_ref().starts_with("data/") {
            let mut damaged = bytes.to_vec();
            damaged[60] ^= 1;
            objects.put(&path, damaged.into()).await.unwrap();
            names.push(path.to_string());
        }
    }
    assert!(names.len() > 1);
    let repository = open(&objects).await.unwrap();
    let report = repository.verify(Level::All, &|_| ()).await.unwrap();
    for name in names {
        assert!(report.findings.iter().any(|f| f.object == name && f.base.is_some()), "{name}");
    }
}

#[tokio::test]
async fn a_damaged_head_is_reported_and_the_one_before_is_still_checked() {
    let (objects, _) = two_bases().await;
    objects.put(&"head/00000000000000000002.json".into(), "garbage".into()).await.unwrap();
    let repository = open(&objects).await.unwrap();
    let error = repository.bases().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("head/00000000000000000002.json"), "{error}");
    let report = repository.verify(Level::All, &|_| ()).await.unwrap();
    assert_eq!((report.bases, report.findings.len()), (1, 1), "{report:?}");
    objects.delete(&"head/00000000000000000002.json".into()).await.unwrap();
    restore(&open(&objects).await.unwrap(), Target::Latest).await.unwrap();
}
