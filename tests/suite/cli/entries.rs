//! `get`, `put`, `delete`, `scan`.

use std::io::{BufRead, BufReader};

use crate::folder::{Folder, PLAIN, Ran};

#[test]
fn what_is_put_is_got_as_it_is() {
    let folder = Folder::new(PLAIN);
    folder.run(&["put", "a", "one"]).ok();
    assert_eq!(folder.run(&["get", "a"]).ok().out, "one");
    folder.run_with(&["put", "b"], b"two\n\xff").ok();
    assert_eq!(folder.run(&["get", "b"]).ok().bytes, b"two\n\xff");
    folder.run_with(&["put", "b", "-"], "three").ok();
    assert_eq!(folder.run(&["get", "b"]).ok().out, "three");
    folder.run(&["put", "--key64", "/w==", "bytes"]).ok();
    assert_eq!(folder.run(&["get", "--key64", "/w"]).ok().out, "bytes");
    let line = folder.run(&["get", "--key64", "/w", "--json"]).ok().out;
    assert_eq!(line, "{\"key64\":\"/w==\",\"value\":\"bytes\"}\n");
    folder.run(&["put", "empty", ""]).ok();
    assert_eq!(folder.run(&["get", "empty"]).ok().out, "");
}

#[test]
fn a_pipe_may_come_from_the_same_store() {
    let folder = Folder::new(PLAIN);
    folder.run(&["put", "a", "one"]).ok();
    let mut get =
        folder.command(&["get", "a"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let output = folder.command(&["put", "b"]).stdin(get.stdout.take().unwrap()).output().unwrap();
    assert!(get.wait().unwrap().success());
    Ran::new(&["put", "b"], output).ok();
    assert_eq!(folder.entries(), ["a=one", "b=one"]);
}

#[test]
fn a_missing_key_says_so_and_fails() {
    let folder = Folder::new(PLAIN);
    folder.run(&["put", "a", "one"]).ok();
    let ran = folder.run(&["get", "nobody"]).fails();
    assert_eq!(
        ran.err,
        "error: the key 'nobody' does not exist\n  next: `tierstack scan --keys-only` lists the keys \
         that do\n"
    );
    assert!(ran.out.is_empty());
}

#[test]
fn wrong_keys_are_wrong_usage() {
    let folder = Folder::new(PLAIN);
    folder.run(&["get"]).refused().says("<KEY|--key64 <BASE64>>");
    folder.run(&["get", ""]).refused().says("the key is empty; it must have at least 1 byte");
    folder.run(&["get", "--key64", "!"]).refused().says("--key64 is not base64; write A-Z");
    folder.run(&["get", "a", "--key64", "YQ=="]).refused().says("cannot be used with");
    folder.run(&["delete"]).refused().says("KEY|--key64");
    folder
        .run(&["put", "a", "b", "--expires-in", "10"])
        .refused()
        .says("write a number with ms, s, m");
    folder.run(&["scan", "--from", "b", "--to", "a"]).refused().says("--from is after --to");
    folder.run(&["scan", "--prefix", "b", "--to", "a"]).refused().says("cannot be used with");
}

#[test]
fn an_expiry_that_no_layer_keeps_is_refused() {
    let folder = Folder::new(PLAIN);
    folder.run(&["put", "a", "b", "--expires-in", "10m"]).fails().says("expire");
    folder.run(&["get", "a"]).fails();
}

#[test]
fn deleting_takes_several_keys_and_does_not_mind_a_missing_one() {
    let folder = Folder::new(PLAIN);
    for key in ["a", "b", "c"] {
        folder.run(&["put", key, "x"]).ok();
    }
    folder.run(&["delete", "a", "nobody", "--key64", "Yg=="]).ok();
    assert_eq!(folder.entries(), ["c=x"]);
}

#[test]
fn a_scan_is_bounded_as_asked() {
    let folder = Folder::new(PLAIN);
    let lines: String = ["a", "b1", "b2", "b3", "c"]
        .map(|key| format!("{{\"key\":\"{key}\",\"value\":\"v\"}}\n"))
        .concat();
    folder.run_with(&["import", "-"], lines).ok();
    let keys = |args: &[&str]| -> Vec<String> {
        let args = [&["scan", "--keys-only"], args].concat();
        folder.run(&args).ok().out.lines().map(str::to_owned).collect()
    };
    assert_eq!(keys(&[]), ["a", "b1", "b2", "b3", "c"]);
    assert_eq!(keys(&["--prefix", "b"]), ["b1", "b2", "b3"]);
    assert_eq!(keys(&["--prefix", "b", "--reverse", "--limit", "2"]), ["b3", "b2"]);
    assert_eq!(keys(&["--from", "b1", "--to", "b3"]), ["b1", "b2"]);
    assert_eq!(keys(&["--limit", "0"]), [""; 0]);
    assert_eq!(keys(&["--json", "--limit", "1"]), ["{\"key\":\"a\"}"]);
    folder.run(&["scan", "--limit", "1"]).ok().prints("{\"key\":\"a\",\"value\":\"v\"}\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_scan_quietly() {
    let folder = Folder::new(PLAIN);
    let value = "x".repeat(1000);
    let lines: String =
        (0..2000).map(|n| format!("{{\"key\":\"{n:05}\",\"value\":\"{value}\"}}\n")).collect();
    folder.run_with(&["import", "-"], lines).ok();
    let mut child = folder.spawn(&["scan"]);
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"key\":\"00000\""));
    let ran = Ran::new(&["scan"], child.wait_with_output().unwrap()).ok();
    assert_eq!(ran.err, "");
}

/// A misspelt path is not a new database.
#[test]
fn what_only_reads_or_removes_makes_nothing() {
    let folder = Folder::new(
        "stores:\n  main: { layers: [ compress, backup: { to: ./backups } ], backend: { rocksdb: { path: dtaa } } }\n  \
         other: { backend: { rocksdb: { path: other } } }\ndefault: main\n",
    );
    for args in [
        &["get", "a"][..],
        &["scan"],
        &["export"],
        &["export", "--output", "all.jsonl"],
        &["delete", "a"],
        &["inspect", "a"],
        &["inspect", "--fingerprint", "0123456789abcdef"],
        &["cache", "invalidate", "a"],
        &["rewrite"],
        &["copy", "--to", "tierstack.yaml", "--to-store", "other"],
    ] {
        let ran = folder.run(args);
        assert_ne!(ran.code, Some(0), "{args:?}: {}", ran.err);
        assert_eq!(folder.names(), ["tierstack.yaml"], "{args:?}");
    }
}
