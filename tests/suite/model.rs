//! The model test over random stacks: random operations must give what a `BTreeMap` gives.
//!
//! `scripts/soak` runs more seeds; `TIERSTACK_SEED=17` runs only that one.

#![cfg(all(feature = "cli", feature = "rocksdb"))]

use std::sync::Arc;
use std::time::Duration;

use crate::cache_settings::random_cache;
use crate::seeds::seeds;
use crate::stacks::{self, BACKENDS, LAYERS, layers_over};
use tierstack::ManualClock;
use tierstack::backends::Memory;
use tierstack::testing::{FaultStore, Faults, Random, model};

/// Some of the layers; a cache with settings chosen at random.
fn some_of(layers: impl IntoIterator<Item = &'static str>, random: &mut Random) -> Vec<String> {
    let layers: Vec<_> = layers.into_iter().filter(|_| random.chance(0.4)).collect();
    let chosen = layers.into_iter().map(|layer| match layer.starts_with("cache:") {
        true => {
            let settings = random_cache(random, Duration::from_secs(3));
            format!("cache: {}", serde_json::to_string(&settings).unwrap())
        }
        false => layer.to_owned(),
    });
    chosen.collect()
}

async fn agrees(layers: &[&str], backend: &str, seed: u64, steps: usize) {
    let clock = ManualClock::new();
    let opened = stacks::open(layers, backend, &clock).await;
    if let Err(why) = model::run(&opened.stack.store(), Some(&clock), seed, steps).await {
        panic!("TIERSTACK_SEED={seed}, {layers:?} over {backend}: {why}");
    }
    opened.stack.close().await.unwrap();
    drop(opened.folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_stacks_agree_with_a_map() {
    for seed in seeds(30) {
        let mut random = Random::new(seed);
        let backend = random.pick(BACKENDS).unwrap();
        let layers = some_of(layers_over(backend), &mut random);
        let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
        agrees(&layers, backend, seed, steps(backend, 250)).await;
    }
}

/// The longest keys are hundreds of folders each in the backend `file`, so it gets a part of the steps.
fn steps(backend: &str, full: usize) -> usize {
    if backend.starts_with("file") { full / 8 } else { full }
}

/// Each layer by itself over each backend, and the bare backends.
#[tokio::test(flavor = "multi_thread")]
async fn each_layer_agrees_with_a_map() {
    for backend in BACKENDS {
        agrees(&[], backend, 0, steps(backend, 400)).await;
        for layer in layers_over(backend) {
            for seed in seeds(1) {
                agrees(&[layer], backend, seed, steps(backend, 400)).await;
            }
        }
    }
}

/// The store below fails now and then, before or after a call took effect.
#[tokio::test(flavor = "multi_thread")]
async fn failed_writes_happen_wholly_or_not_at_all() {
    for seed in seeds(30) {
        let (clock, faults) = (ManualClock::new(), Faults::new());
        let memory = Memory::with_clock(Arc::new(clock.clone()));
        let below = Arc::new(FaultStore::new(memory, &faults));
        let mut random = Random::new(seed);
        // A retry waits for a clock that does not move, and would hide what this looks for.
        let layers = LAYERS.iter().copied().filter(|layer| !layer.starts_with("retry"));
        let layers = some_of(layers, &mut random);
        let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
        let opened = stacks::open_over(below, &layers, &clock).await;
        let store = opened.stack.store();
        let run = model::run_with_faults(&store, &faults, Some(&clock), seed, 250);
        if let Err(why) = run.await {
            panic!("TIERSTACK_SEED={seed}, {layers:?}: {why}");
        }
    }
}
