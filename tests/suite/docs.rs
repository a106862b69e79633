//! What the documents say is there, is there; and what is there, the documents say.

#![cfg(feature = "full")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tierstack::config::{Config, Format, Registry};
use tierstack::{Isolation, Stack};

#[path = "../../examples/custom_backend.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod custom_backend;

fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(".")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && ["docs", "backends", "decisions", "formats"].contains(&name) {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 6, "the walk found {found:?}");
    found
}

fn readme() -> String {
    fs::read_to_string("README.md").unwrap()
}

/// The first block of that language.
fn block<'a>(text: &'a str, language: &str) -> &'a str {
    let start = text.split_once(&format!("```{language}\n")).unwrap().1;
    start.split_once("\n```").unwrap().0
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http") && !link.starts_with('#')) {
            let target = document.parent().unwrap().join(link.split('#').next().unwrap());
            if !target.exists() {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_stack_of_the_readme_is_one() {
    let text = block(&readme(), "yaml").to_owned();
    assert!(text.lines().count() <= 25);
    let config = Config::parse(&text, Format::Yaml, "tierstack.yaml").unwrap();
    let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
    assert_eq!(checked.profile().to_string(), "cache(compress(encrypt(backup(rocksdb))))");
}

#[test]
fn the_other_config_of_the_readme_is_one() {
    let readme = readme();
    let text = readme.split_once("cat > tierstack.yaml <<'END'\n").unwrap().1;
    let text = text.split_once("\nEND\n").unwrap().0;
    let config = Config::parse(text, Format::Yaml, "tierstack.yaml").unwrap();
    Stack::check(&config, None, &Registry::standard()).unwrap();
}

/// The names that a table has in its first column, below a heading.
fn rows(text: &str, heading: &str) -> Vec<String> {
    let section = text.split_once(&format!("# {heading}\n")).unwrap().1;
    let section = section.split("\n# ").next().unwrap().split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| {
        let first = line.strip_prefix("| ")?.trim_start_matches('[');
        first.strip_prefix('`')?.split('`').next()
    });
    cells.map(str::to_owned).collect()
}

/// The first page on docs.rs.
fn front() -> String {
    let source = fs::read_to_string("src/lib.rs").unwrap();
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

fn modules(folder: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new("src").join(folder).join("mod.rs")).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}

#[test]
fn every_layer_and_backend_has_a_row_in_the_readme_and_on_the_first_page() {
    for (heading, folder) in [("Layers", "layers"), ("Backends", "backends")] {
        let mut modules = modules(folder);
        modules.sort();
        for (page, text) in [("README.md", readme()), ("src/lib.rs", front())] {
            let mut rows = rows(&text, heading);
            rows.sort();
            assert_eq!(rows, modules, "{heading} of {page}");
        }
    }
}

#[test]
fn every_feature_is_on_the_first_page() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let features = manifest.split_once("\n[features]\n").unwrap().1.split("\n[").next().unwrap();
    let names = features.lines().filter_map(|line| line.split_once(" = [")).map(|(name, _)| name);
    let front = front();
    let mut seen = 0;
    for name in names {
        seen += 1;
        assert!(front.contains(&format!("`{name}`")), "the feature '{name}' is not in src/lib.rs");
    }
    assert!(seen > 10, "{seen} features");
}

/// Pages of the package as docs.rs shows them: the first page is read there, outside of the repository.
#[test]
fn every_page_that_the_first_page_links_to_is_in_the_package() {
    let front = front();
    let pages = front.split("](https://docs.rs/crate/tierstack/latest/source/").skip(1);
    let pages: Vec<_> = pages.filter_map(|rest| rest.split(')').next()).collect();
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages {
        let excluded = page.starts_with("fixtures") || page.starts_with('.');
        assert!(Path::new(page).is_file() && !excluded, "{page}");
    }
    let links = front.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local: Vec<_> = links.filter(|link| link.contains('/') && !link.contains("://")).collect();
    assert!(local.is_empty(), "they lead nowhere on docs.rs: {local:?}");
}

