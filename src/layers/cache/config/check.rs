//! Which settings are refused.

use std::fmt;

use tokio::sync::Semaphore;

use super::settings::CacheConfig;
use super::warm_start::WarmStartConfig;
use crate::error::{Error, Result};
use crate::types::units::{ByteSize, Fraction};

/// Less holds too little to be a cache, and more no machine has.
const MIN_CAPACITY: u64 = 64 << 10;
const MAX_CAPACITY: u64 = 64 << 40;

/// Refuses a setting, with a message that begins with its name.
fn refused(setting: &'static str, why: impl fmt::Display) -> Result<()> {
    Err(Error::config(format!("{setting} {why}")).with_setting(setting))
}

impl CacheConfig {
    pub(in crate::layers::cache) fn check(&self) -> Result<()> {
        check_capacity(self.capacity)?;
        for (name, span) in [
            ("ttl", self.ttl),
            ("negative_ttl", self.negative_ttl),
            ("error_ttl", self.error_ttl),
            ("idle", self.idle),
            ("stale_while_refresh", self.stale_while_refresh),
            ("stale_if_error", self.stale_if_error),
            ("retry_after_error", Some(self.retry_after_error)),
            ("soft_timeout", self.soft_timeout),
            ("load_timeout", Some(self.load_timeout)),
        ] {
            if span.is_some_and(|span| span.0.is_zero()) {
                return refused(name, "is 0; it must be longer, or be left out");
            }
        }
        self.check_parts()?;
        for (name, set) in [
            ("refresh_ahead", self.refresh_ahead.is_some()),
            ("stale_while_refresh", self.stale_while_refresh.is_some()),
            ("stale_if_error", self.stale_if_error.is_some()),
        ] {
            if set && self.ttl.is_none() {
                return refused(name, "needs a ttl: without one an entry does not age");
            }
        }
        if let Some(soft) = self.soft_timeout {
            if self.stale_if_error.is_none() {
                return refused(
                    "soft_timeout",
                    "needs stale_if_error: without it there is no old value to serve instead",
                );
            }
            if soft >= self.load_timeout {
                return refused(
                    "soft_timeout",
                    format_args!(
                        "is {soft}; it must be shorter than load_timeout, which is {}",
                        self.load_timeout
                    ),
                );
            }
        }
        if self.max_loads == 0 || self.max_loads > Semaphore::MAX_PERMITS {
            return refused(
                "max_loads",
                format_args!(
                    "is {}; it must be from 1 to {}",
                    self.max_loads,
                    Semaphore::MAX_PERMITS
                ),
            );
        }
        if let Some(disk) = &self.disk {
            disk.check()?;
        }
        self.warm_start.as_ref().map_or(Ok(()), WarmStartConfig::check)
    }

    /// The settings that decide until when an entry is served, in words.
    pub(in crate::layers::cache) fn times(&self) -> String {
        let Self { ttl, idle, jitter, .. } = self;
        format!("{ttl:?} {idle:?} {jitter}")
    }

    fn check_parts(&self) -> Result<()> {
        let jitter = self.jitter;
        if jitter == Fraction::ONE {
            return refused(
                "jitter",
                format_args!("is {jitter}; it must be less, or an entry may have no time at all"),
            );
        }
        if jitter != Fraction::ZERO && self.ttl.is_none() && self.negative_ttl.is_none() {
            return refused("jitter", "needs a ttl or a negative_ttl, which it shortens");
        }
        let Some(ahead) = self.refresh_ahead else { return Ok(()) };
        if ahead == Fraction::ZERO || ahead == Fraction::ONE {
            return refused(
                "refresh_ahead",
                format_args!("is {ahead}; it must be more than 0 and less than 1, such as 0.8"),
            );
        }
        if ahead <= jitter {
            return refused(
                "refresh_ahead",
                format_args!(
                    "is {ahead}; it must be more than jitter, which is {jitter}, or an entry may be due as soon as it is loaded"
                ),
            );
        }
        Ok(())
    }
}

pub(in crate::layers::cache) fn check_capacity(capacity: ByteSize) -> Result<()> {
    if capacity.0 < MIN_CAPACITY {
        return refused("capacity", format_args!("is {capacity}; it must be at least 64KiB"));
    }
    if capacity.0 > MAX_CAPACITY {
        return refused("capacity", format_args!("is {capacity}; it must be at most 64TiB"));
    }
    Ok(())
}
