//! What commands write, and where.

use std::fs;
use std::io::Read as _;
use std::process::Command;

use crate::folder::{Folder, PLAIN, Ran, terminate};

const LINE: &str = "{\"key\":\"a\",\"value\":\"one\"}\n";

fn filled(config: &str) -> Folder {
    let folder = Folder::new(config);
    folder.run(&["put", "a", "one"]).ok();
    folder
}

#[cfg(unix)]
#[test]
fn a_file_keeps_its_mode_and_a_new_one_is_as_any() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let folder = filled(PLAIN);
    let mode = |name: &str| fs::metadata(folder.path(name)).unwrap().mode() & 0o7777;
    for wanted in [0o600, 0o640, 0o666, 0o400] {
        folder.write("all.jsonl", "before");
        let permissions = fs::Permissions::from_mode(wanted);
        fs::set_permissions(folder.path("all.jsonl"), permissions).unwrap();
        folder.run(&["export", "--output", "all.jsonl"]).ok();
        assert_eq!(folder.read("all.jsonl"), LINE);
        assert_eq!(mode("all.jsonl"), wanted);
        fs::remove_file(folder.path("all.jsonl")).unwrap();
    }
    folder.write("any", "");
    folder.run(&["export", "--output", "new.jsonl"]).ok();
    assert_eq!(mode("new.jsonl"), mode("any"));
}

#[cfg(unix)]
#[test]
fn links_stay_and_what_they_lead_to_is_written() {
    use std::os::unix::fs::symlink;
    let folder = filled(PLAIN);
    fs::create_dir(folder.path("disk")).unwrap();
    folder.write("disk/old.jsonl", "before");
    symlink("old.jsonl", folder.path("disk/middle")).unwrap();
    symlink("disk/middle", folder.path("latest")).unwrap();
    symlink("disk/new.jsonl", folder.path("dangling")).unwrap();
    symlink("round", folder.path("round")).unwrap();
    for (link, file) in [("latest", "disk/old.jsonl"), ("dangling", "disk/new.jsonl")] {
        folder.run(&["export", "--output", link]).ok();
        assert_eq!(folder.read(file), LINE);
        assert!(folder.path(link).is_symlink());
    }
    folder.run(&["export", "--output", "round"]).fails().says("round cannot be written");
    fs::hard_link(folder.path("disk/old.jsonl"), folder.path("second")).unwrap();
    folder.run(&["export", "--output", "second"]).fails().says("has several names (hard links)");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_written_into_and_stays() {
    use std::os::unix::fs::FileTypeExt;
    let folder = filled(PLAIN);
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    folder.run(&["export", "--output", "pipe"]).ok().prints("exported 1 entry to pipe");
    assert_eq!(reader.join().unwrap(), LINE);
    assert!(fs::metadata(pipe).unwrap().file_type().is_fifo());
    let socket = std::os::unix::net::UnixListener::bind(folder.path("socket")).unwrap();
    folder.run(&["export", "--output", "socket"]).refused().says("socket is no file, pipe or");
    drop(socket);
}

/// Nobody reads: the wait for it ends when it is asked to.
#[cfg(target_os = "linux")]
#[test]
fn a_request_to_end_is_heard_while_nobody_reads() {
    let folder = Folder::new(PLAIN);
    let value = "x".repeat(1 << 20);
    folder.run_with(&["put", "a"], value).ok();
    assert!(Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap().success());
    for args in [&["export"][..], &["get", "a"], &["scan"], &["export", "--output", "pipe"]] {
        let mut child = folder.spawn(args);
        if args.len() == 1 || args[0] == "get" {
            // It has begun, and the pipe is full soon.
            child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
        } else {
            // It has opened the store.
            let files = || fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().flatten();
            let is_open = |name| {
                files().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.ends_with(name)))
            };
            while !is_open("data/LOCK") {
                std::thread::yield_now();
            }
        }
        terminate(&child);
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(1), "{args:?}");
    }
    folder.run(&["get", "a"]).ok();
}

/// A config may come out of a pipe, as from a program that decrypts it.
#[cfg(unix)]
#[test]
fn a_request_to_end_is_heard_while_the_config_is_read() {
    let folder = Folder::new(PLAIN);
    let pipe = folder.path("pipe.yaml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = folder.spawn(&["get", "a", "--config", "pipe.yaml"]);
    // It has begun to read.
    let _nothing = fs::File::options().write(true).open(pipe).unwrap();
    terminate(&child);
    // Without a code if it had not come to listen for signals yet.
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(1) | None), "{code:?}");
}

