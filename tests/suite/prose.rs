//! Pages, comments and messages are plain technical English: words that have shown to be unclear are not used.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Words that are not used, and what to say.
const RETIRED: &[(&str, &str)] = &[
    ("anew", "again"),
    ("announced", "reported, by the change feed"),
    ("announcement", "a report, or the change feed"),
    ("announcements", "the change feed"),
    ("announces", "has a change feed"),
    ("beside", "next to, in addition to, concurrently with"),
    ("hears", "is told, or has a change feed"),
    ("promise", "guarantee"),
    ("promised", "guaranteed"),
    ("promises", "guarantees"),
    ("stand", "be"),
    ("stands", "is"),
    ("stood", "was"),
    ("who", "that, or name the task, the caller, the reader"),
    ("whoever", "name the task, the caller, the reader"),
    ("whom", "name the task, the caller, the reader"),
];

/// People, of which `who` may be said.
const PEOPLE: &[&str] = &["anyone", "operator", "operators", "people", "person", "user", "users"];

/// Folders with texts of the project, and single pages.
const ROOTS: &[&str] = &[
    "docs",
    "src",
    "tests/suite",
    "tests/servers",
    "examples",
    "benches",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
];

fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "md" || extension == "rs") {
        found.push(path.to_owned());
    }
}

/// The prose of a line: of code its comments, and its texts of more than one word. Names between backticks are left out.
fn prose(line: &str, is_code: bool) -> String {
    let text = match line.split_once("//") {
        _ if !is_code => line.to_owned(),
        Some((code, comment)) if !code.contains('"') => comment.to_owned(),
        _ => line.split('"').skip(1).step_by(2).filter(|text| text.contains(' ')).collect(),
    };
    text.split('`').step_by(2).collect::<Vec<_>>().join(" ; ")
}

/// The retired words of a text.
fn retired(text: &str) -> Vec<&'static str> {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ';')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let Some((word, _)) = RETIRED.iter().find(|(retired, _)| retired == word) else { continue };
        let before = at.checked_sub(1).map_or("", |at| words[at].as_str());
        let after = words.get(at + 1).map_or("", String::as_str);
        let is_idiom = match *word {
            "stand" => ["for", "in", "ins"].contains(&after),
            "stands" | "stood" => after == "for",
            "who" => PEOPLE.contains(&before),
            _ => false,
        };
        if !is_idiom {
            found.push(*word);
        }
    }
    found
}

#[test]
fn pages_comments_and_messages_have_no_retired_word() {
    let mut paths = Vec::new();
    ROOTS.iter().for_each(|root| collect(Path::new(root), &mut paths));
    assert!(paths.len() > 400, "the walk found {} files", paths.len());
    let mut wrong = BTreeSet::new();
    // This one names them.
    for path in paths.iter().filter(|path| !path.ends_with("prose.rs")) {
        let is_code = path.extension().is_some_and(|extension| extension == "rs");
        let text = fs::read_to_string(path).unwrap();
        // A sentence may go on in the next line.
        let mut before = String::new();
        for (at, line) in text.lines().enumerate() {
            let line = prose(line, is_code);
            let last = before.split_whitespace().next_back().unwrap_or_default().to_owned();
            for word in retired(&format!("{last} {line}")) {
                if line.to_lowercase().contains(word) {
                    let instead = RETIRED.iter().find(|(retired, _)| *retired == word).unwrap().1;
                    wrong.insert(format!(
                        "{}:{}: '{word}'; say: {instead}",
                        path.display(),
                        at + 1
                    ));
                }
            }
            before = line;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn retired_words_are_found_and_idioms_are_not() {
    assert_eq!(
        retired(&prose("    // Whoever waits stands beside it.", true)),
        ["whoever", "stands", "beside"]
    );
    assert_eq!(retired(&prose("let beside = error(\"who waits\");", true)), ["who"]);
    assert_eq!(
        retired("A number stands for a key of a user who reads. `stands` is a name."),
        ["stands"]
    );
    assert_eq!(retired(&prose("A number stands for a key. `stands` is a name.", false)), [""; 0]);
}
