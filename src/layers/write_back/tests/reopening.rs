//! What was acknowledged is there again, over the store that it is for.

use super::*;
use crate::error::{ErrorKind, Operation};
use crate::types::Durability;

/// Opens it again, once the one before has let go of the journal.
async fn again(bed: Bed, below: Arc<Memory>) -> Result<Bed> {
    let Bed { store, flusher, clock, folder, .. } = bed;
    drop((store, flusher));
    loop {
        let config = config(folder.path(), Ack::Journal);
        match open(config, Arc::clone(&below), clock.clone(), Arc::clone(&folder)).await {
            Err(error) if error.to_string().contains("open already") => {
                tokio::task::yield_now().await
            }
            opened => return opened,
        }
    }
}

#[tokio::test]
async fn a_drop_without_a_close_loses_nothing() {
    let mut bed = bed().await;
    bed.put("flushed", "1").await;
    bed.flush_all().await;
    drop(
        bed.store.write(Batch::new().put("a", "1").put("b", "1").delete("flushed")).await.unwrap(),
    );
    bed.put("a", "2").await;
    let memory = Batch::new().put("m", "1").durability(Durability::Nothing);
    drop(bed.store.write(memory).await.unwrap());
    // The first half of what a crash leaves half done: below, and not released.
    bed.faults.on(Operation::Write).after_effect().times(1).fail(ErrorKind::Timeout);
    bed.flusher.step().await;
    let below = Arc::clone(&bed.below);
    let mut bed = again(bed, below).await.unwrap();
    for (key, value) in [("a", Some("2")), ("b", Some("1")), ("flushed", None)] {
        bed.gives(key, value).await;
    }
    let commit = bed.store.put("c", "1").await.unwrap();
    assert_eq!(commit.sequence, Some(5), "the sequence goes on");
    bed.flush_all().await;
    bed.below_gives("a", Some("2")).await;
    bed.below_gives("flushed", None).await;
    let below = Arc::clone(&bed.below);
    let bed = again(bed, below).await.unwrap();
    assert!(
        bed.store.shared.overlay.entries() <= 5,
        "what was flushed may be replayed, and nothing else"
    );
    bed.gives("c", Some("1")).await;
}

#[tokio::test]
async fn writes_for_another_store_are_refused_by_name() {
    let mut bed = bed().await;
    bed.put("k", "1").await;
    let (mine, other) = (Arc::clone(&bed.below), Arc::new(Memory::new()));
    let folder = Arc::clone(&bed.folder);
    let clock = bed.clock.clone();
    let names = [&mine, &other].map(|store| store.identity().unwrap().as_str().to_owned());
    let error = again(bed, Arc::clone(&other)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(names.iter().all(|name| error.to_string().contains(name)), "{error}");
    // Once the right one has them, the journal is free for another.
    let reopened = loop {
        match open(
            config(folder.path(), Ack::Journal),
            Arc::clone(&mine),
            clock.clone(),
            Arc::clone(&folder),
        )
        .await
        {
            Err(error) if error.to_string().contains("open already") => {
                tokio::task::yield_now().await
            }
            opened => break opened,
        }
    };
    bed = reopened.unwrap();
    bed.gives("k", Some("1")).await;
    let store = Arc::clone(&bed.store);
    bed.beside(store.close()).await.unwrap();
    let bed = again(bed, other).await.unwrap();
    bed.gives("k", None).await;
}

/// The bytes of the file are drawn in `docs/formats/write_back.md`.
#[tokio::test]
async fn the_file_of_the_owner_is_as_drawn() {
    let bed = bed().await;
    let text = std::fs::read_to_string(bed.folder.path().join("journal/store")).unwrap();
    let own = bed.below.identity().unwrap();
    assert_eq!(text, format!("tierstack write_back 1\n{}\n", own.as_str()));
    bed.put("k", "1").await;
    std::fs::write(bed.folder.path().join("journal/store"), "tierstack write_back 2\nx\n").unwrap();
    let below = Arc::clone(&bed.below);
    let error = again(bed, below).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

#[tokio::test]
async fn an_operator_drains_a_journal_into_the_store_that_it_is_for() {
    let bed = bed().await;
    bed.put("k", "1").await;
    bed.put("k", "2").await;
    let Bed { store, flusher, below, folder, .. } = bed;
    let path = folder.path().join("journal");
    let store_below: Arc<dyn Store> = below.clone();
    let open = super::super::inspect(&path).await.unwrap_err();
    assert_eq!(open.kind(), ErrorKind::Conflict, "the stack is open");
    drop((store, flusher));
    let drained = loop {
        match super::super::drain(&path, &store_below).await {
            Err(error) if error.to_string().contains("open already") => {
                tokio::task::yield_now().await
            }
            drained => break drained,
        }
    };
    assert_eq!(drained.unwrap(), 2);
    assert_eq!(below.get(b"k").await.unwrap(), Some("2".into()));
    assert!(super::super::inspect(&path).await.unwrap().batches.is_empty());
}

#[tokio::test]
async fn no_journal_is_made_in_a_folder_by_what_only_looks() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("theirs"), "1").unwrap();
    let path = folder.path().to_owned();
    let below: Arc<dyn Store> = Arc::new(Memory::new());
    let reading = Context { may_create: false, ..Context::default() };
    let config = WriteBackConfig { path: Some(path.clone()), ..WriteBackConfig::default() };
    let copy = folder.path().join("copy");
    let refused = [
        super::super::inspect(&path).await.map(drop),
        super::super::drain(&path, &below).await.map(drop),
        super::super::skip(&path, 1, &copy).await,
        WriteBackLayer::open(&config, &reading).await.map(drop),
    ];
    for refused in refused {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("there is no journal of write_back in"), "{text}");
    }
    let names: Vec<_> =
        std::fs::read_dir(&path).unwrap().map(|at| at.unwrap().file_name()).collect();
    assert_eq!(names, ["theirs"]);
}
