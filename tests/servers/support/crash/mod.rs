//! Stacks against `kill -9`: this test binary again, which writes with many tasks and names what was acknowledged, and
//! is killed at any moment, while it opens and replays too. The next one tells what it finds.
//!
//! The oracle is here, outside of what is killed. A seed repeats the stack and the moments, by what the process had said
//! or by time; how its tasks meet is another each time.

#![allow(dead_code, reason = "each binary that has it uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod child;
mod work;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tierstack::testing::Random;
use tokio::runtime::Runtime;

use self::work::Counts;

/// The config, in a process that was started to be killed.
const CONFIG: &str = "TIERSTACK_CRASH_TEST_CONFIG";
/// Whether its writes are acknowledged in memory there.
const MEMORY: &str = "TIERSTACK_CRASH_TEST_MEMORY";
/// Nothing that a child says comes later, unless it hangs.
const HANGS: Duration = Duration::from_secs(180);

/// A stack to kill.
pub(crate) struct Kills<'a> {
    /// The full name of the test that calls this.
    pub(crate) test: &'a str,
    pub(crate) seed: u64,
    pub(crate) kills: usize,
    /// Layers, outermost first, as a config names them.
    pub(crate) layers: &'a [String],
    pub(crate) backend: &'a str,
    /// Whether writes are acknowledged in memory, and only those that ask for more survive.
    pub(crate) memory: bool,
}

/// Of those that are acknowledged in memory some ask for more.
fn lasts(number: u64) -> bool {
    number.is_multiple_of(10)
}

/// Settings of `write_back` that let flushes, waits for room and rotations meet the kills.
pub(crate) fn write_back(random: &mut Random, ack: &str) -> String {
    let flush_bytes = random.pick(&["1KiB", "8KiB", "1MiB"]).unwrap();
    let open = random.pick(&["wait", "later"]).unwrap();
    layer(random, &format!("ack: {ack}, flush_bytes: {flush_bytes}, open: {open}"))
}

/// The same over a store below of which one call in ten fails, with that store. Where it opens without waiting, no call can fail that, and
/// after each failure it pauses, so that its runs are not too small.
pub(crate) fn write_back_over_failing(random: &mut Random) -> Vec<String> {
    let ack = random.pick(&["journal", "through"]).unwrap();
    let flush_bytes = random.pick(&["16KiB", "1MiB"]).unwrap();
    let above = layer(
        random,
        &format!("ack: {ack}, flush_bytes: {flush_bytes}, open: later, max_wait: 150s"),
    );
    vec![above, format!("flaky: {{ seed: {} }}", random.below(1_000_000))]
}

fn layer(random: &mut Random, more: &str) -> String {
    let flush_after = random.pick(&["0s", "1ms", "10ms", "1s"]).unwrap();
    let max_dirty = random.pick(&["1MiB", "4MiB"]).unwrap();
    format!(
        "write_back: {{ path: journal, flush_after: {flush_after}, max_dirty: {max_dirty}, {more} }}"
    )
}

impl Kills<'_> {
    /// Runs it, unless this process is the one to be killed.
    pub(crate) fn run(&self) {
        if live_in_child() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random::new(self.seed);
        let config = folder.path().join("tierstack.yaml");
        std::fs::write(&config, self.config(self.layers)).unwrap();
        let mut oracle =
            Oracle { seed: self.seed, memory: self.memory, kept: Counts::default(), said: 0 };
        for kill in 0..self.kills {
            let mut process = Process::start(self.test, &config, self.memory);
            // In turn, so that there is enough of each.
            match kill % 5 {
                // While it starts, opens, replays and reads.
                0 => std::thread::sleep(Duration::from_millis(random.below(30) as u64)),
                1 => oracle.hear(&mut process, 1),
                2 => oracle.hear(&mut process, 2),
                _ => oracle.hear(&mut process, 3 + random.below(200)),
            }
            process.kill();
            oracle.hear(&mut process, usize::MAX);
            assert!(process.was_killed(), "{self}: kill {kill}: the process had ended by itself");
        }
        // The last one ends in order, so all that it says lasts, and the store below has everything.
        oracle.memory = false;
        let mut process = Process::start(self.test, &config, self.memory);
        oracle.hear(&mut process, 100);
        process.end();
        oracle.hear(&mut process, usize::MAX);
        assert!(process.child.wait().unwrap().success(), "{self}: the last process failed");
        let above =
            |layer: &&String| !layer.starts_with("write_back") && !layer.starts_with("flaky");
        let without: Vec<_> = self.layers.iter().filter(above).cloned().collect();
        std::fs::write(&config, self.config(&without)).unwrap();
        let there = Runtime::new().unwrap().block_on(async {
            let opened = child::open(&config).await;
            let there = opened.look().await;
            tierstack::Store::close(&*opened.stack).await.unwrap();
            there
        });
        assert_eq!(there, oracle.kept, "{self}: a close had left something");
        assert!(oracle.said > 10 * self.kills, "{self}: {} batches", oracle.said);
    }

    fn config(&self, layers: &[String]) -> String {
        let layers: Vec<_> = layers.iter().map(|layer| format!("{{ {layer} }}")).collect();
        let (layers, backend) = (layers.join(", "), self.backend);
        format!("stores: {{ main: {{ layers: [{layers}], backend: {{ {backend} }} }} }}")
    }
}

impl std::fmt::Display for Kills<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TIERSTACK_SEED={} {} {:?}", self.seed, self.test, self.layers)
    }
}

/// Lives as the process that is killed, if this is one.
pub(crate) fn live_in_child() -> bool {
    let Some(config) = std::env::var_os(CONFIG) else { return false };
    let memory = std::env::var_os(MEMORY).is_some();
    Runtime::new().unwrap().block_on(child::write_until_killed(&PathBuf::from(config), memory));
    true
}

/// What is known to survive.
struct Oracle {
    seed: u64,
    memory: bool,
    kept: Counts,
    said: usize,
}

impl Oracle {
    /// Reads so many lines, or until the process ends.
    fn hear(&mut self, process: &mut Process, lines: usize) {
        for _ in 0..lines {
            let Some(line) = process.line() else { return };
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["begun" | "closed"] => {}
                ["there", ..] => {
                    let there: Vec<u64> =
                        words[1..].iter().map(|word| word.parse().unwrap()).collect();
                    let there = Counts::try_from(there).unwrap();
                    let lost = there.iter().zip(&self.kept).any(|(there, kept)| there < kept);
                    assert!(
                        !lost,
                        "TIERSTACK_SEED={}: {:?} batches of the tasks were acknowledged, and {there:?} are there",
                        self.seed, self.kept
                    );
                    self.kept = there;
                }
                [task, number] => {
                    let (task, number) = (task.parse::<usize>().unwrap(), number.parse().unwrap());
                    self.said += 1;
                    if !self.memory || lasts(number) {
                        self.kept[task] = number;
                    }
                }
                _ => panic!("{line}"),
            }
        }
    }
}

/// A process, and what it says.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(test: &str, config: &Path, memory: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(CONFIG, config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if memory {
            command.env(MEMORY, "1");
        }
        let mut child = command.spawn().unwrap();
        let (said, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("@@ ") {
                    let _ = said.send(rest.to_owned());
                }
            }
        });
        Self { child, lines }
    }

    /// The next thing that it says. `None`: it has ended.
    fn line(&mut self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.lines.recv_timeout(HANGS) {
            Ok(line) => Some(line),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("the process hangs"),
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Lets it end in order.
    fn end(&mut self) {
        drop(self.child.stdin.take());
    }

    fn was_killed(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;
        self.child.wait().unwrap().signal() == Some(9)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
