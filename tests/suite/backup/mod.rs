//! The backup engine over folders, memory and object stores that fail.
#![cfg(feature = "backup")]

mod damage;
mod faults;
mod format;
mod round_trip;
mod support;

#[cfg(feature = "testing")]
#[tokio::test(flavor = "multi_thread")]
async fn the_layer_conforms() {
    use std::sync::Arc;

    use tierstack::backends::Memory;
    use tierstack::layers::backup::{BackupConfig, BackupLayer};
    use tierstack::testing::conformance::{self, Fixture};
    use tierstack::{Context, Layer, ManualClock};

    conformance::assert_conforms(|| async {
        let clock = ManualClock::new();
        let config = BackupConfig { to: "never asked".to_owned(), base: None };
        let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
        let below = Memory::with_clock(Arc::new(clock.clone()));
        let store = BackupLayer::new(&config, &context).unwrap().layer(below);
        Ok(Fixture::new(store).with_clock(&clock))
    })
    .await;
}
