//! `import`: bad lines, interruptions, and going on after them.

use std::io::Write;

use crate::folder::{Folder, PLAIN, Ran};

fn line(n: usize) -> String {
    format!("{{\"key\":\"{n:06}\",\"value\":\"v{n}\"}}\n")
}

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(line).collect()
}

#[test]
fn entries_are_imported_from_a_file_and_from_a_pipe() {
    let folder = Folder::new(PLAIN);
    folder.write("all.jsonl", lines(0..3));
    folder.run(&["import", "all.jsonl"]).ok().prints("imported 3 entries").says("importing:");
    assert_eq!(folder.entries(), ["000000=v0", "000001=v1", "000002=v2"]);
    let json = folder.run_with(&["import", "-", "--json"], lines(3..5)).ok().json();
    assert_eq!(json["entries"], 2);
    assert_eq!(json["last_line"], 2);
    assert_eq!(folder.entries().len(), 5);
}

#[test]
fn what_editors_and_systems_add_is_taken() {
    let folder = Folder::new(PLAIN);
    let text = "\u{feff}{\"key\":\"a\",\"value\":\"1\"}\r\n\r\n  \n{\"key\":\"b\",\"value\":\"2\"}";
    folder.run_with(&["import", "-"], text).ok().prints("imported 2 entries");
    assert_eq!(folder.entries(), ["a=1", "b=2"]);
    folder.run_with(&["import", "-"], "").ok().prints("imported 0 entries");
}

#[test]
fn a_bad_line_of_a_file_means_that_nothing_is_written() {
    let folder = Folder::new(PLAIN);
    let good = lines(0..20_000);
    for (bad, message) in [
        ("nonsense\n", ":20001: this is not a JSON object; write one a line"),
        ("{\"key\":\"a\"}\n", ":20001: no value; write \"value\" with text, or \"value64\""),
        (
            "{\"key\":\"a\",\"value\":\"b\",\"ttl\":1}\n",
            ":20001:28: unknown field `ttl`, expected one of",
        ),
        (
            "{\"key\":\"a\",\"key64\":\"YQ==\",\"value\":\"\"}\n",
            ":20001: both key and key64 are given",
        ),
        ("{\"key64\":\"*\",\"value\":\"\"}\n", ":20001: key64 is not base64"),
        ("{\"key\":\"\",\"value\":\"\"}\n", ":20001: the key is empty"),
        (
            "{\"key\":\"a\",\"value\":\"\",\"expires_at\":\"2030-01-01T00:00:00Z\"}\n",
            "add the layer `expire`",
        ),
        ("{\"key\":\"a\",\n\"value\":\"\"}\n", "an entry must be on one line"),
    ] {
        folder.write("all.jsonl", format!("{good}{bad}{}", lines(0..3)));
        folder
            .run(&["import", "all.jsonl"])
            .fails()
            .says("error: all.jsonl:20001")
            .says(message)
            .says("next: correct the line and run it again; nothing was written");
        assert!(folder.entries().is_empty(), "{bad}");
    }
    folder.write("all.jsonl", b"{\"key\":\"a\",\"value\":\"\xff\"}");
    folder.run(&["import", "all.jsonl"]).fails().says("all.jsonl:1:21: the bytes are not UTF-8");
    folder.write("all.jsonl", b"\x1f\x8b\x08rest");
    folder.run(&["import", "all.jsonl"]).fails().says("this is gzip; unpack it");
}

#[test]
fn a_line_over_the_limit_is_not_read_into_memory() {
    let folder = Folder::new(PLAIN);
    let long = format!("{{\"key\":\"a\",\"value\":\"{}\"}}\n", "x".repeat(2000));
    folder.write("all.jsonl", &long);
    folder
        .run(&["import", "all.jsonl", "--max-line", "1KiB"])
        .fails()
        .says("all.jsonl:1:1025: the line is longer than 1024 bytes; --max-line raises the limit");
    folder.run(&["import", "all.jsonl", "--max-line", "4KiB"]).ok();
}

#[test]
fn a_key_over_the_limit_is_named_before_anything_is_written() {
    let folder = Folder::new(PLAIN);
    let long = format!("{{\"key\":\"{}\",\"value\":\"\"}}\n", "k".repeat(65_537));
    folder.write("all.jsonl", line(0) + &long);
    folder.run(&["import", "all.jsonl"]).fails().says("all.jsonl:2: a key of 65537 bytes is over");
    assert!(folder.entries().is_empty());
}

