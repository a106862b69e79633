//! What is in `dashboards/` works: each query gives data over a stack under load, rules and alerts pass promtool, and
//! Grafana's types know each key of the boards. What needs no program is in `tests/suite/dashboards/`.

#![cfg(feature = "full")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use files::{boards, parse, rules};

use crate::support::{self, Prometheus, Redis, promtool};

#[path = "../suite/dashboards/files.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod files;
#[path = "../../examples/dashboards.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod service;

/// On a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);
const ROLE: &str = "TIERSTACK_DASHBOARDS_TEST_CHILD";

/// The example under load in a process of its own, as a process has one recorder.
struct Service(Child);

impl Service {
    fn start(config: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "dashboards::every_query_gives_data", "--nocapture"])
            .env(ROLE, config)
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn scrape(address: &str) -> Option<String> {
    let mut line = TcpStream::connect(address).ok()?;
    write!(line, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    line.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// As Grafana and time would do: variables stand for everything, and yesterday is a moment ago.
fn filled_in(expr: &str) -> String {
    let mut filled = expr.replace("$__rate_interval", "1m").replace("$__range", "5m");
    for variable in ["$job", "$instance", "$stack", "$layer", "$listener"] {
        filled = filled.replace(variable, ".*");
    }
    for long in ["1d", "30m", "15m"] {
        filled = filled.replace(&format!("offset {long}"), "offset 1s");
    }
    assert!(!filled.contains('$'), "{filled}");
    filled
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_gives_data() {
    if let Some(config) = std::env::var_os(ROLE) {
        return service::run(config.to_str().unwrap()).await.unwrap();
    }
    let Some(redis) = Redis::start(&[]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let address = support::free_address();
    // A cache with a change feed, in addition to what the example has.
    let baskets = format!(
        "  baskets:\n    layers: [cache: {{ ttl: 10s }}]\n    backend: {{ redis: {{ url: '{}', change_feed: true }} }}\n",
        redis.fresh_url()
    );
    let config = fs::read_to_string("examples/dashboards.yaml").unwrap();
    let files = std::env::current_dir().unwrap().join("tests/fixtures/tls");
    let (cert, key) = (files.join("first.pem"), files.join("first.key"));
    // A second listener, with a certificate that will expire.
    let tls = format!(
        "stores: write }}, {{ listen: '127.0.0.1:0', stores: read, tls: {{ cert: '{}', key: '{}' }} }}",
        cert.display(),
        key.display()
    );
    let config =
        config.replace("127.0.0.1:9187", &address).replace("127.0.0.1:9188", "127.0.0.1:0");
    let config = config.replace("stores: write }", &tls) + &baskets;
    assert!(config.contains("first.pem"));
    let path = folder.path().join("tierstack.yaml");
    fs::write(&path, config).unwrap();
    let rules_path = Path::new("dashboards/rules/*.yaml");
    let rules_path = std::env::current_dir().unwrap().join(rules_path);
    let Some(prometheus) = Prometheus::start(&address, rules_path.to_str().unwrap()).await else {
        return;
    };
    let _service = Service::start(&path);

    let rules = rules();
    let mut pending: Vec<(String, String)> = Vec::new();
    for query in boards().into_iter().flat_map(|board| board.queries()) {
        let expr = filled_in(&query.expr);
        // An annotation tells of what does not happen here.
        if query.place.contains("annotation") {
            prometheus.query(&expr).unwrap_or_else(|error| panic!("{}: {error}", query.place));
        } else {
            pending.push((query.place, expr));
        }
    }
    for rule in &rules {
        // An alert shall find nothing, but what it looks at is there, also before it is ever counted.
        let selectors = parse(&rule.expr).selectors.into_iter().map(|selector| selector.text);
        let exprs = if rule.is_alert { selectors.collect() } else { vec![rule.expr.clone()] };
        pending.extend(exprs.into_iter().map(|expr| (rule.name.clone(), expr)));
        prometheus.query(&rule.expr).unwrap_or_else(|error| panic!("{}: {error}", rule.name));
    }
    let begun = Instant::now();
    loop {
        pending.retain(|(place, expr)| {
            let samples = prometheus.query(expr).unwrap_or_else(|error| panic!("{place}: {error}"));
            !samples.iter().any(|sample| sample.is_finite())
        });
        if pending.is_empty() {
            break;
        }
        let list: Vec<_> = pending.iter().map(|(place, expr)| format!("{place}: {expr}")).collect();
        assert!(
            begun.elapsed() < PATIENCE,
            "without data:\n{}\n{:?}",
            list.join("\n"),
            scrape(&address)
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    let mut check = Command::new(promtool().unwrap());
    let mut check = check
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(scrape(&address).unwrap().as_bytes()).unwrap();
    succeeded(&check.wait_with_output().unwrap());
}

fn succeeded(output: &Output) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && err.trim().is_empty(), "{out}{err}");
}

fn promtool_passes(arguments: &[&str], files: &[PathBuf]) {
    let Some(promtool) = support::required(promtool(), "promtool is not installed (prometheus)")
    else {
        return;
    };
    let mut command = Command::new(promtool);
    command.args(arguments).args(files);
    succeeded(&command.output().unwrap());
}

#[test]
fn rules_are_valid() {
    promtool_passes(
        &["check", "rules", "--lint=all", "--lint-fatal"],
        &files::files("dashboards/rules", "yaml"),
    );
    promtool_passes(&["check", "config"], &["dashboards/prometheus.yml".into()]);
}

#[test]
fn alerts_fire_when_they_should() {
    promtool_passes(&["test", "rules"], &files::files("dashboards/rules/tests", "yaml"));
}

#[test]
fn boards_are_what_their_source_makes() {
    succeeded(&Command::new("python3").args(["dashboards/source", "--check"]).output().unwrap());
}

/// Reads each board into the published types and writes it again: a key that they do not know, a misspelt one, is lost.
const ROUND_TRIP: &str = r#"
import json, sys
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# Grafana's source of Prometheus reads these of an annotation; the types leave that open.
OPEN = {"titleFormat", "step"}

def lost(before, after, path):
    if isinstance(before, dict):
        for key, value in before.items():
            if isinstance(after, dict) and key in after:
                yield from lost(value, after[key], f"{path}.{key}")
            elif key not in OPEN:
                yield f"{path}.{key}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{path}[{at}]")
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"

plugins.register_default_plugins()
found = []
for path in sys.argv[1:]:
    before = json.load(open(path))
    after = json.loads(json.dumps(Dashboard.from_json(before), cls=encoder.JSONEncoder))
    found += lost(before, after, path)
sys.exit("\n".join(found) or 0)
"#;

#[test]
fn grafana_knows_each_key_of_the_boards() {
    let Some(python) = support::var("TIERSTACK_TEST_GRAFANA") else { return };
    let mut command = Command::new(python);
    command.args(["-c", ROUND_TRIP]).args(files::files("dashboards/boards", "json"));
    succeeded(&command.output().unwrap());
}
