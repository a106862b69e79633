//! Layers and backends by name.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::part::SHARED;
use super::{explain, strict};
use crate::error::{Error, Result};
use crate::layer::{BackendConfig, Claim, Context, LayerConfig, StackLayer, Zone};
use crate::store::Store;
use crate::types::Profile;

/// The layers and backends that a config may name. [`Registry::standard`] has those that are compiled
/// in; add your own with [`layer`](Self::layer) and [`backend`](Self::backend).
///
/// ```
/// use tierstack::backends::MemoryConfig;
/// use tierstack::config::Registry;
///
/// let mut registry = Registry::standard();
/// assert!(registry.backend_names().any(|name| name == "memory"));
/// let taken = registry.backend::<MemoryConfig>().unwrap_err();
/// assert!(taken.to_string().contains("'memory'"));
/// ```
#[derive(Default)]
pub struct Registry {
    layers: BTreeMap<&'static str, LayerEntry>,
    backends: BTreeMap<&'static str, BackendEntry>,
}

/// What the registry knows of a layer.
pub(crate) struct LayerEntry {
    pub(crate) zone: Zone,
    pub(crate) parse: fn(&str, &Value) -> Result<Arc<dyn AnyLayer>>,
    pub(super) schema: Schemas,
}

/// What the registry knows of a backend.
pub(crate) struct BackendEntry {
    pub(crate) parse: fn(&str, &Value) -> Result<Arc<dyn AnyBackend>>,
    pub(crate) own: &'static [&'static str],
    pub(super) schema: Schemas,
}

/// How the settings of a type are described.
#[derive(Clone, Copy)]
pub(super) struct Schemas {
    pub(super) of: fn(&mut SchemaGenerator) -> Schema,
    /// Whether the name alone, without a setting, is enough.
    pub(super) bare: fn() -> bool,
    /// Whether unknown settings are refused only by [`strict_properties`].
    pub(super) open: fn() -> bool,
}

/// A [`LayerConfig`] of a type that is known only at run time.
#[async_trait]
pub(crate) trait AnyLayer: Any + Send + Sync {
    fn profile(&self, below: Profile) -> Result<Profile>;
    fn claims(&self, context: &Context) -> Vec<Claim>;
    fn register_metrics(&self, context: &Context, below: &Profile);
    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>>;
}

/// A [`BackendConfig`] of a type that is known only at run time.
#[async_trait]
pub(crate) trait AnyBackend: Any + Send + Sync {
    fn profile(&self) -> Result<Profile>;
    fn part(&self) -> String;
    fn claims(&self, context: &Context) -> Vec<Claim>;
    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>>;
}

#[async_trait]
impl<C: LayerConfig> AnyLayer for C {
    fn profile(&self, below: Profile) -> Result<Profile> {
        LayerConfig::profile(self, below)
    }

    fn claims(&self, context: &Context) -> Vec<Claim> {
        LayerConfig::claims(self, context)
    }

    fn register_metrics(&self, context: &Context, below: &Profile) {
        LayerConfig::register_metrics(self, context, below);
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        LayerConfig::open(self, context).await
    }
}

#[async_trait]
impl<C: BackendConfig> AnyBackend for C {
    fn profile(&self) -> Result<Profile> {
        BackendConfig::profile(self)
    }

    fn part(&self) -> String {
        BackendConfig::part(self)
    }

    fn claims(&self, context: &Context) -> Vec<Claim> {
        BackendConfig::claims(self, context)
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        BackendConfig::open(self, context).await
    }
}

/// Names that need a cargo feature. They stay reserved where it is off, so that turning it on never
/// changes what a config means.
const FEATURES: [(&str, Kind, &str); 11] = [
    ("cache", Kind::Layer, "cache"),
    ("compress", Kind::Layer, "compress"),
    ("encrypt", Kind::Layer, "encrypt"),
    ("backup", Kind::Layer, "backup"),
    ("file", Kind::Backend, "file"),
    ("object", Kind::Backend, "object"),
    ("opendal", Kind::Backend, "opendal"),
    ("postgres", Kind::Backend, "postgres"),
    ("redis", Kind::Backend, "redis"),
    ("rocksdb", Kind::Backend, "rocksdb"),
    ("sqlite", Kind::Backend, "sqlite"),
];

/// What a name is the name of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Layer,
    Backend,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Backend => "backend",
        }
    }
}

impl Registry {
    /// A registry without any name. Most programs start from [`Registry::standard`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a layer under [`LayerConfig::NAME`].
    ///
    /// Settings that the type does not know are refused in any case; give it
    /// `#[serde(deny_unknown_fields)]` so that this holds within its parts too.
    ///
    /// # Errors
    /// `Config` if the name is taken, reserved, or not of lower-case letters, digits and `_`.
    pub fn layer<C>(&mut self) -> Result<&mut Self>
    where
        C: LayerConfig + DeserializeOwned + JsonSchema,
    {
        self.check_name(Kind::Layer, C::NAME)?;
        Ok(self.put_layer::<C>())
    }

    /// Registers a backend under [`BackendConfig::NAME`]. As [`layer`](Self::layer).
    ///
    /// # Errors
    /// Like [`layer`](Self::layer).
    pub fn backend<C>(&mut self) -> Result<&mut Self>
    where
        C: BackendConfig + DeserializeOwned + JsonSchema,
    {
        self.check_name(Kind::Backend, C::NAME)?;
        Ok(self.put_backend::<C>())
    }

