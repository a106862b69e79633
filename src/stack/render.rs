//! What a checked stack guarantees, for a terminal and as data.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::Checked;
use super::guarantees::{ASPECTS, AT_REST};
use crate::types::{Guarantees, Profile, ProfileKind};

/// Columns of the whole drawing.
const WIDTH: usize = 92;
/// Columns between the bars of a box, at least; the arrows above it need them.
const BOX: usize = 18;

/// Draws the stack, says next to each level what changes there, and then what it all comes to.
impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = if self.default { ", the default store" } else { "" };
        writeln!(f, "{}{default} of {}\n", self.store, self.origin.display())?;
        self.draw(f)?;
        writeln!(f, "\nWhat the stack guarantees\n")?;
        for aspect in ASPECTS {
            let mut said = (aspect.say)(&self.profile);
            if aspect.name == AT_REST && self.sealed_required {
                said.push_str(" The config requires that values are sealed.");
            }
            print(f, &entry(aspect.name, &said, WIDTH - 2))?;
        }
        if !self.trade_offs.is_empty() {
            writeln!(f, "\nWhat the order of the layers costs\n")?;
            for trade_off in &self.trade_offs {
                print(f, &wrap(trade_off, WIDTH - 2))?;
            }
        }
        Ok(())
    }
}

impl Checked {
    fn draw(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.profile.levels().map(|level| level.name.chars().count()).max();
        let inner = BOX.max(longest.unwrap_or_default() + 2);
        let line =
            |left: char, fill: &str, right: char| format!("  {left}{}{right}", fill.repeat(inner));
        writeln!(f, "     read   write")?;
        writeln!(f, "     │  ▲     │")?;
        writeln!(f, "  ┌──▼──┴─────▼{}┐", "─".repeat(inner - 12))?;
        for (at, level) in self.profile.levels().enumerate() {
            if at > 0 {
                let below = if level.kind == ProfileKind::Backend {
                    line('╞', "═", '╡')
                } else {
                    line('├', "─", '┤')
                };
                writeln!(f, "{below}")?;
            }
            let mut text = beside(level, WIDTH - inner - 6).into_iter();
            writeln!(
                f,
                "  │ {:<w$}│  {}",
                level.name,
                text.next().unwrap_or_default(),
                w = inner - 1
            )?;
            for more in text {
                writeln!(f, "  │ {:<w$}│  {more}", "", w = inner - 1)?;
            }
        }
        writeln!(f, "{}", line('└', "─", '┘'))
    }
}

/// The lines next to a level: what it changes, and what a person should know.
fn beside(level: &Profile, width: usize) -> Vec<String> {
    let changes =
        ASPECTS.into_iter().filter_map(|aspect| Some((aspect.name, aspect.change(level)?)));
    let mut lines: Vec<_> = changes.flat_map(|(name, said)| entry(name, &said, width)).collect();
    lines.extend(level.notes.iter().flat_map(|note| entry("note", note, width)));
    if lines.is_empty() {
        lines.push("as below".to_owned());
    }
    lines
}

/// A name, and next to it a text.
fn entry(name: &str, text: &str, width: usize) -> Vec<String> {
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    names.zip(wrap(text, width - 10)).map(|(name, line)| format!("{name:<9} {line}")).collect()
}

fn print(f: &mut fmt::Formatter<'_>, lines: &[String]) -> fmt::Result {
    lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
}

/// The text in lines of at most so many columns, broken at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let columns = word.chars().count();
        if used > 0 && used + 1 + columns > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += columns;
        }
    }
    lines
}

/// The same facts as data: the guarantees, also as sentences, and each level, outermost first, with what it changes.
impl Serialize for Checked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let levels: Vec<_> = self.profile.levels().map(Level::of).collect();
        let sentences: BTreeMap<_, _> =
            ASPECTS.iter().map(|a| (key(a.name), (a.say)(&self.profile))).collect();
        let mut out = serializer.serialize_struct("Checked", 9)?;
        out.serialize_field("store", &self.store)?;
        out.serialize_field("default", &self.default)?;
        out.serialize_field("file", &self.origin.display().to_string())?;
        out.serialize_field("sealed_required", &self.sealed_required)?;
        out.serialize_field("sentences", &sentences)?;
        out.serialize_field("guarantees", &self.profile.guarantees)?;
        out.serialize_field("levels", &levels)?;
        out.serialize_field("trade_offs", &self.trade_offs)?;
        out.serialize_field("series", &self.series())?;
        out.end()
    }
}

#[derive(Serialize)]
struct Level<'a> {
    name: &'a str,
    kind: ProfileKind,
    changes: BTreeMap<String, String>,
    notes: &'a [String],
    guarantees: &'a Guarantees,
}

impl<'a> Level<'a> {
    fn of(profile: &'a Profile) -> Self {
        let changes = ASPECTS
            .into_iter()
            .filter_map(|aspect| Some((key(aspect.name), aspect.change(profile)?)))
            .collect();
        Self {
            name: &profile.name,
            kind: profile.kind,
            changes,
            notes: &profile.notes,
            guarantees: &profile.guarantees,
        }
    }
}

/// A name of an aspect as one word.
fn key(name: &str) -> String {
    name.replace(' ', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_a_long_word_stays_whole() {
        assert_eq!(wrap("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrap("extraordinary a", 4), ["extraordinary", "a"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
