//! Checking a store of a config.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::OpenOptions;
use super::all::{Claimed, refuse_same};
use super::part::{Part, refused};
use super::shared::{Backend, Shared};
use super::usage::Gauges;
use crate::config::{AnyBackend, AnyLayer, Config, Registry, Sealed, StoreConfig};
use crate::error::{Error, Operation, Result};
use crate::hash::StableHash;
use crate::layer::{BackendConfig, Context, LayerConfig, Zone, check_order};
use crate::layers::metrics::MetricsLayer;
use crate::telemetry::{Labels, rehearse};
use crate::types::Profile;

/// A store of a config whose names, settings, order and guarantees hold together.
///
/// Its [`Display`](std::fmt::Display) draws the stack and says what it guarantees at every level; it
/// serialises as the same facts.
///
/// ```
/// use tierstack::Stack;
/// use tierstack::config::{Config, Format, Registry};
///
/// let text = "stores: { main: { backend: memory } }";
/// let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
/// let checked = Stack::check(&config, None, &Registry::standard())?;
/// assert!(checked.profile().guarantees.atomic_batches);
/// assert!(checked.to_string().contains("A batch is applied wholly or not at all."));
/// # Ok::<(), tierstack::Error>(())
/// ```
pub struct Checked {
    pub(super) store: String,
    pub(super) origin: PathBuf,
    pub(super) default: bool,
    pub(super) sealed_required: bool,
    pub(super) profile: Profile,
    pub(super) trade_offs: Vec<String>,
    folder: PathBuf,
    /// For each layer, and last for the backend: what is below it.
    below: Vec<u64>,
    /// Outermost first.
    pub(super) layers: Vec<Part<dyn AnyLayer>>,
    pub(super) backend: Part<dyn AnyBackend>,
    pub(super) shared: Option<Shared>,
}

impl Checked {
    pub(super) fn new(config: &Config, store: Option<&str>, registry: &Registry) -> Result<Self> {
        let (name, store) = config.store(store)?;
        let checked = Self::compose(config, name, store, registry)
            .map_err(|error| error.with_context(config.origin().display()))?;
        refuse_same(config.origin(), &checked.claims(), |_, _| true)?;
        Ok(checked)
    }

    fn compose(
        config: &Config,
        name: &str,
        store: &StoreConfig,
        registry: &Registry,
    ) -> Result<Self> {
        let at = format!("stores.{name}");
        let Backend { part: backend, prefix, shared } = Backend::of(config, name, store, registry)?;
        let mut layers = layers(&at, store, registry)?;
        layers.extend(prefix);
        let mut trade_offs = Vec::new();
        check_order(
            &layers.iter().map(|layer| (layer.name, layer.zone)).collect::<Vec<_>>(),
            |trade_off| trade_offs.push(trade_off),
        )
        .map_err(|error| error.with_context(format_args!("{at}.layers")))?;
        let mut profile = backend.config.profile().map_err(|error| refused(&backend, error))?;
        if let Some(shared) = &shared {
            profile = shared.profile(profile);
        }
        for layer in layers.iter().rev() {
            profile = layer.config.profile(profile).map_err(|error| refused(layer, error))?;
        }
        let sealed_required = store.sealed == Some(Sealed::Required);
        if sealed_required {
            check_sealed(&profile)
                .map_err(|error| error.with_context(format_args!("{at}.sealed")))?;
        }
        Ok(Self {
            store: name.to_owned(),
            origin: config.origin().to_owned(),
            default: config.store(None).is_ok_and(|(default, _)| default == name),
            sealed_required,
            profile,
            trade_offs,
            folder: config.folder().to_owned(),
            below: identities(config.folder(), &backend, &layers),
            layers,
            backend,
            shared,
        })
    }

