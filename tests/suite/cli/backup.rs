//! `backup` and `rewrite`.

use crate::folder::{Folder, Ran};

const KEYS: &str = "ts1:";

/// A sealed store with backups, and an empty one to restore into.
const CONFIG: &str = "\
stores:
  main:
    layers:
      - compress: { codec: zstd }
      - encrypt: { keys: { file: keys.txt } }
      - backup: { to: backups }
    backend: { rocksdb: { path: data } }
  restored:
    layers:
      - compress: { codec: zstd }
      - encrypt: { keys: { file: keys.txt } }
    backend: { rocksdb: { path: restored } }
default: main
";

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("{{\"key\":\"{n:06}\",\"value\":\"value {n}\"}}\n")).collect()
}

fn filled(entries: usize) -> Folder {
    filled_with(CONFIG, entries)
}

fn filled_with(config: &str, entries: usize) -> Folder {
    let folder = Folder::new(config);
    let keys = folder.run(&["keys", "generate"]).ok().out;
    assert!(keys.lines().last().unwrap().starts_with(KEYS));
    folder.write("keys.txt", keys);
    folder.run_with(&["import", "-"], lines(0..entries)).ok();
    folder
}

const RESTORE: [&str; 6] =
    ["backup", "restore", "--into", "tierstack.yaml", "--into-store", "restored"];

fn restore(folder: &Folder, more: &[&str]) -> Ran {
    folder.run(&[&RESTORE[..], more].concat())
}

#[test]
fn a_backup_restores_into_another_store() {
    let folder = filled(3000);
    folder
        .run(&["backup", "run"])
        .ok()
        .prints("took base ")
        .prints("3,000 entries")
        .says("backing up");
    std::fs::remove_dir_all(folder.path("data")).unwrap();
    restore(&folder, &["--dry-run"])
        .ok()
        .prints("would restore base ")
        .prints("into      restored of tierstack.yaml")
        .prints("nothing was written");
    assert!(!folder.path("restored").exists());
    restore(&folder, &[])
        .ok()
        .prints("restored 3,000 entries")
        .prints("; read back and compared: equal");
    let out = folder.run(&["export", "--store", "restored"]).ok().out;
    assert_eq!(out, lines(0..3000));
    assert!(
        !folder.path("data").exists(),
        "listing, planning and restoring do not open the source"
    );
}

#[test]
fn each_base_can_be_reached() {
    let folder = filled(10);
    folder.run(&["backup", "run"]).ok();
    folder.run(&["put", "more", "1"]).ok();
    let taken = folder.run(&["backup", "run", "--json"]).ok().json();
    assert_eq!(taken["base"]["entries"], 11);
    let bases = folder.run(&["backup", "list", "--json"]).ok().json();
    assert_eq!(bases.as_array().unwrap().len(), 2);
    folder.run(&["backup", "list"]).ok().prints("time").prints(bases[1]["id"].as_str().unwrap());
    let first = bases[0]["id"].as_str().unwrap();
    let json = restore(&folder, &["--base", first, "--json"]).ok().json();
    assert_eq!(json["restored"]["entries"], 10);
    assert_eq!(json["plan"]["base"]["id"], first);
}

#[test]
fn a_moment_that_no_backup_reaches_says_what_there_is() {
    let folder = filled(10);
    folder.run(&["backup", "run"]).ok();
    restore(&folder, &["--at", "2001-01-01T00:00:00Z"]).fails().says("the oldest is of 20");
    restore(&folder, &["--seq", "77777"]).fails().says("sequence 77777");
    restore(&folder, &["--at", "yesterday"]).refused().says("write RFC 3339");
    restore(&folder, &["--at", "2001-01-01T00:00:00Z", "--seq", "1"])
        .refused()
        .says("cannot be used");
    let plan = restore(&folder, &["--at", "2999-01-01T00:00:00Z", "--dry-run"]).ok();
    plan.prints("asked for 2999-01-01T00:00:00Z: the newest base before it is of 20");
}

#[test]
fn a_prefix_restores_a_part() {
    let folder = filled(1000);
    folder.run(&["backup", "run"]).ok();
    restore(&folder, &["--prefix", "0001"]).ok().prints("restored 100 entries");
    assert_eq!(folder.run(&["scan", "--store", "restored"]).ok().out, lines(100..200));
}

