//! The config file as types.
//!
//! A [`Config`] is read from YAML, TOML or JSON; what its layers and backends are called, and which
//! settings they take, is in a [`Registry`]. [`Stack::check`](crate::Stack::check) puts both together.
//!
//! An error names the file, the path in it, what is allowed, and the nearest name for a misspelt one.
//! It never quotes a value, which may be a secret that is where it should not.
//!
//! # Limits
//! A file has at most 1 MiB, and 64 levels of nesting in YAML.
//!
//! # Example
//! ```
//! use tierstack::config::{Config, Format, Registry};
//! use tierstack::Stack;
//!
//! let text = "
//! stores:
//!   orders:
//!     backend: memory
//! ";
//! let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
//! let checked = Stack::check(&config, None, &Registry::standard())?;
//! assert_eq!(checked.store(), "orders");
//! # Ok::<(), tierstack::Error>(())
//! ```

mod explain;
mod part;
mod registry;
mod schema;
mod serve;
mod setting;
mod shared;
mod strict;
mod telemetry;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

pub use self::part::Part;
pub(crate) use self::part::SHARED;
use self::part::backend;
pub use self::registry::Registry;
pub(crate) use self::registry::{AnyBackend, AnyLayer};
pub use self::schema::schema;
pub use self::serve::{
    Grants, LimitsConfig, Listen, ListenerConfig, LogLevel, Right, ServeConfig, TlsConfig,
    TokenConfig,
};
use self::setting::{path, present};
use self::shared::SharedBackends;
pub(crate) use self::shared::{Share, SharedBackend};
pub use self::telemetry::TelemetryConfig;
pub use self::tree::Format;
use crate::error::{Error, Result};

/// A config file: stores by name, which of them is meant when none is named, and telemetry.
///
/// While stores of one `Config`, or of its clones, are open, a backend of [`backends`](Self::backends) is open
/// once for all of them.
///
/// Printing it with `{:?}` prints names only, no settings. See the [module docs](self).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the JSON Schema is, for editors. Not used otherwise.
    #[serde(rename = "$schema", default, deserialize_with = "present")]
    _schema: Option<String>,
    /// Backends that several stores use, by names such as those of stores. A store names one in place of a
    /// backend of its own, `backend: { shared: NAME }`, and says which part of it is its own: by a `prefix`,
    /// or by what the backend has for it, such as `column_family` or `table`.
    #[serde(default)]
    pub backends: BTreeMap<String, Part>,
    /// The stores by name: letters, digits, `_` and `-`, at most 64, the first a letter or a digit.
    pub stores: BTreeMap<String, StoreConfig>,
    /// The store that is meant when none is named. With a single store, it is that one.
    #[serde(default, deserialize_with = "present")]
    pub default: Option<String>,
    /// Where metrics are served. Not at all if unset.
    #[serde(default, deserialize_with = "present")]
    pub telemetry: Option<TelemetryConfig>,
    /// The Unix domain socket on which the process can be reached. Not at all if unset.
    #[serde(default, deserialize_with = "socket")]
    pub control: Option<PathBuf>,
    /// Where and how `tierstack serve` and a [`Server`](crate::serve::Server) serve the stores. Not at all if unset.
    #[serde(default, deserialize_with = "present")]
    pub serve: Option<ServeConfig>,
    #[serde(skip)]
    shared: SharedBackends,
    /// The file, or what stands for it in messages.
    #[serde(skip)]
    origin: PathBuf,
}

/// A store: layers, outermost first, over a backend.
///
/// ```
/// use tierstack::config::{Config, Format};
///
/// let text = "stores: { main: { layers: [metrics, { timeout: { after: 2s } }], backend: memory } }";
/// let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
/// let (name, store) = config.store(None)?;
/// assert_eq!((name, &*store.backend.name), ("main", "memory"));
/// assert_eq!(store.layers[1].name, "timeout");
/// assert_eq!(store.layers[1].settings["after"], "2s");
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The layers, outermost first: a read enters at the top.
    #[serde(default)]
    pub layers: Vec<Part>,
    /// What holds the data. Where it is one of [`Config::backends`], the name is `shared`, and the settings are
    /// what is next to it, `shared` included.
    #[serde(deserialize_with = "backend")]
    pub backend: Part,
    /// `required`: the stack is refused if values rest unsealed anywhere. Unset: they may.
    #[serde(default, deserialize_with = "present")]
    pub sealed: Option<Sealed>,
}

