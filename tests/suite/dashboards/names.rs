//! Every query names a metric and labels that exist, and every metric is on a board.

use std::collections::{BTreeMap, BTreeSet};

use tierstack::telemetry::{FAMILIES, Kind};

use super::files::{Rule, boards, parse, rules, sources};

/// What Prometheus itself has.
const OTHERS: [(&str, &[&str]); 2] =
    [("up", &[]), ("ALERTS", &["alertname", "alertstate", "severity", "stack"])];
/// What Prometheus adds to each series.
const ADDED: [&str; 2] = ["job", "instance"];

/// The labels of a series by its name.
fn known(rules: &[Rule]) -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::new();
    let mut add = |name: String, labels: &[&str]| {
        known.insert(name, ADDED.iter().chain(labels).map(|&label| label.to_owned()).collect());
    };
    for family in FAMILIES {
        if family.kind == Kind::Histogram {
            add(format!("{}_bucket", family.name), &[family.labels, &["le"]].concat());
            add(format!("{}_count", family.name), family.labels);
            add(format!("{}_sum", family.name), family.labels);
        } else {
            add(family.name.to_owned(), family.labels);
        }
    }
    for (name, labels) in OTHERS {
        add(name.to_owned(), labels);
    }
    for rule in rules.iter().filter(|rule| !rule.is_alert) {
        add(rule.name.clone(), &level(rule));
    }
    known
}

/// The labels that the name of a recorded series guarantees.
fn level(rule: &Rule) -> Vec<&str> {
    rule.name.split(':').next().unwrap().split('_').collect()
}

#[test]
fn every_query_names_a_metric_and_labels_that_exist() {
    let rules = rules();
    let known = known(&rules);
    let queries = boards().into_iter().flat_map(|board| board.queries());
    let queries = queries.map(|query| (query.place, query.expr));
    let mut wrong = Vec::new();
    for (place, expr) in
        queries.chain(rules.iter().map(|rule| (rule.name.clone(), rule.expr.clone())))
    {
        let parsed = parse(&expr);
        let mut labels = BTreeSet::new();
        for selector in &parsed.selectors {
            let Some(own) = known.get(&selector.name) else {
                wrong.push(format!("{place}: there is no {}", selector.name));
                continue;
            };
            for (label, ..) in selector.matchers.iter().filter(|(label, ..)| !own.contains(label)) {
                wrong.push(format!("{place}: {} has no label {label}", selector.name));
            }
            labels.extend(own.iter().cloned());
        }
        for label in parsed.labels.difference(&labels) {
            wrong.push(format!("{place}: nothing in it has a label {label}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_metric_is_on_a_board() {
    let rules = rules();
    let queries = boards().into_iter().flat_map(|board| board.queries());
    let shown: BTreeSet<_> = queries.flat_map(|query| sources(&query.expr, &rules)).collect();
    let is_shown = |name: &str| {
        ["", "_bucket", "_count", "_sum"].iter().any(|end| shown.contains(&format!("{name}{end}")))
    };
    let missing: Vec<_> =
        FAMILIES.iter().map(|family| family.name).filter(|name| !is_shown(name)).collect();
    assert!(missing.is_empty(), "on no board: {missing:?}");
}

#[test]
fn every_rule_that_records_is_used_and_keeps_the_labels_of_its_name() {
    let rules = rules();
    let queries = boards().into_iter().flat_map(|board| board.queries()).map(|query| query.expr);
    let all = queries.chain(rules.iter().map(|rule| rule.expr.clone()));
    let used: BTreeSet<_> =
        all.flat_map(|expr| parse(&expr).selectors).map(|selector| selector.name).collect();
    for rule in rules.iter().filter(|rule| !rule.is_alert) {
        assert!(used.contains(&rule.name), "nothing uses {}", rule.name);
        let parts: Vec<_> = rule.name.split(':').collect();
        let [_, metric, operation] = parts[..] else {
            panic!("{} is not level:metric:operation", rule.name)
        };
        assert!(metric.starts_with("tierstack_") && !operation.is_empty(), "{}", rule.name);
        let Some((_, by)) = rule.expr.split_once(" by (") else { continue };
        let by = by.split(')').next().unwrap().split(',').map(str::trim);
        // The buckets are gone once a quantile was taken of them.
        let by: BTreeSet<_> = by.filter(|label| *label != "le").collect();
        let guarantees: BTreeSet<_> = ADDED.into_iter().chain(level(rule)).collect();
        assert_eq!(by, guarantees, "{}", rule.name);
    }
}
