//! Guarantees as sentences. One sentence per aspect, so that what a layer changes is what differs from
//! the sentence of the level below.

use std::time::Duration;

use crate::transaction::Isolation;
use crate::types::units::{ByteSize, counted};
use crate::types::{Conditions, Counting, Durability, Freshness, Place, Profile};

/// One thing that a stack promises.
#[derive(Clone, Copy)]
pub(super) struct Aspect {
    /// One or two words, as in the table and, with `_`, in JSON.
    pub(super) name: &'static str,
    /// The promise as whole sentences.
    pub(super) say: fn(&Profile) -> String,
}

/// The aspect that `sealed: required` is about.
pub(super) const AT_REST: &str = "at rest";

/// Every aspect, in the order in which a person asks.
pub(super) const ASPECTS: [Aspect; 11] = [
    Aspect { name: "writes", say: writes },
    Aspect { name: "batches", say: batches },
    Aspect { name: "isolation", say: isolation },
    Aspect { name: "loads", say: loads },
    Aspect { name: "reads", say: reads },
    Aspect { name: "scans", say: scans },
    Aspect { name: "counts", say: counts },
    Aspect { name: "expiry", say: expiry },
    Aspect { name: AT_REST, say: at_rest },
    Aspect { name: "recovery", say: recovery },
    Aspect { name: "limits", say: limits },
];

/// What a stack promises, aspect by aspect.
pub(crate) fn promises(profile: &Profile) -> Vec<(&'static str, String)> {
    ASPECTS.iter().map(|aspect| (aspect.name, (aspect.say)(profile))).collect()
}

/// What a level promises that the level below does not.
pub(crate) fn changes(level: &Profile) -> Vec<(&'static str, String)> {
    ASPECTS.into_iter().filter_map(|aspect| Some((aspect.name, aspect.change(level)?))).collect()
}

impl Aspect {
    /// What a level says of this aspect, unless the level below says the same.
    pub(super) fn change(self, level: &Profile) -> Option<String> {
        let said = (self.say)(level);
        let below = level.below.as_deref().map(self.say);
        (below.as_ref() != Some(&said)).then_some(said)
    }
}

fn writes(profile: &Profile) -> String {
    let promised = &profile.guarantees;
    if !promised.writable {
        return "Writes are refused: the stack only reads.".to_owned();
    }
    let after_flush = promised.durability_after_flush;
    // Where bytes rest elsewhere, they outlive this process, and what becomes of them is not known.
    let rests = !promised.places.is_empty();
    match (promised.durability, after_flush > promised.durability) {
        (Durability::Nothing, false) if rests => "An acknowledged write survives this process; whether it survives the end of what holds it is not promised.".to_owned(),
        (Durability::Nothing, false) => {
            "An acknowledged write is in memory only: it is gone when the process ends.".to_owned()
        }
        (Durability::Nothing, true) => format!(
            "An acknowledged write is promised to survive nothing until `flush` returns; then it survives {after_flush}."
        ),
        (now, false) => format!("An acknowledged write survives {now}."),
        (now, true) => format!(
            "An acknowledged write survives {now}; once `flush` has returned, {after_flush} too."
        ),
    }
}

fn batches(profile: &Profile) -> String {
    let promised = &profile.guarantees;
    if !promised.writable {
        return "None: writes are refused.".to_owned();
    }
    let whole = if promised.atomic_batches {
        "A batch is applied wholly or not at all."
    } else {
        "A batch of more than one operation is refused, as it could be applied in part."
    };
    let conditions = match (promised.conditions, promised.atomic_batches) {
        (Conditions::None, _) => "It cannot be made to depend on what is there.",
        (Conditions::Absence, true) => "It can be made to depend on keys being absent.",
        (Conditions::Absence, false) => "It can be made to depend on its key being absent.",
        (Conditions::Value, true) => {
            "It can be made to depend on keys being absent, or holding given values."
        }
        (Conditions::Value, false) => {
            "It can be made to depend on its key being absent, or holding a given value."
        }
    };
    format!("{whole} {conditions}")
}

/// Of transactions.
fn isolation(profile: &Profile) -> String {
    let promised = &profile.guarantees;
    let offered = |isolation: &Isolation| isolation.check(promised).is_ok();
    match Isolation::ALL.into_iter().rfind(offered) {
        None if !promised.writable => "None: writes are refused.".to_owned(),
        None => "No transactions: their writes could be applied in part.".to_owned(),
        Some(only @ Isolation::ReadCommitted) => {
            let lacks = if promised.snapshots {
                "values cannot be compared"
            } else {
                "there are no snapshots"
            };
            format!(
                "Transactions with {only} only, as {lacks}: what others change between a read and the commit is overwritten, unless a batch requires what was read."
            )
        }
        Some(isolation) => format!(
            "Transactions up to {isolation}, for keys. One that relies on what others have changed since is refused and runs again; one whose outcome is unknown does not. Keys that others add to a range that it scanned go unnoticed."
        ),
    }
}

