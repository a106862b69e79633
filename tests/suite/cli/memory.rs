//! The memory of commands that go through a whole store: it does not grow with the store.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use crate::folder::Folder;

/// Runs the command that its arguments are, and ends by printing the most memory that it had, in KiB.
const MEASURED: &str = "import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)";

/// The store has about twice as much.
const BOUND: u64 = 96 << 20;
const ENTRIES: usize = 12_000;
const VALUE: usize = 16 << 10;

const CONFIG: &str = "
stores:
  main:
    backend: { sqlite: { path: main.db } }
  packed:
    layers: [{ compress: { codec: lz4, accept_plain: true } }]
    backend: { sqlite: { path: main.db } }
  other:
    backend: { sqlite: { path: other.db } }
default: main
";

fn measured(folder: &Folder, args: &[&str]) -> Command {
    let command = folder.command(args);
    let mut python = Command::new("python3");
    python.args(["-c", MEASURED]).arg(command.get_program()).args(args);
    python.current_dir(folder.path("")).stdout(Stdio::null()).stderr(Stdio::piped());
    python
}

fn stays_small(args: &[&str], child: Child) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    let most: u64 = said.lines().last().unwrap().parse::<u64>().unwrap() << 10;
    assert!(most < BOUND, "{args:?}: {} MiB instead of {} MiB", most >> 20, BOUND >> 20);
}

#[test]
fn no_command_holds_the_store() {
    let folder = Folder::new(CONFIG);
    let args = ["import", "-"];
    let mut child = measured(&folder, &args).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let value = "value ".repeat(VALUE / 6);
    for number in 0..ENTRIES {
        writeln!(input, r#"{{"key":"{number:08}","value":"{number} {value}"}}"#).unwrap();
    }
    drop(input);
    stays_small(&args, child);

    let commands: [&[&str]; 5] = [
        &["scan"],
        &["export"],
        &["copy", "--to", "tierstack.yaml", "--to-store", "other", "--verify"],
        &["rewrite", "--store", "packed"],
        &["copy", "--store", "packed", "--to", "tierstack.yaml", "--to-store", "other", "--verify"],
    ];
    for args in commands {
        stays_small(args, measured(&folder, args).stdin(Stdio::null()).spawn().unwrap());
    }
}
