//! The layout of a folder, as it is recorded in `.tierstack/layout`: text, drawn in
//! `docs/formats/file-intent.md`.

use super::names::{Layout, Names};
use crate::error::{Error, Result};

const FIRST: &str = "tierstack file layout 1";

pub(super) fn encode(layout: &Layout) -> String {
    let widths: Vec<String> = layout.fan_out.iter().map(u16::to_string).collect();
    format!("{FIRST}\nnames: {}\nfan_out: [{}]\n", name(layout.names), widths.join(", "))
}

/// The layout in words, for messages.
pub(super) fn words(layout: &Layout) -> String {
    let text = encode(layout);
    text.lines().skip(1).collect::<Vec<_>>().join(", ")
}

fn name(names: Names) -> &'static str {
    match names {
        Names::Plain => "plain",
        Names::Portable => "portable",
    }
}

pub(super) fn decode(content: &[u8]) -> Result<Layout> {
    let text = std::str::from_utf8(content).unwrap_or_default();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    if first != FIRST {
        return Err(if first.starts_with("tierstack file layout ") {
            Error::unsupported(
                "the layout of the folder (.tierstack/layout) is of a version that this program does not know; open it with the program that wrote it",
            )
        } else {
            damaged()
        });
    }
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(": ");
    let names = match field("names") {
        Some("plain") => Names::Plain,
        Some("portable") => Names::Portable,
        _ => return Err(damaged()),
    };
    let widths = field("fan_out").and_then(|text| text.strip_prefix('[')?.strip_suffix(']'));
    let widths = widths.ok_or_else(damaged)?;
    let fan_out: Vec<u16> = if widths.is_empty() {
        Vec::new()
    } else {
        let parsed = widths.split(", ").map(str::parse).collect::<Result<_, _>>();
        parsed.map_err(|error| damaged().with_source(error))?
    };
    if fan_out.contains(&0) || lines.next().is_some() {
        return Err(damaged());
    }
    Ok(Layout { names, fan_out })
}

fn damaged() -> Error {
    Error::corruption(
        "the layout of the folder (.tierstack/layout) is damaged; write it again as docs/formats/file-intent.md shows, or restore it",
    )
}
