//! The backend of a store: one of its own, or one that it shares with other stores of the config.

use std::any::Any;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::lease::Lease;
use super::part::{Part, refused};
use crate::config::{
    AnyBackend, AnyLayer, Config, Registry, SHARED, SharedBackend, StoreConfig, unknown_setting,
};
use crate::error::{Error, Result};
use crate::layer::{Common, Context, LayerConfig, Zone};
use crate::layers::prefix::PrefixConfig;
use crate::store::Store;
use crate::types::{Counting, Profile};

/// The setting in addition to the name of a shared backend that every backend has.
const PREFIX: &str = "prefix";

/// What a store has as its backend.
pub(super) struct Backend {
    pub(super) part: Part<dyn AnyBackend>,
    /// What keeps it apart from others in a shared one: the innermost layer.
    pub(super) prefix: Option<Part<dyn AnyLayer>>,
    pub(super) shared: Option<Shared>,
}

/// A share in a backend that is open once for all of its stores.
pub(super) struct Shared {
    /// The path in the file of what is shared.
    pub(super) path: String,
    part: String,
    in_part: bool,
    note: String,
    settings: Arc<[Arc<dyn Any + Send + Sync>]>,
    open: Arc<SharedBackend>,
}

impl Backend {
    pub(super) fn of(
        config: &Config,
        name: &str,
        store: &StoreConfig,
        registry: &Registry,
    ) -> Result<Self> {
        let at = format!("stores.{name}.backend");
        let Some(shared) = store.shared() else {
            let part = part(&at, &store.backend, registry)?;
            return Ok(Self { part, prefix: None, shared: None });
        };
        let mine = Use::of(config, &at, shared, store, registry)?;
        let mut names = Vec::new();
        let mut settings: Vec<Arc<dyn Any + Send + Sync>> = Vec::new();
        for (other, store) in
            config.stores.iter().filter(|(_, store)| store.shared() == Some(shared))
        {
            names.push(other.as_str());
            let their_at = format!("stores.{other}.backend");
            // What is wrong with that store is said when it is checked.
            let Ok(theirs) = Use::of(config, &their_at, shared, store, registry) else { continue };
            if other != name {
                mine.check_beside(&theirs)?;
            }
            settings.push(theirs.part.config);
        }
        let note = format!(
            "The backend is `{shared}` of `backends`, which is opened once for {}: with the first store, and closed with the last.",
            names.join(", ")
        );
        let shared = Shared {
            path: mine.whole,
            part: mine.part.config.part(),
            in_part: mine.prefix.is_some(),
            note,
            settings: settings.into(),
            open: config.open_backend(shared),
        };
        let prefix = mine.prefix.map(|prefix| Part {
            name: PrefixConfig::NAME,
            zone: Zone::Guard,
            label: format!("{PREFIX}[backend]"),
            path: at,
            settings: [(PREFIX.to_owned(), Value::from(prefix.as_str()))].into_iter().collect(),
            config: Arc::new(PrefixConfig { prefix }) as Arc<dyn AnyLayer>,
        });
        Ok(Self { part: mine.part, prefix, shared: Some(shared) })
    }
}

/// The backend that a [`crate::config::Part`] names.
fn part(at: &str, part: &crate::config::Part, registry: &Registry) -> Result<Part<dyn AnyBackend>> {
    let (name, entry) = registry.find_backend(&part.name).map_err(|e| e.with_context(at))?;
    let path = format!("{at}.{name}");
    let config = (entry.parse)(&path, &part.settings)?;
    let settings = part.settings.clone();
    Ok(Part { name, zone: Zone::Backup, label: name.to_owned(), path, settings, config })
}

/// How a store uses a shared backend.
struct Use {
    /// With the settings of the shared backend, and those of the store in their place.
    part: Part<dyn AnyBackend>,
    prefix: Option<String>,
    /// The setting that names a part, where the backend has one.
    names_part: Option<&'static str>,
    /// The path of the shared backend.
    whole: String,
}

