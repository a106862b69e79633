//! Servers for tests: private ones that a test starts, stops, kills and restarts, shared ones that the
//! environment names, a proxy that cuts and slows a line, and a load that runs while things go wrong.
//!
//! A test that cannot have its server prints why and ends; with `CI` set it fails instead:
//!
//! ```ignore
//! let Some(mut redis) = Redis::start(&[]).await else { return };      // private
//! let Some(url) = support::var("TIERSTACK_TEST_REDIS") else { return }; // shared
//! ```
//!
//! What a test starts ends with it, also when it panics or its process is killed.

#![allow(dead_code, unused_imports, reason = "with fewer features fewer parts are used")]

pub(crate) mod azurite;
#[cfg(feature = "serve")]
mod browser;
mod certificates;
pub(crate) mod child;
#[cfg(all(feature = "config", feature = "testing"))]
pub(crate) mod crash;
#[cfg(feature = "testing")]
pub(crate) mod cut_off;
pub(crate) mod fault;
pub(crate) mod mount;
mod pgbouncer;
mod port;
mod postgres;
mod process;
pub(crate) mod processes;
mod prometheus;
mod proxy;
mod redis;
mod secrets;
#[cfg(all(feature = "cache", feature = "config"))]
pub(crate) mod sharing;
#[cfg(feature = "testing")]
mod suite;
#[cfg(feature = "testing")]
pub(crate) mod unreachable;

pub(crate) use azurite::{AZURITE_KEY, Container};
#[cfg(feature = "serve")]
pub(crate) use browser::Browser;
pub(crate) use certificates::Certificates;
pub(crate) use fault::{Kept, Load, Progress, Report};
pub(crate) use pgbouncer::PgBouncer;
pub(crate) use postgres::{Postgres, PostgresOptions};
pub(crate) use prometheus::{Prometheus, promtool};
pub(crate) use proxy::{Counters, Proxy, Way};
pub(crate) use redis::{Redis, RedisCluster};
pub(crate) use secrets::secret;
#[cfg(feature = "testing")]
pub(crate) use suite::conforms;

/// What a test needs, or `None` with the reason printed. With `CI` set nothing is skipped: it fails.
pub(crate) fn required<T>(found: Option<T>, missing: &str) -> Option<T> {
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "in CI no test is skipped: {missing}");
        eprintln!("skipped: {missing}");
    }
    found
}

/// The address of a shared server, such as `var("TIERSTACK_TEST_POSTGRES")`.
pub(crate) fn var(name: &str) -> Option<String> {
    let found = std::env::var(name).ok().filter(|value| !value.is_empty());
    required(found, &format!("{name} is not set (`scripts/test-servers run COMMAND` sets it)"))
}

/// An address of loopback that stays free for a server that is to listen there.
pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", port::free())
}

/// Runs something that blocks, away from the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
