//! Reads and writes of many tasks on real threads, through caches and write-back, over a store that fails in every way: each key's
//! history must have an order that explains every answer.
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

use self::below::{Fails, Unruly};
use self::client::{Client, Log};
use crate::cache_settings::random_cache;
use crate::seeds::seeds;
use futures_util::future::join_all;
use tierstack::layers::cache::{CacheConfig, DiskConfig};
use tierstack::layers::compress::CompressConfig;
use tierstack::layers::expire::ExpireConfig;
use tierstack::layers::write_back::{Ack, WriteBackConfig};
use tierstack::testing::Random;
use tierstack::units::{ByteSize, Span};
use tierstack::{Context, LayerConfig, ManualClock, StackLayer, Store};

const CLIENTS: u64 = 8;
const OPERATIONS: usize = 300;
/// Fewer where writes wait for flushes and for a disk.
const WRITTEN_BACK: usize = 120;
/// Time passes in rounds, and a write that comes late comes within two.
const ROUND: Duration = Duration::from_millis(1);
/// Nothing is asked within so many looks where all wait for a flush that is tried again, or for a disk.
const PATIENCE: usize = 500;
const LEAP: Duration = Duration::from_millis(50);
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// What is different from seed to seed: the settings of the caches, outermost first, and the layers below them.
struct Setup {
    caches: Vec<CacheConfig>,
    expire: bool,
    compress: bool,
    /// Next to the store below, which then fails only in ways that pass.
    write_back: Option<WriteBackConfig>,
    /// Whether writes fail, and come late. The sweeper of `expire` guarantees nothing then, and rests.
    unruly: bool,
    /// Whether the store below reports what is written, and now and then that it cannot.
    change_feed: bool,
    /// Whether futures of writes are dropped.
    drops: bool,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caches, expire, compress, write_back, unruly, change_feed, drops } = self;
        write!(
            f,
            "expire: {expire}, compress: {compress}, {write_back:?}, unruly: {unruly}, change_feed: {change_feed}, drops: {drops}, {caches:#?}"
        )
    }
}

impl Setup {
    fn random(random: &mut Random, folder: &Path, written_back: bool) -> Self {
        // What is written back is read without a cache too.
        let least = usize::from(!written_back);
        let caches = least + usize::from(random.chance(0.3));
        let mut setup = Self {
            caches: (0..caches).map(|at| settings(random, &folder.join(at.to_string()))).collect(),
            expire: random.chance(0.3),
            compress: random.chance(0.3),
            unruly: random.chance(0.7),
            change_feed: random.chance(0.4),
            write_back: written_back.then(|| write_back(random, &folder.join("journal"))),
            drops: true,
        };
        if setup.write_back.as_ref().is_some_and(|config| config.path.is_some()) {
            // A write that is dropped arrives when its record is on the disk, however much time has passed until then. So its
            // key is in doubt for ever, and a cache of such keys keeps little: in half of the setups no write is dropped.
            setup.drops = setup.caches.is_empty() || random.chance(0.5);
            let forever = |cache: &mut CacheConfig| cache.load_timeout = Span(FOREVER);
            setup.caches.iter_mut().for_each(forever);
        }
        setup
    }

    fn fails(&self) -> Fails {
        match (self.unruly, &self.write_back) {
            (false, _) => Fails::Never,
            (true, Some(_)) => Fails::Passing,
            (true, None) => Fails::Anyhow,
        }
    }

    async fn over(&self, below: Arc<dyn Store>, context: &Context) -> Arc<dyn Store> {
        let mut store = below;
        if let Some(write_back) = &self.write_back {
            store = opened(write_back, context).await.wrap(store).await.unwrap();
        }
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
            store = opened(cache, context).await.wrap(store).await.unwrap();
        }
        store
    }
}

/// A layer, once the one before has let go of its folder.
async fn opened(config: &impl LayerConfig, context: &Context) -> Arc<dyn StackLayer> {
    loop {
        match config.open(context).await {
            Err(error) if error.to_string().contains("open already") => {
                tokio::task::yield_now().await
            }
            opened => return opened.unwrap(),
        }
    }
}

/// So small that writers wait for room, and flushes meet reads and other writes all the time.
fn write_back(random: &mut Random, folder: &Path) -> WriteBackConfig {
    let ack = *random.pick(&[Ack::Memory, Ack::Memory, Ack::Journal, Ack::Through]).unwrap();
    let path = (ack == Ack::Journal || random.chance(0.3)).then(|| folder.to_owned());
    WriteBackConfig {
        path,
        ack,
        flush_after: Span(ROUND * random.below(4) as u32),
        flush_bytes: ByteSize(1 << (10 + random.below(6))),
        max_dirty: ByteSize(1 << (15 + random.below(4))),
        // A disk may be slow, and time flies meanwhile.
        max_wait: Span(FOREVER),
        ..WriteBackConfig::default()
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

async fn run(seed: u64, written_back: bool) {
    let mut random = Random::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::random(&mut random, folder.path(), written_back);
    let clock = ManualClock::new();
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let below = Unruly::new(random.next_u64(), &clock, setup.fails(), setup.change_feed);
    let below = Arc::new(below);
    let log = Arc::new(Log::new(&clock));
    let time = tokio::spawn(time(
        Arc::clone(&log),
        clock.clone(),
        Arc::clone(&below),
        setup.write_back.is_some(),
    ));
    // What is in a journal is there again without a close.
    let journal = setup.write_back.as_ref().is_some_and(|config| config.ack == Ack::Journal);
    let lives = if journal { 2 } else { 1 };
    let operations = if written_back { WRITTEN_BACK } else { OPERATIONS };
    let mut failed = None;
    for life in 1..=lives {
        let store = setup.over(Arc::clone(&below) as Arc<dyn Store>, &context).await;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let random = Random::new(random.next_u64());
                let (store, log) = (Arc::clone(&store), Arc::clone(&log));
                let hangs = setup.fails() == Fails::Anyhow;
                let client = Client::new(store, clock.clone(), log, random, hangs, setup.drops);
                tokio::spawn(client.run(operations / lives))
            })
            .collect();
        let ended = join_all(clients).await;
        failed = ended.into_iter().find_map(|client| client.err().map(|error| error.to_string()));
        if life == lives || failed.is_some() {
            store.close().await.unwrap();
            break;
        }
    }
    time.abort();
    let _ = time.await;
    if let Some(why) = failed.or_else(|| log.explain().err()) {
        panic!("TIERSTACK_SEED={seed}, {setup:?}: {why}");
    }
}

/// A round for each so many operations, so that time neither flies nor stops. `leaps`: where all wait for time, more of it passes.
async fn time(log: Arc<Log>, clock: ManualClock, below: Arc<Unruly>, leaps: bool) {
    let mut until = log.asked();
    loop {
        let mut looks = 0;
        while log.asked() < until && !(leaps && looks == PATIENCE) {
            tokio::task::yield_now().await;
            looks += 1;
        }
        let span = if log.asked() < until { LEAP } else { ROUND };
        until = log.asked() + 20;
        below.round().await;
        log.passes(&clock, span);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_history_has_an_order_that_explains_it() {
    for seed in seeds(40) {
        run(seed, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_history_of_what_is_written_back_has_an_order_that_explains_it() {
    for seed in seeds(12) {
        run(seed, true).await;
    }
}
