//! `kill -9` of stacks at random moments: everything that was acknowledged is there, in order, and no batch in part.
//!
//! `scripts/soak crash` kills longer; `TIERSTACK_SEED=17` repeats one seed.

#![cfg(all(unix, feature = "rocksdb", feature = "config", feature = "testing"))]

#[path = "../servers/support/crash/mod.rs"]
mod killing;

use tierstack::testing::Random;

use self::killing::{Kills, live_in_child, write_back, write_back_over_failing};
use crate::seeds::seeds;

/// Kills of each seed, and where writes wait for calls that are tried again.
const KILLS: usize = 30;
const SLOW_KILLS: usize = 15;

fn kill(test: &str, backend: &str, memory: bool, layers: impl Fn(&mut Random) -> Vec<String>) {
    kill_times(KILLS, test, backend, memory, layers);
}

fn kill_times(
    kills: usize,
    test: &str,
    backend: &str,
    memory: bool,
    layers: impl Fn(&mut Random) -> Vec<String>,
) {
    if live_in_child() {
        return;
    }
    for seed in seeds(2) {
        let test = format!("crash::{test}");
        let layers = layers(&mut Random::new(seed));
        Kills { test: &test, seed, kills, layers: &layers, backend, memory }.run();
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

#[test]
fn what_the_journal_has_survives() {
    kill("what_the_journal_has_survives", "rocksdb: { path: data }", false, |random| {
        let outer =
            random.pick(&["cache: { capacity: 1MiB }", "compress: { min_size: 0 }"]).unwrap();
        vec![(*outer).to_owned(), write_back(random, "journal")]
    });
}

#[test]
fn what_the_journal_has_survives_over_a_store_that_syncs_nothing() {
    let test = "what_the_journal_has_survives_over_a_store_that_syncs_nothing";
    kill(test, "rocksdb: { path: data, sync: false, write_buffer_size: 64KiB }", false, |random| {
        vec![write_back(random, "journal"), "compress: { min_size: 0 }".to_owned()]
    });
}

#[test]
fn what_the_journal_has_survives_over_a_store_that_fails_one_call_in_ten() {
    let test = "what_the_journal_has_survives_over_a_store_that_fails_one_call_in_ten";
    kill_times(SLOW_KILLS, test, "rocksdb: { path: data }", false, write_back_over_failing);
}

#[test]
fn of_what_is_acknowledged_in_memory_a_crash_keeps_the_first_and_what_asks_for_more() {
    let test = "of_what_is_acknowledged_in_memory_a_crash_keeps_the_first_and_what_asks_for_more";
    kill(test, "rocksdb: { path: data }", true, |random| vec![write_back(random, "memory")]);
}
