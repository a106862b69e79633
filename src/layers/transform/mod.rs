//! What `compress` and `encrypt` share: a store whose values are encoded below and decoded above.
//!
//! A [`Transform`] says how; everything else is here once: reads, scans, snapshots, batches,
//! `accept_plain`, and [`Rewrite`](crate::Rewrite). Keys and expiries pass as they are.

mod encoding;
mod rewrite;
mod shared;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

pub use self::encoding::Transform;
pub use self::rewrite::Rewriter;
use self::shared::{ByteCounters, Shared, blocking};
use crate::encoded_conditions::{Absence, write_decoded, write_group_decoded};
use crate::error::{Error, Outcome, Result};
use crate::forward;
use crate::layer::{Layer, Resize, Rewrite, StackLayer};
use crate::reply::Reply;
use crate::store::{Pages, Read, Store};
use crate::telemetry::Labels;
use crate::types::{Batch, Commit, Entry, Profile, Scan, Value};
use crate::write_group::{admitted, complete};

/// A layer that encodes values. Every store that it wraps shares its counters.
/// See [`Transform`] for an example.
pub struct TransformLayer<T>(Arc<Shared<T>>);

/// A store whose values are encoded below. See [`Transform`] for an example.
pub struct Transformed<S, T> {
    inner: S,
    shared: Arc<Shared<T>>,
    /// What is stored was looked at before the first put.
    vetted: AtomicBool,
}

/// How many stored entries are looked at before the first put: one may be damaged, not all.
const VETTED_ENTRIES: u64 = 16;

/// Beyond this many bytes, values are encoded and decoded on a thread for blocking work: at 256 KiB that is half a
/// millisecond and more, and the way there and back a twentieth of it.
const INLINE_BYTES: usize = 256 << 10;

impl<T: Transform> TransformLayer<T> {
    /// A layer that encodes by `transform`. With `accept_plain`, stored values that are not frames are
    /// read as they are.
    #[must_use]
    pub fn from_transform(transform: T, accept_plain: bool, labels: &Labels) -> Self {
        let name = if labels.layer().is_empty() { T::NAME } else { labels.layer() };
        Self(Arc::new(Shared {
            transform,
            accept_plain,
            name: name.to_owned(),
            written: ByteCounters::new(labels, "write"),
            read: ByteCounters::new(labels, "read"),
        }))
    }

    /// Registers the series, and lets go of them.
    pub(crate) fn register_metrics(labels: &Labels) {
        drop(["write", "read"].map(|op| ByteCounters::new(labels, op)));
    }

    /// What rewrites the values of a store that this layer wraps, or wrapped. Give it the store
    /// *below* the layer.
    #[must_use]
    pub fn rewriter(&self, below: Arc<dyn Store>) -> Rewriter<T> {
        Rewriter::new(below, Arc::clone(&self.0))
    }

    /// The same layer for a stack built at run time, which finds its [`Rewrite`].
    pub(crate) fn for_stack(self) -> Arc<dyn StackLayer> {
        Arc::new(Rewritable(self))
    }
}

impl<S, T> Layer<S> for TransformLayer<T> {
    type Service = Transformed<S, T>;

    fn layer(&self, inner: S) -> Transformed<S, T> {
        Transformed { inner, shared: Arc::clone(&self.0), vetted: AtomicBool::new(false) }
    }
}

/// Not a [`Layer`] itself: those are [`StackLayer`]s without a rewriter.
struct Rewritable<T>(TransformLayer<T>);

