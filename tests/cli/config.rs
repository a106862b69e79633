//! `check`, `schema`, `keys`, `completions`, and what goes wrong before anything is opened.

use crate::folder::{Folder, PLAIN, Ran};

#[test]
fn help_and_completions_name_every_command() {
    let folder = Folder::new(PLAIN);
    let commands = [
        "check",
        "schema",
        "demo",
        "get",
        "put",
        "delete",
        "scan",
        "import",
        "export",
        "copy",
        "rewrite",
        "backup",
        "keys",
        "completions",
    ];
    let help = folder.run(&["--help"]).ok();
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.run(&["completions", shell]).ok().out;
        for command in commands {
            assert!(script.contains(command), "{shell}: {command}");
            assert!(help.out.contains(&format!("  {command}")), "{command}");
        }
    }
    folder.run(&["completions", "sh"]).refused().says("possible values: bash");
    folder.run(&["serve"]).refused().says("unrecognized subcommand");
}

#[test]
fn check_draws_the_stack_and_opens_nothing() {
    let folder = Folder::new(PLAIN);
    folder.run(&["check"]).ok().prints("rocksdb");
    let json = folder.run(&["check", "--json"]).ok().json();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(folder.names(), ["tierstack.yaml"]);
}

#[test]
fn check_takes_one_store_or_all() {
    let two = "stores: { one: { backend: memory }, two: { backend: memory } }\ndefault: one\n";
    let folder = Folder::new(two);
    assert_eq!(folder.run(&["check", "--json"]).ok().json().as_array().unwrap().len(), 2);
    let one = folder.run(&["check", "--json", "--store", "two"]).ok().json();
    assert_eq!(one.as_array().unwrap().len(), 1);
    folder.run(&["check", "--store", "tow"]).refused().says("'two'");
}

#[test]
fn a_missing_or_wrong_config_is_exit_code_2_and_says_where() {
    let folder = Folder::new(PLAIN);
    folder.run(&["get", "a", "--config", "nowhere.yaml"]).refused().says("nowhere.yaml");
    folder.write("wrong.yaml", "stores: { main: { backend: { rocksdb: { pth: data } } } }");
    folder
        .run(&["check", "--config", "wrong.yaml"])
        .refused()
        .says("wrong.yaml")
        .says("stores.main.backend.rocksdb")
        .says("path");
    folder.run(&["get", "a", "--store", "other"]).refused().says("other");
}

#[test]
fn each_wrong_setting_names_its_place_and_what_is_allowed() {
    let folder = Folder::new(PLAIN);
    let rocksdb = "backend: { rocksdb: { path: data } }";
    for (store, texts) in [
        (
            format!("layers: [ {{ cache: {{ capactiy: 1MiB }} }} ], {rocksdb}"),
            ["stores.main.layers[0].cache", "capactiy", "capacity"],
        ),
        (
            format!("layers: [ {{ cache: {{ capacity: 1 megs }} }} ], {rocksdb}"),
            ["stores.main.layers[0].cache.capacity", "'1 megs' is not a size", "256MiB"],
        ),
        (
            format!("layers: [ {{ encrypt: {{ keys: {{ env: K }} }} }}, compress ], {rocksdb}"),
            [
                "'encrypt' stands outside 'compress'",
                "sealed bytes do not compress",
                "put 'compress' before",
            ],
        ),
        (
            "backend: { rocksbd: { path: data } }".to_owned(),
            ["stores.main.backend", "rocksbd", "'rocksdb'"],
        ),
    ] {
        folder.write("tierstack.yaml", format!("stores: {{ main: {{ {store} }} }}"));
        for command in ["check", "scan"] {
            let ran = folder.run(&[command]).refused().says("tierstack.yaml");
            texts.into_iter().fold(ran, Ran::says);
        }
    }
    assert_eq!(folder.names(), ["tierstack.yaml"], "nothing was opened");
}

