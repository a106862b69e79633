//! `status`: what the stores of a running process do now.

use std::time::Duration;

use tierstack::Timestamp;
use tierstack::status::{BackupFacts, Facts, LayerFacts, Severity, StackFacts, WriteBackFacts};

use crate::args::Status;
use crate::failure::Outcome;
use crate::output;
use crate::process::Process;
use crate::shutdown::Shutdown;

/// `tierstack status`
pub(crate) async fn run(args: &Status, stop: &Shutdown) -> Outcome {
    let facts = stop.or(async { Process::reach(&args.process).await?.facts().await }).await?;
    output::fact(args.json.json, &facts, || words(&facts))
}

fn words(facts: &Facts) -> String {
    let mut words = numbers(facts);
    for stack in &facts.stacks {
        // One that did not open guarantees nothing.
        let Some(guarantees) = stack.guarantees.as_ref().filter(|said| !said.is_empty()) else {
            continue;
        };
        words += &format!("\nWhat '{}' guarantees\n\n", stack.name);
        for said in guarantees {
            words += &format!("  {:<9} {}\n", said.about, said.text);
        }
    }
    words
}

/// What changes from moment to moment: what `top` paints.
pub(super) fn numbers(facts: &Facts) -> String {
    let up = facts.now.since(facts.process.started_at);
    let period = facts.period.map_or_else(
        || "measuring".to_owned(),
        |seconds| format!("rates of the last {seconds:.1} s"),
    );
    let stores = output::counted(facts.stacks.len() as u64, "store", "stores");
    let mut words =
        format!("tierstack {} · up {} · {stores} · {period}\n", facts.process.version, about(up));
    for alert in &facts.alerts {
        let severity = match alert.severity {
            Severity::Critical => "CRITICAL",
            Severity::Warning => "WARNING",
            Severity::Info => "INFO",
        };
        let place: Vec<_> = alert.stack.iter().chain(&alert.layer).map(String::as_str).collect();
        words += &printable(&format!("{severity} {}: {}\n", place.join("/"), alert.text));
    }
    for stack in &facts.stacks {
        let head = format!("{}  {}", stack.name, stack.shape);
        words += &format!("\n{}\n", printable(head.trim_end()));
        words += &layers(stack);
        for layer in &stack.layers {
            if let Some(write_back) = &layer.write_back {
                words += &format!("  {}\n", printable(&dirty(&layer.name, write_back, facts.now)));
            }
        }
        if let Some(backups) = &stack.backups {
            words += &format!("  {}\n", printable(&backup(backups, facts.now)));
        }
    }
    words
}

fn layers(stack: &StackFacts) -> String {
    if stack.layers.is_empty() {
        return String::new();
    }
    let head = ["layer", "ops/s", "hits", "p50", "p99", "bytes/s", "errors", "waiting"];
    let rows: Vec<_> =
        stack.layers.iter().enumerate().map(|(depth, layer)| row(depth, layer)).collect();
    output::table(&head, &rows)
}

fn row(depth: usize, layer: &LayerFacts) -> Vec<String> {
    let unknown = || "-".to_owned();
    let time = |seconds: Option<f64>| {
        seconds.map_or_else(unknown, |seconds| output::duration(Duration::from_secs_f64(seconds)))
    };
    let hits = layer.cache.as_ref().map(|cache| {
        cache.hit_ratio.map_or_else(unknown, |ratio| format!("{:.1} %", ratio * 100.0))
    });
    vec![
        printable(&format!("{}{}", "  ".repeat(depth), layer.name)),
        layer.all.per_second.map_or_else(unknown, rate),
        hits.unwrap_or_default(),
        time(layer.all.p50),
        time(layer.all.p99),
        layer.bytes_per_second.map_or_else(unknown, |bytes| output::bytes(bytes as u64)),
        output::count(layer.errors),
        output::count(layer.in_flight),
    ]
}

/// `0.5`, `812`, `1.21 M`
fn rate(per_second: f64) -> String {
    let (scale, unit) = match per_second {
        ..9_999.5 => (1.0, ""),
        ..999_500.0 => (1e3, " k"),
        ..999_500_000.0 => (1e6, " M"),
        _ => (1e9, " G"),
    };
    let number = per_second / scale;
    let digits = match number {
        0.0 => 0,
        ..10.0 if unit.is_empty() => 1,
        ..10.0 => 2,
        ..100.0 if !unit.is_empty() => 1,
        _ => 0,
    };
    format!("{number:.digits$}{unit}")
}

/// What is acknowledged, and on its way to the store below.
fn dirty(layer: &str, facts: &WriteBackFacts, now: Timestamp) -> String {
    let mut words = match facts.dirty_entries {
        0 if facts.store_away => format!("{layer}: nothing is dirty"),
        0 => format!("{layer}: the store below has every write"),
        dirty => format!(
            "{layer}: {} dirty, {} of {}",
            output::count(dirty),
            output::bytes(facts.dirty_bytes),
            output::bytes(facts.max_dirty_bytes)
        ),
    };
    if let Some(oldest) = facts.oldest_dirty {
        words += &format!(", the oldest for {}", about(now.since(oldest)));
    }
    if facts.waiting > 0 {
        words += &format!(
            "; {} for room",
            output::counted(facts.waiting, "writer waits", "writers wait")
        );
    }
    if facts.failures > 0 {
        words += &format!("; {} failed", output::counted(facts.failures, "flush", "flushes"));
    }
    if facts.store_away {
        words += "; opened without the store below, which has not come yet";
    }
    if let Some(cause) = &facts.failed {
        words += &format!("; takes no writes ({cause})");
    }
    words
}

