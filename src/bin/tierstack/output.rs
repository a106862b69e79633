//! Standard output: facts as JSON or words, tables, numbers as people read them.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// Prints one line.
pub(crate) fn line(text: impl AsRef<str>) -> Outcome {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush()).map_err(Failure::output)
}

/// Prints text that ends its own lines.
pub(crate) fn text(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)
}

/// Prints a fact as JSON, or in words.
pub(crate) fn fact(json: bool, fact: &impl Serialize, words: impl FnOnce() -> String) -> Outcome {
    if json { line(to_json(fact)?) } else { line(words().trim_end()) }
}

/// One line of JSON.
pub(crate) fn to_json(fact: &impl Serialize) -> Outcome<String> {
    serde_json::to_string(fact).map_err(|error| {
        tierstack::Error::internal("a result cannot be printed as JSON").with_source(error).into()
    })
}

/// Fails where standard output was closed (`>&-`), for what would be written to nowhere.
///
/// Rust's runtime opens `/dev/null` in its place, for reading and writing, and so does a program that hands on a
/// `/dev/null` that can be read. With `> /dev/null` a shell says that this is meant.
#[cfg(unix)]
pub(crate) fn refuse_closed() -> Outcome {
    use rustix::fs::{OFlags, fcntl_getfl, fstat, stat};
    let is_null = match (fstat(io::stdout()), stat("/dev/null")) {
        (Ok(stdout), Ok(null)) => (stdout.st_dev, stdout.st_ino) == (null.st_dev, null.st_ino),
        _ => false,
    };
    let both = || fcntl_getfl(io::stdout()).is_ok_and(|flags| flags.contains(OFlags::RDWR));
    if is_null && both() {
        let closed = Failure::failed("standard output is closed");
        return Err(closed.next("open it, or write `> /dev/null` if nothing is to be kept"));
    }
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn refuse_closed() -> Outcome {
    Ok(())
}

/// `1.4 MiB`
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// `12,345`
pub(crate) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// `1 entry`, `12,345 entries`
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `12,345 entries`
pub(crate) fn entries(number: u64) -> String {
    counted(number, "entry", "entries")
}

/// The entry that an error is about: its name in the backend where it has one, else its key.
pub(crate) fn entry(error: &tierstack::Error) -> Option<String> {
    match (error.name(), error.key()) {
        (Some(name), _) => Some(format!("named {}", quoted(name))),
        (None, Some(bytes)) => Some(key(bytes)),
        (None, None) => None,
    }
}

/// `key 'user:1'`, and `key64 AP8=` where the key is not text: as the arguments of commands are named.
pub(crate) fn key(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(_) => format!("key {}", quoted(key)),
        Err(_) if key.len() > SHOWN => format!("key {}", quoted(key)),
        Err(_) => format!("key64 {}", STANDARD.encode(key)),
    }
}

/// The most of a key that is shown, in bytes.
const SHOWN: usize = 256;

/// Bytes between quotes, with what a terminal would not show as it is escaped.
fn quoted(bytes: &[u8]) -> String {
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    let mut text = String::new();
    for chunk in shown.utf8_chunks() {
        text.extend(chunk.valid().escape_debug());
        text.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    match bytes.len() {
        length if length > SHOWN => format!("'{text}…' ({} bytes)", count(length as u64)),
        _ => format!("'{text}'"),
    }
}

/// `850 ns`, `1.43 µs`, `12.0 ms`, `3.2 s`, `2m 5s`
pub(crate) fn duration(span: Duration) -> String {
    let nanos = span.as_nanos();
    let (scale, unit) = match nanos {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ if span.as_secs() < 60 => (1e9, "s"),
        _ => return format!("{}m {}s", span.as_secs() / 60, span.as_secs() % 60),
    };
    let number = nanos as f64 / scale;
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.digits$} {unit}")
}

/// A table: the first column reads from the left, the others from the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let cells = cells.map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut table = String::new();
    let mut row = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = if at == 0 {
                write!(text, "  {cell:<width$}")
            } else {
                write!(text, "  {cell:>width$}")
            };
        }
        let _ = writeln!(table, "{}", text.trim_end());
    };
    row(&mut head.iter().copied());
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    row(&mut rule.iter().map(String::as_str));
    for cells in rows {
        row(&mut cells.iter().map(String::as_str));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let cases = [
            (850, "850 ns"),
            (1_430, "1.43 µs"),
            (31_000, "31.0 µs"),
            (128_000, "128 µs"),
            (12_000_000, "12.0 ms"),
            (3_200_000_000, "3.20 s"),
            (125_000_000_000, "2m 5s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows =
            [vec!["stack".to_owned(), "1.2 µs".to_owned()], vec!["bare".into(), "9 µs".into()]];
        assert_eq!(
            table(&["", "p50"], &rows),
            "            p50\n  ─────  ──────\n  stack  1.2 µs\n  bare     9 µs\n"
        );
    }
}
