//! A folder with a config, and the command run in it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A store that outlives the process, without layers.
pub(crate) const PLAIN: &str = "stores: { main: { backend: { rocksdb: { path: data } } } }\n";

/// A temporary folder with a `tierstack.yaml`.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new(config: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("tierstack.yaml", config);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names of what is in the folder.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierstack"));
        command.args(args).current_dir(self.0.path()).env_remove("RUST_LOG");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        Ran::new(args, output)
    }

    pub(crate) fn run_with(&self, args: &[&str], input: impl AsRef<[u8]>) -> Ran {
        let mut child = self.spawn(args);
        // A command that fails early does not read its input to the end.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        Ran::new(args, child.wait_with_output().unwrap())
    }

    /// Runs on while the test does something else, with pipes.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Every entry, as `key=value`.
    pub(crate) fn entries(&self) -> Vec<String> {
        let out = self.run(&["scan"]).ok().out;
        let entry = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{}={}", line["key"].as_str().unwrap(), line["value"].as_str().unwrap())
        };
        out.lines().map(entry).collect()
    }
}

/// What a run printed and ended with.
pub(crate) struct Ran {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn new(args: &[&str], output: Output) -> Self {
        Self {
            what: format!("tierstack {}", args.join(" ")),
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            bytes: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn ends_with(self, code: i32) -> Self {
        let Self { what, out, err, .. } = &self;
        assert_eq!(self.code, Some(code), "{what}\nstdout: {out}\nstderr: {err}");
        assert!(!err.contains("panicked"), "{what}: {err}");
        self
    }

    /// Exit code 0.
    pub(crate) fn ok(self) -> Self {
        self.ends_with(0)
    }

    /// Exit code 1.
    pub(crate) fn fails(self) -> Self {
        self.ends_with(1)
    }

    /// Exit code 2.
    pub(crate) fn refused(self) -> Self {
        self.ends_with(2)
    }

    /// Standard error holds the text.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{}\nsays: {}\nnot:  {text}", self.what, self.err);
        self
    }

    /// Standard output holds the text.
    pub(crate) fn prints(self, text: &str) -> Self {
        assert!(self.out.contains(text), "{}\nprints: {}\nnot:    {text}", self.what, self.out);
        self
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// What ctrl-C sends.
#[cfg(unix)]
pub(crate) fn interrupt(child: &Child) {
    signal("-INT", child);
}

/// What a supervisor sends.
#[cfg(unix)]
pub(crate) fn terminate(child: &Child) {
    signal("-TERM", child);
}

#[cfg(unix)]
fn signal(signal: &str, child: &Child) {
    let done = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}

/// Bytes of the files in a folder, while somebody works in it.
pub(crate) fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.metadata().map_or(0, |meta| meta.len())).sum()
}
