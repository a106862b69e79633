//! `expire`: entries with a deadline, over a store that has none.
//!
//! # Guarantees
//! - From its deadline on, an entry is gone for every read: `get`, `get_many` and scans, whose limits
//!   count what is there. In a snapshot time does not pass.
//! - A sweeper removes expired entries from the store below, each on the condition that it is still the one
//!   that expired: never one that was written since, by whatever process.
//! - Every flipped bit of an entry is found.
//!
//! # Gives up
//! - 18 bytes in each entry, and reading the whole store once in `sweep_every`.
//! - Scans of keys only without values: the deadlines are in the values, so these are read below, checked, and
//!   taken out here.
//! - Until it is swept, an expired entry takes space, and counts in `usage`.
//! - Conditions over a store that cannot compare values: an expired entry may still be stored. Over such a
//!   store nothing can be swept either.
//! - Deadlines are wall-clock times: where the clock is set back, an entry that is not yet swept
//!   comes back.
//!
//! # Position
//! Inside `compress` and `encrypt`, so that entries can be swept without decoding them; outside
//! `write_back` and `backup`.
//!
//! # Cancellation
//! As the store below. A dropped `compact` or [`sweep`](Expire::sweep) has removed a part.
//!
//! # Errors
//! `Corruption` for an entry with a damaged header, and for one without a header unless
//! `accept_plain` is set.
//!
//! # Metrics
//! None. Sweeps that fail are logged, and repeated at the next turn.
//!
//! # Configuration
//! `expire: { sweep_every: 1h, default_ttl: 30d, accept_plain: true }`
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use std::time::Duration;
//!
//! use tierstack::backends::Memory;
//! use tierstack::layers::expire::{ExpireConfig, ExpireLayer};
//! use tierstack::{Clock, Context, Layer, ManualClock, Read, StoreExt, Value};
//!
//! let clock = ManualClock::new();
//! let context = Context { clock: std::sync::Arc::new(clock.clone()), ..Context::default() };
//! let store = ExpireLayer::new(&ExpireConfig::default(), &context)?.layer(Memory::new());
//!
//! let deadline = clock.now() + Duration::from_secs(60);
//! store.put("session", Value::new("Ada").expiring_at(deadline)).await?;
//! assert!(store.get(b"session").await?.is_some());
//! clock.advance(Duration::from_secs(60));
//! assert!(store.get(b"session").await?.is_none());
//! assert_eq!(store.sweep().await?, 1);
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod header;
mod sweep;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use self::sweep::{Sweeper, Worker};
use self::view::{Now, View};
use crate::clock::Timestamp;
use crate::encoded_conditions::{Absence, write_decoded, write_group_decoded};
use crate::error::{Error, Result};
use crate::forward;
use crate::layer::{Context, Layer, LayerConfig, StackLayer, Zone};
use crate::store::{Pages, Read, Store};
use crate::types::units::Span;
use crate::types::{
    Batch, Commit, Conditions, Counting, Entry, Guarantees, Inspection, Op, Presence, Profile,
    Scan, Value,
};
use crate::write_group::admitted;

/// Settings of the expire layer. See the [module docs](self).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExpireConfig {
    /// The pause between two sweeps, each of which reads the whole store. Default 1h; `0s`: never, so
    /// that only `compact` sweeps. A short one frees space sooner.
    pub sweep_every: Span,
    /// How long an entry stays that is written without a deadline. Default: until it is deleted.
    /// Entries that are there already keep what they have.
    pub default_ttl: Option<Span>,
    /// Reads entries without a header, written before this layer was added, as they are: without a
    /// deadline. Default false, so that such an entry is an error.
    pub accept_plain: bool,
}

impl Default for ExpireConfig {
    fn default() -> Self {
        Self {
            sweep_every: Span(Duration::from_secs(3600)),
            default_ttl: None,
            accept_plain: false,
        }
    }
}

impl ExpireConfig {
    fn sweeps(&self) -> bool {
        !self.sweep_every.0.is_zero()
    }

    fn check(&self) -> Result<()> {
        if self.default_ttl.is_some_and(|ttl| ttl.0.is_zero()) {
            return Err(Error::config(
                "default_ttl is 0, so that nothing would stay; it must be longer, or be left out",
            )
            .with_setting("default_ttl"));
        }
        Ok(())
    }
}