#[test]
fn a_bad_line_of_a_pipe_keeps_what_came_before_it_and_says_how_to_go_on() {
    let folder = Folder::new(PLAIN);
    let (before, after) = (lines(0..20_000), lines(20_001..20_003));
    let bad = format!("{before}{{\"key\":}}\n{after}");
    folder
        .run_with(&["import", "-"], &bad)
        .fails()
        .says("error: -:20001:8: not JSON")
        .says("next: 20,000 entries are in the store, up to line 20000")
        .says("`tierstack import - --from-line 20001`");
    assert_eq!(folder.entries().len(), 20_000);
    let good = format!("{before}{}{after}", line(20_000));
    let again = ["import", "-", "--from-line", "20001"];
    folder.run_with(&again, good).ok().prints("imported 3 entries");
    assert_eq!(folder.entries().len(), 20_003);
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let folder = Folder::new(PLAIN);
    folder
        .run(&["import", "nowhere.jsonl"])
        .fails()
        .says("nowhere.jsonl cannot be read")
        .says("No such file");
    std::fs::create_dir(folder.path("folder")).unwrap();
    folder.run(&["import", "folder"]).fails().says("folder is a folder; import reads a file");
    folder.run(&["import"]).refused().says("<FILE|->");
    folder.run(&["import", "x", "--from-line", "0"]).refused().says("--from-line");
    assert_eq!(folder.names(), ["folder", "tierstack.yaml"], "nothing was opened");
}

/// Bytes in RocksDB's write-ahead log: the first batch is in it.
#[cfg(unix)]
fn journalled(folder: &Folder) -> u64 {
    let files = std::fs::read_dir(folder.path("data")).into_iter().flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|name| name == "log"));
    logs.map(|file| file.metadata().map_or(0, |meta| meta.len())).sum()
}

#[cfg(unix)]
#[test]
fn ctrl_c_says_what_is_in_and_the_rest_can_follow() {
    use crate::folder::interrupt;
    let folder = Folder::new(PLAIN);
    let mut child = folder.spawn(&["import", "-"]);
    let mut input = child.stdin.take().unwrap();
    // More than one batch; then the input stays open, and the command waits for more.
    let all = lines(0..30_000);
    input.write_all(all.as_bytes()).unwrap();
    while journalled(&folder) < 100_000 {
        std::thread::yield_now();
    }
    interrupt(&child);
    let ran = Ran::new(&["import"], child.wait_with_output().unwrap()).fails();
    drop(input);
    let ran = ran
        .says("stopped by request: the import is not complete")
        .says("are in the store, up to line");
    let from = ran.err.rsplit("--from-line ").next().unwrap().split('`').next().unwrap().to_owned();
    let there = folder.entries();
    assert_eq!(there.len() + 1, from.parse::<usize>().unwrap(), "{}", ran.err);
    folder.run_with(&["import", "-", "--from-line", &from], &all).ok();
    assert_eq!(folder.entries().len(), 30_000);
}

#[cfg(unix)]
#[test]
fn ctrl_c_while_the_file_is_checked_means_that_nothing_is_written() {
    use crate::folder::interrupt;
    let folder = Folder::new(PLAIN);
    let mut file =
        std::io::BufWriter::new(std::fs::File::create(folder.path("all.jsonl")).unwrap());
    for n in 0..4_000_000 {
        file.write_all(line(n).as_bytes()).unwrap();
    }
    file.into_inner().unwrap();
    let child = folder.spawn(&["import", "all.jsonl"]);
    // The store is open: its lock is there, and the check has begun.
    while !folder.path("data/LOCK").exists() {
        std::thread::yield_now();
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    interrupt(&child);
    let ran = Ran::new(&["import"], child.wait_with_output().unwrap()).fails();
    ran.says("stopped by request: ").says("nothing was written");
    assert!(folder.entries().is_empty());
}

/// The disk is a small one of its own, which needs the right to mount.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_says_what_is_in_and_how_to_go_on() {
    let folder = Folder::new(PLAIN);
    std::fs::create_dir(folder.path("data")).unwrap();
    let data = folder.path("data");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"])
        .arg(&data)
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    }
    let value: String =
        (0..50_000_u32).map(|n| char::from(b'a' + (n.wrapping_mul(n) >> 7) as u8 % 26)).collect();
    let big: String =
        (0..800).map(|n| format!("{{\"key\":\"{n:06}\",\"value\":\"{n}{value}\"}}\n")).collect();
    folder.write("all.jsonl", big);
    let ran = folder.run(&["import", "all.jsonl"]);
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&data).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    ran.fails().says("next: free space").says("--from-line");
}

/// `9999-12-31T23:59:59Z` is how many systems write "never".
#[test]
fn every_expiry_that_is_exported_can_be_imported() {
    let folder = Folder::new(
        "stores: { main: { layers: [ expire ], backend: { rocksdb: { path: data } } } }\n",
    );
    let times = [
        "2100-01-01T00:00:00Z",
        "9999-12-30T22:00:00.999Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59.999Z",
        "+010000-01-01T00:00:00Z",
        "+033658-09-27T01:46:40.001Z",
    ];
    let line = |(at, time): (usize, &&str)| {
        format!("{{\"key\":\"{at}\",\"value\":\"v\",\"expires_at\":\"{time}\"}}\n")
    };
    let lines: String = times.iter().enumerate().map(line).collect();
    folder.run_with(&["import", "-"], &lines).ok();
    let exported = folder.run(&["export"]).ok().out;
    assert_eq!(exported, lines);
    folder.run_with(&["import", "-"], exported).ok();
}
