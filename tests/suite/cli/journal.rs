//! `journal`: what is acknowledged and not in the store below, while the store is closed.

use tierstack::journal::{Journal, Settings, batch};
use tierstack::{Batch, Value};

use crate::folder::Folder;

const CONFIG: &str = "\
stores:
  main:
    layers:
      - write_back: { path: journal }
    backend: { file: { path: data, create: true } }
  plain:
    backend: { file: { path: data, create: true } }
  memory:
    layers:
      - write_back: { ack: memory }
    backend: { file: { path: data, create: true } }
default: main
";

/// What no file name is long enough for.
fn refused() -> String {
    "x".repeat(5000)
}

/// A folder with the journal of a process that was killed. The first batch has the sequence 1.
fn left_behind(batches: Vec<Batch>) -> Folder {
    let folder = Folder::new(CONFIG);
    std::fs::create_dir(folder.path("data")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let journal = Journal::open(folder.path("journal"), Settings::default()).await.unwrap();
        for one in batches {
            let _ = journal.append(batch::encode(&one).unwrap()).await.unwrap();
        }
        journal.close().await.unwrap();
    });
    folder
}

fn three() -> Vec<Batch> {
    vec![
        Batch::new().put("a", "1").put("b", "1"),
        Batch::new().put(refused(), "secret value").delete("c").put("d", "1"),
        Batch::new().put("a", "2").delete("b"),
    ]
}

#[test]
fn numbers_are_shown_and_neither_keys_nor_values() {
    let folder = left_behind(three());
    let ran = folder.run(&["journal", "inspect"]).ok();
    let ran = ran.prints("waiting   3 batches (1 to 3): 5 puts, 2 deletes, ");
    assert!(!ran.out.contains("secret") && !ran.out.contains("xxx"), "{}", ran.out);
    let rows: Vec<Vec<&str>> =
        ran.out.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    for row in [["1", "2", "0"], ["2", "2", "1"], ["3", "1", "1"]] {
        assert!(rows.contains(&row.to_vec()), "{}", ran.out);
    }
    folder.run(&["journal", "inspect", "--limit", "1"]).ok().prints("\nand 2 more\n");
    let json = folder.run(&["journal", "inspect", "--json"]).ok().json();
    assert_eq!(
        (&json["batches"], &json["first"], &json["last"]),
        (&3.into(), &1.into(), &3.into())
    );
    assert_eq!(json["list"][1]["deletes"], 1);
    assert_eq!(json["store"], serde_json::Value::Null);
    assert!(folder.names().contains(&"journal".to_owned()));
    assert_eq!(std::fs::read_dir(folder.path("data")).unwrap().count(), 0, "no store was opened");
}

#[test]
fn what_is_left_is_written_once_and_in_order() {
    let folder = left_behind(vec![
        Batch::new().put("a", "1").put("b", "1"),
        Batch::new().put("a", "2").delete("b").put("a", "3"),
    ]);
    folder
        .run(&["journal", "drain"])
        .ok()
        .prints("wrote 2 batches to the store below; nothing waits any more");
    assert_eq!(folder.run(&["get", "a", "--store", "plain"]).ok().out, "3");
    folder.run(&["get", "b", "--store", "plain"]).fails();
    folder
        .run(&["journal", "drain"])
        .ok()
        .prints("nothing waited: the store below had every batch");
    folder
        .run(&["journal", "inspect"])
        .ok()
        .prints("nothing waits: the store below has every batch");
    assert_eq!(folder.run(&["journal", "drain", "--json"]).ok().json()["batches"], 0);
    // Nothing is written again by the stack itself.
    folder.run(&["put", "a", "4", "--store", "plain"]).ok();
    assert_eq!(folder.run(&["get", "a"]).ok().out, "4");
}

