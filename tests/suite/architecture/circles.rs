//! No modules of a room import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{room, sources};

/// The folders within which no modules import each other in a circle, nor through others. Those that are not clean yet
/// are below.
fn inner_room(module: &str) -> &str {
    let parts = if ["layers", "backends"].contains(&room(module)) { 2 } else { 1 };
    let end = module.match_indices('/').nth(parts - 1).map_or(module.len(), |(at, _)| at);
    &module[..end]
}

/// Rooms with circles, and how many modules each of them has. A room that is not here has none. Numbers only go down.
const KNOTS: &[(&str, &[usize])] =
    &[("backends/postgres", &[17]), ("backends/redis", &[9]), ("stack", &[3])];

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