#[cfg(unix)]
#[test]
fn what_belongs_to_a_store_is_no_target() {
    let config = "stores:\n  main: { layers: [ backup: { to: ./backups } ], backend: { rocksdb: { path: data } } }\n  \
                  files: { layers: [ { encrypt: { keys: { file: keys.txt } } } ], backend: { file: { path: files } } }\n  \
                  db: { backend: { sqlite: { path: a.db } } }\n  \
                  later: { layers: [ { cache: { warm_start: { path: warm } } }, { backup: { to: ./later } } ], backend: { sqlite: { path: later.db } } }\n\
                  default: main\ncontrol: socket\n";
    let folder = filled(config);
    folder.write("keys.txt", folder.run(&["keys", "generate"]).ok().out);
    folder.run(&["put", "--store", "files", "a", "one"]).ok();
    folder.run(&["put", "--store", "db", "a", "one"]).ok();
    fs::create_dir(folder.path("backups")).unwrap();
    std::os::unix::fs::symlink("tierstack.yaml", folder.path("link")).unwrap();
    std::os::unix::fs::symlink("data", folder.path("folder")).unwrap();
    fs::hard_link(folder.path("a.db"), folder.path("second")).unwrap();
    let before = folder.names();
    for (target, whose) in [
        ("tierstack.yaml", "the config"),
        ("./tierstack.yaml", "the config"),
        ("link", "the config"),
        ("data/new", "the store 'main' (rocksdb)"),
        ("data/CURRENT", "the store 'main' (rocksdb)"),
        ("folder/new", "the store 'main' (rocksdb)"),
        ("backups/x.jsonl", "the store 'main' (backup)"),
        ("files/x.jsonl", "the store 'files' (file)"),
        ("keys.txt", "the store 'files' (encrypt)"),
        ("a.db", "the store 'db' (sqlite)"),
        ("second", "the store 'db' (sqlite)"),
        ("a.db-wal", "the store 'db' (sqlite)"),
        // What is to be made there later.
        ("later", "the store 'later' (backup)"),
        ("./later.db", "the store 'later' (sqlite)"),
        ("later.db-wal", "the store 'later' (sqlite)"),
        ("warm", "the store 'later' (cache)"),
        ("socket", "the config"),
    ] {
        let ran = folder.run(&["export", "--output", target]).refused();
        ran.says(&format!("{target} belongs to {whose}, and would be destroyed"));
    }
    assert_eq!(folder.names(), before);
    assert_eq!(folder.read("tierstack.yaml"), config);
    folder.run(&["export", "--output", "a.db.jsonl"]).ok();
}

#[cfg(unix)]
#[test]
fn standard_output_has_several_names() {
    let folder = filled(PLAIN);
    for name in ["-", "/dev/stdout"] {
        assert_eq!(folder.run(&["export", "--output", name]).ok().out, LINE);
    }
    let file = fs::File::create(folder.path("out.jsonl")).unwrap();
    let args = ["export", "--output", "out.jsonl"];
    let output = folder.command(&args).stdout(file).output().unwrap();
    Ran::new(&args, output).ok();
    assert_eq!(folder.read("out.jsonl"), LINE);
    let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let output = folder.command(&["export"]).stdout(null).output().unwrap();
    // As after `>&-`: what is read and written as `/dev/null` is nobody's choice of a target.
    Ran::new(&["export"], output).fails().says("standard output is closed").says("> /dev/null");
    let null = fs::File::options().write(true).open("/dev/null").unwrap();
    let output = folder.command(&["export"]).stdout(null).output().unwrap();
    Ran::new(&["export"], output).ok();
}

