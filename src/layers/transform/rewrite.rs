//! Stored values brought into the current form, under live reads and writes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use super::stripes::Stripes;
use super::{Shared, Transform, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::{Rewrite, RewriteReport};
use crate::store::{Read, Store};
use crate::types::{Batch, Entry, Op, Page, Scan, Value};

/// Entries that are rewritten at once: writers of their keys wait for one look and one write below.
const STEP: usize = 64;
/// Steps at a time over a store that takes one operation each, where a step is two round trips.
const STEPS_AT_ONCE: usize = 32;

/// Rewrites what a [`TransformLayer`](super::TransformLayer) has stored.
///
/// A step takes up to 64 entries of a page, encodes them anew, then locks out writers of their keys,
/// looks at the entries again, and writes those that have not changed since. An entry that has, was
/// written by somebody else, in the current form.
///
/// A `timeout` below the layer may abandon a rewrite's own write, which could then arrive after a later
/// one: let no `timeout` stand inside a layer that is rewritten under live writes.
/// See [`Rewrite`] for an example.
pub struct Rewriter<T> {
    below: Arc<dyn Store>,
    shared: Arc<Shared<T>>,
}

impl<T: Transform> Rewriter<T> {
    pub(super) fn new(below: Arc<dyn Store>, shared: Arc<Shared<T>>) -> Self {
        Self { below, shared }
    }

    /// Rewrites what is stale of a page.
    async fn page(&self, page: Page, step: usize, report: &mut RewriteReport) -> Result<()> {
        let mut stale = page.entries;
        stale.retain(|entry| !self.shared.transform.is_current(&entry.value.bytes));
        let at_once = if step == 1 { STEPS_AT_ONCE } else { 1 };
        let lots: Vec<Vec<Entry>> = stale.chunks(step).map(<[Entry]>::to_vec).collect();
        let mut steps =
            futures_util::stream::iter(lots).map(|entries| self.step(entries)).buffered(at_once);
        while let Some(done) = steps.try_next().await? {
            report.rewritten += done.rewritten;
            report.damaged += done.damaged;
            report.unsettled += done.unsettled;
            report.first_damage = report.first_damage.take().or(done.first_damage);
        }
        Ok(())
    }

    /// A task of its own: a write that was begun is not abandoned with its caller, or it could arrive
    /// after a later one.
    async fn step(&self, entries: Vec<Entry>) -> Result<RewriteReport> {
        let (below, shared) = (Arc::clone(&self.below), Arc::clone(&self.shared));
        tokio::spawn(async move { shared.step(&*below, entries).await })
            .await
            .map_err(|error| Error::internal("rewriting panicked").with_source(error))?
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transform> Rewrite for Rewriter<T> {
    fn name(&self) -> &str {
        &self.shared.name
    }

    async fn rewrite(
        &self,
        scan: Scan,
        progress: &mut (dyn for<'r> FnMut(&'r RewriteReport) + Send),
    ) -> Result<RewriteReport> {
        let step = self.below.profile().guarantees.batch_ops().unwrap_or(STEP).min(STEP);
        let mut report = RewriteReport::default();
        let mut pages = self.below.scan(scan);
        while let Some(page) = pages.try_next().await? {
            let last = page.entries.last().map(|entry| entry.key.clone());
            let examined = page.len() as u64;
            self.page(page, step, &mut report).await?;
            report.examined += examined;
            report.last_key = last;
            progress(&report);
        }
        Ok(report)
    }
}

/// A value that was read, and what is to stand in its place.
struct Change {
    key: Bytes,
    from: Value,
    to: Value,
}

impl<T: Transform> Shared<T> {
    async fn step(
        self: Arc<Self>,
        below: &dyn Store,
        entries: Vec<Entry>,
    ) -> Result<RewriteReport> {
        let mut report = RewriteReport::default();
        let shared = Arc::clone(&self);
        let (mut changes, damage) = blocking(move || shared.changes(entries)).await?;
        report.damaged = damage.len() as u64;
        report.first_damage = damage.into_iter().next();
        if changes.is_empty() {
            return Ok(report);
        }

        let _alone = self.stripes.exclude(&Stripes::of(changes.iter().map(|c| &c.key))).await;
        let before = changes.len();
        changes.retain(|change| !self.stripes.is_unsettled(&change.key));
        report.unsettled = (before - changes.len()) as u64;
        let keys: Vec<Bytes> = changes.iter().map(|change| change.key.clone()).collect();
        let now = below.get_many(&keys).await?;
        let batch: Batch = changes
            .into_iter()
            .zip(now)
            .filter(|(change, now)| now.as_ref() == Some(&change.from))
            .map(|(change, _)| Op::Put(change.key, change.to))
            .collect();
        report.rewritten = batch.len() as u64;
        if !batch.is_empty() {
            let _acknowledged = below.write(batch.rewriting()).await?;
        }
        Ok(report)
    }

    /// The entries that look different when they are encoded again, and what is wrong with those that
    /// cannot be.
    fn changes(&self, entries: Vec<Entry>) -> Result<(Vec<Change>, Vec<Error>)> {
        let (mut changes, mut damage) = (Vec::new(), Vec::new());
        for Entry { key, value: from } in entries {
            match self.again(&key, &from) {
                Ok(to) if to.bytes == from.bytes => {}
                Ok(to) => changes.push(Change { key, from, to }),
                Err(error) if error.kind() == ErrorKind::Corruption => damage.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok((changes, damage))
    }

    fn again(&self, key: &[u8], stored: &Value) -> Result<Value> {
        let bytes = self.plain(key, stored.bytes.clone())?;
        self.encode(key, Value { bytes, expires_at: stored.expires_at })
    }
}
