//! The machine's clocks, as a process sees them that runs after the machine has slept.
//!
//! A time namespace moves the clock that counts sleep ahead of the one that does not, as a sleep does. Making one
//! needs root on Linux. Without it the test prints why it is skipped; with `CI` set it fails instead.
#![cfg(target_os = "linux")]

use std::process::Command;
use std::time::Duration;

use tierstack::{Clock, SystemClock};

const ROLE: &str = "TIERSTACK_CLOCK_TEST_CHILD";
const SLEPT: Duration = Duration::from_secs(86_400);

fn read() -> [Duration; 2] {
    [SystemClock.coarse(), SystemClock.monotonic()]
}

#[test]
fn time_in_which_the_machine_slept_counts() {
    if std::env::var_os(ROLE).is_some() {
        let [coarse, exact] = read().map(|time| time.as_nanos());
        println!("@@ {coarse} {exact}");
        return;
    }
    let before = read();
    let asleep = Command::new("unshare")
        .args(["--time", &format!("--boottime={}", SLEPT.as_secs()), "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "clock::time_in_which_the_machine_slept_counts", "--nocapture"])
        .env(ROLE, "1")
        .output();
    let after = SystemClock.monotonic() + SLEPT;
    let output = match asleep {
        Ok(output) if output.status.success() => output,
        other => {
            assert!(std::env::var_os("CI").is_none(), "no time namespace: {other:?}");
            eprintln!("skipped: no time namespace can be made here: {other:?}");
            return;
        }
    };
    let output = String::from_utf8(output.stdout).unwrap();
    let (_, line) = output.split_once("@@ ").unwrap();
    let read = line.split_whitespace().take(2).map(|nanos| nanos.parse().unwrap());
    let read: Vec<_> = read.map(Duration::from_nanos).collect();
    for (read, before) in read.iter().zip(before) {
        assert!(*read >= before + SLEPT && *read <= after, "{before:?} {read:?} {after:?}");
    }
    assert_eq!(read.len(), 2);
}