#[async_trait]
impl LayerConfig for ExpireConfig {
    const NAME: &'static str = header::LAYER;
    const ZONE: Zone = Zone::Expire;

    fn profile(&self, below: Profile) -> Result<Profile> {
        self.check()?;
        below.guarantees.check_takes_frames()?;
        let missing = match &below.guarantees {
            below if !below.ordered_scans => Some("offers no scans"),
            below if !below.writable => Some("is read-only"),
            below if below.conditions < Conditions::Value => {
                Some("cannot delete an entry on the condition that it is unchanged")
            }
            _ => None,
        };
        if let (true, Some(missing)) = (self.sweeps(), missing) {
            return Err(Error::config(format!(
                "expired entries cannot be swept, as the store below {missing}; set `sweep_every: 0s`"
            )));
        }
        Ok(profile(self.sweeps(), self.default_ttl.is_some(), below))
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(ExpireLayer::new(self, context)?))
    }
}

fn sweepable(below: &Guarantees) -> bool {
    below.ordered_scans && below.writable && below.conditions == Conditions::Value
}

fn profile(sweeps: bool, adds: bool, below: Profile) -> Profile {
    let native = below.guarantees.expiry;
    let profile = Profile::layer(ExpireConfig::NAME, below).changed(|guarantees| {
        guarantees.expiry = true;
        guarantees.verbatim &= !adds;
        // To the store below an entry that has expired is there.
        if guarantees.conditions < Conditions::Value {
            guarantees.conditions = Conditions::None;
        }
        guarantees.counts = guarantees.counts.min(Counting::Estimated);
        let limit = &mut guarantees.limits.value_bytes;
        *limit = limit.map(|bytes| bytes.saturating_sub(header::LENGTH as u64));
    });
    let profile = if native {
        profile
            .note("The store below expires entries itself; without `expire` it would do so alone.")
    } else {
        profile
    };
    if sweeps {
        profile
    } else {
        profile.note("Expired entries are hidden, and take space until `compact` removes them.")
    }
}

/// Gives the entries of the stores it wraps a deadline. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct ExpireLayer {
    config: ExpireConfig,
    context: Context,
    runtime: Option<Handle>,
}

impl ExpireLayer {
    /// A layer with these settings, on the context's clock. Where the context asks for work in the
    /// [background](Context::background), a task for each store sweeps every `sweep_every`; it ends when the
    /// store is closed or dropped.
    ///
    /// # Errors
    /// `Config` if a setting is out of range, or for sweeping outside a tokio runtime.
    pub fn new(config: &ExpireConfig, context: &Context) -> Result<Self> {
        config.check()?;
        let sweeps = context.background && config.sweeps();
        let runtime = sweeps.then(Handle::try_current).transpose().map_err(|error| {
            Error::config("sweeping in the background needs a tokio runtime").with_source(error)
        })?;
        Ok(Self { config: config.clone(), context: context.clone(), runtime })
    }
}

impl<S: Store> Layer<S> for ExpireLayer {
    type Service = Expire<S>;

    fn layer(&self, inner: S) -> Expire<S> {
        let inner = Arc::new(inner);
        let (clock, accept_plain) = (&self.context.clock, self.config.accept_plain);
        let sweeper = Arc::new(Sweeper { clock: Arc::clone(clock), accept_plain });
        let worker = self.runtime.as_ref().map(|runtime| {
            let store = Arc::downgrade(&inner);
            Worker::spawn(runtime, store, Arc::clone(&sweeper), self.config.sweep_every)
        });
        let view = View { inner, now: Now::Ticking(Arc::clone(clock)), accept_plain };
        let (sweeps, default_ttl) = (self.config.sweeps(), self.config.default_ttl);
        Expire { view, sweeper, worker, sweeps, default_ttl }
    }
}

/// The value as the store below gets it.
fn stored(mut value: Value, default: Option<Timestamp>) -> Value {
    value.expires_at = value.expires_at.or(default);
    Value::new(header::encode(&value))
}

/// See the [module docs](self).
pub struct Expire<S> {
    view: View<Arc<S>>,
    sweeper: Arc<Sweeper>,
    worker: Option<Worker>,
    sweeps: bool,
    default_ttl: Option<Span>,
}

