//! The page of metrics is what the code says.

use std::fmt::Write as _;
use std::fs;

use super::{BOUNDS, FAMILIES};

const PAGE: &str = "docs/metrics.md";
/// Set, the page is written and not compared.
const WRITE: &str = "TIERSTACK_WRITE_DOCS";

fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         This page is written from the code (`src/telemetry/families.rs`): \
         `TIERSTACK_WRITE_DOCS=1 cargo test --release --features full --lib telemetry::tests` writes it.\n\n\
         Prometheus reads the metrics where [`telemetry.listen`](config.md) says. A program has them as data \
         (`telemetry::snapshot`), as text (`telemetry::render`), and through the recorder of the facade `metrics` that it \
         installs, without histograms: there each of them is a gauge with a label `quantile`.\n\n\
         - `stack` is the name of the store in the config, `layer` that of a layer or backend, with its place where it \
         occurs more than once (`retry[2]`). A label never holds a key, and no path but that of a listener's socket.\n\
         - `listener` is the address where `tierstack serve` listens, with the port that was taken, or the path of its socket.\n\
         - Counters count from 0, when the store is opened; the first failure is a rise that an alert sees. The series of a \
         store end when it is closed.\n\
         - Boundaries: what is counted with the layer `cache` is what entered the cache from above. The outermost layer of a \
         store is what its users see.\n\
         - An answer from memory is timed once in 61, at random, and then counts 61 times; what has to be waited for is always \
         timed. So quantiles and rates of the histograms are those of all operations.\n",
    );
    let bounds: Vec<_> = BOUNDS.iter().map(|bound| format!("{bound:?}")).collect();
    let _ = write!(
        page,
        "- The buckets of every histogram end at {}; what takes longer is in one more. A quantile is right within its bucket.\n\
         - `tierstack check --json` says how many series a service with the config has (`series`), and how many each store has of them.\n\n\
         | name | type | unit | labels | what it says | a rise means |\n|---|---|---|---|---|---|\n",
        bounds.join(", "),
    );
    for family in FAMILIES {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} |",
            family.name,
            family.kind,
            family.unit,
            labels.join(", "),
            family.help,
            family.rise
        );
    }
    page
}

#[test]
fn the_page_says_what_the_code_says() {
    if std::env::var_os(WRITE).is_some() {
        fs::write(PAGE, page()).unwrap();
    }
    let written = fs::read_to_string(PAGE).unwrap();
    assert!(written == page(), "{PAGE} is not what the code says; write it with {WRITE}=1");
}

#[test]
fn the_names_are_as_prometheus_wants_them() {
    for family in FAMILIES {
        let name = family.name;
        let is_counter = family.kind == super::Kind::Counter;
        assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        assert!(!family.help.ends_with('.') && !family.help.contains(['\n', '\\']), "{name}");
        let ours = name.starts_with("tierstack_") || name == super::names::PROCESS_START;
        assert!(ours && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        let names = FAMILIES.iter().filter(|other| other.name == name);
        assert_eq!(names.count(), 1, "{name}");
        let unit = family.unit.to_string();
        if family.unit != super::Unit::Count {
            assert!(name.contains(&format!("_{unit}")), "{name} has no {unit}");
        }
    }
}
