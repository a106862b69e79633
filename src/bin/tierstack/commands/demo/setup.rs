//! Where the demo works: a folder with a config of its own, so that nothing else is touched.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use tierstack::codec::KeyRing;
use tierstack::config::{Config, Format, Part, Sealed, StoreConfig};
use tierstack::{Error, Result};

use crate::args::{Demo, Engine, StoreArgs};
use crate::failure::{Failure, Outcome};

/// The stack that the demo shows when no other is named.
const QUICKSTART: &str = include_str!("../../../../../examples/quickstart.yaml");

/// The folder of the store that is shown.
pub(super) const DATA: &str = "data";
/// Names of the stores next to it, and of their folders.
pub(super) const BARE: &str = "alone";
const RESTORED: &str = "restored";

/// A folder with the demo's config.
pub(super) struct DemoFolder {
    folder: PathBuf,
    /// The name of the stack in the config.
    pub(super) store: String,
    pub(super) engine: Engine,
    /// Removes the folder at the end, unless it is to be kept.
    temporary: Option<tempfile::TempDir>,
}

impl DemoFolder {
    /// Makes the folder, keys and config.
    pub(super) fn new(args: &Demo) -> Outcome<Self> {
        let config = match &args.config {
            Some(path) => Config::load(path)?,
            None => Config::parse(QUICKSTART, Format::Yaml, "examples/quickstart.yaml")?,
        };
        let (name, shown) = config.store(args.store.as_deref())?;
        let engine = engine(args, name, shown)?;
        if !shown.layers.iter().any(|layer| layer.name == "backup") {
            return Err(Failure::usage(format!(
                "the demo takes a backup and restores it, and '{name}' has no layer 'backup'"
            )));
        }
        let (folder, temporary) = folder(args.dir.as_deref())?;
        let adapted = adapt(name, shown, engine, args.to.as_deref().map(from_here).as_deref());
        let cannot = |error| Error::io(format!("{} cannot be written", folder.display()), error);
        for store in [DATA, RESTORED, BARE] {
            std::fs::create_dir(folder.join(store)).map_err(cannot)?;
        }
        let text = serde_json::to_string_pretty(&adapted)
            .map_err(|error| Error::internal("the config cannot be printed").with_source(error))?;
        std::fs::write(folder.join("keys.txt"), KeyRing::generate()?.expose()).map_err(cannot)?;
        std::fs::write(folder.join("tierstack.json"), text + "\n").map_err(cannot)?;
        Ok(Self { folder, store: name.to_owned(), engine, temporary })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The stack that is shown.
    pub(super) fn stack(&self) -> StoreArgs {
        self.named(&self.store)
    }

    /// The engine with the same settings, without layers.
    pub(super) fn bare(&self) -> StoreArgs {
        self.named(BARE)
    }

    /// The same stack over a new database.
    pub(super) fn restored(&self) -> StoreArgs {
        self.named(RESTORED)
    }

    fn named(&self, store: &str) -> StoreArgs {
        StoreArgs { config: self.path("tierstack.json"), store: Some(store.to_owned()) }
    }

    /// What the figures without layers are of.
    pub(super) fn alone(&self) -> String {
        format!("{} alone", self.engine.product())
    }

    /// Whether the folder goes away at the end.
    pub(super) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }
}

/// What the stack is over. Without a config, what was asked for or what the command was built with.
fn engine(args: &Demo, name: &str, shown: &StoreConfig) -> Outcome<Engine> {
    if args.config.is_none() {
        return Ok(args.over.unwrap_or(Engine::BUILT_IN));
    }
    Engine::named(&shown.backend.name).ok_or_else(|| {
        Failure::usage(format!(
            "the demo damages the files of a database, and the backend of '{name}' is '{}'; \
             name a store over rocksdb or sqlite",
            shown.backend.name
        ))
    })
}

/// The folder that was asked for, which must be empty, or a temporary one.
fn folder(asked: Option<&Path>) -> Outcome<(PathBuf, Option<tempfile::TempDir>)> {
    let cannot = |folder: &Path, error| {
        Error::io(format!("the folder {} cannot be used", folder.display()), error)
    };
    let Some(folder) = asked else {
        let temporary = tempfile::Builder::new().prefix("tierstack-demo-").tempdir();
        let temporary = temporary.map_err(|error| cannot(&std::env::temp_dir(), error))?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    std::fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
    let mut entries = std::fs::read_dir(folder).map_err(|error| cannot(folder, error))?;
    if entries.next().is_some() {
        let what =
            format!("{} is not empty; --dir must name a new or empty folder", folder.display());
        return Err(Failure::usage(what));
    }
    Ok((folder.to_owned(), None))
}

/// A place for backups as the user means it: a folder is taken from the current one, not from the demo's.
fn from_here(place: &str) -> String {
    match std::path::absolute(place) {
        Ok(path) if !place.contains("://") => path.display().to_string(),
        _ => place.to_owned(),
    }
}

/// The config of the demo: the stack, the bare engine and the restored stack, all in its folder.
fn adapt(name: &str, shown: &StoreConfig, engine: Engine, to: Option<&str>) -> Value {
    let layers = |backup: bool| -> Vec<Value> {
        let layers = shown.layers.iter().filter(|layer| backup || layer.name != "backup");
        layers.map(|layer| with_own_places(layer, to)).collect()
    };
    let backend = |folder: &str| {
        // Those of another engine say nothing about this one.
        let mut settings = match shown.backend.name == engine.name() {
            true => object(&shown.backend.settings),
            false => Map::new(),
        };
        settings.insert("path".to_owned(), json!(engine.path(folder)));
        json!({ engine.name(): settings })
    };
    let stack = |layers: Vec<Value>, folder: &str| {
        let mut stack = json!({ "layers": layers, "backend": backend(folder) });
        if let (Some(Sealed::Required), Some(stack)) = (shown.sealed, stack.as_object_mut()) {
            stack.insert("sealed".to_owned(), json!("required"));
        }
        stack
    };
    json!({
        "stores": {
            name: stack(layers(true), DATA),
            RESTORED: stack(layers(false), RESTORED),
            BARE: { "backend": backend(BARE) },
        },
        "default": name,
    })
}

fn with_own_places(layer: &Part, to: Option<&str>) -> Value {
    let mut settings = object(&layer.settings);
    let (setting, value) = match layer.name.as_str() {
        "encrypt" => ("keys", json!({ "file": "keys.txt" })),
        "backup" => ("to", json!(to.unwrap_or("backups"))),
        // What the import writes is not to be read from memory: the demo tells how often a cache hits that is empty at first.
        "cache" => ("on_write", json!("drop")),
        _ => return json!({ layer.name.clone(): settings }),
    };
    settings.insert(setting.to_owned(), value);
    json!({ layer.name.clone(): settings })
}

fn object(settings: &Value) -> Map<String, Value> {
    settings.as_object().cloned().unwrap_or_default()
}

/// Bytes of all files below a folder; nothing where it does not exist.
pub(super) fn size(folder: &Path) -> Result<u64> {
    let cannot =
        |error| Error::io(format!("the folder {} cannot be read", folder.display()), error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(cannot)?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let meta = entry.metadata().map_err(cannot)?;
        bytes += if meta.is_dir() { size(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
