//! Redis servers of a test's own.

use std::io::{Seek as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{NotStarted, Process, Signals, find, output};
use super::{Certificates, blocking, port, required};

const SIGNALS: Signals = Signals { shutdown: "TERM", quit: "KILL" };
const DATABASES: u32 = 16_384;
/// How long a node is silent before the others count it as gone.
const NODE_TIMEOUT: &str = "1500";

/// One server. Without `--appendonly yes` it forgets everything when it ends.
pub(crate) struct Redis {
    /// `None` after a kill or a shutdown.
    process: Option<Process>,
    settings: Arc<Settings>,
    port: u16,
    next_database: AtomicU32,
}

struct Settings {
    folder: TempDir,
    program: PathBuf,
    client: PathBuf,
    arguments: Vec<String>,
    certificates: Option<Arc<Certificates>>,
}

impl Redis {
    /// Starts a server with these arguments, such as `&["--appendonly", "yes"]`.
    pub(crate) async fn start(arguments: &[&str]) -> Option<Self> {
        Self::start_with(arguments, None).await
    }

    /// The same, with TLS only.
    pub(crate) async fn start_tls(
        certificates: &Arc<Certificates>,
        arguments: &[&str],
    ) -> Option<Self> {
        Self::start_with(arguments, Some(Arc::clone(certificates))).await
    }

    async fn start_with(
        arguments: &[&str],
        certificates: Option<Arc<Certificates>>,
    ) -> Option<Self> {
        let programs =
            find(&["redis-server", "valkey-server"]).zip(find(&["redis-cli", "valkey-cli"]));
        let (program, client) = required(programs, "redis-server and redis-cli are not installed")?;
        let folder = tempfile::tempdir().unwrap();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let settings = Arc::new(Settings { folder, program, client, arguments, certificates });
        let mut server =
            Self { process: None, settings, port: 0, next_database: AtomicU32::new(0) };
        for _ in 0..20 {
            server.port = port::free();
            match server.run().await {
                Ok(()) => return Some(server),
                Err(NotStarted::AddressInUse) => {}
                Err(NotStarted::Other(why)) => panic!("{why}"),
            }
        }
        panic!("every port that was free was taken by another a moment later");
    }

    async fn run(&mut self) -> Result<(), NotStarted> {
        let (settings, port) = (Arc::clone(&self.settings), self.port);
        self.process = Some(blocking(move || settings.run(port)).await?);
        Ok(())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Of database 0.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.settings.certificates.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}", self.addr())
    }

    /// Of a database that no call has given before.
    pub(crate) fn fresh_url(&self) -> String {
        let database = self.next_database.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(database < DATABASES, "all {DATABASES} databases are used");
        format!("{}/{database}", self.url())
    }

    /// What `redis-cli` answers, such as `cli(&["config", "set", "maxmemory", "1mb"])`.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> String {
        let mut command = self.settings.client(self.port);
        command.args(arguments);
        blocking(move || output(&mut command)).await.trim_end().to_owned()
    }

    /// The same for several commands over one connection, a line each. `WAIT` waits for what its own connection wrote.
    pub(crate) async fn cli_lines(&self, lines: &str) -> String {
        let mut command = self.settings.client(self.port);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(lines.as_bytes()).and_then(|()| file.rewind()).unwrap();
        command.stdin(file);
        blocking(move || output(&mut command)).await.trim_end().to_owned()
    }

    /// Of a node of a cluster: the masters that it knows of and does not miss, each with its slots.
    async fn masters(&self) -> Vec<(String, String)> {
        let table = self.cli(&["cluster", "nodes"]).await;
        // `id ip:port@bus flags master ping pong epoch state slots...`
        let master = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let serves = words[2].contains("master") && !words[2].contains("fail");
            let addr = words[1].split('@').next().unwrap().to_owned();
            // What is on its way to another is written in brackets.
            let slots: Vec<&str> =
                words.into_iter().skip(8).filter(|w| !w.starts_with('[')).collect();
            (serves && !slots.is_empty()).then(|| (addr, slots.join(" ")))
        };
        table.lines().filter_map(master).collect()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGSTOP: it keeps its connections, the system accepts new ones for it, and nothing answers.
    pub(crate) fn stop(&self) {
        self.process.as_ref().expect("it runs").stop();
    }

    /// SIGCONT.
    pub(crate) fn cont(&self) {
        self.process.as_ref().expect("it runs").cont();
    }

    /// Ends it in order.
    pub(crate) async fn shutdown(&mut self) {
        if let Some(mut process) = self.process.take() {
            blocking(move || process.shutdown()).await;
        }
    }

    /// Ends it in order where it still runs, and starts it at the same port with the same data.
    pub(crate) async fn restart(&mut self) {
        self.shutdown().await;
        let begun = Instant::now();
        loop {
            match self.run().await {
                Ok(()) => return,
                Err(NotStarted::AddressInUse) if begun.elapsed() < Duration::from_secs(60) => {
                    blocking(|| sleep(Duration::from_millis(100))).await;
                }
                Err(NotStarted::AddressInUse) => panic!("port {} was taken", self.port),
                Err(NotStarted::Other(why)) => panic!("{why}"),
            }
        }
    }
}