#[test]
fn a_target_that_is_not_empty_is_left_alone() {
    let folder = filled(10);
    folder.run(&["backup", "run"]).ok();
    folder.run(&["put", "mine", "1", "--store", "restored"]).ok();
    restore(&folder, &[]).fails().says("empty");
    assert_eq!(folder.run(&["scan", "--store", "restored"]).ok().out.lines().count(), 1);
}

#[test]
fn without_a_backup_or_a_layer_it_says_what_to_do() {
    let folder = filled(1);
    folder.run(&["backup", "list"]).fails();
    assert!(!folder.path("backups").exists(), "looking creates nothing");
    folder
        .run(&["backup", "run", "--store", "restored"])
        .refused()
        .says("stores.restored.layers: there is no layer 'backup'")
        .says("backup: { to: ./backups }");
    folder.run(&["backup", "restore"]).refused().says("--into <CONFIG>");
}

#[test]
fn verify_lists_what_is_damaged() {
    let folder = filled(3000);
    folder.run(&["backup", "run"]).ok();
    let ran = folder.run(&["backup", "verify"]).ok().prints("every byte is as it was written");
    assert!(
        ran.err.contains("verifying: 3,000 entries, "),
        "the number that was read: {}",
        ran.err
    );
    let pack = packs(&folder).remove(0);
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    folder
        .run(&["backup", "verify"])
        .fails()
        .prints("damaged: data/")
        .says("the backups have ")
        .says("`tierstack backup run --whole`");
    let json = folder.run(&["backup", "verify", "--json"]).fails().json();
    assert!(!json["findings"].as_array().unwrap().is_empty());
    restore(&folder, &[]).fails().says("--resume goes on once the backup is whole again");
    folder.run(&["backup", "run", "--whole"]).ok();
}

#[test]
fn verify_of_nothing_is_no_yes() {
    let folder = filled(10);
    folder.run(&["backup", "run"]).ok();
    for head in std::fs::read_dir(folder.path("backups/head")).unwrap() {
        std::fs::remove_file(head.unwrap().path()).unwrap();
    }
    let ran = folder.run(&["backup", "verify"]).fails();
    assert!(!ran.out.contains("every byte"), "{}", ran.out);
    ran.says("there is no base").says("bring back what is missing from head/");
    std::fs::remove_file(folder.path("backups/repo.json")).unwrap();
    for command in ["list", "verify", "run"] {
        folder.run(&["backup", command]).fails().says("but no 'repo.json'; bring it back");
    }
}

#[test]
fn one_value_that_cannot_be_opened_does_not_stop_a_rotation() {
    let folder = filled(1);
    let key = || folder.run(&["keys", "generate"]).ok().out;
    let (second, third) = (key(), key());
    let first = std::fs::read_to_string(folder.path("keys.txt")).unwrap();
    folder.write("keys.txt", &second);
    folder
        .run(&["put", "mine", "1"])
        .refused()
        .says("nothing is written next to them")
        .says("add that key to the ring");
    folder.write("keys.txt", format!("{second}{first}"));
    folder.run(&["put", "mine", "1"]).ok();
    folder.write("keys.txt", format!("{third}{second}"));
    folder
        .run(&["rewrite"])
        .fails()
        .prints("encrypt: wrote 1 of 2 entries again; 1 cannot be decoded")
        .says("compress was not rewritten to the end");
    folder.write("keys.txt", third);
    assert_eq!(folder.run(&["get", "mine"]).ok().out, "1");
}

#[test]
fn what_only_memory_holds_is_said_to_be_gone() {
    let folder = filled(10);
    folder.run(&["backup", "run"]).ok();
    folder.write("memory.yaml", "stores: { main: { backend: memory } }\n");
    let note = "note: this store is in memory only";
    folder.run(&["backup", "restore", "--into", "memory.yaml"]).ok().says(note);
    folder.run(&["copy", "--to", "memory.yaml", "--verify"]).ok().says(note);
    folder.run(&["put", "--config", "memory.yaml", "a", "1"]).ok().says(note);
    assert!(!folder.run(&["put", "a", "1"]).ok().err.contains("note:"));
}

fn packs(folder: &Folder) -> Vec<std::path::PathBuf> {
    let mut packs = Vec::new();
    let mut folders = vec![folder.path("backups/data")];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut folders } else { &mut packs }.push(path);
        }
    }
    packs
}

