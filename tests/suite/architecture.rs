//! The house stays as ARCHITECTURE.md draws it: imports point upwards only, layers and backends do
//! not know each other, and clocks, terminals and features are touched in their own rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the top of the house to the bottom. A room imports only from rooms of a higher floor,
/// or from inside itself. On the floors of the contract and of errors and clocks, rooms may know
/// each other, but not both ways.
const FLOORS: &[&[&str]] = &[
    &["error", "clock", "thread_slot", "disk", "hash", "spelling"],
    &["keys"],
    &["types"],
    &["store", "reply", "ext", "group", "encoded_conditions", "layer", "telemetry", "transaction"],
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
        "write_admitted" | "write_in_order" => "group",
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

struct Source {
    path: PathBuf,
    /// The module, such as `layers/cache/memory`.
    module: String,
    /// Without tests, comments and texts.
    code: String,
}

fn floor(room: &str) -> usize {
    let at = FLOORS.iter().position(|floor| floor.contains(&room));
    at.unwrap_or_else(|| panic!("'{room}' is on no floor: add it to FLOORS and to ARCHITECTURE.md"))
}

fn room(module: &str) -> &str {
    module.split('/').next().unwrap()
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(Path::new("src"), &mut found);
    assert!(found.len() > 20, "the walk found {} files", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = path.strip_prefix("src").unwrap().with_extension("");
            let module = module.to_str().unwrap();
            let module = module.trim_end_matches("/mod").trim_end_matches("/main").to_owned();
            let is_test = module.split('/').any(|part| part == "tests" || part.ends_with("_tests"));
            if !is_test && module != "lib" {
                let code = strip(&fs::read_to_string(&path).unwrap());
                found.push(Source { path, module, code });
            }
        }
    }
}

/// Leaves out comments, texts, and everything from the first inline test module on.
fn strip(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().map_or("", |next| next.trim());
        let of_tests = ["#[cfg(test)]", "#[cfg(all(test,"].iter().any(|cfg| line.starts_with(cfg));
        if of_tests && next.contains("mod ") && next.ends_with('{') {
            break;
        }
        if line.trim_start().starts_with("//") {
            continue;
        }
        let line = line.split(" // ").next().unwrap_or(line);
        // Texts hold what looks like code; every second part between quotes is one.
        let bare = line.replace("\\\"", "");
        code.push_str(&bare.split('"').step_by(2).collect::<Vec<_>>().join("\"\""));
        code.push('\n');
    }
    code
}

/// The names that follow `crate::`, with the one behind them: `crate::layers::cache`.
fn imports(code: &str) -> BTreeSet<(String, Option<String>)> {
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(inside) = rest.strip_prefix('{') {
            let inside = inside.split('}').next().unwrap();
            let all = inside.split(',').map(|name| (word(name.trim()), None));
            names.extend(all.filter(|(name, _)| !name.is_empty()));
        } else {
            let first = word(rest);
            let second = rest[first.len()..].strip_prefix("::").map(word);
            names.insert((first, second.filter(|name| !name.is_empty())));
        }
    }
    names
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
const RETIRED: &[(&str, &[&str])] = &[(
    "src/layers/cache",
    &[
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
        "Writing",
    ],
)];

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

/// The folders within which no modules import each other in a circle, nor through others. Those that are not clean yet
/// are below.
fn inner_room(module: &str) -> &str {
    let parts = if ["layers", "backends"].contains(&room(module)) { 2 } else { 1 };
    let end = module.match_indices('/').nth(parts - 1).map_or(module.len(), |(at, _)| at);
    &module[..end]
}

/// Rooms with circles, and how many modules each of them has. A room that is not here has none. Numbers only go down.
const KNOTS: &[(&str, &[usize])] = &[
    ("backends/object", &[2]),
    ("backends/opendal", &[3]),
    ("backends/postgres", &[17]),
    ("backends/redis", &[9]),
    ("backends/sqlite", &[9]),
    ("layers/write_back", &[3]),
    ("stack", &[3]),
];

/// The paths that a module imports or names, from `crate`, `self`, `super` or one of its children on.
fn paths(module: &str, code: &str, modules: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let children = modules.iter().filter_map(|other| other.strip_prefix(module)?.strip_prefix('/'));
    let children = children.filter(|child| !child.contains('/'));
    for start in ["crate", "self", "super"].into_iter().chain(children) {
        for (at, _) in code.match_indices(&format!("{start}::")) {
            let before = &code[..at];
            let within_path = before.ends_with("::") || before.ends_with(is_word);
            // The visibility of an item is no import.
            if !within_path && !before.ends_with("pub(in ") {
                expand(String::new(), &code[at..], &mut paths);
            }
        }
    }
    paths
}

