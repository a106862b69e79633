//! Stored values brought into the current form, under live reads and writes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use super::encoding::Transform;
use super::shared::{Shared, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::{Rewrite, RewriteReport};
use crate::store::{Read, Store};
use crate::types::{Batch, Condition, Conditions, Entry, Op, Page, Scan, Value};

/// Entries that are rewritten at once.
const STEP: usize = 64;
/// Steps at a time over a store that takes one operation each, where a step is a round trip.
const STEPS_AT_ONCE: usize = 32;

/// Rewrites what a [`TransformLayer`](super::TransformLayer) has stored.
///
/// A step takes up to 64 entries of a page, encodes them again, and writes them on the condition that what is
/// stored is still what was read. An entry that another writer changed meanwhile stays as that writer left it,
/// whatever process it is of, and however late the write of the rewrite arrives.
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
            report.changed += done.changed;
            report.first_damage = report.first_damage.take().or(done.first_damage);
        }
        Ok(())
    }

    async fn step(&self, entries: Vec<Entry>) -> Result<RewriteReport> {
        let mut report = RewriteReport::default();
        let shared = Arc::clone(&self.shared);
        let (changes, damage) = blocking(move || shared.changes(entries)).await?;
        report.damaged = damage.len() as u64;
        report.first_damage = damage.into_iter().next();
        if self.write(&changes).await? {
            report.rewritten = changes.len() as u64;
        } else if changes.len() == 1 {
            report.changed = 1;
        } else {
            // One of them was changed meanwhile; the others are still to be rewritten.
            for change in changes.chunks(1) {
                let written = u64::from(self.write(change).await?);
                report.rewritten += written;
                report.changed += 1 - written;
            }
        }
        Ok(report)
    }

    /// Writes the changes if every entry is as it was read, and says whether it did.
    async fn write(&self, changes: &[Change]) -> Result<bool> {
        if changes.is_empty() {
            return Ok(true);
        }
        let puts = changes.iter().map(|change| Op::Put(change.key.clone(), change.to.clone()));
        let conditions =
            changes.iter().map(|change| Condition::Equals(change.key.clone(), change.from.clone()));
        let batch = puts.collect::<Batch>().with_conditions(conditions.collect());
        match self.below.write(batch.rewriting()).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transform> Rewrite for Rewriter<T> {
    fn name(&self) -> &str {
        &self.shared.name
    }

    #[tracing::instrument(name = "rewrite", skip_all, fields(layer = self.shared.name))]
    async fn rewrite(
        &self,
        scan: Scan,
        progress: &mut (dyn for<'r> FnMut(&'r RewriteReport) + Send),
    ) -> Result<RewriteReport> {
        if self.below.profile().guarantees.conditions < Conditions::Value {
            return Err(Error::unsupported(
                "the store below cannot write on the condition that a value is unchanged, so a rewrite could undo a write of others",
            )
            .with_layer(self.shared.name.clone()));
        }
        let step = self.below.profile().guarantees.batch_ops().unwrap_or(STEP).min(STEP);
        let mut report = RewriteReport::default();
        let mut pages = self.below.scan(scan);
        while let Some(page) = pages.try_next().await? {
            // Copied, as it outlives its page.
            let last = page.entries.last().map(|entry| Bytes::copy_from_slice(&entry.key));
            let examined = page.len() as u64;
            self.page(page, step, &mut report).await?;
            report.examined += examined;
            report.last_key = last;
            progress(&report);
        }
        Ok(report)
    }
}

/// A value that was read, and what is to be in its place.
struct Change {
    key: Bytes,
    from: Value,
    to: Value,
}

impl<T: Transform> Shared<T> {
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
        self.encode(key, self.plain(key, stored.clone())?)
    }
}
