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
    folder.run(&["srve"]).refused().says("unrecognized subcommand");
}

#[test]
fn check_draws_the_stack_and_opens_nothing() {
    let folder = Folder::new(PLAIN);
    folder.run(&["check"]).ok().prints("rocksdb");
    let json = folder.run(&["check", "--json"]).ok().json();
    assert_eq!(json["stores"].as_array().unwrap().len(), 1);
    assert_eq!(folder.names(), ["tierstack.yaml"]);
}

#[test]
fn check_takes_one_store_or_all() {
    let two = "stores: { one: { backend: memory }, two: { backend: memory } }\ndefault: one\n";
    let folder = Folder::new(two);
    let both = folder.run(&["check", "--json"]).ok().json();
    assert_eq!(both["stores"].as_array().unwrap().len(), 2);
    let one = folder.run(&["check", "--json", "--store", "two"]).ok().json();
    assert_eq!(one["stores"].as_array().unwrap().len(), 1);
    // What the process has in addition to its stores is the same.
    let of = |json: &serde_json::Value| json["series"].as_u64().unwrap();
    let store = |at: usize| of(&both["stores"][at]);
    assert_eq!(of(&both) - store(0) - store(1), of(&one) - of(&one["stores"][0]));
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
                "'encrypt' is outside 'compress'",
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

const SEALED: &str = "stores: { main: { layers: [ { encrypt: { keys: { file: keys.txt } } } ], backend: { rocksdb: { path: \
     data } } } }";

#[cfg(unix)]
#[test]
fn a_key_ring_is_written_for_its_owner_and_replaces_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new(SEALED);
    let generate = ["keys", "generate", "--out", "keys.txt"];
    let ran = folder.run(&generate).ok();
    let ring = folder.read("keys.txt");
    let (_, key) = ring.trim_end().rsplit_once(':').unwrap();
    assert!(ran.out.contains("keys.txt") && !ran.out.contains(key), "{}", ran.out);
    let mode = || std::fs::metadata(folder.path("keys.txt")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    folder.run(&generate).refused().says("never replaced");
    assert_eq!(folder.read("keys.txt"), ring);
    let ran = folder.run(&["put", "a", "secret"]).ok();
    assert_eq!(ran.err, "");
    let json = folder.run(&["keys", "generate", "--out", "more.txt", "--json"]).ok().json();
    assert!(folder.read("more.txt").contains(&format!("ts1:{}:", json["id"].as_str().unwrap())));
    folder.run(&["keys", "generate", "--out", "no/keys.txt"]).fails().says("no/keys.txt");
    // A user who may read it can read the values.
    let public = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(folder.path("keys.txt"), public).unwrap();
    folder.run(&["get", "a"]).ok().says("every user of this machine can read").says("keys.txt");
}

/// As the editors and the shell of Windows write it.
#[test]
fn a_key_ring_with_a_byte_order_mark_is_read() {
    let folder = Folder::new(SEALED);
    let ring = folder.run(&["keys", "generate"]).ok().out.replace('\n', "\r\n");
    let marked = format!("\u{feff}{ring}");
    folder.write("keys.txt", &marked);
    folder.run(&["put", "a", "secret"]).ok();
    let wide: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
    folder.write("keys.txt", &wide);
    assert_eq!(folder.run(&["get", "a"]).ok().out, "secret");
    folder.write("keys.txt", &wide[2..]);
    folder.run(&["get", "a"]).refused().says("keys.txt holds zero bytes").says("UTF-8");
}

/// Nobody writes into the pipe.
#[cfg(unix)]
#[test]
fn a_secret_that_never_comes_keeps_nobody_waiting() {
    use std::os::unix::fs::OpenOptionsExt;
    let folder = Folder::new(SEALED);
    let path = folder.path("keys.txt");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let child = folder.spawn(&["put", "a", "secret"]);
    let mut writer = std::fs::OpenOptions::new();
    writer.write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    // It can be opened once it is read.
    let held = loop {
        match writer.open(&path) {
            Ok(held) => break held,
            Err(_) => std::thread::yield_now(),
        }
    };
    crate::folder::interrupt(&child);
    let ran = Ran::new(&["put"], child.wait_with_output().unwrap());
    ran.fails().says("stopped by request").says("nothing was written");
    drop(held);
    assert!(!folder.path("data").exists());
}

#[cfg(feature = "postgres")]
#[test]
fn the_schema_of_a_table_is_sql() {
    let folder = Folder::new(
        "default: main\nstores:\n  main: { backend: { postgres: { url: 'postgres://app@db/shop', table: \
         shop.carts, change_feed: true } } }\n  other: { backend: { memory: {} } }",
    );
    folder.run(&["schema", "postgres"]).ok().prints("CREATE TABLE \"tierstack\"");
    let args = ["schema", "postgres", "--config", "tierstack.yaml"];
    let printed = folder.run(&args).ok().out;
    assert!(printed.contains("CREATE TABLE \"shop\".\"carts\""), "{printed}");
    assert!(printed.contains("CREATE TRIGGER \"~tierstack_announce\""), "{printed}");
    folder.run(&[&args[..], &["--store", "other"]].concat()).refused().says("'memory'");
    folder.run(&["schema", "memory"]).refused().says("there are postgres and sqlite");
}

#[cfg(feature = "sqlite")]
#[test]
fn the_schema_of_a_sqlite_table_is_that_of_the_store() {
    let folder = Folder::new(
        "stores: { main: { backend: { sqlite: { path: data.db, table: carts, columns: { key: id } } } } }",
    );
    folder.run(&["schema", "sqlite"]).ok().prints("CREATE TABLE \"entries\"");
    let printed = folder.run(&["schema", "sqlite", "--config", "tierstack.yaml"]).ok().out;
    assert!(printed.contains("CREATE TABLE \"carts\"") && printed.contains("\"id\""), "{printed}");
    assert!(!folder.path("data.db").exists(), "nothing is opened");
}

/// A folder that is called `~` would be found by nobody.
#[test]
fn what_only_a_shell_replaces_is_refused_and_nothing_is_made() {
    let folder = Folder::new(PLAIN);
    let data = "backend: { rocksdb: { path: data } }";
    for store in [
        "{ backend: { rocksdb: { path: '~/data' } } }".to_owned(),
        "{ backend: { rocksdb: { path: '${HOME}/data' } } }".to_owned(),
        format!("{{ layers: [ {{ backup: {{ to: '~/backups' }} }} ], {data} }}"),
        format!("{{ layers: [ {{ backup: {{ to: '$HOME/backups' }} }} ], {data} }}"),
        format!("{{ layers: [ {{ encrypt: {{ keys: {{ file: '~/keys' }} }} }} ], {data} }}"),
        format!(
            "{{ layers: [ {{ cache: {{ disk: {{ path: '~/disk', capacity: 16MiB }} }} }} ], {data} }}"
        ),
        format!("{{ layers: [ {{ cache: {{ warm_start: {{ path: '~/warm' }} }} }} ], {data} }}"),
    ] {
        folder.write("tierstack.yaml", format!("stores: {{ main: {store} }}\n"));
        for args in [&["check"][..], &["put", "k", "v"], &["scan"]] {
            folder.run(args).refused().says("not replaced here");
        }
    }
    folder.write("tierstack.yaml", format!("{PLAIN}control: '~/socket'\n"));
    folder.run(&["check"]).refused().says("not replaced here");
    folder.write("tierstack.yaml", PLAIN);
    for args in [["export", "--output=~/x"], ["copy", "--to=~/x"], ["check", "--config=~/x"]] {
        folder.run(&args).refused().says("begins with `~`");
    }
    assert_eq!(folder.names(), ["tierstack.yaml"]);
}

/// A backup there would never leave the machine, and a password would be printed.
#[test]
fn a_place_is_a_folder_or_a_url_and_holds_no_password() {
    let folder = Folder::new(PLAIN);
    for to in [
        "s3:/acme/orders",
        "gs:acme:/orders",
        "sftp://ada:hunter2@host/path",
        "ada:hunter2@host:/path",
        "s3://AKIA:hunter2@acme/orders",
    ] {
        let config = format!(
            "stores: {{ main: {{ layers: [ {{ backup: {{ to: '{to}' }} }} ], backend: {{ rocksdb: {{ path: data }} }} }} }}\n"
        );
        folder.write("tierstack.yaml", config);
        for args in [&["check"][..], &["backup", "list"]] {
            let ran = folder.run(args).refused().says("s3://bucket/path");
            assert!(!ran.err.contains("hunter2"), "{}", ran.err);
        }
    }
    assert_eq!(folder.names(), ["tierstack.yaml"]);
}