/// What was to be printed would be lost, such as the only copy of a key.
#[cfg(unix)]
#[test]
fn what_only_prints_is_refused_where_nobody_can_hear() {
    let folder = filled(PLAIN);
    let closed = |args: &str| {
        let mut shell = Command::new("sh");
        let script = format!("exec \"$0\" {args} >&-");
        shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_tierstack"));
        let output = shell.current_dir(folder.path("")).output().unwrap();
        Ran::new(&[args, ">&-"], output)
    };
    for args in [
        "export",
        "get a",
        "scan",
        "scan --keys-only",
        "inspect a",
        "schema",
        "schema postgres",
        "keys generate",
        "keys generate --out -",
        "completions bash",
    ] {
        closed(args).fails().says("standard output is closed");
    }
    // What they do is done.
    for args in ["put b two", "check", "export --output all.jsonl", "keys generate --out ring"] {
        closed(args).ok();
    }
    assert_eq!(folder.run(&["get", "b"]).ok().out, "two");
    assert!(folder.path("ring").exists() && !folder.path("-").exists());
    assert!(folder.run(&["keys", "generate", "--out", "-"]).ok().out.starts_with("# A key for"));
    assert!(!folder.path("-").exists());
}

const MIXED: &str = "stores:\n  main: { layers: [ compress ], backend: { rocksdb: { path: data } } }\n  \
                     plain: { backend: { rocksdb: { path: data } } }\n  \
                     other: { backend: { rocksdb: { path: other } } }\ndefault: main\n";

/// Entries that were written around a layer.
fn damaged() -> Folder {
    let folder = Folder::new(MIXED);
    for key in ["a", "b", "c", "d"] {
        folder.run(&["put", key, key]).ok();
    }
    folder.run(&["put", "--store", "plain", "b", "not compressed"]).ok();
    folder.run(&["put", "--store", "plain", "--key64", "/w==", "not compressed"]).ok();
    folder
}

#[test]
fn what_cannot_be_read_is_named_and_skipped_on_request() {
    let folder = damaged();
    for args in
        [&["export"][..], &["scan"], &["copy", "--to", "tierstack.yaml", "--to-store", "other"]]
    {
        folder.run(args).fails().says("where: compress, scan, key 'b'");
        let ran = folder.run(&[args, &["--skip"]].concat()).ok();
        ran.says("skipped key 'b': ")
            .says("skipped key64 /w==: ")
            .says("skipped 2 entries that cannot be read");
    }
    folder.run(&["export", "--skip", "--output", "all.jsonl"]).ok().prints("exported 3 entries");
    assert_eq!(folder.read("all.jsonl").lines().count(), 3);
    // Nothing is read that could be damaged.
    let keys = folder.run(&["scan", "--keys-only", "--json"]).ok().out;
    assert_eq!(keys.lines().count(), 5);
    folder.run(&["get", "b"]).fails().says("where: compress, get, key 'b'");
    let args =
        ["copy", "--to", "tierstack.yaml", "--to-store", "other", "--skip", "--verify", "--json"];
    let copied = folder.run(&args).ok().json();
    assert_eq!((&copied["entries"], &copied["skipped"]), (&3.into(), &2.into()));
    assert_eq!(copied["verified"]["equal"], 3);
}

/// The library prints no key, but a number.
#[test]
fn a_key_is_found_by_its_fingerprint() {
    use tierstack::config::{Config, Registry};
    use tierstack::{OpenOptions, Stack};
    let folder = damaged();
    let config = Config::load(folder.path("tierstack.yaml")).unwrap();
    let logged = tokio_test::block_on(async {
        let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
        let stack = checked.open(&OpenOptions::reading()).await.unwrap();
        let error = stack.get(b"b").await.unwrap_err().to_string();
        let sound = stack.fingerprint(b"c");
        stack.close().await.unwrap();
        [
            error.rsplit_once("(key #").unwrap().1.trim_end_matches(')').to_owned(),
            format!("#{sound:016x}"),
        ]
    });
    folder.run(&["inspect", "--fingerprint", &logged[0]]).prints("it is the key 'b'\n");
    folder.run(&["inspect", "--fingerprint", &logged[1]]).ok().prints("it is the key 'c'\n");
    let json = folder.run(&["inspect", "--json", "--fingerprint", &logged[1]]).ok().json();
    assert_eq!(json["key"], "c");
    let ran = folder.run(&["inspect", "--fingerprint", "0123456789abcdef"]).fails();
    ran.says("no key of 'main' has the fingerprint #0123456789abcdef");
    folder.run(&["inspect", "--fingerprint", "12"]).refused().says("16 hexadecimal digits");
}
