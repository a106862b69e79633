//! Object stores that fail, lie and race; a crash at every step.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tierstack::backup::{self, Level, Repository, Target};
use tierstack::{ErrorKind, ManualClock};
use tokio::sync::Barrier;

use super::support::*;

async fn open_faulty(objects: Arc<Faulty>) -> Repository {
    Repository::open(objects, clock(&ManualClock::new())).await.unwrap()
}

#[tokio::test]
async fn a_crash_at_every_step_leaves_the_former_state() {
    let objects = Arc::new(InMemory::new());
    let time = ManualClock::new();
    let store = filled(200).await;
    let first = take(&store, &repository(&objects, &time).await).await.base;
    for number in 0..200 {
        put(&store, number, number + 1000).await;
    }

    let counting = Faulty::new(copy(&objects).await, |_, _| Fault::None);
    take(&store, &open_faulty(counting.clone()).await).await;
    let steps = counting.puts.load(Ordering::SeqCst);
    assert!(steps > 5, "packs, manifest, head: {steps}");

    for step in 0..steps {
        for fault in [Fault::Before, Fault::After] {
            let inner = copy(&objects).await;
            // From this step on nothing gets through: the process is gone.
            let crashing = Faulty::new(inner.clone(), move |number, _| match number {
                number if number < step => Fault::None,
                number if number == step => fault,
                _ => Fault::Before,
            });
            let result = backup::run(&store, &open_faulty(crashing).await, &|_| ()).await;
            // Only the head makes a base visible, and its outcome is read back.
            let committed = step == steps - 1 && fault == Fault::After;
            assert_eq!(result.is_ok(), committed, "step {step}, {fault:?}");

            let after = open(&inner).await.unwrap();
            assert_eq!(after.bases().await.unwrap().len(), 1 + usize::from(committed));
            assert_intact(&after).await;
            let old = restore(&after, Target::Base(first.id.clone())).await.unwrap().1;
            assert_eq!(old.base.digest, first.digest);
            take(&store, &after).await;
            assert_intact(&after).await;
            let (back, _) = restore(&after, Target::Latest).await.unwrap();
            assert_eq!(all(&back).await, all(&store).await, "step {step}, {fault:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_got_lost_is_read_back() {
    for name in ["base/", "head/"] {
        for fault in [Fault::After, Fault::AfterAsExisting, Fault::BeforeAsExisting, Fault::Before]
        {
            let inner = Arc::new(InMemory::new());
            drop(repository(&inner, &ManualClock::new()).await);
            let once = std::sync::atomic::AtomicBool::new(true);
            let faulty = Faulty::new(inner.clone(), move |_, path| {
                let hit = path.as_ref().starts_with(name) && once.swap(false, Ordering::SeqCst);
                if hit { fault } else { Fault::None }
            });
            take(&filled(20).await, &open_faulty(faulty).await).await;
            let after = open(&inner).await.unwrap();
            assert_eq!(after.bases().await.unwrap().len(), 1, "{name} {fault:?}");
            assert_intact(&after).await;
        }
    }
}

#[tokio::test]
async fn a_store_that_ignores_the_condition_is_refused() {
    for fault in [Fault::Overwrite, Fault::Racy] {
        let inner = Arc::new(InMemory::new());
        let liar = Faulty::new(inner.clone(), move |_, _| fault);
        let result = Repository::create_or_open(liar, clock(&ManualClock::new())).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{fault:?}");
        assert!(error.to_string().contains("two writers apart"), "{error}");
        assert!(objects_of(&*inner).await.is_empty(), "nothing is left behind");
    }
}

#[tokio::test]
async fn a_repository_that_was_moved_to_such_a_store_is_refused_when_written() {
    let inner = Arc::new(InMemory::new());
    drop(repository(&inner, &ManualClock::new()).await);
    let repository = open_faulty(Faulty::new(inner, |_, _| Fault::Overwrite)).await;
    let error = backup::run(&filled(3).await, &repository, &|_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(repository.bases().await.unwrap().is_empty());
}

#[tokio::test]
async fn of_two_writers_one_wins_and_nothing_is_lost() {
    let inner = Arc::new(InMemory::new());
    let time = ManualClock::new();
    take(&filled(10).await, &repository(&inner, &time).await).await;
    let barrier = Arc::new(Barrier::new(2));
    let writer = || {
        let barrier = barrier.clone();
        let objects: Arc<dyn ObjectStore> = inner.clone();
        let mut faulty = Faulty::new(objects, |_, _| Fault::None);
        Arc::get_mut(&mut faulty).unwrap().wait = Some(Box::new(move |path| {
            let (barrier, head) = (barrier.clone(), path.as_ref().starts_with("head/"));
            Box::pin(async move {
                if head {
                    barrier.wait().await;
                }
            })
        }));
        open_faulty(faulty)
    };
    let (a, b) = (writer().await, writer().await);
    let (store_a, store_b) = (filled(20).await, filled(30).await);
    let nothing = |_: backup::Progress| ();
    let (a, b) =
        tokio::join!(backup::run(&store_a, &a, &nothing), backup::run(&store_b, &b, &nothing));
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::Conflict);
    let after = open(&inner).await.unwrap();
    let bases = after.bases().await.unwrap();
    assert_eq!((bases.len(), &bases[1].id), (2, &won.unwrap().base.id));
    let report = after.verify(Level::All, &|_| ()).await.unwrap();
    assert!(report.is_intact() && report.orphans > 0, "{report:?}");
    take(&store_b, &after).await;
    assert_intact(&after).await;
}

#[tokio::test]
async fn a_backup_that_is_dropped_anywhere_leaves_a_whole_state() {
    let objects = Arc::new(InMemory::new());
    let store = filled(60).await;
    let repository = repository(&objects, &ManualClock::new()).await;
    take(&store, &repository).await;
    let mut finished = false;
    for polls in 0.. {
        put(&store, 7, polls + 1).await;
        let before = repository.bases().await.unwrap().len();
        {
            let mut run = pin!(backup::run(&store, &repository, &|_| ()));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..=polls {
                if run.as_mut().poll(&mut context).is_ready() {
                    finished = true;
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        let after = repository.bases().await.unwrap().len();
        assert!(after - before <= 1);
        assert_intact(&repository).await;
        if finished {
            break;
        }
    }
    take(&store, &repository).await;
    let (back, _) = restore(&repository, Target::Latest).await.unwrap();
    assert_eq!(all(&back).await, all(&store).await);
}

#[tokio::test]
async fn a_pack_that_is_gone_is_uploaded_again() {
    let objects = Arc::new(InMemory::new());
    let store = filled(100).await;
    let repository = repository(&objects, &ManualClock::new()).await;
    take(&store, &repository).await;
    let (pack, _) = objects_of(&*objects)
        .await
        .into_iter()
        .find(|(p, _)| p.as_ref().starts_with("data/"))
        .unwrap();
    objects.delete(&pack).await.unwrap();
    assert!(!repository.verify(Level::Structure, &|_| ()).await.unwrap().is_intact());
    take(&store, &repository).await;
    let (back, _) = restore(&repository, Target::Latest).await.unwrap();
    assert_eq!(all(&back).await, all(&store).await);
}

#[tokio::test]
async fn what_is_damaged_is_uploaded_again_by_a_whole_run() {
    let objects = Arc::new(InMemory::new());
    let store = filled(100).await;
    let repository = repository(&objects, &ManualClock::new()).await;
    take(&store, &repository).await;
    for (path, bytes) in objects_of(&*objects).await {
        if path.as_ref().starts_with("data/") {
            let mut bytes = bytes.to_vec();
            bytes[100] ^= 1;
            objects.put(&path, bytes.into()).await.unwrap();
        }
    }
    assert!(!repository.verify(Level::All, &|_| ()).await.unwrap().is_intact());
    assert!(restore(&repository, Target::Latest).await.is_err());
    backup::run_whole(&store, &repository, &|_| ()).await.unwrap();
    let (back, _) = restore(&repository, Target::Latest).await.unwrap();
    assert_eq!(all(&back).await, all(&store).await);
    assert_intact(&repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_create_and_commit_at_a_time_win_or_conflict() {
    for _ in 0..50 {
        let objects = Arc::new(InMemory::new());
        let racers: Vec<_> = (0..4)
            .map(|_| {
                let objects = Arc::clone(&objects);
                tokio::spawn(async move {
                    let repository = Repository::create_or_open_with(
                        objects,
                        clock(&ManualClock::new()),
                        &small(),
                    )
                    .await?;
                    backup::run(&filled(5).await, &repository, &|_| ()).await
                })
            })
            .collect();
        let mut won = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                Ok(taken) => won.push(taken.base.id),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
            }
        }
        let repository = open(&objects).await.unwrap();
        assert_intact(&repository).await;
        let mut bases: Vec<_> =
            repository.bases().await.unwrap().into_iter().map(|base| base.id).collect();
        won.sort();
        bases.sort();
        assert_eq!(won, bases);
    }
}
