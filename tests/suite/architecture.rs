//! The house stays as ARCHITECTURE.md draws it: imports point upwards only, layers and backends do
//! not know each other, and clocks, terminals and features are touched in their own rooms.

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/sources.rs"]
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use self::sources::{imports, room, sources, strip};

/// Rooms from the top of the house to the bottom. A room imports only from rooms of a higher floor,
/// or from inside itself. On the floors of the contract and of errors and clocks, rooms may know
/// each other, but not both ways.
const FLOORS: &[&[&str]] = &[
    &["error", "clock", "thread_slot", "filesystem", "hash", "spelling"],
    &["keys"],
    &["types"],
    &[
        "store",
        "reply",
        "ext",
        "write_group",
        "encoded_conditions",
        "layer",
        "telemetry",
        "transaction",
    ],
    &["codec", "jsonl"],
    &["journal"],
    &["objects"],
    &["backup"],
    &["backends"],
    &["layers"],
    &["testing"],
    &["config"],
    &["stack"],
    &["status"],
    &["control"],
    &["serve"],
    &["bin"],
];

/// What the crate root offers by a shorter name, and the room where it lives.
fn home(name: &str) -> &str {
    match name {
        "Error" | "ErrorKind" | "Operation" | "Outcome" | "Result" | "Retry" => "error",
        "Clock" | "ManualClock" | "Stopwatch" | "SystemClock" | "Timestamp" => "clock",
        "Change" | "Changes" | "Pages" | "Read" | "Store" | "forward" | "__forward" => "store",
        "ReadExt" | "StoreExt" => "ext",
        "write_admitted" | "write_in_order" => "write_group",
        "Reply" => "reply",
        "Isolation" | "Savepoint" | "Transact" | "Transaction" => "transaction",
        "BackendConfig" | "Context" | "Layer" | "LayerConfig" | "StackLayer" | "Zone" => "layer",
        "units" | "Batch" | "Commit" | "Condition" | "Conditions" | "Identity" | "Counting"
        | "Durability" | "Entry" | "Freshness" | "Guarantees" | "Limits" | "Op" | "Order"
        | "Page" | "Place" | "Presence" | "Profile" | "ProfileKind" | "Recovery" | "RunOrder"
        | "Scan" | "Scope" | "Inspection" | "Usage" | "Value" => "types",
        other => other,
    }
}

fn floor(room: &str) -> usize {
    let at = FLOORS.iter().position(|floor| floor.contains(&room));
    at.unwrap_or_else(|| panic!("'{room}' is on no floor: add it to FLOORS and to ARCHITECTURE.md"))
}

