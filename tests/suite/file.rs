//! The file backend against what folders hold: folders that other programs filled and go on changing.

#![cfg(all(feature = "file", unix))]

mod processes;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use tempfile::tempdir;
use tierstack::backends::file::{Foreign, Names};
use tierstack::backends::{FileConfig, FileStore, Memory};
use tierstack::{
    BackendConfig, Batch, Context, Durability, ErrorKind, Op, Read, ReadExt, Scan, Store, StoreExt,
    Value,
};

async fn open(path: &Path) -> FileStore {
    FileStore::open(FileConfig::new(path)).await.unwrap()
}

async fn refused(config: FileConfig) -> tierstack::Error {
    FileStore::open(config).await.unwrap_err()
}

async fn keys(store: &FileStore) -> Vec<String> {
    let entries = store.collect(Scan::all()).await.unwrap();
    entries.into_iter().map(|entry| String::from_utf8_lossy(&entry.key).into_owned()).collect()
}

/// Every file below a folder, but the store's own.
fn files(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with(".tierstack") {
                folders.push(path);
            } else if path.is_file() {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn an_existing_folder_is_a_store_as_it_is() {
    let folder = tempdir().unwrap();
    let names =
        ["README.md", "docs/a.txt", "docs/B/c d.txt", "100%.txt", "a%20b", ".hidden", "caf\u{e9}"];
    for name in names {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("content of {name}")).unwrap();
    }
    let before = files(folder.path());
    let store = open(folder.path()).await;
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    assert_eq!(keys(&store).await, sorted);
    for name in names {
        let value = store.get(name.as_bytes()).await.unwrap();
        assert_eq!(value, Some(format!("content of {name}").into()), "{name}");
    }
    store.close().await.unwrap();
    assert_eq!(files(folder.path()), before, "nothing changed");
    let own: Vec<_> = fs::read_dir(folder.path().join(".tierstack")).unwrap().collect();
    assert_eq!(own.len(), 3, "a lock, the layout, a folder for what is under way");

    let store = open(folder.path()).await;
    store.put("docs/New.txt", "new").await.unwrap();
    assert_eq!(fs::read(folder.path().join("docs/New.txt")).unwrap(), b"new");
}

#[tokio::test]
async fn other_programs_are_seen_at_once() {
    let folder = tempdir().unwrap();
    let store = open(folder.path()).await;
    store.put("k", "ours").await.unwrap();
    fs::write(folder.path().join("k"), "theirs").unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("theirs".into()));
    fs::create_dir(folder.path().join("new")).unwrap();
    fs::write(folder.path().join("new/file"), "").unwrap();
    assert_eq!(keys(&store).await, ["k", "new/file"]);
    fs::remove_file(folder.path().join("k")).unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), None);

    // Between two pages, what is still to come vanishes.
    for n in 0..6 {
        store.put(format!("n{n}"), "v").await.unwrap();
    }
    let mut pages = store.scan(Scan::prefix("n").page_entries(3));
    let first = pages.next().await.unwrap().unwrap();
    fs::remove_file(folder.path().join("n1")).unwrap();
    fs::remove_dir_all(folder.path().join("new")).unwrap();
    let rest: Vec<_> = pages.try_collect::<Vec<_>>().await.unwrap();
    let rest: usize = rest.iter().map(tierstack::Page::len).sum();
    assert_eq!(
        (first.len(), rest),
        (3, 3),
        "n0 to n2, which were read; then n3 to n5, and not new/file"
    );
}

#[tokio::test]
async fn keys_that_differ_in_case_are_different_files_everywhere() {
    let folder = tempdir().unwrap();
    let store = open(folder.path()).await;
    for key in ["a", "A", "stra\u{df}e", "STRASSE", "\u{e9}", "e\u{301}", "a.", "a ", "con", "CON"]
    {
        store.put(key, key).await.unwrap();
    }
    let names = files(folder.path());
    let folded: std::collections::BTreeSet<String> = names
        .iter()
        .map(|name| name.to_lowercase().trim_end_matches(['.', ' ']).to_owned())
        .collect();
    assert_eq!(folded.len(), names.len(), "{names:?}");
    assert!(names.iter().all(|name| name.is_ascii()), "{names:?}");
    for key in ["a", "A", "\u{e9}", "e\u{301}", "CON"] {
        assert_eq!(store.get(key.as_bytes()).await.unwrap(), Some(key.into()));
    }
}