impl Settings {
    fn run(&self, port: u16) -> Result<Process, NotStarted> {
        let mut command = Command::new(&self.program);
        command.current_dir(self.folder.path()).args(["--bind", "127.0.0.1", "--save", ""]);
        command.args(["--databases", &DATABASES.to_string(), "--daemonize", "no", "--dir"]);
        command.arg(self.folder.path());
        let port = port.to_string();
        match &self.certificates {
            None => command.args(["--port", &port]),
            Some(files) => command
                .args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"])
                .args(["--tls-cert-file".into(), files.certificate()])
                .args(["--tls-key-file".into(), files.key()])
                .args(["--tls-ca-cert-file".into(), files.ca()]),
        };
        command.args(&self.arguments);
        let log = self.folder.path().join("log");
        Process::start(command, &log, "Ready to accept connections", SIGNALS)
    }

    fn client(&self, port: u16) -> Command {
        let mut command = Command::new(&self.client);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        if let Some(files) = &self.certificates {
            command.arg("--tls").arg("--cacert").arg(files.ca());
        }
        command
    }
}

/// A cluster on loopback. After a fault, [`wait_until_ok`](Self::wait_until_ok) says when it serves
/// all slots again.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<Redis>,
}

impl RedisCluster {
    /// At least three masters, each with so many replicas. The masters are the first nodes.
    pub(crate) async fn start(masters: usize, replicas_each: usize) -> Option<Self> {
        Self::start_with(masters, replicas_each, &[]).await
    }

    /// The same, each node with these arguments.
    pub(crate) async fn start_with(
        masters: usize,
        replicas_each: usize,
        arguments: &[&str],
    ) -> Option<Self> {
        let mut nodes = Vec::new();
        for _ in 0..masters * (replicas_each + 1) {
            // A cluster has database 0 only.
            let settings = ["--databases", "1", "--cluster-enabled", "yes"];
            // On a busy machine several elections may fail, and a replica must not be too old for the next.
            let patient =
                ["--cluster-node-timeout", NODE_TIMEOUT, "--cluster-replica-validity-factor", "0"];
            let settings = [&settings[..], &patient, arguments].concat();
            nodes.push(Redis::start(&settings).await?);
        }
        let mut command = Command::new(&nodes[0].settings.client);
        command.args(["--cluster", "create"]).args(nodes.iter().map(Redis::addr));
        command.args(["--cluster-replicas", &replicas_each.to_string(), "--cluster-yes"]);
        blocking(move || output(&mut command)).await;
        let cluster = Self { nodes };
        cluster.wait_until_ok().await;
        Some(cluster)
    }

    /// The URL of every node.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// Waits until every node that runs says that the cluster is whole, all of them say the same master of each
    /// slot, which runs, and each replica that runs has its master's data. A master that was started again takes itself
    /// for one, with nothing in it, until the others tell it.
    pub(crate) async fn wait_until_ok(&self) {
        let begun = Instant::now();
        while let Err(why) = self.is_ok().await {
            assert!(begun.elapsed() < Duration::from_secs(90), "{why}");
            blocking(|| sleep(Duration::from_millis(50))).await;
        }
    }

    async fn is_ok(&self) -> Result<(), String> {
        let mut said: Option<Vec<String>> = None;
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            let info = node.cli(&["cluster", "info"]).await;
            let role = node.cli(&["role"]).await;
            let linked = role.starts_with("master") || role.contains("\nconnected");
            if !info.contains("cluster_state:ok") || !linked {
                return Err(format!("{}: {info}{role}", node.addr()));
            }
            let masters = node.masters().await;
            if let Some((gone, _)) = masters.iter().find(|(addr, _)| !self.runs(addr)) {
                return Err(format!("{} does not miss {gone}, which was ended", node.addr()));
            }
            let mut masters: Vec<String> =
                masters.into_iter().map(|(addr, slots)| addr + " " + &slots).collect();
            masters.sort();
            match &said {
                Some(said) if *said != masters => {
                    return Err(format!("{} says {masters:?}, another {said:?}", node.addr()));
                }
                _ => said = Some(masters),
            }
        }
        Ok(())
    }

    /// Whether the node of that address was not ended by the test.
    fn runs(&self, addr: &str) -> bool {
        self.nodes.iter().any(|node| node.addr() == addr && node.process.is_some())
    }

    /// The place in `nodes` of the master that serves the key. Waits while there is none: between the end of the
    /// master, which the node that is asked may notice later than the others, and its receiving of the next one.
    pub(crate) async fn master_of(&self, key: &str) -> usize {
        let begun = Instant::now();
        loop {
            if let Some(found) = self.find_master(key).await {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(90), "no master serves the key");
            blocking(|| sleep(Duration::from_millis(50))).await;
        }
    }

    async fn find_master(&self, key: &str) -> Option<usize> {
        let asked = self.nodes.iter().find(|node| node.process.is_some()).expect("one runs");
        let slot: u16 = asked.cli(&["cluster", "keyslot", key]).await.parse().unwrap();
        let holds = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            match (first.parse::<u16>(), last.parse::<u16>()) {
                (Ok(first), Ok(last)) => (first..=last).contains(&slot),
                _ => false,
            }
        };
        let masters = asked.masters().await;
        let (addr, _) =
            masters.iter().find(|(addr, slots)| self.runs(addr) && slots.split(' ').any(holds))?;
        Some(self.nodes.iter().position(|node| node.addr() == *addr).unwrap())
    }
}
