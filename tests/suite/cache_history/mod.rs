//! Reads and writes of many tasks on real threads, over a store that fails in every way: each key's history must have
//! an order that explains every answer.
//!
//! `scripts/soak` runs more seeds; `TIERSTACK_SEED=17` runs only that one. A seed repeats the stack and what
//! each task asks for; how the threads meet is another each time.

#![cfg(all(feature = "cache", feature = "compress", feature = "testing"))]

mod below;
mod client;
mod register;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::below::Unruly;
use self::client::{Client, Log};
use crate::cache_settings::random_cache;
use crate::seeds::seeds;
use futures_util::future::join_all;
use tierstack::layers::cache::{CacheConfig, DiskConfig};
use tierstack::layers::compress::CompressConfig;
use tierstack::layers::expire::ExpireConfig;
use tierstack::testing::Random;
use tierstack::units::{ByteSize, Span};
use tierstack::{Context, LayerConfig, ManualClock, Store};

const CLIENTS: u64 = 8;
const OPERATIONS: usize = 300;
/// Time passes in rounds, and a write that comes late comes within two.
const ROUND: Duration = Duration::from_millis(1);

/// What is different from seed to seed: the settings of the caches, outermost first, and the layers below them.
struct Setup {
    caches: Vec<CacheConfig>,
    expire: bool,
    compress: bool,
    /// Whether writes fail, and come late. The sweeper of `expire` promises nothing then, and rests.
    unruly: bool,
    /// Whether the store below announces what is written, and now and then that it cannot.
    announces: bool,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caches, expire, compress, unruly, announces } = self;
        write!(
            f,
            "expire: {expire}, compress: {compress}, unruly: {unruly}, announces: {announces}, {caches:#?}"
        )
    }
}

impl Setup {
    fn random(random: &mut Random, folder: &Path) -> Self {
        let caches = 1 + usize::from(random.chance(0.3));
        Self {
            caches: (0..caches).map(|at| settings(random, &folder.join(at.to_string()))).collect(),
            expire: random.chance(0.3),
            compress: random.chance(0.3),
            unruly: random.chance(0.7),
            announces: random.chance(0.4),
        }
    }

    async fn over(&self, below: Arc<dyn Store>, context: &Context) -> Arc<dyn Store> {
        let mut store = below;
        if self.expire {
            let pause = if self.unruly { Duration::ZERO } else { ROUND * 3 };
            let config = ExpireConfig { sweep_every: Span(pause), ..ExpireConfig::default() };
            store = config.open(context).await.unwrap().wrap(store).await.unwrap();
        }
        if self.compress {
            store =
                CompressConfig::default().open(context).await.unwrap().wrap(store).await.unwrap();
        }
        for cache in self.caches.iter().rev() {
            store = cache.open(context).await.unwrap().wrap(store).await.unwrap();
        }
        store
    }
}

fn settings(random: &mut Random, folder: &Path) -> CacheConfig {
    let (path, capacity, index_memory) = (folder.into(), ByteSize(16 << 20), None);
    let disk = DiskConfig { path, capacity, index_memory, warm: false };
    let disk = || disk.clone();
    CacheConfig {
        disk: random.chance(0.4).then(disk),
        // What comes late comes within it.
        load_timeout: Span(ROUND * 8),
        ..random_cache(random, ROUND)
    }
}

async fn run(seed: u64) {
    let mut random = Random::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::random(&mut random, folder.path());
    let clock = ManualClock::new();
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let below = Unruly::new(random.next_u64(), &clock, setup.unruly, setup.announces);
    let below = Arc::new(below);
    let store = setup.over(Arc::clone(&below) as Arc<dyn Store>, &context).await;
    let log = Arc::new(Log::new(&clock));

    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let random = Random::new(random.next_u64());
            let client = Client::new(Arc::clone(&store), clock.clone(), Arc::clone(&log), random);
            tokio::spawn(client.run(OPERATIONS))
        })
        .collect();
    let time = tokio::spawn({
        let (log, clock) = (Arc::clone(&log), clock.clone());
        async move {
            let mut until = log.asked();
            loop {
                // A round for each so many operations, so that time neither flies nor stands still.
                while log.asked() < until {
                    tokio::task::yield_now().await;
                }
                until += 20;
                below.round().await;
                log.passes(&clock, ROUND);
            }
        }
    });
    let ended = join_all(clients).await;
    time.abort();
    let _ = time.await;
    store.close().await.unwrap();
    let why = ended.into_iter().find_map(|client| client.err().map(|error| error.to_string()));
    if let Some(why) = why.or_else(|| log.explain().err()) {
        panic!("TIERSTACK_SEED={seed}, {setup:?}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_history_has_an_order_that_explains_it() {
    for seed in seeds(40) {
        run(seed).await;
    }
}
