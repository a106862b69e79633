//! The modules of the crate and of its command, without their tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// The module, such as `layers/cache/memory`.
    pub(crate) module: String,
    /// Without tests, comments and texts.
    pub(crate) code: String,
    /// Its modules for tests.
    tests: Vec<String>,
}

pub(crate) fn room(module: &str) -> &str {
    module.split('/').next().unwrap()
}

pub(crate) fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(Path::new("src"), &mut found);
    let of_tests: Vec<_> = found.iter().flat_map(|source| source.tests.clone()).collect();
    let is_within = |module: &str, of: &str| {
        module.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    found.retain(|source| !of_tests.iter().any(|of| is_within(&source.module, of)));
    assert!(found.len() > 20, "the walk found {} files", found.len());
    found
}

/// The modules that a module has for its tests alone.
fn tests_of(module: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let names = lines.windows(2).filter(|two| two[0] == "#[cfg(test)]");
    let names = names.filter_map(|two| two[1].strip_prefix("mod ")?.strip_suffix(';'));
    names.map(|name| format!("{module}/{name}")).collect()
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
                let text = fs::read_to_string(&path).unwrap();
                let (code, tests) = (strip(&text), tests_of(&module, &text));
                found.push(Source { path, module, code, tests });
            }
        }
    }
}

/// Leaves out comments, texts, and everything from the first inline test module on.
pub(crate) fn strip(text: &str) -> String {
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
pub(crate) fn imports(code: &str) -> BTreeSet<(String, Option<String>)> {
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