#[test]
fn the_glossary_has_each_term_once_and_in_order() {
    let page = fs::read_to_string("docs/glossary.md").unwrap();
    let terms: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("| **")?.split("**").next()).collect();
    assert!(terms.len() > 30, "{terms:?}");
    assert!(terms.is_sorted_by(|a, b| a < b), "{terms:?}");
}

#[test]
fn every_room_stands_in_the_architecture() {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    for entry in fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = if path.is_dir() { format!("`{name}/") } else { format!("`{name}`") };
        assert!(name == "`lib.rs`" || text.contains(&name), "{name} is not in ARCHITECTURE.md");
    }
}

#[test]
fn every_command_has_its_place_in_the_documents() {
    let help = Command::new(env!("CARGO_BIN_EXE_tierstack")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split_once("Commands:").unwrap().1.split_once("Options:").unwrap().0;
    let names: Vec<_> =
        commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(names.contains(&"check") && names.contains(&"backup"), "{names:?}");
    let page = fs::read_to_string("docs/command.md").unwrap();
    let changelog = fs::read_to_string("CHANGELOG.md").unwrap();
    for name in names.iter().filter(|name| !name.is_empty() && **name != "help") {
        assert!(
            page.contains(&format!("`{name}")) || page.contains(&format!("tierstack {name}")),
            "{name}"
        );
        assert!(changelog.contains(&format!("`{name}`")), "'{name}' is not in the changelog");
    }
}

/// Every file below `src` but those of the command and the tests.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("bin") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                found.push(path);
            }
        }
    }
    found
}

/// Whether a type can be named from outside: its module is public, or the name is exported further up.
fn is_reachable(source: &Path, name: &str) -> bool {
    let module = if source.ends_with("mod.rs") { source.parent().unwrap() } else { source };
    let stem = module.file_stem().unwrap().to_str().unwrap();
    let parents = module.ancestors().skip(1).take_while(|folder| !folder.as_os_str().is_empty());
    let mut parents = parents.map(|folder| {
        let root = if folder == Path::new("src") { "lib.rs" } else { "mod.rs" };
        let text = fs::read_to_string(folder.join(root));
        text.or_else(|_| fs::read_to_string(folder.with_extension("rs"))).unwrap()
    });
    let nearest = parents.next().unwrap_or_default();
    if nearest.contains(&format!("\npub mod {stem};")) {
        return true;
    }
    let exports = |text: &str| {
        let mut uses = text.split("\npub use ").skip(1).filter_map(|rest| rest.split(';').next());
        uses.any(|names| names.split(|c: char| !c.is_alphanumeric()).any(|word| word == name))
    };
    exports(&nearest) || parents.any(|text| exports(&text))
}

/// The names of the public types of a text, each with its docs.
fn public_types(text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut docs = String::new();
    for line in text.lines() {
        let name = ["struct", "enum", "trait", "type"]
            .iter()
            .find_map(|kind| line.strip_prefix("pub ")?.strip_prefix(kind)?.strip_prefix(' '))
            .and_then(|rest| rest.split(|c: char| !c.is_alphanumeric()).next());
        if let Some(line) = line.strip_prefix("///") {
            docs.push_str(line);
            docs.push('\n');
        } else if let Some(name) = name {
            found.push((name, std::mem::take(&mut docs)));
        } else if line.is_empty() || line == "}" {
            docs.clear();
        }
    }
    found
}

#[test]
fn every_public_type_has_an_example() {
    let (mut seen, mut lacking) = (0, Vec::new());
    for source in sources() {
        let text = fs::read_to_string(&source).unwrap();
        for (name, docs) in public_types(&text) {
            if !is_reachable(&source, name) {
                continue;
            }
            seen += 1;
            let refers = docs
                .split_once("See [`")
                .is_some_and(|(_, rest)| rest.replace('\n', " ").contains(" for an example"));
            if !docs.contains("```") && !docs.contains("[module docs](") && !refers {
                lacking.push(format!("{}: {name}", source.display()));
            }
        }
    }
    assert!(seen > 100, "the walk found {seen} types");
    assert!(lacking.is_empty(), "without an example:\n{}", lacking.join("\n"));
}