impl<S: Store> Expire<S> {
    /// Removes every entry that has expired from the store below, and returns how many there were.
    ///
    /// # Errors
    /// `Unsupported` over a store that cannot compare values; as [`Read::scan`] and [`Store::write`]. What was
    /// removed before stays removed.
    pub async fn sweep(&self) -> Result<u64> {
        let (mut scan, mut deleted) = (Scan::all(), 0);
        while let Some(more) = self.sweeper.step(&self.view.inner, &mut scan).await? {
            deleted += more;
        }
        Ok(deleted)
    }

    /// The batch as the store below gets it, but for its conditions.
    fn encode_batch(&self, batch: Batch) -> Result<Batch> {
        if batch.is_conditional()
            && self.view.inner.profile().guarantees.conditions < Conditions::Value
        {
            return Err(Error::unsupported(
                "`expire` can check a condition only over a store that compares values, as expired entries may still be stored",
            )
            .with_layer(ExpireConfig::NAME));
        }
        // A value that is there already, and is only written in another form, keeps what it has.
        let ttl = self.default_ttl.filter(|_| !batch.is_rewrite());
        let default = ttl.map(|ttl| self.sweeper.clock.now() + ttl.0);
        batch.try_map(|op| Ok(self.encode(op, default)))
    }

    /// The operation as the store below gets it.
    fn encode(&self, op: Op, default: Option<Timestamp>) -> Op {
        match op {
            Op::Put(key, value) => Op::Put(key, stored(value, default)),
            delete => delete,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store> Read for Expire<S> {
    forward!(self => self.view; get, get_many, scan);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Expire<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let batch = self.encode_batch(batch)?;
        let live = |key: &[u8], stored: Value| self.view.live(key, stored);
        write_decoded(&*self.view.inner, batch, Absence::MayBeHidden, live).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let (group, rest) = admitted(group, |batch| self.encode_batch(batch));
        let live = |key: &[u8], stored: Value| self.view.live(key, stored);
        let below = &*self.view.inner;
        rest.after(write_group_decoded(below, group, Absence::MayBeHidden, live).await)
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        let encoded = run.map_ok(|mut page| {
            // A run may take longer than its entries live.
            let default = self.default_ttl.map(|ttl| self.sweeper.clock.now() + ttl.0);
            for Entry { value, .. } in &mut page.entries {
                *value = stored(std::mem::take(value), default);
            }
            page
        });
        self.view.inner.ingest(encoded.boxed()).await
    }

    /// The store below knows no deadline: it is in the header of the value.
    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let mut inspections = self.view.inner.inspect(key).await?;
        if let Some(stored) = self.view.inner.get(key).await? {
            // A damaged header is for a read to report.
            let value = header::decode(stored.bytes, self.view.accept_plain).ok();
            let expires_at = value.and_then(|value| value.expires_at);
            let entries = inspections.iter_mut().filter(|seen| seen.presence == Presence::Entry);
            entries.for_each(|seen| seen.expires_at = seen.expires_at.or(expires_at));
        }
        Ok(inspections)
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        // Read first: what a reader saw expire before this call must not come back in the view.
        let now = self.sweeper.clock.now();
        let inner = self.view.inner.snapshot().await?;
        Ok(Arc::new(View { inner, now: Now::Frozen(now), accept_plain: self.view.accept_plain }))
    }

    /// Sweeps first, so that there is something to reclaim.
    async fn compact(&self) -> Result<()> {
        if sweepable(&self.view.inner.profile().guarantees) {
            self.sweep().await?;
        }
        self.view.inner.compact().await
    }

    /// Below, what has expired is counted too. What scans pass by is told nevertheless.
    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.view.inner.count(prefix).await.map(|_| None)
    }

    async fn close(&self) -> Result<()> {
        if let Some(worker) = &self.worker {
            worker.stop().await;
        }
        self.view.inner.close().await
    }

    fn profile(&self) -> Profile {
        profile(self.sweeps, self.default_ttl.is_some(), self.view.inner.profile())
    }

    forward!(self => self.view.inner; changes, invalidate, flush, usage, identity);
}
