//! `copy`.

use crate::folder::Folder;

const TWO: &str = "stores:\n  one: { backend: { rocksdb: { path: one } } }\n  \
                   two: { backend: { rocksdb: { path: two } } }\ndefault: one\n";

fn filled() -> Folder {
    let folder = Folder::new(TWO);
    let lines: String =
        (0..5000).map(|n| format!("{{\"key\":\"{n:05}\",\"value\":\"v{n}\"}}\n")).collect();
    folder.run_with(&["import", "-"], lines).ok();
    folder
}

#[test]
fn a_copy_is_equal_and_verified() {
    let folder = filled();
    let args = ["copy", "--to", "tierstack.yaml", "--to-store", "two", "--verify"];
    folder
        .run(&args)
        .ok()
        .prints("copied 5,000 entries")
        .prints("verified: 5,000 entries are equal");
    assert_eq!(
        folder.run(&["export", "--store", "two"]).ok().out,
        folder.run(&["export", "--store", "one"]).ok().out
    );
}

#[test]
fn a_prefix_copies_a_part_and_says_what_else_is_there() {
    let folder = filled();
    folder.run(&["put", "00010x", "mine", "--store", "two"]).ok();
    let to =
        ["copy", "--to", "tierstack.yaml", "--to-store", "two", "--prefix", "0001", "--verify"];
    folder.run(&to).ok().prints("the target has 1 entry that the source does not have");
    let json = folder.run(&[&to[..], &["--json"]].concat()).ok().json();
    assert_eq!(json["entries"], 10);
    assert_eq!(json["verified"]["equal"], 10);
    assert_eq!(json["verified"]["only_in_target"], 1);
    assert_eq!(folder.run(&["scan", "--store", "two"]).ok().out.lines().count(), 11);
}

#[test]
fn a_store_is_not_copied_onto_itself() {
    let folder = filled();
    folder
        .run(&["copy", "--to", "tierstack.yaml"])
        .refused()
        .says("source and target hold the same data; --to or --to-store must name another");
    folder.write("again.yaml", TWO);
    folder.run(&["copy", "--to", "again.yaml"]).refused().says("hold the same data");
    folder.run(&["copy"]).refused().says("--to <CONFIG>");
}

/// As a part of itself or in another form: what the stores are counts, not what they are called.
#[cfg(feature = "sqlite")]
#[test]
fn a_store_is_not_copied_into_a_part_of_itself_unless_it_is_asked_for() {
    let folder = Folder::new(
        "stores:\n  whole: { backend: { sqlite: { path: a.db } } }\n  \
         part: { layers: [ prefix: { prefix: 'copy/' } ], backend: { sqlite: { path: a.db } } }\n  \
         small: { layers: [ compress: { accept_plain: true } ], backend: { sqlite: { path: a.db } } }\n\
         default: whole\n",
    );
    folder.run(&["put", "a", "one"]).ok();
    for store in ["part", "small"] {
        let copy = ["copy", "--to", "tierstack.yaml", "--to-store", store];
        folder.run(&copy).refused().says("hold the same data").says("next: --same-data");
    }
    assert_eq!(folder.entries(), ["a=one"]);
    let copy = ["copy", "--to", "tierstack.yaml", "--to-store", "part", "--same-data"];
    folder.run(&copy).ok().prints("copied 1 entry");
    assert_eq!(folder.entries(), ["a=one", "copy/a=one"]);
}

/// The settings differ, and the data are the same.
#[cfg(all(unix, feature = "file", feature = "opendal", feature = "sqlite"))]
#[test]
fn one_store_by_two_names_is_not_copied_onto_itself() {
    let folder = Folder::new("");
    std::os::unix::fs::symlink("a.db", folder.path("link.db")).unwrap();
    std::os::unix::fs::symlink("files", folder.path("link")).unwrap();
    let stored = "backend: { sqlite: { path: a.db } } } }\n";
    let object = |folder: &str| format!("backend: {{ object: {{ url: ./{folder} }} }} }} }}");
    let opendal = |folder: &str| {
        format!("backend: {{ opendal: {{ scheme: fs, options: {{ root: {folder} }} }} }} }} }}")
    };
    let file = |folder: &str| format!("backend: {{ file: {{ path: {folder} }} }} }} }}");
    let cases = [
        (stored.to_owned(), "{ sqlite: { path: link.db } } } }", "backend: "),
        (
            stored.to_owned(),
            "{ sqlite: { path: ./a.db } } } }",
            "layers: [ prefix: { prefix: 'b/' } ], backend: ",
        ),
        (
            stored.to_owned(),
            "{ sqlite: { path: a.db, sync: false } } } }",
            "layers: [ compress: { accept_plain: true } ], backend: ",
        ),
    ];
    let main = |rest: &str| format!("stores: {{ main: {{ {rest}");
    let cases = cases.map(|(from, to, layers)| (from, format!("{layers}{to}")));
    let folders = [(object("files"), object("link")), (opendal("files"), opendal("link"))];
    for (from, to) in cases.into_iter().chain(folders) {
        folder.write("tierstack.yaml", main(&from));
        folder.write("other.yaml", main(&to));
        folder.run(&["put", "a", "one"]).ok();
        folder.run(&["copy", "--to", "other.yaml"]).refused().says("hold the same data");
        assert_eq!(folder.run(&["get", "a"]).ok().out, "one", "{to}");
        std::fs::remove_dir_all(folder.path("files")).unwrap_or_default();
    }
    // One that takes a lock is refused the second opening.
    folder.write("tierstack.yaml", main(&file("files")));
    folder.write("other.yaml", main(&file("link")));
    folder.run(&["put", "a", "one"]).ok();
    folder.run(&["copy", "--to", "other.yaml"]).fails().says("is open");
    assert_eq!(folder.entries(), ["a=one"]);
}

