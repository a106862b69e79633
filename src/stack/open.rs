//! Opening what was checked, from the inside out: the backend, then each layer around what is below it.
//!
//! What layers need (keys, a bucket) is opened before: where that is missing, no backend is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::Checked;
use super::reserved::Reserved;
use super::usage::Watch;
use super::{OpenOptions, Stack, instrument};
use crate::error::{Error, Result};
use crate::hash::StableHash;
use crate::layer::{Context, Resize, Rewrite, StackLayer, Zone};
use crate::layers::metrics::MetricsConfig;
use crate::store::Store;
use crate::telemetry::{Errors, Labels};

impl Checked {
    /// Opens the stack: what the layers need, then the backend. If something fails, nothing stays open.
    ///
    /// # Errors
    /// What a backend or layer can fail with, with its path in the file; `Conflict` if the store holds
    /// part of a restore that was cut off.
    pub async fn open(self, options: &OpenOptions) -> Result<Stack> {
        Opening::new(self, 0, true, options).open().await
    }

    /// Opens the part of the stack that stores what it is given as it is: the backend, and the guards
    /// next to it. Into this a backup is restored, also one that was cut off.
    ///
    /// # Errors
    /// Like [`open`](Self::open), without the `Conflict` of a restore that was cut off; `Conflict` where the journal of a `write_back` in
    /// this stack holds writes, unless [`over_journal`](OpenOptions::over_journal) is set, or is in use.
    pub async fn open_stored(self, options: &OpenOptions) -> Result<Stack> {
        self.refuse_waiting(options).await?;
        let outermost = self.stored();
        Opening::new(self, outermost, false, options).open().await
    }

    /// Opens what is below the outermost layer of that name.
    ///
    /// # Errors
    /// Like [`open`](Self::open); `Config` if the store has no such layer.
    pub async fn open_below(self, layer: &str, options: &OpenOptions) -> Result<Stack> {
        match self.layers.iter().position(|part| part.name == layer) {
            Some(at) => Opening::new(self, at + 1, true, options).open().await,
            None => Err(Error::config(format!(
                "{}: stores.{}.layers: there is no layer '{layer}' here; add it to the list",
                self.origin.display(),
                self.store
            ))),
        }
    }

    /// The place in the list behind the innermost layer that is between what a user reads and
    /// what is stored.
    fn stored(&self) -> usize {
        self.layers.iter().rposition(|layer| layer.zone != Zone::Guard).map_or(0, |at| at + 1)
    }

    /// The place in the list at which reserved keys are hidden: behind the innermost of these layers, and
    /// in front of a `backup`, whose engine reads them.
    fn hidden(&self) -> usize {
        let stored = self.stored();
        let innermost = stored.checked_sub(1).and_then(|at| self.layers.get(at));
        match innermost {
            Some(layer) if layer.zone == Zone::Backup => stored - 1,
            _ => stored,
        }
    }
}

/// How much of a stack is opened, and with what.
struct Opening {
    checked: Arc<Checked>,
    options: OpenOptions,
    /// The place in the list of the first layer that is opened.
    outermost: usize,
    /// Where the store is asked whether a restore into it was cut off, and where reserved keys are hidden. `None`: nowhere,
    /// as a restore is to be written.
    marks: Option<[usize; 2]>,
}

/// A layer that is open, and not around a store yet.
struct Opened {
    at: usize,
    layer: Arc<dyn StackLayer>,
    context: Context,
    /// What is counted while it opens stays, until its boundary counts.
    _errors: Errors,
}

/// A part of a stack that runs.
struct Built {
    store: Arc<dyn Store>,
    /// Innermost first.
    rewriters: Vec<Arc<dyn Rewrite>>,
    resizers: BTreeMap<usize, Arc<dyn Resize>>,
    /// Of its outermost boundary.
    labels: Labels,
}

impl Opening {
    /// `whole`: it is opened to be used, and not to be restored into.
    fn new(checked: Checked, outermost: usize, whole: bool, options: &OpenOptions) -> Self {
        let marks = whole.then(|| [checked.stored().max(outermost), checked.hidden()]);
        Self { checked: Arc::new(checked), options: options.clone(), outermost, marks }
    }

