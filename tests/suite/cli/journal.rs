//! `journal`: what is acknowledged and not in the store below, while the store is closed.

use tierstack::journal::{Journal, Settings, batch};
use tierstack::{Batch, Value};

use crate::folder::Folder;

const CONFIG: &str = "\
stores:
  main:
    layers:
      - write_back: { path: journal }
    backend: { object: { url: ./data } }
  plain:
    backend: { object: { url: ./data } }
  memory:
    layers:
      - write_back: { ack: memory }
    backend: { object: { url: ./data } }
default: main
";

/// A key that the store below refuses for good: no name of an object is long enough for it.
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
        (&json["batches"][1]["sequence"], &json["batches"][1]["deletes"]),
        (&2.into(), &1.into())
    );
    assert_eq!(json["owner"], serde_json::Value::Null);
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
fn a_refused_batch_is_named_and_taken_out_into_another_journal() {
    let folder = left_behind(three());
    let drain = || folder.run(&["journal", "drain"]);
    let ran = drain().fails().says("error: not everything was drained: the batch 2: ");
    let ran = ran.says("`tierstack journal skip` takes out a batch that is refused for good");
    assert!(!ran.err.contains("secret value"), "{}", ran.err);
    assert_eq!(folder.run(&["get", "b", "--store", "plain"]).ok().out, "1");
    folder.run(&["journal", "inspect"]).ok().prints("2 batches (2 to 3)");

    let skip = |sequence: &str| folder.run(&["journal", "skip", sequence, "--copy", "copy"]);
    skip("3").fails().says("the first batch that waits is 2, and only that can be skipped, not 3");
    assert!(!folder.path("copy").exists());
    folder
        .run(&["journal", "skip", "2", "--copy", "journal/copy"])
        .refused()
        .says("belongs to the store 'main' (write_back), and would be destroyed");
    let ran = skip("2").ok().prints("took the batch 2 out; it is kept in the journal copy\n");
    assert!(!ran.out.contains("secret value") && !ran.err.contains("secret value"));
    drain().ok().prints("wrote 1 batch to the store below");
    assert_eq!(folder.run(&["get", "a", "--store", "plain"]).ok().out, "2");
    folder.run(&["get", "d", "--store", "plain"]).fails();
    skip("3").fails().says("no batch waits in this journal, so there is none to be skipped");

    // The copy is a journal as well.
    folder.write("copy.yaml", CONFIG.replace("path: journal", "path: copy"));
    let ran = folder.run(&["journal", "inspect", "--config", "copy.yaml"]).ok();
    ran.prints("waiting   1 batch (1 to 1): 2 puts, 1 delete, ");
}

#[test]
fn where_there_is_no_journal_it_is_said_and_none_is_made() {
    let folder = Folder::new(CONFIG);
    for command in [&["inspect"][..], &["drain"], &["skip", "1", "--copy", "copy"]] {
        let run = |store| folder.run(&[&["journal"], command, &["--store", store]].concat());
        run("plain").refused().says("tierstack.yaml: stores.plain.layers: there is no layer 'write_back', so nothing waits for the store below; `--store NAME` names another store");
        run("memory")
            .refused()
            .says("stores.memory.layers: write_back has no `path`, so there is no journal");
        run("main").fails().says("there is no journal of write_back in ");
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
            .says("if a process runs the store, end it first; while it runs, `tierstack status` tells how much waits");
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
    folder.run(&["journal", "drain"]).fails().says("tierstack journal drain --to-other");
    folder.run(&["journal", "drain", "--to-other"]).ok().prints("wrote 1 batch to the store below");
    folder.run(&["get", "a", "--store", "plain"]).ok().prints("1");
    folder.run(&["get", "a"]).ok().prints("1");
}

#[test]
fn a_batch_that_the_store_below_refuses_is_named_by_the_stack_too() {
    // The store takes one operation at a time, so batches in front of it are no reason to stop.
    let folder = left_behind(three());
    let ran = folder.run(&["put", "e", "1"]).fails();
    let ran = ran.says("the store below refuses the batch 2 for good");
    assert!(!ran.err.contains("secret value"), "{}", ran.err);
    folder.run(&["journal", "inspect"]).ok().prints("(2 to ");
    // What landed by itself is the newest of each key, and no older one replaces it.
    assert_eq!(folder.run(&["get", "a", "--store", "plain"]).ok().out, "2");
    folder.run(&["get", "b", "--store", "plain"]).fails();
}

#[test]
fn a_command_that_only_reads_sees_what_is_left_and_leaves_it() {
    let folder =
        left_behind(vec![Batch::new().put("a", "1").put("b", "1"), Batch::new().put("a", "2")]);
    assert_eq!(folder.run(&["get", "a"]).ok().out, "2");
    assert_eq!(folder.run(&["get", "b"]).ok().out, "1");
    folder.run(&["journal", "inspect"]).ok().prints("2 batches (1 to 2)");
    folder.run(&["get", "a", "--store", "plain"]).fails();
    folder.run(&["put", "c", "1"]).ok();
    folder.run(&["journal", "inspect"]).ok().prints("nothing waits");
    assert_eq!(folder.run(&["get", "a", "--store", "plain"]).ok().out, "2");
}
