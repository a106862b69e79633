//! What a cache with these settings guarantees.

use std::time::Duration;

use super::disk::DiskConfig;
use super::settings::{CacheConfig, OnWrite};
use crate::layer::LayerConfig;
use crate::types::units::Span;
use crate::types::{Freshness, Place, Profile};

impl CacheConfig {
    /// What a cache with these settings guarantees.
    pub(in crate::layers::cache) fn profile_over(&self, below: Profile) -> Profile {
        let reported = below.guarantees.change_feed;
        let more = |late: Option<Span>| late.unwrap_or_default().0;
        let longest = |stale: Option<Span>| {
            let aged = self.ttl.map(|ttl| ttl.0.saturating_add(more(stale)));
            aged.map(|aged| aged.max(more(self.negative_ttl)))
        };
        let well = longest(self.stale_while_refresh);
        let unwell = well.max(longest(self.stale_if_error));
        let own = reported.into_iter().chain(unwell).min();
        let mut profile = Profile::layer(Self::NAME, below)
            .changed(|guarantees| guarantees.freshness = guarantees.freshness.delayed(own));
        if let Some(within) = reported {
            profile = profile.note(format!(
                "What others change is dropped from the cache when the change feed of the store below reports it, within {}. While the feed is interrupted nothing is kept, and every read goes below.",
                Span(within)
            ));
        }
        if let (Some(well), Some(unwell), None) = (well, unwell, reported)
            && well < unwell
        {
            profile = profile.note(format!(
                "An answer is up to {} old, and up to {} while loads fail.",
                Span(well),
                Span(unwell),
            ));
        }
        if self.on_write == OnWrite::Keep && !profile.guarantees.verbatim {
            profile = profile.note(
                "What is written is loaded when it is read, also with `on_write: keep`: the store below may give back something else than what was put.",
            );
        }
        if self.idle.is_some() && own.is_none() {
            profile = profile.note(
                "`idle` does not bound how late a foreign write is seen: a key that is read all the time stays. Only `ttl` does.",
            );
        }
        if let Some(disk) = &self.disk {
            profile = disk.profile_over(profile, own);
        }
        if self.warm_start.is_some() {
            profile = profile.changed(|guarantees| {
                // Keys alone: there is no value that is not sealed.
                let what = "keys for the warm start".into();
                guarantees.places.push(Place { name: Self::NAME.into(), what, sealed: true });
            });
        }
        profile
    }
}

impl DiskConfig {
    /// What the folder changes. `own`: how old an answer of this cache may be.
    fn profile_over(&self, profile: Profile, own: Option<Duration>) -> Profile {
        let place =
            Place { name: CacheConfig::NAME.into(), what: "disk cache".into(), sealed: false };
        let profile = profile.changed(|guarantees| {
            guarantees.places.push(place);
            // While the store is closed, somebody else can write.
            if self.warm && guarantees.freshness == Freshness::Exclusive {
                guarantees.freshness = Freshness::Immediate.delayed(own);
            }
        });
        if !self.warm {
            return profile;
        }
        profile.note(
            "What was cached at the last clean close is served again after a restart. What changes the store while this stack is closed is not seen before the ttl: a restore, another stack over the same backend, another program. Empty the folder of the cache after any of these.",
        )
    }
}
