//! The compose file, Prometheus' settings and Grafana's name files that are there, where they are mounted.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::{boards, files, list, text, yaml};

const FOLDER: &str = "dashboards";

/// A service of the compose file.
struct Service(Value);

impl Service {
    fn named(name: &str) -> Self {
        let compose = yaml(&Path::new(FOLDER).join("compose.yaml"));
        Self(compose["services"][name].clone())
    }

    /// What is mounted: the path here, and the path in the container.
    fn mounts(&self) -> Vec<(PathBuf, String)> {
        let parts = |mount: &Value| text(mount).split(':').map(str::to_owned).collect::<Vec<_>>();
        let mounts = list(&self.0["volumes"]).iter().map(parts);
        mounts
            .map(|parts| {
                assert_eq!(parts.get(2).map(String::as_str), Some("ro"), "{parts:?}");
                (Path::new(FOLDER).join(&parts[0]), parts[1].clone())
            })
            .collect()
    }

    /// Where a path of the container is here.
    fn path(&self, inside: &str) -> PathBuf {
        let mounts = self.mounts();
        let found = mounts.iter().find_map(|(here, there)| {
            let rest = inside.strip_prefix(there.as_str())?;
            Some(here.join(rest.trim_start_matches('/')))
        });
        found.unwrap_or_else(|| panic!("{inside} is not mounted: {mounts:?}"))
    }

    /// What a flag of the command is set to.
    fn flag(&self, name: &str) -> String {
        let command = list(&self.0["command"]);
        let set = command.iter().find_map(|word| text(word).strip_prefix(name).map(str::to_owned));
        set.unwrap_or_else(|| panic!("there is no {name}"))
    }
}

#[test]
fn what_is_mounted_is_there() {
    for name in ["prometheus", "grafana"] {
        let service = Service::named(name);
        let image = text(&service.0["image"]);
        assert!(image.contains(":v") || image.contains(":1"), "{image} has no version");
        assert!(!service.mounts().is_empty());
        for (here, _) in service.mounts() {
            assert!(here.exists(), "{}", here.display());
        }
    }
}

#[test]
fn prometheus_finds_its_rules() {
    let config =
        Service::named("prometheus").path(&Service::named("prometheus").flag("--config.file="));
    let rules = list(&yaml(&config)["rule_files"]).iter().map(text).collect::<Vec<_>>();
    assert_eq!(rules, ["rules/*.yaml"]);
    assert!(!files(&format!("{}/rules", config.parent().unwrap().display()), "yaml").is_empty());
}

#[test]
fn grafana_finds_prometheus_and_the_boards() {
    let grafana = Service::named("grafana");
    let home =
        grafana.path(&text(&grafana.0["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]));
    assert!(home.is_file(), "{}", home.display());
    // Where Grafana looks by default.
    let provisioning = |folder: &str| grafana.path(&format!("/etc/grafana/provisioning/{folder}"));
    let sources = yaml(&files(provisioning("datasources").to_str().unwrap(), "yaml")[0]);
    let listens = Service::named("prometheus").flag("--web.listen-address=");
    assert_eq!(text(&sources["datasources"][0]["url"]), format!("http://{listens}"));
    let providers = yaml(&files(provisioning("dashboards").to_str().unwrap(), "yaml")[0]);
    let folder = grafana.path(&text(&providers["providers"][0]["options"]["path"]));
    assert_eq!(files(folder.to_str().unwrap(), "json").len(), boards().len());
}
