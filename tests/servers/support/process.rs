//! A server process: started, signalled with its children, and ended whatever happens.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A start, a stop or a restart that takes longer is a defect, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(10);

/// How to end a server that must go, in signals.
#[derive(Clone, Copy)]
pub(super) struct Signals {
    /// Ends it in order.
    pub(super) shutdown: &'static str,
    /// Ends it at once, with all that it started.
    pub(super) quit: &'static str,
}

pub(super) struct Process {
    child: Child,
    watchdog: Child,
    signals: Signals,
}

/// Why a server did not start.
pub(super) enum NotStarted {
    AddressInUse,
    Other(String),
}

impl Process {
    /// Starts a server and waits until its log says that it is ready.
    pub(super) fn start(
        mut command: Command,
        log: &Path,
        ready: &str,
        signals: Signals,
    ) -> Result<Self, NotStarted> {
        let file = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        // A group of its own: Ctrl-C at the terminal is for the tests, which then end it.
        command.process_group(0).env("LC_ALL", "C");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let watchdog = watchdog(child.id(), signals);
        let begun = Instant::now();
        loop {
            let ended = child.try_wait().unwrap();
            let text = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
            let failure = match ended {
                None if text.contains(ready) => return Ok(Self { child, watchdog, signals }),
                None if begun.elapsed() < PATIENCE => {
                    sleep(POLL);
                    continue;
                }
                None => format!("not ready after {PATIENCE:?}"),
                Some(status) => format!("ended with {status}"),
            };
            drop(Self { child, watchdog, signals });
            return Err(if text.contains("ddress already in use") {
                NotStarted::AddressInUse
            } else {
                NotStarted::Other(format!("{command:?} {failure}:\n{text}"))
            });
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs. A stopped one does.
    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Freezes it with its children, in the middle of whatever they do.
    pub(super) fn stop(&self) {
        // The parent first: it must not start another while the children are counted.
        signal("STOP", &[self.id()]);
        signal("STOP", &children(self.id()));
    }

    /// Ends a [`stop`](Self::stop).
    pub(super) fn cont(&self) {
        signal("CONT", &children(self.id()));
        signal("CONT", &[self.id()]);
    }

    /// Kills it and its children in mid-air, as a crash would, and waits until they are gone.
    pub(super) fn kill(&mut self) {
        self.unwatch();
        signal("STOP", &[self.id()]);
        let children = children(self.id());
        signal("KILL", &[self.id()]);
        signal("KILL", &children);
        self.child.wait().unwrap();
        let begun = Instant::now();
        while processes().iter().any(|process| children.contains(&process.id) && process.lives) {
            assert!(begun.elapsed() < PATIENCE, "children outlive SIGKILL");
            sleep(POLL);
        }
    }

    /// Ends it in order.
    pub(super) fn shutdown(&mut self) {
        self.end(self.signals.shutdown, PATIENCE);
    }

    fn end(&mut self, how: &str, patience: Duration) {
        self.unwatch();
        if self.is_running() {
            self.cont();
            signal(how, &[self.id()]);
        }
        let begun = Instant::now();
        while self.is_running() {
            if begun.elapsed() > patience {
                return self.kill();
            }
            sleep(POLL);
        }
    }

    /// Before the process is reaped: its number may then be another's.
    fn unwatch(&mut self) {
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(self.signals.quit, Duration::from_secs(10));
    }
}

/// Ends the server when this process goes without dropping anything (an abort, a SIGKILL): the pipe
/// that it holds to the watchdog is then closed.
fn watchdog(id: u32, signals: Signals) -> Child {
    Command::new("sh")
        .args(["-c", r#"read -r _; kill -s "$2" "$1"; kill -s CONT "$1""#, "watchdog"])
        .args([&id.to_string(), signals.quit])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// The shell has `kill` built in; the program of that name is not in every container.
pub(super) fn signal(name: &str, ids: &[u32]) {
    if !ids.is_empty() {
        let ids = ids.iter().map(u32::to_string);
        let script = r#"kill -s "$0" "$@""#;
        // One that has just ended is as good as signalled.
        let _ =
            Command::new("sh").args(["-c", script, name]).args(ids).stderr(Stdio::null()).status();
    }
}

struct Running {
    id: u32,
    parent: u32,
    lives: bool,
}

fn children(of: u32) -> Vec<u32> {
    processes().iter().filter(|p| p.parent == of).map(|p| p.id).collect()
}

fn processes() -> Vec<Running> {
    let Ok(folder) = fs::read_dir("/proc") else { return processes_of_ps() };
    let ids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let process = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // `id (name) state parent ...`, and a name may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut rest = rest.split(' ');
        let lives = !matches!(rest.next()?, "Z" | "X");
        Some(Running { id, parent: rest.next()?.parse().ok()?, lives })
    };
    ids.filter_map(process).collect()
}

/// Where there is no /proc.
fn processes_of_ps() -> Vec<Running> {
    let output = Command::new("ps").args(["-axo", "pid=,ppid=,state="]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let process = |line: &str| {
        let mut words = line.split_whitespace();
        let (id, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Running { id, parent, lives: !words.next()?.starts_with('Z') })
    };
    text.lines().filter_map(process).collect()
}

/// The first of these programs that is in `PATH`.
pub(super) fn find(programs: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let files = programs.iter().flat_map(|program| folders.iter().map(move |f| f.join(program)));
    files.into_iter().find(|file| file.is_file())
}

/// Runs a command that must succeed, and gives what it printed.
pub(super) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}
