//! Standard output: facts as JSON or words, and tables.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use crate::failure::{Failure, Outcome};
pub(crate) use crate::numbers::{bytes, count, counted, duration, entries};

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

/// On standard error. A closed one leaves no caller to tell.
#[cfg(feature = "serve")]
pub(crate) fn say(what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{what}");
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
    fn columns_line_up() {
        let rows =
            [vec!["stack".to_owned(), "1.2 µs".to_owned()], vec!["bare".into(), "9 µs".into()]];
        assert_eq!(
            table(&["", "p50"], &rows),
            "            p50\n  ─────  ──────\n  stack  1.2 µs\n  bare     9 µs\n"
        );
    }
}