#[test]
fn the_example_of_a_backend_conforms() {
    assert_eq!(
        format!("{:?}", custom_backend::main()),
        format!("{:?}", std::process::ExitCode::SUCCESS)
    );
}

/// Whether a file, or one in that folder, has a test of that name.
fn has_test(place: &Path, name: &str) -> bool {
    if place.is_dir() {
        return fs::read_dir(place).unwrap().any(|entry| has_test(&entry.unwrap().path(), name));
    }
    let Ok(text) = fs::read_to_string(place) else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let function = format!("fn {name}(");
    let at = lines.iter().position(|line| line.trim_start_matches("async ").starts_with(&function));
    let is_test = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    at.is_some_and(|at| lines[at.saturating_sub(3)..at].iter().any(is_test))
}

#[test]
fn every_fault_of_other_caches_has_a_test_that_exists_or_a_reason() {
    let page = fs::read_to_string("src/layers/cache/tests/regressions.md").unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| seen in"));
    let (mut faults, mut tests, mut wrong) = (0, 0, Vec::new());
    for row in rows {
        faults += 1;
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [_, _, here] = cells[..] else { panic!("not three cells: {row}") };
        for name in here.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
            tests += 1;
            let (place, test) = name.rsplit_once("::").unwrap();
            if !has_test(Path::new(place), test) {
                wrong.push(name.to_owned());
            }
        }
        if here.len() < 20 {
            wrong.push(format!("neither a test nor a reason: {row}"));
        }
    }
    assert!(faults >= 50 && tests >= 50, "{faults} faults, {tests} tests");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The strongest level of isolation that a backend with these settings offers, as the page has it.
fn isolation(backend: &str) -> String {
    let text = format!("stores: {{ main: {{ backend: {{ {backend} }} }} }}");
    let config = Config::parse(&text, Format::Yaml, "tierstack.yaml").unwrap();
    let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
    let guarantees = &checked.profile().guarantees;
    let offered = Isolation::ALL.into_iter().rfind(|level| level.check(guarantees).is_ok());
    offered.map_or("none".to_owned(), |level| format!("`{level}`"))
}

#[test]
fn the_page_on_transactions_says_which_stores_can() {
    let backends = [
        ("memory", "memory: {}"),
        ("rocksdb", "rocksdb: { path: data }"),
        ("sqlite", "sqlite: { path: data.db }"),
        ("postgres", "postgres: { url: 'postgres://localhost/mine' }"),
        ("redis", "redis: { url: 'redis://localhost' }"),
        ("file", "file: { path: data }"),
        ("object", "object: { url: 's3://mine' }"),
        ("opendal", "opendal: { scheme: fs, options: { root: files } }"),
    ];
    let page = fs::read_to_string("docs/transactions.md").unwrap();
    let mut named: Vec<_> = backends.map(|(name, _)| name.to_owned()).to_vec();
    let mut all = modules("backends");
    named.sort();
    all.sort();
    assert_eq!(named, all);
    for (name, settings) in backends {
        let row = format!("| `{name}` | {} |", isolation(settings));
        assert!(page.contains(&row), "the page lacks: {row}");
    }
    // Why it is not more, or less.
    for less in [
        "sqlite: { path: data.db, journal: rollback }",
        "postgres: { url: 'postgres://localhost/mine', snapshots: 0 }",
        "redis: { cluster: ['redis://localhost'], hash_tag: mine }",
    ] {
        assert_eq!(isolation(less), "`READ COMMITTED`", "{less}");
    }
    assert_eq!(isolation("redis: { cluster: ['redis://localhost'] }"), "none");
}