    /// The name of the store in the config.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// What the whole stack guarantees, and each level below.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What each boundary is called in the metrics, outermost first: the layer below it, or the backend, with its place
    /// in the list where the name occurs more than once.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        let layers = self.layers.iter().map(|layer| layer.label.as_str());
        layers.chain([self.backend.label.as_str()])
    }

    /// What the chosen order of the layers costs. Whole sentences.
    #[must_use]
    pub fn trade_offs(&self) -> &[String] {
        &self.trade_offs
    }

    /// How many series Prometheus keeps of this store where a service has it open, as far as its layers
    /// [tell](LayerConfig::register_metrics). Each process has [a few more](crate::telemetry::PROCESS_SERIES), and a server has
    /// its own (`serve::Server::series`).
    ///
    /// ```
    /// use tierstack::Stack;
    /// use tierstack::config::{Config, Format, Registry};
    ///
    /// let text = "stores: { main: { layers: [cache], backend: memory } }";
    /// let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
    /// let series = Stack::check(&config, None, &Registry::standard())?.series();
    /// assert!(series > 400 && series < 600, "{series}");
    /// # Ok::<(), tierstack::Error>(())
    /// ```
    #[must_use]
    pub fn series(&self) -> usize {
        let options = OpenOptions::service();
        let backend = self.context(&self.backend.label, self.layers.len(), &options);
        let mut below = self.profile_at(self.layers.len()).ok();
        let register = || {
            drop(Gauges::new(&backend.labels));
            drop(MetricsLayer::new(backend.labels));
            for (at, layer) in self.layers.iter().enumerate().rev() {
                let context = self.context(&layer.label, at, &options);
                drop(MetricsLayer::new(context.labels.clone()));
                let Some(profile) = below.take() else { return };
                layer.config.register_metrics(&context, &profile);
                // What was composed once is composed again.
                below = layer.config.profile(profile).ok();
            }
        };
        rehearse(register).series()
    }

    /// The settings of the outermost layer of that type.
    ///
    /// ```
    /// # use tierstack::{LayerConfig, Stack, config::{Config, Format, Registry}};
    /// # use tierstack::{Context, Profile, Result, StackLayer, Zone};
    /// # use std::sync::Arc;
    /// # #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// # #[serde(deny_unknown_fields)]
    /// # struct LoudConfig { level: u8 }
    /// # #[async_trait::async_trait]
    /// # impl LayerConfig for LoudConfig {
    /// #     const NAME: &'static str = "loud";
    /// #     const ZONE: Zone = Zone::Guard;
    /// #     fn profile(&self, below: Profile) -> Result<Profile> { Ok(Profile::layer("loud", below)) }
    /// #     async fn open(&self, _: &Context) -> Result<Arc<dyn StackLayer>> { Err(tierstack::Error::closed()) }
    /// # }
    /// let mut registry = Registry::standard();
    /// registry.layer::<LoudConfig>()?;
    /// let text = "stores: { main: { layers: [ { loud: { level: 11 } } ], backend: memory } }";
    /// let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
    /// let checked = Stack::check(&config, None, &registry)?;
    /// assert_eq!(checked.layer_config::<LoudConfig>().map(|loud| loud.level), Some(11));
    /// # Ok::<(), tierstack::Error>(())
    /// ```
    #[must_use]
    pub fn layer_config<C: LayerConfig>(&self) -> Option<&C> {
        self.layers.iter().find_map(|layer| (&*layer.config as &dyn Any).downcast_ref())
    }

    /// The settings of the backend, if it is of that type.
    #[must_use]
    pub fn backend_config<C: BackendConfig>(&self) -> Option<&C> {
        (&*self.backend.config as &dyn Any).downcast_ref()
    }

    /// What the outermost layer of that name is opened with, for work outside of the stack that needs what
    /// the layer needs, such as restoring a backup. `None` if the store has no such layer.
    #[must_use]
    pub fn layer_context(&self, layer: &str, options: &OpenOptions) -> Option<Context> {
        let (at, layer) = self.layers.iter().enumerate().find(|(_, part)| part.name == layer)?;
        Some(self.context(&layer.label, at, options))
    }

    /// What is guaranteed from that place in the list inwards.
    pub(super) fn profile_at(&self, at: usize) -> Result<Profile> {
        let backend = self.backend.config.profile()?;
        let backend = match &self.shared {
            Some(shared) => shared.profile(backend),
            None => backend,
        };
        let mut layers = self.layers.iter().skip(at).rev();
        layers.try_fold(backend, |below, layer| layer.config.profile(below))
    }

    /// What the store has for itself while it is open.
    pub(super) fn claims(&self) -> Vec<Claimed<'_>> {
        let context = Context { folder: self.folder.clone(), ..Context::default() };
        let path = self.shared.as_ref().map_or(&self.backend.path, |shared| &shared.path);
        let backend = (path.as_str(), self.backend.config.claims(&context));
        let layers = self.layers.iter();
        let layers = layers.map(|layer| (layer.path.as_str(), layer.config.claims(&context)));
        let all = layers.chain([backend]).flat_map(|(path, claims)| {
            claims.into_iter().map(move |claim| Claimed { store: &self.store, path, claim })
        });
        all.collect()
    }

    pub(super) fn failed<C: ?Sized>(&self, part: &Part<C>, error: Error) -> Error {
        error.with_operation(Operation::Open).with_layer(part.name).with_context(format_args!(
            "{}: {}",
            self.origin.display(),
            part.path
        ))
    }

    pub(super) fn context(&self, label: &str, at: usize, options: &OpenOptions) -> Context {
        Context {
            clock: Arc::clone(&options.clock),
            labels: Labels::below(&self.store, label, at),
            seed: options.seed,
            folder: self.folder.clone(),
            below: self.below.get(at).copied(),
            may_create: options.may_create,
            background: options.background,
            common: None,
        }
    }
}

