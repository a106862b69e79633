use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::backends::file::names::{At, HOME, Kind, Layout, Names};

/// Bytes that mean something in names.
const AWKWARD: &[u8] = b"aAbB01cf2%.+=/^~: \x00\xff\xc3\xa9";

fn key() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        vec(select(AWKWARD), 1..6),
        vec(any::<u8>(), 1..6),
        select(vec![
            ".",
            "..",
            ".tierstack",
            "con",
            "NUL.txt",
            "com1",
            "a",
            "%2f",
            "%+",
            "%=",
            "/"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        // Around the length at which names are cut.
        (select(AWKWARD), 80..260usize).prop_map(|(byte, times)| vec![byte; times]),
    ];
    vec(part, 1..6).prop_map(|parts| parts.concat())
}

fn layout() -> impl Strategy<Value = Layout> {
    let fan_out = select(vec![vec![], vec![1], vec![2, 2], vec![3, 1, 64]]);
    (select(vec![Names::Plain, Names::Portable]), fan_out)
        .prop_map(|(names, fan_out)| Layout { names, fan_out })
}

/// What a scan compares: the bytes that each name adds, and what it is.
fn visited(layout: &Layout, key: &[u8]) -> Vec<(Vec<u8>, Kind)> {
    let path = layout.path(key);
    let (mut at, mut items) = (At::default(), Vec::new());
    let folders = path.folders.iter().map(|name| (name, true));
    for (name, is_folder) in folders.chain([(&path.file, false)]) {
        let (mut bytes, kind) = layout.parse(name, is_folder, at).unwrap_or_else(|| {
            panic!("{key:?}: {:?} is not parsed back", String::from_utf8_lossy(name))
        });
        at = at.inside(&bytes, kind);
        if kind == Kind::Folder {
            bytes.push(b'/');
        }
        items.push((bytes, kind));
    }
    items
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn names_lead_back_to_their_key(layout in layout(), key in key()) {
        let items = visited(&layout, &key);
        let spelt: Vec<u8> = items.into_iter().flat_map(|(bytes, _)| bytes).collect();
        prop_assert_eq!(spelt, key);
    }

    #[test]
    fn names_are_safe(layout in layout(), key in key()) {
        let path = layout.path(&key);
        prop_assert!(path.folders.iter().chain([&path.file]).next().unwrap() != HOME);
        // It may get the mark of a file that is next to a folder.
        prop_assert!(path.file.len() + 2 <= 255);
        for name in path.folders.iter().chain([&path.file]) {
            prop_assert!((1..=255).contains(&name.len()), "{} bytes", name.len());
            prop_assert!(!name.contains(&b'/') && !name.contains(&0));
            prop_assert!(name != b"." && name != b"..");
            if layout.names == Names::Portable {
                prop_assert!(name.is_ascii());
                prop_assert!(!name.iter().any(u8::is_ascii_uppercase), "folds with another name");
                prop_assert!(!name.iter().any(|byte| b"<>:\"\\|?*~".contains(byte) || byte.is_ascii_control()));
                prop_assert!(!name.ends_with(b".") && !name.ends_with(b" "));
                let stem = name.split(|byte| *byte == b'.').next().unwrap();
                prop_assert!(!["con", "prn", "aux", "nul", "com1"].contains(&std::str::from_utf8(stem).unwrap()));
            }
        }
    }

    #[test]
    fn folders_are_visited_in_the_order_of_the_keys(
        layout in layout(),
        keys in btree_set(key(), 2..12),
        shared in key(),
        cuts in vec(0..9usize, 12),
    ) {
        // Keys that share a beginning of any length, and the beginning itself.
        let mut keys: Vec<Vec<u8>> = keys.into_iter().zip(cuts).flat_map(|(key, cut)| {
            let beginning = &shared[..shared.len() * cut / 8 % (shared.len() + 1)];
            [[beginning, &key].concat(), key]
        }).collect();
        keys.push(shared);
        keys.sort();
        keys.dedup();
        for (at, low) in keys.iter().enumerate() {
            for high in &keys[at + 1..] {
                prop_assert!(visited(&layout, low) < visited(&layout, high), "{:?} and {:?}", low, high);
            }
        }
    }

    #[test]
    fn no_name_is_the_name_of_two_things(layout in layout(), name in vec(select(AWKWARD), 1..8)) {
        if name.contains(&b'/') || name.contains(&0) {
            return Ok(());
        }
        for is_folder in [false, true] {
            if let Some((bytes, kind)) = layout.parse(&name, is_folder, At::default()) {
                prop_assert_eq!(layout.name(&bytes, kind, At::default()), name.clone());
            }
        }
    }
}

fn shown(layout: &Layout, key: &str) -> String {
    let path = layout.path(key.as_bytes());
    let names: Vec<_> = path.folders.iter().chain([&path.file]).collect();
    names.into_iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join("/")
}

