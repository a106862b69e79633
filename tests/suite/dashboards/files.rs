//! What is in `dashboards/`: boards, rules, and the queries of both.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) struct Board {
    /// The name of its file, without the folder.
    pub(crate) file: String,
    pub(crate) json: Value,
}

/// A query, and where it is.
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) expr: String,
}

/// A rule that records, or an alert.
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) is_alert: bool,
    pub(crate) expr: String,
    pub(crate) yaml: Value,
}

pub(crate) fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no *.{extension} in {folder}");
    paths
}

pub(crate) fn yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn boards() -> Vec<Board> {
    let board = |path: PathBuf| {
        let json = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        Board { file: path.file_name().unwrap().to_str().unwrap().to_owned(), json }
    };
    files("dashboards/boards", "json").into_iter().map(board).collect()
}

pub(crate) fn rules() -> Vec<Rule> {
    let mut found = Vec::new();
    for path in files("dashboards/rules", "yaml") {
        for group in list(&yaml(&path)["groups"]) {
            for rule in list(&group["rules"]) {
                let is_alert = rule.get("alert").is_some();
                let name = text(if is_alert { &rule["alert"] } else { &rule["record"] });
                found.push(Rule { name, is_alert, expr: text(&rule["expr"]), yaml: rule.clone() });
            }
        }
    }
    found
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

impl Board {
    /// Without the headings of rows.
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["panels"]).iter().filter(|panel| panel["type"] != "row")
    }

    pub(crate) fn variables(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["templating"]["list"]).iter()
    }

    /// Of its panels, its annotations and its variables.
    pub(crate) fn queries(&self) -> Vec<Query> {
        let file = &self.file;
        let mut found = Vec::new();
        for panel in self.panels() {
            for target in list(&panel["targets"]) {
                let place = format!("{file}, {}, {}", panel["title"], target["refId"]);
                found.push(Query { place, expr: text(&target["expr"]) });
            }
        }
        for annotation in list(&self.json["annotations"]["list"]) {
            let place = format!("{file}, annotation {}", annotation["name"]);
            found.push(Query { place, expr: text(&annotation["expr"]) });
        }
        for variable in self.variables().filter(|variable| variable["type"] == "query") {
            let query = text(&variable["query"]["query"]);
            let inside = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
            let (selector, label) = inside.rsplit_once(", ").unwrap();
            let place = format!("{file}, variable {}", variable["name"]);
            found.push(Query { place, expr: format!("group by ({label}) ({selector})") });
        }
        found
    }
}

/// A series that an expression asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    /// Label, operator and value.
    pub(crate) matchers: Vec<(String, String, String)>,
    /// What is in brackets after it.
    pub(crate) range: Option<String>,
    /// As it is there, without the range.
    pub(crate) text: String,
}

/// What an expression asks for, and the labels that it groups and joins by.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) selectors: Vec<Selector>,
    pub(crate) labels: BTreeSet<String>,
}

/// As much of PromQL as the expressions here use. Whether it is valid is for Prometheus to say.
pub(crate) fn parse(expr: &str) -> Parsed {
    let mut found = Parsed::default();
    let mut rest = expr;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = rest[1..].split_once('"').unwrap_or_else(|| panic!("a quote is open: {expr}")).1;
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '.');
        } else if is_name(first) {
            let start = rest;
            let word = taken(&mut rest, is_name).to_owned();
            let next = rest.trim_start();
            match word.as_str() {
                "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" => {
                    let (inside, after) = next[1..].split_once(')').unwrap();
                    let labels = inside.split(',').map(|label| label.trim().to_owned());
                    found.labels.extend(labels.filter(|label| !label.is_empty()));
                    rest = after;
                }
                "and" | "or" | "unless" | "bool" | "offset" => {}
                // A function, or an aggregation with its labels before its argument.
                _ if next.starts_with('(') || next.starts_with("by ") => {}
                _ => {
                    let matchers = braces(&mut rest);
                    let text = start[..start.len() - rest.len()].to_owned();
                    let range = rest.strip_prefix('[').map(|range| range.split_once(']').unwrap());
                    rest = range.map_or(rest, |(_, after)| after);
                    let range = range.map(|(range, _)| range.to_owned());
                    found.selectors.push(Selector { name: word, matchers, range, text });
                }
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn taken<'a>(rest: &mut &'a str, keep: impl Fn(char) -> bool) -> &'a str {
    let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    word
}

/// The matchers in braces, if there are any.
fn braces(rest: &mut &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let Some(mut inside) = rest.strip_prefix('{') else { return found };
    loop {
        inside = inside.trim_start_matches([',', ' ']);
        if let Some(after) = inside.strip_prefix('}') {
            *rest = after;
            return found;
        }
        let label = taken(&mut inside, is_name).to_owned();
        let operator = taken(&mut inside, |c| "=!~".contains(c)).to_owned();
        let (value, after) = inside.strip_prefix('"').unwrap().split_once('"').unwrap();
        found.push((label, operator, value.to_owned()));
        inside = after;
    }
}

/// Names of the series that an expression is made of in the end: through the rules that record.
pub(crate) fn sources(expr: &str, rules: &[Rule]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for selector in parse(expr).selectors {
        match rules.iter().find(|rule| !rule.is_alert && rule.name == selector.name) {
            Some(rule) => found.extend(sources(&rule.expr, rules)),
            None => drop(found.insert(selector.name)),
        }
    }
    found
}

#[test]
fn an_expression_is_taken_apart() {
    let expr = r#"sum by (op, le) (rate(a_bucket{op=~"x|y", le!="1"}[5m])) / (b:c:d > 0) and on (job) z offset 1d == 0"#;
    let parsed = parse(expr);
    let names: Vec<_> = parsed.selectors.iter().map(|selector| selector.name.as_str()).collect();
    assert_eq!(names, ["a_bucket", "b:c:d", "z"]);
    let first = &parsed.selectors[0];
    assert_eq!(first.range.as_deref(), Some("5m"));
    assert_eq!(first.text, r#"a_bucket{op=~"x|y", le!="1"}"#);
    assert_eq!(first.matchers[1], ("le".into(), "!=".into(), "1".into()));
    assert_eq!(parsed.labels.into_iter().collect::<Vec<_>>(), ["job", "le", "op"]);
}