#[test]
fn a_refused_batch_is_named_and_left_out_once_a_copy_is_kept() {
    let folder = left_behind(three());
    let drain = || folder.run(&["journal", "drain"]);
    let ran = drain().fails().says("the store does not take the batch 2; what is before it is there, and it and what is behind it stay in the journal");
    let ran = ran.says("`tierstack journal skip` leaves out a batch that it refuses for good");
    assert!(!ran.err.contains("secret value"), "{}", ran.err);
    drain().fails().says("the store does not take the batch 2;");
    assert_eq!(folder.run(&["get", "b", "--store", "plain"]).ok().out, "1");

    let skip = |sequence: &str| folder.run(&["journal", "skip", sequence, "--copy", "copy.jsonl"]);
    skip("3").fails().says("the batch 3 is not the first that the store does not have: that is 2, and only that one can be left out");
    assert!(!folder.path("copy.jsonl").exists());
    folder
        .run(&["journal", "skip", "2", "--copy", "journal/copy"])
        .refused()
        .says("belongs to the store 'main' (write_back), and would be destroyed");
    folder.write("copy.jsonl", "mine");
    skip("2").refused().says(
        "copy.jsonl is there already, and is not replaced; name a new file, nothing was left out",
    );
    assert_eq!(folder.read("copy.jsonl"), "mine");
    folder
        .run(&["journal", "skip", "2", "--copy", "no/copy"])
        .fails()
        .says("cannot be written, so nothing was left out");
    std::fs::remove_file(folder.path("copy.jsonl")).unwrap();

    let ran = skip("2").ok().prints("left out the batch 2 (2 puts, 1 delete); its keys and values are in copy.jsonl, which only its owner can read");
    assert!(!ran.out.contains("secret value") && !ran.err.contains("secret value"));
    let lines = format!(
        "{{\"key\":\"{}\",\"value\":\"secret value\"}}\n{{\"op\":\"delete\",\"key\":\"c\"}}\n{{\"key\":\"d\",\"value\":\"1\"}}\n",
        refused()
    );
    assert_eq!(folder.read("copy.jsonl"), lines);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path("copy.jsonl")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    drain().ok().prints("wrote 1 batch to the store below");
    assert_eq!(folder.run(&["get", "a", "--store", "plain"]).ok().out, "2");
    folder
        .run(&["journal", "skip", "3", "--copy", "more.jsonl"])
        .fails()
        .says("the journal holds no batch that the store does not have");
}

#[test]
fn where_there_is_no_journal_it_is_said_and_none_is_made() {
    let folder = Folder::new(CONFIG);
    for command in [&["inspect"][..], &["drain"], &["skip", "1", "--copy", "copy"]] {
        let run = |store| folder.run(&[&["journal"], command, &["--store", store]].concat());
        run("plain").refused().says("tierstack.yaml: stores.plain.layers: there is no layer 'write_back', so nothing waits for the store below; `--store NAME` names another store");
        run("memory").refused().says("write_back has no `path` here, so there is no journal");
        run("main")
            .fails()
            .says("there is no journal in ")
            .says("; the stack has not been opened yet, or another path was meant");
    }
    assert_eq!(folder.names(), ["tierstack.yaml"]);
}

#[test]
fn an_open_journal_is_left_alone() {
    let folder = left_behind(three());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open = Journal::open(folder.path("journal"), Settings::default());
    let open = runtime.block_on(open).unwrap();
    for command in [&["inspect"][..], &["drain"], &["skip", "1", "--copy", "copy"]] {
        folder
            .run(&[&["journal"], command].concat())
            .fails()
            .says("is open already, in another process or in this one")
            .says("end the process that runs the store; while it runs, `tierstack status` tells how much waits");
    }
    runtime.block_on(open.close()).unwrap();
    folder.run(&["journal", "inspect"]).ok().prints("3 batches");
}

#[test]
fn writes_for_other_data_are_not_drained() {
    let folder = left_behind(vec![Batch::new().put("a", Value::from("1"))]);
    folder.write("journal/store", "tierstack write_back 1\nfile:another\n");
    folder.run(&["journal", "inspect"]).ok().prints("store     file:another");
    folder.run(&["journal", "drain"]).fails().says("'file:another'");
    folder.run(&["get", "a", "--store", "plain"]).fails();
    folder.run(&["journal", "inspect"]).ok().prints("1 batch (1 to 1)");
}