/// The paths of a tree such as `super::{one, two::{Three, four}}`. Gives what follows the tree.
fn expand<'t>(mut path: String, tree: &'t str, paths: &mut BTreeSet<String>) -> &'t str {
    let mut rest = tree;
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        path.push_str(&rest[..end]);
        rest = &rest[end..];
        let Some(after) = rest.strip_prefix("::") else { break };
        path.push_str("::");
        let Some(mut inside) = after.strip_prefix('{') else {
            rest = after;
            continue;
        };
        loop {
            inside = expand(path.clone(), inside.trim_start(), paths).trim_start();
            match inside.strip_prefix(',') {
                Some(next) if !next.trim_start().starts_with('}') => inside = next,
                Some(next) => inside = next.trim_start(),
                None => return inside.strip_prefix('}').unwrap_or(inside),
            }
            if let Some(end) = inside.strip_prefix('}') {
                return end;
            }
        }
    }
    // `use one as other` within a tree.
    let rest = rest.strip_prefix(" as ").map_or(rest, |renamed| {
        renamed.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
    });
    paths.insert(path);
    rest
}

/// The module that a path leads to, as seen from a module: the longest part of it that is one.
fn target(from: &str, path: &str, modules: &BTreeSet<&str>) -> Option<String> {
    let mut at: Vec<&str> = from.split('/').collect();
    for name in path.split("::") {
        match name {
            "crate" => at.truncate(if room(from) == "bin" { 2 } else { 0 }),
            "self" => {}
            "super" => drop(at.pop()),
            // What tests alone import.
            name if name == "tests" || name.ends_with("_tests") => return None,
            name => {
                at.push(name);
                if !modules.contains(&*at.join("/")) {
                    at.pop();
                    break;
                }
            }
        }
    }
    Some(at.join("/")).filter(|module| modules.contains(&**module) && module != from)
}

/// What can be reached from each module.
fn reached(arrows: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<&str, BTreeSet<&str>> {
    let from = |start: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start.to_owned()]);
        while let Some(module) = next.pop() {
            for to in arrows.get(&module).into_iter().flatten() {
                if seen.insert(to.as_str()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    arrows.keys().map(|module| (module.as_str(), from(module))).collect()
}

/// Modules that can reach each other, each group in the order of its names.
fn knots(arrows: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<&str>> {
    let reached = reached(arrows);
    let both = |one: &str, other: &str| {
        let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|all| all.contains(to));
        reaches(one, other) && reaches(other, one)
    };
    let group = |one: &&str| reached.keys().copied().filter(|other| both(one, other)).collect();
    reached.keys().map(group).filter(|group: &Vec<_>| !group.is_empty()).collect()
}

#[test]
fn no_modules_of_a_room_import_each_other_in_a_circle() {
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(|source| source.module.as_str()).collect();
    let mut rooms: BTreeMap<&str, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for source in &sources {
        let own = inner_room(&source.module);
        let named = paths(&source.module, &source.code, &modules);
        let to = named.iter().filter_map(|path| target(&source.module, path, &modules));
        let arrows = to.filter(|to| inner_room(to) == own).collect();
        rooms.entry(own).or_default().insert(source.module.clone(), arrows);
    }
    let arrows: usize = rooms.values().flat_map(BTreeMap::values).map(BTreeSet::len).sum();
    assert!(arrows > 300, "the walk found {arrows} imports");
    let mut wrong = Vec::new();
    for (room, arrows) in &rooms {
        let known = KNOTS.iter().find(|(name, _)| name == room).map_or(&[][..], |(_, sizes)| sizes);
        let knots = knots(arrows);
        let mut sizes: Vec<usize> = knots.iter().map(Vec::len).collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        let worse = sizes.len() > known.len() || sizes.iter().zip(known).any(|(is, was)| is > was);
        if worse {
            wrong.push(format!("(\"{room}\", &{sizes:?}), was {known:?}: {knots:?}"));
        }
    }
    assert!(wrong.is_empty(), "modules import each other in a circle:\n{}", wrong.join("\n"));
}

#[test]
fn circles_of_modules_are_found() {
    let modules = BTreeSet::from(["a", "a/b", "a/c", "a/c/d"]);
    assert_eq!(paths("a/c", "d::f(x::d::f())", &modules), BTreeSet::from(["d::f".to_owned()]));
    let code = "use super::{self, c::{d::Deep, Other}, Item};\nuse crate::a::c;\npub(in super::super) fn f() {}";
    let named = paths("a/b", code, &modules);
    let to: BTreeSet<_> = named.iter().filter_map(|path| target("a/b", path, &modules)).collect();
    assert_eq!(to, BTreeSet::from(["a", "a/c", "a/c/d"].map(str::to_owned)));
    let arrows = [("a", &["a/b"][..]), ("a/b", &["a/c"]), ("a/c", &["a", "a/c/d"]), ("a/c/d", &[])];
    let arrows = arrows.map(|(from, to)| {
        (from.to_owned(), to.iter().map(|to| (*to).to_owned()).collect::<BTreeSet<_>>())
    });
    assert_eq!(knots(&BTreeMap::from(arrows)), BTreeSet::from([vec!["a", "a/b", "a/c"]]));
}