/// For each layer, and last for the backend, a number that stands for what is below it as the config says.
fn identities(
    folder: &Path,
    backend: &Part<dyn AnyBackend>,
    layers: &[Part<dyn AnyLayer>],
) -> Vec<u64> {
    // Relative paths in the settings mean another file elsewhere.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    // Kept on a disk, so it has to be the same in every version.
    let mut below = StableHash::new();
    let mut identities = vec![below.add(folder.as_os_str().as_encoded_bytes())];
    let layers = layers.iter().rev().map(|layer| (layer.name, &layer.settings));
    for (name, settings) in std::iter::once((backend.name, &backend.settings)).chain(layers) {
        below.add(name.as_bytes());
        identities.push(below.add(settings.to_string().as_bytes()));
    }
    // What is below the outermost layer is nobody's.
    identities.pop();
    identities.reverse();
    identities
}

/// Names only: settings may hold what is not to be printed.
impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checked({}: {})", self.store, self.profile)
    }
}

fn layers(at: &str, store: &StoreConfig, registry: &Registry) -> Result<Vec<Part<dyn AnyLayer>>> {
    let mut layers: Vec<Part<dyn AnyLayer>> = Vec::with_capacity(store.layers.len());
    for (index, part) in store.layers.iter().enumerate() {
        let at = format!("{at}.layers[{index}]");
        let (name, entry) = registry.find_layer(&part.name).map_err(|e| e.with_context(&at))?;
        if entry.zone != Zone::Guard && layers.iter().any(|outer| outer.name == name) {
            return Err(Error::config(format!(
                "{at}: '{name}' is here for the second time; a stack takes one, so remove the other"
            )));
        }
        let path = format!("{at}.{name}");
        let config = (entry.parse)(&path, &part.settings)?;
        let alone = store.layers.iter().filter(|other| other.name == part.name).count() == 1;
        let label = if alone { name.to_owned() } else { format!("{name}[{index}]") };
        let settings = part.settings.clone();
        layers.push(Part { name, zone: entry.zone, label, path, settings, config });
    }
    Ok(layers)
}

/// Refuses a stack in which a value rests plain, whatever layer or backend puts it there.
fn check_sealed(profile: &Profile) -> Result<()> {
    let plain: Vec<_> = profile.guarantees.places.iter().filter(|place| !place.sealed).collect();
    if plain.is_empty() {
        return Ok(());
    }
    let places: Vec<_> =
        plain.iter().map(|place| format!("{} ({})", place.name, place.what)).collect();
    Err(Error::config(format!(
        "values would rest plain in {}; put the layer 'encrypt' above, or take out 'sealed: required'",
        places.join(" and ")
    )))
}
