//! What is synced: the calls of `fsync` and `fdatasync` of the command, seen by a library that is in
//! front of the system's.

use std::path::Path;
use std::process::Command;

use crate::folder::{Folder, Ran};

/// Writes the name of each call and the path of its file or folder to a list, and lets the system's own do the work.
const WATCHER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int watched(const char *call, int fd) {
    char link[64], path[4096], line[4200];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    int done = ((int (*)(int))dlsym(RTLD_NEXT, call))(fd);
    if (done == 0 && length > 0) {
        path[length] = 0;
        int list = open(getenv("SYNCED"), O_WRONLY | O_APPEND | O_CREAT, 0600);
        if (list < 0 || write(list, line, snprintf(line, sizeof line, "%s %s\n", call, path)) < 0) abort();
        close(list);
    }
    return done;
}

int fsync(int fd) { return watched("fsync", fd); }
int fdatasync(int fd) { return watched("fdatasync", fd); }
"#;

struct Watched(Folder);

/// The calls, and the paths in the folder of which each is; the folder itself is the empty one.
#[derive(Debug)]
struct Synced(Vec<(String, String)>);

impl Synced {
    fn has(&self, path: &str) -> bool {
        self.0.iter().any(|(_, synced)| synced == path)
    }
}

impl Watched {
    fn new(config: &str) -> Self {
        let folder = Folder::new(config);
        folder.write("watcher.c", WATCHER);
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o", "watcher.so", "watcher.c", "-ldl"]);
        assert!(compiler.current_dir(folder.path(".")).status().unwrap().success());
        Self(folder)
    }

    /// Runs the command.
    fn synced(&self, args: &[&str]) -> Synced {
        let list = self.0.path("synced");
        let _ = std::fs::remove_file(&list);
        let mut command = self.0.command(args);
        command.env("LD_PRELOAD", self.0.path("watcher.so")).env("SYNCED", &list);
        Ran::new(args, command.stdin(std::process::Stdio::null()).output().unwrap()).ok();
        let folder = std::fs::canonicalize(self.0.path(".")).unwrap();
        let inside = |line: &str| {
            let (call, path) = line.split_once(' ').unwrap();
            let path = Path::new(path).strip_prefix(&folder).ok()?;
            Some((call.to_owned(), path.to_str().unwrap().to_owned()))
        };
        let synced = std::fs::read_to_string(list).unwrap();
        Synced(synced.lines().filter_map(inside).collect())
    }
}

/// A folder whose name is not on the disk is gone after a power cut, with everything in it.
#[cfg(all(feature = "file", feature = "object", feature = "sqlite"))]
#[test]
fn folders_that_are_made_are_synced_into_those_above_them() {
    for (backend, above) in [
        ("sqlite: { path: a/b/data.db }", ["", "a"]),
        ("rocksdb: { path: a/b }", ["", "a"]),
        ("file: { path: a/b }", ["", "a"]),
        ("object: { url: ./a/b }", ["", "a"]),
    ] {
        let watched = Watched::new(&format!("stores: {{ main: {{ backend: {{ {backend} }} }} }}"));
        let synced = watched.synced(&["put", "k", "v"]);
        for folder in above {
            assert!(synced.has(folder), "{backend}: '{folder}' is not synced: {synced:?}");
        }
    }
}

#[cfg(all(feature = "backup", feature = "sqlite"))]
#[test]
fn a_backup_is_on_the_disk_with_the_folders_that_lead_to_it() {
    let watched = Watched::new(
        "stores: { main: { layers: [ backup: { to: ./x/y } ], backend: { sqlite: { path: a.db } } } }",
    );
    watched.0.run(&["put", "k", "v"]).ok();
    let synced = watched.synced(&["backup", "run"]);
    for path in ["", "x", "x/y", "x/y/head", "x/y/data", "x/y/base"] {
        assert!(synced.has(path), "'{path}' is not synced: {synced:?}");
    }
}

/// SQLite puts the log next to what a link leads to.
#[cfg(feature = "sqlite")]
#[test]
fn a_flush_syncs_the_log_of_a_database_behind_a_link() {
    let watched =
        Watched::new("stores: { main: { backend: { sqlite: { path: link.db, sync: false } } } }");
    std::fs::create_dir(watched.0.path("real")).unwrap();
    std::os::unix::fs::symlink("real/data.db", watched.0.path("link.db")).unwrap();
    watched.0.write("in.jsonl", "{\"key\":\"k\",\"value\":\"v\"}\n");
    let synced = watched.synced(&["import", "in.jsonl"]);
    // SQLite itself calls the other one when it is closed, after the flush.
    let flush = ("fdatasync".to_owned(), "real/data.db-wal".to_owned());
    assert!(synced.0.contains(&flush), "{synced:?}");
}
