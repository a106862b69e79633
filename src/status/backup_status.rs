//! The backups of a store: what its place lists, now and then, and when the next one is due.

use std::sync::Arc;
use std::time::Duration;

use super::counts;
use super::facts::{BackupFacts, BaseFacts};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::{Context, LayerConfig};
use crate::layers::backup::BackupConfig;
use crate::stack::{Checked, OpenOptions};

/// Backups that are told of: the newest ones.
const TOLD: usize = 100;
/// A place is asked no more often than this, as long as nothing new is known to be there.
const PAUSE: Duration = Duration::from_secs(60);
/// A service takes the first backup of a store so long after it was opened.
const FIRST: Duration = Duration::from_secs(60);
/// How long a place may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the backups of a store are.
#[derive(Clone, Debug)]
pub(super) struct BackupPlace {
    config: BackupConfig,
    context: Context,
}

/// What is known of the backups of a place.
#[derive(Debug, Default)]
pub(super) struct Listing {
    bases: Option<Arc<Vec<BaseFacts>>>,
    error: Option<String>,
    asked_at: Option<Duration>,
    asked_after: Option<u64>,
    is_asking: bool,
}

impl BackupPlace {
    pub(super) fn of(checked: &Checked) -> Option<Self> {
        let config = checked.layer_config::<BackupConfig>()?.clone();
        let context = checked.layer_context(BackupConfig::NAME, &OpenOptions::reading())?;
        Some(Self { config, context })
    }

    /// The label of the layer's metrics.
    pub(super) fn label(&self) -> &str {
        self.context.labels.layer()
    }

    /// Asks the place what is there. It may be a bucket far away.
    pub(super) async fn list(&self, clock: &dyn Clock) -> Result<Vec<BaseFacts>> {
        let listed = async { self.config.repository(&self.context).await?.bases().await };
        let bases = tokio::select! {
            bases = listed => bases?,
            () = clock.sleep(PATIENCE) => {
                return Err(Error::new(ErrorKind::Timeout, "the place of the backups gives no answer"));
            }
        };
        let newest = bases.into_iter().rev().take(TOLD).map(|base| BaseFacts {
            id: base.id,
            time: base.time,
            entries: base.entries,
            bytes: base.bytes,
        });
        let mut newest: Vec<_> = newest.collect();
        newest.reverse();
        Ok(newest)
    }

    pub(super) fn facts(
        &self,
        counted: &counts::Backup,
        listing: &Listing,
        started_at: Timestamp,
    ) -> BackupFacts {
        let listed = listing.bases.as_ref().and_then(|bases| Some(bases.last()?.time));
        let last = counted.last_success.map(Timestamp::from_millis).max(listed);
        let schedule = self.config.base.as_ref();
        BackupFacts {
            schedule: schedule.map(ToString::to_string),
            expected_interval: schedule
                .and_then(|schedule| schedule.interval())
                .map(|interval| interval.as_secs_f64()),
            last_success: last,
            due_at: schedule.and_then(|schedule| match last {
                Some(last) => schedule.next(last),
                None => Some(started_at + FIRST),
            }),
            failures: counted.failures,
            error: listing.error.clone(),
            bases: listing.bases.clone(),
        }
    }
}

impl Listing {
    /// Whether the place is to be asked now; then it counts as being asked.
    pub(super) fn is_due(&mut self, now: Duration, counted: &counts::Backup) -> bool {
        let is_old = self.asked_at.is_none_or(|at| now.saturating_sub(at) >= PAUSE);
        let is_due = !self.is_asking && (is_old || counted.last_success > self.asked_after);
        if is_due {
            self.is_asking = true;
            (self.asked_at, self.asked_after) = (Some(now), counted.last_success);
        }
        is_due
    }

    pub(super) fn answered(&mut self, answer: Result<Vec<BaseFacts>>) {
        self.is_asking = false;
        match answer {
            // What was told stays the same list, which a stream need not repeat.
            Ok(bases) if self.bases.as_deref() == Some(&bases) => self.error = None,
            Ok(bases) => (self.bases, self.error) = (Some(Arc::new(bases)), None),
            // The first backup makes the place.
            Err(error) if error.kind() == ErrorKind::InvalidInput && self.asked_after.is_none() => {
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }
}
