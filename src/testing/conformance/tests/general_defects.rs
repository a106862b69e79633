//! What every store offers: a store with one defect.

use super::broken::{Bug, broken};
use super::*;

mod notices {
    use super::*;

    mutants! { (flavor = "multi_thread") broken:
        DropsTheLastOp => "batch::puts_and_deletes_happen_together";
        FirstOpOfAKeyWins => "batch::the_last_operation_of_a_key_wins";
        BatchIsNotAtomic =>
            "batch::a_snapshot_holds_a_batch_wholly_or_not_at_all",
            "batch::a_page_holds_a_batch_wholly_or_not_at_all";
        WrongKeyInTheMiddleLeavesTheStart => "batch::a_wrong_key_leaves_nothing_of_the_batch";
        AcceptsLongKeys => "limits::wrong_keys_are_refused";
        AcceptsMoreDurability => "refuse::more_durability_than_guaranteed";
        SequenceStandsStill => "upkeep::commits_become_durable_in_order";
        EmptyValueIsADelete => "basic::an_empty_value_is_not_missing";
        DroppedWriteIsHalf => "cancel::a_dropped_write_happens_wholly_or_not_at_all";
        LosesConcurrentWrites => "concurrency::writes_of_many_tasks_are_all_there";
        GroupLosesItsOrder =>
            "group::batches_take_effect_in_order",
            "group::a_reader_sees_a_prefix",
            "group::a_large_group_is_applied";
        GroupAnswersOutOfStep => "group::a_group_ends_at_the_batch_that_fails";
        GroupGoesOn =>
            "group::a_group_ends_at_the_batch_that_fails",
            "group::a_condition_that_fails_ends_the_group",
            "group::a_batch_of_a_group_is_atomic";
        GroupIsCutShort => "group::a_large_group_is_applied";
        GroupForgetsTheRest => "group::a_group_ends_at_the_batch_that_fails";
        GroupChecksConditionsFirst =>
            "group::conditions_see_the_batches_before_them",
            "group::a_condition_that_fails_ends_the_group";
        StaleGet => "basic::an_overwrite_replaces_the_value", "concurrency::a_key_never_goes_back";
        BulkReadsSortTheirKeys => "basic::bulk_reads_keep_the_order_of_the_keys";
        BulkReadsSkipMissing => "basic::a_missing_key_gives_none";
        GetChecksNoKey => "limits::wrong_keys_are_refused";
        ReverseLimitIsOneShort => "scan::every_limit_and_page_size";
        IncludedBoundIsExcluded => "scan::every_range_in_both_directions";
        EmptyLastPage => "scan::an_empty_store_has_no_pages";
        PageIgnoresItsSize => "scan::every_limit_and_page_size";
        PageIgnoresItsBytes => "scan::pages_end_at_their_bytes";
        ScanIsOpenedAtOnce => "scan::a_scan_reads_nothing_before_it_is_polled";
        ScanRepeatsTheKeyBetweenPages =>
            "scan::entries_that_stay_are_seen_once_while_others_change";
        SignedOrder => "scan::keys_are_ordered_bytewise";
        KeysComeWithValues => "keys::their_values_are_empty_and_those_of_reads_are_not";
        KeysComeWithDeadlines => "keys::their_values_are_empty_and_those_of_reads_are_not";
        KeysOfEmptyValuesAreLeftOut =>
            "keys::their_values_are_empty_and_those_of_reads_are_not";
        KeysFillWhatIsKept => "keys::their_values_are_empty_and_those_of_reads_are_not";
        KeysOfExpiredEntriesAppear => "keys::those_of_expired_entries_do_not_appear";
        KeysGoOnBehindTheirPage =>
            "keys::every_limit_and_page_size",
            "keys::pages_end_at_the_bytes_of_their_keys";
        SnapshotListsTheKeysOfNow => "keys::a_snapshot_lists_its_own";
        SnapshotSeesLaterWrites =>
            "snapshot::a_snapshot_does_not_see_later_writes",
            "transaction::reads_are_of_one_moment",
            "transaction::histories_show_what_is_allowed";
        SnapshotExpires => "expiry::time_stands_still_in_a_snapshot";
        SnapshotDiesOnCompaction => "snapshot::a_snapshot_outlives_flush_and_compaction";
        ScanShowsExpired => "expiry::an_entry_is_there_until_its_deadline";
        ExpiredCountForTheLimit => "expiry::expired_entries_do_not_count";
        DeadlineIsOneLate => "expiry::an_entry_is_there_until_its_deadline";
        DeadlineIsForgotten => "expiry::the_deadline_is_reported";
        DeadlineOutlivesOverwrite => "expiry::an_overwrite_replaces_the_deadline";
        GetAfterClose => "close::operations_after_close_fail_as_closed";
        WriteAfterClose => "close::operations_after_close_fail_as_closed";
        SecondCloseFails => "close::a_second_close_succeeds";
        EmptiesBeforeItCloses => "close::operations_during_close_finish_or_fail_as_closed";
        ErrorsTellTheKey => "upkeep::errors_do_not_tell_the_key";
        ProfileChanges => "upkeep::the_profile_is_stable_and_prints";
        RefusesNothing =>
            "refuse::scans_where_there_are_none",
            "refuse::snapshots_where_there_are_none",
            "refuse::expiries_where_there_are_none",
            "refuse::batches_where_they_are_not_atomic",
            "refuse::more_durability_than_guaranteed";
        Panics => "basic::a_missing_key_gives_none";
    }
}

/// These hang. A paused runtime notices it at once.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_fails() {
    for (check, bug) in [
        ("basic::a_missing_key_gives_none", Bug::Hangs),
        ("scan::a_scan_between_pages_holds_up_nobody", Bug::ScanHoldsALock),
    ] {
        let outcome = outcome(check, broken(bug)).await;
        assert!(matches!(&outcome, Outcome::Failed(why) if why.contains("hangs")), "{outcome:?}");
    }
}

/// The wrapper by itself must not be what fails the mutants.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_bug_every_check_passes() {
    let report = run(|| async { Ok(broken(Bug::None)) }).await;
    assert!(report.is_ok(), "{report}");
}
