use super::*;
use crate::backends::MemoryConfig;
use crate::layer::BackendConfig;
use crate::types::{Guarantees, Recovery};

fn memory() -> Profile {
    MemoryConfig::default().profile().unwrap()
}

#[test]
fn a_level_that_changes_nothing_says_nothing() {
    let level = Profile::layer("quiet", memory());
    assert!(ASPECTS.iter().all(|aspect| aspect.change(&level).is_none()));
    assert!(ASPECTS.iter().all(|aspect| aspect.change(&memory()).is_some()));
}

#[test]
fn every_name_fits_into_its_column() {
    assert!(ASPECTS.iter().all(|aspect| aspect.name.len() <= 9));
}

#[test]
fn the_level_that_seals_is_named() {
    let place =
        |name: &'static str, sealed| Place { name: name.into(), what: "folder".into(), sealed };
    let plain = memory().changed(|guarantees| guarantees.places = vec![place("disk", false)]);
    assert_eq!(at_rest(&plain), "Values are plain in disk (folder).");
    let sealed = Profile::layer("encrypt", plain)
        .changed(|guarantees| guarantees.places = vec![place("disk", true)]);
    assert_eq!(
        at_rest(&sealed),
        "Values are sealed by `encrypt` wherever they rest: disk (folder). Keys are plain."
    );
    let mixed = Profile::layer("tier", sealed)
        .changed(|guarantees| guarantees.places.push(place("tier", false)));
    assert_eq!(
        at_rest(&mixed),
        "Values are sealed by `encrypt` in disk (folder), but plain in tier (folder). Keys are plain."
    );
}

#[test]
fn every_durability_and_recovery_has_its_words() {
    let write = |now, after| {
        writes(&memory().changed(|guarantees| {
            (guarantees.durability, guarantees.durability_on_request) = (now, now);
            guarantees.durability_after_flush = after;
        }))
    };
    assert_eq!(
        write(Durability::PowerCut, Durability::PowerCut),
        "An acknowledged write survives a power cut."
    );
    assert_eq!(
        write(Durability::ProcessCrash, Durability::PowerCut),
        "An acknowledged write survives a process crash; once `flush` has returned, a power cut too."
    );
    let asked =
        memory().changed(|guarantees| guarantees.durability_on_request = Durability::PowerCut);
    let asked = writes(&asked);
    assert!(
        asked.ends_with(" A batch that asks for it survives a power cut once it is acknowledged.")
    );
    let nothing = (Durability::Nothing, Durability::Nothing);
    assert!(write(nothing.0, nothing.1).contains("gone when the process ends"));
    let server = memory().changed(|guarantees| {
        guarantees.places =
            vec![Place { name: "server".into(), what: "database".into(), sealed: false }];
    });
    assert!(writes(&server).starts_with("An acknowledged write survives this process;"));
    let recover = |interval, window| {
        recovery(&memory().changed(|p| p.recovery = Some(Recovery { interval, window })))
    };
    let day = Duration::from_secs(86_400);
    let due = recover(Some(day), Some(7 * day));
    assert!(due.contains("due at least every day") && due.contains("add to that"), "{due}");
    assert!(recover(Some(day), Some(7 * day)).contains("last 7 days"));
    assert!(recover(None, None).contains("by hand"));
}

#[test]
fn what_only_some_stores_offer_has_its_words() {
    let say =
        |say: fn(&Profile) -> String, change: fn(&mut Guarantees)| say(&memory().changed(change));
    let announced = say(reads, |guarantees| {
        guarantees.freshness = Freshness::Immediate;
        guarantees.change_feed = Some(Duration::from_secs(2));
    });
    assert!(announced.ends_with("seen at once. The change feed reports it within 2 seconds."));
    assert!(!say(reads, |_| ()).contains("may differ"));
    assert!(say(reads, |p| p.verbatim = false).contains("may differ from what was put"));
    assert!(say(batches, |_| ()).ends_with("keys being absent, or holding given values."));
    assert!(say(batches, |p| p.conditions = Conditions::None).contains("cannot"));
    assert!(say(batches, |p| p.writable = false).starts_with("None"));
    let serializable = say(isolation, |_| ());
    assert!(serializable.starts_with("Transactions up to SERIALIZABLE, for keys."));
    assert!(serializable.contains("runs again") && serializable.ends_with("go unnoticed."));
    let only = "Transactions with READ COMMITTED only, as ";
    let said = say(isolation, |p| p.snapshots = false);
    assert!(said.starts_with(&format!("{only}there are no snapshots:")), "{said}");
    let said = say(isolation, |p| p.conditions = Conditions::Absence);
    assert!(said.starts_with(&format!("{only}values cannot be compared:")), "{said}");
    assert!(say(isolation, |p| p.atomic_batches = false).starts_with("No transactions:"));
    assert_eq!(say(isolation, |p| p.writable = false), "None: writes are refused.");
    assert_eq!(say(loads, |_| ()), "Sorted entries are taken in bulk.");
    assert!(say(loads, |p| p.ingest = false).ends_with("batch by batch."));
    let single = say(loads, |p| (p.ingest, p.atomic_batches) = (false, false));
    assert!(single.ends_with("one by one, many at a time."));
    assert!(say(loads, |p| p.writable = false).starts_with("None"));
    assert!(say(counts, |p| p.counts = Counting::Exact).ends_with("exactly."));
    assert!(say(counts, |p| p.counts = Counting::No).contains("not known"));
}

#[test]
fn the_limit_of_a_batch_is_told_where_there_are_batches() {
    let say = |atomic, ops| {
        limits(&memory().changed(|guarantees| {
            (guarantees.atomic_batches, guarantees.limits.batch_ops) = (atomic, ops);
        }))
    };
    assert!(say(true, None).ends_with("values and batches as large as memory allows."));
    assert!(say(true, Some(9)).contains("batches up to 9 operations"));
    for ops in [None, Some(1)] {
        let said = say(false, ops);
        assert!(!said.contains("batches") && said.contains("values as large"), "{said}");
    }
}