    /// Registers a layer of this crate, whose names are distinct.
    pub(crate) fn put_layer<C>(&mut self) -> &mut Self
    where
        C: LayerConfig + DeserializeOwned + JsonSchema,
    {
        let parse = |path: &str, settings: &Value| -> Result<Arc<dyn AnyLayer>> {
            Ok(Arc::new(typed::<C>(path, settings)?))
        };
        let entry = LayerEntry { zone: C::ZONE, parse, schema: schemas::<C>() };
        self.layers.insert(C::NAME, entry);
        self
    }

    /// Registers a backend of this crate, whose names are distinct.
    pub(crate) fn put_backend<C>(&mut self) -> &mut Self
    where
        C: BackendConfig + DeserializeOwned + JsonSchema,
    {
        let parse = |path: &str, settings: &Value| -> Result<Arc<dyn AnyBackend>> {
            Ok(Arc::new(typed::<C>(path, settings)?))
        };
        let entry = BackendEntry { parse, own: C::OWN, schema: schemas::<C>() };
        self.backends.insert(C::NAME, entry);
        self
    }

    /// The names of the layers, sorted.
    pub fn layer_names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.layers.keys().copied()
    }

    /// The names of the backends, sorted.
    pub fn backend_names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.backends.keys().copied()
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = (&'static str, &LayerEntry)> {
        self.layers.iter().map(|(name, entry)| (*name, entry))
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = (&'static str, &BackendEntry)> {
        self.backends.iter().map(|(name, entry)| (*name, entry))
    }

    /// The layer of that name.
    pub(crate) fn find_layer(&self, name: &str) -> Result<(&'static str, &LayerEntry)> {
        match self.layers.get_key_value(name) {
            Some((name, entry)) => Ok((name, entry)),
            None => Err(self.missing(Kind::Layer, name)),
        }
    }

    /// The backend of that name.
    pub(crate) fn find_backend(&self, name: &str) -> Result<(&'static str, &BackendEntry)> {
        match self.backends.get_key_value(name) {
            Some((name, entry)) => Ok((name, entry)),
            None => Err(self.missing(Kind::Backend, name)),
        }
    }

    fn check_name(&self, kind: Kind, name: &'static str) -> Result<()> {
        let word = kind.word();
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(letters) {
            return Err(Error::config(format!(
                "the {word} '{name}' cannot be registered: a name is lower-case letters, digits and '_', and begins with a letter"
            )));
        }
        let taken = match kind {
            Kind::Layer => self.layers.contains_key(name),
            Kind::Backend => self.backends.contains_key(name),
        };
        let reserved = FEATURES.iter().any(|(known, of, _)| *known == name && *of == kind);
        if kind == Kind::Backend && name == SHARED {
            return Err(Error::config(format!(
                "the backend '{name}' cannot be registered: a store names one of `backends` so"
            )));
        }
        if taken || reserved {
            return Err(Error::config(format!(
                "there is a {word} '{name}' already; register yours under another name"
            )));
        }
        Ok(())
    }

    /// Why a name is not there, and what is.
    fn missing(&self, kind: Kind, name: &str) -> Error {
        let word = kind.word();
        let feature = FEATURES.iter().find(|(known, of, _)| *known == name && *of == kind);
        if let Some((_, _, feature)) = feature {
            return Error::config(format!(
                "the {word} '{name}' is not in this build; build tierstack with the cargo feature '{feature}' (`--features {feature}`)"
            ));
        }
        Error::config(match kind {
            Kind::Layer if self.backends.contains_key(name) => {
                format!("'{name}' is a backend; it belongs under `backend`, below the layers")
            }
            Kind::Backend if self.layers.contains_key(name) => {
                format!("'{name}' is a layer; it belongs in the list `layers`, above the backend")
            }
            Kind::Layer => explain::unknown(word, name, self.layer_names()),
            Kind::Backend => {
                // Where there is none, there is none to share either.
                let shared = self.backends.first_key_value().map(|_| SHARED);
                explain::unknown(word, name, self.backend_names().chain(shared))
            }
        })
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("layers", &self.layers.keys())
            .field("backends", &self.backends.keys())
            .finish()
    }
}

/// The settings as their type. The message of an error begins with the path.
fn typed<C: DeserializeOwned + JsonSchema>(path: &str, settings: &Value) -> Result<C> {
    let config: C = strict::typed(path, settings)
        .map_err(|(path, what)| Error::config(format!("{path}: {what}")))?;
    if let (Some(known), Some(given)) = (strict_properties::<C>(), settings.as_object()) {
        let known = || known.iter().map(String::as_str);
        if let Some(name) = given.keys().find(|name| known().all(|known| known != *name)) {
            let what = explain::unknown("setting", name, known());
            return Err(Error::config(format!("{path}.{name}: {what}")));
        }
    }
    Ok(config)
}

fn schemas<C: DeserializeOwned + JsonSchema>() -> Schemas {
    Schemas {
        of: |generator| generator.subschema_for::<C>(),
        bare: || serde_json::from_value::<C>(Value::Object(serde_json::Map::new())).is_ok(),
        open: || strict_properties::<C>().is_some(),
    }
}

/// The names of the settings of a type that `serde` would let others pass for.
fn strict_properties<C: JsonSchema>() -> Option<Vec<String>> {
    let schema = schemars::schema_for!(C);
    let decides = ["additionalProperties", "unevaluatedProperties", "patternProperties"];
    if decides.iter().any(|key| schema.get(*key).is_some()) {
        return None;
    }
    let properties = schema.get("properties")?.as_object()?;
    Some(properties.keys().cloned().collect())
}