#[test]
fn a_data_folder_that_cannot_be_used_is_left_alone() {
    let folder = Folder::new(PLAIN);
    folder.write("data", "a file");
    folder.run(&["put", "a", "1"]).fails().says("where: rocksdb, open");
    assert_eq!(folder.read("data"), "a file");

    let folder = Folder::new(PLAIN);
    folder.run(&["put", "a", "1"]).ok();
    folder.write("data/CURRENT", "nonsense");
    folder
        .run(&["get", "a"])
        .fails()
        .says("where: rocksdb, open")
        .says("next: nothing was repaired");
    assert_eq!(folder.read("data/CURRENT"), "nonsense");
}

#[test]
fn a_locked_store_says_so() {
    let folder = Folder::new(PLAIN);
    // It waits for lines, with the store open.
    let mut holder = folder.spawn(&["import", "-"]);
    while !folder.path("data/CURRENT").exists() {
        std::thread::yield_now();
    }
    folder.run(&["get", "a"]).fails().says("where: rocksdb, open").says("close it there first");
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    folder.run(&["put", "a", "1"]).ok();
}

#[test]
fn the_schema_is_one_json_document() {
    let folder = Folder::new(PLAIN);
    let schema = folder.run(&["schema"]).ok().json();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"));
}

#[test]
fn a_generated_key_is_taken_as_it_is() {
    let folder = Folder::new(
        "stores: { main: { layers: [ { encrypt: { keys: { env: DEMO_KEYS } } } ], backend: { rocksdb: { \
         path: data } } } }",
    );
    let printed = folder.run(&["keys", "generate"]).ok().out;
    let entry = printed.lines().last().unwrap();
    let json = folder.run(&["keys", "generate", "--json"]).ok().json();
    assert_ne!(json["entry"], entry, "each is new");
    let run = |keys: Option<&str>, args: &[&str]| {
        let mut command = folder.command(args);
        if let Some(keys) = keys {
            command.env("DEMO_KEYS", keys);
        }
        Ran::new(args, command.output().unwrap())
    };
    // The last line, and the whole output, which may go to a file as it is.
    run(Some(entry), &["put", "a", "secret"]).ok();
    assert_eq!(run(Some(&printed), &["get", "a"]).ok().out, "secret");
    let data = folder.path("data");
    std::fs::rename(&data, folder.path("aside")).unwrap();
    run(None, &["get", "a"]).refused().says("DEMO_KEYS, which is not set");
    assert!(!data.exists(), "no database is made for a stack that cannot be opened");
    std::fs::rename(folder.path("aside"), &data).unwrap();
    let other = json["entry"].as_str().unwrap();
    let ran = run(Some(other), &["get", "a"]).fails();
    assert!(ran.out.is_empty() && !ran.err.contains(other), "{}", ran.err);
}

#[cfg(feature = "postgres")]
#[test]
fn the_schema_of_a_table_is_sql() {
    let folder = Folder::new(
        "default: main\nstores:\n  main: { backend: { postgres: { url: 'postgres://app@db/shop', table: \
         shop.carts, announce: true } } }\n  other: { backend: { memory: {} } }",
    );
    folder.run(&["schema", "postgres"]).ok().prints("CREATE TABLE \"tierstack\"");
    let args = ["schema", "postgres", "--config", "tierstack.yaml"];
    let printed = folder.run(&args).ok().out;
    assert!(printed.contains("CREATE TABLE \"shop\".\"carts\""), "{printed}");
    assert!(printed.contains("CREATE TRIGGER tierstack_announce_insert"), "{printed}");
    folder.run(&[&args[..], &["--store", "other"]].concat()).refused().says("'memory'");
    folder.run(&["schema", "memory"]).refused().says("tierstack schema postgres");

    folder.run(&["schema", "sqlite"]).ok().prints("CREATE TABLE \"entries\"");
    let folder = Folder::new(
        "stores:\n  main: { backend: { sqlite: { path: app.db, table: carts, keys: text, columns: { key: id, \
         value: json } } } }",
    );
    let printed = folder.run(&["schema", "sqlite", "--config", "tierstack.yaml"]).ok().out;
    assert!(printed.contains("CREATE TABLE \"carts\""), "{printed}");
    assert!(printed.contains("\"id\" TEXT NOT NULL PRIMARY KEY"), "{printed}");
    assert!(!printed.contains("expires"), "{printed}");
}