/// Whether values must be sealed wherever they rest.
///
/// ```
/// use tierstack::Stack;
/// use tierstack::config::{Config, Format, Registry, Sealed};
///
/// let text = "stores: { main: { sealed: required, layers: [backup: { to: ./b }], backend: memory } }";
/// let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
/// assert_eq!(config.stores["main"].sealed, Some(Sealed::Required));
/// let refused = Stack::check(&config, None, &Registry::standard()).err().unwrap();
/// assert!(refused.to_string().contains("values would rest plain in backup (folder)"));
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sealed {
    /// A stack in which a value rests plain in any place is refused.
    Required,
}

impl Config {
    /// The most that a config file may have.
    pub const MAX_BYTES: u64 = 1 << 20;

    /// Reads a file; its extension says the format. Relative paths in it are resolved against its
    /// folder.
    ///
    /// # Errors
    /// `Config` that says what is wrong where, or how to make the file that is missing.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let format = Format::of(path)?;
        Self::parse(&read(path)?, format, path)
    }

    /// Reads a text. `origin` is the file that it comes from, or what stands for it in messages.
    ///
    /// # Errors
    /// `Config` that says what is wrong where.
    pub fn parse(text: &str, format: Format, origin: impl Into<PathBuf>) -> Result<Self> {
        let origin = origin.into();
        let refuse =
            |what: &dyn fmt::Display| Error::config(format!("{}: {what}", origin.display()));
        let tree = tree::parse(text, format).map_err(|error| refuse(&error))?;
        if tree.is_null() {
            return Err(refuse(
                &"the file is empty; it names at least one store under `stores`, such as `stores: { main: { backend: memory } }`",
            ));
        }
        let config: Self = strict::typed("", &tree).map_err(|(path, what)| {
            if path.is_empty() { refuse(&what) } else { refuse(&format_args!("{path}: {what}")) }
        })?;
        config.check_names().map_err(|what| refuse(&what))?;
        Ok(Self { origin, ..config })
    }

    /// The file, or what stands for it in messages.
    #[must_use]
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Serves Prometheus text where `telemetry.listen` says, from now until the process ends, and does
    /// nothing without it. A service calls it once, before it opens its stacks.
    ///
    /// # Errors
    /// Like [`telemetry::listen`](crate::telemetry::listen).
    pub fn listen(&self) -> Result<()> {
        match &self.telemetry {
            Some(telemetry) => crate::telemetry::listen(telemetry.listen),
            None => Ok(()),
        }
    }

    /// The path of the socket on which the process that runs these stores can be reached. A service calls
    /// [`Control::of`](crate::control::Control::of), once it has opened its stacks.
    #[must_use]
    pub fn control(&self) -> Option<PathBuf> {
        self.control.as_ref().map(|path| self.folder().join(path))
    }

    /// The folder against which relative paths are resolved.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.origin.parent().unwrap_or(Path::new(""))
    }

    /// The store of that name, or the default.
    ///
    /// # Errors
    /// `Config` that names the nearest store and all of them.
    pub fn store(&self, name: Option<&str>) -> Result<(&str, &StoreConfig)> {
        let found = match name.or(self.default.as_deref()) {
            Some(name) => self.stores.get_key_value(name).ok_or_else(|| {
                explain::unknown("store", name, self.stores.keys().map(String::as_str))
            }),
            None => self.stores.first_key_value().ok_or_else(|| "there is no store".to_owned()),
        };
        match found {
            Ok((name, store)) => Ok((name, store)),
            Err(what) => Err(Error::config(format!("{}: {what}", self.origin.display()))),
        }
    }

    /// The shared backend of that name.
    pub(crate) fn shared(&self, name: &str) -> std::result::Result<(&str, &Part), String> {
        self.backends.get_key_value(name).map(|(name, part)| (name.as_str(), part)).ok_or_else(|| {
            if self.backends.is_empty() {
                return format!(
                    "there is no shared backend in this file; write it at the top, such as `backends: {{ {name}: {{ sqlite: {{ path: ./data.db }} }} }}`"
                );
            }
            explain::unknown("shared backend", name, self.backends.keys().map(String::as_str))
        })
    }

    /// The shared backend of that name, as far as it is open.
    pub(crate) fn open_backend(&self, name: &str) -> std::sync::Arc<SharedBackend> {
        self.shared.get(name)
    }

    fn check_names(&self) -> std::result::Result<(), String> {
        let names = || self.stores.keys().map(String::as_str);
        if self.stores.is_empty() {
            return Err(
                "stores: the map is empty; write at least one store, such as `main: { backend: memory }`"
                    .to_owned(),
            );
        }
        if let Some(name) = names().find(|name| !is_store_name(name)) {
            return Err(format!(
                "stores: '{}' is not a name for a store; use 1 to 64 letters, digits, '_' and '-', the first a letter or a digit",
                name.chars().take(80).collect::<String>()
            ));
        }
        for (store, config) in &self.stores {
            let refuse = |what| Err(format!("stores.{store}.backend.{SHARED}: {what}"));
            match config.shared() {
                Some(name) => self.shared(name).map(drop).or_else(refuse)?,
                None if config.backend.name == SHARED => {
                    return refuse("expected the name of one of `backends`, as text".to_owned());
                }
                None => {}
            }
        }
        for (name, part) in &self.backends {
            if !is_store_name(name) {
                return Err(format!(
                    "backends: '{}' is not a name for a backend; use 1 to 64 letters, digits, '_' and '-', the first a letter or a digit",
                    name.chars().take(80).collect::<String>()
                ));
            }
            if part.name == SHARED {
                return Err(format!(
                    "backends.{name}: this is a backend that stores share, so it cannot be `shared` itself; write what it is, such as `{name}: {{ sqlite: {{ path: ./data.db }} }}`"
                ));
            }
            if self.stores.values().all(|store| store.shared() != Some(name)) {
                return Err(format!(
                    "backends.{name}: no store uses it; write `backend: {{ shared: {name} }}` in a store, or take it out"
                ));
            }
        }
        if let Some(serve) = &self.serve {
            serve.check_with(&names().collect::<Vec<_>>())?;
            let metrics = self.telemetry.as_ref().map(|telemetry| Listen::Tcp(telemetry.listen));
            if metrics.is_some_and(|place| serve.listeners.iter().any(|l| l.place == place)) {
                return Err(
                    "telemetry.listen: a listener of `serve` has this address, and serves the same metrics at `/metrics`; leave `telemetry` out"
                        .to_owned(),
                );
            }
        }
        match &self.default {
            Some(default) if !self.stores.contains_key(default) => {
                Err(format!("default: {}", explain::unknown("store", default, names())))
            }
            None if self.stores.len() > 1 => Err(format!(
                "default: there are several stores, so say which one is meant when none is named. Allowed: {}",
                explain::list(names())
            )),
            _ => Ok(()),
        }
    }
}

