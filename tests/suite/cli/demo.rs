//! `demo`.

use std::io::Write;

use crate::folder::Folder;

fn files() -> Folder {
    let folder = Folder::new("");
    std::fs::create_dir(folder.path("files")).unwrap();
    for n in 0..200 {
        folder.write(&format!("files/{n:03}.txt"), format!("file {n}\n").repeat(n * 3));
    }
    folder
}

#[test]
fn the_demo_restores_every_entry_and_its_figures_add_up() {
    let folder = files();
    let facts = folder.run(&["demo", "--quick", "--files", "files", "--json"]).ok().json();
    assert_eq!(facts["entries"], 200);
    let bytes: u64 = (0..200_u64).map(|n| format!("file {n}\n").len() as u64 * n * 3).sum();
    assert_eq!(facts["bytes"], bytes);
    assert_eq!(facts["reads"], 3000);
    assert_eq!(facts["every_entry_is_back"], true);
    assert_eq!(facts["digest"].as_str().unwrap().len(), 64);
    // Each of at most 200 keys is missed once.
    let hit_rate = facts["hit_rate"].as_f64().unwrap();
    assert!((1.0 - 200.0 / 3000.0..1.0).contains(&hit_rate), "{hit_rate}");
    assert!(facts["backup_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn the_demo_tells_each_step_and_keeps_its_folder_when_asked() {
    let folder = files();
    let ran = folder.run(&["demo", "--quick", "--files", "files", "--dir", "work"]).ok();
    for text in [
        "cache(compress(encrypt(backup(rocksdb))))",
        "200 files",
        "1. Import",
        "RocksDB alone",
        "the stack",
        "2. Read: a skewed pattern",
        "from its cache",
        "3. Back up: took base",
        "4. Damage: overwrote",
        "The store now says:\n\n     error: ",
        "5. Restore: 200 entries",
        "Every entry is back.",
        "Next: ",
    ] {
        assert!(ran.out.contains(text), "{text}\n{}", ran.out);
    }
    let config = ["--config", "work/tierstack.json"];
    folder.run(&[&["check"], &config[..]].concat()).ok();
    folder
        .run(&[&["get", "007.txt", "--store", "restored"], &config[..]].concat())
        .ok()
        .prints("file 7\n");
    folder.run(&[&["backup", "list"], &config[..]].concat()).ok().prints("200");
    folder
        .run(&["demo", "--quick", "--dir", "work"])
        .refused()
        .says("work is not empty; --dir must name a new or empty folder");
}

#[test]
fn the_demo_is_over_sqlite_where_that_is_asked_for() {
    let folder = files();
    let args = ["demo", "--quick", "--files", "files", "--dir", "work", "--over", "sqlite"];
    let ran = folder.run(&args).ok();
    for text in [
        "cache(compress(encrypt(backup(sqlite))))",
        "SQLite alone",
        "The store now says:\n\n     error: ",
        "Every entry is back.",
    ] {
        assert!(ran.out.contains(text), "{text}\n{}", ran.out);
    }
    folder.run(&["check", "--config", "work/tierstack.json"]).ok();
    folder
        .run(&["demo", "--quick", "--over", "sqlite", "--config", "work/tierstack.json"])
        .refused()
        .says("'--over <ENGINE>' cannot be used with '--config <FILE>'");
}

#[test]
fn a_trace_of_ids_is_replayed_packed_or_not() {
    let folder = files();
    let ids: Vec<u8> = (0..500_u32).flat_map(|n| (n * n % 7).to_be_bytes()).collect();
    folder.write("ids.trace", &ids);
    let file = std::fs::File::create(folder.path("ids.trace.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    packed.write_all(&ids).unwrap();
    packed.finish().unwrap();
    for trace in ["ids.trace", "ids.trace.gz"] {
        let args = ["demo", "--quick", "--files", "files", "--json", "--trace", trace];
        let facts = folder.run(&args).ok().json();
        assert_eq!(facts["reads"], 500);
        // The squares modulo 7 are four numbers: four misses.
        assert_eq!(facts["hit_rate"], 1.0 - 4.0 / 500.0);
    }
    folder
        .run(&["demo", "--quick", "--files", "files", "--trace", "nowhere"])
        .fails()
        .says("the trace nowhere cannot be read");
}

#[test]
fn a_stack_that_cannot_show_it_is_refused() {
    let folder = files();
    folder.write("memory.yaml", "stores: { main: { backend: memory } }");
    folder
        .run(&["demo", "--config", "memory.yaml"])
        .refused()
        .says("the backend of 'main' is 'memory'");
    folder.write("plain.yaml", "stores: { main: { backend: { rocksdb: { path: data } } } }");
    folder.run(&["demo", "--config", "plain.yaml"]).refused().says("'main' has no layer 'backup'");
    assert!(!folder.path("data").exists());
}
