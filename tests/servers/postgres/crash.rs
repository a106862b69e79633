//! `kill -9` of stacks over PostgreSQL, at random moments. What `tests/suite/crash.rs` does without a server.
//!
//! `scripts/soak crash` kills longer; `TIERSTACK_SEED=17` repeats one seed.

#![cfg(all(feature = "config", feature = "testing"))]

#[path = "../../suite/seeds.rs"]
mod seeds;

use tierstack::testing::Random;

use self::seeds::seeds;
use super::{Dropped, config};
use crate::support::crash::{Kills, live_in_child, write_back, write_back_over_failing};

const KILLS: usize = 25;

fn kill(test: &str, layers: impl Fn(&mut Random) -> Vec<String>) {
    if live_in_child() {
        return;
    }
    let test = format!("postgres::crash::{test}");
    for seed in seeds(1) {
        let Some(config) = config() else { return };
        let _dropped = Dropped::after(&config);
        let layers = layers(&mut Random::new(seed));
        let table = &config.table;
        let backend =
            format!("postgres: {{ url: {{ env: TIERSTACK_TEST_POSTGRES }}, table: {table} }}");
        Kills {
            test: &test,
            seed,
            kills: KILLS,
            layers: &layers,
            backend: &backend,
            memory: false,
        }
        .run();
    }
}

#[test]
fn what_was_acknowledged_survives() {
    kill("what_was_acknowledged_survives", |_| Vec::new());
}

#[test]
fn what_the_journal_has_survives() {
    kill("what_the_journal_has_survives", |random| vec![write_back(random, "journal")]);
}

#[test]
fn what_the_journal_has_survives_over_a_server_of_which_one_call_in_ten_fails() {
    let test = "what_the_journal_has_survives_over_a_server_of_which_one_call_in_ten_fails";
    kill(test, write_back_over_failing);
}