impl StoreConfig {
    /// The name of the shared backend that the store uses.
    pub(crate) fn shared(&self) -> Option<&str> {
        (self.backend.name == SHARED).then(|| self.backend.settings.get(SHARED)?.as_str()).flatten()
    }
}

/// What is wrong with a setting of that name, and which there are.
pub(crate) fn unknown_setting<'a>(
    name: &str,
    allowed: impl Iterator<Item = &'a str> + Clone,
) -> String {
    explain::unknown("setting", name, allowed)
}

/// As in the schema.
fn is_store_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let refuse = |what: &str| Error::config(format!("{}: {what}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| {
        refuse(match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file. Name another with `--config FILE`, or write one: `examples/quickstart.yaml` is a start, and `tierstack schema` describes every setting",
            _ => "the file cannot be opened",
        })
        .with_source(error)
    })?;
    let read = file.take(Config::MAX_BYTES + 1).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 > Config::MAX_BYTES => {
            Err(refuse("a config file has at most 1 MiB; is this the right one?"))
        }
        Ok(_) => Ok(text),
        Err(error) => {
            let what = match error.kind() {
                std::io::ErrorKind::InvalidData => "the file is not text in UTF-8",
                _ => "the file cannot be read",
            };
            Err(refuse(what).with_source(error))
        }
    }
}

fn socket<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<PathBuf>, D::Error> {
    path(deserializer).map(Some)
}