fn loads(profile: &Profile) -> String {
    match &profile.guarantees {
        promised if !promised.writable => "None: writes are refused.",
        promised if promised.ingest => "Sorted entries are taken in bulk.",
        promised if promised.atomic_batches => "Sorted entries are written batch by batch.",
        _ => "Sorted entries are written one by one, many at a time.",
    }
    .to_owned()
}

fn counts(profile: &Profile) -> String {
    match profile.guarantees.counts {
        Counting::Exact => "The number of entries is known exactly.",
        Counting::Estimated => "The number of entries is known roughly.",
        Counting::No => "The number of entries is not known without reading all of them.",
    }
    .to_owned()
}

fn reads(profile: &Profile) -> String {
    let others = match profile.guarantees.freshness {
        Freshness::Exclusive => "Nobody else can write while it is open.".to_owned(),
        Freshness::Immediate => "What others write is seen at once.".to_owned(),
        Freshness::Within(delay) => {
            format!("What others write is seen after at most {}.", words(delay))
        }
        Freshness::Unbounded => "What others write may never be seen.".to_owned(),
    };
    let announced = match profile.guarantees.announces {
        Some(delay) => format!(" It is announced within {}.", words(delay)),
        None => String::new(),
    };
    let changed = if profile.guarantees.verbatim || !profile.guarantees.writable {
        ""
    } else {
        " What is read may differ from what was put: an expiry that is added or rounded, or what the database itself makes of it."
    };
    format!(
        "Never older than the last write acknowledged through this stack.{changed} {others}{announced}"
    )
}

fn scans(profile: &Profile) -> String {
    match (profile.guarantees.ordered_scans, profile.guarantees.snapshots) {
        (true, true) => "In key order, forward and reverse. A snapshot shows one moment.",
        (true, false) => "In key order, forward and reverse. No snapshots.",
        (false, true) => "None. A snapshot shows one moment.",
        (false, false) => "None, and no snapshots.",
    }
    .to_owned()
}

fn expiry(profile: &Profile) -> String {
    if profile.guarantees.expiry {
        "An entry can carry an expiry.".to_owned()
    } else {
        "None: an entry with an expiry is refused. The layer `expire` adds it.".to_owned()
    }
}

fn at_rest(profile: &Profile) -> String {
    let places = &profile.guarantees.places;
    let (sealed, plain): (Vec<&Place>, Vec<&Place>) = places.iter().partition(|place| place.sealed);
    match (sealed.is_empty(), plain.is_empty()) {
        (true, true) => "Nothing comes to rest on a disk or elsewhere.".to_owned(),
        (true, false) => format!("Values are plain in {}.", list(&plain)),
        (false, true) => format!(
            "Values are sealed{} wherever they rest: {}. Keys are plain.",
            sealers(profile),
            list(&sealed)
        ),
        (false, false) => format!(
            "Values are sealed{} in {}, but plain in {}. Keys are plain.",
            sealers(profile),
            list(&sealed),
            list(&plain)
        ),
    }
}

/// The levels at which a place becomes sealed that is plain for the level below.
fn sealers(profile: &Profile) -> String {
    let seals = |level: &&Profile| {
        level.below.as_deref().is_some_and(|below| {
            let plain = below.guarantees.places.iter().filter(|place| !place.sealed);
            let sealed = &level.guarantees.places;
            plain.into_iter().any(|was| {
                sealed.iter().any(|is| is.sealed && is.name == was.name && is.what == was.what)
            })
        })
    };
    let names: Vec<_> =
        profile.levels().filter(seals).map(|level| format!("`{}`", level.name)).collect();
    if names.is_empty() { String::new() } else { format!(" by {}", names.join(" and ")) }
}

fn list(places: &[&Place]) -> String {
    let names: Vec<_> =
        places.iter().map(|place| format!("{} ({})", place.name, place.what)).collect();
    names.join(", ")
}

fn recovery(profile: &Profile) -> String {
    let Some(recovery) = profile.guarantees.recovery else {
        return "None: without a backup, what is lost stays lost.".to_owned();
    };
    let lost = match recovery.interval {
        Some(interval) => format!(
            "If the store is lost, so is what was written since the last finished backup was begun. One is due at least every {} while a service has the stack open; the time that it takes, failures and time closed come on top.",
            words(interval)
        ),
        None => "If the store is lost, so is what was written since the last backup; backups are taken by hand.".to_owned(),
    };
    let window = match recovery.window {
        Some(window) => format!("Any moment of the last {} can be restored.", words(window)),
        None => "Each backup that is kept can be restored.".to_owned(),
    };
    format!("{lost} {window}")
}

