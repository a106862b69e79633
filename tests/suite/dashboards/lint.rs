//! The rules of Grafana's dashboard-linter, and those of file provisioning.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::files::{Board, boards, list, parse, text};

fn each(check: impl Fn(&Board)) {
    let boards = boards();
    assert!(boards.len() >= 4, "{}", boards.len());
    boards.iter().for_each(check);
}

#[test]
fn a_board_is_classic_json_with_a_stable_uid() {
    let mut titles = BTreeSet::new();
    for board in boards() {
        let Board { file, json } = &board;
        for forbidden in ["__inputs", "__requires", "apiVersion", "kind", "spec", "elements", "id"]
        {
            assert!(
                json.get(forbidden).is_none(),
                "{file}: {forbidden} is not for file provisioning"
            );
        }
        assert_eq!(format!("{}.json", text(&json["uid"])), *file);
        assert!(text(&json["uid"]).starts_with("tierstack-"), "{file}");
        assert!((36..=41).contains(&json["schemaVersion"].as_u64().unwrap()), "{file}");
        assert_eq!(json["editable"], false, "{file}: changes in Grafana would be lost");
        assert_eq!(json["tags"], json!(["tierstack"]), "{file}: the links between boards go by it");
        assert!(
            !text(&json["description"]).is_empty() && !text(&json["refresh"]).is_empty(),
            "{file}"
        );
        assert_eq!(json["links"][0]["includeVars"], true, "{file}");
        assert!(titles.insert(text(&json["title"])), "{file}: two boards with one title");
    }
}

#[test]
fn variables_choose_the_data_source_and_the_processes() {
    each(|board| {
        let file = &board.file;
        let names: Vec<_> = board.variables().map(|variable| text(&variable["name"])).collect();
        assert_eq!(names[..3], ["datasource", "job", "instance"], "{file}");
        for variable in board.variables() {
            let name = text(&variable["name"]);
            if name == "datasource" {
                assert_eq!(
                    (&variable["type"], &variable["query"]),
                    (&json!("datasource"), &json!("prometheus"))
                );
                continue;
            }
            assert_eq!(variable["datasource"], source(), "{file}, {name}");
            assert_eq!(
                variable["refresh"], 2,
                "{file}, {name}: read again when the time range changes"
            );
            assert_eq!(
                (&variable["multi"], &variable["includeAll"]),
                (&json!(true), &json!(true)),
                "{file}, {name}"
            );
            let query = text(&variable["query"]["query"]);
            assert!(query.ends_with(&format!(", {name})")), "{file}, {name}: {query}");
        }
    });
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

#[test]
fn a_panel_says_what_it_shows_and_in_which_unit() {
    each(|board| {
        let file = &board.file;
        let count = board.panels().count();
        assert!((4..=25).contains(&count), "{file} has {count} panels");
        let mut ids = BTreeSet::new();
        assert!(
            list(&board.json["panels"]).iter().all(|panel| ids.insert(panel["id"].as_u64())),
            "{file}"
        );
        for panel in board.panels() {
            let title = format!("{file}, {}", panel["title"]);
            assert!(!text(&panel["title"]).is_empty(), "{title}");
            let description = text(&panel["description"]);
            assert!(description.ends_with('.'), "{title}: {description}");
            assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{title}");
            assert_eq!(panel["datasource"], source(), "{title}");
            assert!(!list(&panel["targets"]).is_empty(), "{title}");
            for target in list(&panel["targets"]) {
                assert_eq!(target["datasource"], source(), "{title}");
            }
        }
    });
}

#[test]
fn panels_lie_beside_each_other() {
    each(|board| {
        let mut taken = BTreeSet::new();
        for panel in list(&board.json["panels"]) {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{}, {}", board.file, panel["title"]);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(
                        taken.insert((x, y)),
                        "{}, {} lies over another",
                        board.file,
                        panel["title"]
                    );
                }
            }
        }
    });
}

#[test]
fn queries_keep_to_the_chosen_processes_and_take_rates_of_counters() {
    each(|board| {
        for query in board.queries() {
            let place = &query.place;
            for selector in parse(&query.expr).selectors {
                let has = |label: &str| {
                    let chosen = format!("${label}");
                    selector
                        .matchers
                        .iter()
                        .any(|(name, _, value)| name == label && *value == chosen)
                };
                // On the right side of a join by job and instance there is nothing to choose.
                let is_joined = query.expr.contains("and on (job, instance");
                let is_first = place.contains("variable \"job\"");
                let is_second = place.contains("variable \"instance\"");
                assert!(has("job") || is_joined || is_first, "{place}: {}", selector.text);
                assert!(
                    has("instance") || is_joined || is_first || is_second,
                    "{place}: {}",
                    selector.text
                );
                let is_counter = ["_total", "_bucket", "_count", "_sum"]
                    .iter()
                    .any(|end| selector.name.ends_with(end));
                assert_eq!(
                    is_counter,
                    selector.range.is_some() && !place.contains("annotation"),
                    "{place}: {}",
                    selector.text
                );
                if let Some(range) = &selector.range {
                    let by_grafana = ["$__rate_interval", "$__range"].contains(&range.as_str());
                    assert!(by_grafana || place.contains("annotation"), "{place}: [{range}]");
                }
            }
        }
    });
}
