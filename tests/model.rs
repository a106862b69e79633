//! The model test over random stacks: random operations must give what a `BTreeMap` gives.
//!
//! To add a layer or a backend: a line in its table. `TIERSTACK_SEEDS=5000` runs more seeds,
//! `TIERSTACK_SEED=17` only that one.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::any::Any;
use std::env;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tierstack::backends::Memory;
use tierstack::testing::{FaultStore, Faults, Random, model};
use tierstack::{ManualClock, Store};

/// A store, and what must live as long, such as its folder.
type Opened = (Arc<dyn Store>, Box<dyn Any + Send>);
type Open = fn(ManualClock) -> BoxFuture<'static, Opened>;
type Wrap = fn(Arc<dyn Store>, &ManualClock) -> Arc<dyn Store>;

const BACKENDS: &[(&str, Open)] = &[("memory", |clock| {
    async move {
        let store: Arc<dyn Store> = Arc::new(Memory::with_clock(Arc::new(clock)));
        (store, Box::new(()) as Box<dyn Any + Send>)
    }
    .boxed()
})];

/// In the order in which they may stand, outermost first.
const LAYERS: &[(&str, Wrap)] = &[("fault", |below, clock| {
    Arc::new(FaultStore::new(below, &Faults::seeded(0, Arc::new(clock.clone()))))
})];

#[tokio::test(flavor = "multi_thread")]
async fn random_stacks_agree_with_a_map() {
    for seed in seeds() {
        let mut random = Random::new(seed);
        let clock = ManualClock::new();
        let (_, open) = random.pick(BACKENDS).unwrap();
        let (mut store, _kept) = open(clock.clone()).await;
        for (_, wrap) in LAYERS.iter().rev() {
            if random.chance(0.4) {
                store = wrap(store, &clock);
            }
        }
        if let Err(why) = model::run(&store, Some(&clock), random.next_u64(), 250).await {
            panic!("TIERSTACK_SEED={seed}: {why}");
        }
        store.close().await.unwrap();
    }
}

/// Each layer by itself over each backend, and the bare backends.
#[tokio::test(flavor = "multi_thread")]
async fn each_layer_agrees_with_a_map() {
    let bare: Wrap = |below, _| below;
    for (_, open) in BACKENDS {
        for (_, wrap) in [("none", bare)].iter().chain(LAYERS) {
            for seed in 0..3 {
                let clock = ManualClock::new();
                let (below, _kept) = open(clock.clone()).await;
                let store = wrap(below, &clock);
                if let Err(why) = model::run(&store, Some(&clock), seed, 400).await {
                    panic!("{why}");
                }
                store.close().await.unwrap();
            }
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("TIERSTACK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIERSTACK_SEEDS").unwrap_or(30),
    }
}