fn limits(profile: &Profile) -> String {
    let limits = &profile.guarantees.limits;
    let mut bounded = vec![format!("Keys up to {}", ByteSize(limits.key_bytes as u64))];
    let mut free = Vec::new();
    match limits.value_bytes {
        Some(bytes) => bounded.push(format!("values up to {}", size(bytes))),
        None => free.push("values"),
    }
    match limits.batch_ops {
        // What is said of batches says it already.
        Some(..=1) => {}
        Some(ops) => {
            bounded.push(format!("batches up to {}", counted(ops, "operation", "operations")))
        }
        None if profile.guarantees.atomic_batches => free.push("batches"),
        None => {}
    }
    let bounded = bounded.join(", ");
    let text = if limits.text_values { " Values must be UTF-8." } else { "" };
    match free.as_slice() {
        [] => format!("{bounded}.{text}"),
        free => format!("{bounded}; {} as large as memory allows.{text}", free.join(" and ")),
    }
}

/// A number of bytes as a person says it. Frames take a few bytes from the limit below them, which are
/// no news.
fn size(bytes: u64) -> String {
    let unit = [1 << 30, 1 << 20, 1 << 10].into_iter().find(|unit| bytes >= *unit).unwrap_or(1);
    let rounded = bytes.next_multiple_of(unit);
    if rounded != bytes && rounded - bytes <= rounded / 1000 {
        format!("almost {}", ByteSize(rounded))
    } else {
        ByteSize(bytes).to_string()
    }
}

/// A duration as a person says it: in the largest unit that is exact.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() != 0 || seconds == 0 {
        return humantime::format_duration(duration).to_string();
    }
    let units = [("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];
    let exact = units.into_iter().find(|(_, size)| seconds.is_multiple_of(*size));
    // Every whole number of seconds is a multiple of one.
    let (unit, size) = exact.unwrap_or(("second", 1));
    match seconds / size {
        1 => unit.to_owned(),
        count => format!("{count} {unit}s"),
    }
}

#[cfg(test)]
mod tests {
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
        let plain = memory().changed(|promised| promised.places = vec![place("disk", false)]);
        assert_eq!(at_rest(&plain), "Values are plain in disk (folder).");
        let sealed = Profile::layer("encrypt", plain)
            .changed(|promised| promised.places = vec![place("disk", true)]);
        assert_eq!(
            at_rest(&sealed),
            "Values are sealed by `encrypt` wherever they rest: disk (folder). Keys are plain."
        );
        let mixed = Profile::layer("tier", sealed)
            .changed(|promised| promised.places.push(place("tier", false)));
        assert_eq!(
            at_rest(&mixed),
            "Values are sealed by `encrypt` in disk (folder), but plain in tier (folder). Keys are plain."
        );
    }

    #[test]
    fn every_durability_and_recovery_has_its_words() {
        let write = |now, after| {
            writes(&memory().changed(|promised| {
                promised.durability = now;
                promised.durability_after_flush = after;
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
        let nothing = (Durability::Nothing, Durability::Nothing);
        assert!(write(nothing.0, nothing.1).contains("gone when the process ends"));
        let server = memory().changed(|promised| {
            promised.places =
                vec![Place { name: "server".into(), what: "database".into(), sealed: false }];
        });
        assert!(writes(&server).starts_with("An acknowledged write survives this process;"));
        let recover = |interval, window| {
            recovery(&memory().changed(|p| p.recovery = Some(Recovery { interval, window })))
        };
        let day = Duration::from_secs(86_400);
        let due = recover(Some(day), Some(7 * day));
        assert!(due.contains("due at least every day") && due.contains("come on top"), "{due}");
        assert!(recover(Some(day), Some(7 * day)).contains("last 7 days"));
        assert!(recover(None, None).contains("by hand"));
    }

    #[test]
    fn what_only_some_stores_offer_has_its_words() {
        let say = |say: fn(&Profile) -> String, change: fn(&mut Guarantees)| {
            say(&memory().changed(change))
        };
        let announced = say(reads, |promised| {
            promised.freshness = Freshness::Immediate;
            promised.announces = Some(Duration::from_secs(2));
        });
        assert!(announced.ends_with("seen at once. It is announced within 2 seconds."));
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
            limits(&memory().changed(|promised| {
                (promised.atomic_batches, promised.limits.batch_ops) = (atomic, ops);
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
}