#[test]
fn a_size_that_is_short_by_a_frame_is_almost_round() {
    assert_eq!(size(3 << 30), "3GiB");
    assert_eq!(size((3 << 30) - 67), "almost 3GiB");
    assert_eq!(size(1500), "1500B");
    assert_eq!(size((1 << 20) - 2), "almost 1MiB");
}

#[test]
fn durations_are_said_in_the_largest_exact_unit() {
    let say = |ms| words(Duration::from_millis(ms));
    assert_eq!(
        [say(600_000), say(90_000), say(1_500), say(3_600_000), say(0)],
        ["10 minutes", "90 seconds", "1s 500ms", "hour", "0s"]
    );
}

/// Whole sentences, of those that the tests above do not hold.
#[test]
fn every_other_sentence_stands_as_it_is_read() {
    type Change = fn(&mut Guarantees);
    type Case = (fn(&Profile) -> String, Change, &'static str);
    let second = Duration::from_secs(1);
    let reads_of = |freshness, change_feed| {
        reads(&memory().changed(|guarantees| {
            (guarantees.freshness, guarantees.change_feed) = (freshness, change_feed);
        }))
    };
    for (freshness, change_feed, sentence) in [
        (Freshness::Exclusive, None, "Only this process can write while it is open."),
        (Freshness::Unbounded, None, "What others write may never be seen."),
        (Freshness::Immediate, None, "What others write is seen at once."),
        (Freshness::Within(second), None, "What others write is seen after at most 1 second."),
        (Freshness::Within(60 * second), None, "What others write is seen after at most 1 minute."),
        (
            Freshness::Within(90 * second),
            Some(second),
            "What others write is seen after at most 90 seconds. The change feed reports it within 1 second.",
        ),
    ] {
        let own = "Never older than the last write acknowledged through this stack.";
        assert_eq!(reads_of(freshness, change_feed), format!("{own} {sentence}"));
    }
    let cases: [Case; 20] = [
        (writes, |p| p.writable = false, "Writes are refused: the stack only reads."),
        (
            writes,
            |p| p.durability_after_flush = Durability::PowerCut,
            "Nothing is guaranteed for an acknowledged write until `flush` returns; then it survives a power cut.",
        ),
        (
            writes,
            |p| {
                (p.durability, p.durability_after_flush) =
                    (Durability::MachineLoss, Durability::MachineLoss)
            },
            "An acknowledged write survives the loss of the machine.",
        ),
        (
            batches,
            |p| p.conditions = Conditions::Absence,
            "A batch is applied wholly or not at all. It can be made to depend on keys being absent.",
        ),
        (
            batches,
            |p| (p.conditions, p.atomic_batches) = (Conditions::Absence, false),
            "A batch of more than one operation is refused, as it could be applied in part. It can be made to depend on its key being absent.",
        ),
        (
            batches,
            |p| p.atomic_batches = false,
            "A batch of more than one operation is refused, as it could be applied in part. It can be made to depend on its key being absent, or holding a given value.",
        ),
        (batches, |p| p.writable = false, "None: writes are refused."),
        (loads, |p| p.writable = false, "None: writes are refused."),
        (
            isolation,
            |p| p.atomic_batches = false,
            "No transactions: their writes could be applied in part.",
        ),
        (counts, |p| p.counts = Counting::Estimated, "The number of entries is known roughly."),
        (
            counts,
            |p| p.counts = Counting::No,
            "The number of entries is not known without reading all of them.",
        ),
        (scans, |_| (), "In key order, forward and reverse. A snapshot shows one moment."),
        (scans, |p| p.snapshots = false, "In key order, forward and reverse. No snapshots."),
        (
            scans,
            |p| (p.atomic_pages, p.snapshots) = (false, false),
            "In key order, forward and reverse. No snapshots. A page need not be of one moment: it may hold a part of what is written meanwhile.",
        ),
        (scans, |p| p.ordered_scans = false, "None. A snapshot shows one moment."),
        (scans, |p| (p.ordered_scans, p.snapshots) = (false, false), "None, and no snapshots."),
        (expiry, |p| p.expiry = true, "An entry can carry an expiry."),
        (
            expiry,
            |p| p.expiry = false,
            "None: an entry with an expiry is refused. The layer `expire` adds it.",
        ),
        (at_rest, |p| p.places.clear(), "Nothing comes to rest on a disk or elsewhere."),
        (recovery, |_| (), "None: without a backup, what is lost stays lost."),
    ];
    for (say, change, sentence) in cases {
        assert_eq!(say(&memory().changed(change)), sentence);
    }
    let of = |interval, window| {
        recovery(&memory().changed(|p| p.recovery = Some(Recovery { interval, window })))
    };
    assert_eq!(
        of(None, None),
        "If the store is lost, so is what was written since the last backup; backups are taken by hand. Each backup that is kept can be restored."
    );
    assert_eq!(
        of(Some(60 * second), Some(86_400 * second)),
        "If the store is lost, so is what was written since the last finished backup was begun. One is due at least every minute while a service has the stack open; the time that it takes, failures and the time while it is closed add to that. Any moment of the last day can be restored."
    );
    let limited = memory().changed(|guarantees| {
        guarantees.limits.key_bytes = 1000;
        guarantees.limits.value_bytes = Some(1 << 20);
        guarantees.limits.batch_ops = Some(1);
        guarantees.limits.text_values = true;
    });
    assert_eq!(limits(&limited), "Keys up to 1KB, values up to 1MiB. Values must be UTF-8.");
}
