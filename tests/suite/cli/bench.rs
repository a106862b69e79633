//! `bench`.

use crate::folder::{Folder, PLAIN};

/// The same data with and without a cache.
fn folder() -> Folder {
    let folder = Folder::new(PLAIN);
    folder.write("cached.yaml", PLAIN.replace("backend:", "layers: [ cache ], backend:"));
    let lines: String =
        (0..200).map(|n| format!("{{\"key\":\"key {n:03}\",\"value\":\"value {n}\"}}\n")).collect();
    folder.run_with(&["import", "-"], lines).ok();
    folder
}

#[test]
fn two_configs_are_measured_on_the_same_reads_and_drawn() {
    let folder = folder();
    let args = ["bench", "--against", "cached.yaml", "--reads", "2000", "--plot", "it.svg"];
    let fact = folder.run(&[&args[..], &["--json"]].concat()).ok().json();
    assert_eq!(fact["keys"], 200);
    let measured = fact["measured"].as_array().unwrap();
    assert_eq!(measured.len(), 2);
    assert_eq!(
        (&measured[0]["shape"], &measured[1]["shape"]),
        (&"rocksdb".into(), &"cache(rocksdb)".into())
    );
    for one in measured {
        assert_eq!((one["reads"].as_u64(), one["missing"].as_u64()), (Some(2000), Some(0)));
        let time = |name: &str| one[name].as_u64().unwrap();
        let times = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"].map(time);
        assert!(times.is_sorted() && times[0] > 0, "{one}");
    }
    let picture = folder.read("it.svg");
    assert!(
        picture.starts_with("<svg") && picture.contains("main of cached.yaml"),
        "{picture:.300}"
    );

    let ran = folder.run(&args).ok();
    assert!(
        ran.out.contains("2,000 reads of 200 keys, one after the other, by a skewed pattern"),
        "{}",
        ran.out
    );
    assert!(ran.out.ends_with("drawn into it.svg\n"), "{}", ran.out);
    assert_eq!(folder.entries().len(), 200, "nothing was changed");
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is() {
    let folder = folder();
    folder.write("empty.yaml", PLAIN.replace("data", "elsewhere"));
    folder.run(&["bench", "--plot", "-"]).refused().says("--plot names a file");
    folder.run(&["bench", "--plot", "tierstack.yaml"]).refused().says("belongs to the config");
    folder.run(&["bench", "--against-store", "main"]).refused().says("needs --against");
    folder.run(&["bench", "--against", "none.yaml"]).refused().says("none.yaml");
    folder.run(&["bench", "--trace", "none"]).fails().says("the trace none cannot be read");
    folder.run(&["bench", "--config", "empty.yaml"]).refused().says("there is no database");
    assert!(!folder.names().contains(&"elsewhere".to_owned()), "nothing is made");
}

#[test]
fn reads_that_find_nothing_are_told() {
    let folder = folder();
    folder.write("other.yaml", PLAIN.replace("data", "other"));
    folder
        .run_with(
            &["import", "--config", "other.yaml", "-"],
            "{\"key\":\"key 000\",\"value\":\"\"}\n",
        )
        .ok();
    let ran = folder.run(&["bench", "--against", "other.yaml", "--reads", "100"]).ok();
    assert!(ran.out.contains("found nothing: it does not hold the same data"), "{}", ran.out);
}
