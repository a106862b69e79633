//! What somebody should look at: the alerts of `dashboards/rules/alerts.yaml` that this process can tell of itself.

use std::time::Duration;

use super::facts::{AlertFacts, BackupFacts, Severity, StackFacts, WriteBackFacts};
use crate::clock::Timestamp;
use crate::types::units::Span;

/// The part of the operations that may fail.
const FAILING: f64 = 14.4 * 0.001;
/// With fewer operations in ten seconds, one that fails would be an alert.
const ENOUGH: u64 = 100;
/// How old the oldest dirty write may be.
const STALLED: Duration = Duration::from_secs(300);
/// How much of a buffer may be used.
const FULL: f64 = 0.8;
/// How long a store may be open before it has a backup.
const FIRST: Duration = Duration::from_secs(3600);

/// What is said: how urgent, the name of the alert, the layer, and the text.
type Said<'a> = (Severity, &'static str, Option<&'a str>, String);

/// The alerts about a store. `failing`: the part of its operations that failed, and how many there were.
pub(super) fn of(
    stack: &StackFacts,
    failing: Option<(f64, u64)>,
    now: Timestamp,
    started_at: Timestamp,
) -> Vec<AlertFacts> {
    let all = failed_to_open(stack)
        .into_iter()
        .chain(damaged(stack))
        .chain(stack.layers.iter().flat_map(|layer| {
            let cache = layer.cache.as_ref();
            cache.into_iter().flat_map(|cache| {
                caches(&layer.name, cache.change_feed_connected, cache.disk_active)
            })
        }))
        .chain(stack.layers.iter().flat_map(|layer| {
            layer.write_back.iter().flat_map(|write_back| writes(&layer.name, write_back, now))
        }))
        .chain(failures(failing))
        .chain(stack.backups.as_ref().and_then(|backups| backup(backups, now, started_at)));
    let alert = |(severity, name, layer, text): Said<'_>| AlertFacts {
        severity,
        name: name.to_owned(),
        stack: Some(stack.name.clone()),
        layer: layer.map(str::to_owned),
        text,
    };
    all.map(alert).collect()
}

fn failed_to_open(stack: &StackFacts) -> Option<Said<'_>> {
    let error = stack.error.as_ref()?;
    Some((
        Severity::Critical,
        "TierstackServeStoreFailed",
        None,
        format!("It is not open, and requests for it fail: {error}"),
    ))
}

fn damaged(stack: &StackFacts) -> Option<Said<'_>> {
    // An error is counted at each boundary that it passes: it arose at the innermost.
    let mut layers = stack.layers.iter().rev();
    let (layer, count) =
        layers.find_map(|layer| Some((layer, layer.errors_by_kind.get("corruption")?)))?;
    let answers = if *count == 1 { "1 answer was" } else { &format!("{count} answers were") };
    let text = format!(
        "{answers} damaged since the store was opened. The log names each as `key #...`; `tierstack inspect --fingerprint` finds the key."
    );
    Some((Severity::Critical, "TierstackCorruption", Some(&layer.name), text))
}

fn caches(
    layer: &str,
    change_feed_connected: Option<bool>,
    disk: Option<bool>,
) -> impl Iterator<Item = Said<'_>> {
    let deaf = (change_feed_connected == Some(false)).then(|| {
        let text = "The change feed below it is lost. It keeps nothing until the feed is back.";
        (Severity::Warning, "TierstackCacheChangeFeedLost", Some(layer), text.to_owned())
    });
    let failed = (disk == Some(false)).then(|| {
        let text = "Its disk failed and is out of use; it goes on in memory alone.";
        (Severity::Warning, "TierstackCacheDiskFailed", Some(layer), text.to_owned())
    });
    deaf.into_iter().chain(failed)
}

/// Of what is acknowledged and not in the store below.
fn writes<'a>(
    layer: &'a str,
    facts: &WriteBackFacts,
    now: Timestamp,
) -> impl Iterator<Item = Said<'a>> {
    let critical = |name, text| (Severity::Critical, name, Some(layer), text);
    let stopped = match facts.failed.as_deref() {
        Some("journal") => Some(critical(
            "TierstackWriteBackJournalFailed",
            "Its journal failed, and it takes no writes. What was acknowledged is kept.".to_owned(),
        )),
        Some("refused") => Some(critical(
            "TierstackWriteBackRefused",
            "The store below refused an acknowledged batch for good, or is not the one that the journal is for, so it takes no writes. The log says why; `tierstack journal` shows and takes out batches once the process has ended.".to_owned(),
        )),
        _ => None,
    };
    let age = facts.oldest_dirty.map(|oldest| now.since(oldest)).filter(|age| *age > STALLED);
    let stalled = age.map(|age| {
        let age = Span(Duration::from_secs(age.as_secs()));
        let text = format!("The oldest write that the store below does not have is {age} old.");
        critical("TierstackWriteBackStalled", text)
    });
    let full = facts.dirty_bytes as f64 / facts.max_dirty_bytes.max(1) as f64;
    let filling = (full > FULL && facts.max_dirty_bytes > 0).then(|| {
        let text =
            format!("{:.0} % of max_dirty is used; when it is full, writers wait.", full * 100.0);
        (Severity::Warning, "TierstackWriteBackBufferFilling", Some(layer), text)
    });
    let away = facts.store_away.then(|| {
        let text = "It was opened without the store below, which has not come since: writes go to the journal, and reads of other keys fail.";
        critical("TierstackWriteBackStoreAway", text.to_owned())
    });
    stopped.into_iter().chain(away).chain(stalled).chain(filling)
}

fn failures(failing: Option<(f64, u64)>) -> Option<Said<'static>> {
    let (ratio, ops) = failing.filter(|(ratio, ops)| *ratio > FAILING && *ops >= ENOUGH)?;
    let text = format!("{:.1} % of its last {ops} operations failed.", ratio * 100.0);
    // Prometheus looks at an hour before it calls this critical.
    Some((Severity::Warning, "TierstackFailuresFast", None, text))
}

/// Of a schedule that is not kept.
fn backup(backups: &BackupFacts, now: Timestamp, started_at: Timestamp) -> Option<Said<'static>> {
    let interval = backups.expected_interval.filter(|interval| *interval > 0.0)?;
    let failed = match backups.failures {
        0 => String::new(),
        1 => " 1 attempt failed since it was opened.".to_owned(),
        many => format!(" {many} attempts failed since it was opened."),
    };
    let Some(last) = backups.last_success else {
        let is_long = now.since(started_at) > FIRST;
        let text = format!("It has a schedule, and not one backup.{failed}");
        return is_long.then_some((Severity::Critical, "TierstackBackupNever", None, text));
    };
    let ratio = now.since(last).as_secs_f64() / interval;
    let text = |what| format!("Its last backup is {ratio:.1} of its intervals old{what}.{failed}");
    if ratio > 3.0 {
        let text = text(": what was written since is lost with the store");
        Some((Severity::Critical, "TierstackBackupTooOld", None, text))
    } else if ratio > 2.0 {
        Some((Severity::Warning, "TierstackBackupLate", None, text("")))
    } else {
        None
    }
}