#[test]
fn imports_point_upwards_only() {
    let mut wrong = Vec::new();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| room(&source.module) != "bin") {
        let own = room(&source.module);
        for (name, _) in imports(&source.code) {
            let name = home(&name);
            if name == own || name.is_empty() {
                continue;
            }
            arrows.entry(own.to_owned()).or_default().insert(name.to_owned());
            let neighbours =
                floor(name) == floor(own) && [floor("store"), floor("error")].contains(&floor(own));
            if floor(name) >= floor(own) && !neighbours {
                let path = source.path.display();
                wrong.push(format!("{path}: '{own}' imports '{name}', which is not above it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (from, tos) in &arrows {
        for to in tos {
            let back = arrows.get(to).is_some_and(|names| names.contains(from));
            assert!(!back, "'{from}' and '{to}' import each other");
        }
    }
}

#[test]
fn layers_do_not_know_each_other_and_nor_do_backends() {
    let mut wrong = Vec::new();
    for source in sources() {
        let parts: Vec<_> = source.module.split('/').collect();
        let [folder @ ("layers" | "backends"), own, ..] = parts[..] else { continue };
        for (first, second) in imports(&source.code) {
            let (Some(second), true) = (second, first == folder) else { continue };
            // What several layers are made of is no layer itself.
            let shared = folder == "layers" && second == "transform";
            if second != own && !shared {
                wrong.push(format!("{}: '{own}' imports '{second}'", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn clocks_terminals_and_unfinished_work_stay_out() {
    let rules: &[(&[&str], &[&str])] = &[
        (&["SystemTime::now", "Instant::now", "Timestamp::now()", "Zoned::now"], &["clock"]),
        (&["tokio::time::"], &["clock", "bin"]),
        (&["println!", "eprintln!", "print!(", "eprint!("], &["bin"]),
        (&["process::exit", "process::abort"], &["bin"]),
        (&["todo!", "unimplemented!", "dbg!"], &[]),
        (&["thread_rng", "rand::"], &[]),
    ];
    let mut wrong = Vec::new();
    for source in sources() {
        for (words, rooms) in rules {
            for word in *words {
                if source.code.contains(word) && !rooms.contains(&room(&source.module)) {
                    let path = source.path.display();
                    wrong.push(format!("{path}: '{word}' is allowed in {rooms:?} only"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_wrapper_decides_about_every_operation() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| room(&source.module) != "bin") {
        let lines: Vec<_> = source.code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let implements = line.starts_with("impl")
                && (line.contains(" Read for ") || line.contains(" Store for "));
            let before = &lines[at.saturating_sub(3)..at];
            let guarded = before.iter().any(|line| line.contains("missing_trait_methods"));
            if implements && !guarded {
                let path = source.path.display();
                wrong.push(format!("{path}: `{line}` lacks deny(clippy::missing_trait_methods)"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_core_trait_has_a_provided_method() {
    let store = strip(&fs::read_to_string("src/store.rs").unwrap());
    let mut methods = 0;
    for body in store.split("pub trait ").skip(1) {
        let body = body.split("\n}").next().unwrap();
        methods += body.matches("fn ").count();
        assert_eq!(body.matches('{').count(), 1, "a method with a body: {body}");
    }
    assert_eq!(methods, 17, "three of reading, fourteen of storing");
}

#[test]
fn every_module_says_what_it_is_and_stays_readable() {
    let mut wrong = Vec::new();
    for source in sources() {
        let text = fs::read_to_string(&source.path).unwrap();
        if !text.starts_with("//! ") {
            wrong.push(format!("{}: has no module documentation", source.path.display()));
        }
        let header = text.lines().take_while(|line| line.starts_with("//!")).count();
        if header >= 60 {
            let path = source.path.display();
            wrong.push(format!("{path}: a header of {header} lines; its numbers belong in docs/"));
        }
        let lines = text.lines().count();
        if lines > 600 {
            wrong.push(format!("{}: {lines} lines; split it by role", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Without `float_roundtrip` a float of JSON is read as its neighbour. No test of values can see that: a dev-dependency turns the
/// feature on for all tests, but not for a release.
#[test]
fn floats_of_json_are_read_exactly() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let json: Vec<_> = manifest.lines().filter(|line| line.starts_with("serde_json = ")).collect();
    assert!(json.len() == 1 && json[0].contains("\"float_roundtrip\""), "{json:?}");
}

#[test]
fn every_layer_has_the_same_headings() {
    const HEADINGS: [&str; 8] = [
        "Guarantees",
        "Gives up",
        "Position",
        "Cancellation",
        "Errors",
        "Metrics",
        "Configuration",
        "Example",
    ];
    let mut layers = 0;
    let mut wrong = Vec::new();
    for source in sources() {
        let text = fs::read_to_string(&source.path).unwrap();
        if !(source.module.starts_with("layers/") && text.contains("LayerConfig for ")) {
            continue;
        }
        layers += 1;
        // Those of a layer in a folder are at its face.
        let face = source.path.with_file_name("mod.rs");
        let text = if face.exists() && source.module.matches('/').count() > 1 {
            fs::read_to_string(face).unwrap()
        } else {
            text
        };
        let headings = text.lines().filter_map(|line| line.strip_prefix("//! # "));
        let found: Vec<_> = headings.filter(|heading| HEADINGS.contains(heading)).collect();
        if found != HEADINGS {
            wrong.push(format!("{}: has the headings {found:?}", source.path.display()));
        }
    }
    assert!(layers >= 2, "found {layers} layers");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Words that are no names any more, each with the folder where it was one. A word in lower case is part of no name
/// there, one that begins with a capital letter is no name. `docs/glossary.md` has the terms.
const RETIRED: &[(&str, &[&str])] = &[
    (
        "src",
        &[
            "bytecount",
            "price",
            "priced",
            "prices",
            "promise",
            "promised",
            "promises",
            "sighting",
            "sightings",
            "tally",
        ],
    ),
    (
        "src/layers/cache",
        &[
            "announce",
            "announced",
            "announcement",
            "announcements",
            "announces",
            "board",
            "boarded",
            "crowd",
            "deaf",
            "disembark",
            "era",
            "eras",
            "Flight",
            "flights",
            "fly",
            "front",
            "fronts",
            "furnish",
            "hear",
            "heard",
            "hears",
            "land",
            "landed",
            "landing",
            "landings",
            "marked",
            "marks",
            "meter",
            "moment",
            "seat",
            "Stripes",
            "tier",
            "tiers",
            "Writing",
        ],
    ),
    ("src/testing", &["announce", "announced", "announces"]),
];

/// Of the standard library.
const FOREIGN: &[&str] = &["pop_front", "push_front"];

/// The words of a name in either case: `Prefix`, `Table` and `begin`, `load`.
fn words(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in name.split('_') {
        let mut word = String::new();
        for letter in part.chars() {
            if letter.is_uppercase() && word.ends_with(char::is_lowercase) {
                words.push(std::mem::take(&mut word).to_lowercase());
            }
            word.push(letter);
        }
        words.push(word.to_lowercase());
    }
    words
}

#[test]
fn no_name_has_a_retired_word() {
    let mut wrong = BTreeSet::new();
    for (folder, retired) in RETIRED {
        let mut paths = vec![PathBuf::from(folder)];
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            if path.extension().is_some_and(|extension| extension != "rs") {
                continue;
            }
            let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text =
                if path.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
            let code = strip(&text.replace("#[cfg(test)]", ""));
            let names = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            for name in names.map(str::to_owned).chain([file]) {
                let words = words(&name);
                let is_retired = |word: &&str| name == **word || words.iter().any(|of| of == word);
                if retired.iter().any(is_retired) && !FOREIGN.contains(&&*name) {
                    wrong.insert(format!("{}: {name}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}
