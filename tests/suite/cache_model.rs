//! The model test over caches with settings chosen at random: what a `BTreeMap` gives, whatever is kept.
//!
//! `scripts/soak` runs more seeds; `TIERSTACK_SEED=17` runs only that one. `tests/suite/model.rs` has caches in stacks
//! of all layers.

#![cfg(all(feature = "cache", feature = "testing"))]

use std::sync::Arc;
use std::time::Duration;

use crate::cache_settings::random_cache;
use crate::seeds::seeds;
use tierstack::backends::Memory;
use tierstack::testing::{FaultStore, Faults, Random, model};
use tierstack::{Context, LayerConfig, ManualClock, Store};

/// One to three caches over a memory that fails when it is told to.
async fn caches(seed: u64, clock: &ManualClock, faults: &Faults) -> (Arc<dyn Store>, String) {
    let mut random = Random::new(seed);
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let memory = Memory::with_clock(Arc::clone(&context.clock));
    let mut store: Arc<dyn Store> = Arc::new(FaultStore::new(memory, faults));
    let mut names = String::new();
    for _ in 0..1 + random.below(3) {
        let config = random_cache(&mut random, Duration::from_secs(3));
        names += &format!("{config:?}\n");
        store = config.open(&context).await.unwrap().wrap(store).await.unwrap();
    }
    (store, names)
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_of_any_settings_agree_with_a_map() {
    for seed in seeds(40) {
        let clock = ManualClock::new();
        let (store, names) = caches(seed, &clock, &Faults::new()).await;
        if let Err(why) = model::run(&store, Some(&clock), seed, 400).await {
            panic!("TIERSTACK_SEED={seed}, innermost first:\n{names}{why}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_store_that_fails_a_write_happens_wholly_or_not_at_all() {
    for seed in seeds(40) {
        let (clock, faults) = (ManualClock::new(), Faults::new());
        let (store, names) = caches(seed, &clock, &faults).await;
        let run = model::run_with_faults(&store, &faults, Some(&clock), seed, 400);
        if let Err(why) = run.await {
            panic!("TIERSTACK_SEED={seed}, innermost first:\n{names}{why}");
        }
    }
}