fn backup(backups: &BackupFacts, now: Timestamp) -> String {
    let mut words = match backups.last_success {
        Some(last) => format!("backup: the last is {} old", about(now.since(last))),
        None => "backup: there is none yet, as far as is known".to_owned(),
    };
    words += &match backups.due_at {
        Some(due) if due > now => format!(", the next is due in {}", about(due.since(now))),
        Some(due) => format!(", the next has been due for {}", about(now.since(due))),
        None => ", by hand".to_owned(),
    };
    if backups.failures > 0 {
        words += &format!("; {} failed", output::counted(backups.failures, "attempt", "attempts"));
    }
    if let Some(error) = &backups.error {
        words += &format!("; the place cannot be listed: {error}");
    }
    words
}

/// `3d 4h`: the two largest units.
fn about(span: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(span.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A name of somebody else's process does not steer this terminal.
fn printable(text: &str) -> String {
    let escape = |c: char| match c {
        '\n' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let json = r#"{"version":1,"now":1790000003000,"process":{"version":"0.1.0","started_at":1789900000000},"period":1.0,
            "stacks":[{"name":"orders\u001b[2J","open":true,"error":null,"shape":"cache(memory)","layers":[
              {"name":"cache","kind":"layer","all":{"per_second":1210000.0,"p50":1.9e-7,"p99":2.3e-6},
               "read":{"per_second":null,"p50":null,"p99":null},"write":{"per_second":null,"p50":null,"p99":null},
               "bytes_per_second":1048576.0,"errors":0,"errors_by_kind":{},"errors_per_second":0.0,"in_flight":3,
               "cache":{"hit_ratio":0.9843,"requests_per_second":1.0,"evictions_per_second":0.0,"bytes":1,"entries":1,"disk_bytes":null,"disk_active":null,"change_feed_connected":null},"stored":null},
              {"name":"memory","kind":"backend","all":{"per_second":19.5,"p50":null,"p99":null},
               "read":{"per_second":null,"p50":null,"p99":null},"write":{"per_second":null,"p50":null,"p99":null},
               "bytes_per_second":null,"errors":1200,"errors_by_kind":{"timeout":1200},"errors_per_second":0.0,"in_flight":0,"cache":null,"stored":null,
               "write_back":{"dirty_bytes":2048,"dirty_entries":1500,"max_dirty_bytes":67108864,"oldest_dirty":1789999998000,"waiting":1,"journal_bytes":4096,"flushed_per_second":null,"failures":3,"failed":"refused","store_away":true}}],
             "backups":{"schedule":"daily","expected_interval":86400.0,"last_success":1789999000000,"due_at":1790010000000,"failures":1,"error":null}}],
            "listeners":[],"alerts":[{"severity":"warning","name":"TierstackBackupLate","stack":"orders","layer":null,"text":"It is late."}]}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_table_has_a_row_for_each_layer_and_no_control_character_passes() {
        let words = numbers(&facts());
        assert!(
            words.starts_with("tierstack 0.1.0 · up 1day 3h · 1 store · rates of the last 1.0 s\n"),
            "{words}"
        );
        assert!(words.contains("WARNING orders: It is late.\n"), "{words}");
        assert!(words.contains("orders\\u{1b}[2J  cache(memory)"), "{words}");
        let rows: Vec<_> = words.lines().map(str::split_whitespace).map(Vec::from_iter).collect();
        assert!(
            rows.contains(&vec![
                "cache", "1.21", "M", "98.4", "%", "190", "ns", "2.30", "µs", "1.00", "MiB", "0",
                "3"
            ]),
            "{words}"
        );
        assert!(rows.contains(&vec!["memory", "20", "-", "-", "-", "1,200", "0"]), "{words}");
        assert!(
            words.contains("memory: 1,500 dirty, 2.00 KiB of 64.00 MiB, the oldest for 5s; 1 writer waits for room; 3 flushes failed; opened without the store below, which has not come yet; takes no writes (refused)\n"),
            "{words}"
        );
        assert!(
            words.contains(
                "backup: the last is 16m 43s old, the next is due in 2h 46m; 1 attempt failed"
            ),
            "{words}"
        );
    }

    #[test]
    fn rates_have_three_digits_at_most() {
        let cases = [
            (0.0, "0"),
            (0.25, "0.2"),
            (12.0, "12"),
            (812.0, "812"),
            (9_000.0, "9000"),
            (12_345.0, "12.3 k"),
            (999_600.0, "1.00 M"),
            (2.5e9, "2.50 G"),
        ];
        for (number, text) in cases {
            assert_eq!(rate(number), text);
        }
    }
}
