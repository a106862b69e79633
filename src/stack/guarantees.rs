//! Guarantees as sentences. One sentence per aspect, so that what a layer changes is what differs from
//! the sentence of the level below.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::transaction::Isolation;
use crate::types::units::{ByteSize, counted};
use crate::types::{Conditions, Counting, Durability, Freshness, Place, Profile};

/// One thing that a stack guarantees.
#[derive(Clone, Copy)]
pub(super) struct Aspect {
    /// One or two words, as in the table and, with `_`, in JSON.
    pub(super) name: &'static str,
    /// The guarantee as whole sentences.
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

/// What a stack guarantees, aspect by aspect.
pub(crate) fn sentences(profile: &Profile) -> Vec<(&'static str, String)> {
    ASPECTS.iter().map(|aspect| (aspect.name, (aspect.say)(profile))).collect()
}

/// What a level guarantees that the level below does not.
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
    let guarantees = &profile.guarantees;
    if !guarantees.writable {
        return "Writes are refused: the stack only reads.".to_owned();
    }
    let after_flush = guarantees.durability_after_flush;
    // Where bytes rest elsewhere, they outlive this process, and what becomes of them is not known.
    let rests = !guarantees.places.is_empty();
    let asked = match guarantees.durability_on_request {
        most if most > guarantees.durability => {
            format!(" A batch that asks for it survives {most} once it is acknowledged.")
        }
        _ => String::new(),
    };
    let said = match (guarantees.durability, after_flush > guarantees.durability) {
        (Durability::Nothing, false) if rests => {
            "An acknowledged write survives this process; nothing is guaranteed beyond that."
                .to_owned()
        }
        (Durability::Nothing, false) => {
            "An acknowledged write is in memory only: it is gone when the process ends.".to_owned()
        }
        (Durability::Nothing, true) => format!(
            "Nothing is guaranteed for an acknowledged write until `flush` returns; then it survives {after_flush}."
        ),
        (now, false) => format!("An acknowledged write survives {now}."),
        (now, true) => format!(
            "An acknowledged write survives {now}; once `flush` has returned, {after_flush} too."
        ),
    };
    said + &asked
}

fn batches(profile: &Profile) -> String {
    let guarantees = &profile.guarantees;
    if !guarantees.writable {
        return "None: writes are refused.".to_owned();
    }
    let whole = if guarantees.atomic_batches {
        "A batch is applied wholly or not at all."
    } else {
        "A batch of more than one operation is refused, as it could be applied in part."
    };
    let conditions = match (guarantees.conditions, guarantees.atomic_batches) {
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
    let guarantees = &profile.guarantees;
    let offered = |isolation: &Isolation| isolation.check(guarantees).is_ok();
    match Isolation::ALL.into_iter().rfind(offered) {
        None if !guarantees.writable => "None: writes are refused.".to_owned(),
        None => "No transactions: their writes could be applied in part.".to_owned(),
        Some(only @ Isolation::ReadCommitted) => {
            let lacks = if guarantees.snapshots {
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
        guarantees if !guarantees.writable => "None: writes are refused.",
        guarantees if guarantees.ingest => "Sorted entries are taken in bulk.",
        guarantees if guarantees.atomic_batches => "Sorted entries are written batch by batch.",
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
        Freshness::Exclusive => "Only this process can write while it is open.".to_owned(),
        Freshness::Immediate => "What others write is seen at once.".to_owned(),
        Freshness::Within(delay) => {
            format!("What others write is seen after at most {}.", span(delay))
        }
        Freshness::Unbounded => "What others write may never be seen.".to_owned(),
    };
    let reported = match profile.guarantees.change_feed {
        Some(delay) => format!(" The change feed reports it within {}.", span(delay)),
        None => String::new(),
    };
    let changed = if profile.guarantees.verbatim || !profile.guarantees.writable {
        ""
    } else {
        " What is read may differ from what was put: an expiry that is added or rounded, or what the database itself makes of it."
    };
    format!(
        "Never older than the last write acknowledged through this stack.{changed} {others}{reported}"
    )
}

fn scans(profile: &Profile) -> String {
    let guarantees = &profile.guarantees;
    let pages = match guarantees.ordered_scans && !guarantees.atomic_pages {
        true => {
            " A page need not be of one moment: it may hold a part of what is written meanwhile."
        }
        false => "",
    };
    let scans = match (guarantees.ordered_scans, guarantees.snapshots) {
        (true, true) => "In key order, forward and reverse. A snapshot shows one moment.",
        (true, false) => "In key order, forward and reverse. No snapshots.",
        (false, true) => "None. A snapshot shows one moment.",
        (false, false) => "None, and no snapshots.",
    };
    format!("{scans}{pages}")
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
            "If the store is lost, so is what was written since the last finished backup was begun. One is due at least every {} while a service has the stack open; the time that it takes, failures and the time while it is closed add to that.",
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

/// A duration as a person says it behind "every" or "the last": `day`, `7 days`.
fn words(duration: Duration) -> String {
    let span = span(duration);
    span.strip_prefix("1 ").map_or_else(|| span.clone(), str::to_owned)
}

/// A duration as a person says it: in the largest unit that is exact.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() != 0 || seconds == 0 {
        return humantime::format_duration(duration).to_string();
    }
    let units = [("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];
    let exact = units.into_iter().find(|(_, size)| seconds.is_multiple_of(*size));
    // Every whole number of seconds is a multiple of one.
    let (unit, size) = exact.unwrap_or(("second", 1));
    match seconds / size {
        1 => format!("1 {unit}"),
        count => format!("{count} {unit}s"),
    }
}