#[async_trait]
impl<T: Transform> StackLayer for Rewritable<T> {
    async fn wrap(&self, below: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.0.layer(below)))
    }

    fn rewriter(&self, below: Arc<dyn Store>) -> Option<Arc<dyn Rewrite>> {
        Some(Arc::new(self.0.rewriter(below)))
    }

    fn resizer(&self) -> Option<Arc<dyn Resize>> {
        None
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read, T: Transform> Read for Transformed<S, T> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        let large = |stored: &Option<Value>| claimed::<T>(stored.iter()) > INLINE_BYTES;
        match self.inner.get(key) {
            Reply::Now(stored) if !stored.as_ref().is_ok_and(large) => {
                Reply::Now(stored.and_then(|stored| self.shared.decode_found(key, stored)))
            }
            stored => Reply::later(async move {
                let stored = stored.await?;
                if !large(&stored) {
                    return self.shared.decode_found(key, stored);
                }
                let (shared, key) = (Arc::clone(&self.shared), Bytes::copy_from_slice(key));
                blocking(move || shared.decode_found(&key, stored)).await
            }),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let large =
            |stored: &Vec<Option<Value>>| claimed::<T>(stored.iter().flatten()) > INLINE_BYTES;
        match self.inner.get_many(keys) {
            Reply::Now(stored) if !stored.as_ref().is_ok_and(large) => {
                Reply::Now(stored.and_then(|stored| self.shared.decode_all(keys, stored)))
            }
            stored => Reply::later(async move {
                let stored = stored.await?;
                if !large(&stored) {
                    return self.shared.decode_all(keys, stored);
                }
                let (shared, keys) = (Arc::clone(&self.shared), keys.to_vec());
                blocking(move || shared.decode_all(&keys, stored)).await
            }),
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        if scan.keys_only {
            return self.inner.scan(scan);
        }
        let page_bytes = scan.page_bytes;
        let state = (self.inner.scan(scan), Vec::new().into_iter());
        // Ends after an error.
        futures_util::stream::try_unfold(state, move |(mut pages, mut stored)| async move {
            if stored.as_slice().is_empty() {
                match pages.try_next().await? {
                    Some(page) => stored = page.entries.into_iter(),
                    None => return Ok(None),
                }
            }
            let values = stored.as_slice().iter().map(|entry: &Entry| &entry.value);
            let (page, stored) = if claimed::<T>(values) <= INLINE_BYTES {
                (self.shared.decode_page(&mut stored, page_bytes)?, stored)
            } else {
                let shared = Arc::clone(&self.shared);
                let decode =
                    move || shared.decode_page(&mut stored, page_bytes).map(|page| (page, stored));
                blocking(decode).await?
            };
            Ok(Some((page, (pages, stored))))
        })
        .boxed()
    }
}

fn puts(batch: &Batch) -> bool {
    batch.ops().iter().any(|op| op.value().is_some())
}

/// How many bytes values have, as what is stored claims.
fn claimed<'a, T: Transform>(stored: impl Iterator<Item = &'a Value>) -> usize {
    let claimed = |sum: usize, value: &Value| sum.saturating_add(T::claimed(&value.bytes));
    stored.fold(0, claimed)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store, T: Transform> Store for Transformed<S, T> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        if puts(&batch) {
            self.vet_once().await?;
        }
        // The whole batch before anything is written.
        let batch = if batch.bytes() <= INLINE_BYTES {
            self.shared.encode_batch(batch)?
        } else {
            let shared = Arc::clone(&self.shared);
            blocking(move || shared.encode_batch(batch)).await?
        };
        let decode = |key: &[u8], stored: Value| self.shared.decode(key, stored).map(Some);
        write_decoded(&self.inner, batch, Absence::Passes, decode).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let vetted = match group.iter().any(puts) {
            true => self.vet_once().await,
            false => Ok(()),
        };
        let admit = move |shared: &Shared<T>, batch: Batch| match &vetted {
            Err(error) if puts(&batch) => Err(error.clone()),
            _ => shared.encode_batch(batch),
        };
        let bytes: usize = group.iter().map(Batch::bytes).sum();
        let batches = group.len();
        let encoded = if bytes <= INLINE_BYTES {
            Ok(admitted(group, |batch| admit(&self.shared, batch)))
        } else {
            let shared = Arc::clone(&self.shared);
            blocking(move || Ok(admitted(group, |batch| admit(&shared, batch)))).await
        };
        let (group, rest) = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                return complete(vec![Err(error.with_outcome(Outcome::Nothing))], batches);
            }
        };
        let decode = |key: &[u8], stored: Value| self.shared.decode(key, stored).map(Some);
        rest.after(write_group_decoded(&self.inner, group, Absence::Passes, decode).await)
    }

    /// A page is encoded as a batch is.
    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        self.vet_once().await?;
        let encoded = run.and_then(|page| async {
            if page.bytes() <= INLINE_BYTES {
                return self.shared.encode_page(page);
            }
            let shared = Arc::clone(&self.shared);
            blocking(move || shared.encode_page(page)).await
        });
        self.inner.ingest(encoded.boxed()).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let inner = self.inner.snapshot().await?;
        let shared = Arc::clone(&self.shared);
        Ok(Arc::new(Transformed { inner, shared, vetted: AtomicBool::new(false) }))
    }

    fn profile(&self) -> Profile {
        self.shared.transform.profile(self.shared.accept_plain, self.inner.profile())
    }

    forward!(self => self.inner; changes, invalidate, inspect, flush, compact, usage, count, close, identity);
}

impl<S: Store, T: Transform> Transformed<S, T> {
    /// Looks before the first put.
    async fn vet_once(&self) -> Result<()> {
        if self.vetted.load(Ordering::Relaxed) { Ok(()) } else { self.vet().await }
    }

    /// Refuses to mix what these settings write with what they cannot read: a mistake that reading
    /// would tell only when it is too late. Where the store cannot be read now, the next put looks.
    async fn vet(&self) -> Result<()> {
        let mut first_foreign = None;
        if self.inner.profile().guarantees.ordered_scans {
            let mut pages = self.inner.scan(Scan::all().limit(VETTED_ENTRIES));
            'frames: while let Some(page) = pages.next().await {
                let Ok(page) = page else { return Ok(()) };
                for Entry { key, value } in page.entries {
                    if self.shared.transform.is_foreign(&value.bytes) {
                        // One is enough for the message: values may be large.
                        first_foreign.get_or_insert((key, value));
                    } else if T::is_frame(&value.bytes) {
                        first_foreign = None;
                        break 'frames;
                    }
                }
            }
        }
        if let Some((key, value)) = first_foreign {
            let error = Error::config(
                "the store holds values that these settings cannot read, so nothing is written next to them",
            );
            let error = match self.shared.plain(&key, value) {
                Ok(_) => error,
                Err(why) => error.with_source(why),
            };
            return Err(error.with_layer(self.shared.name.clone()));
        }
        self.vetted.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl<T: fmt::Debug> fmt::Debug for TransformLayer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TransformLayer").field(&self.0.transform).finish()
    }
}

impl<S, T: fmt::Debug> fmt::Debug for Transformed<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transformed").field(&self.shared.transform).finish()
    }
}

#[cfg(test)]
mod tests;
