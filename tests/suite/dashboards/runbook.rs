//! Each alert says what it is, has a section in the runbook with commands that exist, and a test that it fires, does not
//! fire at the edge, and clears.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use super::files::{Rule, files, list, rules, text, yaml};

/// What a section has, in this order.
const PARTS: [&str; 8] = [
    "Meaning",
    "Impact",
    "What is still safe",
    "Diagnosis",
    "Mitigation",
    "Commands",
    "If it is noise",
    "Verified by",
];

fn alerts() -> Vec<Rule> {
    let alerts: Vec<_> = rules().into_iter().filter(|rule| rule.is_alert).collect();
    assert!(alerts.len() > 15, "{}", alerts.len());
    alerts
}

/// Each section by its heading.
fn sections() -> BTreeMap<String, String> {
    let page = fs::read_to_string("docs/runbook.md").unwrap();
    let sections = page.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap());
    sections.map(|(heading, body)| (heading.to_owned(), body.to_owned())).collect()
}

#[test]
fn an_alert_has_a_severity_a_pause_and_words() {
    let mut names = BTreeSet::new();
    for Rule { name, yaml, .. } in alerts() {
        assert!(names.insert(name.clone()), "{name}: two alerts with one name");
        assert!(
            name.starts_with("Tierstack") && name.chars().all(|c| c.is_ascii_alphanumeric()),
            "{name}"
        );
        assert!(yaml.get("for").is_some(), "{name} has no `for`");
        let labels = yaml["labels"].as_object().unwrap();
        assert_eq!(labels.len(), 1, "{name}: a value in a label begins `for` again");
        assert!(
            ["critical", "warning", "info"].contains(&text(&labels["severity"]).as_str()),
            "{name}"
        );
        let annotations = &yaml["annotations"];
        let summary = text(&annotations["summary"]);
        assert!(summary.len() <= 60 && !summary.contains("{{"), "{name}: {summary}");
        let description = text(&annotations["description"]);
        assert!(
            description.contains("{{ $labels.instance }}") && description.ends_with('.'),
            "{name}: {description}"
        );
        assert_eq!(
            text(&annotations["runbook_url"]),
            format!("docs/runbook.md#{}", name.to_lowercase())
        );
    }
}

#[test]
fn each_alert_has_its_section_and_each_section_its_alert() {
    let names: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    let sections = sections();
    assert_eq!(names, sections.keys().cloned().collect());
    for (name, body) in &sections {
        let found: Vec<_> = body
            .lines()
            .filter_map(|line| line.strip_prefix("**")?.split(['.', '*']).next())
            .map(str::trim)
            .collect();
        assert_eq!(found, PARTS, "{name}");
        let tests = body.rsplit_once("**Verified by** `").unwrap().1.split('`').next().unwrap();
        let tests =
            fs::read_to_string(tests).unwrap_or_else(|error| panic!("{name}: {tests}: {error}"));
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is not tested there");
        for link in body.split("](#").skip(1) {
            let link = link.split(')').next().unwrap();
            assert!(sections.keys().any(|name| name.to_lowercase() == link), "{name}: #{link}");
        }
    }
}

fn help(words: &[&str]) -> Option<String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tierstack")).args(words).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn each_command_of_the_runbook_exists() {
    let mut known: BTreeMap<Vec<String>, String> = BTreeMap::new();
    let mut count = 0;
    for (name, body) in sections() {
        let block = body.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0;
        for line in block.lines() {
            let line = line.split('#').next().unwrap().trim();
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!(words[0], "tierstack", "{name}: {line}");
            let deep = ["backup", "cache", "journal", "keys"].contains(&words[1]);
            let path = &words[1..if deep { 3 } else { 2 }];
            let key: Vec<_> = path.iter().map(|&word| word.to_owned()).collect();
            let help = known.entry(key).or_insert_with(|| {
                help(path).unwrap_or_else(|| panic!("{name}: there is no `{line}`"))
            });
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(*option), "{name}: `{line}` has no {option}");
            }
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn each_alert_is_seen_to_fire_and_to_be_silent_before_and_after() {
    let mut seen: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for path in files("dashboards/rules/tests", "yaml") {
        for case in list(&yaml(&path)["tests"]) {
            for check in list(&case["alert_rule_test"]) {
                let fires = !list(&check["exp_alerts"]).is_empty();
                seen.entry(text(&check["alertname"])).or_default().push(fires);
            }
        }
    }
    for Rule { name, .. } in alerts() {
        let seen = seen.get(&name).unwrap_or_else(|| panic!("{name} has no test"));
        let (first, last) = (seen.first().unwrap(), seen.last().unwrap());
        assert!(!first && seen.contains(&true) && !last, "{name}: {seen:?}");
    }
}
