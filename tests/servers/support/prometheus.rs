//! A Prometheus of a test's own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::process::{NotStarted, Process, Signals, find};
use super::{blocking, port, required};

const SIGNALS: Signals = Signals { shutdown: "TERM", quit: "KILL" };

/// Scrapes one address each second, and evaluates rules as often.
pub(crate) struct Prometheus {
    _process: Process,
    _folder: TempDir,
    port: u16,
}

impl Prometheus {
    pub(crate) async fn start(scraped: &str, rules: &str) -> Option<Self> {
        let programs = find(&["prometheus"]).zip(promtool());
        let (program, _) =
            required(programs, "prometheus and promtool are not installed (prometheus)")?;
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{rules}']\n\
             scrape_configs: [{{ job_name: tierstack, static_configs: [{{ targets: ['{scraped}'] }}] }}]\n"
        );
        fs::write(&config, text).unwrap();
        for _ in 0..20 {
            let port = port::free();
            let (program, folder_path) = (program.clone(), folder.path().to_owned());
            let started = blocking(move || start(&program, &folder_path, port)).await;
            match started {
                Ok(process) => return Some(Self { _process: process, _folder: folder, port }),
                Err(NotStarted::AddressInUse) => {}
                Err(NotStarted::Other(why)) => panic!("{why}"),
            }
        }
        panic!("every port that was free was taken by another a moment later");
    }

    /// The samples that an expression has now, or why it is none.
    pub(crate) fn query(&self, expr: &str) -> Result<Vec<f64>, String> {
        let encoded: String = expr.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = format!("query={encoded}");
        let mut line = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            line,
            "POST /api/v1/query HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        line.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let answer: Value =
            serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))?;
        if answer["status"] != "success" {
            return Err(format!("{expr}: {}", answer["error"]));
        }
        let result = answer["data"]["result"].as_array().unwrap();
        Ok(result
            .iter()
            .map(|sample| sample["value"][1].as_str().unwrap().parse().unwrap())
            .collect())
    }
}

fn start(program: &Path, folder: &Path, port: u16) -> Result<Process, NotStarted> {
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    Process::start(command, &folder.join("log"), "Server is ready to receive web requests", SIGNALS)
}

/// What checks rules and text of metrics.
pub(crate) fn promtool() -> Option<PathBuf> {
    find(&["promtool"])
}