#[tokio::test]
async fn a_name_can_be_a_file_and_a_folder() {
    let folder = tempdir().unwrap();
    let store = open(folder.path()).await;
    let order = ["a", "a!", "a/", "a//", "a/b", "a/b/c", "a0"];
    for key in order.iter().rev().chain(&order) {
        store.put(*key, *key).await.unwrap();
        assert_eq!(store.get(key.as_bytes()).await.unwrap(), Some((*key).into()));
    }
    assert_eq!(keys(&store).await, order);
    assert_eq!(fs::read(folder.path().join("a%=")).unwrap(), b"a");
    for (at, key) in order.iter().enumerate() {
        store.delete(*key).await.unwrap();
        assert_eq!(keys(&store).await, order[at + 1..]);
    }
    assert!(files(folder.path()).is_empty());
}

/// Nothing leads out of the folder.
#[tokio::test]
async fn what_is_no_file_is_refused_or_passed_by_and_never_followed() {
    let (outside, folder) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), folder.path().join("dir")).unwrap();
    symlink(outside.path().join("secret"), folder.path().join("k-link")).unwrap();
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    let _socket = UnixListener::bind(folder.path().join("k-socket")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.path().join("k-pipe")).status().unwrap().success());
    fs::write(folder.path().join("plain"), "v").unwrap();
    let foreign = ["dir/secret", "k-link", "dangling", "k-socket", "k-pipe"];
    {
        let store = open(folder.path()).await;
        for key in foreign {
            let error = store.get(key.as_bytes()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{key}: {error:?}");
            assert!(!format!("{error:?}").contains(key), "{error:?}");
        }
        let error = store.collect(Scan::all()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        store.close().await.unwrap();
    }
    let config = FileConfig { foreign: Foreign::Skip, ..FileConfig::new(folder.path()) };
    let store = FileStore::open(config).await.unwrap();
    assert_eq!(keys(&store).await, ["plain"]);
    for key in foreign {
        assert_eq!(store.get(key.as_bytes()).await.unwrap(), None, "{key}");
        let error = store.put(key, "overwritten").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{key}: {error:?}");
        let batch = Batch::new().put(key, "overwritten").put("other", "v");
        assert_eq!(store.write(batch).await.unwrap_err().kind(), ErrorKind::Unsupported, "{key}");
        assert_eq!(store.get(b"other").await.unwrap(), None, "{key}");
        store.delete(key).await.unwrap();
    }
    for key in ["../escaped", "..", "./..", "/etc/passwd", "x/../../escaped"] {
        store.put(key, "v").await.unwrap();
        assert_eq!(store.get(key.as_bytes()).await.unwrap(), Some("v".into()));
    }
    assert!(!folder.path().join("../escaped").exists());
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(folder.path().join("k-link").is_symlink() && folder.path().join("k-pipe").exists());
}

#[tokio::test]
async fn names_that_stand_for_no_key_are_refused_or_passed_by() {
    let folder = tempdir().unwrap();
    let portable = FileConfig { names: Some(Names::Portable), ..FileConfig::new(folder.path()) };
    let store = FileStore::open(portable.clone()).await.unwrap();
    store.put("k", "v").await.unwrap();
    fs::write(folder.path().join("README.md"), "").unwrap();
    let error = store.collect(Scan::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("foreign: skip"), "{error}");
    assert_eq!(store.get(b"README.md").await.unwrap(), None);
    store.close().await.unwrap();
    let store = FileStore::open(FileConfig { foreign: Foreign::Skip, ..portable }).await.unwrap();
    assert_eq!(keys(&store).await, ["k"]);
}

/// Goes on behind each error, as `--skip` does. Gives the keys, and the names of what was skipped.
async fn skipping(store: &FileStore, mut scan: Scan) -> (Vec<String>, Vec<String>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    loop {
        let mut pages = store.scan(scan.clone());
        let error = loop {
            match pages.next().await {
                Some(Ok(page)) => {
                    for entry in page.entries {
                        found.push(text(&entry.key));
                        scan.resume_after(entry.key);
                    }
                }
                Some(Err(error)) => break error,
                None => return (found, wrong),
            }
        };
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        let name = text(error.name().unwrap());
        assert!(!format!("{error:?}").contains(&name), "{error:?}");
        wrong.push(name);
        assert!(wrong.len() < 20, "it does not get on: {wrong:?}");
        scan.resume_after(error.key().unwrap());
    }
}

#[tokio::test]
async fn a_scan_names_what_is_no_entry_and_can_go_on_behind_it() {
    let folder = tempdir().unwrap();
    let entries = ["a", "b/x", "c", "dir-x", "dir.txt", "dir0", "e/y", "z"];
    for name in entries {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "v").unwrap();
    }
    fs::write(folder.path().join("b/no%2fkey"), "v").unwrap();
    fs::create_dir(folder.path().join("c%2fc")).unwrap();
    symlink(folder.path().join("e"), folder.path().join("dir")).unwrap();
    symlink("nowhere", folder.path().join("zz")).unwrap();
    let wrong = ["b/no%2fkey", "c%2fc", "dir", "zz"];
    let store = open(folder.path()).await;
    for pages_of in [1, 3, 100] {
        let (found, skipped) = skipping(&store, Scan::all().page_entries(pages_of)).await;
        assert_eq!(
            (found.as_slice(), skipped.as_slice()),
            (&entries.map(String::from)[..], &wrong.map(String::from)[..])
        );
        let (mut found, mut skipped) =
            skipping(&store, Scan::all().reverse().page_entries(pages_of)).await;
        found.reverse();
        skipped.reverse();
        assert_eq!(
            (found.as_slice(), skipped.as_slice()),
            (&entries.map(String::from)[..], &wrong.map(String::from)[..])
        );
    }
    for order in
        [Scan::prefix("dir/"), Scan::prefix("dir/").reverse(), Scan::range("dir/x".."dir/y")]
    {
        assert_eq!(skipping(&store, order).await, (vec![], vec!["dir".to_owned()]));
    }
    assert_eq!(skipping(&store, Scan::prefix("e")).await.1.len(), 0, "what a scan does not meet");
    let error = store.get(b"dir/y").await.unwrap_err();
    assert_eq!(error.name(), Some(&b"dir/y"[..]));
    let error = store.put("zz", "v").await.unwrap_err();
    assert_eq!(error.name(), Some(&b"zz"[..]));
}