impl Use {
    fn of(
        config: &Config,
        at: &str,
        shared: &str,
        store: &StoreConfig,
        registry: &Registry,
    ) -> Result<Self> {
        let (shared, whole) = config.shared(shared).map_err(Error::config)?;
        let whole = part(&format!("backends.{shared}"), whole, registry)?;
        // Alone first: what is wrong with it is told with its path.
        whole.config.profile().map_err(|error| refused(&whole, error))?;
        let (name, entry) = registry.find_backend(whole.name)?;
        let mut settings = whole.settings.as_object().cloned().unwrap_or_default();
        let mut prefix = None;
        for (key, value) in store.backend.settings.as_object().unwrap_or(&Map::new()) {
            match key.as_str() {
                SHARED => {}
                PREFIX => match value.as_str() {
                    Some(text) => prefix = Some(text.to_owned()),
                    None => return Err(Error::config(format!("{at}.{PREFIX}: expected text"))),
                },
                own if entry.own.contains(&own) => {
                    drop(settings.insert(key.clone(), value.clone()))
                }
                other => {
                    let allowed = [PREFIX].into_iter().chain(entry.own.iter().copied());
                    let what = unknown_setting(other, allowed);
                    return Err(Error::config(format!(
                        "{at}.{other}: {what}; what is for all stores is under `{}`",
                        whole.path
                    )));
                }
            }
        }
        let settings = Value::Object(settings);
        let config = (entry.parse)(at, &settings)?;
        let part = Part {
            name,
            zone: Zone::Backup,
            label: name.to_owned(),
            path: at.to_owned(),
            settings,
            config,
        };
        Ok(Self { part, prefix, names_part: entry.own.first().copied(), whole: whole.path })
    }

    /// Refuses two stores of which one could read or write what the other keeps: a cache in front of it
    /// would not notice, nor would layers that encode values.
    fn check_beside(&self, other: &Self) -> Result<()> {
        if self.part.config.part() != other.part.config.part() {
            return Ok(());
        }
        let (one, two, whole) = (&self.part.path, &other.part.path, &self.whole);
        let prefix = |side: &Self| side.prefix.clone().unwrap_or_default();
        let (mine, theirs) = (prefix(self), prefix(other));
        if mine.starts_with(&theirs) || theirs.starts_with(&mine) {
            let of_own = self.names_part.map(|setting| format!(", or a `{setting}`"));
            let of_own = of_own.unwrap_or_default();
            return Err(Error::config(
                match (mine == theirs, mine.is_empty() || theirs.is_empty()) {
                    (true, true) => format!(
                        "{one} and {two} are the same data, all of `{whole}`; give each a `prefix` of its own{of_own}"
                    ),
                    (true, false) => format!(
                        "{one} and {two} are the same data, as their prefixes are the same; give each a `prefix` of its own{of_own}"
                    ),
                    (false, true) => format!(
                        "one of {one} and {two} has no prefix, so that it holds the data of the other one too; give each a `prefix` of its own{of_own}"
                    ),
                    (false, false) => format!(
                        "the prefix of one of {one} and {two} begins with that of the other, which holds its data too; end each with a character that is in none, such as '/'{of_own}"
                    ),
                },
            ));
        }
        let (mine, theirs) = (&self.part.settings, &other.part.settings);
        let names = [mine, theirs].into_iter().filter_map(Value::as_object).flat_map(Map::keys);
        if let Some(name) = names.into_iter().find(|name| mine.get(*name) != theirs.get(*name)) {
            return Err(Error::config(format!(
                "{one} and {two} are in the same part of `{whole}`, which is opened once, but `{name}` differs; set it alike, or under `{whole}` alone"
            )));
        }
        Ok(())
    }
}

impl Shared {
    /// What the backend guarantees to a store that shares it.
    pub(super) fn profile(&self, backend: Profile) -> Profile {
        let in_part = self.in_part;
        let counted = move |guarantees: &mut crate::types::Guarantees| {
            if in_part {
                guarantees.counts = Counting::No;
            }
        };
        backend.changed(counted).note(self.note.as_str())
    }

    pub(super) async fn open(
        &self,
        backend: &dyn AnyBackend,
        mut context: Context,
    ) -> Result<Arc<dyn Store>> {
        context.common = Some(Common::new(Arc::clone(&self.settings), self.open.slot()));
        let share = Arc::clone(&self.open).open(&self.part, backend.open(&context)).await?;
        let profile = self.profile(share.store().profile());
        Ok(Arc::new(Lease::new(share, self.in_part, profile)))
    }
}
