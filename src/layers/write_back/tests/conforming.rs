//! The conformance suite for each way to acknowledge. `tests/suite/conformance.rs` has the one with a journal in every pair of layers.

use super::*;
use crate::layer::LayerConfig;
use crate::testing::conformance::{Fixture, assert_conforms};

async fn conforms(ack: Ack, journal: bool) {
    let fixture = || async {
        let folder = tempfile::tempdir().unwrap();
        let path = journal.then(|| folder.path().join("journal"));
        let config = WriteBackConfig { path, ack, ..WriteBackConfig::default() };
        let (clock, faults) = (ManualClock::new(), Faults::new());
        let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
        let below = FaultStore::new(Memory::with_clock(Arc::new(clock.clone())), &faults);
        let store = config.open(&context).await?.wrap(Arc::new(below)).await?;
        let fixture = Fixture::new(store).with_clock(&clock).keeping(folder);
        Ok(fixture.cut_off_by(move |reachable| {
            if reachable {
                faults.heal()
            } else {
                faults.cut()
            }
            async { Ok(()) }
        }))
    };
    assert_conforms(fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_in_memory() {
    conforms(Ack::Memory, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_in_memory_with_a_journal_for_batches_that_ask() {
    conforms(Ack::Memory, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_by_the_store_below() {
    conforms(Ack::Through, false).await;
}
