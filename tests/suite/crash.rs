//! `kill -9` of stacks at random moments: everything that was acknowledged is there, in order, and no batch in part.
//!
//! `scripts/soak crash` kills longer; `TIERSTACK_SEED=17` repeats one seed.

#![cfg(all(unix, feature = "rocksdb", feature = "config", feature = "testing"))]

#[path = "../servers/support/crash/mod.rs"]
mod killing;

use tierstack::testing::Random;

use self::killing::{Kills, live_in_child};
use crate::seeds::seeds;

/// Kills of each seed.
const KILLS: usize = 30;

fn kill(test: &str, backend: &str, memory: bool, layers: impl Fn(&mut Random) -> Vec<String>) {
    if live_in_child() {
        return;
    }
    for seed in seeds(2) {
        let test = format!("crash::{test}");
        let layers = layers(&mut Random::new(seed));
        Kills { test: &test, seed, kills: KILLS, layers: &layers, backend, memory }.run();
    }
}

#[test]
#[should_panic(expected = "batches of the tasks were acknowledged, and")]
fn a_store_that_forgets_is_noticed() {
    let test = "crash::a_store_that_forgets_is_noticed";
    let layers: Vec<String> = Vec::new();
    Kills { test, seed: 0, kills: KILLS, layers: &layers, backend: "memory: {}", memory: false }
        .run();
}

#[test]
fn synced_writes_of_rocksdb_survive() {
    kill("synced_writes_of_rocksdb_survive", "rocksdb: { path: data }", false, |_| Vec::new());
}
