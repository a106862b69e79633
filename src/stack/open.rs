//! Opening what was checked, from the inside out: the backend, then each layer around what is below it.
//!
//! What layers need (keys, a bucket) is opened before: where that is missing, no backend is made. What is below a `write_back` may come
//! [later](super::late).

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::check::Checked;
use super::late::{Attempt, Attempts, FIRST, Late, is_away};
use super::reserved::Reserved;
use super::usage::Watch;
use super::waiting::Holding;
use super::{OpenOptions, Stack, instrument};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::StableHash;
use crate::layer::{Context, LayerConfig as _, Resize, Rewrite, StackLayer, Zone};
use crate::layers::metrics::MetricsConfig;
use crate::layers::write_back::{WriteBackConfig, WriteBackLayer};
use crate::store::Store;
use crate::telemetry::{Errors, Labels};
use crate::types::{Guarantees, Identity};

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
    /// next to it. Into this a backup is restored, also one that was cut off. The journal of a `write_back` in this stack is held
    /// meanwhile: nothing else opens the stack before this is closed.
    ///
    /// # Errors
    /// Like [`open`](Self::open), without the `Conflict` of a restore that was cut off; `Conflict` where the journal of a `write_back` in
    /// this stack holds writes, unless [`over_journal`](OpenOptions::over_journal) is set, or is in use.
    pub async fn open_stored(self, options: &OpenOptions) -> Result<Stack> {
        let Some(journal) = self.hold_journal(options).await? else {
            let outermost = self.stored();
            return Opening::new(self, outermost, false, options).open().await;
        };
        let outermost = self.stored();
        match Opening::new(self, outermost, false, options).open().await {
            Ok(mut stack) => {
                let store = Arc::clone(&stack.store);
                stack.store = Arc::new(Holding { store, journal });
                Ok(stack)
            }
            Err(error) => {
                let _ = journal.close().await;
                Err(error)
            }
        }
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
#[derive(Clone)]
struct Opened {
    at: usize,
    layer: Arc<dyn StackLayer>,
    /// The same layer, where it is one.
    write_back: Option<Arc<WriteBackLayer>>,
    context: Context,
    /// What is counted while it opens stays, until its boundary counts.
    _errors: Arc<Errors>,
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

/// What is known of a store before it comes.
struct Coming {
    write_back: Arc<WriteBackLayer>,
    guarantees: Guarantees,
}

impl Coming {
    /// Whether it is the store that the journal is for, with the guarantees of its settings.
    fn check(&self, store: &dyn Store) -> Result<()> {
        self.write_back.check_owner(store.identity().as_ref())?;
        let found = store.profile().guarantees;
        if found == self.guarantees {
            return Ok(());
        }
        Err(Error::config(format!(
            "the store below was away when this stack was opened, and guarantees something else than its settings say ({}); open the stack again",
            differing(&self.guarantees, &found)
        )))
    }
}

/// The names of the guarantees that differ.
fn differing(one: &Guarantees, other: &Guarantees) -> String {
    let fields = |guarantees| serde_json::to_value(guarantees).unwrap_or_default();
    let (one, other) = (fields(one), fields(other));
    let names = one.as_object().into_iter().flatten();
    let names = names.filter(|(name, value)| other.get(name) != Some(value));
    names.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
}

impl Opening {
    /// `whole`: it is opened to be used, and not to be restored into.
    fn new(checked: Checked, outermost: usize, whole: bool, options: &OpenOptions) -> Self {
        let marks = whole.then(|| [checked.stored().max(outermost), checked.hidden()]);
        Self { checked: Arc::new(checked), options: options.clone(), outermost, marks }
    }

    async fn open(self) -> Result<Stack> {
        let (this, mut layers) = (Arc::new(self), Vec::new());
        let opened = this.layers(&mut layers).await;
        let write_back = layers.iter().find_map(|layer| layer.write_back.clone());
        let built = match opened {
            Ok(()) => Arc::clone(&this).build_all(layers).await,
            Err(error) => Err(error),
        };
        let Built { store, mut rewriters, resizers, labels } = match (built, write_back) {
            (Ok(built), _) => built,
            (Err(error), write_back) => {
                if let Some(write_back) = write_back {
                    write_back.let_go().await;
                }
                return Err(error);
            }
        };
        rewriters.reverse();
        let Self { checked, options, .. } = &*this;
        let usage = options.background.then(|| Watch::of(&store, &labels, &options.clock));
        let salt = salt(&checked.store);
        Ok(Stack::new(store, rewriters, resizers, Arc::clone(checked), salt, usage.flatten()))
    }

    async fn build_all(self: Arc<Self>, mut layers: Vec<Opened>) -> Result<Built> {
        let late = self.options.late && self.options.may_create && self.marks.is_some();
        let at = layers.iter().position(|layer| {
            layer.write_back.as_ref().is_some_and(|write_back| late && write_back.may_be_early())
        });
        let below = layers.split_off(at.map_or(0, |at| at + 1));
        let mut built = match layers.last().and_then(|layer| layer.write_back.clone()) {
            Some(write_back) => Arc::clone(&self).build_or_late(below, write_back).await?,
            None => Arc::clone(&self).build(below).await?,
        };
        while let Some(layer) = layers.pop() {
            built = self.wrap(built, layer).await?;
        }
        Ok(built)
    }

    /// Opens the backend, and puts layers around it.
    async fn build(self: Arc<Self>, mut layers: Vec<Opened>) -> Result<Built> {
        let mut built = self.backend().await?;
        while let Some(layer) = layers.pop() {
            built = self.wrap(built, layer).await?;
        }
        Ok(built)
    }

    /// The same of what is below a `write_back`, or what takes its place while it is away. See [`late`](super::late).
    async fn build_or_late(
        self: Arc<Self>,
        layers: Vec<Opened>,
        write_back: Arc<WriteBackLayer>,
    ) -> Result<Built> {
        let (checked, options) = (&self.checked, &self.options);
        let Some(owner) = write_back.owner()? else {
            let built = Arc::clone(&self).build(layers).await;
            return built.map_err(|error| match is_away(&error) {
                true => error.with_context("write_back needs the store below at its first opening"),
                false => error,
            });
        };
        let mut first = Arc::clone(&self).build(layers.clone()).boxed();
        let done = tokio::select! {
            biased;
            built = &mut first => Some(built),
            () = options.clock.sleep(FIRST) => None,
        };
        let (away, first) = match done {
            Some(Ok(built)) => return Ok(built),
            Some(Err(error)) if is_away(&error) => (error, None),
            Some(Err(error)) => return Err(error),
            None => {
                let slow = Error::new(ErrorKind::Timeout, format!("not open after {FIRST:?}"));
                (checked.failed(&checked.backend, slow), Some(first))
            }
        };
        let store = &checked.store;
        tracing::warn!(store, error = %away, "opened without the store below, which is opened later");
        let at = checked.layers.len() - layers.len();
        let guaranteed = checked.profile_at(at)?;
        let backend = checked.context(&checked.backend.label, checked.layers.len(), options);
        let encoding = checked.layers.iter().skip(at);
        let encoding = encoding.filter(|part| matches!(part.zone, Zone::Compress | Zone::Encrypt));
        let coming = Arc::new(Coming { write_back, guarantees: guaranteed.guarantees.clone() });
        let (this, expected) = (Arc::clone(&self), Arc::clone(&coming));
        let attempt = move |building| Arc::clone(&this).attempt(building, Arc::clone(&expected));
        let first = first.map(&attempt);
        let this = Arc::clone(&self);
        let attempts = Attempts {
            first,
            next: Box::new(move || attempt(Arc::clone(&this).build(layers.clone()).boxed())),
            clock: Arc::clone(&options.clock),
            seed: options.seed,
            labels: backend.labels.clone(),
        };
        let identity = (!owner.is_empty()).then(|| Identity::kept(&owner));
        let (late, arrival) = Late::begin(attempts, away, guaranteed, identity);
        coming.write_back.comes_later(arrival);
        let rewriters = encoding.map(|part| late.rewriter(part.name)).collect::<Vec<_>>();
        let rewriters = rewriters.into_iter().rev().collect();
        let (store, labels) = (late as Arc<dyn Store>, backend.labels);
        Ok(Built { store, rewriters, resizers: BTreeMap::new(), labels })
    }

    /// An attempt to open what is below a `write_back`, behind the opening of the stack.
    fn attempt(
        self: Arc<Self>,
        building: BoxFuture<'static, Result<Built>>,
        coming: Arc<Coming>,
    ) -> Attempt {
        async move {
            let built = building.await?;
            match coming.check(&*built.store) {
                Ok(()) => Ok(built.store),
                Err(error) => {
                    self.close_after_failure(&built).await;
                    let layers = &self.checked.layers;
                    Err(match layers.iter().find(|part| part.name == WriteBackConfig::NAME) {
                        Some(part) => self.checked.failed(part, error),
                        None => error,
                    })
                }
            }
        }
        .boxed()
    }
    /// Opens what the layers need.
    async fn layers(&self, layers: &mut Vec<Opened>) -> Result<()> {
        let checked = &self.checked;
        for (at, part) in checked.layers.iter().enumerate().skip(self.outermost) {
            let context = checked.context(&part.label, at, &self.options);
            let errors = context.labels.errors();
            let (opened, write_back) = match (&*part.config as &dyn Any).downcast_ref() {
                Some(config) => {
                    let opened = WriteBackLayer::open(config, &context).await.map(Arc::new);
                    (opened.clone().map(|layer| layer as Arc<dyn StackLayer>), opened.ok())
                }
                None => (part.config.open(&context).await, None),
            };
            let layer = opened.map_err(|error| checked.failed(part, error))?;
            layers.push(Opened { at, layer, write_back, context, _errors: Arc::new(errors) });
        }
        Ok(())
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
