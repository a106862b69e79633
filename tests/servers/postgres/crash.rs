//! `kill -9` of stacks over PostgreSQL, at random moments. What `tests/suite/crash.rs` does without a server.

#![cfg(all(feature = "config", feature = "testing"))]

use tierstack::testing::Random;

use super::{Dropped, config};
use crate::support::crash::{Kills, live_in_child};

const KILLS: usize = 25;

/// `TIERSTACK_SEED=17` repeats one seed.
fn seed() -> u64 {
    std::env::var("TIERSTACK_SEED").map_or(0, |seed| seed.parse().unwrap())
}

fn kill(test: &str, layers: impl Fn(&mut Random) -> Vec<String>) {
    if live_in_child() {
        return;
    }
    let Some(config) = config() else { return };
    let _dropped = Dropped::after(&config);
    let (test, seed) = (format!("postgres::crash::{test}"), seed());
    let layers = layers(&mut Random::new(seed));
    let table = &config.table;
    let backend =
        format!("postgres: {{ url: {{ env: TIERSTACK_TEST_POSTGRES }}, table: {table} }}");
    Kills { test: &test, seed, kills: KILLS, layers: &layers, backend: &backend, memory: false }
        .run();
}

#[test]
fn what_was_acknowledged_survives() {
    kill("what_was_acknowledged_survives", |_| Vec::new());
}