    async fn open(self) -> Result<Stack> {
        let mut layers = self.layers().await?;
        let mut built = self.backend().await?;
        while let Some(layer) = layers.pop() {
            built = self.wrap(built, layer).await?;
        }
        let Built { store, mut rewriters, resizers, labels } = built;
        rewriters.reverse();
        let Self { checked, options, .. } = self;
        let usage = options.background.then(|| Watch::of(&store, &labels, &options.clock));
        let salt = salt(&checked.store);
        Ok(Stack::new(store, rewriters, resizers, checked, salt, usage.flatten()))
    }

    /// Opens what the layers need.
    async fn layers(&self) -> Result<Vec<Opened>> {
        let checked = &self.checked;
        let mut layers = Vec::new();
        for (at, part) in checked.layers.iter().enumerate().skip(self.outermost) {
            let context = checked.context(&part.label, at, &self.options);
            let errors = context.labels.errors();
            let layer =
                part.config.open(&context).await.map_err(|e| checked.failed(part, e))?;
            layers.push(Opened { at, layer, context, _errors: errors });
        }
        Ok(layers)
    }

    async fn backend(&self) -> Result<Built> {
        let checked = &self.checked;
        let (backend, at) = (&checked.backend, checked.layers.len());
        let context = checked.context(&backend.label, at, &self.options);
        let opened = match &checked.shared {
            Some(shared) => shared.open(&*backend.config, context.clone()).await,
            None => backend.config.open(&context).await,
        };
        let opened = opened.map_err(|error| checked.failed(backend, error))?;
        let store = instrument(opened, &context, salt(&checked.store));
        let labels = context.labels;
        let built = Built { store, rewriters: Vec::new(), resizers: BTreeMap::new(), labels };
        self.marked(built, at).await
    }

    async fn wrap(&self, mut built: Built, opened: Opened) -> Result<Built> {
        let checked = &self.checked;
        let Opened { at, layer, context, .. } = &opened;
        let Some(part) = checked.layers.get(*at) else {
            return Err(Error::internal("a layer that was opened is not in the list"));
        };
        built.rewriters.extend(layer.rewriter(Arc::clone(&built.store)));
        built.store = match layer.wrap(Arc::clone(&built.store)).await {
            Ok(wrapped) => wrapped,
            Err(error) => {
                self.close_after_failure(&built).await;
                return Err(checked.failed(part, error));
            }
        };
        built.resizers.extend(layer.resizer().map(|resizer| (*at, resizer)));
        // A layer of metrics counts at its boundary already, in the same series.
        if part.name != MetricsConfig::NAME {
            built.store = instrument(built.store, context, salt(&checked.store));
        }
        built.labels = context.labels.clone();
        self.marked(built, *at).await
    }

    /// What is built reaches from that place in the list inwards: refuses part of a restore, and hides reserved keys.
    async fn marked(&self, mut built: Built, at: usize) -> Result<Built> {
        let Some([stored, hidden]) = self.marks else { return Ok(built) };
        if at == stored
            && let Err(error) = refuse_half_restored(&*built.store).await
        {
            self.close_after_failure(&built).await;
            return Err(self.checked.failed(&self.checked.backend, error));
        }
        if at == hidden {
            built.store = Arc::new(Reserved(built.store));
        }
        Ok(built)
    }

    async fn close_after_failure(&self, built: &Built) {
        if let Err(error) = built.store.close().await {
            tracing::warn!(store = self.checked.store, %error, "closing after a failed opening");
        }
    }
}

/// The salt of the fingerprints that errors of a store have for keys.
fn salt(store: &str) -> u64 {
    StableHash::new().add(store.as_bytes())
}

/// A store that holds part of a backup is not what anybody takes it for.
#[cfg(feature = "backup")]
async fn refuse_half_restored(store: &dyn Store) -> Result<()> {
    use crate::error::ErrorKind;

    match crate::backup::unfinished_restore(store).await {
        Ok(None) => Ok(()),
        // Where the mark cannot be a key, no restore was ever begun.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        Err(error) => Err(error),
        Ok(Some(_)) => Err(Error::new(
            ErrorKind::Conflict,
            "this store holds part of a restore that was cut off; `tierstack backup restore ... --resume` finishes it",
        )),
    }
}

#[cfg(not(feature = "backup"))]
async fn refuse_half_restored(_store: &dyn Store) -> Result<()> {
    Ok(())
}

