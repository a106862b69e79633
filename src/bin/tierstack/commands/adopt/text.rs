//! What was found, as a config with its reasons.

use std::fmt::Write;

use tierstack::survey::{Chosen, Part, Survey};

use super::target::Target;

/// A store of the config.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) name: String,
    about: String,
    backend: &'static str,
    settings: Vec<Chosen>,
}

impl Store {
    pub(super) fn new(target: &Target, part: &Part, chosen: Vec<Chosen>, others: &[Self]) -> Self {
        let named = if part.name.is_empty() { &target.name } else { &part.name };
        let plain: String = named
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .collect();
        // In YAML some words are no text.
        let is_word =
            ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&&*plain);
        let plain = if plain.starts_with(|c: char| c.is_ascii_alphabetic()) && !is_word {
            plain
        } else {
            format!("store_{plain}")
        };
        let is_free = |name: &String| others.iter().all(|other| other.name != *name);
        let numbered = (2..).map(|n| format!("{plain}_{n}"));
        let mut names = std::iter::once(plain.clone()).chain(numbered);
        let name = names.find(is_free).unwrap_or(plain.clone());
        let settings = target.settings.iter().cloned().chain(chosen).collect();
        Self { name, about: about(part), backend: target.backend, settings }
    }

    /// The same, where it is only read.
    pub(super) fn to_read(&self) -> Self {
        let mut reading = self.clone();
        reading.settings.retain(|setting| setting.name != "read_only");
        reading.settings.push(Chosen::new("read_only", "true", ""));
        reading
    }

    /// As it is under `stores`.
    pub(super) fn yaml(&self) -> String {
        self.over(None)
    }

    /// Over a shared backend of that name, what is of the whole left out.
    fn over(&self, shared: Option<&str>) -> String {
        let mut text = format!("  {}:\n", self.name);
        if !self.about.is_empty() {
            let _ = writeln!(text, "    # {}", self.about);
        }
        match shared {
            None => {
                let _ = writeln!(text, "    backend:\n      {}:", self.backend);
                settings(&mut text, 8, self.settings.iter());
            }
            Some(name) => {
                let _ = writeln!(text, "    backend:\n      shared: {name}");
                let own = self.settings.iter().filter(|setting| !is_of_all(setting));
                settings(&mut text, 6, own);
            }
        }
        text
    }
}

/// Of RocksDB: a database is open once, for all of its column families.
fn is_of_all(setting: &Chosen) -> bool {
    ["path", "wal_dir"].contains(&&*setting.name)
}

fn settings<'a>(text: &mut String, indent: usize, settings: impl Iterator<Item = &'a Chosen>) {
    for Chosen { name, value, why } in settings {
        let _ = write!(text, "{:indent$}{name}: {value}", "");
        if !why.is_empty() {
            let _ = write!(text, "  # {}", line(why));
        }
        text.push('\n');
    }
}

fn about(part: &Part) -> String {
    let words = std::iter::once(&part.kind).chain(&part.facts).filter(|word| !word.is_empty());
    words.map(|word| line(word)).collect::<Vec<_>>().join(", ")
}

/// A name may hold anything, and a comment ends with its line.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The whole text.
pub(super) fn report(
    at: &str,
    target: &Target,
    survey: &Survey,
    stores: &[Store],
    refused: &[(&Part, String)],
    left: usize,
) -> String {
    let mut text = format!("# Found at {}, by a look that changed nothing:\n", line(at));
    for fact in std::iter::once(&survey.what).chain(&survey.facts) {
        let _ = writeln!(text, "# - {}", line(fact));
    }
    if !refused.is_empty() {
        text.push_str("# These do not open as they are:\n");
    }
    for (part, why) in refused {
        let _ = writeln!(text, "# - {} ({}): {}", line(&part.name), about(part), line(why));
    }
    if left > 0 {
        let _ = writeln!(text, "# {left} more were not looked at.");
    }
    let shared = (target.backend == "rocksdb" && stores.len() > 1).then_some("main");
    match stores {
        [] => return text,
        [_] => {}
        [first, ..] => {
            let _ = writeln!(text, "default: {}", first.name);
            if let Some(shared) = shared {
                let _ = writeln!(text, "backends:\n  {shared}:\n    {}:", target.backend);
                settings(&mut text, 6, first.settings.iter().filter(|one| is_of_all(one)));
            }
        }
    }
    text.push_str("stores:\n");
    stores.iter().for_each(|store| text.push_str(&store.over(shared)));
    text
}
