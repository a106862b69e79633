//! The suite must notice: stores with one defect each, and the check that has to fail.

/// For each defect a test of its name: the checks that must fail on a store that has it.
macro_rules! mutants {
    ($runtime:tt $store:ident: $($bug:ident => $($check:literal),+;)+) => {
        $(#[allow(non_snake_case, reason = "named after the bug")]
        #[tokio::test $runtime]
        async fn $bug() {
            $(let came = outcome($check, $store(Bug::$bug)).await;
            assert!(matches!(came, Outcome::Failed(_)), "{} must fail, not {came:?}", $check);)+
        })+
    };
}

mod broken;
mod general_defects;
mod keeping;
mod keys;
mod offering;
mod optional_defects;
mod snapshots;
mod unreachable;

use std::time::Duration;

use super::*;
use crate::backends::Memory;
use crate::error::{Error, ErrorKind, Operation};
use crate::testing::{FaultStore, Faults};

/// Runs one check on a store.
async fn outcome(name: &str, store: impl Into<Fixture>) -> Outcome {
    let check = checks().find(|check| check.name() == name);
    check.unwrap_or_else(|| panic!("there is no check '{name}'")).run(store).await
}

/// Runs a check over a store with faults, and gives how long it took on the paused clock of the runtime.
async fn with_faults(name: &str, faults: &Faults) -> (Outcome, Duration) {
    let begun = tokio::time::Instant::now();
    let outcome = outcome(name, FaultStore::new(Memory::new(), faults)).await;
    (outcome, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_and_moves_does_not_hang() {
    let faults = Faults::new();
    faults.on_all().delay(Duration::from_secs(60));
    for check in ["basic::an_overwrite_replaces_the_value", "ingest::every_store_can_be_loaded"] {
        let (outcome, took) = with_faults(check, &faults).await;
        assert_eq!(outcome, Outcome::Passed, "{check}");
        assert!(took > Duration::from_secs(200), "{check} took {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_beside_reads_that_move_is_noticed() {
    let faults = Faults::new();
    faults.on(Operation::Write).skip(3).delay(Duration::from_secs(1 << 20));
    faults.on_all().delay(Duration::from_secs(1));
    let (outcome, took) = with_faults("concurrency::a_key_never_goes_back", &faults).await;
    let hangs = "it hangs: write has not answered for 120 seconds";
    assert_eq!(outcome, Outcome::Failed(hangs.to_owned()));
    assert!(took < Duration::from_secs(600), "{took:?}");
}

/// Every increment is refused, and the check tries again for ever.
#[tokio::test(start_paused = true)]
async fn a_check_that_moves_and_never_ends_fails() {
    let faults = Faults::new();
    faults.on(Operation::Write).fail(ErrorKind::Conflict);
    faults.on_all().delay(Duration::from_secs(1));
    let (outcome, _) = with_faults("condition::no_increment_is_lost", &faults).await;
    assert!(
        matches!(&outcome, Outcome::Failed(why) if why.contains("does not end")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_report_names_what_failed_and_why() {
    let outcomes = vec![
        ("a::b", Outcome::Passed),
        ("c::d", Outcome::Skipped("no scans")),
        ("e::f", Outcome::Failed("it is wrong".to_owned())),
    ];
    let report = Report { store: "x(y)".to_owned(), outcomes };
    assert!(!report.is_ok());
    let text = report.to_string();
    assert!(text.contains("x(y)") && text.contains("e::f: it is wrong"), "{text}");
    assert!(!Report::default().is_ok(), "nothing checked is not conforming");
}

#[tokio::test]
async fn a_factory_that_fails_is_reported() {
    let report = run(|| async { Err::<Memory, _>(Error::internal("no disk")) }).await;
    assert!(report.to_string().contains("no disk"), "{report}");
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = checks().map(Check::name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count > 60, "{count}");
}