#[tokio::test]
async fn the_layout_is_recorded_and_another_one_is_refused() {
    let folder = tempdir().unwrap();
    let config = |names, fan_out: Option<&[u16]>| FileConfig {
        names,
        fan_out: fan_out.map(<[u16]>::to_vec),
        ..FileConfig::new(folder.path())
    };
    let store = FileStore::open(config(None, Some(&[2, 2]))).await.unwrap();
    store.put("abcdef", "v").await.unwrap();
    assert_eq!(files(folder.path()), ["ab%+/cd%+/ef"]);
    store.close().await.unwrap();
    let store = FileStore::open(config(Some(Names::Portable), None)).await.unwrap();
    assert_eq!(store.get(b"abcdef").await.unwrap(), Some("v".into()));
    store.close().await.unwrap();
    for wrong in [config(None, Some(&[2])), config(Some(Names::Plain), None)] {
        let error = refused(wrong).await;
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("names: portable, fan_out: [2, 2]"), "{error}");
    }
    let layout = folder.path().join(".tierstack/layout");
    for (content, kind) in [
        ("", ErrorKind::Corruption),
        ("tierstack file layout 1\nnames: other\nfan_out: []\n", ErrorKind::Corruption),
        ("tierstack file layout 1\nnames: plain\nfan_out: [0]\n", ErrorKind::Corruption),
        ("tierstack file layout 2\nanything", ErrorKind::Unsupported),
    ] {
        fs::write(&layout, content).unwrap();
        assert_eq!(refused(config(None, None)).await.kind(), kind, "{content}");
    }
    fs::remove_file(&layout).unwrap();
    let error = refused(config(None, Some(&[2, 2]))).await;
    assert_eq!(error.kind(), ErrorKind::Config, "for new folders only: {error:?}");
}

