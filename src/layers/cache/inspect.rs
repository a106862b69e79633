//! What is kept of a key, told without a trace.

use super::config::CacheConfig;
use super::policy::{Answer, CoarseTime};
use super::state::Shared;
use crate::clock::Timestamp;
use crate::layer::LayerConfig;
use crate::telemetry::Labels;
use crate::types::units::Span;
use crate::types::{Inspection, Presence};

/// What this cache is called where it is among others.
pub(super) fn name(labels: &Labels) -> String {
    let name = if labels.layer().is_empty() { CacheConfig::NAME } else { labels.layer() };
    name.to_owned()
}

impl<S> Shared<S> {
    /// What is in memory, also when its time is over.
    pub(super) fn inspection(&self, key: &[u8]) -> Inspection {
        let epoch = self.coherence.epochs.now();
        let cached = self.engine.peek(key);
        let Some(cached) =
            cached.filter(|cached| self.coherence.epochs.serve(epoch, cached.epoch, key))
        else {
            return Inspection::none(&*self.name, "memory");
        };
        let mut inspection = Inspection::of_entry(&*self.name, "memory", cached.value());
        let config = &self.config;
        let (ttl, end) = match &cached.answer {
            Answer::Value(_) => (config.ttl, self.times.end(&cached)),
            Answer::Missing => {
                inspection.presence = Presence::Absence;
                (config.negative_ttl, cached.until)
            }
            Answer::Failed(_) => {
                inspection.presence = Presence::Failure;
                (config.error_ttl, cached.until)
            }
        };
        let idle = config.idle.zip(cached.extra.as_ref());
        let idle = idle.map(|(idle, extra)| extra.read().after(idle.0));
        inspection.fresh_until = self.wall_time(cached.until);
        inspection.kept_until = self.wall_time(idle.map_or(end, |idle| idle.min(end)));
        // Of a ttl that was shortened by chance nobody knows the beginning.
        if let Some(ttl) = ttl.filter(|_| config.jitter.as_f64() == 0.0) {
            inspection.age = Some(Span(self.now().since(cached.until.before(ttl.0))));
        }
        inspection
    }

    /// A moment of the coarse clock on the wall clock. `None`: it does not come.
    pub(super) fn wall_time(&self, time: CoarseTime) -> Option<Timestamp> {
        let (now, wall) = (self.now(), self.clock.now());
        let past = u64::try_from(now.since(time).as_millis()).unwrap_or(u64::MAX);
        let began = Timestamp::from_millis(wall.as_millis().saturating_sub(past));
        (time != CoarseTime::NEVER).then(|| began + time.since(now))
    }
}