/// The second opening of a RocksDB database fails, whatever it is called.
#[cfg(unix)]
#[test]
fn a_rocksdb_database_is_not_copied_into_a_part_of_itself() {
    let part = |prefix: &str, path: &str| {
        format!(
            "stores: {{ main: {{ layers: [ prefix: {{ prefix: {prefix} }} ], backend: {{ rocksdb: {{ path: {path} }} }} }} }}"
        )
    };
    let folder = Folder::new(&part("a/", "data"));
    std::os::unix::fs::symlink("data", folder.path("link")).unwrap();
    folder.write("same.yaml", part("b/", "data"));
    folder.write("link.yaml", part("b/", "link"));
    folder.run(&["put", "a", "one"]).ok();
    folder.run(&["copy", "--to", "same.yaml"]).refused().says("hold the same data");
    folder.run(&["copy", "--to", "link.yaml"]).fails().says("is open");
    assert_eq!(folder.entries(), ["a=one"]);
}

#[test]
fn stores_that_share_a_backend_are_copied_and_opened_one_by_one() {
    let folder = Folder::new(
        "backends: { main: { rocksdb: { path: data } } }\nstores:\n  \
         one: { backend: { shared: main, column_family: one } }\n  \
         two: { backend: { shared: main, column_family: two } }\n  \
         left: { backend: { shared: main, prefix: l/ } }\n  \
         right: { backend: { shared: main, prefix: r/ } }\ndefault: one\n",
    );
    folder.run(&["put", "a", "one"]).ok();
    for (from, to) in [("one", "two"), ("two", "left"), ("left", "right")] {
        let copy =
            ["copy", "--store", from, "--to", "tierstack.yaml", "--to-store", to, "--verify"];
        folder.run(&copy).ok().prints("copied 1 entry").prints("1 entry is equal");
    }
    for store in ["one", "two", "left", "right"] {
        assert_eq!(folder.run(&["get", "a", "--store", store]).ok().out, "one");
        let copy = ["copy", "--store", store, "--to", "./tierstack.yaml", "--to-store", store];
        folder.run(&copy).refused().says("hold the same data");
    }
    let checked = folder.run(&["check"]).ok();
    checked.prints("The backend is `main` of `backends`, which is opened once");
    folder.run(&["export", "--output", "data/x.jsonl"]).refused().says(
        "data/x.jsonl belongs to the shared backend 'main' (rocksdb), and would be destroyed",
    );
}

#[test]
fn a_target_that_is_wrong_is_found_before_the_source_is_opened() {
    let folder = filled();
    folder.run(&["copy", "--to", "tierstack.yaml", "--to-store", "tow"]).refused().says("'two'");
    folder.run(&["copy", "--to", "nowhere.yaml"]).refused().says("nowhere.yaml");
}

#[test]
fn a_target_that_refuses_writes_is_named() {
    let folder = filled();
    folder.write("ro.yaml", "stores: { main: { layers: [ read_only ], backend: memory } }");
    folder.run(&["copy", "--to", "ro.yaml"]).fails().says("where: read_only");
}

#[cfg(feature = "opendal")]
#[test]
fn a_store_without_scans_is_not_copied_nor_verified_and_nothing_is_written() {
    let folder = filled();
    folder.write(
        "no_scans.yaml",
        "stores: { main: { backend: { opendal: { scheme: fs, options: { root: files } } } } }",
    );
    let to = ["copy", "--to", "no_scans.yaml"];
    let verified = [&to[..], &["--verify"]].concat();
    folder.run(&verified).refused().says("the target offers no scans").says("nothing was written");
    folder.run(&to).ok().prints("copied 5,000 entries");
    folder
        .run(&["copy", "--config", "no_scans.yaml", "--to", "tierstack.yaml", "--to-store", "two"])
        .fails()
        .says("where: opendal, scan")
        .says("nothing was written");
}

#[cfg(all(unix, feature = "file"))]
#[test]
fn what_a_setting_passes_by_is_told_by_number_and_name() {
    let part = |layers: &str| {
        format!("{{ layers: [ {layers} ], backend: {{ file: {{ path: files, foreign: skip }} }} }}")
    };
    let folder = Folder::new(&format!(
        "stores:\n  main: {}\n  expiring: {}\n  two: {{ backend: {{ rocksdb: {{ path: two }} }} }}\ndefault: main\n",
        part(""),
        part("expire: { accept_plain: true }")
    ));
    folder.run(&["put", "d/a", "one"]).ok();
    let copy = ["copy", "--to", "tierstack.yaml", "--to-store", "two", "--verify"];
    folder.run(&copy).ok().prints("verified: 1 entry is equal\n");
    std::os::unix::fs::symlink("a", folder.path("files/d/link")).unwrap();
    let skip = |store: &'static str| [&copy[..], &["--store", store, "--skip"]].concat();
    let one = "the folder holds 1 thing that is no entry, and is passed over";
    folder.run(&copy).fails().says(one).says("named 'd/link'").says("nothing was written");
    folder.run(&skip("main")).ok().says("skipped the entry named 'd/link'").says(one);
    // In a folder that stands for no key, nothing does.
    std::fs::create_dir(folder.path("files/50%off")).unwrap();
    folder.write("files/50%off/x", "");
    folder.write("files/50%off/y", "");
    let three = "the folder holds 3 things that are no entries, and are passed over";
    folder.run(&copy).fails().says(three);
    folder.run(&[&copy[..], &["--store", "expiring"]].concat()).fails().says(three);
    let ran = folder.run(&skip("main")).ok();
    ran.says(three).prints("verified: 1 entry is equal\n");
    assert_eq!(folder.run(&["scan", "--keys-only", "--store", "two"]).ok().out, "d/a\n");
}
