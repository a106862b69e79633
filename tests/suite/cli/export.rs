//! `export`.

use crate::folder::{Folder, PLAIN};

fn filled() -> Folder {
    let folder = Folder::new(PLAIN);
    folder
        .run_with(
            &["import", "-"],
            "{\"key\":\"a\",\"value64\":\"/w==\"}\n{\"key64\":\"/w==\",\"value\":\"ü\"}",
        )
        .ok();
    folder
}

const LINES: &str = "{\"key\":\"a\",\"value64\":\"/w==\"}\n{\"key64\":\"/w==\",\"value\":\"ü\"}\n";

#[test]
fn what_is_exported_imports_to_the_same() {
    let folder = filled();
    assert_eq!(folder.run(&["export"]).ok().out, LINES);
    folder.run(&["export", "--output", "all.jsonl"]).ok().prints("exported 2 entries to all.jsonl");
    assert_eq!(folder.read("all.jsonl"), LINES);
    let other = Folder::new(PLAIN);
    other
        .run(&["import", folder.path("all.jsonl").to_str().unwrap()])
        .ok()
        .prints("imported 2 entries");
    assert_eq!(other.run(&["export"]).ok().out, LINES);
    assert_eq!(folder.run(&["export", "--prefix", "a"]).ok().out.lines().count(), 1);
}

#[test]
fn a_file_is_replaced_as_a_whole_and_nothing_else_is_left() {
    let folder = filled();
    folder.write("all.jsonl", "before");
    folder.run(&["export", "--output", "all.jsonl"]).ok();
    assert_eq!(folder.read("all.jsonl"), LINES);
    assert_eq!(folder.names(), ["all.jsonl", "data", "tierstack.yaml"]);
}

#[test]
fn a_place_that_cannot_be_written_leaves_nothing() {
    let folder = filled();
    folder
        .run(&["export", "--output", "no/where.jsonl"])
        .fails()
        .says("no/where.jsonl cannot be written");
    std::fs::create_dir(folder.path("folder")).unwrap();
    folder.run(&["export", "--output", "folder"]).refused().says("folder is a folder");
    assert_eq!(folder.names(), ["data", "folder", "tierstack.yaml"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_what_to_do() {
    let folder = filled();
    let out = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = folder.command(&["export"]).stdout(out).output().unwrap();
    let ran = crate::folder::Ran::new(&["export"], output).fails();
    ran.says("standard output cannot be written").says("No space left").says("next: free space");
}

/// A store so large that the export is still at work when the signal comes.
#[cfg(unix)]
#[test]
fn ctrl_c_leaves_the_former_file() {
    use crate::folder::{Ran, interrupt};
    let folder = Folder::new(PLAIN);
    let value = "x".repeat(100_000);
    let lines: String =
        (0..1500).map(|n| format!("{{\"key\":\"{n:05}\",\"value\":\"{value}\"}}\n")).collect();
    folder.run_with(&["import", "-"], lines).ok();
    folder.write("all.jsonl", "before");
    let child = folder.spawn(&["export", "--output", "all.jsonl"]);
    while !folder.names().iter().any(|name| name.starts_with(".tierstack-export-")) {
        std::thread::yield_now();
    }
    interrupt(&child);
    let ran = Ran::new(&["export"], child.wait_with_output().unwrap()).fails();
    ran.says("stopped by request").says("nothing was left behind; all.jsonl is as it was");
    assert_eq!(folder.read("all.jsonl"), "before");
    assert_eq!(folder.names(), ["all.jsonl", "data", "tierstack.yaml"]);
}