#[tokio::test]
async fn wrong_settings_are_named() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("file"), "").unwrap();
    for (config, word) in [
        (FileConfig::new(""), "`path`"),
        (FileConfig::new(path.join("file")), "names a file"),
        (FileConfig { create: false, ..FileConfig::new(path.join("none")) }, "`create: false`"),
        (FileConfig { fan_out: Some(vec![0]), ..FileConfig::new(path) }, "`fan_out`"),
        (FileConfig { fan_out: Some(vec![1; 9]), ..FileConfig::new(path) }, "`fan_out`"),
    ] {
        let error = refused(config).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(error.message().contains(word), "{error}");
    }
    assert!(!path.join("none").exists());
    let deep = path.join("made/with/parents");
    open(&deep).await.put("k", "v").await.unwrap();
    assert!(deep.join("k").exists());
    fs::write(path.join(".tierstack"), "").unwrap();
    assert_eq!(refused(FileConfig::new(path)).await.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn the_profile_is_kept() {
    let folder = tempdir().unwrap();
    for sync in [true, false] {
        let config = FileConfig { sync, ..FileConfig::new(folder.path()) };
        let store = FileStore::open(config.clone()).await.unwrap();
        assert_eq!(store.profile(), config.profile().unwrap());
        let refused = store.snapshot().await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert_eq!(store.changes().await.err().unwrap().kind(), ErrorKind::Unsupported);
        let batch = Batch::new().put("k", "v").durability(Durability::PowerCut);
        assert_eq!(store.write(batch).await.is_ok(), sync);
        store.close().await.unwrap();
    }
}

/// What a file has in addition to its content, as other programs see it.
#[derive(Debug, PartialEq)]
struct Beside {
    mode: u32,
    owner: u32,
    group: u32,
    attribute: Option<Vec<u8>>,
}

const ATTRIBUTE: &str = "user.origin";

fn beside(path: &Path) -> Beside {
    let about = fs::metadata(path).unwrap();
    let mut value = [0; 64];
    let attribute = rustix::fs::getxattr(path, ATTRIBUTE, &mut value[..]);
    Beside {
        mode: about.mode() & 0o7777,
        owner: about.uid(),
        group: about.gid(),
        attribute: attribute.ok().map(|bytes| value[..bytes].to_vec()),
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_keeps_its_owner_rights_and_attributes() {
    let folder = tempdir().unwrap();
    let names = ["one", "of/a/batch", "name", "run"];
    let mut expected = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "old").unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        // Not every file system has attributes.
        let _ = rustix::fs::setxattr(&path, ATTRIBUTE, name.as_bytes(), flags);
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
        }
        fs::set_permissions(&path, Permissions::from_mode([0o600, 0o640, 0o444, 0o666][n]))
            .unwrap();
        expected.push(beside(&path));
    }
    for sync in [true, false] {
        let config = FileConfig { sync, ..FileConfig::new(folder.path()) };
        let store = FileStore::open(config).await.unwrap();
        store.put("one", "new").await.unwrap();
        store.write(Batch::new().put("of/a/batch", "new").put("other", "1")).await.unwrap();
        // The file moves next to the folder that needs its name.
        store.put("name/below", "1").await.unwrap();
        store.put("name", "new").await.unwrap();
        let page = tierstack::Entry { key: "run".into(), value: "new".into() };
        let run = futures_util::stream::iter([Ok(tierstack::Page { entries: vec![page] })]);
        store.ingest(run.boxed()).await.unwrap();
        for (name, expected) in names.iter().zip(&expected) {
            let path = if *name == "name" { "name%=" } else { name };
            let path = folder.path().join(path);
            assert_eq!(fs::read(&path).unwrap(), b"new", "{name}");
            assert_eq!(beside(&path), *expected, "{name}");
        }
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_new_file_gets_what_the_umask_says() {
    let (folder, other) = (tempdir().unwrap(), tempdir().unwrap());
    let store = open(folder.path()).await;
    store.put("one", "1").await.unwrap();
    store.write(Batch::new().put("two/below", "1").put("three", "1")).await.unwrap();
    fs::write(other.path().join("file"), "1").unwrap();
    fs::create_dir(other.path().join("folder")).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode();
    for name in ["one", "two/below", "three"] {
        let path = folder.path().join(name);
        assert_eq!(mode(path), mode(other.path().join("file")), "{name}");
    }
    assert_eq!(mode(folder.path().join("two")), mode(other.path().join("folder")));
}

#[tokio::test]
async fn what_only_reads_makes_nothing() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("documents");
    let reading = Context { may_create: false, ..Context::default() };
    let error = FileConfig::new(folder.path().join("document")).open(&reading).await.map(drop);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    fs::create_dir(&path).unwrap();
    let error = FileConfig::new(folder.path().join("document")).open(&reading).await.map(drop);
    let error = error.unwrap_err();
    assert!(error.message().contains("did you mean 'documents'?"), "{error}");

    fs::write(path.join("README.md"), "as it is").unwrap();
    let store = FileConfig::new(&path).open(&reading).await.unwrap();
    assert_eq!(store.get(b"README.md").await.unwrap(), Some("as it is".into()));
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 1);
    assert_eq!(store.put("k", "v").await.unwrap_err().kind(), ErrorKind::Access);
    assert_eq!(store.delete("README.md").await.unwrap_err().kind(), ErrorKind::Access);
    store.flush().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(store.get(b"README.md").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing is added");

    // What is a store already is opened as one.
    open(&path).await.close().await.unwrap();
    let store = FileConfig::new(&path).open(&reading).await.unwrap();
    store.put("k", "v").await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_identity_is_that_of_the_folder() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let identity = async |path: PathBuf| {
        let store = open(&path).await;
        let identity = store.identity().unwrap();
        store.close().await.unwrap();
        identity
    };
    let first = identity(at("one")).await;
    assert_eq!(identity(at("one")).await, first);
    symlink(at("one"), at("link")).unwrap();
    assert_eq!(identity(at("link")).await, first);
    assert_ne!(identity(at("two")).await, first);
    fs::rename(at("one"), at("moved")).unwrap();
    assert_eq!(identity(at("moved")).await, first);
}

#[tokio::test]
async fn a_run_is_loaded_as_a_whole() {
    let folder = tempdir().unwrap();
    let (from, store) = (Memory::new(), open(folder.path()).await);
    let value = |n: usize| Value::new(vec![b'v'; n % 3000]);
    let puts = (0..5000).map(|n| Op::Put(format!("{}/{n:05}", n % 7).into(), value(n)));
    from.write(puts.collect()).await.unwrap();
    store.put("0/00000", "replaced").await.unwrap();
    store.put("9/stays", "v").await.unwrap();
    assert_eq!(store.load(from.scan(Scan::all())).await.unwrap(), 5000);
    let mut all = from.collect(Scan::all()).await.unwrap();
    let stays = store.collect(Scan::prefix("9")).await.unwrap();
    all.extend(stays);
    assert!(store.collect(Scan::all()).await.unwrap() == all);
}

#[tokio::test]
async fn conditional_writes_see_every_form_of_a_name() {
    let folder = tempdir().unwrap();
    let store = open(folder.path()).await;
    store.write(Batch::new().put("a", "1").put("a/b", "2")).await.unwrap();
    for key in ["a", "a/b"] {
        let batch = Batch::new().put("new", "1").put(key, "2").if_absent();
        assert_eq!(store.write(batch).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(store.get(b"new").await.unwrap(), None);
    }
    store.write(Batch::new().put("a/b/c", "3").put("a/", "4").if_absent()).await.unwrap();
    fs::write(folder.path().join("theirs"), "").unwrap();
    let batch = Batch::new().put("theirs", "ours").if_absent();
    assert_eq!(store.write(batch).await.unwrap_err().kind(), ErrorKind::Conflict);
}

/// The intent and the layout of version 1, as they were written when they came to be.
#[tokio::test]
async fn the_formats_of_version_1_are_read() {
    let folder = tempdir().unwrap();
    let own = folder.path().join(".tierstack");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/file");
    fs::create_dir_all(own.join("temporary")).unwrap();
    fs::copy(fixtures.join("layout-v1"), own.join("layout")).unwrap();
    fs::copy(fixtures.join("intent-v1"), own.join("intent")).unwrap();
    fs::copy(fixtures.join("0123456789abcdef"), own.join("temporary/0123456789abcdef")).unwrap();
    fs::create_dir(folder.path().join("us%+")).unwrap();
    fs::write(folder.path().join("us%+/er%3a2"), "to be deleted").unwrap();
    let store = open(folder.path()).await;
    let entries = store.collect(Scan::all()).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].key[..], &entries[0].value.bytes[..]), (&b"user:1"[..], &b"Ada"[..]));
    assert_eq!(files(folder.path()), ["us%+/er%3a1"]);
    assert!(!own.join("intent").exists());
}
