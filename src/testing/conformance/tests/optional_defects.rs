//! What only some stores offer: a store that offers all of it, with one defect, or hardly anything.

use super::offering::{Bug, everything, hardly_anything, offering, store};
use super::*;
use crate::types::{Counting, Guarantees};

fn offers_everything(bug: Bug) -> Fixture {
    offering(bug, everything)
}

fn offers_hardly_anything(bug: Bug) -> Fixture {
    offering(bug, hardly_anything)
}

mod notices {
    use super::*;

    mutants! { (start_paused = true) offers_everything:
        ConditionIsIgnored =>
            "condition::a_key_that_exists_refuses_the_batch",
            "condition::of_writers_that_race_one_wins",
            "transaction::of_two_updates_the_first_wins",
            "transaction::a_key_that_was_read_is_unchanged",
            "transaction::histories_show_what_is_allowed",
            "transaction::the_bank_keeps_its_money";
        ConditionIsNotAtomic => "condition::of_writers_that_race_one_wins";
        ConditionLooksAtOneKey => "condition::a_key_that_exists_refuses_the_batch";
        ConditionLeavesTheStart =>
            "condition::a_key_that_exists_refuses_the_batch",
            "condition::of_writers_that_race_one_wins";
        DeletedKeysExist => "condition::a_key_that_was_deleted_is_absent";
        ExpiredKeysExist => "condition::a_key_that_has_expired_is_absent";
        DeletesAreConditions => "condition::a_delete_is_no_condition";
        BatchMeetsItself => "condition::a_batch_does_not_meet_itself";
        ValuesAreNotCompared =>
            "condition::a_value_that_is_required_is_compared",
            "transaction::a_required_value_is_unchanged",
            "transaction::the_bank_keeps_its_money";
        ExpiriesAreNotCompared => "condition::a_required_value_has_its_expiry";
        ExpiredValuesAreThere =>
            "condition::a_value_that_has_expired_is_not_there",
            "transaction::an_entry_that_expires_is_relied_on_no_longer";
        ConditionsOnOtherKeysAreIgnored =>
            "condition::other_keys_can_be_required",
            "transaction::a_key_that_was_read_is_unchanged",
            "transaction::histories_show_what_is_allowed";
        EmptyBatchesCheckNothing => "condition::a_batch_without_operations_checks_only";
        ValuesAreComparedBefore =>
            "condition::no_increment_is_lost",
            "transaction::the_bank_keeps_its_money";
        RunKeepsWhatExists =>
            "ingest::entries_are_replaced_and_others_stay",
            "ingest::every_store_can_be_loaded";
        RunRemovesOthers => "ingest::entries_are_replaced_and_others_stay";
        RunIsSeenLater =>
            "ingest::entries_are_replaced_and_others_stay",
            "ingest::a_large_run_is_there_on_return";
        RunCountsPages => "ingest::entries_are_replaced_and_others_stay";
        RunEndsWithAnEmptyPage => "ingest::an_empty_run_changes_nothing";
        RunForgetsItsLastPage => "ingest::a_large_run_is_there_on_return";
        RunOrderIsNotChecked => "ingest::a_run_out_of_order_is_refused";
        RunOrderIsCheckedWithinPages =>
            "ingest::a_run_out_of_order_is_refused",
            "ingest::every_store_can_be_loaded";
        RunErrorIsTheEnd => "ingest::an_error_of_the_run_comes_back";
        RunErrorIsHidden => "ingest::an_error_of_the_run_comes_back";
        RunLosesDeadlines => "ingest::deadlines_are_carried_or_refused";
        RunShowsInSnapshots => "ingest::a_snapshot_does_not_see_a_later_run";
        RunHoldsALock => "ingest::a_run_holds_up_nobody";
        DroppedRunLeavesALock => "ingest::a_dropped_run_leaves_whole_entries";
        ReportsNothing =>
            "change_feed::what_others_write_is_reported",
            "change_feed::every_subscription_is_told";
        ReportsNoDeletes => "change_feed::what_others_write_is_reported";
        ReportsTooEarly => "change_feed::what_others_write_is_reported";
        ReportsToOne => "change_feed::every_subscription_is_told";
        ReportsAfterClose => "change_feed::subscriptions_end_when_the_store_is_closed";
        CountsOverwrites => "upkeep::entries_are_counted_as_precisely_as_guaranteed";
        CountsExpired => "upkeep::entries_are_counted_as_precisely_as_guaranteed";
        CountsTheRest => "upkeep::what_the_store_counts_itself_is_what_is_there";
        CountIsOneShort => "upkeep::what_the_store_counts_itself_is_what_is_there";
    }
}

mod notices_of_those_that_offer_less {
    use super::*;

    mutants! { (start_paused = true) offers_hardly_anything:
        ConditionIsTakenUnguaranteed => "refuse::conditions_where_there_are_none";
        RunIsTakenUnguaranteed => "refuse::runs_where_there_are_none";
        ReportsUnguaranteed => "refuse::a_change_feed_where_there_is_none";
        CountsUnguaranteed => "upkeep::entries_are_counted_as_precisely_as_guaranteed";
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_offers_everything_passes() {
    let report = run(|| async { Ok(offers_everything(Bug::None)) }).await;
    assert!(report.is_ok(), "{report}");
    let skipped: Vec<_> = report.skipped().map(|(name, _)| name).collect();
    assert!(!skipped.iter().any(|name| name.starts_with("change_feed")), "{skipped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_offers_hardly_anything_passes() {
    let report = run(|| async { Ok(offers_hardly_anything(Bug::None)) }).await;
    assert!(report.is_ok(), "{report}");
}

/// As a bucket: each request takes a while, and there are no batches. The clock of the runtime is moved
/// by its waiting, so this is the time that the requests take and not that of the test.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_far_away_is_checked_in_half_a_minute() {
    let bucket = |guarantees: &mut Guarantees| {
        guarantees.atomic_batches = false;
        guarantees.snapshots = false;
        guarantees.expiry = false;
        guarantees.ingest = false;
        guarantees.counts = Counting::No;
    };
    let far_away = || async {
        let (store, clock) = store(Bug::None, bucket);
        let faults = Faults::new();
        faults.on_all().delay(Duration::from_millis(2));
        Ok(Fixture::new(FaultStore::new(store, &faults)).with_clock(&clock))
    };
    let half_a_minute = tokio::time::timeout(Duration::from_secs(30), run(far_away));
    let report = half_a_minute.await.expect("a check does one thing after the other");
    assert!(report.is_ok(), "{report}");
}
