//! The memory that backing up, verifying and restoring take, whatever is backed up. In a binary of its
//! own, as the memory of the whole process is looked at.
#![cfg(all(feature = "backup", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, unreachable_pub, reason = "a test")]

mod crafted;
mod generated;
mod resident;

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use tierstack::backup::{self, Level, Repository, Restore, Target};
use tierstack::{ErrorKind, SystemClock};

use self::generated::Generated;
use self::resident::Taken;

/// Each store below is twice as large.
const BOUND: u64 = 128 << 20;

/// Many entries, which are parts of the pages that they are read with; and few large ones.
const STORES: [Generated; 2] = [
    Generated { pages: 256, entries: 64, value: 16 << 10 },
    Generated { pages: 64, entries: 1, value: 4 << 20 },
];

async fn repository(objects: &Arc<InMemory>) -> Repository {
    let objects: Arc<dyn ObjectStore> = objects.clone();
    Repository::create_or_open(objects, SystemClock::shared()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_size_of_a_store_is_not_the_size_of_its_backup_in_memory() {
    let memory = Taken::from_now_on();
    for store in STORES {
        let repository = repository(&Arc::default()).await;
        let taken = backup::run(&store, &repository, &|_| ()).await.unwrap();
        assert!(taken.base.bytes >= 2 * BOUND, "{taken:?}");
        memory.assert_below(BOUND, "taking a base");
        backup::run(&store, &repository, &|_| ()).await.unwrap();
        memory.assert_below(BOUND, "taking a base that is there already");

        let report = repository.verify(Level::All, &|_| ()).await.unwrap();
        assert!(report.is_intact() && report.entries == 2 * taken.base.entries, "{report:?}");
        memory.assert_below(BOUND, "verifying");

        let plan = repository.plan(Target::Latest).await.unwrap();
        let (target, options) = (store.target(), Restore::default());
        let restored = backup::restore(&repository, &plan, &target, &options, &|_| ()).await;
        let restored = restored.unwrap();
        assert!(restored.proven && restored.entries == taken.base.entries, "{restored:?}");
        memory.assert_below(BOUND, "restoring");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_chunk_that_is_named_many_times_is_read_as_often_and_never_kept() {
    let memory = Taken::from_now_on();
    for longest_value in [crafted::VALUE, 1000] {
        let objects = Arc::new(InMemory::new());
        let repository = repository(&objects).await;
        crafted::add_base(&objects, longest_value).await;
        let report = repository.verify(Level::All, &|_| ()).await.unwrap();
        memory.assert_below(BOUND, "verifying");
        assert_eq!(report.is_intact(), longest_value == crafted::VALUE, "{report:?}");
        if longest_value != crafted::VALUE {
            assert!(report.findings[0].what.contains("longer than the base says"), "{report:?}");
            let plan = repository.plan(Target::Latest).await.unwrap();
            let (target, options) = (STORES[0].target(), Restore::default());
            let restored = backup::restore(&repository, &plan, &target, &options, &|_| ()).await;
            assert_eq!(restored.unwrap_err().kind(), ErrorKind::Corruption);
            memory.assert_below(BOUND, "restoring");
        }
    }
}