/// The table of docs/backends/file.md.
#[test]
fn names_are_as_the_docs_say() {
    let plain = Layout { names: Names::Plain, fan_out: vec![] };
    let portable = Layout { names: Names::Portable, fan_out: vec![] };
    for (key, as_plain, as_portable) in [
        ("docs/readme.md", "docs/readme.md", "docs/readme.md"),
        ("README.md", "README.md", "^r^e^a^d^m^e.md"),
        ("user:1", "user:1", "user%3a1"),
        ("caf\u{e9}", "caf\u{e9}", "caf%c3%a9"),
        ("100%", "100%", "100%25"),
        ("a%2fb", "a%252fb", "a%252fb"),
        ("/a//b/", "%2fa/%2fb%2f", "%2fa/%2fb%2f"),
        ("..", "%2e.", ".%2e"),
        ("con.txt", "con.txt", "%63on.txt"),
        (".tierstack", "%2etierstack", "%2etierstack"),
    ] {
        assert_eq!(shown(&plain, key), as_plain);
        assert_eq!(shown(&portable, key), as_portable);
    }
    let wide = Layout { names: Names::Portable, fan_out: vec![2, 2] };
    assert_eq!(shown(&wide, "abcdef"), "ab%+/cd%+/ef");
    assert_eq!(shown(&wide, "abcd"), "ab%+/cd");
    assert_eq!(shown(&wide, "a/bcd"), "a/bc%+/d");
    let long = "x".repeat(600);
    assert_eq!(shown(&plain, &long), format!("{0}%+/{0}%+/{1}", &long[..249], &long[..102]));
}

#[test]
fn a_key_of_slashes_makes_no_thousands_of_folders() {
    for key in [b"/".repeat(65_536), b"a/".repeat(32_768), vec![0xff; 65_536]] {
        for names in [Names::Plain, Names::Portable] {
            let folders = Layout { names, fan_out: vec![] }.path(&key).folders.len();
            assert!(folders < 1000, "{folders}");
        }
    }
}

/// All keys of up to three bytes that mean something, and long ones around the cuts, as a tree: no name twice,
/// no folder's name for a file, and a walk of the sorted names meets the keys in their order.
#[test]
fn every_short_key_and_every_long_one_has_a_place_of_its_own() {
    const BYTES: &[u8] = b"aA2f/.%+=^ :\xc3";
    let mut keys: Vec<Vec<u8>> = vec![vec![]];
    for length in 0..3 {
        let longest: Vec<_> = keys.iter().filter(|key| key.len() == length).cloned().collect();
        keys.extend(
            longest.iter().flat_map(|key| BYTES.iter().map(|byte| [key, &[*byte][..]].concat())),
        );
    }
    let starts: [&[u8]; 5] = [b"con.", b"x", b".tierstack", b"%", b"a/con."];
    for start in starts {
        // Around the cuts of bytes that take one, two and three in a name.
        let lengths = || (80..85).chain(120..125).chain(240..251);
        for (filler, length) in
            [b'x', b'A', b':'].into_iter().flat_map(|f| lengths().map(move |l| (f, l)))
        {
            let body = [start, &vec![filler; length][..]].concat();
            for end in [&b""[..], b".", b" ", b":", b":y", b".y", b"%=", b"/y", b"Y", b"%+y"] {
                keys.push([&body, end].concat());
            }
        }
    }
    keys.extend(
        [".tierstack", ".tierstack/lock", "..", "../x", "../../x", "a/../b", "con.txt/nul"]
            .map(|key| key.as_bytes().to_vec()),
    );
    keys.sort();
    keys.dedup();
    keys.retain(|key| !key.is_empty());
    for names in [Names::Plain, Names::Portable] {
        for fan_out in [vec![], vec![1], vec![2, 2], vec![1, 1, 1]] {
            let layout = Layout { names, fan_out };
            let mut files = std::collections::BTreeMap::new();
            let mut folders = std::collections::BTreeSet::new();
            let mut last = None;
            for key in &keys {
                let path = layout.path(key);
                for name in path.folders.iter().chain([&path.file]) {
                    assert!(name.len() <= 255 && name != b"." && name != b".." && !name.is_empty());
                    assert!(!name.contains(&b'/') && !name.contains(&0));
                }
                let beside = crate::backends::file::names::beside(&path.file);
                assert!(beside.len() <= 255, "{} bytes: {key:?}", beside.len());
                assert_ne!(path.folders.first().unwrap_or(&path.file), HOME);
                for depth in 1..=path.folders.len() {
                    folders.insert(path.folders[..depth].to_vec());
                }
                for name in [path.file.clone(), beside] {
                    let place = [&path.folders[..], &[name]].concat();
                    // On a file system that ignores case, portable names stay apart.
                    let place = match names {
                        Names::Plain => place,
                        Names::Portable => {
                            place.iter().map(|name| name.to_ascii_uppercase()).collect()
                        }
                    };
                    if let Some(other) = files.insert(place, key) {
                        panic!("{layout:?}: {key:?} and {other:?} are one file");
                    }
                }
                let items = visited(&layout, key);
                assert!(last.is_none_or(|last| last < items), "{layout:?}: the order at {key:?}");
                last = Some(items);
            }
            // Of a folder's names only a file that then is next to it.
            for folder in folders.iter().filter(|folder| folder.last().unwrap().ends_with(b"%+")) {
                assert!(!files.contains_key(folder), "a part has the name of a file");
            }
        }
    }
}