#[test]
fn rewrite_brings_old_values_into_the_present_form() {
    let folder = Folder::new("stores: { main: { backend: { rocksdb: { path: data } } } }");
    folder.run_with(&["import", "-"], lines(0..500)).ok();
    folder.run(&["rewrite"]).refused().says("no layer that encodes values");
    folder.write("keys.txt", folder.run(&["keys", "generate"]).ok().out);
    let sealed = |accept| {
        format!(
            "stores: {{ main: {{ layers: [ {{ encrypt: {{ keys: {{ file: keys.txt }}{accept} }} }} ], backend: \
             {{ rocksdb: {{ path: data }} }} }} }}"
        )
    };
    folder.write("tierstack.yaml", sealed(", accept_plain: true"));
    folder.run(&["rewrite"]).ok().prints("encrypt: wrote 500 of 500 entries again");
    let json = folder.run(&["rewrite", "--json"]).ok().json();
    assert_eq!(json[0]["layer"], "encrypt");
    assert_eq!(json[0]["rewritten"], 0, "everything is as it should be");
    folder.write("tierstack.yaml", sealed(""));
    assert_eq!(folder.run(&["export"]).ok().out, lines(0..500));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_half_base_and_a_restore_that_can_go_on() {
    use crate::folder::interrupt;
    let folder = Folder::new(CONFIG);
    folder.write("keys.txt", folder.run(&["keys", "generate"]).ok().out);
    // Values that do not compress, so that there is enough to do.
    let noise = |n: usize| -> String {
        let mut state = n as u64 + 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'a' + (state % 26) as u8)
        };
        (0..20_000).map(|_| next()).collect()
    };
    let all: String =
        (0..6000).map(|n| format!("{{\"key\":\"{n:06}\",\"value\":\"{}\"}}\n", noise(n))).collect();
    folder.run_with(&["import", "-"], &all).ok();

    let child = folder.spawn(&["backup", "run"]);
    while !folder.path("backups/data").exists() {
        std::thread::yield_now();
    }
    interrupt(&child);
    let ran = Ran::new(&["backup", "run"], child.wait_with_output().unwrap());
    ran.fails().says("stopped by request").says("no base was taken");
    assert_eq!(folder.run(&["backup", "list", "--json"]).ok().out, "[]\n");
    folder.run(&["backup", "list"]).ok().prints("there is no base yet");
    folder.run(&["backup", "run"]).ok();

    let child = folder.spawn(&RESTORE);
    while crate::folder::size(&folder.path("restored")) < 1 << 21 {
        std::thread::yield_now();
    }
    interrupt(&child);
    let ran = Ran::new(&RESTORE, child.wait_with_output().unwrap());
    ran.fails().says("stopped by request").says("the same command with --resume goes on");
    restore(&folder, &[]).fails().says("restore");
    folder
        .run(&["get", "000000", "--store", "restored"])
        .fails()
        .says("this store holds part of a restore that was cut off");
    restore(&folder, &["--resume"]).ok().prints("restored 6,000 entries");
    assert_eq!(folder.run(&["export", "--store", "restored"]).ok().out, all);
}

#[test]
fn nothing_is_restored_below_a_journal_that_holds_writes() {
    use tierstack::journal::{Journal, Settings, batch};

    let backend = "    backend: { rocksdb: { path: restored } }";
    let with_journal = format!("      - write_back: {{ path: waiting }}\n{backend}");
    let folder = filled_with(&CONFIG.replace(backend, &with_journal), 10);
    folder.run(&["backup", "run"]).ok();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let journal = Journal::open(folder.path("waiting"), Settings::default()).await.unwrap();
        let batch = tierstack::Batch::new().put("000001", "newer");
        let _ = journal.append(batch::encode(&batch).unwrap()).await.unwrap();
        journal.close().await.unwrap();
    });
    let ran =
        restore(&folder, &[]).fails().says("waiting holds 1 batch that this store does not have");
    ran.says("tierstack journal drain").says("--over-journal");
    assert!(!folder.path("restored").exists(), "the store was not opened");
    restore(&folder, &["--over-journal"]).ok().prints("restored 10 entries");
    folder
        .run(&["journal", "inspect", "--store", "restored"])
        .ok()
        .prints("waiting   1 batch (1 to 1)");
}
